"""From arrays of numbers to images of bytes: which axis holds the channels, which numbers are black and white."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdpipe.data.sources.base import ChannelAxis
from kdpipe.errors import DataError

_CHANNELS = (1, 3)
_AT_ONCE = 1024  # images whose conversion is in memory at a time
_KINDS = {"b": "truth values", "u": "whole numbers", "i": "whole numbers", "f": "floating-point numbers"}


def channels_first(images: NDArray[Any], place: str, axis: ChannelAxis | None) -> NDArray[Any]:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W), of 1 or 3 channels.

    Args:
        axis: which of the last two it is, where both could be.

    Raises:
        DataError: another shape, or one that could be both.
    """
    if 0 in images.shape:
        raise DataError(f"{place}: it is empty, its shape is {images.shape}.")
    if images.ndim == 3:
        return images[:, None]
    axes: dict[ChannelAxis, int] = {"first": 1, "last": 3}
    where = [name for name, at in axes.items() if images.ndim == 4 and images.shape[at] in _CHANNELS]
    if not where or (axis is not None and axis not in where):
        raise DataError(
            f"{place}: its shape is {images.shape}, and images are (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 "
            "channels; reshape it."
        )
    if axis is None and len(where) > 1:
        raise DataError(
            f"{place}: shape {images.shape} can be (N, C, H, W) and (N, H, W, C); set data.channel_axis to first or "
            "last."
        )
    return images if (axis or where[0]) == "first" else np.moveaxis(images, 3, 1)


def as_bytes(splits: Sequence[tuple[str, NDArray[Any]]]) -> list[NDArray[np.uint8]]:
    """Images of all splits as bytes, by one rule for all.

    ======================================  ==================
    numbers                                 bytes
    ======================================  ==================
    false and true                          0 and 255
    whole, 0 to 255, not 0 and 1 alone      as they are
    16 bits without sign, beyond 255        the upper eight
    floating-point from 0 to 1              times 255, rounded
    ======================================  ==================

    Whole numbers may be written as floating-point.

    Args:
        splits: (N, C, H, W) of any type, each with its place.

    Raises:
        DataError: numbers whose black and white nobody has said, or splits of different types.
    """
    place, first = splits[0]
    for other, images in splits[1:]:
        if images.dtype != first.dtype:
            raise DataError(f"{other}: its numbers are {images.dtype}, and those of {place} are {first.dtype}.")
    if first.dtype.kind not in _KINDS:
        raise DataError(f"{place}: its numbers are {first.dtype}, and no image; save it as uint8.")
    with np.errstate(invalid="ignore"):
        low = min(float(images.min()) for _, images in splits)
        high = max(float(images.max()) for _, images in splits)
    whole = first.dtype.kind != "f" or all(_is_whole(images) for _, images in splits)
    if first.dtype.kind == "b" or (first.dtype.kind == "f" and low >= 0 and high <= 1):
        factor, shift = 255.0, 0
    elif whole and low >= 0 and 1 < high <= 255:
        factor, shift = 1.0, 0
    elif first.dtype.kind == "u" and first.dtype.itemsize == 2 and high > 255:
        factor, shift = 1.0, 8
    else:
        kind = f"{_KINDS[first.dtype.kind]} ({first.dtype}) from {low:g} to {high:g}"
        raise DataError(
            f"{place}: its pixels are {kind}, and nobody has said which is black and which white; bring them to 0 to "
            "255 as uint8, or to 0 to 1 as floating-point numbers."
        )
    return [_converted(images, factor, shift) for _, images in splits]


def _is_whole(images: NDArray[Any]) -> bool:
    parts = (images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE))
    return all(bool((part == np.floor(part)).all()) for part in parts)


def _converted(images: NDArray[Any], factor: float, shift: int) -> NDArray[np.uint8]:
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    out = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _AT_ONCE):
        part = images[start : start + _AT_ONCE]
        if shift:
            out[start : start + _AT_ONCE] = part >> shift
        else:
            out[start : start + _AT_ONCE] = np.round(part.astype(np.float64) * factor)
    return out
