"""torchvision's datasets, which download themselves where there is a network."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdpipe.data.sources.base import DATA_ROOT_VARIABLE, Peek, RawData, Request, Source, Split, Tick, shown
from kdpipe.data.sources.images import Encoded, checked, converted, decode, stack
from kdpipe.data.sources.labels import told_apart
from kdpipe.errors import DataError

_ARCHIVES = {".gz", ".tar", ".tgz", ".zip"}


@dataclass(frozen=True)
class _Vision:
    """A dataset of torchvision.

    Attributes:
        name: of its class.
        folder: where it puts its files, under the root.
        train: arguments that give its training images.
        test: those that give its test images; None where all its images are in one set.
        pattern: its files in ``folder``.
        transposed: whether rows and columns of its images have changed places.
    """

    name: str
    folder: str
    train: Mapping[str, Any] = field(default_factory=lambda: {"train": True})
    test: Mapping[str, Any] | None = field(default_factory=lambda: {"train": False})
    pattern: str = "**/*"
    transposed: bool = False

    @property
    def splits(self) -> list[Mapping[str, Any]]:
        """Arguments of each split."""
        return [self.train] if self.test is None else [self.train, self.test]


def _gives_paths(make: type) -> bool:
    """Whether a dataset lets its reader have paths in the place of images: decoding is ours, and labels need none."""
    return "loader" in inspect.signature(make.__init__).parameters  # type: ignore[misc]


def _opened(of: _Vision, request: Request, root: Path, arguments: Mapping[str, Any]) -> Any:
    """One split, from what is there or from the network.

    Raises:
        DataError: neither.
    """
    from torchvision import datasets

    place, make = root / (request.path or "torchvision"), getattr(datasets, of.name)
    by_path = {"loader": Path} if _gives_paths(make) else {}
    try:
        with contextlib.suppress(OSError, RuntimeError):  # not there, or not whole
            return make(str(place), **arguments, **by_path)
        return make(str(place), download=True, **arguments, **by_path)
    except Exception as error:  # torchvision reads what it finds there, and raises of every kind on what is damaged
        for made in (place / of.folder, place):  # by torchvision, before it looked; only an empty one goes
            with contextlib.suppress(OSError):
                made.rmdir()
        raise DataError(
            f"{of.name}: neither found in {place / of.folder} nor downloadable ({shown(error)}); put the files there, "
            f"or set --data-root or {DATA_ROOT_VARIABLE} to the folder that has them."
        ) from None


def _files(of: _Vision, request: Request, root: Path) -> list[Path]:
    for arguments in of.splits:
        _opened(of, request, root, arguments)
    found = (root / (request.path or "torchvision") / of.folder).glob(of.pattern)
    return sorted(path for path in found if path.is_file() and path.suffix not in _ARCHIVES)


def _class_names(dataset: Any, labels: NDArray[np.int64]) -> list[str]:
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if names is None:
        return [str(label) for label in range(int(labels.max()) + 1)]
    return told_apart([name[0] if isinstance(name, tuple) else name for name in names])


def _arrays(of: _Vision, dataset: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, C, H, W) and labels (N,) of a dataset that holds its images in an array."""
    labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
    images = np.asarray(dataset.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = np.moveaxis(images, 3, 1)
    return images.swapaxes(2, 3) if of.transposed else images, np.asarray(labels)


def _paths(dataset: Any) -> tuple[list[tuple[Encoded, str]], NDArray[np.int64]]:
    """The images of a dataset opened with ``loader=Path``, each with its place, and labels (N,)."""
    pairs = [dataset[index] for index in range(len(dataset))]
    return [(path, shown(path)) for path, _ in pairs], np.array([label for _, label in pairs], np.int64)


def _decoded(of: _Vision, dataset: Any, request: Request, tick: Tick) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, C, H, W) and labels (N,) of a dataset of files, of which only a few are open at a time."""
    if _gives_paths(type(dataset)):
        items, labels = _paths(dataset)
        return stack([items], request, tick)[0], labels
    labels = np.full(len(dataset), -1, np.int64)

    def opened(index: int) -> Image.Image:
        image, labels[index] = dataset[index]
        assert isinstance(image, Image.Image)
        return image

    items = [(partial(opened, index), f"{of.name}, image {index}") for index in range(len(dataset))]
    return stack([items], request, tick)[0], labels


def _load(of: _Vision, request: Request, root: Path, tick: Tick) -> RawData:
    splits, names = [], []
    for arguments in of.splits:
        dataset = _opened(of, request, root, arguments)
        in_memory = hasattr(dataset, "data")
        images, labels = _arrays(of, dataset) if in_memory else _decoded(of, dataset, request, tick)
        names = _class_names(dataset, labels)
        splits.append(converted(checked(images, labels, len(names), of.name), request))
    names, numbers = _used(of, names, [split.labels for split in splits])
    train, *test = (Split(split.images, labels) for split, labels in zip(splits, numbers, strict=True))
    return RawData(train, test[0] if test else None, names, (_note(of, request, root),))


def _peek(of: _Vision, request: Request, root: Path) -> Peek:
    """Of a dataset whose labels are known without its images."""
    datasets = [_opened(of, request, root, arguments) for arguments in of.splits]
    found = [_paths(dataset) for dataset in datasets]
    names, (train, *test) = _used(of, _class_names(datasets[0], found[0][1]), [labels for _, labels in found])
    channels, height, width = decode(*found[0][0][0], request).shape
    note = (_note(of, request, root),)
    return Peek((channels, height, width), names, train, test[0] if test else None, note)


def _note(of: _Vision, request: Request, root: Path) -> str:
    taken = " and ".join(split["split"] for split in of.splits if "split" in split)
    which = "which has no test split" if of.test is None else f"splits {taken}" if taken else "its two splits"
    return shown(f"torchvision's {of.name} in {root / (request.path or 'torchvision') / of.folder}, {which}")


def _used(of: _Vision, names: list[str], splits: list[NDArray[np.int64]]) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Without classes that have no training image, such as ``N/A`` among EMNIST's letters.

    Raises:
        DataError: a class that only test images have.
    """
    used = np.unique(splits[0])
    for labels in splits[1:]:
        if extra := set(labels.tolist()) - set(used.tolist()):
            raise DataError(f"{of.name}: class {names[min(extra)]!r} has no image in the training split.")
    number = np.full(len(names), -1, np.int64)
    number[used] = np.arange(len(used))
    return [names[label] for label in used], [number[labels] for labels in splits]


def _source(name: str, title: str, augmentation: str, licence: str, of: _Vision, peeks: bool = False) -> Source:
    peek = partial(_peek, of) if peeks else None
    return Source(name, title, partial(_files, of), partial(_load, of), augmentation, licence, peek=peek)


def _by_split(name: str, folder: str, train: str = "train", test: str = "test", **more: Any) -> _Vision:
    return _Vision(name, folder, {"split": train}, {"split": test}, **more)


def _in_one_set(name: str, folder: str) -> _Vision:
    return _Vision(name, folder, {}, None)


_RESEARCH = "unspecified, research use"

SOURCES = (
    _source("cifar10", "CIFAR-10", "flip-shift4", _RESEARCH, _Vision("CIFAR10", "cifar-10-batches-py")),
    _source("cifar100", "CIFAR-100", "flip-shift4", _RESEARCH, _Vision("CIFAR100", "cifar-100-python")),
    _source("mnist", "MNIST", "shift2", "CC BY-SA 3.0", _Vision("MNIST", "MNIST/raw")),
    _source("fashion-mnist", "Fashion-MNIST", "flip-shift2", "MIT", _Vision("FashionMNIST", "FashionMNIST/raw")),
    _source("kmnist", "Kuzushiji-MNIST", "shift2", "CC BY-SA 4.0", _Vision("KMNIST", "KMNIST/raw")),
    _source("usps", "USPS digits", "shift1", _RESEARCH, _Vision("USPS", ".", pattern="usps*")),
    *(
        _source(
            f"emnist-{split}",
            f"EMNIST, {split}",
            "shift2",
            "public domain (NIST)",
            _Vision(
                "EMNIST",
                "EMNIST/raw",
                {"split": split, "train": True},
                {"split": split, "train": False},
                pattern=f"emnist-{split}-*",
                transposed=True,
            ),
        )
        for split in ("balanced", "letters")
    ),
    _source(
        "svhn",
        "Street View House Numbers",
        "shift2",
        "non-commercial use",
        _by_split("SVHN", ".", pattern="*_32x32.mat"),
    ),
    _source("stl10", "STL-10", "flip-shift4", _RESEARCH, _by_split("STL10", "stl10_binary")),
    _source("gtsrb", "German Traffic Sign Recognition Benchmark", "shift2", _RESEARCH, _by_split("GTSRB", "gtsrb")),
    _source("food101", "Food-101", "flip-shift4", _RESEARCH, _by_split("Food101", "food-101"), peeks=True),
    _source(
        "oxford-pets",
        "Oxford-IIIT Pets",
        "flip-shift4",
        "CC BY-SA 4.0",
        _by_split("OxfordIIITPet", "oxford-iiit-pet", train="trainval"),
    ),
    _source(
        "flowers102",
        "Oxford Flowers 102",
        "flip-shift4",
        _RESEARCH,
        _by_split("Flowers102", "flowers-102"),
        peeks=True,
    ),
    _source("dtd", "Describable Textures", "flip-shift4", _RESEARCH, _by_split("DTD", "dtd"), peeks=True),
    _source("eurosat", "EuroSAT", "flip-shift4", "MIT", _in_one_set("EuroSAT", "eurosat"), peeks=True),
    _source(
        "imagenette",
        "Imagenette, 160 pixels",
        "flip-shift4",
        "that of ImageNet",
        _Vision(
            "Imagenette",
            "imagenette2-160",
            {"split": "train", "size": "160px"},
            {"split": "val", "size": "160px"},
        ),
        peeks=True,
    ),
    _source("caltech101", "Caltech 101", "flip-shift4", "CC BY 4.0", _in_one_set("Caltech101", "caltech101")),
    _source(
        "fgvc-aircraft",
        "FGVC-Aircraft",
        "flip-shift4",
        "research use",
        _by_split("FGVCAircraft", "fgvc-aircraft-2013b", train="trainval"),
        peeks=True,
    ),
    _source(
        "stanford-cars",
        "Stanford Cars",
        "flip-shift4",
        _RESEARCH,
        _by_split("StanfordCars", "stanford_cars"),
        peeks=True,
    ),
)
