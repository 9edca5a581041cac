"""From files and bytes to uint8 arrays of one shape."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from kdpipe.data.sources.base import Request, Split, Tick, no_tick, shown
from kdpipe.errors import DataError

IMAGE_SUFFIXES = frozenset({".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"})
IMAGE_SUFFIXES |= {".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
# A class that holds images of these kinds would be smaller than people think if they were left out without a word.
UNREAD_SUFFIXES = frozenset({".arw", ".cr2", ".dcm", ".dng", ".exr", ".heic", ".heif", ".jp2", ".nef", ".psd", ".svg"})

Encoded = bytes | Path | Callable[[], Image.Image]
_MOST_NAMED = 10  # images that cannot be read, one line each

_MODES = {1: "L", 3: "RGB"}
_SIXTEEN_BITS = {"I;16", "I;16L", "I;16B", "I;16N"}
_LFS = b"version https://git-lfs"
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: Encoded, place: str, request: Request) -> NDArray[np.uint8]:
    """One image as (C, H, W) uint8, as a viewer shows it, in the channels and size that the request asks for, if any.

    Turned as EXIF says; transparent parts lie on white; 16-bit grey keeps its upper eight bits; an animation gives
    its first frame.

    Args:
        data: the file's bytes, its path, or what opens it.
        place: where it lies, for people.

    Raises:
        DataError: no image can be read from ``data``, or none whose black and white are known.
    """
    image = _opened(data, place)
    try:
        image = _opaque(_eight_bits(_upright(image)))
        if request.channels is not None:
            image = image.convert(_MODES[request.channels])
        elif image.mode not in _MODES.values():
            image = image.convert("RGB")
    except ValueError as error:
        raise DataError(f"{place}: {error}; save it as 8-bit grey or RGB.") from None
    if request.image_size is not None:
        image = resize(image, request.image_size)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def _opened(data: Encoded, place: str) -> Image.Image:
    try:
        if callable(data):
            return data()
        content = data if isinstance(data, bytes) else data.read_bytes()
        with Image.open(io.BytesIO(content)) as file:
            file.load()
            pages = getattr(file, "n_frames", 1) if file.format == "TIFF" else 1
    except (MemoryError, DataError):
        raise
    except Exception as error:  # Pillow's readers raise of every kind on damaged bytes
        reason = "no format that is known" if isinstance(error, UnidentifiedImageError) else shown(error)
        if isinstance(data, Path) and not data.exists():
            reason = "a link to a file that is not there, as git-annex leaves them; fetch it with git annex get"
        elif _is_pointer(data):
            reason = "a Git LFS pointer, fetch the image itself with git lfs pull"
        raise DataError(f"{place}: not a readable image ({reason}); replace or remove it.") from None
    if pages > 1:
        raise DataError(f"{place}: a TIFF of {pages} pages; save each page as a file of its own.")
    return file


def _is_pointer(data: Encoded) -> bool:
    """Whether only Git LFS's note of where the file lies is there."""
    if callable(data):
        return False
    if isinstance(data, bytes):
        return data.startswith(_LFS)
    with contextlib.suppress(OSError), data.open("rb") as file:
        return file.read(len(_LFS)) == _LFS
    return False


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; Pillow has turned a TIFF by itself and then says nothing."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF beside a whole picture: viewers show it as it lies
        return image
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits by its upper eight, as Pillow itself reads RGB of 16 bits.

    Raises:
        ValueError: numbers whose black and white nobody has said.
    """
    if image.mode == "F" or (image.mode == "I" and image.format not in {"PPM", "PNG"}):
        kind = "floating-point numbers" if image.mode == "F" else "32-bit integers"
        raise ValueError(f"its pixels are {kind}, and no file says which is black and which white")
    if image.mode != "I" and image.mode not in _SIXTEEN_BITS:
        return image
    deep = np.asarray(image).astype(np.uint16)
    flat = Image.fromarray((deep >> 8).astype(np.uint8))
    if isinstance(clear := image.info.get("transparency"), int):
        flat.putalpha(Image.fromarray(np.where(deep == clear, 0, 255).astype(np.uint8)))
        return _on_white(flat).convert("L")
    return flat


def _opaque(image: Image.Image) -> Image.Image:
    """On white where it is transparent, whatever colours are hidden there."""
    if image.mode in {"La", "RGBa"}:  # colours multiplied by alpha
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if not image.has_transparency_data:
        return image
    return _on_white(image).convert("L" if image.mode == "L" else "RGB")


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def resize(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to ``size``, then the central square, as torchvision's Resize and CenterCrop."""
    if image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def stack(
    splits: Sequence[Sequence[tuple[Encoded, str]]], request: Request, tick: Tick = no_tick
) -> list[NDArray[np.uint8]]:
    """Decode the images of some splits, each image with its place, at once: (N, C, H, W) of each split.

    Raises:
        DataError: as :func:`decode`, a line an image, or images of a split that come out in different shapes.
    """

    def attempt(item: tuple[Encoded, str]) -> NDArray[np.uint8] | DataError:
        try:
            return decode(item[0], item[1], request)
        except DataError as error:
            return error

    images: list[NDArray[np.uint8]] = []
    faults: list[DataError] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(attempt, [item for split in splits for item in split]):
            if isinstance(found, DataError):
                faults.append(found)
            else:
                images.append(found)
            tick(1)
    if faults:
        rest = [f"and {len(faults) - _MOST_NAMED} more images like these."] if len(faults) > _MOST_NAMED else []
        raise DataError("\n".join([*map(str, faults[:_MOST_NAMED]), *rest]))
    stacked = []
    for split in splits:
        mine, images = images[: len(split)], images[len(split) :]
        _refuse_shapes(mine, [place for _, place in split])
        stacked.append(np.stack(mine))
    return stacked


def _refuse_shapes(images: Sequence[NDArray[np.uint8]], places: Sequence[str]) -> None:
    """Refuse images of which not all have the shape of the first."""
    channels, height, width = images[0].shape
    other = [i for i, image in enumerate(images) if image.shape[0] != channels]
    if other:
        raise DataError(
            f"{places[other[0]]}: {images[other[0]].shape[0]} channels, where the first image has {channels}"
            f"{and_more(other)}; set data.channels to 1 or 3 to convert all."
        )
    other = [i for i, image in enumerate(images) if image.shape[1:] != (height, width)]
    if other:
        _, rows, columns = images[other[0]].shape
        raise DataError(
            f"{places[other[0]]}: {columns}x{rows} pixels, where the first image has {width}x{height}"
            f"{and_more(other)}; set data.image_size to bring all to one size."
        )


def and_more(found: Sequence[object]) -> str:
    """How many there are beside the one that is named."""
    return f" ({len(found) - 1} more are like it)" if len(found) > 1 else ""


def begins_as_image(path: Path) -> bool:
    """Whether a file's first bytes are those of a usual format, whatever it is called."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(12)
        return head.startswith(_BEGINNINGS) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")
    return False


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
