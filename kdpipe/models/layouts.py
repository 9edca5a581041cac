"""Layouts: how what a layer returned is read as a map (B, C, H, W).

Four axes are (B, C, H, W) or (B, H, W, C), three are tokens (B, N, C) or (B, C, N), two are (B, C). Which of them, a
shape tells where an image's proportions are found in it; where it does not, the layer's own weights and the
network's other layers do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

PREFIX_TOKENS = 5  # at most: a class token and four registers
Kind = Literal["BCHW", "BHWC", "BNC", "BCN", "BC"]


@dataclass(frozen=True)
class Layout:
    """The axes of a layer's output.

    Attributes:
        kind: its axes: batch, channels, height, width, N tokens.
        prefix: tokens before the first that stands for a place in the image; they are left out of the map.
        grid: (H, W) of the other tokens; None where they are no grid, and become (N, 1).
    """

    kind: Kind
    prefix: int = 0
    grid: tuple[int, int] | None = None

    def as_map(self, output: Tensor) -> Tensor:
        """(B, C, H, W) of what the layer returned."""
        if self.kind == "BCHW":
            return output
        if self.kind == "BHWC":
            return output.permute(0, 3, 1, 2)
        if self.kind == "BC":
            return output[:, :, None, None]
        channels_first = output.transpose(1, 2) if self.kind == "BNC" else output
        places = channels_first[:, :, self.prefix :]
        return places.unflatten(2, self.grid or (places.shape[2], 1))


@dataclass(frozen=True)
class Hints:
    """What a network says of its layers' axes.

    Attributes:
        image: (H, W) of the images that go in.
        format: ``output_fmt`` of the module: "NCHW" or "NHWC"; None where it has no such attribute.
        prefix: ``num_prefix_tokens`` of the module; None where it has no such attribute.
        patches: (H, W) of the patch embedding's map; None where there is none.
    """

    image: tuple[int, int]
    format: str | None = None
    prefix: int | None = None
    patches: tuple[int, int] | None = None


def layouts_of(outputs: Sequence[tuple[tuple[int, ...], int | None]], hints: Hints) -> list[Layout | None]:
    """The layout of each layer of a network, None where nothing tells it.

    Args:
        outputs: for each layer the shape of what it returned, batch included, and the channels that its last
            weights give, where it has any.
    """
    found = [_layout(shape[1:], channels, hints) for shape, channels in outputs]
    maps = Counter(layout.kind for layout in found if layout is not None and layout.kind in {"BCHW", "BHWC"})
    usual = Layout(maps.most_common(1)[0][0]) if len(maps) == 1 else None
    return [layout or (usual if len(shape) == 4 else None) for layout, (shape, _) in zip(found, outputs, strict=True)]


def _layout(shape: tuple[int, ...], channels: int | None, hints: Hints) -> Layout | None:
    if len(shape) == 1:
        return Layout("BC")
    if len(shape) == 2:
        return _tokens(shape, channels, hints)
    return _map(shape, channels, hints) if len(shape) == 3 else None


def _map(shape: tuple[int, ...], channels: int | None, hints: Hints) -> Layout | None:
    first, last = _proportioned(shape[1:], hints.image), _proportioned(shape[:2], hints.image)
    if first == last:
        first, last = hints.format == "NCHW", hints.format == "NHWC"
    if first == last:
        first, last = shape[0] == channels, shape[2] == channels
    if first == last:
        return None
    return Layout("BCHW" if first else "BHWC")


def _proportioned(sides: tuple[int, ...], image: tuple[int, int]) -> bool:
    """Whether a map of these sides may be the image, made smaller by one factor."""
    (height, width), (whole_height, whole_width) = sides, image
    return abs(height * whole_width - width * whole_height) < max(image)


def _tokens(shape: tuple[int, ...], channels: int | None, hints: Hints) -> Layout:
    channels_first = channels is not None and shape[0] == channels != shape[1]
    count = shape[1] if channels_first else shape[0]
    prefix, grid = _grid(count, hints)
    return Layout("BCN" if channels_first else "BNC", prefix, grid)


def _grid(count: int, hints: Hints) -> tuple[int, tuple[int, int] | None]:
    """Prefix tokens, and the grid of the others."""
    if hints.patches is not None and 0 <= (extra := count - math.prod(hints.patches)) <= PREFIX_TOKENS:
        return extra, hints.patches
    for prefix in range(PREFIX_TOKENS + 1) if hints.prefix is None else (hints.prefix,):
        places = count - prefix
        height = math.isqrt(max(places, 0) * hints.image[0] // hints.image[1])
        if height and places % height == 0 and _proportioned((height, places // height), hints.image):
            return prefix, (height, places // height)
    return 0, None
