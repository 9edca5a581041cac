"""Charts of what methods gain: ranges against the null, slopes over budgets, ranks, and accuracy for its price."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from kdpipe.app.methods.differences import Quantity, Ranking
from kdpipe.app.shared.charts import CANVAS, Layered, series_colour
from kdpipe.app.shell.theme import GREY, PETROFF

# Names left of the rows: a third of a phone, all there is room for on a desk. Asked in the browser.
NAMES = alt.ExprRef("containerSize()[0] < 600 ? 130 : 340")
_AROUND = 185  # pixels of legend, axis, title and signature
_WORDS = PETROFF[8]  # a grey that is read on white and on black
_SIGNED = "datum.value === 0 ? '0' : format(datum.value, '+.3~g')"
_NARROW = alt.ExprRef("containerSize()[0] < 600 ? 4 : 10")


def _named_rows(names: Sequence[str], colours: Mapping[str, str]) -> alt.Y:
    """One row a name, in order, those in colour in bold."""
    bold = {"condition": {"test": f"indexof({json.dumps(list(colours))}, datum.value) >= 0", "value": "bold"}}
    weight: Any = {**bold, "value": "normal"}
    axis = alt.Axis(labelLimit=NAMES, labelOverlap=False, labelFlush=False, labelFontWeight=weight)
    return alt.Y("series:N", sort=list(names), title=None, axis=axis)


def _shape(legend: bool = True) -> alt.Shape:
    """Diamonds for controls; next to a legend of colours a second one would be cut off, so words must say it."""
    scale = alt.Scale(domain=["method", "control"], range=["circle", "diamond"])
    shown = alt.Legend(orient="top", title=None, symbolStrokeWidth=0, symbolFillColor=GREY)
    return alt.Shape("kind:N", scale=scale, legend=shown if legend else None)


def _kind() -> pl.Expr:
    return pl.when(pl.col("role") == "control").then(pl.lit("control")).otherwise(pl.lit("method"))


def left_edge(rows: pl.DataFrame, reach: float) -> float | None:
    """Where the axis of :func:`ranges` ends if some rows lie far below the bulk; None if none does."""
    if rows.is_empty():
        return None
    quarter = rows["gain"].quantile(0.25, "linear") or 0.0
    top, foot = max([*rows["highest"], 0.0]), min(quarter, -reach, 0.0)
    span = max(top - foot, 1e-9)
    bulk = rows.filter(pl.col("gain") >= foot - span)
    if bulk.height == rows.height:
        return None
    low = min([*bulk["lowest"], -reach, 0.0])
    return max(foot - span, low - 0.12 * max(top - low, 1e-9))  # with room for the arrows and their numbers


def ranges(rows: pl.DataFrame, colours: Mapping[str, str], quantity: Quantity, reach: float) -> Layered:
    """A row a method: its mean, a line from the lowest seed to the highest, before the null's band.

    The band reaches as far to either side of zero as other initial weights move: the difference of two runs that differ
    in nothing else has no sign of its own. Rows far below all others would press those together, so an arrow and a
    number stand for them.

    Args:
        rows: of :func:`kdpipe.app.shared.gains.over_seeds` for one student and budget, in order.
        colours: a colour for each series in colour; the others are grey.
        reach: half the width of the band; 0 for none.
    """
    edge = left_edge(rows, reach)
    shown = rows.select(
        "series", "gain", "lowest", "highest", "pairs", kind=_kind(), low=pl.col("lowest").clip(edge),
        high=pl.col("highest").clip(edge), at=pl.col("gain").clip(edge),
        colour=pl.col("series").replace_strict(dict(colours), default=GREY, return_dtype=pl.String),
        off=pl.lit(edge is not None) & (pl.col("gain") < (edge or 0)),
    )  # fmt: skip
    scale = alt.Scale(zero=True, nice=False, padding=12, domainMin=alt.Undefined if edge is None else edge)
    signed = alt.Axis(orient="bottom", tickCount=_NARROW, labelExpr=_SIGNED)
    x: dict[str, Any] = {"scale": scale, "title": quantity.axis, "axis": signed}
    form = f"+.{quantity.digits}f"
    tooltip = [alt.Tooltip("series:N", title="network"), alt.Tooltip("kind:N")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=form) for name in ("gain", "lowest", "highest")]
    tooltip.append(alt.Tooltip("pairs:Q", title="seeds"))
    base = alt.Chart(shown).encode(
        y=_named_rows(shown["series"].to_list(), colours), color=alt.Color("colour:N", scale=None), tooltip=tooltip
    )
    band = alt.Chart(pl.DataFrame({"from": [-reach], "to": [reach]})).mark_rect(color=GREY, opacity=0.22)
    zero = alt.Chart(pl.DataFrame({"from": [0.0]})).mark_rule(color=GREY)
    inside, outside = base.transform_filter("!datum.off"), base.transform_filter("datum.off")
    layers = [
        *([band.encode(x=alt.X("from:Q", **x), x2=alt.X2("to:Q"))] if reach else []),
        zero.encode(x=alt.X("from:Q", **x)),
        inside.mark_rule(strokeWidth=2.5, opacity=0.7).encode(x=alt.X("low:Q", **x), x2=alt.X2("high:Q")),
        inside.mark_point(size=80, filled=True, opacity=1).encode(x=alt.X("at:Q", **x), shape=_shape()),
        outside.mark_point(size=70, filled=True, opacity=1, shape="triangle-left", xOffset=6).encode(
            x=alt.X("at:Q", **x)
        ),
        outside.mark_text(align="left", dx=16, fontSize=11).encode(
            x=alt.X("at:Q", **x), text=alt.Text("gain:Q", format=form)
        ),
    ]
    return alt.layer(*layers).properties(height=_AROUND + 22 * shown.height, usermeta=CANVAS)


def slopes(
    rows: pl.DataFrame,
    colours: Mapping[str, str],
    order: Sequence[str],
    quantity: Quantity,
    null: pl.DataFrame,
    limits: tuple[float, float],
) -> Layered:
    """A line a method from one place to the next, its seeds' range at each; grey for the other methods.

    Args:
        rows: series, role, where (a budget or an architecture), gain, lowest, highest, pairs.
        order: places from left to right.
        null: where, reach.
        limits: of the vertical axis, which charts side by side share.
    """
    at = {name: index for index, name in enumerate(order)}
    drawn, context = (
        rows.filter(pl.col("series").is_in(list(colours)) == known).with_columns(
            column=pl.col("where").replace_strict(at, return_dtype=pl.Float64)
        )
        for known in (True, False)
    )
    present = [name for name in colours if name in drawn["series"].to_list()]
    middle = (len(present) - 1) / 2
    aside = {name: (index - middle) * min(0.09, 0.5 / len(present)) for index, name in enumerate(present)}
    drawn = drawn.with_columns(kind=_kind(), spot=pl.col("column") + pl.col("series").replace_strict(aside, default=0))
    labels = f"({json.dumps(list(order))})[datum.value] || ''"
    axis = alt.Axis(values=list(range(len(order))), labelExpr=labels, labelAngle=0, grid=False)
    x: dict[str, Any] = {"scale": alt.Scale(domain=[-0.5, len(order) - 0.5], nice=False), "axis": axis, "title": None}
    scale = alt.Scale(domain=list(limits), nice=True)
    y: dict[str, Any] = {"title": quantity.axis, "axis": alt.Axis(labelExpr=_SIGNED), "scale": scale}
    form = f"+.{quantity.digits}f"
    tooltip: list[Any] = [alt.Tooltip("series:N"), alt.Tooltip("where:N", title="at")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=form) for name in ("gain", "lowest", "highest")]
    tooltip.append(alt.Tooltip("pairs:Q", title="seeds"))
    bands = null.with_columns(column=pl.col("where").replace_strict(at, return_dtype=pl.Float64))
    bands = bands.with_columns(left=pl.col("column") - 0.45, right=pl.col("column") + 0.45, foot=-pl.col("reach"))
    band = alt.Chart(bands).mark_rect(color=GREY, opacity=0.22)
    zero = alt.Chart(pl.DataFrame({"gain": [0.0]})).mark_rule(color=GREY)
    grey = alt.Chart(context).mark_line(strokeWidth=1, opacity=0.5, color=GREY)
    base = alt.Chart(drawn).encode(
        x=alt.X("spot:Q", **x), color=series_colour(colours, drawn["series"].to_list()), tooltip=tooltip
    )
    layers = [
        *([band.encode(x=alt.X("left:Q", **x), x2=alt.X2("right:Q"), y=alt.Y("foot:Q", **y), y2=alt.Y2("reach:Q"))]
          if bands.height else []),
        zero.encode(y=alt.Y("gain:Q", **y)),
        *([grey.encode(x=alt.X("column:Q", **x), y=alt.Y("gain:Q", **y), detail=alt.Detail("series:N"),
                       tooltip=tooltip)]
          if context.height else []),
        base.mark_line(strokeWidth=2).encode(y=alt.Y("gain:Q", **y)),
        base.mark_rule(strokeWidth=2, opacity=0.6).encode(y=alt.Y("lowest:Q", **y), y2=alt.Y2("highest:Q")),
        base.mark_point(size=80, filled=True, opacity=1).encode(y=alt.Y("gain:Q", **y), shape=_shape(legend=False)),
    ]  # fmt: skip
    return alt.layer(*layers).properties(height=400, usermeta=CANVAS)


def rank_ranges(ranking: Ranking, colours: Mapping[str, str], words: str) -> Layered:
    """A row a method: its mean rank over seeds and a line from low to high.

    Args:
        words: what the line is.
    """
    shown = ranking.rows.with_columns(
        kind=_kind(), colour=pl.col("series").replace_strict(dict(colours), default=GREY, return_dtype=pl.String)
    )
    axis = alt.Axis(orient="bottom", tickMinStep=1, tickCount=_NARROW, format="d")
    scale = alt.Scale(domain=[0.5, ranking.ranked + 0.5], nice=False)
    x: dict[str, Any] = {"title": "rank within a seed (1 is the best)", "axis": axis, "scale": scale}
    tooltip: list[Any] = [alt.Tooltip("series:N", title="network"), alt.Tooltip("rank:Q", title="mean", format=".2f")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".2f", title=f"{words}, {name}") for name in ("low", "high")]
    base = alt.Chart(shown).encode(
        y=_named_rows(shown["series"].to_list(), colours), color=alt.Color("colour:N", scale=None), tooltip=tooltip
    )
    lines = base.mark_rule(strokeWidth=2.5, opacity=0.7).encode(x=alt.X("low:Q", **x), x2=alt.X2("high:Q"))
    dots = base.mark_point(size=80, filled=True, opacity=1).encode(x=alt.X("rank:Q", **x), shape=_shape())
    return alt.layer(lines, dots).properties(height=_AROUND + 22 * shown.height, usermeta=CANVAS)


def front(points: pl.DataFrame, colours: Mapping[str, str], unit: str) -> Layered:
    """Accuracy over cost on a logarithmic axis: seeds' ranges, and a stepped line along what nothing else beats.

    Args:
        points: rows of :func:`kdpipe.app.methods.differences.priced`.
        colours: a colour for each series in colour; the others are grey.
        unit: what the cost is in.
    """
    best = points.filter("front")
    low, high = float(points["place"].min()), float(points["place"].max())  # type: ignore[arg-type]
    room = max((high / low) ** 0.14, 1.15)
    x: dict[str, Any] = {
        "scale": alt.Scale(type="log", domain=[low / room, high * room], nice=False),
        "title": f"{unit}, logarithmic",
        "axis": alt.Axis(format="~s", tickCount=_NARROW, labelOverlap=True),
    }
    scale = alt.Scale(zero=False, padding=22)
    y: dict[str, Any] = {"title": "test accuracy", "scale": scale, "axis": alt.Axis(format=".1~%")}
    tooltip: list[Any] = [alt.Tooltip("name:N"), alt.Tooltip("cost:Q", format=",.0f", title=unit)]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".1%") for name in ("accuracy", "lowest", "highest")]
    tooltip.append("seeds:Q")
    # To the right edge, so that the line is seen to hold there too.
    steps = pl.concat(
        [best.select("place", "accuracy"), best.select(place=pl.lit(high * room), accuracy=pl.col("accuracy").max())]
    )
    line = alt.Chart(steps).mark_line(interpolate="step-after", strokeDash=[5, 4], strokeWidth=1.5, color=GREY)
    layers: list[Any] = [line.encode(x=alt.X("place:Q", **x), y=alt.Y("accuracy:Q", **y))]
    shapes = alt.Scale(domain=["teacher", "plain", "distilled"], range=["square", "triangle-up", "circle"])
    known = pl.col("series").is_in(list(colours))
    for rows, colour in ((points.filter(~known), None), (points.filter(known), colours)):
        if rows.is_empty():
            continue
        base = alt.Chart(rows).encode(x=alt.X("place:Q", **x), tooltip=tooltip)
        base = base.encode(color=alt.value(GREY) if colour is None else series_colour(colour, rows["series"].to_list()))
        layers.append(
            base.mark_rule(strokeWidth=2, opacity=0.55).encode(y=alt.Y("lowest:Q", **y), y2=alt.Y2("highest:Q"))
        )
        dots = base.mark_point(size=95, filled=True, opacity=1)
        layers.append(dots.encode(y=alt.Y("accuracy:Q", **y), shape=alt.Shape("role:N", scale=shapes, legend=None)))
    named = alt.Chart(best).mark_text(align="center", baseline="bottom", dy=-7, fontSize=12, color=_WORDS)
    layers.append(
        named.encode(x=alt.X("place:Q", **x), y=alt.Y("highest:Q", **y), text=alt.Text("name:N"), tooltip=tooltip)
    )
    return alt.layer(*layers).properties(height=420, usermeta=CANVAS)
