"""One or two large maps as one picture over one table, linked image by image in the browser.

The table has columns x_0, y_0, x_1, y_1, … : Vega then links the maps by ``sample_id``, and nothing is asked
of the server when an image is pointed at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl
import streamlit as st

from kdpipe.app.explore.colouring import OUTCOME_COLOURS, Colouring
from kdpipe.app.explore.settings import Choice, Side
from kdpipe.app.shared.charts import CANVAS, legend_columns
from kdpipe.app.shell import theme
from kdpipe.app.shell.images import with_images

Spec = dict[str, Any]
PICK, BRUSH, HOVER = "pick", "brush", "hover"
_UNDER = "under_"
_SIDE, _GAP = 430, 16  # pixels; a window of 1280 leaves 900 next to the sidebar
_ROOM = "(containerSize()[0] || windowSize()[0] - 32)"
_EDGES = (0.01, 0.99)  # quantiles at which colour ends: one far value would leave one colour for all others


def chart_table(choice: Choice) -> pl.DataFrame:
    """What the browser gets: one row an image; those that the filters leave out have no image and no colour."""
    sides = range(len(choice.sides))
    fields = [choice.quantity.field(at) for at in sides]
    own = [f"{name}_{at}" for at in sides for name in ("x", "y", "answer", "confidence")]
    columns = list(dict.fromkeys(["sample_id", "class_name", *own, *fields]))
    shown = choice.facts.select("sample_id").with_columns(
        shown=pl.col("sample_id").is_in(choice.shown["sample_id"].to_list())
    )
    pictures = with_images(choice.shown.select("sample_id", "image"))
    table = choice.facts.select(columns).join(shown, on="sample_id").join(pictures, on="sample_id", how="left")
    if theme.OTHER in choice.colours:
        named = {f"{field}_colour": pl.col(field) for field in dict.fromkeys(fields)}
        table = table.with_columns(
            pl.when(value.is_in(list(choice.colours))).then(value).otherwise(pl.lit(theme.OTHER)).alias(name)
            for name, value in named.items()
        )
    return table.sort("sample_id")


def linked_maps(choice: Choice, table: pl.DataFrame, marked: Sequence[int] = ()) -> Spec:
    """The maps side by side or one below the other; a plain Vega-Lite specification.

    Pointing at a dot rings the image in both maps. A click picks it (parameter :data:`PICK`; with shift, one
    more), dragging a rectangle picks all in it (parameter :data:`BRUSH`).

    Args:
        choice: what is drawn and what colour means.
        table: from :func:`chart_table`.
        marked: images that are picked from the start.
    """
    views = [f"map_{at}" for at in range(len(choice.sides))]
    click: Spec = {"type": "point", "fields": ["sample_id"], "on": "click", "toggle": "event.shiftKey",
                   "clear": "pointerdown[!event.shiftKey]"}  # fmt: skip
    # With shift a rectangle stays where it is, so that single images can be added to it.
    drag = "[pointerdown[!event.shiftKey], window:pointerup] > window:pointermove!"
    frame = {"fill": theme.MARKED, "fillOpacity": 0.06, "stroke": theme.MARKED, "strokeOpacity": 0.8}
    box: Spec = {"type": "interval", "on": drag, "translate": False, "zoom": False, "mark": frame}
    over = {"type": "point", "fields": ["sample_id"], "on": "pointerover", "clear": "pointerout"}
    clicked: Spec = {"name": PICK, "select": click, "views": views}
    if marked:
        clicked["value"] = [{"sample_id": sample} for sample in marked]
    framed = {"name": BRUSH, "select": box, "views": [f"{_UNDER}{at}" for at in range(len(choice.sides))]}
    pointed = {"name": HOVER, "select": over, "views": views}
    height = _height(choice, table)
    ring = 170 if len(marked) <= 12 else 80
    cells = [
        {"width": _SIDE, "height": height, "title": _title(side), "layer": _layers(choice, table, at, height, ring),
         "view": {"stroke": theme.GREY, "strokeOpacity": 0.4, "strokeWidth": 1}}
        for at, side in enumerate(choice.sides)
    ]  # fmt: skip
    # Streamlit makes views of a vconcat as wide as the page; of views side by side the browser breaks the row.
    in_a_row = {"concat": cells, "columns": {"signal": f"{_ROOM} < {len(cells) * _SIDE} ? 1 : {len(cells)}"}}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",  # a concat alone is not known for Vega-Lite
        **({"vconcat": cells} if choice.stacked else in_a_row),
        "spacing": _GAP,
        "params": [clicked, framed, pointed],
        "resolve": {"scale": {"color": "shared"}},
        "usermeta": CANVAS,
    }


def _height(choice: Choice, table: pl.DataFrame) -> int:
    """Of every map: side by side as low as the flattest layout lets it be, else what a screen holds."""
    if choice.stacked:
        return 560 if len(choice.sides) == 1 else 460
    shapes = [(_span(table, f"y_{at}")[1], _span(table, f"x_{at}")[1]) for at in range(len(choice.sides))]
    return round(_SIDE * min(1.0, max(0.6, *(up / across for up, across in shapes))))


def _layers(choice: Choice, table: pl.DataFrame, at: int, height: int, ring: int) -> list[Spec]:
    """Images left out, faint and dead; the dots; and the rings around what is pointed at or clicked."""
    place = {
        axis: {"field": f"{axis}_{at}", "type": "quantitative", "axis": None, "scale": scale}
        for axis, scale in _frame(table, at, height, choice.stacked).items()
    }
    size = 34 if table.height <= 1000 else 20
    rings = {HOVER: (260, 2.5), PICK: (ring, 2.0)}
    shut_out: Spec = {
        "name": f"{_UNDER}{at}",
        "mark": {"type": "circle", "size": size * 0.7, "color": theme.GREY, "opacity": 0.13, "tooltip": None},
        "transform": [{"filter": "!datum.shown"}],
        "encoding": place,
    }
    inside = {"condition": {"param": BRUSH, "value": 0.9}, "value": 0.12}  # with no rectangle, all are inside
    dots: Spec = {
        "name": f"map_{at}",
        "mark": {"type": "circle", "size": size},
        "transform": [{"filter": "datum.shown"}],
        "encoding": {**place, "color": _colour(choice, at), "opacity": inside, "tooltip": _tooltip(choice, at)},
    }
    ringed: list[Spec] = [
        {
            "mark": {"type": "point", "size": area, "strokeWidth": width, "color": theme.MARKED, "filled": False,
                     "tooltip": None},
            "transform": [{"filter": {"param": name, "empty": False}}],
            "encoding": place,
        }
        for name, (area, width) in rings.items()
    ]  # fmt: skip
    # A layer of its own keeps the rectangle under the dots, which can then still be pointed at.
    return [{"layer": [shut_out]}, dots, *ringed]


def _colour(choice: Choice, at: int) -> Spec:
    quantity = choice.quantity
    field = quantity.field(at)
    legend: Spec = {"orient": "top", "title": quantity.unit, "titleLimit": 340, "symbolOpacity": 1}
    if quantity.in_words:
        present = list(choice.colours)
        named: Spec = {
            "field": f"{field}_colour" if theme.OTHER in choice.colours else field,
            "type": "nominal",
            "scale": {"domain": present, "range": list(choice.colours.values())},
            "legend": {**legend, "symbolType": "circle", "columns": fitting(present)},
        }
    else:
        scale = {"domain": list(domain(choice)), "clamp": True, "nice": False, **_palette(quantity)}
        ends: Spec = {"gradientLength": 220, "format": quantity.format, "tickCount": 5}
        if quantity.look == "diverging":
            scale["domain"] = [scale["domain"][0], 0, scale["domain"][1]]
            ends["labelExpr"] = f"datum.value === 0 ? '0' : format(datum.value, '{quantity.format}')"
        named = {"field": field, "type": "quantitative", "scale": scale, "legend": {**legend, **ends}}
    return {"condition": {"test": f"isValid(datum[{json.dumps(field)}])", **named}, "value": theme.GREY}


def fitting(names: Sequence[str]) -> Spec:
    """Columns of a legend, asked in the browser: a phone has less room than a desk."""
    columns = {at: legend_columns(names, at) for at in range(240, 900, 40)}
    least = {count: at for at, count in sorted(columns.items(), reverse=True)}  # room that so many columns take
    ladder = sorted(least.items(), reverse=True)
    return {"signal": "".join(f"{_ROOM} >= {at} ? {count} : " for count, at in ladder) + "2"}


def domain(choice: Choice) -> tuple[float, float]:
    """Ends of the colour scale that both maps share: of all images, so that colours stay when images are filtered."""
    quantity = choice.quantity
    if quantity.limits is not None:
        return quantity.limits
    fields = {quantity.field(at) for at in range(len(choice.sides))}
    values = pl.concat([choice.facts[field].drop_nulls().cast(pl.Float64).alias("v") for field in sorted(fields)])
    low, high = (values.quantile(edge, "nearest") for edge in _EDGES)
    if low is None or high is None:
        return 0.0, 1.0
    if quantity.look == "diverging":
        reach = max(abs(low), abs(high)) or 1.0
        return -reach, reach
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _palette(quantity: Colouring) -> Spec:
    if quantity.look == "diverging":
        return {"range": [OUTCOME_COLOURS["broken"], theme.GREY, OUTCOME_COLOURS["fixed"]], "interpolate": "rgb"}
    if quantity.look == "cyclic":
        return {"scheme": "sinebow"}
    # Either end of viridis sinks into one of the two backgrounds.
    extent = [0.22, 1] if st.context.theme.type == "dark" else [0, 0.93]
    return {"scheme": {"name": "viridis", "extent": extent}}


def _tooltip(choice: Choice, at: int) -> list[Spec]:
    """What pointing at a dot shows; Vega draws the field called ``image`` as an image."""
    quantity = choice.quantity
    lines: list[Spec] = [
        {"field": "image", "type": "nominal"},
        {"field": "class_name", "type": "nominal", "title": "class"},
        {"field": f"answer_{at}", "type": "nominal", "title": "answer"},
        {"field": f"confidence_{at}", "type": "quantitative", "title": "confidence", "format": ".0%"},
    ]
    if quantity.column not in ("class_name", "answer", "confidence"):
        kind: Spec = {"type": "nominal"} if quantity.in_words else {"type": "quantitative", "format": quantity.format}
        lines.append({"field": quantity.field(at), "title": quantity.title, **kind})
    return [*lines, {"field": "sample_id", "type": "quantitative", "title": "image number"}]


def _title(side: Side) -> Spec:
    names = {"trustworthiness": "trustworthiness", "knn_recall": "neighbours kept"}
    said = [f"{words} {side.scores[name]:.2f}" for name, words in names.items() if name in side.scores]
    small = {"subtitleFontSize": 12, "subtitleColor": theme.GREY, "offset": 6, "limit": 420}
    return {
        "text": side.network,
        "subtitle": " · ".join([side.layer, *said]),
        "anchor": "start",
        "fontSize": 14,
        **small,
    }


def _span(table: pl.DataFrame, field: str) -> tuple[float, float]:
    """Middle and extent of a column."""
    low, high = (
        float(end) if isinstance(end, int | float) else 0.0 for end in (table[field].min(), table[field].max())
    )
    return (low + high) / 2, (high - low) or 1.0


def _frame(table: pl.DataFrame, at: int, height: int, stacked: bool) -> dict[str, Spec]:
    """Scales that show all images of a map, a unit as long across as up, however wide the browser draws it."""
    (x, across), (y, up) = (_span(table, f"{axis}_{at}") for axis in "xy")
    # A view of fixed width may reach out of a small window; its dots must not.
    width = "width" if stacked else f"min({_SIDE}, {_ROOM})"
    unit = f"{1.06 / 2} * max({across} / {width}, {up} / {height})"  # of a pixel, halved
    ends = {"x": (x, f"{unit} * {width}"), "y": (y, f"{unit} * {height}")}
    scales: dict[str, Spec] = {
        axis: {"domainMin": {"expr": f"{middle} - {half}"}, "domainMax": {"expr": f"{middle} + {half}"}, "nice": False,
               "zero": False}
        for axis, (middle, half) in ends.items()
    }  # fmt: skip
    if not stacked:
        scales["x"]["range"] = [0, {"expr": width}]
    return scales


def ends_in_words(choice: Choice) -> str:
    """That the furthest values share the colours of the ends, where the scale is cut there."""
    if choice.quantity.in_words or choice.quantity.limits is not None:
        return ""
    return "The furthest 1 % of values at either end have that end's colour. "
