"""Images in tables: Parquet as on the Hugging Face Hub, and Arrow as Hugging Face saves a dataset to disk."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdpipe.data.sources.base import Peek, RawData, Request, Source, Tick, folder_of, shown
from kdpipe.data.sources.images import checked, decode, stack
from kdpipe.data.sources.labels import FileLabels, one_numbering
from kdpipe.data.sources.layout import Role, by_role, files_below, role_of_word, role_within, test_candidates, words_of
from kdpipe.data.sources.tables import columns_of, described_columns, images_of, labels_of
from kdpipe.errors import DataError

_MOST_NAMED = 5
_OF_SHARDS = {"of", "part", "shard", "batch", "chunk", "file", "data", "set", "images", "split"}


@dataclass(frozen=True)
class _Tables:
    """The files of both splits, one numbering of their classes, and what was found and left out."""

    train: list[Path]
    test: list[Path]
    class_names: list[str]
    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64] | None
    notes: tuple[str, ...]


def _configuration(path: Path, place: Path) -> str:
    """What a file's place says beside its split and the number of its shard: the name of a configuration."""
    above = [part for part in path.relative_to(place).parent.parts if part != "data" and role_within(part) is None]
    words = re.split(r"[^A-Za-z0-9]+", path.stem)
    prefix = words[: next((i for i, word in enumerate(words) if role_within(word)), 0)]
    return "/".join([*above, *prefix])


def _variant(path: Path) -> str:
    """What a file's name says behind its split beside the number of its shard: ``clean`` of ``train_clean-0``."""
    words = words_of(path.stem)
    at = next((i for i, word in enumerate(words) if role_of_word(word)), len(words))
    return " ".join(word for word in words[at + 1 :] if word.isalpha() and word not in _OF_SHARDS)


def _role(path: Path, place: Path) -> Role | None:
    """By the file's name, else by the folders above it, the nearest first."""
    names = [path.stem, *reversed(path.relative_to(place).parent.parts)]
    return next((role for name in names if (role := role_within(name))), None)


def _files_by_role(suffix: str, place: Path) -> dict[Role, list[Path]]:
    """All files of the splits; files that name no split at all are training images.

    Raises:
        DataError: none to train on, or files of several configurations.
    """
    everything = files_below(place)
    found = [path for path in everything if path.suffix.lower() == suffix and not path.name.startswith("cache-")]
    roles = by_role((_role(path, place), path) for path in found) or ({"train": found} if found else {})
    if "train" not in roles:
        kinds = Counter(path.suffix.lower() or "(no suffix)" for path in everything)
        there = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3))
        raise DataError(
            f"{shown(place)}: no train*{suffix} there{shown(f' ({there})') if there else ''}; Hugging Face names files "
            f"train-00000-of-00001{suffix}, or puts them into a folder train."
        )
    configurations = sorted({_configuration(path, place) for paths in roles.values() for path in paths})
    if len(configurations) > 1:
        names = " and ".join(name or "one without a name" for name in configurations[:_MOST_NAMED])
        raise DataError(
            f"{shown(place)}: files of several configurations ({shown(names)}); set data.path to the folder of one, "
            "or give each a folder of its own."
        )
    for role, paths in roles.items():
        if len(variants := sorted({_variant(path) for path in paths})) > 1:
            names = " and ".join(name or "one without a name" for name in variants[:_MOST_NAMED])
            raise DataError(
                f"{shown(place)}: {role} files of several kinds ({names}); keep one kind in the folder, or move all "
                "that belong together into a folder of their split."
            )
    return roles


def _tables(suffix: str, request: Request, root: Path) -> _Tables:
    """Find the splits; a test split without labels is passed over for one for validation.

    Raises:
        DataError: as :func:`_files_by_role`, :func:`labels_of` and :func:`one_numbering`.
    """
    place = folder_of(request, root)
    roles = _files_by_role(suffix, place)
    train = [_labelled(path, request) for path in roles["train"]]
    test: list[FileLabels] = []
    notes = []
    for role, paths in test_candidates(roles):
        found = [labels_of(path, request) for path in paths]
        if test:
            notes.append(f"left out: {role} files, as validation images come out of the training images")
        elif all(file.withheld for file in found):
            notes.append(f"left out: {role} files, as they have no labels")
        else:
            test = found
    names, train_labels, test_labels = one_numbering(train, test)
    columns = columns_of(train[0].path, request)
    notes = [*_found(place, "training", train), *_found(place, "test", test), *notes]
    notes.append(f"images are in column {columns.image!r}, labels in {columns.label!r} ({train[0].kind})")
    of_train, of_test = [file.path for file in train], [file.path for file in test]
    return _Tables(of_train, of_test, names, train_labels, test_labels, tuple(map(shown, notes)))


def _found(place: Path, split: str, files: list[FileLabels]) -> Iterator[str]:
    """Which files a split has, and how many of its numbered shards are not there."""
    if not files:
        return
    names = [str(file.path.relative_to(place)) for file in files]
    yield f"{split} images: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} in {place}"
    wanted = {int(found[1]) for name in names if (found := re.search(r"-of-0*(\d+)", name))}
    if len(wanted) == 1 and (every := wanted.pop()) > len(files):
        yield f"only {len(files)} of the {every} {split} files are there, by their names"


def _labelled(path: Path, request: Request) -> FileLabels:
    labels = labels_of(path, request)
    if labels.column is None:
        wanted = f"data.label_column: there is no column {request.label_column!r}; it"
        if request.label_column is None:
            wanted = "needs a label: an integer or text column called label, or the one in data.label_column; it"
        raise DataError(f"{shown(path)}: {wanted} has {described_columns(path)}.")
    return labels


def _table_files(suffix: str, request: Request, root: Path) -> list[Path]:
    tables = _tables(suffix, request, root)
    return [*tables.train, *tables.test]


def _load_tables(suffix: str, request: Request, root: Path, tick: Tick) -> RawData:
    tables = _tables(suffix, request, root)
    labels = [tables.train_labels] if tables.test_labels is None else [tables.train_labels, tables.test_labels]
    files = [tables.train, tables.test][: len(labels)]
    images = stack([[item for path in paths for item in images_of(path, request)] for paths in files], request, tick)
    train, *test = (
        checked(pixels, numbers, len(tables.class_names), shown(paths[0]))
        for pixels, numbers, paths in zip(images, labels, files, strict=True)
    )
    return RawData(train, test[0] if test else None, tables.class_names, tables.notes)


def _peek_tables(suffix: str, request: Request, root: Path) -> Peek:
    tables = _tables(suffix, request, root)
    first = next(images[0] for path in tables.train if (images := images_of(path, request, rows=1)))
    channels, height, width = decode(*first, request).shape
    return Peek((channels, height, width), tables.class_names, tables.train_labels, tables.test_labels, tables.notes)


def _source(name: str, title: str, suffix: str) -> Source:
    return Source(
        name,
        title,
        partial(_table_files, suffix),
        partial(_load_tables, suffix),
        "flip-shift4",
        "that of the images",
        needs_path=True,
        peek=partial(_peek_tables, suffix),
        version=2,  # EXIF orientation, transparency, 16 bits
    )


SOURCES = (
    _source("parquet", "Hugging-Face-style Parquet", ".parquet"),
    _source("arrow", "Arrow files of a dataset that Hugging Face saved to disk", ".arrow"),
)
