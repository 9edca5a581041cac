"""Images in tables: Parquet as on the Hugging Face Hub, and Arrow as Hugging Face saves a dataset to disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdpipe.data.sources.base import Peek, RawData, Request, Source, Split, Tick, folder_of
from kdpipe.data.sources.images import checked, decode, stack
from kdpipe.data.sources.labels import FileLabels, one_numbering
from kdpipe.data.sources.layout import Role, by_role, files_below, role_within, test_candidates
from kdpipe.data.sources.tables import images_of, labels_of
from kdpipe.errors import DataError


@dataclass(frozen=True)
class _Tables:
    """The files of both splits, and one numbering of their classes."""

    train: list[Path]
    test: list[Path]
    class_names: list[str]
    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64] | None


def _configuration(path: Path, place: Path) -> str:
    """What a file's place says beside its split and the number of its shard: the name of a configuration."""
    above = [part for part in path.relative_to(place).parent.parts if part != "data" and role_within(part) is None]
    words = re.split(r"[^A-Za-z0-9]+", path.stem)
    prefix = words[: next((i for i, word in enumerate(words) if role_within(word)), 0)]
    return "/".join([*above, *prefix])


def _role(path: Path, place: Path) -> Role | None:
    """By the file's name, else by the folders above it, the nearest first."""
    names = [path.stem, *reversed(path.relative_to(place).parent.parts)]
    return next((role for name in names if (role := role_within(name))), None)


def _files_by_role(suffix: str, place: Path) -> dict[Role, list[Path]]:
    """All files of the splits; files that name no split at all are training images.

    Raises:
        DataError: none to train on, or files of several configurations.
    """
    found = [path for path in files_below(place) if path.suffix == suffix and not path.name.startswith("cache-")]
    roles = by_role((_role(path, place), path) for path in found) or ({"train": found} if found else {})
    if "train" not in roles:
        raise DataError(
            f"{place}: no train*{suffix} there; Hugging Face names files train-00000-of-00001{suffix}, "
            "or puts them into a folder train."
        )
    configurations = sorted({_configuration(path, place) for paths in roles.values() for path in paths})
    if len(configurations) > 1:
        names = " and ".join(name or "one without a name" for name in configurations[:2])
        raise DataError(f"{place}: files of several configurations ({names}); set data.path to the folder of one.")
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
    for _, paths in test_candidates(roles):
        test = [labels_of(path, request) for path in paths]
        if not all(file.withheld for file in test):
            break
        test = []
    if not any(file.values for file in train):
        raise DataError(f"{train[0].path}: it holds no images.")
    names, train_labels, test_labels = one_numbering(train, test)
    return _Tables([file.path for file in train], [file.path for file in test], names, train_labels, test_labels)


def _labelled(path: Path, request: Request) -> FileLabels:
    labels = labels_of(path, request)
    if labels.column is None:
        raise DataError(
            f"{path}: needs a label: an integer or text column called label, or the one that data.label_column names."
        )
    return labels


def _table_files(suffix: str, request: Request, root: Path) -> list[Path]:
    tables = _tables(suffix, request, root)
    return [*tables.train, *tables.test]


def _load_tables(suffix: str, request: Request, root: Path, tick: Tick) -> RawData:
    tables = _tables(suffix, request, root)

    def split(paths: list[Path], labels: NDArray[np.int64]) -> Split:
        items: list[tuple[bytes | Path, str]] = [item for path in paths for item in images_of(path, request)]
        return checked(stack(items, request, tick), labels, len(tables.class_names), str(paths[0]))

    test = None if tables.test_labels is None else split(tables.test, tables.test_labels)
    return RawData(split(tables.train, tables.train_labels), test, tables.class_names)


def _peek_tables(suffix: str, request: Request, root: Path) -> Peek:
    tables = _tables(suffix, request, root)
    first = next(images[0] for path in tables.train if (images := images_of(path, request, rows=1)))
    shape = decode(*first, request).shape
    return Peek((shape[0], shape[1], shape[2]), tables.class_names, tables.train_labels, tables.test_labels)


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
    )


SOURCES = (
    _source("parquet", "Hugging-Face-style Parquet", ".parquet"),
    _source("arrow", "Arrow files of a dataset that Hugging Face saved to disk", ".arrow"),
)
