"""On which slices of the images a student is worse than the network that it would replace: classes, known factors.

Of many slices some look bad by luck: only those are marked that remain after a correction over all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import erfc
from scipy.stats import norm

from kdpipe.evidence.statistics import benjamini_hochberg
from kdpipe.pipeline.statistics.groups import Frames, trios_of, typed
from kdpipe.vocabulary import ALL_IMAGES, ALPHA, CLASS_SLICE, FACTORS, LEVEL, REPLACES, TEACHER_CERTAINTY

Array = NDArray[np.float64]
QUARTERS = 4
_Z = float(norm.ppf((1 + LEVEL) / 2))


@dataclass(frozen=True)
class Slice:
    """Some of the images: ``inside`` (N,). The other attributes are columns of slices.parquet."""

    kind: str
    part: int | None
    inside: NDArray[np.bool_]
    above: float | None = None
    up_to: float | None = None

    @property
    def columns(self) -> dict[str, Any]:
        return {"kind": self.kind, "part": self.part, "above": self.above, "up_to": self.up_to}


def slices_of(samples: pl.DataFrame) -> list[Slice]:
    """Every class, and the quarters of each known factor that the images differ in.

    Images without a value of a factor (the hue of a grey one) are in none of its quarters.

    Args:
        samples: label and the known factors, a row an image.
    """
    labels = samples["label"].to_numpy()
    found = [Slice(CLASS_SLICE, int(label), labels == label) for label in np.unique(labels)]
    for factor in FACTORS:
        column = samples[factor].cast(pl.Float64)
        if column.drop_nulls().n_unique() < QUARTERS:
            continue
        values = column.fill_null(np.nan).to_numpy()
        edges = [float(column.quantile(share, "linear") or 0.0) for share in (0.25, 0.5, 0.75)]
        for part, (above, up_to) in enumerate(zip([None, *edges], [*edges, None], strict=True)):
            inside = np.isfinite(values)
            inside &= values > (-np.inf if above is None else above)
            inside &= values <= (np.inf if up_to is None else up_to)
            found.append(Slice(factor, part, inside, above, up_to))
    return [one for one in found if one.inside.any()]


def differences(own: Array, base: Array, slices: Sequence[Slice]) -> list[dict[str, Any]]:
    """Accuracy of a student and of the network that it would replace, on all images and on each slice.

    Of each image the difference (right or not, 1 or 0) is averaged over seeds; the interval is over
    images, these networks given: that of Agresti and Min (2005), which adds half an image to each cell
    of the paired table, so that a slice without any difference still has a width. p is of the same
    statistic, and corrected after Benjamini and Hochberg (1995) over all slices.

    Args:
        own, base: (S, N) whether each network is right on each image, as 1 and 0, paired by seed.

    Returns:
        rows of slices.parquet without the columns that say whose they are; that of all images first.
    """
    everything = Slice(ALL_IMAGES, None, np.ones(own.shape[1], dtype=bool))
    members = np.stack([one.inside for one in (everything, *slices)]).astype(np.float64)  # slices, images
    columns = {**_paired(own, base, members), **_excess(own - base, members)}
    tested = {name: columns[name][1:] for name in ("p", "p_excess")}
    corrected = {f"{name}_corrected": benjamini_hochberg(p) for name, p in tested.items()} if slices else {}
    rows = [
        {**one.columns, **{name: float(values[at]) for name, values in columns.items()}}
        for at, one in enumerate((everything, *slices))
    ]
    nothing = dict.fromkeys(("excess", "p_excess"))
    whole = {**rows[0], **nothing, "marked": False, "worst": False}
    return [whole, *(_marked(row, corrected, at) for at, row in enumerate(rows[1:]))]


def _marked(row: Mapping[str, Any], corrected: Mapping[str, Array], at: int) -> dict[str, Any]:
    """The row of a slice with its corrected p values, and whether it is marked as lost or gained."""
    found = {name: float(values[at]) for name, values in corrected.items()}
    marked = found["p_corrected"] < ALPHA and row["lowest"] * row["highest"] > 0
    more = found["p_excess_corrected"] < ALPHA and row["excess"] < 0
    return {**row, **found, "marked": marked, "worst": marked and row["highest"] < 0 and more}


def _paired(own: Array, base: Array, members: Array) -> dict[str, Array]:
    """Of each slice (rows of ``members``) both means, the interval of their difference over images, and its p."""
    moved = own - base
    each, images = moved.mean(axis=0), members.sum(axis=1)
    centre = members @ each / (images + 2)
    variance = (members @ each**2 + 1) / (images + 2) - centre**2
    error = np.sqrt(variance / (images + 2))
    seeds = members @ moved.T / images[:, None]
    return {
        "images": images,
        "base_accuracy": 100 * (members @ base.mean(axis=0)) / images,
        "accuracy": 100 * (members @ own.mean(axis=0)) / images,
        "difference": 100 * (members @ each) / images,
        "low": 100 * np.maximum(-1.0, centre - _Z * error),
        "high": 100 * np.minimum(1.0, centre + _Z * error),
        "lowest": 100 * seeds.min(axis=1),
        "highest": 100 * seeds.max(axis=1),
        "p": erfc(np.abs(centre) / error / np.sqrt(2)),
    }


def _excess(moved: Array, members: Array) -> dict[str, Array]:
    """How much more each slice moves than all other images, and p of that: two groups of images, unpaired."""
    each = moved.mean(axis=0)
    means, variance = [], 0.0
    for inside in (members, 1 - members):
        images, total = inside.sum(axis=1), inside @ each
        means.append(total / np.maximum(images, 1))
        # As in the paired interval: two images are added to each group, one that moved up and one that moved down.
        spread = (inside @ each**2 + 2) / (images + 2) - (total / (images + 2)) ** 2
        variance = variance + spread / (images + 2)
    excess = np.where(members.all(axis=1), 0.0, means[0] - means[1])
    return {"excess": 100 * excess, "p_excess": erfc(np.abs(excess) / np.sqrt(2 * variance))}


def slices_table(frames: Frames) -> pl.DataFrame:
    """Every kind of student against its teacher and against plain, over all its seeds and at each."""
    samples = frames["samples"].sort("sample_id")
    slices = slices_of(samples)
    right = right_by_network(frames["predictions"])
    rows: list[dict[str, Any]] = []
    for trios in trios_of(frames):
        own = np.stack([right[name] for name in trios.rows["network_id"]])
        for replaces in REPLACES:
            base = np.stack([right[name] for name in trios.rows[f"{replaces}_id"]])
            asked = [one for one in slices if replaces != "teacher" or one.kind != TEACHER_CERTAINTY]
            place = {**trios.place, "replaces": replaces}
            rows += [{**place, **row, "images": int(row["images"])} for row in differences(own, base, asked)]
    return typed("slices", rows)


def right_by_network(predictions: pl.DataFrame) -> dict[str, Array]:
    """Whether each network is right on each image (N,), as 1 and 0, in the order of images."""
    ordered = predictions.select("network_id", "sample_id", pl.col("correct").cast(pl.Float64)).sort("sample_id")
    return {name: mine["correct"].to_numpy() for (name,), mine in ordered.group_by(["network_id"], maintain_order=True)}
