"""Arrays in .npz and .npy files: as Keras and MedMNIST name them, or by names of one's own."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdpipe.data.sources.array_pixels import as_bytes, channels_first
from kdpipe.data.sources.base import RawData, Request, Source, Tick, folder_of, place_of, shown
from kdpipe.data.sources.images import checked, converted
from kdpipe.data.sources.labels import FileLabels, Key, one_numbering, told_apart
from kdpipe.data.sources.layout import Role, files_below, role_of_word, role_within, test_candidates
from kdpipe.errors import DataError

Kind = Literal["images", "labels"]
_IMAGES = frozenset({"image", "images", "img", "imgs", "x", "data", "pixels"})
_LABELS = frozenset({"label", "labels", "y", "target", "targets", "class", "category"})
_NAMES = frozenset({"class_names", "label_names", "classes", "names"})
_FILLERS = frozenset({"set", "split"})  # train_set_x
_DAMAGE = (OSError, ValueError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class _Member:
    """An array by its file, and its name there."""

    path: Path
    name: str

    def __str__(self) -> str:
        return shown(f"{self.path}, array {self.name!r}")

    def read(self) -> NDArray[Any]:
        """The array.

        Raises:
            DataError: damaged, or Python objects, which could run code when they are read.
        """
        try:
            found = np.load(self.path, allow_pickle=False)
            if self.path.suffix.lower() == ".npy":
                return _array(found)
            with found:
                return _array(found[self.name])
        except _DAMAGE as error:
            if "Object arrays" in str(error):
                raise DataError(
                    f"{self}: Python objects, which could run code when they are read; save it as numbers or as text "
                    "(array.astype(str))."
                ) from None
            raise DataError(f"{self}: damaged, or no array ({shown(error)}); save it again.") from None


@dataclass(frozen=True)
class _Arrays:
    """Images and labels of each split, names of the classes, and what was found."""

    splits: dict[Role, dict[Kind, _Member]]
    class_names: _Member | None
    files: list[Path]
    notes: list[str]


def _array(found: Any) -> NDArray[Any]:
    if not isinstance(found, np.ndarray):
        raise ValueError("no array in NumPy's format")
    return found


def _words(name: str) -> list[str]:
    """Lower-case words of a name, those of ``trainImages`` and ``xtrain`` among them."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return re.findall(r"[a-z0-9]+", re.sub(r"\b([xy])(?=(train|test|val|valid|dev)\b)", r"\1_", apart))


def _without_split(name: str) -> str:
    """A name without the word for its split: ``x`` of ``x_train``."""
    return "_".join(word for word in _words(name) if role_of_word(word) is None and word not in _FILLERS)


def _members(request: Request, root: Path) -> list[_Member]:
    """All arrays of the file or folder of ``data.path``.

    Raises:
        DataError: no such files, or a damaged one.
    """
    place = place_of(request, root)
    files = [place] if place.is_file() else files_below(folder_of(request, root))
    files = [path for path in files if path.suffix.lower() in {".npz", ".npy"}]
    if not files:
        raise DataError(f"{shown(place)}: no .npz or .npy file; save images and labels with numpy.savez.")
    return [_Member(path, name) for path in files for name in _names_in(path)]


def _names_in(path: Path) -> list[str]:
    if path.suffix.lower() == ".npy":
        return [path.stem]
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except _DAMAGE as error:
        raise DataError(f"{shown(path)}: damaged, or no .npz file ({shown(error)}); save it again.") from None


def _found(request: Request, root: Path) -> _Arrays:
    """Which arrays are images and which are labels, of which split.

    Raises:
        DataError: none, or several that could be meant.
    """
    members = _members(request, root)
    files = sorted({member.path for member in members})
    splits: dict[Role, dict[Kind, _Member]] = {}
    class_names, rest = None, []
    for member in members:
        role = role_within(" ".join(_words(member.name))) or _role_of_file(member.path, files)
        kind = _kind(member.name, request)
        if kind is None and _without_split(member.name) in _NAMES:
            class_names = member
        elif kind is None:
            rest.append(member)
        elif (other := splits.setdefault(role, {}).setdefault(kind, member)) is not member:
            raise DataError(
                f"{other} and {member} could both be the {kind} of the {role} split; set "
                f"data.{kind.removesuffix('s')}_column to the one to use."
            )
    if {"images", "labels"} - splits.get("train", {}).keys():
        raise DataError(
            f"{shown(place_of(request, root))}: no images and labels to train on among "
            f"{shown(', '.join(repr(member.name) for member in members))}; call them x_train and y_train, or images "
            "and labels, or set data.image_column and data.label_column."
        )
    notes = [f"left out: {member}, as its name is none of images or labels" for member in rest]
    return _Arrays(splits, class_names, files, notes)


def _kind(name: str, request: Request) -> Kind | None:
    """What an array holds by its name: the one that the study gives, else a usual one."""
    chosen: dict[Kind, str | None] = {"images": request.image_column, "labels": request.label_column}
    usual: dict[Kind, frozenset[str]] = {"images": _IMAGES, "labels": _LABELS}
    own = _without_split(name)
    for kind, wanted in chosen.items():
        if (own in usual[kind]) if wanted is None else (name == wanted or own == _without_split(wanted)):
            return kind
    return None


def _role_of_file(path: Path, files: list[Path]) -> Role:
    """Of one among several files, by its name, else by the folders in which they differ; else images to train on."""
    common = len(Path(os.path.commonpath(files)).parts)
    parts = [path.stem, *reversed(path.parts[common:-1])] if len(files) > 1 else []
    return next((role for part in parts if (role := role_within(part))), "train")


def _labels(member: _Member, names: list[str] | None) -> FileLabels:
    """Labels (N,), (N, 1) or one-hot (N, K), as integers or text.

    Raises:
        DataError: of another shape or type, or several classes an image.
    """
    values = member.read()
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.dtype.kind in "buif" and values.size:
        ones = (values == 1).sum(axis=1)
        if not ((ones == 1).all() and ((values == 0).sum(axis=1) == values.shape[1] - 1).all()):
            raise DataError(f"{member}: {values.shape[1]} values an image and not one class; give one class an image.")
        values = values.argmax(axis=1)
    if values.ndim != 1:
        raise DataError(f"{member}: its shape is {values.shape}, and labels are (N,), (N, 1) or one-hot (N, classes).")
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (values == np.floor(values))
        if not whole.all():
            row = int(whole.argmin())
            raise DataError(
                f"{member}, row {row}: the label is {values[row]:g}, and classes are whole numbers or text."
            )
        values = values.astype(np.int64)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind == "b":
        values = values.astype(str)
    if values.dtype.kind not in "iuU":
        raise DataError(f"{member}: labels of type {values.dtype}; save them as integers or text.")
    keys: list[Key | None] = values.tolist()
    return FileLabels(member.path, member.name, keys, None if values.dtype.kind == "U" else names)


def _load_arrays(request: Request, root: Path, tick: Tick) -> RawData:
    found = _found(request, root)
    names = None if found.class_names is None else told_apart(found.class_names.read().ravel().tolist())
    train = _labels(found.splits["train"]["labels"], names)
    tests: list[tuple[_Member, FileLabels]] = []
    notes = []
    for role, (arrays,) in test_candidates({role: [arrays] for role, arrays in found.splits.items()}):
        labels = _labels(arrays["labels"], names) if {"images", "labels"} <= arrays.keys() else None
        if tests:
            notes.append(f"left out: {role} arrays, as validation images come out of the training images")
        elif labels is None or labels.withheld:
            notes.append(f"left out: {role} arrays, as they are not images with labels")
        else:
            tests.append((arrays["images"], labels))
    class_names, train_labels, test_labels = one_numbering([train], [labels for _, labels in tests])
    members = [found.splits["train"]["images"], *(member for member, _ in tests)]
    pixels = as_bytes([(str(member), _images(member, request)) for member in members])
    numbers = [train_labels] if test_labels is None else [train_labels, test_labels]
    splits = []
    for member, images, of_split in zip(members, pixels, numbers, strict=True):
        splits.append(converted(checked(images, of_split, len(class_names), str(member)), request))
        tick(len(images))
    said = [*_described(members, [train, *(labels for _, labels in tests)]), *found.notes, *notes]
    return RawData(splits[0], splits[1] if tests else None, class_names, tuple(map(shown, said)))


def _images(member: _Member, request: Request) -> NDArray[Any]:
    return channels_first(member.read(), str(member), request.channel_axis)


def _described(members: list[_Member], labels: list[FileLabels]) -> Iterator[str]:
    for split, member, of_split in zip(("training", "test"), members, labels, strict=False):
        yield f"{split} images: {member}, with labels {of_split.column!r} ({of_split.kind})"


def _array_files(request: Request, root: Path) -> list[Path]:
    return _found(request, root).files


SOURCES = (
    Source(
        "arrays",
        "Arrays in .npz or .npy files",
        _array_files,
        _load_arrays,
        "flip-shift4",
        "that of the images",
        needs_path=True,
    ),
)
