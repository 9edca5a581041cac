"""An image folder: one folder a class, with or without folders of splits above them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdpipe.data.sources.base import Peek, RawData, Request, Source, Split, Tick, folder_of, shown
from kdpipe.data.sources.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES, checked, decode, stack
from kdpipe.data.sources.layout import (
    by_role,
    files_below,
    folders_in,
    is_leftover,
    look,
    refuse_alike,
    role_of,
    role_within,
    test_candidates,
)
from kdpipe.errors import DataError

Entries = list[tuple[Path, int]]


def _is_split(place: Path) -> bool:
    """Whether a folder holds folders and no image of its own, as a split does and a class called ``train`` does not."""
    files = (path for path in place.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not is_leftover(path.name))
    return bool(folders_in(place)) and not any(path.is_file() for path in files)


def _subsets(place: Path) -> tuple[Path, Path | None]:
    """The folders of the training and the test classes.

    Raises:
        DataError: folders that look like splits, of which it is not known which is which.
    """
    splits = [path for path in folders_in(place) if _is_split(path)]
    groups = by_role((role_of(path.name), path) for path in splits)
    like = {path.name: role for path in splits if (role := role_of(path.name) or role_within(path.name))}
    unknown = any(role_of(name) is None for name in like) and len(set(like.values())) > 1
    for role, found in groups.items():
        if len(found) > 1:
            raise DataError(
                f"{place}: {found[0].name} and {found[1].name} both look like {role} images; keep one of them."
            )
    if unknown or (groups and "train" not in groups):
        raise DataError(
            f"{place}: {' and '.join(like)} look like splits and not like classes; call the folders train and test, "
            "or set data.path to the one to use."
        )
    if not groups:
        return place, None
    tests = test_candidates(groups)
    return groups["train"][0], tests[0][1][0] if tests else None


def _classes(place: Path) -> dict[str, Path]:
    """Folders of the classes by the look of their names, in the order of their names.

    Raises:
        DataError: fewer than two, or names that cannot be told apart.
    """
    folders = folders_in(place)
    if len(folders) < 2:
        raise DataError(
            f"{place}: {len(folders)} class folders; an image folder holds one folder a class, two at least."
        )
    refuse_alike([path.name for path in folders], place)
    return {look(path.name): path for path in folders}


def _images_of(place: Path) -> list[Path]:
    """The images of a class.

    Raises:
        DataError: none, or files that may be images and are not read.
    """
    files = files_below(place)
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    others = Counter(
        path.suffix.lower() or "(no suffix)" for path in files if path.suffix.lower() not in IMAGE_SUFFIXES
    )
    unread = {suffix: count for suffix, count in others.items() if suffix in UNREAD_SUFFIXES or not images}
    if unread:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(unread.items()))
        raise DataError(
            f"{shown(place)}: it holds files that are not read ({kinds}); convert them to .png, or remove them."
        )
    if not images:
        raise DataError(f"{shown(place)}: the class is empty; add images or remove the folder.")
    return images


def _listed(request: Request, root: Path) -> tuple[list[str], Entries, Entries | None]:
    """Class names, and the images of both splits with their labels.

    Raises:
        DataError: as :func:`_subsets`, :func:`_classes` and :func:`_images_of`, or splits of other classes.
    """
    train, test = _subsets(folder_of(request, root))
    classes = _classes(train)
    labels = {name: label for label, name in enumerate(classes)}
    entries = [(path, labels[name]) for name, place in classes.items() for path in _images_of(place)]
    if test is None:
        return list(classes), entries, None
    others = _classes(test)
    if extra := set(others) - set(classes):
        raise DataError(f"{test / min(extra)}: this class has no folder under {train}.")
    if missing := set(classes) - set(others):
        raise DataError(f"{test}: class {min(missing)!r} of {train} has no folder here; add images of it.")
    tests = [(path, labels[name]) for name in classes for path in _images_of(others[name])]
    return list(classes), entries, tests


def _folder_files(request: Request, root: Path) -> list[Path]:
    _, train, test = _listed(request, root)
    return [path for path, _ in (*train, *(test or ()))]


def _load_folder(request: Request, root: Path, tick: Tick) -> RawData:
    names, train, test = _listed(request, root)

    def split(entries: Entries) -> Split:
        images = stack([(path, shown(path)) for path, _ in entries], request, tick)
        return checked(images, _labels(entries), len(names), str(entries[0][0]))

    return RawData(split(train), None if test is None else split(test), names)


def _peek_folder(request: Request, root: Path) -> Peek:
    names, train, test = _listed(request, root)
    shape = decode(train[0][0], shown(train[0][0]), request).shape
    tests = None if test is None else _labels(test)
    return Peek((shape[0], shape[1], shape[2]), names, _labels(train), tests)


def _labels(entries: Entries) -> NDArray[np.int64]:
    return np.array([label for _, label in entries], np.int64)


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
        version=2,  # EXIF orientation, transparency, 16 bits
    ),
)
