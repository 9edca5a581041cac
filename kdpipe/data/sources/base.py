"""What a source of images is, and what every one of them can be asked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kdpipe.errors import DataError
from kdpipe.files import sha256_of

DATA_ROOT_VARIABLE = "KDPIPE_DATA"
ChannelAxis = Literal["first", "last"]
Tick = Callable[[int], None]


def no_tick(images: int) -> None:
    """For those who do not watch the decoding."""


def shown(value: object) -> str:
    """A path, a name or a reason on one line that any screen can print."""
    return " ".join(str(value).encode("utf-8", "replace").decode().split())


class Request(Protocol):
    """What a source needs to know of a study's data section."""

    @property
    def path(self) -> str | None: ...
    @property
    def image_size(self) -> int | None: ...
    @property
    def channels(self) -> int | None: ...
    @property
    def image_column(self) -> str | None: ...
    @property
    def label_column(self) -> str | None: ...
    @property
    def channel_axis(self) -> ChannelAxis | None: ...


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and labels (N,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class RawData:
    """A decoded dataset; ``test`` is None where the source has no split of its own.

    Attributes:
        notes: as those of :class:`Peek`.

    Raises:
        DataError: test images of another shape.
    """

    train: Split
    test: Split | None
    class_names: list[str]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.test is None or self.test.images.shape[1:] == self.train.images.shape[1:]:
            return
        test, train = ("x".join(map(str, split.images.shape[1:])) for split in (self.test, self.train))
        raise DataError(
            f"test images are {test} (channels, height, width), and training images {train}; set data.channels or "
            "data.image_size to bring all to one shape."
        )


@dataclass(frozen=True)
class Peek:
    """What a dataset looks like, read without decoding it all: enough to check a study against it.

    Attributes:
        image_shape: (C, H, W).
        train_labels: (N,) of all images that are no test images of the source's own.
        test_labels: (M,); None where the source has no test split of its own.
        notes: where images and labels were found, and what was left out and why: for people, a sentence each.
        train_digests: (N,) one hash an image, equal where the pixels are; None where not all were decoded.
        test_digests: (M,) likewise.
    """

    image_shape: tuple[int, int, int]
    class_names: list[str]
    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64] | None
    notes: tuple[str, ...] = ()
    train_digests: NDArray[np.bytes_] | None = None
    test_digests: NDArray[np.bytes_] | None = None

    @property
    def train(self) -> int:
        """Number of images that are no test images of the source's own."""
        return len(self.train_labels)

    @property
    def test(self) -> int | None:
        """Number of test images of the source's own."""
        return None if self.test_labels is None else len(self.test_labels)


@dataclass(frozen=True)
class Source:
    """A dataset or a format.

    Attributes:
        files: the files it would read, given the request and the data root; fetches them if it can.
        load: decode them; told how many images are done, it can be watched.
        peek: look at them; None where loading is quick.
        needs_path: whether the study must say where the data lies.
        version: raised when the same files would be decoded to other images.
    """

    name: str
    title: str
    files: Callable[[Request, Path], list[Path]]
    load: Callable[[Request, Path, Tick], RawData]
    augmentation: str
    licence: str
    note: str = ""
    needs_path: bool = False
    peek: Callable[[Request, Path], Peek] | None = None
    version: int = 1


def data_root(given: Path | None) -> Path:
    """The folder that relative data paths start from: the option, the environment, or here."""
    return Path(given or os.environ.get(DATA_ROOT_VARIABLE) or ".").expanduser()


def fingerprint(source: Source, request: Request, root: Path) -> str:
    """Identity of the source's content: names and bytes of its files, wherever they lie."""
    digest = hashlib.sha256(source.name.encode())
    files = source.files(request, root)
    base = Path(os.path.commonpath([str(path.parent) for path in files])) if files else root
    for path in files:
        entry = f"{path.relative_to(base)}:{sha256_of(path)};"
        digest.update(entry.encode("utf-8", "surrogateescape"))  # names of files need not be UTF-8
    return digest.hexdigest()


def peek(source: Source, request: Request, root: Path) -> Peek:
    """Shape, classes and labels of a dataset, as quickly as the source allows."""
    return inspect(source, request, root) if source.peek is None else source.peek(request, root)


def inspect(source: Source, request: Request, root: Path, tick: Tick = no_tick) -> Peek:
    """As :func:`peek`, with every image decoded: what this does not refuse, a run can read.

    Raises:
        DataError: images that cannot be read or fit no other.
    """
    raw = source.load(request, root, tick)
    shape = raw.train.images.shape
    tests = None if raw.test is None else raw.test.labels
    seen = Peek((shape[1], shape[2], shape[3]), raw.class_names, raw.train.labels, tests, raw.notes)
    of_tests = None if raw.test is None else digests(raw.test.images)
    return replace(seen, train_digests=digests(raw.train.images), test_digests=of_tests)


def digests(images: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """A hash (N,) of the pixels of each of (N, C, H, W)."""
    return np.array([hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest().encode() for image in images])


def place_of(request: Request, root: Path) -> Path:
    """Where ``data.path`` points, from the data root on."""
    assert request.path is not None
    return root / Path(request.path).expanduser()


def folder_of(request: Request, root: Path) -> Path:
    """The folder that ``data.path`` names.

    Raises:
        DataError: it is not there.
    """
    place = place_of(request, root)
    if place.is_file():
        raise DataError(f"{place}: this is a file; set data.path to the folder that holds it.")
    if not place.is_dir():
        raise DataError(
            f"{place}: there is no such folder; set data.path, and --data-root or {DATA_ROOT_VARIABLE} "
            "for the folder it starts from."
        )
    return place
