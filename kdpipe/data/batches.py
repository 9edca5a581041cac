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

from kdpipe.data.augmentation import Augmentation, augment, draw_views
from kdpipe.data.sources.base import Split
from kdpipe.data.splits import Indices
from kdpipe.seeds import derive_seed


@lru_cache(maxsize=8)
def _epoch(count: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed("epoch", seed, epoch))
    return torch.randperm(count, generator=generator)


@dataclass(frozen=True)
class Batch:
    """Images (B, C, H, W) float32 in [0, 1] with labels (B,), places in their stream's images (B,) and views (B,)."""

    images: Tensor
    labels: Tensor
    positions: Tensor
    views: Tensor


class Batches:
    """An endless stream of augmented batches over some images, addressed by step.

    Args:
        split: images (N, C, H, W) uint8 and labels (N,), brought to ``device`` once, padded once.
        indices: which of them take part.
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
    ) -> None:
        self.size = (int(split.images.shape[2]), int(split.images.shape[3]))
        margin = (policy.shift, policy.shift)
        padded = np.pad(split.images[indices], ((0, 0), (0, 0), margin, margin), mode=policy.outside)
        self.padded = torch.from_numpy(padded).to(device).contiguous(memory_format=torch.channels_last)
        self.labels = torch.from_numpy(split.labels[indices]).to(device)
        self.batch_size, self.seed, self.policy, self.stream = batch_size, seed, policy, stream

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
        generator = torch.Generator().manual_seed(derive_seed("views", self.stream, self.seed, step))
        views = draw_views(self.batch_size, self.policy, generator)
        device = self.labels.device
        chosen = chosen.to(device)
        return Batch(self._cropped(chosen, views), self.labels[chosen], chosen, views.to(device))

    def render(self, positions: Tensor, view: int) -> Tensor:
        """One and the same view of some images, as a batch would show it."""
        return self._cropped(positions.to(self.labels.device), torch.full((len(positions),), view))

    def _cropped(self, positions: Tensor, views: Tensor) -> Tensor:
        return augment(self.padded[positions], self.size, self.policy, views).float() / 255.0


def as_input(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 images as network input: (B, C, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(images)).to(device).float() / 255.0
