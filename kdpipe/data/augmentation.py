"""How a view of an image is drawn: shifted and flipped on the device, and perhaps changed in colour and form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2


@dataclass(frozen=True)
class Augmentation:
    """What a training view may do to an image: shift by up to ``shift`` pixels, flip left-right.

    What comes in from outside of a shifted image is its reflection, or black. ``operations`` then draws changes of
    colour and form for each image.
    """

    name: str
    shift: int
    flip: bool
    outside: Literal["reflect", "constant"] = "reflect"
    operations: v2.Transform | None = None

    @property
    def views(self) -> int:
        """How many views shifts and flips make of an image."""
        return (2 * self.shift + 1) ** 2 * (2 if self.flip else 1)


AUGMENTATIONS = {
    policy.name: policy
    for policy in (
        Augmentation("none", 0, False),
        Augmentation("shift1", 1, False),
        Augmentation("shift2", 2, False),
        Augmentation("flip-shift2", 2, True),
        Augmentation("flip-shift4", 4, True),
        Augmentation("flip-crop4", 4, True, "constant"),  # of the literature: a crop of the image on black
        # Cubuk et al., 2020 (two operations of magnitude 9 of 31); Müller & Hutter, 2021; Cubuk et al., 2019 (CIFAR's).
        Augmentation("randaugment", 4, True, "constant", v2.RandAugment()),
        Augmentation("trivialaugment", 4, True, "constant", v2.TrivialAugmentWide()),
        Augmentation("autoaugment", 4, True, "constant", v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)),
    )
}


def draw_views(count: int, policy: Augmentation, generator: torch.Generator) -> Tensor:
    """A view (B,) in [0, policy.views) for each image: where it is cropped, and whether it is flipped.

    Args:
        generator: a CPU generator; draws happen there so that views agree across devices.
    """
    across = 2 * policy.shift + 1
    top, left = torch.randint(0, across, (2, count), generator=generator)
    view = top * across + left
    return view + across**2 * (torch.rand(count, generator=generator) < 0.5) if policy.flip else view


def augment(padded: Tensor, size: tuple[int, int], policy: Augmentation, views: Tensor) -> Tensor:
    """Crop and flip each image of a padded uint8 batch as its view says.

    Args:
        padded: (B, C, H + 2*shift, W + 2*shift) uint8.
        size: H and W of the crop.
        views: (B,) on the CPU, as :func:`draw_views` numbers them.
    """
    count, (height, width), device, across = len(padded), size, padded.device, 2 * policy.shift + 1
    top, left, flipped = views % across**2 // across, views % across, views >= across**2
    rows = (top[:, None] + torch.arange(height)).to(device)
    columns = left[:, None] + torch.arange(width)
    if policy.flip:
        columns = torch.where(flipped[:, None], columns.flip(1), columns)
    columns = columns.to(device)
    batch = torch.arange(count, device=device)[:, None, None]
    # Channels last in the gather: one index for three bytes instead of one for each.
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def operate(images: Tensor, operations: v2.Transform, seed: int) -> Tensor:
    """Each uint8 image of (B, C, H, W) changed by operations of its own, drawn by ``seed`` for all of them."""
    with seeded(seed):
        return torch.stack([operations(image) for image in images])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let what draws from torch's global CPU generator draw by ``seed``, for as long as the block takes."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # that of the CPU alone: a GPU's is left as it is
        yield
