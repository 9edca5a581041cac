"""Does a network know how sure it can be? Accuracy by confidence, and the calibration error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

from kdpipe.app.flips.outcomes import Comparison, stored_of
from kdpipe.app.shared.charts import CANVAS, Layered, series_colour
from kdpipe.app.shell.theme import GREY
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import CALIBRATION_BINS, OWN, PLAIN, SECOND_START, TEACHER

FEWEST = 5  # images that a bin needs to be drawn


def named(compared: Comparison) -> pl.DataFrame:
    """network_id and series of teacher, plain, the student and plain's second initialisation, a row a network."""
    parts = [compared.own.select(network_id=f"{name}_id", series=pl.lit(name)) for name in ("teacher", "plain")]
    together = pl.concat([*parts, compared.both.select("network_id", "series")])
    return together.unique("network_id", keep="first", maintain_order=True)


def reliability(study: Study, compared: Comparison) -> pl.DataFrame:
    """Accuracy in ten bins of confidence, each open below and closed above, for each series.

    Returns:
        series, bin (0 to 9), confidence (mean), accuracy, low, high (Wilson, 95 %), images (mean over
        seeds), share (of all images), seeds. Empty bins have no row.
    """
    series = {OWN: compared.series, PLAIN: "plain", TEACHER: "teacher"}
    if compared.null.height:
        series[SECOND_START] = compared.null["series"][0]
    rows = stored_of(study, "calibration", compared).filter(pl.col("who").is_in(list(series)))
    rows = rows.with_columns(series=pl.col("who").replace_strict(series, return_dtype=pl.String))
    columns = ["series", "bin", "confidence", "accuracy", "low", "high", "images", "share", "seeds"]
    return rows.select(columns).sort("series", "bin")


def errors(study: Study, named: pl.DataFrame) -> pl.DataFrame:
    """The expected calibration error (15 bins) of each series: mean and range over its seeds.

    Args:
        named: network_id and series, in order.

    Returns:
        series, mean, lowest, highest, seeds; no row for what has none.
    """
    rows = study.frame("network_measures", network_id=named["network_id"].to_list(), measure="ece")
    value = pl.col("value")
    return (
        named.join(rows, on="network_id", maintain_order="left")
        .group_by("series", maintain_order=True)
        .agg(mean=value.mean(), lowest=value.min(), highest=value.max(), seeds=pl.len())
    )


def in_words(found: pl.DataFrame) -> str:
    """``teacher 0.021, plain 0.043 (0.040 to 0.047 over 3 seeds)``."""
    return ", ".join(
        f"{row['series']} {row['mean']:.3f}"
        + (f" ({row['lowest']:.3f} to {row['highest']:.3f} over {row['seeds']} seeds)" if row["seeds"] > 1 else "")
        for row in found.rows(named=True)
    )


def leaning(rows: pl.DataFrame, series: str) -> str:
    """Whether a series is surer than it is right, or the reverse, on average over all images."""
    mine = rows.filter(series=series)
    gap = ((pl.col("confidence") - pl.col("accuracy")) * pl.col("share")).sum()
    value = float(mine.select(gap).item() or 0.0)
    if abs(value) < 0.005:
        return f"{series} is on average as sure as it is right"
    return f"{series} is on average {100 * abs(value):.1f} points {'surer' if value > 0 else 'less sure'} than right"


def reliability_chart(rows: pl.DataFrame, colours: Mapping[str, str]) -> Layered:
    """Accuracy against confidence, with intervals; on the dashed diagonal both agree. Fewer images: a smaller dot."""
    rows = rows.filter(pl.col("images") >= FEWEST)
    present = [name for name in colours if name in rows["series"].to_list()]
    percent = alt.Axis(format=".0%", tickCount=5)
    y: dict[str, Any] = {"title": "share of right answers", "scale": alt.Scale(domain=[0, 1]), "axis": percent}
    x = alt.X("confidence:Q", title="mean confidence in the bin", scale=alt.Scale(domain=[0, 1]), axis=percent)
    tooltip: list[Any] = [
        alt.Tooltip("series:N"),
        *(alt.Tooltip(f"{name}:Q", format=".1%") for name in ("confidence", "accuracy", "low", "high")),
        alt.Tooltip("images:Q", format=".1f", title="images (mean over seeds)"), alt.Tooltip("seeds:Q"),
    ]  # fmt: skip
    base = alt.Chart(rows).encode(x=x, color=series_colour(colours, present, 420), tooltip=tooltip)
    ends = alt.Chart(pl.DataFrame({"confidence": [0.0, 1.0], "accuracy": [0.0, 1.0]}))
    diagonal = ends.mark_line(strokeDash=[4, 4], color=GREY).encode(x=x, y=alt.Y("accuracy:Q", **y))
    spread = base.mark_rule(strokeWidth=2, opacity=0.55).encode(y=alt.Y("low:Q", **y), y2=alt.Y2("high:Q"))
    line = base.mark_line(strokeWidth=1.5, opacity=0.8).encode(y=alt.Y("accuracy:Q", **y))
    size = alt.Size("share:Q", scale=alt.Scale(type="sqrt", range=[12, 170]), legend=None)
    dots = base.mark_point(filled=True, opacity=1).encode(y=alt.Y("accuracy:Q", **y), size=size)
    return alt.layer(diagonal, spread, line, dots).properties(height=430, usermeta=CANVAS)


def confidence_chart(rows: pl.DataFrame, colours: Mapping[str, str]) -> Layered:
    """How the images are spread over the bins of confidence, a line a series."""
    present = [name for name in colours if name in rows["series"].to_list()]
    every = pl.DataFrame({"bin": range(CALIBRATION_BINS)}, schema={"bin": pl.Int32})
    full = every.join(pl.DataFrame({"series": present}), how="cross").join(rows, on=["series", "bin"], how="left")
    full = full.with_columns(pl.col("share", "images").fill_null(0.0), middle=(pl.col("bin") + 0.5) / CALIBRATION_BINS)
    base = alt.Chart(full).encode(
        x=alt.X("middle:Q", title="confidence", scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".0%", tickCount=5)),
        y=alt.Y("share:Q", title="share of the images", axis=alt.Axis(format=".0%", tickCount=5)),
        color=series_colour(colours, present, 260),
        tooltip=[alt.Tooltip("series:N"), alt.Tooltip("middle:Q", title="bin around", format=".0%"),
                 alt.Tooltip("share:Q", format=".1%"), alt.Tooltip("images:Q", format=".1f")],
    )  # fmt: skip
    lines = base.mark_line(interpolate="step", strokeWidth=2)
    return alt.layer(lines, base.mark_point(filled=True, size=30)).properties(height=430, usermeta=CANVAS)
