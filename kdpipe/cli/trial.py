"""A converted network on test images: how many it gets right, and whether another input scaling would do better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdpipe.config.sections import DataSpec
from kdpipe.config.study_file import read_data
from kdpipe.data.dataset import split_dataset
from kdpipe.data.sources import SOURCES, Split
from kdpipe.data.sources.base import no_tick
from kdpipe.errors import DataError, NetworkError
from kdpipe.models.conversion import Conversion, Scaling
from kdpipe.models.network import Network
from kdpipe.training.evaluation import accuracy

TRIED = 500  # images on which other scalings are tried
CLEARLY = 0.05  # more accurate is no chance on as many
IMAGENET = Scaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "ImageNet's")


@dataclass(frozen=True)
class TrialImages:
    """Images to try a network on."""

    split: Split
    class_names: list[str]

    @property
    def channels(self) -> int:
        """C of the images (N, C, H, W)."""
        return int(self.split.images.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.split.images.shape[2]), int(self.split.images.shape[3])


@dataclass(frozen=True)
class Trial:
    """How a network did.

    Attributes:
        top1: share of ``images`` test images that it gets right.
        better: another scaling that does clearly better on some of them, and the shares of those with the one and the
            other; None if none does.
    """

    top1: float
    images: int
    classes: int
    better: tuple[Scaling, float, float] | None

    def __str__(self) -> str:
        said = f"top-1 accuracy: {100 * self.top1:.2f} % of {self.images} test images"
        if self.better:
            scaling, now, then = self.better
            mean, std = (",".join(f"{value:.4g}" for value in values) for values in (scaling.mean, scaling.std))
            said += (
                f"; with --mean {mean} --std {std} ({scaling.origin}) {100 * then:.1f} % of some of them instead of "
                f"{100 * now:.1f} %; take the scaling that it was trained with"
            )
        elif self.top1 < 2 / self.classes:
            said += (
                f"; guessing gives {100 / self.classes:.2f} %: the order of its classes, its input scaling or its stem "
                "is another"
            )
        return f"{said}."


def read_test_images(place: Path, root: Path, image_size: int | None, folder_size: int | None) -> TrialImages:
    """The test images of a study file, or those of a folder: its test split, or all where it has none.

    Args:
        root: folder that a study's data path starts from.
        image_size: their height and width; that of the study by default.
        folder_size: the same for a folder, where no study says it; None leaves images as they are.

    Raises:
        StudyError, DataError: the study or its images cannot be read.
    """
    study = place.suffix == ".toml"
    spec = read_data(place) if study else DataSpec(dataset="folder", path=str(place.absolute()))
    spec = spec.model_copy(update={"image_size": image_size or (spec.image_size if study else folder_size)})
    source = SOURCES[spec.dataset]
    if source.needs_path and not spec.path:
        raise DataError(f"{place}: data.path: dataset {source.name!r} needs the folder that holds it.")
    raw = source.load(spec, root, no_tick)
    if raw.test is not None or not study:
        return TrialImages(raw.test or raw.train, raw.class_names)
    fractions = {"validation_fraction": spec.validation_fraction, "test_fraction": spec.test_fraction}
    return TrialImages(split_dataset(raw, **fractions, split_seed=spec.split_seed).test, raw.class_names)


def try_on(conversion: Conversion, images: TrialImages, device: str) -> Trial:
    """The accuracy of a converted network.

    Raises:
        NetworkError: images of other channels, another number of classes, or a classifier that is not trained.
    """
    channels, classes = conversion.image_shape[0], len(images.class_names)
    if conversion.untrained:
        raise NetworkError("--data: the classifier is new and knows no class; leave --data out.")
    if channels != images.channels:
        raise NetworkError(
            f"--data: the images have {images.channels} channels and the network takes {channels}; set data.channels."
        )
    if conversion.classes != classes:
        raise NetworkError(
            f"--data: the network tells {conversion.classes} classes apart and the images have {classes}; try it on "
            "those that it was trained for."
        )
    network = conversion.network.to(device)
    chosen = np.linspace(0, len(images.split.labels) - 1, min(TRIED, len(images.split.labels))).astype(int)
    some = Split(images.split.images[chosen], images.split.labels[chosen])
    top1, now = accuracy(network, images.split), accuracy(network, some)
    best, most = None, now + CLEARLY
    for scaling in _scalings(some.images):
        _rescale(network, scaling)
        if (then := accuracy(network, some)) > most:
            best, most = (scaling, now, then), then
    _rescale(network, conversion.scaling)
    network.cpu()
    return Trial(top1, len(images.split.labels), classes, best)


def _rescale(network: Network, scaling: Scaling) -> None:
    network.mean.copy_(torch.tensor(scaling.mean).view_as(network.mean))
    network.std.copy_(torch.tensor(scaling.std).view_as(network.std))


def _scalings(images: NDArray[np.uint8]) -> Iterator[Scaling]:
    """What people train with, for images (N, C, H, W)."""
    channels = images.shape[1]
    pixels = images.astype(np.float32) / 255
    mean, std = pixels.mean((0, 2, 3)), np.maximum(pixels.std((0, 2, 3)), 1e-3)
    yield Scaling(tuple(map(float, mean)), tuple(map(float, std)), "these images' own")
    yield Scaling((0.0,) * channels, (1.0,) * channels, "none at all")
    yield Scaling((0.5,) * channels, (0.5,) * channels, "to [-1, 1]")
    if channels == len(IMAGENET.mean):
        yield IMAGENET
