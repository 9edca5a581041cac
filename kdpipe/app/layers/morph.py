"""One large map that moves from network to network and from layer to layer, in the browser alone.

Every image has a column of coordinates for each network and layer; two sliders interpolate between
them, so that the eye can follow single images. What lies between two stops is no network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import streamlit as st

from kdpipe.app.layers import settings
from kdpipe.app.shared import maps
from kdpipe.app.shared.charts import CANVAS, legend_columns
from kdpipe.app.shell import page, pick
from kdpipe.app.shell.images import with_images
from kdpipe.app.shell.theme import GREY, MARKED
from kdpipe.artifacts.store import Study

SIDE = 560
SCORES = ("knn_accuracy", "silhouette", "trustworthiness", "knn_recall")
_LAST = 1e-6  # keeps the upper end of a slider inside the last pair of columns
_LINE = 19  # pixels between lines of text in the map
_HEAD = 70  # pixels above the dots for that text


def show(study: Study, choice: settings.MapChoice) -> None:
    """One map with a slider through networks and one through layers."""
    layers, colouring = choice.columns["layer"].to_list(), choice.colouring
    panels = complete(choice.panels, len(layers))
    networks = list({panel.network: None for panel in panels})
    if not networks:
        st.info("None of the picked networks has a map of every picked layer with this setting: pick fewer layers.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        network = pick.one("Start at network", networks, "start_network", width=300)
        layer = pick.one("Start at layer", layers, "start_layer", first=layers[-1], look="segments")
        images = choice.samples.sort("display_rank").head(settings.SOME).drop("display_rank")
        sample = settings.sample_picker(study, images, ring=True)
    images = with_images(images).with_columns(colour=colouring.values("class_name"))
    frame = table(panels, choice.points, images, colouring.fade)
    start = (networks.index(network), layers.index(layer))
    drawn = spec(frame, panels, layers, colouring, start, choice.lit, sample)
    alt = f"One map of {frame.height} images with sliders through {', '.join(networks)} and {', '.join(layers)}"
    page.vega_chart(study, frame, drawn, key="morph_chart", width="content", alt=alt)
    page.notes(
        f"{frame.height} images. Move the sliders below the map (arrow keys work too). **Only the stops are "
        "networks**; what lies between is interpolation, and says nothing.",
        "Dots travel from where one network or layer has them to where the next one does. Maps of neighbouring layers "
        "are turned onto each other. Click a dot to ring it and follow it; faint dots: "
        f"{maps.FADES[colouring.fade][0]}. Sizes and gaps of groups are the map's own doing. "
        f"{maps.layout_in_words(choice.setting)}",
    )
    settings.say_left_out([label for label in choice.networks["label"] if label not in networks])
    page.data_note(study)
    places = frame.select("sample_id", "class_name", pl.col(r"^[xyf]_\d+_\d+$"))
    page.folded_table(
        places, f"{study.name}-places", "places", "Where every image lies: x, y and what fades, by network and layer"
    )


def complete(panels: Sequence[maps.Panel], columns: int) -> list[maps.Panel]:
    """The panels of the networks that have a map in every column, their rows counted anew."""
    by_row: dict[int, list[maps.Panel]] = {}
    for panel in panels:
        by_row.setdefault(panel.row, []).append(panel)
    whole = [mine for _, mine in sorted(by_row.items()) if len(mine) == columns]
    return [replace(panel, row=row) for row, mine in enumerate(whole) for panel in mine]


def table(
    panels: Sequence[maps.Panel], points: pl.DataFrame, samples: pl.DataFrame, fade: str = "misplacement"
) -> pl.DataFrame:
    """One row an image with x_r_c, y_r_c and what fades, f_r_c, of network r at column c.

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
    for (row, column), frame in found.items():
        wide |= {f"{axis}_{row}_{column}": places[row, column, :, at] for at, axis in enumerate("xy")}
        wide[f"f_{row}_{column}"] = frame[fade]
    return samples.join(pl.DataFrame(wide), on="sample_id", how="inner", maintain_order="left")


def spec(
    frame: pl.DataFrame,
    panels: Sequence[maps.Panel],
    layers: Sequence[str],
    colouring: maps.Colouring,
    start: tuple[int, int] = (0, 0),
    lit: str | None = None,
    marked: int | None = None,
) -> dict[str, Any]:
    """A Vega-Lite specification with a slider for networks and one for layers.

    Args:
        frame: from :func:`table`, with a column ``colour``.
        panels: from :func:`complete`; a network a row.
        layers: what stops of the second slider are called.
        colouring: by class; what makes a dot faint.
        start: network and layer at first.
        lit: class that stands out from the start; a click on the legend picks another.
        marked: image that is ringed from the start; a click on a dot rings another.
    """
    networks = list({panel.row: panel.network for panel in panels}.values())
    colours = colouring.colours
    params: list[dict[str, Any]] = [
        _slider("network", len(networks), start[0], "from network to network"),
        _slider("layer", len(layers), start[1], "from layer to layer"),
        {"name": "n0", "expr": f"min(floor(network + {_LAST}), {len(networks) - 1})"},
        {"name": "n1", "expr": f"min(n0 + 1, {len(networks) - 1})"},
        {"name": "l0", "expr": f"min(floor(layer + {_LAST}), {len(layers) - 1})"},
        {"name": "l1", "expr": f"min(l0 + 1, {len(layers) - 1})"},
        {"name": "where", "expr": f"[{_where('network', 'n', networks)}, {_where('layer', 'l', layers)}]"},
        {"name": "scored", "expr": _scored(panels, len(networks), len(layers))},
    ]
    light: dict[str, Any] = {"name": maps.LIT, "select": {"type": "point", "fields": ["colour"]}, "bind": "legend"}
    if lit is not None:
        light["value"] = [{"colour": lit}]
    ring: dict[str, Any] = {"name": maps.PICK, "select": {"type": "point", "fields": ["sample_id"], "on": "click"}}
    if marked is not None:
        ring["value"] = [{"sample_id": marked}]
    half = 1.05 * max(float(np.nanmax(np.abs(frame.select("^[xy]_.*$").to_numpy()))), 1e-9)
    top = half * (1 + 2 * _HEAD / SIDE)  # a pixel is as long on both axes
    place = {
        axis: {"field": axis, "type": "quantitative", "axis": None, "scale": {"domain": [-half, end], "nice": False}}
        for axis, end in (("x", half), ("y", top))
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
        "height": SIDE + _HEAD,
        "view": {"stroke": GREY, "strokeOpacity": 0.4},
        "transform": [{"calculate": _between(axis), "as": axis} for axis in "xyf"],
        "layer": [
            {
                "params": [light, ring],
                "mark": {"type": "circle", "size": 34},
                "encoding": {
                    **place,
                    "color": colour,
                    "opacity": {"condition": {"param": maps.LIT, **maps.faded("f", colouring.fade)}, "value": 0.06},
                    "tooltip": tooltip,
                },
            },
            {
                "transform": [{"filter": {"param": maps.PICK, "empty": False}}],
                "mark": {
                    "type": "point", "size": 220, "strokeWidth": 3, "color": MARKED, "filled": False, "tooltip": None,
                },
                "encoding": place,
            },
            _text("where", 8, {"fontSize": 14, "fontWeight": 600, "lineHeight": _LINE}),
            _text("scored", 12 + 2 * _LINE, {"fontSize": 12}),
        ],
        "usermeta": CANVAS,
    }  # fmt: skip


def _text(signal: str, y: int, look: Mapping[str, Any]) -> dict[str, Any]:
    """A note in the upper left corner that follows the sliders."""
    mark = {"type": "text", "align": "left", "baseline": "top", "x": 8, "y": y, "color": GREY, "limit": SIDE - 16}
    return {"data": {"values": [{}]}, "mark": {**mark, **look, "text": {"expr": signal}}}


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


def _where(slider: str, short: str, names: Sequence[str]) -> str:
    """Which stop a slider is at, or the two that it lies between."""
    known = "[" + ", ".join(json.dumps(one) for one in names) + "]"
    low, high = f"{short}0", f"{short}1"
    return (
        f"({slider} - {low} < 0.01 ? {known}[{low}] : {slider} - {low} > 0.99 ? {known}[{high}] : "
        f"'between ' + {known}[{low}] + ' and ' + {known}[{high}])"
    )


def _scored(panels: Sequence[maps.Panel], networks: int, layers: int) -> str:
    """The scores of the panel that the sliders stand at; between stops there is nothing to score."""
    said = {(panel.row, panel.column): " · ".join(maps.heading(panel, SCORES)) for panel in panels}
    rows = (", ".join(json.dumps(said.get((row, column), "")) for column in range(layers)) for row in range(networks))
    known = ", ".join(f"[{row}]" for row in rows)
    at_stop = "abs(network - round(network)) < 0.01 && abs(layer - round(layer)) < 0.01"
    return f"{at_stop} ? [{known}][round(network)][round(layer)] : 'interpolation: no network is here'"
