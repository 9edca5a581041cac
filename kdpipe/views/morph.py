"""One large map that moves from network to network and from layer to layer, in the browser alone.

Every image has a column of coordinates for each network and layer; two sliders interpolate between
them, so that the eye can follow single images. What lies between two stops is no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from kdpipe.views import maps
from kdpipe.views.charts import CANVAS, legend_columns
from kdpipe.views.theme import GREY

SIDE = 560
_LAST = 1e-6  # keeps the upper end of a slider inside the last pair of columns


def table(panels: Sequence[maps.Panel], points: pl.DataFrame, samples: pl.DataFrame) -> pl.DataFrame:
    """One row an image with x_r_c and y_r_c of network r at column c, all columns turned like the first.

    Maps of one depth share their axes; those of different depths do not, so each column is laid over the
    one before it (rotation and reflection), by the mean over its networks.
    """
    rows, columns = 1 + max(p.row for p in panels), 1 + max(p.column for p in panels)
    by_panel = points.sort("sample_id").partition_by("network_id", "layer", as_dict=True)
    found = {(p.row, p.column): by_panel[p.network_id, p.layer] for p in panels}
    ids = next(iter(found.values()))["sample_id"]
    places = np.full((rows, columns, len(ids), 2), np.nan)
    for (row, column), frame in found.items():
        places[row, column] = frame.select("x", "y").to_numpy()
    for column in range(columns):
        here = places[:, column]
        middle = np.nanmean(here, axis=0)
        here -= middle.mean(axis=0)
        if column:
            before = np.nanmean(places[:, column - 1], axis=0)
            left, _, right = np.linalg.svd(np.nanmean(here, axis=0).T @ before)
            here[:] = here @ (left @ right)
    wide: dict[str, Any] = {"sample_id": ids}
    for row in range(rows):
        for column in range(columns):
            wide |= {f"{axis}_{row}_{column}": places[row, column, :, at] for at, axis in enumerate("xy")}
    return samples.join(pl.DataFrame(wide), on="sample_id", how="inner", maintain_order="left")


def spec(
    frame: pl.DataFrame,
    networks: Sequence[str],
    layers: Sequence[str],
    colours: Mapping[str, str],
    start: tuple[int, int] = (0, 0),
    lit: str | None = None,
) -> dict[str, Any]:
    """A Vega-Lite specification with a slider for networks and one for layers.

    Args:
        frame: from :func:`table`, with a column ``colour``.
        networks: what stops of the first slider are called.
        layers: what stops of the second one are called.
        colours: class names and their colours.
        start: network and layer at first.
        lit: class that stands out from the start.
    """
    params: list[dict[str, Any]] = [
        _slider("network", len(networks), start[0], "from network to network"),
        _slider("layer", len(layers), start[1], "from layer to layer"),
        {"name": "n0", "expr": f"min(floor(network + {_LAST}), {len(networks) - 1})"},
        {"name": "n1", "expr": f"min(n0 + 1, {len(networks) - 1})"},
        {"name": "l0", "expr": f"min(floor(layer + {_LAST}), {len(layers) - 1})"},
        {"name": "l1", "expr": f"min(l0 + 1, {len(layers) - 1})"},
        {"name": "where", "expr": _where(networks, layers)},
    ]
    light: dict[str, Any] = {"name": maps.LIT, "select": {"type": "point", "fields": ["colour"]}, "bind": "legend"}
    if lit is not None:
        light["value"] = [{"colour": lit}]
    half = 1.05 * max(float(np.nanmax(np.abs(frame.select("^[xy]_.*$").to_numpy()))), 1e-9)
    place = {
        axis: {"field": axis, "type": "quantitative", "axis": None, "scale": {"domain": [-half, half], "nice": False}}
        for axis in "xy"
    }
    legend = {"orient": "top", "title": None, "columns": legend_columns(list(colours), SIDE), "symbolOpacity": 1}
    colour = {
        "field": "colour", "type": "nominal", "legend": {**legend, "symbolType": "circle"},
        "scale": {"domain": list(colours), "range": list(colours.values())},
    }  # fmt: skip
    tooltip = [
        *([{"field": "image", "type": "nominal"}] if "image" in frame.columns else []),
        {"field": "class_name", "type": "nominal", "title": "class"},
        {"field": "sample_id", "type": "quantitative", "title": "image number"},
    ]
    return {
        "params": params,
        "width": SIDE,
        "height": SIDE,
        "view": {"stroke": GREY, "strokeOpacity": 0.4},
        "transform": [{"calculate": _between(axis), "as": axis} for axis in "xy"],
        "layer": [
            {
                "params": [light],
                "mark": {"type": "circle", "size": 34},
                "encoding": {
                    **place,
                    "color": colour,
                    "opacity": {"condition": {"param": maps.LIT, "value": 0.75}, "value": 0.06},
                    "tooltip": tooltip,
                },
            },
            {
                "data": {"values": [{}]},
                "mark": {
                    "type": "text", "align": "left", "baseline": "top", "x": 8, "y": 8, "fontSize": 14,
                    "fontWeight": 600, "color": GREY, "text": {"expr": "where"},
                },
            },
        ],
        "usermeta": CANVAS,
    }  # fmt: skip


def _slider(name: str, stops: int, start: int, about: str) -> dict[str, Any]:
    if stops == 1:
        return {"name": name, "value": 0}
    bind = {"input": "range", "min": 0, "max": stops - 1, "step": 0.02, "name": f"{about}: "}
    return {"name": name, "value": start, "bind": bind}


def _between(axis: str) -> str:
    """Bilinear interpolation over networks and layers, as a Vega expression."""

    def at(n: str, layer: str) -> str:
        return f"datum['{axis}_' + {n} + '_' + {layer}]"

    lower = f"((1 - (network - n0)) * {at('n0', 'l0')} + (network - n0) * {at('n1', 'l0')})"
    upper = f"((1 - (network - n0)) * {at('n0', 'l1')} + (network - n0) * {at('n1', 'l1')})"
    return f"(1 - (layer - l0)) * {lower} + (layer - l0) * {upper}"


def _where(networks: Sequence[str], layers: Sequence[str]) -> str:
    """What the map shows at the sliders' places: a network at a layer, or that it lies between two."""

    def told(name: str, low: str, high: str, names: Sequence[str]) -> str:
        known = "[" + ", ".join(_quoted(one) for one in names) + "]"
        return (
            f"({name} - {low} < 0.01 ? {known}[{low}] : {name} - {low} > 0.99 ? {known}[{high}] : "
            f"'between ' + {known}[{low}] + ' and ' + {known}[{high}])"
        )

    return told("network", "n0", "n1", networks) + " + ', ' + " + told("layer", "l0", "l1", layers)


def _quoted(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ")
    return f"'{plain}'"
