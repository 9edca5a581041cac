"""Which networks are alike, layer by layer and at the same depth.

Frames in, frames and charts out. A *pairing* is one kind of network with another: a method's students and the
teacher, plain and its second initialisation, and so on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from kdpipe.app.shared import catalog, charts, tables
from kdpipe.app.shared.charts import CANVAS, Layered
from kdpipe.app.shell.theme import PETROFF
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study
from kdpipe.relative_depth import nearest_place

OTHER_START, OTHER_SEED = "other initial weights", "another seed"
EVERY = "all, their mean"
CHANCE = {
    "known": "what unrelated layers give on average",
    "shuffled": "the same with the images of one of the two layers shuffled",
}
_WORDS = PETROFF[8]  # a grey that is read on white and on black
_CELL = 31  # pixels of a row


# ------------------------------------------------------------------------------- pairs of networks


def from_either_side(pairs: pl.DataFrame, ones: Sequence[str], others: Sequence[str]) -> pl.DataFrame:
    """Rows of the similarity table with ``ones`` as network and ``others`` as the other, however they are stored."""
    turned = pairs.rename(
        {"network_id": "other_id", "other_id": "network_id", "layer": "other_layer", "other_layer": "layer"}
    ).select(pairs.columns)
    found = pl.concat([pairs, turned]).unique(maintain_order=True)
    return found.filter(pl.col("network_id").is_in(list(ones)) & pl.col("other_id").is_in(list(others)))


def of_one_seed(pairs: pl.DataFrame, networks: pl.DataFrame) -> pl.DataFrame:
    """The rows whose two networks belong to the same seed."""
    seeds = dict(networks.select("network_id", "seed").rows())
    same = pl.col("network_id").replace_strict(seeds, default=None) == pl.col("other_id").replace_strict(
        seeds, default=None
    )
    return pairs.filter(same)


def plain_with_plain(pairs: pl.DataFrame, scope: pl.DataFrame, which: str) -> pl.DataFrame:
    """Plain with plain: its second initialisation of the same seed, or plain of another seed (each with the first one).

    Of a pair of seeds one direction alone is stored, and kept: both would count it twice.
    """
    plain = scope.filter(pl.col("role") == "plain")["network_id"].to_list()
    if which == OTHER_START:
        return of_one_seed(from_either_side(pairs, scope.filter("null")["network_id"].to_list(), plain), scope)
    return pairs.filter(pl.col("network_id").is_in(plain) & pl.col("other_id").is_in(plain))


@dataclass(frozen=True)
class Pairing:
    """A heat map: every layer of one kind of network (down) with every layer of another (across).

    ``cells`` has layer, other_layer, value (mean over pairs), lowest, highest, chance, above (whether each pair lies
    above its chance), pairs. ``matched`` are the pairs of layers nearest in depth.
    """

    name: str
    down: str
    across: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: pl.DataFrame
    matched: frozenset[tuple[str, str]]
    by_pair: tuple[float, ...]

    @property
    def in_words(self) -> str:
        """Mean over the layers nearest in depth, with the range over pairs of networks."""
        return spread(self.by_pair)


def spread(values: Sequence[float]) -> str:
    """A mean with the lowest and the highest in brackets; a single value stands alone."""
    if not values:
        return "no value"
    mean = f"{sum(values) / len(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2f} to {max(values):.2f})"


def pairing(pairs: pl.DataFrame, layers: pl.DataFrame, down: str, across: str) -> Pairing | None:
    """The heat map of ``pairs`` (one measure and view, oriented), mean over the pairs of networks; None without any."""
    if pairs.is_empty():
        return None
    ordered = catalog.layers_in_order(layers)
    one, other = pairs.row(0, named=True)["network_id"], pairs.row(0, named=True)["other_id"]
    rows, columns = ordered[one], ordered[other]
    matched = {(layer, columns[nearest_place(i, len(rows), len(columns))]) for i, layer in enumerate(rows)}
    value = pl.col("value")
    cells = pairs.group_by("layer", "other_layer", maintain_order=True).agg(
        value.mean(), lowest=value.min(), highest=value.max(), chance=pl.col("chance").mean(),
        above=(value > pl.col("chance")).all(), pairs=pl.len(),
    )  # fmt: skip
    near = pl.DataFrame(sorted(matched), schema=["layer", "other_layer"], orient="row")
    each = pairs.join(near, on=["layer", "other_layer"], how="semi")
    means = each.group_by("network_id", "other_id", maintain_order=True).agg(value.mean())["value"].to_list()
    return Pairing(
        f"{down} with {across}", down, across, tuple(rows), tuple(columns), cells, frozenset(matched), tuple(means)
    )


def table_of(pairings: Sequence[Pairing]) -> pl.DataFrame:
    """All cells of the heat maps below each other: the numbers of the chart."""
    return pl.concat([one.cells.select(pl.lit(one.name).alias("pair"), pl.all()) for one in pairings])


def heat_maps(grid: Sequence[Sequence[Pairing | None]], title: str) -> Layered:
    """Heat maps in two rows and two columns, as one picture that is as wide as its place and shares one colour scale.

    Every mark stands in one grid of cells: a facet would have a fixed width, which is too wide for a phone. Cells
    that are not above chance for each pair of networks have their value in brackets and a dashed frame.

    Args:
        grid: a pairing, or None where the study has none, by row and column.
        title: the measure.
    """
    cells, words, y_order, x_order, names = _placed(grid)
    x = alt.X("x:N", sort=None, title=None, axis=None, scale=alt.Scale(domain=x_order, paddingInner=0.03))
    labels = f"({json.dumps(names)})[datum.value] || ''"
    axis = alt.Axis(
        labelExpr=labels, ticks=False, domain=False, labelLimit=90, title=None, labelOverlap=False, labelFlush=False
    )
    y = alt.Y("y:N", sort=None, axis=axis, scale=alt.Scale(domain=y_order, paddingInner=0.05))
    tooltip = [
        alt.Tooltip("pair:N"), alt.Tooltip("layer:N", title="layer, down"),
        alt.Tooltip("other_layer:N", title="layer, across"),
        alt.Tooltip("value:Q", title=f"{title}, mean", format=".3f"),
        alt.Tooltip("lowest:Q", format=".3f"), alt.Tooltip("highest:Q", format=".3f"),
        alt.Tooltip("pairs:Q", title="pairs of networks"), alt.Tooltip("chance:Q", format=".3f"),
        alt.Tooltip("told:N", title="above chance"),
    ]  # fmt: skip
    base = alt.Chart(cells).encode(x=x, y=y, tooltip=tooltip)
    legend = alt.Legend(orient="top", title=f"{title}, the same scale in all", gradientLength=180, titleLimit=300)
    rects = base.mark_rect().encode(
        color=alt.Color("value:Q", legend=legend, scale=alt.Scale(scheme="viridis", domain=[0, 1], clamp=True))
    )
    framed = base.transform_filter("!datum.above").mark_rect(
        filled=False, stroke="#ffffff", strokeDash=[3, 3], strokeWidth=1.5
    )
    bright = alt.condition(alt.datum.value > 0.6, alt.value("#111111"), alt.value("#ffffff"))
    fits = alt.ExprRef("bandwidth('x') < 24 ? 0 : bandwidth('x') < 38 ? 10 : 12")
    numbers = base.mark_text(fontSize=fits).encode(text=alt.Text("text:N"), color=bright)
    numbers_matched = base.transform_filter("datum.matched").mark_text(fontSize=fits, fontWeight="bold")
    layers: list[Any] = [rects, framed, numbers.transform_filter("!datum.matched")]
    layers.append(numbers_matched.encode(text=alt.Text("text:N"), color=bright))
    text = alt.Chart(words).encode(x=x, y=y, text=alt.Text("text:N"))
    for kind, look in _LOOKS.items():
        layers.append(text.transform_filter(alt.datum.kind == kind).mark_text(color=_WORDS, **look))
    return alt.layer(*layers).properties(height=_CELL * len(y_order) + 110, usermeta=CANVAS)


_HALF = alt.ExprRef("0.47 * width")
_LOOKS: dict[str, dict[str, Any]] = {
    "title": {"align": "left", "dx": alt.ExprRef("-bandwidth('x') / 2"), "dy": -7, "fontSize": 12,
              "fontWeight": "bold", "limit": _HALF},
    "number": {"align": "left", "dx": alt.ExprRef("-bandwidth('x') / 2"), "dy": 8, "fontSize": 11, "limit": _HALF},
    "head": {"dy": 6, "fontSize": alt.ExprRef("bandwidth('x') < 38 ? 9 : 11"),
             "limit": alt.ExprRef("bandwidth('x') + 4")},
}  # fmt: skip


def _placed(
    grid: Sequence[Sequence[Pairing | None]],
) -> tuple[pl.DataFrame, pl.DataFrame, list[str], list[str], dict[str, str]]:
    """Cells and words with their place in the common grid, its rows and columns in order, and the rows' names."""
    there = [one for row in grid for one in row if one is not None]
    used = [j for j in range(len(grid[0])) if any(row[j] is not None for row in grid)]
    x_order: list[str] = []
    for j in used:
        widest = max(len(one.columns) for row in grid if (one := row[j]) is not None)
        x_order += [f"{j}.space", *(f"{j}.{n}" for n in range(widest))][j == used[0] :]
    y_order: list[str] = []
    names: dict[str, str] = {}
    cells: list[pl.DataFrame] = []
    words: list[tuple[str, str, str, str]] = []
    for i, row in enumerate(grid):
        y_order += [f"{i}.space", f"{i}.title", f"{i}.head"][i == 0 :]
        layers = next((one.rows for one in row if one is not None), ())
        names |= {f"{i}.{n}": layer for n, layer in enumerate(layers)}
        y_order += [f"{i}.{n}" for n in range(len(layers))]
        for j, one in enumerate(row):
            if one is None:
                continue
            words.append((f"{j}.0", f"{i}.title", "title", one.name))
            words.append((f"{j}.0", f"{i}.title", "number", f"same depth: {one.in_words}"))
            words += [(f"{j}.{n}", f"{i}.head", "head", layer) for n, layer in enumerate(one.columns)]
            across = {layer: f"{j}.{n}" for n, layer in enumerate(one.columns)}
            down = {layer: f"{i}.{n}" for n, layer in enumerate(one.rows)}
            near = pl.concat_str("layer", pl.lit("\n"), "other_layer").is_in(["\n".join(pair) for pair in one.matched])
            number = pl.Series([f"{value:.2f}".replace("-", "−") for value in one.cells["value"]], dtype=pl.String)
            cells.append(
                one.cells.with_columns(
                    pair=pl.lit(one.name), x=pl.col("other_layer").replace_strict(across, return_dtype=pl.String),
                    y=pl.col("layer").replace_strict(down, return_dtype=pl.String), matched=near,
                    text=pl.when("above").then(number).otherwise(pl.format("({})", number)),
                    told=pl.when("above").then(pl.lit("each pair")).otherwise(pl.lit("not each pair")),
                )
            )  # fmt: skip
    placed = pl.concat(cells) if there else pl.DataFrame()
    return placed, pl.DataFrame(words, schema=["x", "y", "kind", "text"], orient="row"), y_order, x_order, names


# ------------------------------------------------------------------------------- by depth


def to_plain(pairs: pl.DataFrame, scope: pl.DataFrame) -> pl.DataFrame:
    """Every student with plain of its own seed; plain itself with plain of the first seed, as it is stored."""
    plain = scope.filter(pl.col("role") == "plain")["network_id"].to_list()
    others = [name for name in tables.students(scope) if name not in plain]
    own = of_one_seed(from_either_side(pairs, others, plain), scope)
    return pl.concat([own, plain_with_plain(pairs, scope, OTHER_SEED)])


def out_of_sight(curves: pl.DataFrame, start: pl.DataFrame, colours: Mapping[str, str]) -> dict[str, float]:
    """Chance and untrained students that a chart of ``curves`` leaves out or clips, with their mean."""
    off = charts.far_off(curves, start)
    if charts.out_of_frame(curves, colours):  # then the frame follows the series in colour
        off |= charts.far_off(curves.filter(pl.col("series").is_in(list(colours))), start)
    return off


def untrained(study: Study, networks: pl.DataFrame, scope: pl.DataFrame, view: str, measure: str) -> pl.DataFrame:
    """Similarity of the scope's students to the teacher as they start, before any training: rows as curves by depth."""
    kinds = scope.filter(catalog.STUDENT)["student"].unique().to_list()
    start = networks.filter(catalog.NOT_TRAINED & pl.col("student").is_in(kinds))
    rows = study.frame("similarity", network_id=start["network_id"].to_list(), view=view, measure=measure)
    both = pl.concat([start, scope.filter(pl.col("role") == "teacher")])
    return tables.matching_depth(tables.to_teacher(rows, both), both, study.layers)


# ------------------------------------------------------------------------------- in words


def takeaway(drawn: Sequence[Pairing]) -> str:
    """The number above each map, in a line."""
    told = "; ".join(f"{one.name} {one.in_words}" for one in drawn)
    return f"Mean over layers nearest in depth (in brackets lowest to highest pair): {verbatim(told)}."


def heat_words(drawn: list[Pairing], measure: dict[str, Any], seed: str, second: str | None) -> str:
    """What the heat maps show, what chance is, and what the comparison may and may not say."""
    floors = pl.concat([one.cells["chance"] for one in drawn])
    low, high = float(floors.min()), float(floors.max())  # type: ignore[arg-type]
    chance = f"{low:.3g}" if high - low < 5e-4 else f"{low:.2f} to {high:.2f}, by cell"
    below = sum(one.cells.filter(~pl.col("above")).height for one in drawn)
    whole = all(one.cells.height == len(one.rows) * len(one.columns) for one in drawn)
    pairs = sorted({int(n) for one in drawn for n in one.cells["pairs"]})
    counted = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    over = (
        f"Mean over seeds ({counted} pair{'s' * (pairs[-1] != 1)} of networks a cell; their range is in the tooltip)."
        if seed == EVERY
        else f"Seed {seed} alone: no range, so small differences tell nothing."
    )
    parts = [
        "Down: the layers of the network named first; across: those of the second; bold: nearest in depth.",
        over,
        f"Chance is {chance}; "
        + (f"{below} cell{'s' * (below != 1)} not above it for every pair: value in brackets, dashed frame."
           if below else "every cell is above it for every pair, which alone says little: any two networks of "
           "images are somewhat alike."),
    ]  # fmt: skip
    if not whole:
        parts.append("This measure is computed for layers nearest in depth alone; CKA is for all pairs of layers.")
    kinds = {one.across for one in drawn}
    if "the teacher" in kinds and len(drawn) > 1:
        parts.append("With the teacher: is the method more like it than plain is?")
    if "plain" in kinds:
        parts.append(
            "With plain: is the method further from plain than plain is from itself? There the two do not match in "
            "everything: a method and plain of one seed share initial weights, labels and batches; "
            + (
                "plain of another seed shares none of them, and each is compared with the same first seed."
                if second == OTHER_SEED
                else "plain's second initialisation shares labels and batches alone."
            )
        )
    return " ".join(parts)


def floor_words(measure: dict[str, Any], shown: pl.DataFrame, start: pl.DataFrame, colours: dict[str, str]) -> str:
    """What the grey lines are, or the numbers where they lie too far off to be drawn."""
    off = out_of_sight(shown, start, colours)
    chance, far = CHANCE.get(measure["chance"], "chance"), ", too far off to be drawn"
    said = [f"Chance ({chance}) is {off['chance']:.3g}{far}" if "chance" in off else f"Grey dashes: {chance}"]
    first = start["series"].unique().to_list()
    if gone := [f"{off[name]:.2f}" for name in first if name in off]:
        said.append(f"the student before training is at {', '.join(gone)} on average{far}")
    elif first:
        said.append("dotted: the student before training")
    return "; ".join(said) + "."
