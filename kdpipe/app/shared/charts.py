"""Charts of numbers: accuracies, gains, measures by depth, classes, similarity, training. Frame in, chart out.

``colours`` names the few series that are told apart; rows of any other series are drawn in grey behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from kdpipe.app.shell.theme import GREY

# Canvas draws thousands of marks two to three times faster than SVG does.
CANVAS = {"embedOptions": {"renderer": "canvas"}}
Layered = alt.LayerChart | alt.FacetChart
_DEPTH = alt.Axis(format=".0%", tickCount=5)
LABEL = 340  # pixels of a method's name left of its row
_PERCENT = ".1~%"  # a single dot makes its own value the tick, with all digits of a float


def legend_columns(names: Sequence[str], width: int) -> int:
    """How many entries of a legend fit side by side in ``width`` pixels."""
    widths = [32 + 7 * len(name) for name in names]
    fit = (n for n in range(len(names), 1, -1) if sum(max(widths[i::n]) for i in range(n)) <= width)
    return next(fit, 1)


def fitting_columns(names: Sequence[str], width: int) -> alt.ExprRef:
    """As :func:`legend_columns`, but asked in the browser: a phone draws the chart less wide than ``width``."""
    steps = sorted({at: legend_columns(names, at) for at in range(width, 120, -20)}.items(), reverse=True)
    ladder = "".join(f"width >= {at - 40} ? {columns} : " for at, columns in steps)  # the axis takes some of it
    return alt.ExprRef(f"{ladder}1")


def series_colour(colours: Mapping[str, str], present: list[str], width: int = 780) -> alt.Color:
    """The colour channel of ``series``: fixed colours, legend on top within ``width`` px, only what is drawn."""
    shown = [name for name in colours if name in present]
    scale = alt.Scale(domain=shown, range=[colours[name] for name in shown])
    legend = alt.Legend(
        orient="top", title=None, symbolOpacity=1, labelLimit=width - 40, columns=fitting_columns(shown, width)
    )
    return alt.Color("series:N", scale=scale, legend=legend)


def _in_colour(frame: pl.DataFrame, colours: Mapping[str, str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that have a colour, and the grey context."""
    known = pl.col("series").is_in(list(colours))
    return frame.filter(known), frame.filter(~known)


def accuracy_dots(networks: pl.DataFrame, colours: Mapping[str, str]) -> Layered:
    """A dot for each seed and a tick for each mean, by label budget; the teacher is the dashed line.

    Args:
        networks: series, role, budget, label_fraction, seed, label, test_accuracy of what was trained.
        colours: a colour for each series; others are not drawn.
    """
    networks, _ = _in_colour(networks, colours)
    students = networks.filter(pl.col("role") != "teacher")
    teacher = networks.filter(pl.col("role") == "teacher")
    order = students.sort("label_fraction")["budget"].unique(maintain_order=True).to_list()
    names = [name for name in colours if name in students["series"].to_list()]
    colour = series_colour(colours, networks["series"].to_list())
    accuracy = alt.Y(
        "test_accuracy:Q", title="test accuracy", axis=alt.Axis(format=_PERCENT), scale=alt.Scale(zero=False)
    )
    base = alt.Chart(students).encode(
        x=alt.X("budget:N", sort=order, title="labels the student saw", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("series:N", sort=names),
        color=colour,
    )
    tooltip = [alt.Tooltip("label:N"), alt.Tooltip("test_accuracy:Q", format=".1%", title="test accuracy")]
    dots = base.mark_circle(size=70, opacity=0.75).encode(y=accuracy, tooltip=tooltip)
    means = base.mark_tick(thickness=3, size=22).encode(y=alt.Y("mean(test_accuracy):Q", title="test accuracy"))
    line = alt.Chart(teacher).mark_rule(strokeDash=[6, 4], strokeWidth=2)
    line = line.encode(y=accuracy, color=colour, tooltip=tooltip)
    return alt.layer(line, dots, means).properties(height=320, usermeta=CANVAS)


def depth_curves(
    curves: pl.DataFrame,
    colours: Mapping[str, str],
    title: str,
    one_line_a_seed: bool = False,
    limits: tuple[float, float] | None = None,
    width: int = 780,
    baselines: pl.DataFrame | None = None,
    band: str = "seeds",
    null: pl.DataFrame | None = None,
) -> Layered:
    """Curves over relative depth: mean over seeds inside a band from the lowest to the highest seed.

    Series without a colour are thin grey means, without a band.

    Args:
        curves: series, network_id, label, layer, relative_depth, value, chance (may be empty).
        colours: a colour for each series in colour.
        title: what the vertical axis measures.
        one_line_a_seed: draw each network instead of mean and band.
        limits: fixed range of the vertical axis.
        width: pixels that the legend may take.
        baselines: rows like ``curves`` of what nobody trained; a network of one layer, such as the raw
            pixels, has no depth and is drawn across. They and chance are left out where they lie so far off
            that the curves would be flat: :func:`far_off` says which.
        band: ``seeds``, or ``images``: the mean over seeds of each network's interval, low to high.
        null: relative_depth and reach, in curves of differences: how far to either side of 0 chance alone moves.
    """
    off = far_off(curves, baselines)
    drawn, context = _in_colour(curves, colours)
    limits = limits or _frame_of(curves, colours)
    scale = alt.Scale(domain=list(limits), nice=False) if limits else alt.Scale(zero=False)
    x = alt.X("relative_depth:Q", title="relative depth (first layer → last layer)", axis=_DEPTH)
    colour = series_colour(colours, drawn["series"].to_list(), width)
    layers: list[Any] = [] if null is None else _null_band(null, x, title, scale)
    if context.height:
        grey = alt.Chart(depth_means(context)).mark_line(strokeWidth=1, opacity=0.55, color=GREY, clip=True)
        layers.append(
            grey.encode(x=x, y=alt.Y("mean:Q", title=title, scale=scale), detail=alt.Detail("series:N"),
                        tooltip=[*_curve_tooltip("mean", "series"), alt.Tooltip("seeds:Q")])
        )  # fmt: skip
    if one_line_a_seed:
        lines = alt.Chart(drawn).mark_line(strokeWidth=1.5, opacity=0.8, point=alt.OverlayMarkDef(size=30))
        layers.append(
            lines.encode(x=x, y=alt.Y("value:Q", title=title, scale=scale), color=colour,
                         detail=alt.Detail("network_id:N"),
                         tooltip=_curve_tooltip("value", "label"))
        )  # fmt: skip
    else:
        mean = depth_means(drawn)
        base = alt.Chart(mean).encode(x=x, color=colour)
        low, high = ("low", "high") if band == "images" else ("lowest", "highest")
        area = base.mark_area(opacity=0.18).encode(
            y=alt.Y(f"{low}:Q", title=title, scale=scale), y2=alt.Y2(f"{high}:Q"), color=colour.copy()
        )
        ends = [alt.Tooltip(f"{name}:Q", format=".3f") for name in (low, high)]
        line = base.mark_line(strokeWidth=2.5, point=alt.OverlayMarkDef(size=55)).encode(
            y=alt.Y("mean:Q", title=title, scale=scale),
            tooltip=[*_curve_tooltip("mean", "series"), *ends, alt.Tooltip("seeds:Q")],
        )
        layers += [area, line]
    if baselines is not None:
        layers += _baselines(baselines.filter(~pl.col("series").is_in(list(off))), x, title, scale)
    floor = curves.filter(pl.col("chance").is_not_null())
    if floor.height and "chance" not in off:
        floor = floor.group_by("relative_depth").agg(pl.col("chance").mean()).sort("relative_depth")
        height = alt.Y("chance:Q", title=title)
        rule = alt.Chart(floor).mark_line(strokeDash=[3, 4], color=GREY, clip=True)
        layers.append(rule.encode(x=x, y=height, tooltip=[alt.Tooltip("chance:Q", format=".3f")]))
        last = floor.tail(1).with_columns(what=pl.lit("chance"))
        text = alt.Chart(last).mark_text(align="right", dy=-7, color=GREY, fontSize=11, clip=True)
        layers.append(text.encode(x=x, y=height, text=alt.Text("what:N")))
    shown = [name for name in colours if name in drawn["series"].to_list()]
    legend = -(-len(shown) // legend_columns(shown, width))  # rows; the height holds them too
    return alt.layer(*layers).properties(height=430 + 21 * max(legend - 2, 0), usermeta=CANVAS)


def out_of_frame(curves: pl.DataFrame, colours: Mapping[str, str]) -> dict[str, float]:
    """Grey series that leave the frame, as they would press those in colour together, with their furthest mean."""
    reach = _reach_of_colour(curves, colours)
    if reach is None:
        return {}
    low, high = reach
    means = depth_means(_in_colour(curves, colours)[1].drop_nulls("value")).select("series", "mean").rows()
    far: dict[str, float] = {}
    for series, mean in means:
        if not low <= mean <= high and abs(mean - low) >= abs(far.get(series, low) - low):
            far[series] = mean
    return far


def _reach_of_colour(curves: pl.DataFrame, colours: Mapping[str, str]) -> tuple[float, float] | None:
    """As far below and above the series in colour as they span."""
    values = _in_colour(curves, colours)[0]["value"].drop_nulls().to_list()
    if len(set(values)) < 2:
        return None
    span = max(values) - min(values)
    return min(values) - span, max(values) + span


def _frame_of(curves: pl.DataFrame, colours: Mapping[str, str]) -> tuple[float, float] | None:
    """The range of the vertical axis where grey series leave it; None where all fit."""
    reach = _reach_of_colour(curves, colours)
    if reach is None or not out_of_frame(curves, colours):
        return None
    low, high = reach
    edge = (high - low) / 6
    values = curves["value"].drop_nulls().to_list()
    return max(low + edge, min(values)), min(high - edge, max(values))


def _null_band(null: pl.DataFrame, x: alt.X, title: str, scale: alt.Scale) -> list[Any]:
    """Zero, and a grey band as far to either side of it as chance alone moves (where that is known)."""
    ends = null.with_columns(low=-pl.col("reach"), high="reach")
    y = alt.Y("low:Q", title=title, scale=scale)
    tooltip = [
        alt.Tooltip("relative_depth:Q"),
        alt.Tooltip("reach:Q", title="other initial weights move up to", format=".3f"),
    ]
    band = alt.Chart(ends).mark_area(color=GREY, opacity=0.22).encode(x=x, y=y, y2=alt.Y2("high:Q"), tooltip=tooltip)
    zero = alt.Chart(pl.DataFrame({"at": [0.0], "what": ["plain"]}))
    height = alt.Y("at:Q", title=title, scale=scale)
    word = zero.mark_text(align="right", dy=-7, color=GREY, fontSize=11).encode(
        x=alt.value("width"), y=height, text=alt.Text("what:N")
    )
    return [*([band] if null.height else []), zero.mark_rule(color=GREY).encode(y=height), word]


def far_off(curves: pl.DataFrame, baselines: pl.DataFrame | None = None) -> dict[str, float]:
    """Chance and baselines (series) that lie further off the curves than the curves span, with their mean value."""
    values = curves["value"].drop_nulls().to_list()
    if not values:
        return {}
    low, high = min(values), max(values)
    span = max(high - low, 1e-9)
    means: dict[str, float | None] = dict(curves.select(pl.lit("chance"), pl.col("chance").mean()).rows())
    if baselines is not None:
        means |= dict(baselines.group_by("series").agg(pl.col("value").mean()).rows())
    return {name: mean for name, mean in means.items() if mean is not None and not low - span <= mean <= high + span}


def _baselines(rows: pl.DataFrame, x: alt.X, title: str, scale: alt.Scale) -> list[Any]:
    """Dotted lines, named at their right end; one across the chart for a network of one layer."""
    layers: list[Any] = []
    y = alt.Y("value:Q", title=title, scale=scale)
    for _, mine in rows.group_by("network_id", maintain_order=True):
        lone = mine.height == 1
        drawn = pl.concat([mine.with_columns(relative_depth=pl.lit(float(end))) for end in (0, 1)]) if lone else mine
        base = alt.Chart(drawn).encode(x=x, y=y, tooltip=_curve_tooltip("value", "label"))
        layers.append(base.mark_line(strokeDash=[1, 3], strokeWidth=1.5, color=GREY, clip=True))
        last = alt.Chart(drawn.sort("relative_depth").tail(1)).encode(x=x, y=y, text=alt.Text("label:N"))
        layers.append(last.mark_text(align="right", dy=-7, color=GREY, fontSize=11, clip=True))
    return layers


def depth_means(curves: pl.DataFrame) -> pl.DataFrame:
    """Mean, lowest and highest value over seeds at each depth of each series; of intervals over images their mean."""
    value = pl.col("value")
    ends = [pl.col(name).mean() for name in ("low", "high") if name in curves.columns]
    over = {"lowest": value.min(), "highest": value.max(), "chance": pl.col("chance").mean(), "seeds": pl.len()}
    return (
        curves.group_by("series", "layer", "relative_depth", maintain_order=True)
        .agg(*ends, mean=value.mean(), **over)
        .sort("series", "relative_depth")
    )


def _curve_tooltip(value: str, name: str) -> list[Any]:
    return [
        alt.Tooltip(f"{name}:N", title="network"),
        alt.Tooltip("layer:N"),
        alt.Tooltip("relative_depth:Q", format=".0%", title="relative depth"),
        alt.Tooltip(f"{value}:Q", format=".3f"),
    ]


def class_dots(values: pl.DataFrame, colours: Mapping[str, str], order: list[str], title: str) -> Layered:
    """One line a class, one dot a series, so that the gap between two dots is the difference.

    A thin line in a series' colour runs from its lowest seed to its highest. Series without a colour are small
    grey dots.

    Args:
        values: class_name, series, value (mean over seeds), lowest, highest, seeds.
        order: class names from top to bottom.
    """
    y = alt.Y("class_name:N", sort=order, title=None, axis=alt.Axis(labelOverlap=False, labelFlush=False))
    drawn, context = _in_colour(values, colours)
    base = alt.Chart(drawn)
    place = alt.X("value:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=8))
    tooltip: list[Any] = [alt.Tooltip("class_name:N"), alt.Tooltip("series:N")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "lowest", "highest")]
    tooltip.append(alt.Tooltip("seeds:Q"))
    colour = series_colour(colours, drawn["series"].to_list())
    span = base.mark_rule(strokeWidth=2, opacity=0.45).encode(
        y=y, x=alt.X("lowest:Q", title=title, axis=alt.Axis(tickCount=8)), x2=alt.X2("highest:Q"), color=colour
    )
    dots = base.mark_circle(size=90, opacity=0.9).encode(y=y, x=place, color=colour, tooltip=tooltip)
    grey = alt.Chart(context).mark_circle(size=24, opacity=0.45, color=GREY).encode(y=y, x=place, tooltip=tooltip)
    return alt.layer(span, *([grey] if context.height else []), dots).properties(
        height=150 + 24 * len(order), usermeta=CANVAS
    )
