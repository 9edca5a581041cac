"""From the labels of many files to one numbering of classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdpipe.data.sources.layout import look, refuse_alike
from kdpipe.errors import DataError

Key = int | str

_SYNSET = re.compile(r"n\d{8}")
_SYNSET_LISTS = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")


@dataclass(frozen=True)
class FileLabels:
    """The labels of one file: integers, or text; with the file's own names of integers, if it has any.

    Attributes:
        column: where they stand; None where the file has no labels.
        values: one a row; None where it is empty.
        twins: whether some of the names look the same and were told apart by their order alone.
    """

    path: Path
    column: str | None
    values: list[Key | None]
    names: list[str] | None = None
    twins: bool = False

    @property
    def withheld(self) -> bool:
        """Whether no row has a label, as in test splits of competitions: none, empty, or -1 throughout."""
        return all(value is None or value == -1 for value in self.values)

    @property
    def kind(self) -> str:
        """What the classes are known by."""
        if self.names is not None:
            return "names of classes"
        return "text" if any(isinstance(value, str) for value in self.values) else "numbers without names"

    def keys(self) -> list[Key]:
        """What each row's class is known by in all files: its name where there are names.

        Raises:
            DataError: an empty label, or a number that no class has.
        """
        for row, value in enumerate(self.values):
            if value is None or (isinstance(value, str) and not value.strip()):
                raise DataError(f"{self.path}, row {row}: the label is empty; remove the row.")
        values: list[Key] = [value for value in self.values if value is not None]
        numbers = [value for value in values if isinstance(value, int)]
        if not numbers:
            return values
        if min(numbers) < 0 or (self.names is not None and max(numbers) >= len(self.names)):
            known = "labels are 0 or more" if self.names is None else f"there are {len(self.names)} classes"
            raise DataError(f"{self.path}: labels run from {min(numbers)} to {max(numbers)}, but {known}.")
        return values if self.names is None else [self.names[number] for number in numbers]


def told_apart(names: Sequence[object]) -> list[str]:
    """Class names of which no two look the same: the second crane of ImageNet becomes ``crane (2)``."""
    seen: Counter[str] = Counter()
    out = []
    for number, name in enumerate(names):
        text = str(name) if look(str(name)) else str(number)
        seen[look(text)] += 1
        out.append(text if seen[look(text)] == 1 else f"{text} ({seen[look(text)]})")
    return out


def described_classes(folders: Sequence[str], places: Sequence[Path]) -> list[str]:
    """Names of classes: those of their folders, or of ImageNet's synsets where a list of them lies in ``places``."""
    if not all(_SYNSET.fullmatch(name) for name in folders):
        return list(folders)
    for path in [place / name for place in places for name in _SYNSET_LISTS]:
        if not path.is_file():
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        known = dict(line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2)
        if known.keys() >= set(folders):
            return told_apart([known[name].partition(",")[0].strip() for name in folders])
    return list(folders)


def one_numbering(
    train: Sequence[FileLabels], test: Sequence[FileLabels]
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64] | None]:
    """Names of all classes that have images, and the labels of both splits as positions among them.

    Names count, not the numbers that a file gives them: shards may list one set of classes in different orders. The
    order is that of the first file's names, else that of numbers or text.

    Raises:
        DataError: files that do not know classes by the same thing, a class of the test split that has no training
            images, or values that are no classes.
    """
    files = [*train, *test]
    for file in files:
        if file.kind != files[0].kind:
            raise DataError(f"{file.path}: it has {file.kind}, where {files[0].path} has {files[0].kind}.")
        if file.names != files[0].names and (file.twins or files[0].twins):
            raise DataError(
                f"{file.path}: other names of classes than in {files[0].path}, and two of them are the same; "
                "give each class a name of its own."
            )
    keys = [file.keys() for file in files]
    used = {key for of_file in keys[: len(train)] for key in of_file}
    for file, of_file in zip(files[len(train) :], keys[len(train) :], strict=True):
        if extra := set(of_file) - used:
            raise DataError(f"{file.path}: class {min(map(str, extra))!r} has no image in the training files.")
    _refuse_no_classes(train, used)
    listed = dict.fromkeys(name for file in files for name in file.names or ())
    order: list[Key] = [name for name in listed if name in used] or sorted(used, key=lambda k: (isinstance(k, str), k))
    names = [str(key) for key in order]
    if files[0].kind == "text":
        refuse_alike(names, files[0].path)
    number = {key: i for i, key in enumerate(order)}
    of_files = [np.array([number[key] for key in of_file], np.int64) for of_file in keys]
    tests = of_files[len(train) :]
    return names, np.concatenate(of_files[: len(train)]), np.concatenate(tests) if tests else None


def _refuse_no_classes(train: Sequence[FileLabels], used: set[Key]) -> None:
    rows, file = sum(len(of_file.values) for of_file in train), train[0]
    if not rows:
        raise DataError(f"{file.path}: it holds no images.")
    if len(used) < 2:
        raise DataError(f"{file.path}: column {file.column!r} has {len(used)} class; there must be two at least.")
    if file.names is None and 2 * len(used) > rows:
        raise DataError(
            f"{file.path}: column {file.column!r} has {len(used)} different values in {rows} rows, so it is no label; "
            "set data.label_column."
        )
