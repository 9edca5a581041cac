"""A study's data: disjoint stratified splits, the probe set, and images to fit probes on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdpipe.data.sources.base import RawData, Source, Split
from kdpipe.data.splits import Indices, stratified_order
from kdpipe.errors import DataError
from kdpipe.files import write_atomic
from kdpipe.seeds import derive_seed


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
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @classmethod
    def read(cls, folder: Path) -> Dataset:
        """Read what :func:`split_dataset` and :meth:`write` left, memory-mapped."""
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
        """Write images, labels and what :meth:`read` needs with them into ``folder``."""
        for name in ("train", "validation", "test"):
            split: Split = getattr(self, name)
            np.save(folder / f"{name}_images.npy", split.images)
            np.save(folder / f"{name}_labels.npy", split.labels)
        meta = {key: getattr(self, key) for key in ("class_names", "mean", "std", "content_hash")}
        write_atomic(folder / "dataset.json", json.dumps(meta))


@dataclass(frozen=True)
class SplitPlan:
    """Positions of each split among the source's training images; ``test`` is None where it has its own."""

    train: Indices
    validation: Indices
    test: Indices | None


def plan_splits(
    labels: NDArray[np.int64],
    test_labels: NDArray[np.int64] | None,
    class_names: list[str],
    *,
    validation_fraction: float,
    test_fraction: float,
    split_seed: int,
) -> SplitPlan:
    """Choose the splits from labels (N,) alone, and those (M,) of a test split of the source's own.

    Such a split is kept; without one, ``test_fraction`` is set aside. Validation comes out of the training images. All
    splits are stratified and disjoint.

    Raises:
        DataError: a class too small for three splits.
    """
    rest, test = np.arange(len(labels)), None
    _no_empty_class(labels, class_names, "training")
    if test_labels is None:
        order = stratified_order(labels, derive_seed("test", split_seed))
        cut = round(test_fraction * len(order))
        rest, test = np.sort(order[cut:]), np.sort(order[:cut])
    order = stratified_order(labels[rest], derive_seed("validation", split_seed))
    cut = max(round(validation_fraction * len(order)), 1)
    plan = SplitPlan(rest[np.sort(order[cut:])], rest[np.sort(order[:cut])], test)
    _no_empty_class(labels[plan.train], class_names, "training")
    _no_empty_class(labels[plan.validation], class_names, "validation")
    _no_empty_class(labels[test] if test_labels is None else test_labels, class_names, "test")
    return plan


def split_dataset(
    raw: RawData,
    *,
    validation_fraction: float,
    test_fraction: float,
    split_seed: int,
) -> Dataset:
    """Split decoded data into train, validation and test, as :func:`plan_splits` says.

    Raises:
        DataError: a class too small for three splits.
    """
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    tests = None if raw.test is None else raw.test.labels
    plan = plan_splits(raw.train.labels, tests, raw.class_names, **fractions, split_seed=split_seed)
    train, validation = _take(raw.train, plan.train), _take(raw.train, plan.validation)
    test = raw.test if plan.test is None else _take(raw.train, plan.test)
    assert test is not None
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
    return Split(split.images[indices], split.labels[indices])


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
