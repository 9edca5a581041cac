"""An image folder: one folder a class, with or without folders of splits above them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdpipe.data.sources.base import Peek, RawData, Request, Source, Tick, folder_of, shown
from kdpipe.data.sources.images import (
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    and_more,
    begins_as_image,
    checked,
    decode,
    stack,
)
from kdpipe.data.sources.labels import described_classes
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


@dataclass(frozen=True)
class _Listing:
    """The images of both splits with their labels, and what was found and left out."""

    class_names: list[str]
    train: Entries
    test: Entries | None
    notes: tuple[str, ...]


def _own_images(place: Path) -> list[Path]:
    """Images that lie in a folder itself and not in one below it."""
    files = (path for path in place.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not is_leftover(path.name))
    return [path for path in files if not path.is_dir()]


def _is_split(place: Path) -> bool:
    """Whether a folder holds folders and no image of its own, as a split does and a class called ``train`` does not."""
    return bool(folders_in(place)) and not _own_images(place)


def _subsets(place: Path) -> tuple[Path, Path | None]:
    """The folders of the training and the test classes.

    Raises:
        DataError: folders that look like splits, of which it is not known which is which, or that hold no classes.
    """
    splits = [path for path in folders_in(place) if _is_split(path)]
    if any(role_of(path.name) for path in splits):  # beside a split, train is one too, whatever images lie in it
        splits = [path for path in folders_in(place) if path in splits or (role_of(path.name) and folders_in(path))]
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
        _refuse_splits_without_classes(place)
        return place, None
    train = groups["train"][0]
    candidates = [found[0] for _, found in test_candidates(groups)]
    return train, next((path for path in candidates if not _is_unlabelled(path, train)), None)


def _refuse_splits_without_classes(place: Path) -> None:
    """Refuse folders called train and test that hold images and no classes: their labels stand somewhere else."""
    roles = {path.name: role_of(path.name) for path in folders_in(place) if not _is_split(path)}
    named = [name for name, role in roles.items() if role is not None]
    if {"train"} < {roles[name] for name in named}:
        raise DataError(
            f"{place}: {' and '.join(named)} hold images and no folders of classes; put the images of each class into "
            "a folder of its own."
        )


def _is_unlabelled(test: Path, train: Path) -> bool:
    """Whether all images of a split lie in one folder that is no class, as in Tiny ImageNet's test and val."""
    folders = folders_in(test)
    return len(folders) == 1 and look(folders[0].name) not in {look(path.name) for path in folders_in(train)}


def _classes(place: Path) -> dict[str, Path]:
    """Folders of the classes by the look of their names, in the order of their names.

    Raises:
        DataError: fewer than two, or names that cannot be told apart.
    """
    folders = folders_in(place)
    if len(folders) < 2:
        only = f"; if {folders[0].name} holds them, set data.path to it" if folders else ""
        raise DataError(
            f"{shown(place)}: {len(folders)} class folders; an image folder holds one folder a class, two at "
            f"least{shown(only)}."
        )
    refuse_alike([path.name for path in folders], place)
    return {look(path.name): path for path in folders}


def _images_of(place: Path) -> tuple[list[Path], Counter[str]]:
    """The images of a class, and kinds of other files there.

    Raises:
        DataError: none, or files that may be images and are not read.
    """
    files = files_below(place)
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    rest = [path for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]
    others = Counter(path.suffix.lower() or "(no suffix)" for path in rest)
    unread = {suffix: count for suffix, count in others.items() if suffix in UNREAD_SUFFIXES or not images}
    if hidden := [path for path in rest if path.suffix.lower() not in UNREAD_SUFFIXES and begins_as_image(path)]:
        raise DataError(
            f"{shown(hidden[0])}: an image by its content and not by its name{and_more(hidden)}; give it the suffix of "
            "its format, or remove it."
        )
    if unread:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(unread.items()))
        raise DataError(
            f"{shown(place)}: it holds files that are not read ({shown(kinds)}); convert them to .png, or remove them."
        )
    if not images:
        raise DataError(f"{shown(place)}: the class is empty; add images or remove the folder.")
    return images, others


def _listed(request: Request, root: Path) -> _Listing:
    """Class names, and the images of both splits with their labels.

    Raises:
        DataError: as :func:`_subsets`, :func:`_classes` and :func:`_images_of`, or splits of other classes.
    """
    place = folder_of(request, root)
    train, test = _subsets(place)
    classes = _classes(train)
    labels = {name: label for label, name in enumerate(classes)}
    entries, others = _entries(classes, labels)
    names = described_classes(list(classes), [place, train])
    notes = [f"training images: one folder a class in {shown(train)}"]
    if test is None:
        return _Listing(names, entries, None, (*notes, *_left_out(place, train, None, others)))
    of_test = _classes(test)
    if extra := set(of_test) - set(classes):
        raise DataError(f"{shown(test / min(extra))}: this class has no folder under {shown(train)}.")
    if missing := set(classes) - set(of_test):
        raise DataError(
            f"{shown(test)}: class {min(missing)!r} of {shown(train)} has no folder here; add images of it."
        )
    tests, more = _entries({name: of_test[name] for name in classes}, labels)
    notes.append(f"test images: one folder a class in {shown(test)}")
    return _Listing(names, entries, tests, (*notes, *_left_out(place, train, test, others + more)))


def _entries(classes: dict[str, Path], labels: dict[str, int]) -> tuple[Entries, Counter[str]]:
    entries: Entries = []
    others: Counter[str] = Counter()
    for name, place in classes.items():
        images, kinds = _images_of(place)
        entries += [(path, labels[name]) for path in images]
        others += kinds
    return entries, others


def _left_out(place: Path, train: Path, test: Path | None, others: Counter[str]) -> Iterator[str]:
    """What lies under ``place`` and is not used, with the reason."""
    if train != place:
        for path in folders_in(place):
            if path not in (train, test):
                why = "it is no training or test split"
                if role_of(path.name) is not None:
                    why = "validation images come out of the training images" if test else "it has no classes"
                yield f"left out: the folder {shown(path)}, as {why}"
    for folder in dict.fromkeys((place, train, *([test] if test else []))):
        if beside := _own_images(folder):
            images = "1 image" if len(beside) == 1 else f"{len(beside)} images"
            yield f"left out: {images} beside the folders in {shown(folder)}, without a class"
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        yield f"left out: files in classes that are no images ({shown(kinds)})"


def _folder_files(request: Request, root: Path) -> list[Path]:
    found = _listed(request, root)
    return [path for path, _ in (*found.train, *(found.test or ()))]


def _load_folder(request: Request, root: Path, tick: Tick) -> RawData:
    found = _listed(request, root)
    splits = [found.train] if found.test is None else [found.train, found.test]
    images = stack([[(path, shown(path)) for path, _ in entries] for entries in splits], request, tick)
    train, *test = (
        checked(pixels, _labels(entries), len(found.class_names), shown(entries[0][0]))
        for pixels, entries in zip(images, splits, strict=True)
    )
    return RawData(train, test[0] if test else None, found.class_names, found.notes)


def _peek_folder(request: Request, root: Path) -> Peek:
    found = _listed(request, root)
    path, _ = found.train[0]
    channels, height, width = decode(path, shown(path), request).shape
    tests = None if found.test is None else _labels(found.test)
    return Peek((channels, height, width), found.class_names, _labels(found.train), tests, found.notes)


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
        version=3,  # EXIF orientation, transparency, 16 bits; linked folders, names of synsets
    ),
)
