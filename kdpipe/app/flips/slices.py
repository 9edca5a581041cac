"""Slices of the images on which a student is worse than the network it would replace: classes, and known factors.

Of many slices some look bad by luck: only those are marked that remain after a correction over all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl
import streamlit as st
from numpy.typing import NDArray

from kdpipe.app.flips import outcomes
from kdpipe.app.shared.charts import CANVAS, Layered, fitting_columns
from kdpipe.app.shell import page, pick
from kdpipe.app.shell.theme import GREY
from kdpipe.artifacts.store import Study

FACTORS = ("brightness", "contrast", "hue", "colourfulness", "edge_density", "teacher_entropy")
RATE = 0.05  # of false marks among the marks, at most
MOST = 24  # slices drawn
WORST, MARKED, UNMARKED = "worse than elsewhere", "after correction", "may be luck"
_QUARTERS = ("lowest", "second", "third", "highest")
_Z = 1.959964
_LABEL = 215  # pixels of a slice's name: a phone has 340 in all
_ALL = "all images"
CERTAINTY = "teacher_entropy"


def factors_for(base: str) -> tuple[str, ...]:
    """Factors whose quarters can be compared with ``base``: where a teacher is sure, it is mostly right itself."""
    return tuple(name for name in FACTORS if base != "teacher" or name != CERTAINTY)


def memberships(samples: pl.DataFrame) -> pl.DataFrame:
    """Which image lies in which slice: its class, and its quarter of each factor that the images differ in.

    Images without a value of a factor (the hue of a grey one) are in none of its quarters.

    Returns:
        sample_id, kind (class or the factor) and slice (its name).
    """
    parts = [samples.select("sample_id", kind=pl.lit("class"), slice=pl.col("class_name"))]
    for factor in FACTORS:
        known = samples.select("sample_id", value=pl.col(factor).cast(pl.Float64)).drop_nulls()
        if known["value"].n_unique() < len(_QUARTERS):
            continue
        edges = [float(known["value"].quantile(q, "linear") or 0.0) for q in (0.25, 0.5, 0.75)]
        place = np.searchsorted(edges, known["value"].to_numpy(), side="left")
        words = [_quarter(factor, at, edges) for at in range(len(_QUARTERS))]
        parts.append(
            known.select(
                "sample_id", kind=pl.lit(factor), slice=pl.Series([words[at] for at in place], dtype=pl.String)
            )
        )
    return pl.concat(parts)


def _quarter(factor: str, at: int, edges: Sequence[float]) -> str:
    low, high = ([None, *edges, None][at + i] for i in (0, 1))
    span = f"≤ {high:.3g}" if low is None else f"> {low:.3g}" if high is None else f"{low:.3g} to {high:.3g}"
    return f"{factor.replace('_', ' ')}: {_QUARTERS[at]} quarter ({span})"


def differences(answers: pl.DataFrame, pairs: pl.DataFrame, members: pl.DataFrame) -> pl.DataFrame:
    """Accuracy of the student and of the network it would replace on each slice, the largest loss first.

    Of each image the difference (right or not, 1 or 0) is averaged over seeds; the interval is over
    images, these networks given: that of Agresti and Min (2005), which adds half an image to each cell
    of the paired table, so that a slice without any difference still has a width. p is of the same
    statistic, and q is corrected after Benjamini and Hochberg (1995) over all slices.

    Args:
        answers: network_id, sample_id, correct.
        pairs: network_id and base_id, a row a seed.
        members: of :func:`memberships`.

    Returns:
        kind, slice, images, base, student, difference (all in points of accuracy), low, high, lowest, highest
        (of seeds), p, q, marked (q below .05 and worse, or better, at every seed), excess (the difference less
        that on all other images), p_excess, q_excess, worst (marked, lost, and the excess below 0 in the same way
        as q); the row of all images first.
    """
    right = {who[0]: rows for who, rows in answers.partition_by("network_id", as_dict=True).items()}
    ids = answers["sample_id"].unique().sort()
    own, base = (
        np.stack([_in_order(right[name], ids) for name in pairs[column]]) for column in ("network_id", "base_id")
    )
    place = {sample: at for at, sample in enumerate(ids)}
    rows = [{"kind": _ALL, "slice": _ALL, **_paired(own, base)}]
    for (kind, name), group in members.group_by("kind", "slice", maintain_order=True):
        at = [place[sample] for sample in group["sample_id"] if sample in place]
        if at:
            rows.append({"kind": kind, "slice": name, **_paired(own[:, at], base[:, at]), **_excess(own - base, at)})
    whole, *parts = rows
    table = pl.DataFrame(parts, infer_schema_length=None)
    corrected = {f"q{of}": pl.Series(benjamini_hochberg(table[f"p{of}"].to_numpy())) for of in ("", "_excess")}
    table = table.with_columns(**corrected)
    marked = (pl.col("q") < RATE) & (pl.col("lowest") * pl.col("highest") > 0)
    worst = marked & (pl.col("highest") < 0) & (pl.col("q_excess") < RATE) & (pl.col("excess") < 0)
    table = table.with_columns(marked=marked, worst=worst).sort("difference", "slice")
    nothing = {"q": None, "marked": False, "excess": None, "p_excess": None, "q_excess": None, "worst": False}
    return pl.concat([pl.DataFrame([{**whole, **nothing}], schema=table.schema), table])


def _excess(moved: NDArray[np.float64], at: Sequence[int]) -> dict[str, float]:
    """How much more a slice moves than all other images, and p of that: two groups of images, unpaired."""
    inside = np.zeros(moved.shape[1], bool)
    inside[list(at)] = True
    groups = [moved.mean(0)[side] for side in (inside, ~inside)]
    if min(map(len, groups)) == 0:
        return {"excess": 0.0, "p_excess": 1.0}
    excess = float(groups[0].mean() - groups[1].mean())
    # As in the paired interval: two images are added to each group, one that moved up and one that moved down.
    variance = sum(((group**2).sum() + 2) / (len(group) + 2) / (len(group) + 2) for group in groups)
    variance -= sum((group.sum() / (len(group) + 2)) ** 2 / (len(group) + 2) for group in groups)
    return {"excess": 100 * excess, "p_excess": math.erfc(abs(excess) / math.sqrt(2 * variance))}


def _in_order(rows: pl.DataFrame, ids: pl.Series) -> NDArray[np.float64]:
    """Whether each of ``ids`` is right, as 0 and 1."""
    return (
        pl.DataFrame({"sample_id": ids})
        .join(rows, on="sample_id", how="left", maintain_order="left")["correct"]
        .cast(pl.Float64)
        .fill_null(0.0)
        .to_numpy()
    )


def _paired(own: NDArray[np.float64], base: NDArray[np.float64]) -> dict[str, float]:
    """Means of one slice, (seeds, images) each, the interval of their difference over images, and its p."""
    moved = own - base
    each, images = moved.mean(0), moved.shape[1]
    centre = each.sum() / (images + 2)
    variance = ((each**2).sum() + 1) / (images + 2) - centre**2
    half = _Z * math.sqrt(variance / (images + 2))
    seeds = moved.mean(1)
    return {
        "images": images,
        "base": 100 * float(base.mean()),
        "student": 100 * float(own.mean()),
        "difference": 100 * float(each.mean()),
        "low": 100 * max(-1.0, centre - half),
        "high": 100 * min(1.0, centre + half),
        "lowest": 100 * float(seeds.min()),
        "highest": 100 * float(seeds.max()),
        "p": math.erfc(abs(centre) / half * _Z / math.sqrt(2)),
    }


def benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p values corrected so that a share of at most q of those called below q is false. Benjamini, Hochberg (1995)."""
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return corrected


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
    base = pick.one("If the student replaces", ["teacher", "plain"], "replaces", look="segments")
    pairs = compared.own.select("network_id", base_id=f"{base}_id")
    answers = outcomes.answers_of(study, {*pairs["network_id"], *pairs["base_id"]})
    samples = study.scan("samples").drop("image").collect()
    members = memberships(samples)
    if base == "teacher":
        members = members.filter(pl.col("kind") != CERTAINTY)
    table = differences(answers, pairs, members)
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
