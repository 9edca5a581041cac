"""torchvision's datasets, which download themselves where there is a network."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from kdpipe.data.sources.base import DATA_ROOT_VARIABLE, RawData, Request, Source, Tick
from kdpipe.data.sources.images import checked, converted
from kdpipe.errors import DataError


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
            for made in (place / folder, place):  # by torchvision, before it looked; only an empty one goes
                with contextlib.suppress(OSError):
                    made.rmdir()
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

    def load(request: Request, root: Path, tick: Tick) -> RawData:
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
            splits.append(converted(checked(images, np.asarray(labels), len(names), name), request))
        return RawData(splits[0], splits[1], names)

    return {"files": files, "load": load}


SOURCES = (
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
)
