"""When in training and where in depth a measure of plain and distilled students parts: a map of step by depth."""

from __future__ import annotations

import altair as alt
import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog, tables
from kdpipe.app.shell import page, pick
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import CHECKPOINT, DISTILLED, PLAIN

DIFFERENCE, OF_PLAIN, OF_DISTILLED = "distilled less plain", "plain", "distilled"
AT = ["checkpoint_step", "relative_depth"]
CELL, AROUND = 44, 120  # pixels: of a square, and of axes and signature, which the height includes


def on_their_way(networks: pl.DataFrame, student: str, budget: str) -> pl.DataFrame:
    """Checkpoints of plain and distilled students, and what they became, with that one's ``role`` and ``method_label``.

    Returns:
        network_id, role, method_label, seed, checkpoint_step; nothing where no checkpoint is looked at.
    """
    mine = networks.filter(pl.col("student") == student, pl.col("budget") == budget)
    ends = mine.filter(pl.col("role").is_in([PLAIN, DISTILLED])).select("network_id", "role", "method_label")
    way = mine.filter(pl.col("role") == CHECKPOINT).select("network_id", "checkpoint_of", "seed", "checkpoint_step")
    before = way.join(ends, left_on="checkpoint_of", right_on="network_id").drop("checkpoint_of")
    looked_at = way["checkpoint_of"].unique().to_list()
    last = mine.filter(pl.col("network_id").is_in(looked_at)).join(ends, on=["network_id", "role", "method_label"])
    return pl.concat([before, last.select(before.columns)])


def means(values: pl.DataFrame, way: pl.DataFrame, layers: pl.DataFrame, method: str) -> pl.DataFrame:
    """A measure at each step and depth, mean over seeds: checkpoint_step, relative_depth, plain, distilled, difference.

    The difference pairs students of one seed at one step; a step that one of them lacks is left out.

    Args:
        values: rows of layer_measures of one measure in one view.
        way: as of :func:`on_their_way`.
        method: label of the distillation.
    """
    depths = layers.select("network_id", "layer", "relative_depth").unique()
    rows = values.join(way, on="network_id").join(depths, on=["network_id", "layer"])
    on = [*AT, "seed"]
    one = rows.filter(pl.col("role") == PLAIN).select(*on, plain="value")
    two = rows.filter(pl.col("method_label") == method).select(*on, distilled="value")
    paired = one.join(two, on=on).drop_nulls().with_columns(difference=pl.col("distilled") - pl.col("plain"))
    found = paired.group_by(AT).agg(pl.col("plain", "distilled", "difference").mean(), seeds=pl.len())
    return found.sort(AT)


def chart(found: pl.DataFrame, column: str, title: str) -> alt.Chart:
    """A square for each step and depth; of a difference white is none."""
    scale = alt.Scale(scheme="viridis")
    if column == "difference":
        scale = alt.Scale(scheme="purpleorange", domainMid=0, reverse=True)
    steps, depths = (found[name].n_unique() for name in AT)
    return (
        alt.Chart(found)
        .mark_rect()
        .encode(
            x=alt.X("checkpoint_step:O", title="training step", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y("relative_depth:O", title="relative depth", sort="descending", axis=alt.Axis(format=".2f")),
            color=alt.Color(f"{column}:Q", title=title, scale=scale),
            tooltip=[
                alt.Tooltip("checkpoint_step:O", title="step"),
                alt.Tooltip("relative_depth:Q", title="depth", format=".2f"),
                *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("plain", "distilled", "difference")),
                alt.Tooltip("seeds:Q"),
            ],
        )
        .properties(width=min(CELL * steps, 900), height=AROUND + min(CELL * depths, 420))
    )


def in_words(found: pl.DataFrame) -> str:
    """Where the difference is largest, and where it first is half of that."""
    most = found.sort(pl.col("difference").abs(), descending=True).row(0, named=True)
    if most["difference"] == 0:
        return "There is no difference, at any step and depth."
    same = found.filter(pl.col("difference") * most["difference"] > 0)
    half = same.filter(pl.col("difference").abs() >= abs(most["difference"]) / 2).sort(AT).row(0, named=True)
    return (
        f"The difference is largest at step {most['checkpoint_step']}, depth {most['relative_depth']:.2f}: "
        f"{most['difference']:+.3f}. Half of it is first there at step {half['checkpoint_step']}, depth "
        f"{half['relative_depth']:.2f}."
    )


def show(study: Study, networks: pl.DataFrame, student: str, budget: str) -> None:
    """The part of the page; it is not there where a study looked at no checkpoint."""
    way = on_their_way(networks, student, budget)
    if way.is_empty():
        return
    st.header("When, and where")
    methods = way.filter(pl.col("role") == DISTILLED)["method_label"].unique(maintain_order=True).to_list()
    views = sorted(study.layers["view"].unique().to_list())
    every = study.frame("layer_measures", network_id=way["network_id"].to_list())
    measures = tables.measures_of(study, "layer", every)
    titles = dict(measures.select("measure", "title").rows())
    if not methods or not titles:
        st.info("A distilled student has no checkpoint here, so there is nothing to compare step by step.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        measure = pick.one("Measure", sorted(titles), "when_measure", first=_first(titles), words=titles.__getitem__)
        view = pick.one("View", views, "when_view", first=views[-1], words=catalog.view_in_words, look="segments")
        method = pick.one("Method", methods, "when_method")
        shown = pick.one("Show", [DIFFERENCE, OF_PLAIN, OF_DISTILLED], "when_show", look="segments")
    found = means(every.filter(measure=measure, view=view), way, study.layers, method)
    if found.is_empty():
        st.info("Plain and distilled students were looked at after different steps, so they cannot be compared.")
        return
    column = "difference" if shown == DIFFERENCE else shown
    words = in_words(found)
    page.chart(study, chart(found, column, titles[measure]), key="when", alt=f"{titles[measure]}, {shown}. {words}")
    page.notes(
        words,
        "A square is a measure of one layer after so many steps, mean over seeds; the difference is of students of one "
        "seed. Where it begins early and deep, distillation shapes late layers first; where a row of early layers "
        "follows, they came after. These are means without intervals: what is sure stands on Evidence.",
    )
    page.folded_table(found, f"{study.name}-{measure}-{view}-steps", "when")


def _first(titles: dict[str, str]) -> str:
    return "silhouette" if "silhouette" in titles else min(titles)
