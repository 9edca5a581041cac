"""Slices of the images on which a student is worse than the network it would replace: classes, and known factors.

Of many slices some look bad by luck: only those are marked that remain after a correction over all. Differences,
intervals and corrections are of slices.parquet; here they are named and drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl
import streamlit as st

from kdpipe.app.flips import outcomes
from kdpipe.app.shared.charts import CANVAS, Layered, fitting_columns
from kdpipe.app.shell import page, pick
from kdpipe.app.shell.theme import GREY
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import ALL_IMAGES, CLASS_SLICE, FACTORS, REPLACES, TEACHER_CERTAINTY

MOST = 24  # slices drawn
WORST, MARKED, UNMARKED = "worse than elsewhere", "after correction", "may be luck"
_QUARTERS = ("lowest", "second", "third", "highest")
_LABEL = 215  # pixels of a slice's name: a phone has 340 in all
_ALL = "all images"
_SHOWN = {"base": "base_accuracy", "student": "accuracy", "q": "p_corrected", "q_excess": "p_excess_corrected"}
_COLUMNS = (
    "kind", "slice", "images", "base", "student", "difference", "low", "high", "lowest", "highest", "p", "q", "marked",
    "excess", "p_excess", "q_excess", "worst",
)  # fmt: skip


def factors_for(base: str) -> tuple[str, ...]:
    """Factors whose quarters can be compared with ``base``: where a teacher is sure, it is mostly right itself."""
    return tuple(name for name in FACTORS if base != "teacher" or name != TEACHER_CERTAINTY)


def differences(study: Study, compared: outcomes.Comparison, base: str) -> pl.DataFrame:
    """What is stored of the slices of a comparison, the largest loss first; the row of all images before them.

    Returns:
        kind, slice (its name), images, base, student, difference (all in points of accuracy), low, high, lowest,
        highest (of seeds), p, q (p corrected over all slices), marked (q below .05 and worse, or better, at every
        seed), excess (the difference less that on all other images), p_excess, q_excess, worst (marked, lost, and
        the excess below 0 in the same way as q).
    """
    rows = outcomes.stored_of(study, "slices", compared).filter(pl.col("replaces") == base)
    names = pl.Series(
        [_name(row, study.record["data"]["class_names"]) for row in rows.rows(named=True)], dtype=pl.String
    )
    rows = rows.drop("student").with_columns(slice=names, **{new: pl.col(old) for new, old in _SHOWN.items()})
    whole = pl.col("kind") == ALL_IMAGES
    parts = rows.filter(~whole).sort("difference", "slice")
    return pl.concat([rows.filter(whole), parts]).select(_COLUMNS)


def _name(row: Mapping[str, Any], classes: Sequence[str]) -> str:
    """What a slice is called: ``all images``, its class, or ``hue: lowest quarter (≤ 31.5)``."""
    kind, low, high = row["kind"], row["above"], row["up_to"]
    if kind == ALL_IMAGES:
        return _ALL
    if kind == CLASS_SLICE:
        return classes[row["part"]]
    span = f"≤ {high:.3g}" if low is None else f"> {low:.3g}" if high is None else f"{low:.3g} to {high:.3g}"
    return f"{kind.replace('_', ' ')}: {_QUARTERS[row['part']]} quarter ({span})"


def called(base: str) -> str:
    """The network that would be replaced, inside a sentence."""
    return "the teacher" if base == "teacher" else base


def in_words(table: pl.DataFrame, base: str, series: str) -> str:
    """How many slices are lost for certain, the worst one, and what all images together say."""
    whole, parts = table.row(0, named=True), table.slice(1)
    lost = parts.filter(pl.col("marked") & (pl.col("difference") < 0))
    said = (
        f"On all {whole['images']} probe images {series} differs from {called(base)} by {whole['difference']:+.1f} "
        f"points (95 % interval {whole['low']:+.1f} to {whole['high']:+.1f}). Of {parts.height} slices {lost.height} "
        f"{'is' if lost.height == 1 else 'are'} lost also after correction"
    )
    if lost.is_empty():
        return f"{said}."
    row, more = lost.row(0, named=True), lost["worst"].sum()
    worst = f"{row['slice']}, {row['difference']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"
    return f"{said} ({more or 'none'} by more than all other images are); the largest loss: {worst}."


def about(base: str, table: pl.DataFrame, left_out: int, missing: Sequence[str]) -> str:
    """How to read the chart, how the interval was made, and what is not in it."""
    said = [
        "Slices: each class, and the quarters of each known factor. Mark: the student's accuracy less that of "
        f"{called(base)} on the slice's images, mean over seeds; line: 95 % interval over images for these networks "
        "(paired: of each image the difference, averaged over seeds; Agresti and Min's adjustment for small counts). "
        "What another training run would change is not in the line: the table has the lowest and highest seed.",
        f"**Many slices: of {table.height - 1} some look bad by luck.** Filled marks remain after Benjamini and "
        "Hochberg's correction over all of them (at most 5 % false among the marked) and have one sign at every seed; "
        "diamonds also lose more than all other images together do, corrected in the same way. Dashed: the "
        "difference on all images.",
    ]
    if base == "teacher":
        said.append(
            "Quarters of teacher entropy are left out: they are made from the teacher's own certainty, and where it is "
            "sure it is mostly right. Pick plain to see them."
        )
    if left_out:
        said.append(f"{left_out} other slices are in the table only.")
    if len(missing) == len(factors_for(base)):
        said.append("This study has no known factors: set `factors = true` under `[measures]` and run it again.")
    elif missing:
        named = ", ".join(name.replace("_", " ") for name in missing)
        said.append(f"Images here do not differ in, or have no: {named}.")
    return " ".join(said)


def drawn(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The slices with the largest losses, those first that remain after correction, and how many others there are."""
    parts = table.slice(1)
    certain = pl.col("marked") & (pl.col("difference") < 0)
    kept = pl.concat([parts.filter(certain), parts.filter(~certain)]).head(MOST)
    return kept.sort("difference", "slice"), max(0, parts.height - MOST)


def loss_ranges(parts: pl.DataFrame, whole: float, colour: str, title: Sequence[str]) -> Layered:
    """A row a slice: the difference and its interval; hollow dots may be luck, others remain after correction.

    Args:
        parts: rows of :func:`differences` without that of all images, in order.
        whole: the difference on all images, the dashed line.
    """
    order = parts["slice"].to_list()
    state = pl.when("worst").then(pl.lit(WORST)).when("marked").then(pl.lit(MARKED)).otherwise(pl.lit(UNMARKED))
    shown = parts.with_columns(state=state)
    x: dict[str, Any] = {"title": list(title), "scale": alt.Scale(zero=True, nice=True), "axis": alt.Axis(tickCount=7)}
    signed: list[Any] = [
        alt.Tooltip(f"{name}:Q", format="+.1f") for name in ("difference", "low", "high", "lowest", "highest")
    ]
    levels: list[Any] = [alt.Tooltip(f"{name}:Q", format=".1f") for name in ("base", "student")]
    tooltip: list[Any] = [
        alt.Tooltip("slice:N"),
        alt.Tooltip("images:Q"),
        *levels,
        *signed,
        alt.Tooltip("q:Q", format=".3g"),
        alt.Tooltip("state:N"),
    ]
    axis = alt.Axis(labelLimit=_LABEL, labelOverlap=False, labelFlush=False)
    base = alt.Chart(shown).encode(y=alt.Y("slice:N", sort=order, title=None, axis=axis), tooltip=tooltip)
    lines = pl.DataFrame({"at": [0.0, whole], "what": ["no difference", _ALL]})
    rules = alt.Chart(lines).mark_rule(color=GREY, strokeWidth=1.5).encode(
        x=alt.X("at:Q", **x), tooltip=[alt.Tooltip("what:N"), alt.Tooltip("at:Q", format="+.1f")],
        strokeDash=alt.StrokeDash("what:N", legend=None,
                                  scale=alt.Scale(domain=["no difference", _ALL], range=[[1, 0], [5, 4]])),
    )  # fmt: skip
    spread = base.mark_rule(strokeWidth=2, color=colour, opacity=0.75).encode(
        x=alt.X("low:Q", **x), x2=alt.X2("high:Q")
    )
    looks = {WORST: (colour, "diamond"), MARKED: (colour, "circle"), UNMARKED: ("transparent", "circle")}
    states = [name for name in looks if name in shown["state"].to_list()]
    legend = alt.Legend(orient="top", symbolStrokeWidth=2, columns=fitting_columns(states, 420))
    fills = alt.Scale(domain=states, range=[looks[name][0] for name in states])
    strokes = alt.Scale(domain=states, range=[colour] * len(states))
    shapes = alt.Scale(domain=states, range=[looks[name][1] for name in states])
    dots = base.mark_point(size=85, strokeWidth=2, opacity=1).encode(
        x=alt.X("difference:Q", **x),
        fill=alt.Fill("state:N", title=None, scale=fills, legend=legend),
        stroke=alt.Stroke("state:N", title=None, scale=strokes, legend=legend),
        shape=alt.Shape("state:N", title=None, scale=shapes, legend=legend),
    )
    return alt.layer(rules, spread, dots).properties(height=160 + 23 * parts.height, usermeta=CANVAS)


def section(study: Study, compared: outcomes.Comparison) -> None:
    """Where the student loses most against the teacher or plain, by class and by factor."""
    st.header("Slices you would lose", anchor="slices")
    base = pick.one("If the student replaces", REPLACES, "replaces", look="segments")
    table = differences(study, compared, base)
    largest, left_out = drawn(table)
    colour = compared.colours[compared.series]
    title = ("accuracy of the student less", f"that of {called(base)}, in points")  # two lines on the axis
    words = in_words(table, base, compared.series)
    st.text(words)
    page.chart(study, loss_ranges(largest, table["difference"][0], colour, title), key="slices", alt=words)
    missing = [name for name in factors_for(base) if name not in table["kind"].to_list()]
    with st.expander("How to read this"):
        st.caption(about(base, table, left_out, missing))
    page.folded_table(table, f"{study.name}-slices-{base}", "slices")
