"""Two curves over depth on a page: differences to plain, the area before the last layer, and the advance.

The definitions are those of :mod:`kdpipe.relative_depth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.app.shared import catalog, curve_notes, tables
from kdpipe.app.shared import verdicts as evidence
from kdpipe.app.shared.charts import CANVAS, Layered, depth_means, series_colour
from kdpipe.app.shell.theme import GREY
from kdpipe.artifacts.store import Study
from kdpipe.relative_depth import first_reached
from kdpipe.vocabulary import CORRECTIONS, ENDPOINTS, LEAST_SEEDS, PLAIN, EndpointName

Array = NDArray[np.float64]
_PARTNER = ["student", "budget_id", "seed"]


# ------------------------------------------------------------------------------- difference to plain

VALUES, DIFFERENCE = "values", "difference to plain"
NO_PARTNER = "No network here has a plain student of its own seed, so there is no difference to show."


def shown(
    found: pl.DataFrame, start: pl.DataFrame, scope: pl.DataFrame, difference: bool
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame | None]:
    """What a chart of curves draws: rows, networks nobody trained, and what other initial weights move.

    As differences to plain there are no untrained networks, as they have no plain one; as values no null.
    """
    if not difference:
        return found, start, None
    moved = differences(found, scope)
    return moved, start.clear(), null_reach(moved, scope)


def differences(curves: pl.DataFrame, scope: pl.DataFrame) -> pl.DataFrame:
    """Rows as of :func:`kdpipe.app.shared.tables.by_depth` with the plain student of the same seed taken away.

    What has no plain partner with that layer (teachers, plain itself) is not there.
    """
    named = curves.join(scope.select("network_id", "student", "budget_id"), on="network_id")
    plain = named.filter(pl.col("role") == "plain").select(*_PARTNER, "layer", plain="value")
    pairs = named.filter(pl.col("role") != "plain").join(plain, on=[*_PARTNER, "layer"], maintain_order="left")
    pairs = pairs.with_columns(value=pl.col("value") - pl.col("plain"), chance=pl.lit(None, pl.Float32))
    return pairs.select(name for name in curves.columns if name not in ("low", "high"))


def null_reach(moved: pl.DataFrame, scope: pl.DataFrame) -> pl.DataFrame:
    """How far from 0 plain from other initial weights lies at each depth, at its furthest seed.

    The sign of such a difference means nothing, so it counts to either side, as on the home page.

    Returns:
        relative_depth, reach, seeds; no rows where plain was not started again.
    """
    again = moved.filter(pl.col("network_id").is_in(scope.filter("null")["network_id"].to_list()))
    reach = again.group_by("relative_depth").agg(reach=pl.col("value").abs().max(), seeds=pl.len())
    return reach.sort("relative_depth")


def takeaway(
    curves: pl.DataFrame, colours: Mapping[str, str], what: str, ends: tuple[str, str] = curve_notes.BANDS["seeds"]
) -> str:
    """A chart of curves in words: the last layer but one, and the last, of each series in colour."""
    means = depth_means(curves.filter(pl.col("series").is_in(list(colours)) & pl.col("value").is_not_null()))
    said = []
    for series in colours:
        rows = means.filter(series=series).tail(2).rows(named=True)
        numbers = [curve_notes.number(row, "mean", ends) for row in rows]
        said += [f"{series} {', then '.join(numbers)}"] if numbers else []
    if not said:
        return f"{what} by relative depth: no values."
    return f"{what} by relative depth, at the last layer but one and at the last. {'; '.join(said)}."


# ------------------------------------------------------------------------------- area and advance


@dataclass(frozen=True)
class CurvePair:
    """Curves of a method and of plain, paired by seed: ``depth`` (L,), ``method`` and ``plain`` (S, L)."""

    name: str
    seeds: tuple[int, ...]
    depth: Array
    method: Array
    plain: Array

    @property
    def advances(self) -> list[tuple[float, float, float]]:
        """Of each seed: plain's final value, and the depths where method and plain first are there (NaN: never)."""
        return [_advance(self.depth, *curves) for curves in zip(self.method, self.plain, strict=True)]

    @property
    def mean_advance(self) -> tuple[float, float, float]:
        """The same of the mean curves, which is not the mean of the seeds'."""
        return _advance(self.depth, self.method.mean(axis=0), self.plain.mean(axis=0))


def pair_of(study: Study, networks: pl.DataFrame, cell: Mapping[str, Any], endpoint: EndpointName) -> CurvePair | None:
    """A cell's curves of one endpoint at the seeds that have both; None where there is none, or a single layer."""
    mine = networks.filter(catalog.TRAINED_STUDENT, student=cell["student"], budget_id=cell["budget_id"])
    mine = mine.filter((pl.col("role") == PLAIN) | (pl.col("method_label") == cell["method_label"]))
    view, ids = ENDPOINTS[endpoint].view, mine["network_id"].to_list()
    rows = study.frame("layer_measures", network_id=ids, view=view, measure=endpoint)
    curves = tables.by_depth(rows, mine, study.layers).drop_nulls("value").sort("relative_depth")
    of: dict[tuple[bool, int], tuple[list[float], list[float]]] = {}
    for (role, seed), one in curves.group_by("role", "seed", maintain_order=True):
        of[role == "plain", int(str(seed))] = one["relative_depth"].to_list(), one["value"].to_list()
    seeds = sorted(seed for plain, seed in of if plain and (False, seed) in of)
    depths = [of[True, seed][0] for seed in seeds]
    seeds = [seed for seed in seeds if of[True, seed][0] == of[False, seed][0] == depths[0]]
    if not seeds or len(depths[0]) < 2:
        return None
    method, plain = (np.array([of[which, seed][1] for seed in seeds]) for which in (False, True))
    name = mine.filter(pl.col("role") != "plain")["series"][0]
    return CurvePair(name, tuple(seeds), np.array(depths[0]), method, plain)


def _advance(depth: Array, method: Array, plain: Array) -> tuple[float, float, float]:
    level = float(plain[-1])
    return level, float(first_reached(depth, method, level)), float(first_reached(depth, plain, level))


def between(depth: Array, method: Array, plain: Array) -> pl.DataFrame:
    """The area between two curves (L,) as pieces that lie on one side: piece, ahead, depth, method, plain.

    A piece ends where the curves cross, which may be between two layers.
    """
    rows: list[tuple[float, float, float]] = [(float(depth[0]), float(method[0]), float(plain[0]))]
    for i in range(1, len(depth)):
        before, after = method[i - 1] - plain[i - 1], method[i] - plain[i]
        if before * after < 0:
            share = before / (before - after)
            level = plain[i - 1] + share * (plain[i] - plain[i - 1])
            rows.append((float(depth[i - 1] + share * (depth[i] - depth[i - 1])), float(level), float(level)))
        rows.append((float(depth[i]), float(method[i]), float(plain[i])))
    pieces: list[tuple[int, bool, float, float, float]] = []
    piece, last = -1, None
    for start, stop in pairwise(rows):
        ahead = (start[1] - start[2]) + (stop[1] - stop[2]) >= 0
        if ahead != last:
            piece, last = piece + 1, ahead
            pieces.append((piece, ahead, *start))
        pieces.append((piece, ahead, *stop))
    return pl.DataFrame(pieces, schema=["piece", "ahead", "depth", "method", "plain"], orient="row")


def earlier_chart(pair: CurvePair, colours: Mapping[str, str], title: str) -> Layered:
    """Both curves, seed by seed and as means; the area between them before the last layer, and the advance.

    Args:
        colours: of plain and of the method, by series.
    """
    x = _across("depth")
    y: dict[str, Any] = {"title": title, "scale": alt.Scale(zero=False)}
    lines = _lines(pair)
    colour = series_colour(colours, list(colours), 380)
    tooltip: list[Any] = [
        alt.Tooltip("series:N"),
        alt.Tooltip("seed:N"),
        alt.Tooltip("depth:Q", format=".0%"),
        alt.Tooltip("value:Q", format=".3f"),
    ]
    base = alt.Chart(lines).encode(
        x=x, y=alt.Y("value:Q", **y), color=colour, detail=alt.Detail("seed:N"), tooltip=tooltip
    )
    each = base.transform_filter("datum.seed != 'mean'").mark_line(strokeWidth=1, opacity=0.3)
    mean = base.transform_filter("datum.seed == 'mean'")
    mean = mean.mark_line(strokeWidth=2.5, point=alt.OverlayMarkDef(size=45, filled=True))
    areas = _areas(pair, y, colours[pair.name]) if len(pair.depth) > 2 else []
    end = alt.Chart(pl.DataFrame({"depth": [float(pair.depth[-2])], "what": ["area ends here"]})).encode(x=x)
    edge = end.mark_rule(strokeDash=[3, 4], color=GREY)
    word = end.mark_text(align="right", dx=-4, color=GREY, fontSize=11).encode(y=alt.value(8), text=alt.Text("what:N"))
    return alt.layer(*areas, edge, word, each, mean, *_arrows(pair, y, colours[pair.name])).properties(
        height=340, usermeta=CANVAS
    )


def _areas(pair: CurvePair, y: dict[str, Any], colour: str) -> list[Any]:
    """Before the last layer: in the method's colour where it is ahead, grey where it is behind."""
    shaded = between(pair.depth[:-1], pair.method.mean(axis=0)[:-1], pair.plain.mean(axis=0)[:-1])
    area = alt.Chart(shaded).encode(
        x=_across("depth"), y=alt.Y("plain:Q", **y), y2=alt.Y2("method:Q"), detail=alt.Detail("piece:N")
    )
    ahead = area.transform_filter("datum.ahead").mark_area(opacity=0.32, color=colour)
    return [ahead, area.transform_filter("!datum.ahead").mark_area(opacity=0.45, color=GREY)]


def _lines(pair: CurvePair) -> pl.DataFrame:
    seeds = [*map(str, pair.seeds), "mean"]
    rows = [
        (name, seed, float(depth), float(value))
        for name, curves in (("plain", pair.plain), (pair.name, pair.method))
        for seed, curve in zip(seeds, [*curves, curves.mean(axis=0)], strict=True)
        for depth, value in zip(pair.depth, curve, strict=True)
    ]
    return pl.DataFrame(rows, schema=["series", "seed", "depth", "value"], orient="row")


def arrows(pair: CurvePair) -> pl.DataFrame:
    """A row a seed that reaches plain's final value, and one of the mean curves: seed, level, there, plain_there."""
    found = [*zip(map(str, pair.seeds), pair.advances, strict=True), ("mean", pair.mean_advance)]
    rows = [(seed, *ends) for seed, ends in found if not np.isnan(ends[1])]
    schema = {"seed": pl.String, "level": pl.Float64, "there": pl.Float64, "plain_there": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(advance=pl.col("plain_there") - pl.col("there"))


def _across(field: str) -> alt.X:
    title = "relative depth (first layer → last layer)"
    return alt.X(f"{field}:Q", title=title, axis=alt.Axis(format=".0%", tickCount=5))


def _arrows(pair: CurvePair, y: dict[str, Any], colour: str) -> list[Any]:
    """Thin spans of the seeds, and an arrow of the mean curves that points to where the method already is."""
    rows = arrows(pair)
    tooltip: list[Any] = [
        alt.Tooltip("seed:N"),
        alt.Tooltip("advance:Q", format="+.3f"),
        alt.Tooltip("level:Q", format=".3f"),
    ]
    there = _across("there")
    spans = alt.Chart(rows).encode(x=there, x2=alt.X2("plain_there:Q"), y=alt.Y("level:Q", **y), tooltip=tooltip)
    seeds = spans.transform_filter("datum.seed != 'mean'").mark_rule(strokeWidth=1, opacity=0.45, color=colour)
    mean = spans.transform_filter("datum.seed == 'mean'").mark_rule(strokeWidth=2.5, strokeDash=[6, 2], color=colour)
    tip = alt.Chart(rows.filter(seed="mean")).encode(x=there, y=alt.Y("level:Q", **y), tooltip=tooltip)
    late = rows.filter(pl.col("seed") == "mean", pl.col("advance") < 0).height
    head = tip.mark_point(shape="triangle-right" if late else "triangle-left", filled=True, size=140, color=colour)
    return [seeds, mean, head.encode(opacity=alt.value(1))]


# ------------------------------------------------------------------------------- in words


def area_in_words(row: Mapping[str, Any] | None, epsilon: float) -> str:
    """The area before the last layer with its interval, p and null; ``row`` is of comparisons.parquet."""
    if row is None:
        return "The study has no area before the last layer for this comparison: that takes three layers."
    low, high, estimate = row["low"], row["high"], row["estimate"]
    seeds = f"{row['seeds']} paired seed{'s' * (row['seeds'] != 1)}"
    if low is None or high is None:
        return f"Area before the last layer: {estimate:+.4f}, {seeds}; no interval is stored."
    p = row["p_corrected"] if row["p_corrected"] is not None else row["p"]
    how = CORRECTIONS.get(row["correction"], "not corrected")
    none = f"no p value, which takes {LEAST_SEEDS} seeds and curves that rise"
    tested = none if p is None else f"p = {p:.2g}, {how}"
    said = [f"Area before the last layer: {estimate:+.4f} ({low:+.4f} to {high:+.4f}), {seeds}; {tested}."]
    said.append(_interval_in_words(estimate, low, high))
    if high < epsilon and low > -epsilon:
        said.append(f"All of it lies within ±{epsilon:g}, the study's margin.")
    elif low < epsilon and high > -epsilon:
        said.append(f"It reaches into ±{epsilon:g}, the study's margin.")
    if row["null_estimate"] is not None:
        again = f"Plain from other initial weights: {row['null_estimate']:+.4f} on average over the seeds"
        if row["null_ratio"]:  # what the judge divided by
            again += f", {abs(estimate / row['null_ratio']):.4f} whatever the sign (root mean square)"
        said.append(f"{again}.")
    return " ".join(said)


def _interval_in_words(estimate: float, low: float, high: float) -> str:
    if low <= 0 <= high:
        return "The interval crosses 0: it does not tell which of the two is ahead."
    side = "above 0: distilled is ahead" if low > 0 else "below 0: plain is ahead"
    wide = ", by how much is uncertain (it is wider than the estimate is large)" if high - low > abs(estimate) else ""
    return f"The interval lies {side}{wide}."


def advance_in_words(row: Mapping[str, Any] | None, pair: CurvePair) -> str:
    """The advance with what seeds it is of; ``row`` is of comparisons.parquet, which stores no interval for it.

    There is no row where no seed ever reaches plain's final value.
    """
    if row is None and all(np.isnan(there) for _, there, _ in pair.advances):
        asked = len(pair.seeds)
        return f"Advance: none. Distilled reaches plain's final value at none of {asked} seed{'s' * (asked != 1)}."
    if row is None:
        return "The study has no advance for this comparison."
    each = [value for value in row["per_seed"] or [] if value is not None]
    never = row["never_reached"] or 0
    gone = (
        f" At {never} seed{'s' * (never != 1)} distilled never reaches that value; left out, "
        f"{'they make' if never != 1 else 'it makes'} the mean look better than it is."
        if never
        else ""
    )
    later = "earlier" if row["estimate"] >= 0 else "later"
    spread = f"seeds from {min(each):+.2f} to {max(each):+.2f}" if len(each) > 1 else "one seed"
    crosses = " Seeds disagree in sign." if min(each) < 0 < max(each) else ""
    layers = f"{abs(row['estimate']) * (len(pair.depth) - 1):.2f} layers"
    return (
        f"Advance: {abs(row['estimate']):.2f} of the depth ({layers}) {later} at plain's final value, mean over "
        f"{len(each)} seed{'s' * (len(each) != 1)} ({spread}; no interval over images is stored).{crosses}{gone}"
    )


def quantities(rows: pl.DataFrame, of: Sequence[str] = ("early_abc", "advance")) -> pl.DataFrame:
    """The rows of comparisons that the words are made of, with seeds as text, so that CSV can hold them."""
    return evidence.flat(rows.filter(pl.col("quantity").is_in(list(of)) & (pl.col("against") == PLAIN)))
