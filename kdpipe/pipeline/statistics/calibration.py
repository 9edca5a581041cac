"""Does a network know how sure it can be? Accuracy by confidence, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import norm

from kdpipe.pipeline.statistics.groups import Frames, Trios, trios_of, typed
from kdpipe.vocabulary import CALIBRATION_BINS as BINS
from kdpipe.vocabulary import LEVEL, OWN, PLAIN, SECOND_START, TEACHER

Array = NDArray[np.float64]
_Z = float(norm.ppf((1 + LEVEL) / 2))


def wilson(right: Array, images: Array) -> tuple[Array, Array]:
    """Ends of Wilson's 95 % interval (1927) for shares of ``right`` among ``images``, which may be means."""
    share = right / images
    middle = (share + _Z**2 / (2 * images)) / (1 + _Z**2 / images)
    half = _Z * np.sqrt(share * (1 - share) / images + (_Z / (2 * images)) ** 2) / (1 + _Z**2 / images)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def bins_of(confidence: Array, right: Array) -> Array:
    """Images, sum of confidence, and right answers in each of ten bins, open below and closed above: (3, 10)."""
    place = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(np.int64)
    return np.stack([np.bincount(place, weights=of, minlength=BINS) for of in (np.ones(len(place)), confidence, right)])


def reliability(networks: Array) -> list[dict[str, Any]]:
    """Accuracy in each bin that has images.

    Seeds answer the same images, so they are no further images: counts are means over seeds, and the
    interval is that of as many images as one seed has there.

    Args:
        networks: (S, 3, 10) of :func:`bins_of`, one a seed.
    """
    filled = networks[:, 0].sum(axis=0) > 0
    images, confidence, right = networks.sum(axis=0)[:, filled]
    accuracy, seeds = right / images, len(networks)
    low, high = wilson(accuracy * images / seeds, images / seeds)
    columns = {
        "bin": np.flatnonzero(filled), "confidence": confidence / images, "accuracy": accuracy, "low": low,
        "high": high, "images": images / seeds, "share": images / networks[:, 0].sum(),
    }  # fmt: skip
    return [
        {**{name: values[at].item() for name, values in columns.items()}, "seeds": seeds} for at in range(len(images))
    ]


def calibration_table(frames: Frames) -> pl.DataFrame:
    """Every kind of student with those it is compared with, over all its seeds and at each."""
    bins = {
        str(name): bins_of(mine["confidence"].cast(pl.Float64).to_numpy(), mine["correct"].cast(pl.Float64).to_numpy())
        for (name,), mine in frames["predictions"].group_by(["network_id"], maintain_order=True)
    }
    return typed("calibration", [row for trios in trios_of(frames) for row in _rows(trios, bins)])


def _rows(trios: Trios, bins: Mapping[str, Array]) -> Iterator[dict[str, Any]]:
    rows = trios.rows
    of = {TEACHER: rows["teacher_id"], PLAIN: rows["plain_id"], OWN: rows["network_id"]}
    for who, names in {**of, SECOND_START: trios.second_start["network_id"]}.items():
        if len(names):
            pooled = np.stack([bins[name] for name in names.unique(maintain_order=True)])
            yield from ({**trios.place, "who": who, **row} for row in reliability(pooled))
