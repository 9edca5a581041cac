"""Where images come from: one small record a dataset, each read into uint8 arrays in memory.

A source knows three things: which files it reads (their content, not their path, makes the cache
key), how to describe itself without decoding everything, and how to decode. A new one is a record
in :data:`SOURCES` and its functions.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from kdpipe.errors import DataError
from kdpipe.files import sha256_of

DATA_ROOT_VARIABLE = "KDPIPE_DATA"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm"}
_MODES = {1: "L", 3: "RGB"}


class Request(Protocol):
    """What a source needs to know of a study's data section."""

    @property
    def path(self) -> str | None: ...
    @property
    def image_size(self) -> int | None: ...
    @property
    def channels(self) -> int | None: ...


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and labels (N,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class RawData:
    """A decoded dataset; ``test`` is None where the source has no split of its own."""

    train: Split
    test: Split | None
    class_names: list[str]


@dataclass(frozen=True)
class Peek:
    """What a dataset looks like, read without decoding it all: enough to check a study against it."""

    image_shape: tuple[int, int, int]
    class_names: list[str]
    train: int
    test: int | None


@dataclass(frozen=True)
class Source:
    """A dataset or a format.

    Attributes:
        files: the files it would read, given the request and the data root; fetches them if it can.
        load: decode them.
        peek: look at them; None where loading is quick.
        needs_path: whether the study must say where the data lies.
    """

    name: str
    title: str
    files: Callable[[Request, Path], list[Path]]
    load: Callable[[Request, Path], RawData]
    augmentation: str
    licence: str
    note: str = ""
    needs_path: bool = False
    peek: Callable[[Request, Path], Peek] | None = None


def data_root(given: Path | None) -> Path:
    """The folder that relative data paths start from: the option, the environment, or here."""
    return Path(given or os.environ.get(DATA_ROOT_VARIABLE) or ".").expanduser()


def fingerprint(source: Source, request: Request, root: Path) -> str:
    """Identity of the source's content: names and bytes of its files, wherever they lie."""
    digest = hashlib.sha256(source.name.encode())
    files = source.files(request, root)
    base = Path(os.path.commonpath([str(path.parent) for path in files])) if files else root
    for path in files:
        digest.update(f"{path.relative_to(base)}:{sha256_of(path)};".encode())
    return digest.hexdigest()


def peek(source: Source, request: Request, root: Path) -> Peek:
    """Shape, classes and sizes of a dataset, as quickly as the source allows."""
    if source.peek is not None:
        return source.peek(request, root)
    raw = source.load(request, root)
    shape = raw.train.images.shape
    test = None if raw.test is None else len(raw.test.labels)
    return Peek((shape[1], shape[2], shape[3]), raw.class_names, len(raw.train.labels), test)


# --------------------------------------------------------------------------------- decoding images


def _decode(data: bytes | Path, place: str, request: Request) -> NDArray[np.uint8]:
    """One image as (C, H, W) uint8, in the channels and size that the request asks for, if any."""
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as file:
            file.load()
            image: Image.Image = file
            if request.channels is not None:
                image = image.convert(_MODES[request.channels])
            elif image.mode not in _MODES.values():
                image = image.convert("RGB")
            if request.image_size is not None:
                image = _resize(image, request.image_size)
            pixels = np.asarray(image, dtype=np.uint8)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{place}: not a readable image ({error}); replace or remove it.") from None
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def _resize(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to ``size``, then the central square."""
    if image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _stack(items: list[tuple[bytes | Path, str]], request: Request) -> NDArray[np.uint8]:
    """Decode many images at once; all must come out in one shape."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = list(pool.map(lambda item: _decode(item[0], item[1], request), items))
    shape = images[0].shape
    for image, (_, place) in zip(images, items, strict=True):
        if image.shape[0] != shape[0]:
            raise DataError(
                f"{place}: {image.shape[0]} channels, where the first image has {shape[0]}; "
                "set data.channels to 1 or 3 to convert all."
            )
        if image.shape != shape:
            raise DataError(
                f"{place}: {image.shape[2]}x{image.shape[1]} pixels, where the first image has "
                f"{shape[2]}x{shape[1]}; set data.image_size to bring all to one size."
            )
    return np.stack(images)


def _checked(images: NDArray[np.uint8], labels: NDArray[Any], classes: int, place: str) -> Split:
    """A split whose labels are known to be whole and within range."""
    if len(images) != len(labels):
        raise DataError(f"{place}: {len(images)} images but {len(labels)} labels.")
    labels = np.asarray(labels).astype(np.int64)
    if len(labels) == 0:
        raise DataError(f"{place}: it holds no images.")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{place}: labels run from {labels.min()} to {labels.max()}, but there are {classes} classes.")
    return Split(np.ascontiguousarray(images), labels)


def _converted(split: Split, request: Request, place: str) -> Split:
    """Apply ``channels`` and ``image_size`` to images that were decoded by someone else."""
    channels, size = request.channels, request.image_size
    if channels in (None, split.images.shape[1]) and (size is None or split.images.shape[2:] == (size, size)):
        return split
    modes = {1: "L", 3: "RGB"}

    def one(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, 2)
        picture = Image.fromarray(pixels, modes[image.shape[0]]).convert(modes[channels or image.shape[0]])
        out = np.asarray(_resize(picture, size) if size else picture, dtype=np.uint8)
        return out[None] if out.ndim == 2 else np.moveaxis(out, 2, 0)

    return Split(np.stack([one(image) for image in split.images]), split.labels)


# ------------------------------------------------------------------------------------------ digits


def _digits_files(request: Request, root: Path) -> list[Path]:
    import sklearn.datasets

    return [Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"]


def _load_digits(request: Request, root: Path) -> RawData:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255.0 / 16.0)).astype(np.uint8)[:, None]
    split = _converted(_checked(images, digits.target, 10, "digits"), request, "digits")
    return RawData(split, None, [str(name) for name in digits.target_names])


# ------------------------------------------------------------------------------------- torchvision


def _torchvision(name: str, folder: str, **extra: Any) -> dict[str, Any]:
    """The two functions of a torchvision dataset, which downloads itself where there is a network."""

    def arguments(train: bool) -> dict[str, Any]:
        return {"split": "train" if train else "test"} if extra.get("by_split") else {"train": train}

    def fetch(request: Request, root: Path, train: bool) -> Any:
        from torchvision import datasets

        place = root / (request.path or "torchvision")
        try:
            return getattr(datasets, name)(str(place), download=True, **arguments(train))
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{name}: neither found in {place / folder} nor downloadable ({reason}); put the files there, "
                f"or set --data-root or {DATA_ROOT_VARIABLE} to the folder that has them."
            ) from None

    def files(request: Request, root: Path) -> list[Path]:
        fetch(request, root, train=True)
        fetch(request, root, train=False)
        place = root / (request.path or "torchvision") / folder
        found = [path for path in place.glob(extra.get("pattern", "**/*")) if path.is_file()]
        return sorted(path for path in found if path.suffix not in {".gz", ".zip"})

    def load(request: Request, root: Path) -> RawData:
        splits, names = [], []
        for train in (True, False):
            dataset = fetch(request, root, train)
            labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
            images = np.asarray(dataset.data)
            if images.ndim == 3:
                images = images[:, None]
            elif images.shape[-1] == 3:
                images = np.moveaxis(images, 3, 1)
            names = [str(name) for name in getattr(dataset, "classes", [])]
            names = names or [str(label) for label in range(int(np.max(labels)) + 1)]
            splits.append(_converted(_checked(images, np.asarray(labels), len(names), name), request, name))
        return RawData(splits[0], splits[1], names)

    return {"files": files, "load": load}


# ------------------------------------------------------------------------------------ image folder


def _folder(request: Request, root: Path) -> Path:
    assert request.path is not None
    place = Path(request.path) if Path(request.path).is_absolute() else root / request.path
    if not place.is_dir():
        raise DataError(
            f"{place}: there is no such folder; set data.path, and --data-root or {DATA_ROOT_VARIABLE} "
            "for the folder it starts from."
        )
    return place


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
    train, test = _subsets(_folder(request, root))
    names = _classes(train)
    return [path for place in (train, test) if place is not None for path, _ in _images_of(place, names)]


def _load_folder(request: Request, root: Path) -> RawData:
    train, test = _subsets(_folder(request, root))
    names = _classes(train)
    if test is not None and (extra := set(_classes(test)) - set(names)):
        raise DataError(f"{test / min(extra)}: this class has no folder under {train}.")

    def split(place: Path) -> Split:
        entries = list(_images_of(place, names))
        images = _stack([(path, str(path)) for path, _ in entries], request)
        return _checked(images, np.array([label for _, label in entries]), len(names), str(place))

    return RawData(split(train), split(test) if test is not None else None, names)


def _peek_folder(request: Request, root: Path) -> Peek:
    train, test = _subsets(_folder(request, root))
    names = _classes(train)
    entries = list(_images_of(train, names))
    first = _decode(entries[0][0], str(entries[0][0]), request)
    tests = None if test is None else sum(1 for _ in _images_of(test, names))
    return Peek((first.shape[0], first.shape[1], first.shape[2]), names, len(entries), tests)


# ----------------------------------------------------------------------------------------- Parquet


def _parquet_files(request: Request, root: Path) -> list[Path]:
    place = _folder(request, root)
    if not (train := sorted(place.rglob("train*.parquet"))):
        raise DataError(f"{place}: no train*.parquet there; Hugging Face names files train-00000-of-00001.parquet.")
    return train + _parquet_test(place)


def _parquet_test(place: Path) -> list[Path]:
    for pattern in ("test*.parquet", "validation*.parquet", "valid*.parquet"):
        if found := sorted(place.rglob(pattern)):
            return found
    return []


def _load_parquet(request: Request, root: Path) -> RawData:
    place = _folder(request, root)
    files = _parquet_files(request, root)
    test_files = _parquet_test(place)
    names = _parquet_names(files)

    def split(paths: list[Path]) -> Split:
        items: list[tuple[bytes | Path, str]] = []
        labels: list[int] = []
        for path in paths:
            rows, numbers = _parquet_rows(path)
            items += [(data, f"{path}, row {row}") for row, data in enumerate(rows)]
            labels += numbers
        if not items:
            raise DataError(f"{paths[0]}: it holds no images.")
        return _checked(_stack(items, request), np.array(labels), len(names), str(paths[0]))

    train = split([path for path in files if path not in test_files])
    return RawData(train, split(test_files) if test_files else None, names)


def _peek_parquet(request: Request, root: Path) -> Peek:
    import pyarrow as pa

    files = _parquet_files(request, root)
    tests = _parquet_test(_folder(request, root))
    image = [_parquet_columns(path)[0] for path in files][0]  # all are looked at, so that all are known to be readable
    counts = {path: pq.read_metadata(path).num_rows for path in files}
    try:
        row = next(pq.ParquetFile(files[0]).iter_batches(batch_size=1, columns=[image]), None)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{files[0]}: damaged Parquet file ({error}); fetch it again.") from None
    entry = row.column(0)[0].as_py() if row is not None and row.num_rows else None
    if not entry or entry["bytes"] is None:
        raise DataError(f"{files[0]}: its first row has no image.")
    first = _decode(entry["bytes"], f"{files[0]}, row 0", request)
    shape = (first.shape[0], first.shape[1], first.shape[2])
    train = sum(rows for path, rows in counts.items() if path not in tests)
    return Peek(shape, _parquet_names(files), train, sum(counts[path] for path in tests) if tests else None)


def _parquet_columns(path: Path) -> tuple[str, str, dict[bytes, bytes]]:
    """Names of the image and label column, and the schema's metadata."""
    import pyarrow as pa

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}); fetch it again.") from None
    images = [f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    labels = [f.name for f in schema if pa.types.is_integer(f.type)]
    preferred = [name for name in ("label", "labels", "fine_label") if name in labels] or labels
    if not images or not preferred:
        raise DataError(
            f"{path}: needs an image column (a struct with 'bytes') and an integer label column; "
            f"it has {', '.join(schema.names)}."
        )
    return images[0], preferred[0], schema.metadata or {}


def _parquet_rows(path: Path) -> tuple[list[bytes], list[int]]:
    import pyarrow as pa

    image, label, _ = _parquet_columns(path)
    try:
        table = pq.read_table(path, columns=[image, label])
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: damaged Parquet file ({error}); fetch it again.") from None
    rows = [entry["bytes"] if entry else None for entry in table[image].to_pylist()]
    labels = table[label].to_pylist()
    for row, (data, number) in enumerate(zip(rows, labels, strict=True)):
        if data is None or number is None:
            raise DataError(f"{path}, row {row}: the {'image' if data is None else 'label'} is empty; remove the row.")
    return [bytes(data) for data in rows if data is not None], labels


def _parquet_names(files: list[Path]) -> list[str]:
    """Class names from the schema's metadata, or the labels themselves as names."""
    _, label, metadata = _parquet_columns(files[0])
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        highest = max(max(_parquet_rows(path)[1], default=0) for path in files)
        return [str(number) for number in range(highest + 1)]


# ------------------------------------------------------------------------------------ idx (MNIST's)

_IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def _idx_files(request: Request, root: Path) -> list[Path]:
    place = _folder(request, root) if request.path else DEBIAN_FASHION_MNIST
    found = []
    for name in _IDX_NAMES:
        options = [place / f"{name}.gz", place / name]
        if not (present := [path for path in options if path.is_file()]):
            raise DataError(f"{options[0]}: missing; install Debian's dataset-fashion-mnist, or set data.path.")
        found.append(present[0])
    return found


def _read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """An idx file (LeCun's MNIST format): two zeros, type, rank, sizes as big-endian int32, then bytes."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if data[:4] != bytes((0, 0, 8, rank)):
            raise ValueError(f"no idx header of unsigned bytes in {rank} dimensions")
        sizes = np.frombuffer(data, ">i4", count=data[3], offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: not a readable idx file ({error}); fetch it again.") from None


def _load_idx(request: Request, root: Path) -> RawData:
    files = _idx_files(request, root)
    images, labels = [_read_idx(path, 3) for path in files[::2]], [_read_idx(path, 1) for path in files[1::2]]
    splits = [
        _converted(_checked(images[i][:, None], labels[i], 10, str(files[2 * i + 1])), request, "fashion-mnist")
        for i in range(2)
    ]
    return RawData(splits[0], splits[1], list(_FASHION))


# ---------------------------------------------------------------------------------------- registry

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("digits", "Optical digits, 8x8 (scikit-learn)", _digits_files, _load_digits, "none", "CC BY 4.0 (UCI)"),
        Source(
            "cifar10",
            "CIFAR-10",
            augmentation="flip-shift4",
            licence="unspecified, research use",
            **_torchvision("CIFAR10", "cifar-10-batches-py"),
        ),
        Source(
            "cifar100",
            "CIFAR-100",
            augmentation="flip-shift4",
            licence="unspecified, research use",
            **_torchvision("CIFAR100", "cifar-100-python"),
        ),
        Source(
            "fashion-mnist",
            "Fashion-MNIST",
            augmentation="flip-shift2",
            licence="MIT",
            **_torchvision("FashionMNIST", "FashionMNIST/raw"),
        ),
        Source(
            "svhn",
            "Street View House Numbers",
            augmentation="shift2",
            licence="non-commercial use",
            **_torchvision("SVHN", ".", by_split=True, pattern="*_32x32.mat"),
        ),
        Source(
            "stl10",
            "STL-10",
            augmentation="flip-shift4",
            licence="unspecified, research use",
            **_torchvision("STL10", "stl10_binary", by_split=True),
        ),
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
        Source(
            "parquet",
            "Hugging-Face-style Parquet",
            _parquet_files,
            _load_parquet,
            "flip-shift4",
            "that of the images",
            needs_path=True,
            peek=_peek_parquet,
        ),
        Source(
            "fashion-mnist-idx",
            "Fashion-MNIST from idx files, such as Debian's",
            _idx_files,
            _load_idx,
            "flip-shift2",
            "MIT",
        ),
    )
}
