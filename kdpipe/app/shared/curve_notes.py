"""What explains curves by depth, in words: floors, bands, grey series, and what chance alone moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import streamlit as st

from kdpipe.app.shared import charts, tables
from kdpipe.app.shell import page
from kdpipe.app.shell.words import verbatim

BANDS = {"seeds": ("lowest", "highest"), "images": ("low", "high")}
BETTER = {
    "higher": ("Higher is better separated or kept.", "Above 0 is better than plain."),
    "lower": ("Lower is better separated or kept.", "Below 0 is better than plain."),
    "neither": ("Neither end is better.", "Neither sign is better."),
}
CHANCE = {
    "known": "Grey dashes: what chance alone gives.",
    "shuffled": "Grey dashes: the same layers with the labels shuffled (or, for measures without labels, each column "
    "of the layer on its own).",
    "none": "It has no chance level.",
}


def floors(measure: dict[str, Any], shown: pl.DataFrame, baselines: pl.DataFrame) -> str:
    """What the grey lines are, and which of them lie too far off to be drawn."""
    off = [f"{name} ({value:.3g})" for name, value in charts.far_off(shown, baselines).items()]
    dotted = " Dotted: networks before training, and the raw pixels." if baselines.height else ""
    return CHANCE[measure["chance"]] + dotted + (f" Too far off to be drawn: {', '.join(off)}." if off else "")


def grey(shown: pl.DataFrame, colours: dict[str, str]) -> str:
    """How many series are grey, and which of them run out of the frame."""
    others = shown.filter(~pl.col("series").is_in(list(colours)))["series"].n_unique()
    if not others:
        return ""
    far = [f"{verbatim(name)} ({value:.3g})" for name, value in charts.out_of_frame(shown, colours).items()]
    left = f" Of these leave the frame: {', '.join(far)}." if far else ""
    return f" Grey: {others} other methods and controls, mean alone; point at one for its name.{left}"


def null(reach: pl.DataFrame) -> str:
    """What the grey band round zero is, or that nothing tells what chance moves."""
    if reach.is_empty():
        return "Plain was not trained again from other initial weights here, so no band tells what chance alone moves."
    seeds = int(str(reach["seeds"].max()))
    return (
        "Grey band: what other initial weights alone move, which is plain from other initial weights minus plain, as "
        f"far to either side of 0 as the furthest of {seeds} seed{'s' * (seeds != 1)}. **A difference inside it tells "
        "nothing.** The teacher has no plain student of its seed, so it has no difference."
    )


def bands(band: str, each: bool, measure: dict[str, Any], intervals: list[str], difference: bool) -> str:
    """What the coloured bands are, and why they are not those that were asked for."""
    if each:
        return "One line for each network, without bands."
    if band == "images" and (difference or measure["title"] not in intervals):
        why = "of a difference" if difference else f"of this measure (there are for {', '.join(intervals) or 'none'})"
        return f"No interval over images {why} is stored: the band runs from the lowest seed to the highest."
    if band == "images":
        return "Band: the 95 % interval over probe images, mean over seeds of its lower and upper end; not over seeds."
    return "Band: from the lowest seed to the highest, not a confidence interval."


def number(row: Mapping[str, Any], of: str, ends: tuple[str, str]) -> str:
    """A number with its range; without one where it is of a single seed."""
    low, high = (row[end] for end in ends)
    alone = low is None or high is None or low == high
    return f"{row[of]:.3g}" if alone else f"{row[of]:.3g} ({low:.3g} to {high:.3g})"


def classes(values: pl.DataFrame, order: Sequence[str], colours: Mapping[str, str]) -> str:
    """The first and the last class of a chart in words: each series in colour with its lowest and highest seed."""
    said = []
    for name in dict.fromkeys([*order[:1], *order[-1:]]):
        rows = {row["series"]: row for row in values.filter(class_name=name).drop_nulls("value").rows(named=True)}
        found = [rows[series] for series in colours if series in rows]
        each = [f"{row['series']} {number(row, 'value', ('lowest', 'highest'))}" for row in found]
        said.append(f"{name}: {', '.join(each)}")
    return f"By gain over plain, the first and the last class. {'; '.join(said)}."


def table_by_layer(
    curves: pl.DataFrame, colours: Mapping[str, str], name: str, ends: tuple[str, str] = ("lowest", "highest")
) -> None:
    """The table of curves, folded away: a row a layer, a column a series in colour; the files hold each network."""

    def show() -> None:
        coloured = curves.filter(pl.col("series").is_in(list(colours)))
        st.caption(f"Mean over seeds ({ends[0]} to {ends[1]} end of the band). The files hold each network.")
        page.table(tables.per_layer(coloured if coloured.height else curves, ends))
        page.downloads(curves, name)

    page.folded("The numbers", "numbers", show)
