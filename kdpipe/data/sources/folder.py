"""An image folder: one folder a class, with or without train and test above them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kdpipe.data.sources.base import Peek, RawData, Request, Source, Split, Tick, folder_of
from kdpipe.data.sources.images import checked, decode, stack
from kdpipe.errors import DataError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm"}


def _subsets(place: Path) -> tuple[Path, Path | None]:
    """The folders of the training and the test classes."""
    if not (place / "train").is_dir():
        return place, None
    tests = [place / name for name in ("test", "val", "validation") if (place / name).is_dir()]
    return place / "train", tests[0] if tests else None


def _classes(place: Path) -> list[str]:
    names = sorted(path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2:
        raise DataError(f"{place}: {len(names)} class folders; an image folder holds one folder a class, two at least.")
    return names


def _images_of(place: Path, names: list[str]) -> Iterator[tuple[Path, int]]:
    for label, name in enumerate(names):
        found = sorted(p for p in (place / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not found:
            raise DataError(f"{place / name}: the class is empty; add images or remove the folder.")
        for path in found:
            yield path, label


def _folder_files(request: Request, root: Path) -> list[Path]:
    train, test = _subsets(folder_of(request, root))
    names = _classes(train)
    return [path for place in (train, test) if place is not None for path, _ in _images_of(place, names)]


def _load_folder(request: Request, root: Path, tick: Tick) -> RawData:
    train, test = _subsets(folder_of(request, root))
    names = _classes(train)
    if test is not None and (extra := set(_classes(test)) - set(names)):
        raise DataError(f"{test / min(extra)}: this class has no folder under {train}.")

    def split(place: Path) -> Split:
        entries = list(_images_of(place, names))
        images = stack([(path, str(path)) for path, _ in entries], request, tick)
        return checked(images, np.array([label for _, label in entries]), len(names), str(place))

    return RawData(split(train), split(test) if test is not None else None, names)


def _peek_folder(request: Request, root: Path) -> Peek:
    train, test = _subsets(folder_of(request, root))
    names = _classes(train)
    entries = list(_images_of(train, names))
    first = decode(entries[0][0], str(entries[0][0]), request)
    tests = None if test is None else sum(1 for _ in _images_of(test, names))
    return Peek((first.shape[0], first.shape[1], first.shape[2]), names, len(entries), tests)


SOURCES = (
    Source(
        "folder",
        "Image folder, one folder a class",
        _folder_files,
        _load_folder,
        "flip-shift4",
        "that of the images",
        needs_path=True,
        peek=_peek_folder,
    ),
)
