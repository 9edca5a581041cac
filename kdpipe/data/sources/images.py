"""From files and bytes to uint8 arrays of one shape."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from kdpipe.data.sources.base import Request, Split, Tick, no_tick
from kdpipe.errors import DataError

_MODES = {1: "L", 3: "RGB"}


def decode(data: bytes | Path, place: str, request: Request) -> NDArray[np.uint8]:
    """One image as (C, H, W) uint8, in the channels and size that the request asks for, if any.

    Raises:
        DataError: no image can be read from ``data``; ``place`` says where it lies.
    """
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as file:
            file.load()
            image: Image.Image = file
            if request.channels is not None:
                image = image.convert(_MODES[request.channels])
            elif image.mode not in _MODES.values():
                image = image.convert("RGB")
            if request.image_size is not None:
                image = resize(image, request.image_size)
            pixels = np.asarray(image, dtype=np.uint8)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{place}: not a readable image ({error}); replace or remove it.") from None
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def resize(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to ``size``, then the central square, as torchvision's Resize and CenterCrop."""
    if image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def stack(items: list[tuple[bytes | Path, str]], request: Request, tick: Tick = no_tick) -> NDArray[np.uint8]:
    """Decode many images, each with its place, at once: (N, C, H, W).

    Raises:
        DataError: as :func:`decode`, or images that come out in different shapes.
    """
    images = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for image in pool.map(lambda item: decode(item[0], item[1], request), items):
            images.append(image)
            tick(1)
    shape = images[0].shape
    for image, (_, place) in zip(images, items, strict=True):
        if image.shape[0] != shape[0]:
            raise DataError(
                f"{place}: {image.shape[0]} channels, where the first image has {shape[0]}; "
                "set data.channels to 1 or 3 to convert all."
            )
        if image.shape != shape:
            raise DataError(
                f"{place}: {image.shape[2]}x{image.shape[1]} pixels, where the first image has "
                f"{shape[2]}x{shape[1]}; set data.image_size to bring all to one size."
            )
    return np.stack(images)


def checked(images: NDArray[np.uint8], labels: NDArray[Any], classes: int, place: str) -> Split:
    """A split whose labels are known to be whole and within range.

    Raises:
        DataError: no images, another number of labels, or a label that is no class.
    """
    if len(images) != len(labels):
        raise DataError(f"{place}: {len(images)} images but {len(labels)} labels.")
    labels = np.asarray(labels).astype(np.int64)
    if len(labels) == 0:
        raise DataError(f"{place}: it holds no images.")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{place}: labels run from {labels.min()} to {labels.max()}, but there are {classes} classes.")
    return Split(np.ascontiguousarray(images), labels)


def converted(split: Split, request: Request) -> Split:
    """Apply ``channels`` and ``image_size`` to images that were decoded by someone else."""
    channels, size = request.channels, request.image_size
    if channels in (None, split.images.shape[1]) and (size is None or split.images.shape[2:] == (size, size)):
        return split

    def one(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, 2)
        picture = Image.fromarray(pixels, _MODES[image.shape[0]]).convert(_MODES[channels or image.shape[0]])
        out = np.asarray(resize(picture, size) if size else picture, dtype=np.uint8)
        return out[None] if out.ndim == 2 else np.moveaxis(out, 2, 0)

    return Split(np.stack([one(image) for image in split.images]), split.labels)
