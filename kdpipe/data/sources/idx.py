"""Fashion-MNIST from idx files (the format of LeCun's MNIST), such as Debian's package has them."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdpipe.data.sources.base import RawData, Request, Source, Tick, folder_of
from kdpipe.data.sources.images import checked, converted
from kdpipe.errors import DataError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def _idx_files(request: Request, root: Path) -> list[Path]:
    place = folder_of(request, root) if request.path else DEBIAN_FASHION_MNIST
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


def _load_idx(request: Request, root: Path, tick: Tick) -> RawData:
    files = _idx_files(request, root)
    images, labels = [_read_idx(path, 3) for path in files[::2]], [_read_idx(path, 1) for path in files[1::2]]
    splits = [converted(checked(images[i][:, None], labels[i], 10, str(files[2 * i + 1])), request) for i in range(2)]
    return RawData(splits[0], splits[1], list(_FASHION))


SOURCES = (
    Source(
        "fashion-mnist-idx",
        "Fashion-MNIST from idx files, such as Debian's",
        _idx_files,
        _load_idx,
        "flip-shift2",
        "MIT",
    ),
)
