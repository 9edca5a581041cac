"""What a student answers otherwise than plain: fixed, broken and inherited errors, and which classes it mixes up.

Everything is counted on the probe images, seed by seed, and compared with a plain student that was
started again from other initial weights: what other initial weights alone flip is the null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import altair as alt
import numpy as np
import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog, focus
from kdpipe.app.shared.charts import CANVAS, LABEL, Layered, series_colour
from kdpipe.app.shell import pick, theme
from kdpipe.app.shell.images import Figure
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study

KINDS = {"fixed": "fixed", "broken": "broken", "net": "fixed − broken", "inherited": "inherited"}
OUTCOMES = ("fixed", "broken", "inherited")
DEFINITIONS = (
    "**Fixed**: plain is wrong, the student right. **Broken**: plain is right, the student wrong. **Inherited**: the "
    "student gives the teacher's own wrong answer, which plain did not give."
)
MOST_ROWS = 24  # classes or slices in one chart
MOST_CONFUSED = 12  # classes in one heat map
PER_PAGE = 48  # images
FEWER, MORE = "#3f90da", "#e76300"  # of the student's answers than of plain's; apart under colour blindness
_NEUTRAL = "rgba(154,160,166,0.14)"  # no change: the page's background, light or dark, shows through
_ALL_SEEDS = "all seeds"
_TRIO = ("network_id", "plain_id", "teacher_id")


@dataclass(frozen=True)
class Comparison:
    """One student and method on one budget against plain, seed by seed, and plain's second initialisation against it.

    ``own`` and ``null`` have network_id, plain_id, teacher_id, series and seed, a row a seed; ``null`` has
    no rows where plain was not started again, or where it is itself what was picked. ``place`` is the student's
    architecture, method label and share of labels; ``seed`` the one seed that was picked, or None for all.
    """

    series: str
    budget: str
    own: pl.DataFrame
    null: pl.DataFrame
    colours: Mapping[str, str]
    place: tuple[str, str, float]
    seed: int | None = None

    @property
    def both(self) -> pl.DataFrame:
        """Rows of ``own`` and of ``null``."""
        return pl.concat([self.own, self.null])

    @property
    def seeds(self) -> int:
        """How many seeds are compared."""
        return self.own.height


def pick_comparison(study: Study, networks: pl.DataFrame) -> Comparison | None:
    """Student, method, budget and seeds, the headline's first; None where no student can be compared with plain."""
    trios = study.frame("flips", pl.col("label").is_null(), columns=_TRIO)
    known = networks.join(trios.drop("teacher_id"), on="network_id", maintain_order="left")
    known = known.join(trios.select("network_id", teaches="teacher_id"), on="network_id", maintain_order="left")
    if known.is_empty():
        return None
    head = catalog.headline(study, known)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        student = _pick_among("Student", known, "student", head)
        mine = known.filter(pl.col("student") == student)
        by_gain = [name for name in focus.options(networks) if name in mine["series"].to_list()]
        names = by_gain + [name for name in mine["series"].unique(maintain_order=True) if name not in by_gain]
        usual = head.filter(pl.col("role") == "distilled")["series"].to_list()
        first = next((name for name in usual if name in names), names[0])
        series = pick.one("Method", names, "method", first=first, width=340)
        budgets = mine.filter(pl.col("series") == series)["budget"].unique(maintain_order=True).to_list()
        first = next((name for name in head["budget"] if name in budgets), budgets[0])
        budget = pick.one("Labels", budgets, "labels", first=first, look="segments")
        here = mine.filter(pl.col("budget") == budget)
        own = here.filter(pl.col("series") == series).sort("seed")
        seeds = [f"seed {seed}" for seed in own["seed"]]
        seed = pick.one("Seeds", [_ALL_SEEDS, *seeds], "seed", width=130) if len(seeds) > 1 else _ALL_SEEDS
    null = here.filter(pl.col("null") & (pl.col("series") != series) & pl.col("seed").is_in(own["seed"].to_list()))
    if seed != _ALL_SEEDS:
        own, null = (frame.filter(pl.format("seed {}", "seed") == seed) for frame in (own, null))
    one = None if seed == _ALL_SEEDS else own["seed"].item()
    place = own.select("student", "method_label", "budget_id").row(0)
    chosen = [] if own["null"].any() else [series]
    columns = ["network_id", "plain_id", pl.col("teaches").alias("teacher_id"), "series", "seed"]
    colours = focus.colours(study, networks, chosen)
    return Comparison(series, budget, own.select(columns), null.sort("seed").select(columns), colours, place, one)


def _pick_among(label: str, known: pl.DataFrame, column: str, head: pl.DataFrame) -> str:
    options = known[column].unique(maintain_order=True).to_list()
    first = next((value for value in head[column] if value in options), options[0])
    return pick.one(label, options, column, first=first, width=220) if len(options) > 1 else first


# ------------------------------------------------------------------------------- counts


def counts_of(study: Study, compared: Comparison) -> pl.DataFrame:
    """Rows of flips of the student and of plain's second initialisation, with series, seed and net (fixed less broken).

    ``label`` is empty in the rows over all classes.
    """
    rows = study.frame("flips", network_id=compared.both["network_id"].to_list())
    named = rows.join(compared.both.select("network_id", "series", "seed"), on="network_id", maintain_order="left")
    return named.with_columns(net=pl.col("fixed") - pl.col("broken"))


def stored_of(study: Study, table: str, compared: Comparison) -> pl.DataFrame:
    """Rows of a table of statistics for the student of a comparison, of all its seeds or of the one that was picked."""
    student, label, budget = compared.place
    rows = study.frame(table, student=student, method_label=label, budget_id=budget)
    seed = pl.col("seed").is_null() if compared.seed is None else pl.col("seed") == compared.seed
    return rows.filter(seed)


def ranges(counts: pl.DataFrame, by: Sequence[str], kinds: Sequence[str]) -> pl.DataFrame:
    """Mean, lowest and highest seed of each of ``kinds``, for each series and group.

    Returns:
        the columns of ``by``, series, kind, mean, lowest, highest, seeds, images.
    """
    long = counts.unpivot(list(kinds), index=[*by, "series", "seed", "images"], variable_name="kind")
    value = pl.col("value")
    return long.group_by(*by, "series", "kind", maintain_order=True).agg(
        mean=value.mean(), lowest=value.min(), highest=value.max(), seeds=pl.len(), images=pl.col("images").first()
    )


def in_words(summary: pl.DataFrame, series: str) -> str:
    """``fixed 316 (from 300 to 330), …`` of one series, from rows of :func:`ranges` over all classes."""
    said = []
    for kind, name in KINDS.items():
        for row in summary.filter(series=series, kind=kind).rows(named=True):
            sign = "+" if kind == "net" else ""
            spread = f" (from {row['lowest']:{sign}} to {row['highest']:{sign}})" if row["seeds"] > 1 else ""
            said.append(f"{name} {row['mean']:{sign}.1f}{spread}" if spread else f"{name} {row['mean']:{sign}.0f}")
    return ", ".join(said)


def verdict_against_null(summary: pl.DataFrame, compared: Comparison) -> str:
    """Whether the student's gain in right answers lies within what other initial weights alone change."""
    if compared.null.is_empty():
        return "Plain was not started again from other initial weights here, so nothing tells what chance alone flips."
    net = {row["series"]: row for row in summary.filter(kind="net").rows(named=True)}
    null, own = net[compared.null["series"][0]], net[compared.series]
    reach = max(abs(null["lowest"]), abs(null["highest"]))
    where = (
        "lies outside" if min(abs(own["lowest"]), abs(own["highest"])) > reach and own["lowest"] * own["highest"] > 0
        else "reaches into"
    )  # fmt: skip
    return (
        f"Other initial weights alone move the balance by up to {reach} images either way; the student's range over "
        f"seeds {where} that."
    )


def range_rows(rows: pl.DataFrame, row: str, order: Sequence[str], colours: Mapping[str, str], title: str) -> Layered:
    """A row a group and in it a mark a series: the mean, and a line from the lowest seed to the highest.

    Args:
        rows: of :func:`ranges`, ``row`` naming the group.
        order: groups from top to bottom.
        colours: a colour for each series; the first one drawn is the student, a circle, any other a diamond.
    """
    present = [name for name in colours if name in rows["series"].to_list()]
    axis = alt.Axis(labelLimit=LABEL, labelOverlap=False, labelFlush=False)
    tooltip: list[Any] = [
        alt.Tooltip(f"{row}:N", title=" "), alt.Tooltip("series:N"), alt.Tooltip("kind:N"),
        alt.Tooltip("mean:Q", format=".1f"), alt.Tooltip("lowest:Q"),
        alt.Tooltip("highest:Q"), alt.Tooltip("seeds:Q"), alt.Tooltip("images:Q", title="of images"),
    ]  # fmt: skip
    base = alt.Chart(rows).encode(
        y=alt.Y(f"{row}:N", sort=list(order), title=None, axis=axis),
        yOffset=alt.YOffset("series:N", sort=present[::-1]),
        color=series_colour(colours, present),
        tooltip=tooltip,
    )
    x: dict[str, Any] = {"title": title, "scale": alt.Scale(zero=True, nice=True), "axis": alt.Axis(tickCount=7)}
    zero = alt.Chart(pl.DataFrame({"at": [0]})).mark_rule(color=theme.GREY).encode(x=alt.X("at:Q", **x))
    spread = base.mark_rule(strokeWidth=2.5, opacity=0.7).encode(x=alt.X("lowest:Q", **x), x2=alt.X2("highest:Q"))
    shapes = alt.Scale(domain=present, range=["diamond", "circle"][-len(present) :])
    shape = alt.Shape("series:N", scale=shapes, legend=None)
    marks = base.mark_point(filled=True, size=75, opacity=1).encode(x=alt.X("mean:Q", **x), shape=shape)
    height = 150 + (24 if len(present) == 1 else 36) * len(order)
    return alt.layer(zero, spread, marks).properties(height=height, usermeta=CANVAS)


def class_order(by_class: pl.DataFrame, series: str) -> tuple[list[str], int]:
    """Class names by fixed less broken of ``series``, the highest first, and how many in between are left out."""
    mine = by_class.filter(series=series, kind="net").sort("mean", "label", descending=[True, False])
    order = mine["class_name"].to_list()
    left_out = max(0, len(order) - MOST_ROWS)
    return (order[: MOST_ROWS // 2] + order[-MOST_ROWS // 2 :] if left_out else order), left_out


# ------------------------------------------------------------------------------- images


def flipped(study: Study, compared: Comparison, outcome: str) -> pl.DataFrame:
    """The images that the student fixed, broke or inherited at any of the seeds, the most consistent first.

    Of those as consistent, the ones first that plain's second initialisation does least often.

    Returns:
        sample_id, label, class_name, display_rank, image, times (seeds at which it did), null_times (of
        plain's second initialisation).
    """
    ids = {"times": compared.own["network_id"].to_list(), "null_times": compared.null["network_id"].to_list()}
    happened = pl.col("inherited") if outcome == "inherited" else pl.col("outcome") == outcome
    rows = study.scan("sample_flips").filter(pl.col("network_id").is_in(ids["times"] + ids["null_times"]) & happened)
    times = [pl.col("network_id").is_in(who).sum().alias(name) for name, who in ids.items()]
    found = study.collect("sample_flips", rows.group_by("sample_id").agg(times).filter(pl.col("times") > 0))
    samples = study.samples.select("sample_id", "label", "class_name", "display_rank", "image")
    order = {"times": True, "null_times": False, "display_rank": False}
    return found.join(samples, on="sample_id").sort(list(order), descending=list(order.values()))


def figures(study: Study, compared: Comparison, outcome: str, shown: pl.DataFrame) -> list[Figure]:
    """The rows of :func:`flipped` with the true class, what was answered, and at how many seeds."""
    names = study.record["data"]["class_names"]
    said = _usual_answers(study, compared, outcome, shown["sample_id"].to_list())
    own, null, border = compared.seeds, compared.null.height, compared.colours[compared.series]
    made = []
    for row in shown.rows(named=True):
        plain, student, teacher = (names[answer] for answer in said[row["sample_id"]])
        lines = [row["class_name"], f"plain: {plain}", f"student: {student}", f"teacher: {teacher}"]
        if own > 1:
            lines.append(f"{row['times']} of {own} seeds")
        if null:
            alone = f"{row['null_times']} of {null}" if null > 1 else ("yes" if row["null_times"] else "no")
            lines.append(f"other initial weights: {alone}")
        link = "Sample?" + urlencode({"study": study.name, "sample": row["sample_id"]})
        made.append(Figure(row["image"], lines, border, link))
    return made


def _usual_answers(
    study: Study, compared: Comparison, outcome: str, samples: Sequence[int]
) -> dict[int, tuple[int, int, int]]:
    """What plain, student and teacher answer most often at the seeds at which it happened, for each image."""
    happened = pl.col("inherited") if outcome == "inherited" else pl.col("outcome") == outcome
    own = pl.col("network_id").is_in(compared.own["network_id"].to_list())
    shown = pl.col("sample_id").is_in(samples)
    trios = study.frame("sample_flips", own, shown, happened, columns=[*_TRIO, "sample_id"])
    answers = answers_of(study, {name for column in _TRIO for name in compared.own[column]}, samples)
    for column, name in (("plain_id", "plain"), ("network_id", "student"), ("teacher_id", "teacher")):
        said = answers.select("sample_id", pl.col("network_id").alias(column), pl.col("predicted").alias(name))
        trios = trios.join(said, on=[column, "sample_id"])
    usual = trios.group_by("sample_id").agg(pl.col("plain", "student", "teacher").mode().sort().first())
    return {sample: (plain, student, teacher) for sample, plain, student, teacher in usual.rows()}


def answers_of(study: Study, networks: set[str], samples: Sequence[int] | None = None) -> pl.DataFrame:
    """network_id, sample_id, predicted, confidence and correct of the networks asked for, without their logits."""
    wanted = [] if samples is None else [pl.col("sample_id").is_in(samples)]
    columns = ["network_id", "sample_id", "predicted", "confidence", "correct"]
    return study.frame("predictions", *wanted, columns=columns, network_id=sorted(networks))


# ------------------------------------------------------------------------------- confusions


def confusions(study: Study, compared: Comparison) -> pl.DataFrame:
    """How often each class is answered for each: the student less plain of its seed, mean over seeds.

    Returns:
        true, answer (class names), difference, lowest, highest (seeds), steady (of one sign, not 0, at
        every seed), plain, student (mean counts) and teacher (count), for every pair of classes.
    """
    names = study.record["data"]["class_names"]
    own = compared.own
    answers = answers_of(study, {name for column in _TRIO for name in own[column]})
    answers = answers.join(study.frame("samples", columns=["sample_id", "label"]), on="sample_id")
    matrix = {
        who[0]: _matrix(rows["label"].to_numpy(), rows["predicted"].to_numpy(), len(names))
        for who, rows in answers.partition_by("network_id", as_dict=True).items()
    }
    said = {column: np.stack([matrix[who] for who in own[column]]) for column in _TRIO}
    moved = said["network_id"] - said["plain_id"]
    true, answer = np.divmod(np.arange(len(names) ** 2), len(names))
    return pl.DataFrame(
        {
            "true": [names[index] for index in true],
            "answer": [names[index] for index in answer],
            "difference": moved.mean(0).ravel(),
            "lowest": moved.min(0).ravel(),
            "highest": moved.max(0).ravel(),
            "steady": ((moved > 0).all(0) | (moved < 0).all(0)).ravel(),
            "plain": said["plain_id"].mean(0).ravel(),
            "student": said["network_id"].mean(0).ravel(),
            "teacher": said["teacher_id"].mean(0).ravel(),
        }
    )


def _matrix(labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    counts = np.bincount(labels.astype(np.int64) * classes + answers, minlength=classes**2)
    return counts.reshape(classes, classes)


def most_changed(cells: pl.DataFrame) -> list[str]:
    """The classes to draw, in their own order: all, or of many those whose row and column changed most."""
    names = cells["true"].unique(maintain_order=True).to_list()
    size = pl.col("difference").abs().sum()
    rows, columns = (dict(cells.group_by(side).agg(size).rows()) for side in ("true", "answer"))
    ranked = sorted(names, key=lambda name: -(rows[name] + columns[name]))
    return [name for name in names if name in set(ranked[:MOST_CONFUSED])]


def difference_heat(cells: pl.DataFrame, order: Sequence[str], ink: str) -> Layered:
    """True classes down, answers across; orange where the student answers so more often than plain, blue less often."""
    furthest = max(float(cells["difference"].abs().to_numpy().max()), 1e-9)
    scale = alt.Scale(domain=[-furthest, 0, furthest], range=[FEWER, _NEUTRAL, MORE], interpolate="rgb")
    legend = alt.Legend(title="student − plain", orient="top", gradientLength=180, format="+.0f")
    digits = 1 if furthest < 10 else 0
    text = pl.when(pl.col("difference").abs() < 0.5 * 10**-digits).then(pl.lit("")).otherwise(
        pl.when(pl.col("difference") > 0).then(pl.lit("+")).otherwise(pl.lit("−"))
        + pl.col("difference").abs().round(digits).cast(pl.String).str.strip_suffix(".0")
    )  # fmt: skip
    shown = cells.with_columns(text=text, strong=pl.col("difference").abs() > 0.75 * furthest)
    base = _grid(shown, order)
    signed: list[Any] = [alt.Tooltip(f"{name}:Q", format="+.1f") for name in ("difference", "lowest", "highest")]
    counts: list[Any] = [alt.Tooltip(f"{name}:Q", format=".1f") for name in ("plain", "student", "teacher")]
    squares = base.mark_rect().encode(
        color=alt.Color("difference:Q", scale=scale, legend=legend),
        tooltip=[alt.Tooltip("true:N"), alt.Tooltip("answer:N"), *signed, *counts],
    )
    colour = alt.condition("datum.strong", alt.value("#101010"), alt.value(ink))
    words: dict[str, Any] = {"text": alt.Text("text:N"), "color": colour}
    steady = base.transform_filter("datum.steady").mark_text(fontSize=12, fontWeight="bold").encode(**words)
    other = base.transform_filter("!datum.steady").mark_text(fontSize=11).encode(**words)
    return alt.layer(squares, other, steady).properties(height=210 + 34 * len(order), usermeta=CANVAS)


def teacher_heat(cells: pl.DataFrame, order: Sequence[str], ink: str) -> Layered:
    """The teacher's wrong answers in counts, true classes down; its right ones on the diagonal are text alone."""
    wrong = pl.col("true") != pl.col("answer")
    shown = cells.with_columns(errors=pl.when(wrong).then("teacher"), text=pl.col("teacher").round(0).cast(pl.Int32))
    furthest = max(float(shown["errors"].fill_null(0.0).to_numpy().max()), 1.0)
    shown = shown.with_columns(strong=pl.col("errors").fill_null(0) > 0.75 * furthest)
    scale = alt.Scale(domain=[0, furthest], range=[_NEUTRAL, MORE], interpolate="rgb")
    legend = alt.Legend(title="wrong answers", orient="top", gradientLength=180, format=".0f")
    base = _grid(shown, order)
    squares = base.transform_filter("datum.errors !== null").mark_rect().encode(
        color=alt.Color("errors:Q", scale=scale, legend=legend),
        tooltip=[alt.Tooltip("true:N"), alt.Tooltip("answer:N"),
                 alt.Tooltip("teacher:Q", title="images", format=".1f")],
    )  # fmt: skip
    colour = alt.condition("datum.strong", alt.value("#101010"), alt.value(ink))
    words = base.transform_filter("datum.text > 0").mark_text(fontSize=11).encode(text=alt.Text("text:Q"), color=colour)
    return alt.layer(squares, words).properties(height=210 + 34 * len(order), usermeta=CANVAS)


def _grid(cells: pl.DataFrame, order: Sequence[str]) -> alt.Chart:
    """Cells of the classes drawn; across they go on top, where the eye begins."""
    drawn = cells.filter(pl.col("true").is_in(list(order)) & pl.col("answer").is_in(list(order)))
    label: dict[str, Any] = {"labelLimit": 110, "labelOverlap": False}
    return alt.Chart(drawn).encode(
        x=alt.X("answer:N", sort=list(order), title="answered", axis=alt.Axis(orient="top", labelAngle=-40, **label)),
        y=alt.Y("true:N", sort=list(order), title="true class", axis=alt.Axis(**label)),
    )


def ink() -> str:
    """The colour of text over faint cells, which lets through the page's background."""
    return {"dark": "#e7e9ec", "light": "#0c0e12"}.get(st.context.theme.type or "", "#717581")


def largest(cells: pl.DataFrame) -> str:
    """The pair of different classes that changed most, in words."""
    off = cells.filter(pl.col("true") != pl.col("answer")).sort(pl.col("difference").abs(), descending=True)
    if off.is_empty() or off["difference"][0] == 0:
        return "No confusion changed."
    row = off.row(0, named=True)
    return (
        f"The largest change among errors: {row['true']} taken for {row['answer']} {row['difference']:+.1f} times "
        f"(plain {row['plain']:.1f}, student {row['student']:.1f})."
    )


def teacher_note(compared: Comparison, networks: pl.DataFrame) -> str:
    """Whose errors are inherited, where it is not the study's teacher."""
    usual = networks.filter(pl.col("role") == "teacher")["network_id"].to_list()
    others = [name for name in compared.own["teacher_id"].unique() if name not in usual]
    if not others:
        return ""
    named = networks.filter(pl.col("network_id").is_in(others))["series"].unique().to_list()
    return f" Its teacher here: {verbatim(', '.join(named))}."
