"""Mixed images: two images of a batch as one, and their labels by the shares that they have in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2

from kdpipe.data.augmentation import seeded


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed: every image with the one before it in the batch, all by one share.

    A batch is mixed by mixup (Zhang et al., 2018) or by CutMix (Yun et al., 2019); with both, it is one or the other
    with even chances.

    Attributes:
        mixup, cutmix: alpha of the distribution Beta(alpha, alpha) that the share is drawn from; 0 for never.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def used(self) -> bool:
        """Whether anything is mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def __call__(self, images: Tensor, labels: Tensor, classes: int, seed: int) -> tuple[Tensor, Tensor]:
        """Mixed images (B, C, H, W), and the share (B, K) of each class in them, for labels (B,)."""
        ways: list[v2.MixUp | v2.CutMix] = []
        if self.mixup > 0:
            ways.append(v2.MixUp(alpha=self.mixup, num_classes=classes))
        if self.cutmix > 0:
            ways.append(v2.CutMix(alpha=self.cutmix, num_classes=classes))
        with seeded(seed):
            way = ways[int(torch.randint(len(ways), ()))]
            mixed, shares = way(images, labels)
        return mixed, shares


UNMIXED = Mixing()
