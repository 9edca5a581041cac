"""A study's data: disjoint stratified splits, nested label budgets, batches augmented on the device.

Images stay uint8 on the device from first to last; a batch is gathered, shifted and flipped there.
Which images a step sees, and how they are shifted, depends on ``(data_seed, step)`` alone, so that
every student of a seed sees the same views whoever trains beside it, on whichever device.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdpipe.errors import DataError
from kdpipe.files import write_atomic
from kdpipe.sources import SOURCES, RawData, Source, Split, data_root, fingerprint

__all__ = [
    "AUGMENTATIONS",
    "SOURCES",
    "Augmentation",
    "Batches",
    "Dataset",
    "Source",
    "data_root",
    "derive_seed",
    "fingerprint",
    "label_budget",
    "prepare",
    "probe_set",
    "stratified_order",
]

Indices = NDArray[np.int64]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from names and numbers, the same in every process and on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


# ------------------------------------------------------------------------------------------ splits


def stratified_order(labels: NDArray[np.int64], seed: int) -> Indices:
    """A random order of which *every prefix* is stratified.

    The i-th image of a class with n stands at i/n, so a prefix holds each class in proportion, and
    the first K images are one of each of K classes. Prefixes are nested, which is what label
    budgets, probe sets and display limits want.
    """
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = np.arange(len(members)) / len(members)
    tie = rng.permutation(len(labels))
    return np.lexsort((tie, place)).astype(np.int64)


def label_budget(labels: NDArray[np.int64], fraction: float, seed: int) -> Indices:
    """Positions of the labelled images of a budget: stratified, seeded, nested in larger budgets.

    Raises:
        DataError: the budget does not reach one image a class.
    """
    classes = len(np.unique(labels))
    count = round(fraction * len(labels))
    if count < classes:
        raise DataError(
            f"label_fractions: {fraction:g} of {len(labels)} training images are {count} labels for {classes} "
            f"classes; take at least {classes / len(labels):.4g}."
        )
    return np.sort(stratified_order(labels, derive_seed("labels", seed))[:count])


@dataclass(frozen=True)
class Dataset:
    """Decoded images with their disjoint splits. Images (N, C, H, W) uint8, labels (N,) int64."""

    train: Split
    validation: Split
    test: Split
    class_names: list[str]
    mean: list[float]
    std: list[float]
    content_hash: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @classmethod
    def read(cls, folder: Path) -> Dataset:
        """Read what :func:`prepare` and :meth:`write` left, memory-mapped."""
        meta = json.loads((folder / "dataset.json").read_text())

        def split(name: str) -> Split:
            images = np.load(folder / f"{name}_images.npy", mmap_mode="r")
            return Split(images, np.load(folder / f"{name}_labels.npy"))

        return cls(
            train=split("train"),
            validation=split("validation"),
            test=split("test"),
            **{key: meta[key] for key in ("class_names", "mean", "std", "content_hash")},
        )

    def write(self, folder: Path) -> None:
        for name in ("train", "validation", "test"):
            split: Split = getattr(self, name)
            np.save(folder / f"{name}_images.npy", split.images)
            np.save(folder / f"{name}_labels.npy", split.labels)
        meta = {key: getattr(self, key) for key in ("class_names", "mean", "std", "content_hash")}
        write_atomic(folder / "dataset.json", json.dumps(meta))


def prepare(
    raw: RawData,
    *,
    validation_fraction: float,
    test_fraction: float,
    split_seed: int,
) -> Dataset:
    """Split decoded data into train, validation and test.

    A source's own test split is kept; without one, ``test_fraction`` is set aside. Validation comes
    out of the training images. All splits are stratified and disjoint.

    Raises:
        DataError: a class too small for three splits.
    """
    train, test = raw.train, raw.test
    _no_empty_class(train.labels, raw.class_names, "training")
    if test is None:
        order = stratified_order(train.labels, derive_seed("test", split_seed))
        cut = round(test_fraction * len(order))
        train, test = _take(train, order[cut:]), _take(train, order[:cut])
    order = stratified_order(train.labels, derive_seed("validation", split_seed))
    cut = max(round(validation_fraction * len(order)), 1)
    train, validation = _take(train, order[cut:]), _take(train, order[:cut])
    for split, name in ((train, "training"), (validation, "validation"), (test, "test")):
        _no_empty_class(split.labels, raw.class_names, name)
    mean, std = _channel_statistics(train.images)
    return Dataset(train, validation, test, raw.class_names, mean, std, _content_hash(raw))


def probe_set(dataset: Dataset, size: int, seed: int) -> Indices:
    """Positions in the test set of the probe images, in display order: any prefix is stratified.

    A probe image's ``sample_id`` is its place in this order.

    Raises:
        DataError: a probe larger than the test set.
    """
    if size > len(dataset.test.labels):
        raise DataError(
            f"data.probe_size: {size} probe images are asked for, the test set has {len(dataset.test.labels)}."
        )
    return stratified_order(dataset.test.labels, derive_seed("probe", seed))[:size]


def reference_set(dataset: Dataset, size: int, seed: int) -> Indices:
    """Positions in the training set of ``size`` stratified images, or of all where there are fewer."""
    return stratified_order(dataset.train.labels, derive_seed("reference", seed))[:size]


def _take(split: Split, indices: Indices) -> Split:
    chosen = np.sort(indices)
    return Split(split.images[chosen], split.labels[chosen])


def _no_empty_class(labels: NDArray[np.int64], names: list[str], split: str) -> None:
    counts = np.bincount(labels, minlength=len(names))
    if (counts == 0).any():
        raise DataError(
            f"class {names[int(counts.argmin())]!r} has no image in the {split} split; "
            "add images to it, remove the class, or set aside a larger share."
        )


def _channel_statistics(images: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in [0, 1], from at most 10,000 images."""
    some = images[:: max(len(images) // 10_000, 1)].astype(np.float64) / 255.0
    std = np.maximum(some.std(axis=(0, 2, 3)), 1e-3)
    return [float(value) for value in some.mean(axis=(0, 2, 3))], [float(value) for value in std]


def _content_hash(raw: RawData) -> str:
    digest = hashlib.sha256(json.dumps(raw.class_names).encode())
    for split in (raw.train, raw.test):
        if split is not None:
            digest.update(split.images.tobytes())
            digest.update(split.labels.tobytes())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------ augmentation


@dataclass(frozen=True)
class Augmentation:
    """What a training view may do to an image: shift by up to ``shift`` pixels, flip left-right."""

    name: str
    shift: int
    flip: bool

    @property
    def views(self) -> int:
        """How many views an image has."""
        return (2 * self.shift + 1) ** 2 * (2 if self.flip else 1)


AUGMENTATIONS = {
    policy.name: policy
    for policy in (
        Augmentation("none", 0, False),
        Augmentation("shift1", 1, False),
        Augmentation("shift2", 2, False),
        Augmentation("flip-shift2", 2, True),
        Augmentation("flip-shift4", 4, True),
    )
}


def draw_views(count: int, policy: Augmentation, generator: torch.Generator) -> Tensor:
    """A view (B,) in [0, policy.views) for each image: where it is cropped, and whether it is flipped.

    Args:
        generator: a CPU generator; draws happen there so that views agree across devices.
    """
    across = 2 * policy.shift + 1
    top, left = torch.randint(0, across, (2, count), generator=generator)
    view = top * across + left
    return view + across**2 * (torch.rand(count, generator=generator) < 0.5) if policy.flip else view


def augment(padded: Tensor, size: tuple[int, int], policy: Augmentation, views: Tensor) -> Tensor:
    """Crop and flip each image of a reflect-padded uint8 batch as its view says.

    Args:
        padded: (B, C, H + 2*shift, W + 2*shift) uint8.
        size: H and W of the crop.
        views: (B,) on the CPU, as :func:`draw_views` numbers them.
    """
    count, (height, width), device, across = len(padded), size, padded.device, 2 * policy.shift + 1
    top, left, flipped = views % across**2 // across, views % across, views >= across**2
    rows = (top[:, None] + torch.arange(height)).to(device)
    columns = left[:, None] + torch.arange(width)
    if policy.flip:
        columns = torch.where(flipped[:, None], columns.flip(1), columns)
    columns = columns.to(device)
    batch = torch.arange(count, device=device)[:, None, None]
    # Channels last in the gather: one index for three bytes instead of one for each.
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def _epoch(count: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed("epoch", seed, epoch))
    return torch.randperm(count, generator=generator)


@dataclass(frozen=True)
class Batch:
    """Images (B, C, H, W) float32 in [0, 1] with labels (B,), places in their stream's images (B,) and views (B,)."""

    images: Tensor
    labels: Tensor
    positions: Tensor
    views: Tensor


class Batches:
    """An endless stream of augmented batches over some images, addressed by step.

    Args:
        split: images (N, C, H, W) uint8 and labels (N,), brought to ``device`` once, padded once.
        indices: which of them take part.
        stream: name of the stream; streams of one seed with other names are independent.
    """

    def __init__(
        self,
        split: Split,
        indices: Indices,
        *,
        batch_size: int,
        seed: int,
        policy: Augmentation,
        device: torch.device,
        stream: str = "labelled",
    ) -> None:
        self.size = (int(split.images.shape[2]), int(split.images.shape[3]))
        margin = (policy.shift, policy.shift)
        padded = np.pad(split.images[indices], ((0, 0), (0, 0), margin, margin), mode="reflect")
        self.padded = torch.from_numpy(padded).to(device).contiguous(memory_format=torch.channels_last)
        self.labels = torch.from_numpy(split.labels[indices]).to(device)
        self.batch_size, self.seed, self.policy, self.stream = batch_size, seed, policy, stream

    def positions(self, step: int) -> Tensor:
        """Which images step ``step`` sees: the next stretch of one seeded permutation after another."""
        count = len(self.labels)
        wanted = range(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = range(wanted[0] // count, wanted[-1] // count + 1)
        stream = torch.cat([_epoch(count, derive_seed(self.stream, self.seed), epoch) for epoch in epochs])
        start = wanted[0] - epochs[0] * count
        return stream[start : start + self.batch_size]

    def __call__(self, step: int) -> Batch:
        """The batch of a step, on the device."""
        chosen = self.positions(step)
        generator = torch.Generator().manual_seed(derive_seed("views", self.stream, self.seed, step))
        views = draw_views(self.batch_size, self.policy, generator)
        device = self.labels.device
        chosen = chosen.to(device)
        return Batch(self._cropped(chosen, views), self.labels[chosen], chosen, views.to(device))

    def render(self, positions: Tensor, view: int) -> Tensor:
        """One and the same view of some images, as a batch would show it."""
        return self._cropped(positions.to(self.labels.device), torch.full((len(positions),), view))

    def _cropped(self, positions: Tensor, views: Tensor) -> Tensor:
        return augment(self.padded[positions], self.size, self.policy, views).float() / 255.0


def as_input(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 images as network input: (B, C, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(images)).to(device).float() / 255.0


def describe(dataset: Dataset, probe: int, source: Source, title: str, note: str, licence: str) -> dict[str, Any]:
    """What study.json says of the data."""
    return {
        "dataset": title or source.title,
        "licence": licence or source.licence,
        "note": note or source.note,
        "sha256": dataset.content_hash,
        "class_names": dataset.class_names,
        "image_shape": list(dataset.image_shape),
        "train": len(dataset.train.labels),
        "validation": len(dataset.validation.labels),
        "test": len(dataset.test.labels),
        "probe": probe,
    }
