"""Whose neighbours an image has in a layer: the teacher's, plain's, both or neither, and what the null gives.

Frames in, frames and charts out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from kdpipe.app.shared import tables
from kdpipe.app.shared.charts import CANVAS, Layered
from kdpipe.app.shell.theme import GREY, PETROFF, SAME
from kdpipe.artifacts.store import Study

KINDS = ("kept", "gained", "lost", "invented")
SAME_CLASS, OTHER_CLASS = "same class", "other class"
_NULL = "#92dadd"  # of the control, as in every legend
_LINE = PETROFF[8]
_CREDIT_ROWS = {
    "series": pl.String, "layer": pl.String, "credit": pl.String, "same": pl.Float64, "other": pl.Float64,
    "neighbours": pl.Float64, "lowest": pl.Float64, "highest": pl.Float64, "seeds": pl.UInt32,
}  # fmt: skip


def of_networks(study: Study, scope: pl.DataFrame, view: str) -> pl.DataFrame:
    """Mean neighbours an image of each kind, by network and layer; the big table is averaged where it lies."""
    kinds = [f"{kind}_{whose}" for kind in KINDS for whose in ("same", "other")]
    wanted = study.scan("neighbour_credit").filter(
        pl.col("network_id").is_in(scope["network_id"].to_list()) & (pl.col("view") == view)
    )
    means = wanted.group_by("network_id", "layer").agg(pl.col(kinds).mean())
    return study.collect("neighbour_credit", means)


def of_another_seed(study: Study, scope: pl.DataFrame, view: str) -> pl.DataFrame:
    """The same bookkeeping of plain of another seed against plain, as stored in seed_credit.parquet.

    Labels, batches and initial weights differ, so it moves more than initial weights alone would.

    Returns:
        Rows as of :func:`of_networks`, of the second plain student that has neighbours; none where fewer than two
        have, or the teacher has not.
    """
    found = study.frame("seed_credit", network_id=scope["network_id"].to_list(), view=view)
    means = found.drop("plain_id", "view")
    return means.with_columns(pl.selectors.float().cast(pl.Float64))  # as means of counts are


def net(means: pl.DataFrame, scope: pl.DataFrame, layers: pl.DataFrame) -> pl.DataFrame:
    """The teacher's neighbours gained less those lost, by network and layer, as curves by depth."""
    gained, lost = (pl.col(f"{kind}_same") + pl.col(f"{kind}_other") for kind in ("gained", "lost"))
    rows = means.select("network_id", "layer", value=gained - lost, chance=pl.lit(None, pl.Float32))
    return tables.by_depth(rows, scope, layers)


def by_kind(means: pl.DataFrame, scope: pl.DataFrame, layers: pl.DataFrame) -> pl.DataFrame:
    """A row a series, layer and kind: mean over seeds of the same and the other class, and the seeds' range of both."""
    if means.is_empty():
        return pl.DataFrame(schema=_CREDIT_ROWS)
    columns = ["network_id", "layer"]
    wide = pl.concat(
        [means.select(*columns, credit=pl.lit(kind), same=f"{kind}_same", other=f"{kind}_other") for kind in KINDS]
    )
    wide = wide.with_columns(total=pl.col("same") + pl.col("other"))
    order = layers.select("network_id", "layer", "order").unique()
    place = pl.col("credit").replace_strict({kind: i for i, kind in enumerate(KINDS)}, return_dtype=pl.Int32)
    return (
        wide.join(scope.select("network_id", "series", "rank"), on="network_id")
        .join(order, on=["network_id", "layer"])
        .group_by("rank", "series", "layer", "order", "credit")
        .agg(pl.col("same").mean(), pl.col("other").mean(), neighbours=pl.col("total").mean(),
             lowest=pl.col("total").min(), highest=pl.col("total").max(), seeds=pl.len())
        .sort("rank", "series", "order", place)
        .drop("rank", "order")
    )  # fmt: skip


def bars(rows: pl.DataFrame, null: pl.DataFrame, layers: Sequence[str]) -> Layered:
    """Neighbours an image, a bar a kind and layer, split by class; a line over seeds; a diamond for the null.

    Args:
        rows: of :func:`by_kind` for one series.
        null: the same for another plain start, or none.
        layers: from top to bottom.
    """
    order = [f"{layer}\n{part}" for layer in layers for part in (*KINDS, "")][:-1]
    at = pl.concat_str("layer", pl.lit("\n"), "credit")
    shown, other = (frame.filter(pl.col("layer").is_in(list(layers))).with_columns(row=at) for frame in (rows, null))
    parts = pl.concat([
        shown.with_columns(start=pl.lit(0.0), end="same", of=pl.lit(SAME_CLASS)),
        shown.with_columns(start="same", end="neighbours", of=pl.lit(OTHER_CLASS)),
    ])  # fmt: skip
    first = "split(datum.value, '\\n')[1] === 'kept' ? split(datum.value, '\\n')[0] + '  ' : ''"
    label = f"({first}) + split(datum.value, '\\n')[1]"
    axis = alt.Axis(labelExpr=label, labelOverlap=False, labelFlush=False, ticks=False, labelLimit=180, title=None)
    y = alt.Y("row:N", sort=None, axis=axis, scale=alt.Scale(domain=order, paddingInner=0.15))
    title = "neighbours of an image, of 15"
    tooltip = [alt.Tooltip("layer:N"), alt.Tooltip("credit:N", title="kind"), *(
        alt.Tooltip(f"{name}:Q", title=words, format=".2f")
        for name, words in {"same": "of the same class", "other": "of another class", "neighbours": "both",
                            "lowest": "both, lowest seed", "highest": "both, highest seed"}.items()
    ), alt.Tooltip("seeds:Q")]  # fmt: skip
    colour = alt.Color(
        "of:N", title=None, scale=alt.Scale(domain=[SAME_CLASS, OTHER_CLASS], range=[SAME, GREY]),
        legend=alt.Legend(orient="top"),
    )  # fmt: skip
    x = alt.X("start:Q", title=title, axis=alt.Axis(tickCount=alt.ExprRef("width < 400 ? 5 : 12")))
    drawn = alt.Chart(parts).mark_bar().encode(y=y, x=x, x2=alt.X2("end:Q"), color=colour, tooltip=tooltip)
    line = alt.Chart(shown).mark_rule(strokeWidth=2, color=_LINE)
    marks: list[Any] = [
        drawn,
        line.encode(y=y, x=alt.X("lowest:Q", title=title), x2=alt.X2("highest:Q"), tooltip=tooltip),
    ]
    if other.height:
        dots = alt.Chart(other).mark_point(
            shape="diamond", size=75, filled=True, fill=_NULL, stroke="#333333", strokeWidth=1.2, opacity=1
        )
        named = [alt.Tooltip("series:N", title="compared with"), *tooltip]
        marks.append(dots.encode(y=y, x=alt.X("neighbours:Q", title=title), tooltip=named))
    return alt.layer(*marks).properties(height=60 + 18 * len(order), usermeta=CANVAS)


def some_of(layers: Sequence[str], most: int = 6) -> list[str]:
    """At most ``most`` layers, the first and the last among them, evenly spread."""
    if len(layers) <= most:
        return list(layers)
    return [layers[round(i * (len(layers) - 1) / (most - 1))] for i in range(most)]


def net_in_words(curves: pl.DataFrame, colours: Mapping[str, str]) -> str:
    """Of each series in colour the layer where it gains most, with the seeds' range: for those who cannot see it."""
    said = []
    for name in colours:
        rows = curves.filter(series=name).group_by("layer", maintain_order=True).agg(
            mean=pl.col("value").mean(), low=pl.col("value").min(), high=pl.col("value").max()
        )  # fmt: skip
        if rows.height:
            top = rows.sort("mean", descending=True).row(0, named=True)
            said.append(f"{name} {top['mean']:+.2f} ({top['low']:+.2f} to {top['high']:+.2f}) at {top['layer']}")
    return f"At most: {'; '.join(said)}." if said else "No values."


def of_another_start(study: Study, scope: pl.DataFrame, view: str) -> tuple[pl.DataFrame, str]:
    """What another plain start alone gains and loses, and what that start is (or why there is none)."""
    again = scope.filter("null")["network_id"].to_list()
    stored = of_networks(study, scope.filter("null"), view)
    if stored.height:
        return stored, f"plain from other initial weights ({len(again)} seed{'s' * (len(again) != 1)})"
    found = of_another_seed(study, scope, view)
    if found.height:
        return found, "plain of another seed (labels, batches and initial weights differ; one pair of students)"
    return found, (
        "What another plain start gains and loses is not stored here: that takes neighbours of two plain students, "
        "which studies with maps keep (`projectors` under `[maps]`)."
    )
