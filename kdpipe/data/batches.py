"""Batches of a study's images, augmented on the device and addressed by step.

Images stay uint8 on the device from first to last; a batch is gathered, shifted and flipped there.
Which images a step sees, and how they are shifted, depends on ``(data_seed, step)`` alone, so that
every student of a seed sees the same views whoever trains with it, on whichever device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdpipe.data.augmentation import Augmentation, augment, draw_views, operate
from kdpipe.data.mixing import UNMIXED, Mixing
from kdpipe.data.sources.base import Split
from kdpipe.data.splits import Indices
from kdpipe.seeds import derive_seed


@lru_cache(maxsize=8)
def _epoch(count: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed("epoch", seed, epoch))
    return torch.randperm(count, generator=generator)


@dataclass(frozen=True)
class Batch:
    """Images (B, C, H, W) float32 in [0, 1] with labels (B,), places in their stream's images (B,) and views (B,).

    Of mixed images, labels and places are those of the first of the two, and ``class_shares`` (B, K) says how much of
    each class is in them.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor
    views: Tensor
    class_shares: Tensor | None = None


class Batches:
    """An endless stream of augmented batches over some images, addressed by step.

    Args:
        split: images (N, C, H, W) uint8 and labels (N,), brought to ``device`` once, padded once.
        indices: which of them take part.
        mixing: whether images of a batch are mixed with each other.
        stream: name of the stream; streams of one seed with other names are independent.
    """

    def __init__(
        self,
        split: Split,
        indices: Indices,
        *,
        batch_size: int,
        seed: int,
        policy: Augmentation,
        device: torch.device,
        stream: str = "labelled",
        mixing: Mixing = UNMIXED,
    ) -> None:
        self.size = (int(split.images.shape[2]), int(split.images.shape[3]))
        margin = (policy.shift, policy.shift)
        padded = np.pad(split.images[indices], ((0, 0), (0, 0), margin, margin), mode=policy.outside)
        self.padded = torch.from_numpy(padded).to(device).contiguous(memory_format=torch.channels_last)
        self.labels = torch.from_numpy(split.labels[indices]).to(device)
        self.batch_size, self.seed, self.policy, self.stream = batch_size, seed, policy, stream
        self.mixing, self.classes = mixing, int(split.labels.max()) + 1

    @property
    def shows_known_views(self) -> bool:
        """Whether an image and its view say all about what is shown."""
        return self.policy.operations is None and not self.mixing.used

    def positions(self, step: int) -> Tensor:
        """Which images step ``step`` sees: the next stretch of one seeded permutation after another."""
        count = len(self.labels)
        wanted = range(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = range(wanted[0] // count, wanted[-1] // count + 1)
        stream = torch.cat([_epoch(count, derive_seed(self.stream, self.seed), epoch) for epoch in epochs])
        start = wanted[0] - epochs[0] * count
        return stream[start : start + self.batch_size]

    def __call__(self, step: int) -> Batch:
        """The batch of a step, on the device."""
        chosen = self.positions(step)
        generator = torch.Generator().manual_seed(self._seed("views", step))
        views = draw_views(self.batch_size, self.policy, generator)
        device = self.labels.device
        chosen = chosen.to(device)
        images, labels, shares = self._cropped(chosen, views), self.labels[chosen], None
        if self.policy.operations is not None:
            images = operate(images, self.policy.operations, self._seed("operations", step))
        images = images.float() / 255.0
        if self.mixing.used:
            images, shares = self.mixing(images, labels, self.classes, self._seed("mixing", step))
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, labels, chosen, views.to(device), shares)

    def render(self, positions: Tensor, view: int) -> Tensor:
        """One and the same view of some images, as a batch would show it."""
        return self._cropped(positions.to(self.labels.device), torch.full((len(positions),), view)).float() / 255.0

    def _seed(self, use: str, step: int) -> int:
        return derive_seed(use, self.stream, self.seed, step)

    def _cropped(self, positions: Tensor, views: Tensor) -> Tensor:
        return augment(self.padded[positions], self.size, self.policy, views)


def as_input(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 images as network input: (B, C, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(images)).to(device).float() / 255.0
