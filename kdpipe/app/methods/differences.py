"""What methods gain and cost: differences from plain in several quantities, ranks, fronts. Frames in, frames out.

Everything is said of a cell, one student on one label budget, as nothing else is comparable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from kdpipe.app.shared import catalog, gains
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import LEVEL_ITSELF, TEST_ACCURACY

_LANES = ((0,), (0, 1), (1, 0, 2), (1, 3, 0, 2), (2, 0, 4, 1, 3))
_CELL = ("student", "budget_id")
_PARTS = ("data", "teacher", "student", "loss")


@dataclass(frozen=True)
class Quantity:
    """A difference from plain: what it is called, where it is stored, and how it is written.

    Attributes:
        name: on the page and in the address.
        axis: what the axis says, short enough for a phone.
        measure, quantity: as in comparisons.parquet; empty for the test accuracy, which is computed from networks.
        digits: behind the point.
        unit: behind a number in a sentence.
    """

    name: str
    axis: str
    about: str
    measure: str = ""
    quantity: str = ""
    digits: int = 1
    unit: str = ""

    def words(self, value: float) -> str:
        """A difference with its sign and unit: ``+2.1 points``."""
        return f"{value:+.{self.digits}f}{self.unit and ' ' + self.unit}"


ACCURACY = Quantity(
    "accuracy", "gain over plain of the same seed, points",
    "Test accuracy less that of the plain student of the same seed, in points.", unit="points",
)  # fmt: skip
_AREA = (
    "The area between the two curves over relative depth, **without the last layer**, in {}: above 0 where the "
    "network is ahead of plain in its earlier layers. "
)
_ADVANCE = (
    "How many layers sooner the {} reaches the value that plain has at its last layer, in a straight line between "
    "layers. Seeds that never reach it are left out, which flatters: the table counts them."
)
QUANTITIES = (
    ACCURACY,
    Quantity("early area, silhouette", "early area over plain, silhouette × depth",
             _AREA.format("silhouette (whole map, class-balanced)"), "silhouette", "early_abc", 3),
    Quantity("early area, kNN accuracy", "early area over plain, kNN accuracy × depth",
             _AREA.format("kNN accuracy (channel means)"), "knn_accuracy", "early_abc", 3),
    Quantity("advance, silhouette", "layers earlier than plain, silhouette", _ADVANCE.format("silhouette"),
             "silhouette", "advance", 2, "layers"),
    Quantity("advance, kNN accuracy", "layers earlier than plain, kNN accuracy", _ADVANCE.format("kNN accuracy"),
             "knn_accuracy", "advance", 2, "layers"),
)  # fmt: skip


# ------------------------------------------------------------------------------------ differences


def differences(study: Study, networks: pl.DataFrame, quantity: Quantity) -> pl.DataFrame:
    """One quantity of every method and control less plain's, a row a seed.

    Returns:
        rows as of :func:`kdpipe.app.shared.gains.pairs`; seed is empty where it is not known which seed a value is of.
    """
    if not quantity.measure:
        return gains.pairs(networks)
    students = networks.filter(catalog.STUDENT).unique([*_CELL, "method_label"], keep="first", maintain_order=True)
    named = students.select("method_label", *gains.KIND, layers=_layers(study, networks))
    held = study.frame("gains", measure=quantity.measure, quantity=quantity.quantity)
    held = held.select(*_CELL, "method_label", "seeds", "per_seed").join(
        named, on=[*_CELL, "method_label"], maintain_order="left"
    )
    scale = pl.col("layers") - 1 if quantity.quantity == "advance" else pl.lit(1)
    known = held.filter(pl.col("seeds").is_not_null()).explode("seeds", "per_seed")
    unknown = held.filter(pl.col("seeds").is_null()).explode("per_seed").with_columns(seeds=pl.lit(None, pl.Int32))
    gain = scale * pl.col("per_seed").cast(pl.Float64)
    each = pl.concat([known, unknown.select(known.columns)]).select(*gains.KIND, seed="seeds", gain=gain)
    return each.drop_nulls("gain")  # of advance: plain's final value is never reached


def offered(study: Study) -> list[Quantity]:
    """Quantities that this study holds; test accuracy always."""
    held = study.frame("comparisons", against="plain").select("measure", "quantity").unique().rows()
    return [one for one in QUANTITIES if not one.measure or (one.measure, one.quantity) in held]


def intervals(study: Study, networks: pl.DataFrame, quantity: Quantity) -> pl.DataFrame:
    """What is stored of a quantity against plain: series, low and high (95 %, seeds and images), never_reached."""
    rows = study.frame("comparisons", measure=quantity.measure, quantity=quantity.quantity, against="plain")
    named = networks.filter(catalog.STUDENT).select(*_CELL, "method_label", "series").unique()
    return rows.join(named, on=[*_CELL, "method_label"]).select(*_CELL, "series", "low", "high", "never_reached")


def null_reach(study: Study, rows: pl.DataFrame, quantity: Quantity) -> dict[tuple[str, str], float]:
    """How far other initial weights move a quantity, by (student, budget_id); cells without a null are left out.

    Of the test accuracy the furthest seed of the control; of areas the root mean square over seeds, which the
    judge divided the estimate by. Nothing is stored of advances.
    """
    if not quantity.measure:
        ends = pl.max_horizontal(pl.col("lowest", "highest").abs()).max()
        found = rows.filter("null").group_by(_CELL).agg(reach=ends)
    else:
        stored = study.frame("comparisons", measure=quantity.measure, quantity=quantity.quantity, against="plain")
        ratio = pl.col("null_ratio")
        stored = stored.filter(ratio.is_not_null() & ratio.is_finite() & (ratio != 0))
        found = stored.group_by(_CELL).agg(reach=(pl.col("estimate") / ratio).abs().max())
    return {(student, budget): float(reach) for student, budget, reach in found.rows()}


def _layers(study: Study, networks: pl.DataFrame) -> pl.Expr:
    """How many layers each student was looked at in, by the column ``student``."""
    one = networks.filter(catalog.TRAINED_STUDENT).unique("student", keep="first", maintain_order=True)
    rows = study.frame("layers", network_id=one["network_id"].to_list()).join(
        one.select("network_id", "student"), on="network_id"
    )
    counts = dict(rows.group_by("student").agg(pl.col("layer").n_unique().cast(pl.Int64)).rows())
    return pl.col("student").replace_strict(counts, default=1, return_dtype=pl.Int64)


# ------------------------------------------------------------------------------------------ cost


def costs(study: Study, networks: pl.DataFrame) -> pl.DataFrame:
    """What training took and what inference takes, for each student, budget and series.

    Returns:
        student, label_fraction, series, milliseconds (median over seeds of a step of one network alone: its share
        of data and teacher included), fastest, slowest, images (a second, median), together, params, macs.
    """
    timed: Mapping[str, Mapping[str, Any]] = study.timings.get("training") or {}
    keys = [*_CELL, "series"]
    students = networks.filter(catalog.TRAINED_STUDENT | (pl.col("role") == "teacher"))
    rows = []
    for row in students.select("network_id", *keys, "params", "macs").iter_rows(named=True):
        speed = timed.get(row["network_id"]) or {}
        parts = [value for name, value in (speed.get("seconds_a_step") or {}).items() if name in _PARTS]
        step = 1000 * sum(parts) if parts else None
        rows.append(
            {**row, "step": step, "speed": speed.get("images_per_second"), "at_once": speed.get("students_together")}
        )
    real = {"step": pl.Float64, "speed": pl.Float64, "at_once": pl.Float64}
    each = pl.DataFrame(rows, schema_overrides=real, infer_schema_length=None)
    if each.is_empty():
        return each
    return each.group_by(keys, maintain_order=True).agg(
        milliseconds=pl.col("step").median(), fastest=pl.col("step").min(), slowest=pl.col("step").max(),
        images=pl.col("speed").median(), together=pl.col("at_once").median(), params=pl.col("params").first(),
        macs=pl.col("macs").first(),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------- ranks


@dataclass(frozen=True)
class Ranking:
    """Mean ranks over seeds, as stored in method_ranks.parquet, and what they are of.

    Attributes:
        rows: series, role, rank (mean over seeds; 1 is the best), low, high, best, worst, mean (of the quantity).
        seeds: how many there are that every ranked series has.
        ranked: how many series were ranked; all of them, whichever are in ``rows``.
        left_out: series that lack too many seeds to be ranked.
        resampled: whether low and high are a bootstrap interval; otherwise they are the lowest and highest rank.
    """

    rows: pl.DataFrame
    seeds: int
    ranked: int
    left_out: list[str]
    resampled: bool


def ranks(study: Study, networks: pl.DataFrame, cell: pl.Expr, quantity: Quantity, controls: bool) -> Ranking:
    """How the series of ``networks`` rank in a cell, among all that the study has there."""
    mine = networks.filter(catalog.TRAINED_STUDENT & cell)
    keys = [*_CELL, "method_label"]
    measure, of = (quantity.measure, quantity.quantity) if quantity.measure else (TEST_ACCURACY, LEVEL_ITSELF)
    stored = study.frame("method_ranks", measure=measure, quantity=of, with_controls=controls)
    stored = stored.join(mine.select(_CELL).unique(), on=_CELL, how="semi")
    named = mine.select(*keys, "series", "role").unique(maintain_order=True)
    rows = named.join(stored, on=keys, maintain_order="left")
    placed = rows.filter(pl.col("rank").is_not_null())
    resampled = bool(placed["low"].is_not_null().any())
    ends = {"low": "best", "high": "worst"}
    placed = placed.with_columns(pl.coalesce(name, end) for name, end in ends.items())
    columns = ["series", "role", "rank", "low", "high", "best", "worst", "mean"]
    return Ranking(
        placed.select(columns).sort("rank", "series"),
        int(stored["seeds"].max() or 0),  # type: ignore[arg-type]
        stored["rank"].count(),
        rows.filter(pl.col("rank").is_null())["series"].to_list(),
        resampled,
    )


# ---------------------------------------------------------------------------------------- fronts


def priced(networks: pl.DataFrame, budget: str, cost: str) -> pl.DataFrame:
    """Accuracy against its price for the teacher and, on one budget, plain and every method of every student.

    Args:
        cost: ``macs`` or ``params``.

    Returns:
        role, student, series, name, cost, accuracy (mean over seeds), lowest, highest, seeds, front (whether
        nothing else is at least as accurate and no dearer), place (across, so that those of one price are told
        apart); the cheapest first.
    """
    done = networks.filter((pl.col("status") == "trained") & pl.col("test_accuracy").is_not_null())
    products = catalog.STUDENT & pl.col("role").is_in(["plain", "distilled"]) & (pl.col("budget") == budget)
    shown = done.filter(products | (pl.col("role") == "teacher"))
    several = shown.filter(catalog.STUDENT)["student"].n_unique() > 1
    full = pl.concat_str("student", pl.lit(" "), "series") if several else pl.col("series")
    name = pl.when(pl.col("role") == "teacher").then(pl.col("series")).otherwise(full)
    accuracy = pl.col("test_accuracy").cast(pl.Float64)
    found = (
        shown.with_columns(name=name, cost=pl.col(cost).cast(pl.Float64))
        .group_by("role", "student", "series", "name", "cost", maintain_order=True)
        .agg(accuracy=accuracy.mean(), lowest=accuracy.min(), highest=accuracy.max(), seeds=pl.len())
        .sort("cost", "accuracy", descending=[False, True])
    )
    best_so_far = pl.col("accuracy").cum_max().shift(1).fill_null(-1.0)
    return found.with_columns(front=pl.col("accuracy") > best_so_far, place=_side_by_side(found["cost"]))


def _side_by_side(costs: pl.Series) -> pl.Series:
    """Each cost moved a little, in up to five lanes of no order: a slope would look like a trend."""
    counts, met = dict(costs.value_counts().rows()), dict.fromkeys(costs, 0)
    places = []
    for cost in costs:
        lanes = _LANES[min(counts[cost], len(_LANES)) - 1]
        places.append(cost * (1 + 0.012 * (lanes[met[cost] % len(lanes)] - (len(lanes) - 1) / 2)))
        met[cost] += 1
    return pl.Series(places, dtype=pl.Float64)


def bargains(points: pl.DataFrame, unit: str) -> Iterator[str]:
    """For the teacher and each plain student: the cheapest method that is at least as accurate, in a sentence.

    Where none is as accurate as the teacher, the most accurate one that is cheaper.

    Args:
        points: rows of :func:`priced`.
        unit: what the cost is in: MACs or parameters.
    """
    taught = points.filter(pl.col("role") == "distilled")
    references = points.filter(pl.col("role").is_in(["teacher", "plain"])).sort("cost", descending=True)
    for row in references.iter_rows(named=True):
        cheaper = taught.filter((pl.col("cost") < row["cost"]) & (pl.col("accuracy") >= row["accuracy"]))
        if cheaper.height:
            yield _bargain(cheaper.sort("cost", "accuracy", descending=[False, True]).row(0, named=True), row, unit)
        elif row["role"] == "teacher":
            below = points.filter((pl.col("cost") < row["cost"]) & (pl.col("role") != "teacher"))
            if below.height:
                yield _bargain(below.sort("accuracy", descending=True).row(0, named=True), row, unit)


def _bargain(one: Mapping[str, Any], other: Mapping[str, Any], unit: str) -> str:
    gap = 100 * (one["accuracy"] - other["accuracy"])
    spread = f" ({one['lowest']:.1%} to {one['highest']:.1%} over {one['seeds']} seeds)" if one["seeds"] > 1 else ""
    compared = "as accurate as" if abs(gap) < 0.05 else f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}"
    share = 100 * one["cost"] / other["cost"]
    return (
        f"**{one['name']}** reaches {one['accuracy']:.1%}{spread}, {compared} **{other['name']}** "
        f"({other['accuracy']:.1%}), at **{share:.2g} %** of its {unit}."
    )


# ----------------------------------------------------------------------------------------- words


EXPLAINS = {
    "instead": "stands in the place of distillation: if it gains as much, distillation is not needed for the gain",
    "without": "is distillation with something withheld: if nothing is gained without it, that something was the cause",
}


def used_as(networks: pl.DataFrame, method: str) -> pl.DataFrame:
    """How a method is configured in this study: name, parameters (JSON), what differs in training, networks."""
    mine = networks.filter(catalog.STUDENT & (pl.col("method") == method))
    return mine.group_by("series", "method_parameters", "training", maintain_order=True).agg(
        networks=pl.len(), budgets=pl.col("budget").unique(maintain_order=True).str.join(", ")
    )
