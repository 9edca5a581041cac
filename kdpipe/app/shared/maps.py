"""Maps side by side: which panels, one wide table, and the small multiples drawn from it.

All panels read one table with columns x_0, y_0, x_1, … : Vega then links them by ``sample_id`` for
nothing, and a page of them draws in half the time of separate charts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from kdpipe.app.shared import catalog
from kdpipe.app.shared.charts import CANVAS, legend_columns
from kdpipe.app.shell.theme import GREY, MARKED, OTHER, RIGHT, WRONG
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study

Spec = dict[str, Any]
PICK = "pick"
PROJECTORS = {"tsne": "t-SNE", "ivis": "ivis", "pca": "PCA"}
LAYOUTS_IN_WORDS = (
    "Consensus: all panels of a column start from one map that the networks share there, so what differs is what the "
    "layers differ in. Independent: each panel was made alone, as in papers; it mostly shows where it started."
)
COLOURINGS = ("class", "prediction", "correctness")
# What makes a dot faint: a column of maps.parquet, in words, and the value at which a dot is faintest.
FADES = {
    "misplacement": ("neighbours lost", 1.0),
    "false_neighbours": ("false neighbours", 0.3),
    "missing_neighbours": ("missing neighbours", 0.3),
}
_PAGE_WIDTH, _GAP = 800, 12  # what a window of 1280 px leaves next to the sidebar
LIT = "lit"  # the parameter that holds the class that stands out
_DIM = 0.05
# What heads a panel, in this order: of the layer's own space, then of the map.
HEADINGS = {
    "knn_accuracy": "kNN",
    "silhouette": "silhouette",
    "trustworthiness": "trust",
    "knn_recall": "kept",
    "continuity": "continuity",
    "seed_drift": "seed drift",
}
_BROAD = 165  # pixels from which a panel has room for two scores on a line


_LITTLE = 0.5  # of an image's true neighbours: a map that keeps fewer shows mostly others near it


@dataclass(frozen=True)
class Panel:
    """One map: a layer of a network, its place in the grid, how far it can be trusted, and what chance would score."""

    network_id: str
    network: str
    layer: str
    row: int
    column: int
    scores: Mapping[str, float]
    floors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Colouring:
    """What colour means (the class, what each network predicted, or whether that was right), and what makes faint."""

    by: str
    colours: Mapping[str, str]
    fade: str = "misplacement"

    def field(self, row: int) -> str:
        """The column of the wide table that colours the panels of ``row``."""
        return {"class": "colour", "prediction": f"p_{row}", "correctness": f"c_{row}"}[self.by]

    def values(self, field: str) -> pl.Expr:
        """Class names that have no colour of their own become one grey group."""
        named = pl.col(field).is_in(list(self.colours))
        return pl.when(named).then(pl.col(field)).otherwise(pl.lit(OTHER)) if OTHER in self.colours else pl.col(field)


RIGHT_OR_WRONG = {"right": RIGHT, "wrong": WRONG}


def panels_of(
    networks: pl.DataFrame, layers: pl.DataFrame, columns: pl.DataFrame, maps: pl.DataFrame, scores: pl.DataFrame
) -> list[Panel]:
    """The grid: a row a network, a column a layer; of other architectures the layer nearest in depth.

    Args:
        networks: network_id, label; one row each.
        layers: the layers table in the maps' view.
        columns: place and count of each column, as :func:`kdpipe.app.shared.catalog.columns_of` gives them.
        maps: rows of one projector and setting.
        scores: measures of the same maps and layers: network_id, layer, measure, value, chance.
    """
    have = set(maps.select("network_id", "layer").unique().rows())
    panels = []
    for row, (network_id, label) in enumerate(networks.select("network_id", "label").rows()):
        for column, (place, count) in enumerate(columns.select("place", "count").rows()):
            found = catalog.nearest_layer(layers, network_id, place, count)
            if found is None or (network_id, found) not in have:
                continue
            mine = scores.filter((pl.col("network_id") == network_id) & (pl.col("layer") == found))
            values, floors = (
                dict(mine.filter(pl.col(name).is_not_null()).select("measure", name).rows())
                for name in ("value", "chance")
            )
            panels.append(Panel(network_id, label, found, row, column, values, floors))
    return panels


def scores_of(study: Study, networks: Sequence[str], projector: str, setting: Mapping[str, object]) -> pl.DataFrame:
    """What heads the panels of one projector and setting: measures of the maps, and of the layers they show.

    Returns:
        network_id, layer, measure, value, chance, and low and high where the study has an interval over images.
    """
    columns = ["network_id", "layer", "measure", "value", "chance"]
    of_maps = study.frame("map_measures", network_id=networks, projector=projector).filter(same_setting(setting))
    of_layers = study.frame(
        "layer_measures", network_id=networks, view=setting["view"], measure=["knn_accuracy", "silhouette"]
    )
    return pl.concat([of_layers.select(*columns, "low", "high"), of_maps.select(columns)], how="diagonal")


def score_table(panels: Sequence[Panel], scores: pl.DataFrame) -> pl.DataFrame:
    """The scores of every panel, a row each: network, layer, measure, value, low, high, chance."""
    drawn = pl.DataFrame(
        [(p.network_id, p.network, p.layer) for p in panels], ["network_id", "network", "layer"], orient="row"
    ).unique(maintain_order=True)
    rows = drawn.join(scores, on=["network_id", "layer"], how="inner", maintain_order="left")
    return rows.select("network", "layer", "measure", "value", "low", "high", "chance")


def projectors_of(study: Study) -> list[str]:
    """The projectors that maps were made with, t-SNE first."""
    kinds = study.map_measures["projector"].unique().to_list()
    return [name for name in PROJECTORS if name in kinds] + sorted(set(kinds) - PROJECTORS.keys())


def settings_of(study: Study, projector: str) -> pl.DataFrame:
    """The settings that a projector was run with: view, layout, perplexity, map_seed; perplexity 30 first."""
    keys = ["view", "layout", "perplexity", "map_seed"]
    maps = study.map_measures.filter(pl.col("projector") == projector).select(keys).unique()
    return maps.sort(
        pl.col("view") != "projection", "view", "layout", (pl.col("perplexity") - 30).abs(), "map_seed", nulls_last=True
    )


def layout_in_words(setting: Mapping[str, object]) -> str:
    """How panels of one setting came to lie as they do."""
    if setting["layout"] == "consensus":
        return "All maps of one depth start from one map that the networks share there."
    return "Each map was made alone and rotated onto a common one."


def shared_in_words(study: Study, networks: pl.DataFrame, view: str) -> str:
    """How many neighbours each row's layers share with the teacher's row: what maps that can be compared must move.

    Args:
        networks: network_id, label, role of the rows.
    """
    teachers = networks.filter(role="teacher")["network_id"].to_list()
    students = dict(networks.filter(pl.col("role") != "teacher").select("network_id", "label").rows())
    pairs = study.frame("similarity", network_id=list(students), other_id=teachers, measure="mutual_knn", view=view)
    ends = pairs.group_by("network_id").agg(low=pl.col("value").min(), high=pl.col("value").max())
    shares = {name: (low, high) for name, low, high in ends.select("network_id", "low", "high").rows()}
    said = [f"{verbatim(label)}: {_share(*shares[name])}" for name, label in students.items() if name in shares]
    if not said:
        return ""
    return (
        "Rows differ because layers do: of the images nearest to one in a layer, so many are also the nearest in the "
        f"teacher at that depth. {'; '.join(said)}."
    )


def _share(low: float, high: float) -> str:
    return f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"


def same_setting(setting: Mapping[str, object]) -> pl.Expr:
    """Rows made with one setting; an empty perplexity equals an empty one."""
    return pl.all_horizontal(pl.col(name).eq_missing(pl.lit(value)) for name, value in setting.items())


def wide_table(
    panels: Sequence[Panel],
    maps: pl.DataFrame,
    samples: pl.DataFrame,
    predictions: pl.DataFrame,
    class_names: Sequence[str],
    colouring: Colouring,
) -> pl.DataFrame:
    """One row a sample: class, optional image, x_i y_i and what fades, of panel i; p_r c_r of the network in row r."""
    table = samples.with_columns(colour=colouring.values("class_name"))
    by_panel = maps.partition_by("network_id", "layer", as_dict=True)
    for i, panel in enumerate(panels):
        points = by_panel[panel.network_id, panel.layer]
        points = points.select("sample_id", pl.col("x", "y", colouring.fade).name.suffix(f"_{i}"))
        table = table.join(points, on="sample_id", how="left")
    names = pl.DataFrame({"predicted": range(len(class_names)), "p": list(class_names)}).cast({"predicted": pl.Int32})
    for row, network_id in {panel.row: panel.network_id for panel in panels}.items():
        told = predictions.filter(pl.col("network_id") == network_id).join(names, on="predicted", how="left")
        verdict = pl.when("correct").then(pl.lit("right")).otherwise(pl.lit("wrong"))
        told = told.select("sample_id", colouring.values("p").alias(f"p_{row}"), verdict.alias(f"c_{row}"))
        table = table.join(told, on="sample_id", how="left")
    return table.sort("sample_id")


def small_multiples(
    table: pl.DataFrame,
    panels: Sequence[Panel],
    colouring: Colouring,
    scores: Sequence[str] = tuple(HEADINGS),
    clickable: bool = True,
    marked: int | None = None,
    width: int = _PAGE_WIDTH,
    lit: str | None = None,
    titles: Mapping[str, str] | None = None,
) -> Spec:
    """Rows of panels over one wide table; a click on a point rings the same image in every panel.

    A plain Vega-Lite specification, for ``st.vega_lite_chart(table, spec)``: sixteen linked panels took
    Altair 0.9 s to build and validate at every rerun. The tests validate it with Altair instead.

    Args:
        table: from :func:`wide_table`.
        panels: the grid, in the order of the table's columns.
        colouring: what colour means.
        scores: measures named under each panel's title.
        clickable: whether a click picks a sample (parameter :data:`PICK`).
        marked: sample that is ringed from the start.
        width: of the whole picture in pixels.
        lit: class that stands out from the start; a click on the legend picks another.
        titles: what rows are called, by network_id; their labels if not given.
    """
    columns = 1 + max(panel.column for panel in panels)
    side = min(440, max(100, width // columns - _GAP))
    frames = {c: square_frame(table, [i for i, p in enumerate(panels) if p.column == c]) for c in range(columns)}
    rows = []
    for row in sorted({panel.row for panel in panels}):
        mine = [(i, panel) for i, panel in enumerate(panels) if panel.row == row]
        cells = [
            {
                "width": side,
                "height": side,
                "view": {"stroke": GREY, "strokeOpacity": 0.4, "strokeWidth": 1},
                "title": _title(panel, scores, side),
                "layer": _marks(table, i, panel, frames[panel.column], colouring, clickable, width),
            }
            for i, panel in mine
        ]
        name = (titles or {}).get(mine[0][1].network_id, mine[0][1].network)
        title = {"text": name, "anchor": "start", "fontSize": 15, "offset": 4}
        rows.append({"title": title, "spacing": _GAP, "hconcat": cells})
    spec: Spec = {
        "vconcat": rows,
        "spacing": 18,
        "resolve": {"scale": {"color": "shared", "opacity": "shared"}},
        "usermeta": CANVAS,
    }
    if clickable:
        select = {"type": "point", "fields": ["sample_id"], "on": "click"}
        pick: Spec = {"name": PICK, "select": select, "views": [f"panel_{i}" for i in range(len(panels))]}
        spec["params"] = [pick if marked is None else {**pick, "value": [{"sample_id": marked}]}]
    if colouring.by == "class":
        light: Spec = {"name": LIT, "select": {"type": "point", "fields": ["colour"]}, "bind": "legend"}
        light["views"] = [f"panel_{i}" for i in range(len(panels))]
        spec["params"] = [*spec.get("params", []), light if lit is None else {**light, "value": [{"colour": lit}]}]
    return spec


def side_by_side(
    table: pl.DataFrame,
    panels: Sequence[Panel],
    colouring: Colouring,
    scores: Sequence[str],
    width: int = _PAGE_WIDTH,
    lit: str | None = None,
    told: bool = True,
) -> Spec:
    """Panels of several networks in one row, each under its own title; nothing is to be clicked.

    Pointing at a dot says the class alone unless ``told``: what a network predicts gives it away.
    """
    side = min(340, width // len(panels) - _GAP)
    frame = square_frame(table, range(len(panels)))
    cells = [
        {
            "width": side,
            "height": side,
            "view": {"stroke": GREY, "strokeOpacity": 0.4, "strokeWidth": 1},
            "title": _title(panel, scores, side),
            "layer": _marks(table, i, panel, frame, colouring, False, width, told),
        }
        for i, panel in enumerate(panels)
    ]
    light: Spec = {"name": LIT, "select": {"type": "point", "fields": ["colour"]}, "bind": "legend"}
    light["views"] = [f"panel_{i}" for i in range(len(panels))]
    return {
        "hconcat": cells,
        "spacing": _GAP,
        "params": [light if lit is None else {**light, "value": [{"colour": lit}]}],
        "resolve": {"scale": {"color": "shared", "opacity": "shared"}},
        "usermeta": CANVAS,
    }


def _marks(
    table: pl.DataFrame,
    i: int,
    panel: Panel,
    frame: tuple[Spec, Spec],
    colouring: Colouring,
    clickable: bool,
    width: int,
    told: bool = True,
) -> list[Spec]:
    """The dots of panel ``i`` and, above them, the ring around the picked one."""
    place = {
        "x": {"field": f"x_{i}", "type": "quantitative", "axis": None, "scale": frame[0]},
        "y": {"field": f"y_{i}", "type": "quantitative", "axis": None, "scale": frame[1]},
    }
    colours = colouring.colours
    colour = {
        "field": colouring.field(panel.row),
        "type": "nominal",
        "scale": {"domain": list(colours), "range": list(colours.values())},
        "legend": {
            "orient": "top",
            "title": None,
            "columns": legend_columns(list(colours), width),
            "symbolOpacity": 1,
            "symbolType": "circle",
        },
    }
    opacity = faded(f"{colouring.fade}_{i}", colouring.fade)
    if colouring.by == "class":  # the class that is lit keeps its fading, the others recede
        opacity = {"condition": {"param": LIT, **opacity}, "value": _DIM}
    dots: Spec = {
        "name": f"panel_{i}",
        "mark": {"type": "circle", "size": 28 if table.height <= 1000 else 16},
        "encoding": {
            **place,
            "color": colour,
            "opacity": opacity,
            "tooltip": _tooltip(table, i, panel, colouring, told),
        },
    }
    if not clickable:
        return [dots]
    ring: Spec = {
        "mark": {"type": "point", "size": 190, "strokeWidth": 3, "color": MARKED, "filled": False, "tooltip": None},
        "transform": [{"filter": {"param": PICK, "empty": False}}],
        "encoding": place,
    }
    return [dots, ring]


def faded(field: str, fade: str) -> Spec:
    """The opacity channel: the larger ``field``, which holds the measure ``fade``, the fainter a dot."""
    scale = {"domain": [0, FADES[fade][1]], "range": [0.95, 0.12], "clamp": True}
    return {"field": field, "type": "quantitative", "scale": scale, "legend": None}


def _tooltip(table: pl.DataFrame, i: int, panel: Panel, colouring: Colouring, told: bool) -> list[Spec]:
    """What pointing at a dot shows; Vega draws the field called ``image`` as an image."""
    image: list[Spec] = [{"field": "image", "type": "nominal"}] if "image" in table.columns else []
    faint = FADES[colouring.fade][0]
    network: list[Spec] = [
        {"field": f"p_{panel.row}", "type": "nominal", "title": "predicted"},
        {"field": f"{colouring.fade}_{i}", "type": "quantitative", "title": faint, "format": ".0%"},
    ]
    return [
        *image,
        {"field": "class_name", "type": "nominal", "title": "class"},
        *(network if told else []),
        {"field": "sample_id", "type": "quantitative", "title": "image number"},
    ]


def _title(panel: Panel, scores: Sequence[str], side: int) -> Spec:
    """The layer and its scores, two on a line where there is room, so that nothing is cut."""
    said = heading(panel, scores)
    each = 2 if side >= _BROAD else 1
    lines = [" · ".join(said[i : i + each]) for i in range(0, len(said), each)]
    size = {"fontSize": 12, "subtitleFontSize": 11, "subtitleColor": GREY, "offset": 6}
    return {"text": panel.layer, "subtitle": lines, "anchor": "start", **size}


def heading(panel: Panel, scores: Sequence[str]) -> list[str]:
    """What heads a panel: each score in a few words, with what chance would give where that is told."""
    return [_score(panel, name) for name in scores if name in panel.scores]


def _score(panel: Panel, name: str) -> str:
    value = panel.scores[name]
    said = f"{HEADINGS.get(name, name)} " + (f"{value:.0%}" if name == "knn_accuracy" else f"{value:z.2f}")
    return f"{said} (chance {panel.floors[name]:.2f})" if name == "knn_recall" and name in panel.floors else said


def square_frame(table: pl.DataFrame, indices: Sequence[int]) -> tuple[Spec, Spec]:
    """One square frame for all panels of a column, so that aligned maps stay comparable."""
    ends = []
    for axis in "xy":
        values = table.select(f"{axis}_{i}" for i in indices).to_numpy().astype(float)
        held = values[np.isfinite(values)]
        ends.append((float(held.min()), float(held.max())) if held.size else (0.0, 1.0))
    half = 0.53 * max(high - low for low, high in ends) or 1.0
    middles = [(low + high) / 2 for low, high in ends]
    across, up = ({"domain": [m - half, m + half], "nice": False, "zero": False} for m in middles)
    return across, up


def kept_little(panels: Sequence[Panel]) -> str:
    """A warning that names the layers whose maps keep so few neighbours that who lies near whom says little."""
    known = [panel for panel in panels if panel.scores.get("knn_recall") is not None]
    thin = [panel for panel in known if panel.scores["knn_recall"] < _LITTLE]
    if not thin:
        return ""
    layers = ", ".join(dict.fromkeys(panel.layer for panel in thin))
    low, high = (end(panel.scores["knn_recall"] for panel in thin) for end in (min, max))
    return (
        f"In {len(thin)} of {len(known)} panels ({verbatim(layers)}) the map keeps {low:.0%} to {high:.0%} of an "
        "image's true neighbours: most of those near a dot are not its neighbours in the layer. kNN and silhouette "
        "above a panel are of the layer itself and hold all the same."
    )
