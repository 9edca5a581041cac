"""One probe image through all layers of all networks: which image, and what is drawn of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog, focus
from kdpipe.app.shared.charts import CANVAS, Layered
from kdpipe.app.shell import pick, theme
from kdpipe.app.shell.images import heat_strip, strip
from kdpipe.artifacts.store import Study
from kdpipe.errors import ArtifactError

NEIGHBOURS = 10
FEW = 12  # networks that are drawn unless more are picked
_SEEDS = 3  # of the headline, where it has more networks than FEW
_TAKEN, _RIGHT, _WRONG = "sample", "right", "wrong"
_ANSWER = 1.04  # where the column of final answers begins; the layers end at 1
_END = 1.36


# ------------------------------------------------------------------------------- which image


def pick_sample(study: Study, networks: pl.DataFrame, samples: pl.DataFrame) -> int:
    """The image in the address, or without one the image that distillation fixed most steadily.

    The buttons write a number into the address, so that a link shows the same image whatever the button was.

    Args:
        samples: sample_id, class_name, display_rank.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        of = pick.maybe_one(
            "Class", samples["class_name"].unique(maintain_order=True).sort().to_list(), "of",
            placeholder="all classes", width=200,
        )  # fmt: skip
        mine = samples if of is None else samples.filter(pl.col("class_name") == of)
        ids = mine.sort("display_rank")["sample_id"].to_list()
        sample = pick.maybe_one("Image", sorted(ids), _TAKEN, placeholder="its number", width=150)
        for name, (words, ranked) in _SHORTCUTS.items():
            st.button(name, key=f"jump-{name}", help=words, on_click=_jump, args=(ranked, study, networks, ids, sample))
    if sample is not None:
        return sample
    fixed = [found for found in _flipped("fixed")(study, networks) if found in set(ids)]
    st.caption(
        "No image is picked: this is the one that distillation fixed at most seeds." if fixed
        else "No image is picked: this is the first one."
    )  # fmt: skip
    return fixed[0] if fixed else ids[0]


def _jump(
    ranked: Callable[[Study, pl.DataFrame], list[int]], study: Study, networks: pl.DataFrame, ids: Sequence[int],
    now: int | None,
) -> None:  # fmt: skip
    """Go to the first image of a ranking that is offered; from one of them, to the next."""
    offered = set(ids)
    try:
        found = [sample for sample in ranked(study, networks) if sample in offered]
    except ArtifactError:  # the page's own parts read the same files and say what is wrong with them
        return
    if found:
        st.session_state[_TAKEN] = found[(found.index(now) + 1) % len(found) if now in found else 0]


def _shuffled(study: Study, networks: pl.DataFrame) -> list[int]:
    ids = study.frame("samples", columns=["sample_id"])["sample_id"].to_list()
    return random.sample(ids, len(ids))


def _flipped(outcome: str) -> Callable[[Study, pl.DataFrame], list[int]]:
    def ranked(study: Study, networks: pl.DataFrame) -> list[int]:
        """Images with this outcome, those first at most seeds of the headline's method and at fewest of the null."""
        head = catalog.headline(study, networks)
        own, null = head.filter(pl.col("role") == "distilled"), head.filter("null")
        who = [*own["network_id"], *null["network_id"]]
        rows = study.scan("sample_flips").filter(pl.col("network_id").is_in(who) & (pl.col("outcome") == outcome))
        times = pl.col("network_id").is_in(own["network_id"].to_list()).sum().alias("times")
        counted = rows.group_by("sample_id").agg(times, pl.len().alias("all")).filter(pl.col("times") > 0)
        found = study.collect("sample_flips", counted)
        return found.sort("times", "all", "sample_id", descending=[True, False, False])["sample_id"].to_list()

    return ranked


def disagreed(study: Study, networks: pl.DataFrame) -> list[int]:
    """Images by how much the answers of the trained students and the teacher differ (entropy), the most first."""
    who = networks.filter(catalog.TRAINED_STUDENT | (pl.col("role") == "teacher"))["network_id"].to_list()
    answers = study.scan("predictions").filter(pl.col("network_id").is_in(who)).select("sample_id", "predicted")
    counts = study.collect("predictions", answers.group_by("sample_id", "predicted").agg(times=pl.len()))
    spread = counts.group_by("sample_id").agg(entropy=pl.col("times").entropy())
    return spread.sort("entropy", "sample_id", descending=[True, False])["sample_id"].to_list()


_SHORTCUTS: Mapping[str, tuple[str, Callable[[Study, pl.DataFrame], list[int]]]] = {
    "Random": ("Any image of the class picked", _shuffled),
    "Fixed": (
        "Plain is wrong and the headline's student right: at most seeds first; press again for the next",
        _flipped("fixed"),
    ),
    "Broken": (
        "Plain is right and the headline's student wrong: at most seeds first; press again for the next",
        _flipped("broken"),
    ),
    "Hardest to agree on": (
        "The answers of students and teacher differ most; press again for the next",
        disagreed,
    ),
}


# ------------------------------------------------------------------------------- which networks


def pick_networks(study: Study, networks: pl.DataFrame) -> pl.DataFrame:
    """The headline's networks, of many the first three seeds, or those picked; in reading order."""
    able = networks.filter((pl.col("status") == "trained") | catalog.NOT_TRAINED)
    head = catalog.headline(study, able)
    if head.height > FEW:
        seeds = sorted(head.filter(catalog.STUDENT)["seed"].unique().to_list())[:_SEEDS]
        head = head.filter((pl.col("role") == "teacher") | pl.col("seed").is_in(seeds))
    usual = head["label"].to_list() or able["label"].to_list()[:FEW]
    picked = pick.several(
        "Networks", able["label"].to_list(), "networks", first=usual,
        help="At first the headline's: teacher, plain, plain from other initial weights, and its method.",
    )  # fmt: skip
    return _shortened(able.filter(pl.col("label").is_in(picked)))


def _shortened(chosen: pl.DataFrame) -> pl.DataFrame:
    """``chosen`` with labels that leave out what all of its students share: ``kd, seed 0``; for a phone's sake."""
    name = pl.when("null").then(pl.lit("second initialisation")).otherwise("series")
    short = pl.when(catalog.STUDENT).then(pl.format("{}, seed {}", name, "seed")).otherwise("label")
    shorter = chosen.with_columns(label=short)
    return chosen if shorter["label"].is_duplicated().any() else shorter


def in_colour(networks: pl.DataFrame, chosen: pl.DataFrame) -> list[str]:
    """The series of ``chosen`` that get a colour like teacher and plain: the first few."""
    able = [name for name in focus.options(networks) if name in chosen["series"].to_list()]
    return able[: theme.COLOURED_METHODS]


def fate(study: Study, networks: pl.DataFrame, sample: int) -> list[str]:
    """``kd: fixed at 3 of 3 seeds.`` for the headline's method and for plain's second initialisation."""
    head = catalog.headline(study, networks).filter((pl.col("role") == "distilled") | pl.col("null"))
    rows = study.frame("sample_flips", sample_id=sample, network_id=head["network_id"].to_list())
    rows = rows.join(head.select("network_id", "series", "null"), on="network_id", maintain_order="left")
    said = []
    for (_, series), mine in rows.sort("null").group_by("null", "series", maintain_order=True):
        counts = mine.group_by("outcome").agg(times=pl.len()).sort("times", "outcome", descending=True)
        parts = [f"{_OUTCOMES.get(outcome, outcome)} at {times}" for outcome, times in counts.rows()]
        inherited = mine["inherited"].sum()
        parts += [f"with the teacher's own error, new to it, at {inherited}"] if inherited else []
        said.append(f"{series}: {', '.join(parts)} of {mine.height} seed{'s' * (mine.height != 1)}.")
    return said


_OUTCOMES = {
    "kept": "right like plain",
    "fixed": "fixed (plain wrong, it right)",
    "broken": "broken (plain right, it wrong)",
    "wrong": "wrong like plain",
}


# ------------------------------------------------------------------------------- through the layers


def told(study: Study, chosen: pl.DataFrame, sample: int) -> pl.DataFrame:
    """The answers of the networks of ``chosen`` to the image, with label, series, role and seed, in its order."""
    rows = study.frame("predictions", sample_id=sample, network_id=chosen["network_id"].to_list())
    names = chosen.select("network_id", "label", "series", "role", "seed")
    return names.join(rows, on="network_id", how="left", maintain_order="left")


def votes(study: Study, chosen: pl.DataFrame, answers: pl.DataFrame, sample: int, view: str) -> pl.DataFrame:
    """What the nearest images of each layer vote for, a row a network and layer, first layer first.

    Returns:
        label, series, network_id, layer, order, relative_depth, count (of its layers), vote (class name),
        verdict, silhouette, settled (from here on all votes are the final answer).
    """
    who = chosen["network_id"].to_list()
    here = pl.col("network_id").is_in(who) & (pl.col("sample_id") == sample) & (pl.col("view") == view)
    columns = ["network_id", "layer", "silhouette", "knn_vote", "knn_correct"]
    rows = study.frame("sample_measures", here, columns=columns)
    layers = study.frame("layers", network_id=who, view=view).select("network_id", "layer", "order", "relative_depth")
    names = study.record["data"]["class_names"]
    rows = (
        answers.select("network_id", "label", "series", "predicted")
        .join(layers, on="network_id", maintain_order="left")
        .join(rows, on=["network_id", "layer"], maintain_order="left")
        .sort("order", maintain_order=True)
    )
    same = (pl.col("knn_vote") == pl.col("predicted")).fill_null(False)
    return rows.with_columns(
        count=pl.len().over("network_id"),
        place=pl.col("order").rank("ordinal").over("network_id") - 1,
        vote=pl.col("knn_vote").replace_strict(dict(enumerate(names)), default=None, return_dtype=pl.String),
        verdict=pl.when("knn_correct").then(pl.lit(_RIGHT)).otherwise(pl.lit(_WRONG)),
        settled=same.cum_min(reverse=True).over("network_id"),
    )


def settled_at(rows: pl.DataFrame) -> dict[str, str]:
    """The first layer of each network (by label) from which all votes are its final answer; absent where none is."""
    first = rows.filter("settled").group_by("label", maintain_order=True).agg(pl.col("layer").first())
    return dict(first.rows())


def layer_strips(rows: pl.DataFrame, answers: pl.DataFrame, names: Sequence[str]) -> Layered:
    """A row a network, a cell a layer with what its neighbours vote for, and the final answer at the right.

    Args:
        rows: of :func:`votes`.
        answers: of :func:`told`.
    """
    cells = rows.select(
        "label", "layer", "vote", "verdict", "silhouette", "count",
        start=pl.col("place") / pl.col("count"), end=(pl.col("place") + 1) / pl.col("count"),
        first=pl.col("settled") & ~pl.col("settled").shift(1, fill_value=False).over("label"),
        text=_marked("vote", "verdict"),
    )  # fmt: skip
    last = answers.filter(pl.col("predicted").is_not_null()).select(
        "label", "confidence", layer=pl.lit("final answer"),
        vote=pl.col("predicted").replace_strict(dict(enumerate(names)), default=None, return_dtype=pl.String),
        verdict=pl.when("correct").then(pl.lit(_RIGHT)).otherwise(pl.lit(_WRONG)),
        start=pl.lit(_ANSWER), end=pl.lit(_END), count=pl.lit(1 / (_END - _ANSWER)),
    )  # fmt: skip
    last = last.with_columns(
        text=pl.format("{} · {}%", _marked("vote", "verdict"), (100 * pl.col("confidence")).round(0).cast(pl.Int32))
    )
    drawn = pl.concat([cells.with_columns(pl.col("count").cast(pl.Float64)), last], how="diagonal")
    order = answers["label"].to_list()
    axis = alt.Axis(labelLimit=230, labelOverlap=False, ticks=False, domain=False)
    scale = alt.Scale(domain=[0, _END], nice=False)
    depths = alt.Axis(
        values=[0.02, 0.5, 0.98, (_ANSWER + _END) / 2], orient="top", grid=False, ticks=False, domain=False,
        labelExpr="datum.value < 0.1 ? 'first layer' : datum.value < 0.6 ? 'depth →' : datum.value < 1 ? "
        "'last layer' : 'final answer'", labelAlign={"expr": "datum.value < 0.1 ? 'left' : datum.value > 0.9 && "
        "datum.value < 1 ? 'right' : 'center'"}, labelOverlap="greedy",
    )  # fmt: skip
    x = alt.X("start:Q", title=None, scale=scale, axis=depths)
    colour = alt.Color(
        "verdict:N", title=None, scale=alt.Scale(domain=[_RIGHT, _WRONG], range=[theme.RIGHT, theme.WRONG]),
        legend=alt.Legend(orient="top", symbolType="square"),
    )  # fmt: skip
    tooltip: list[Any] = [
        alt.Tooltip("label:N", title="network"), alt.Tooltip("layer:N"), alt.Tooltip("vote:N", title="answer"),
        alt.Tooltip("verdict:N"),
        alt.Tooltip("silhouette:Q", format="+.2f"), alt.Tooltip("confidence:Q", format=".1%"),
    ]  # fmt: skip
    base = alt.Chart(drawn).encode(y=alt.Y("label:N", sort=order, title=None, axis=axis), tooltip=tooltip)
    squares = base.mark_rect(height={"band": 0.88}).encode(x=x, x2=alt.X2("end:Q"), color=colour)
    on_cell = alt.condition(f"datum.verdict === '{_WRONG}'", alt.value("#ffffff"), alt.value("#101010"))
    fits = {"expr": f"width / ({_END} * datum.count) - 6"}
    words = base.transform_calculate(middle="(datum.start + datum.end) / 2").mark_text(fontSize=11, limit=fits)
    words = words.encode(x=alt.X("middle:Q", scale=scale), text=alt.Text("text:N"), color=on_cell)
    # A white edge keeps the mark apart from red cells.
    marks = [
        base.transform_filter("datum.first").mark_tick(
            orient="vertical", thickness=thickness, color=colour, height={"band": 0.98}, xOffset=3
        )
        for thickness, colour in ((9, "#ffffff"), (5, theme.MARKED))
    ]
    height = 110 + 27 * len(order)
    return alt.layer(squares, words, *(mark.encode(x=x) for mark in marks)).properties(height=height, usermeta=CANVAS)


def _marked(name: str, verdict: str) -> pl.Expr:
    """A class name behind a sign for right or wrong, so that neither is told by colour alone."""
    sign = pl.when(pl.col(verdict) == _RIGHT).then(pl.lit("✓ ")).otherwise(pl.lit("✗ "))
    return sign + pl.col(name)


def in_words(rows: pl.DataFrame, answers: pl.DataFrame, truth: str) -> str:
    """How many networks are right in the end, and at which depth each series settles on its answer, on average."""
    done = answers.filter(pl.col("predicted").is_not_null())
    if done.is_empty():
        return f"Each layer's vote for {truth} or another class; no network's own answer is known."
    said = f"{done['correct'].sum()} of {done.height} networks answer {truth} in the end."
    first = rows.filter("settled").group_by("label", "series", maintain_order=True).agg(pl.col("relative_depth").min())
    first = done.select("label", "correct").join(first, on="label", maintain_order="left")
    by = ["series", "correct"]
    means = first.group_by(by, maintain_order=True).agg(pl.col("relative_depth").mean(), count=pl.len())
    of = dict(done.group_by("series").len().rows())
    parts = [
        f"{series} at depth {depth:.0%} ({_RIGHT if correct else _WRONG} answer"
        + (f", {count} of {of[series]} networks)" if of[series] > 1 else ")")
        for series, correct, depth, count in means.rows()
    ]
    return f"{said} The layers' votes settle on the final answer: {', '.join(parts) if parts else 'nowhere'}."


def as_curves(rows: pl.DataFrame) -> pl.DataFrame:
    """The image's silhouette by depth as rows of :func:`kdpipe.app.shared.charts.depth_curves`."""
    drawn = rows.filter(pl.col("silhouette").is_not_null())
    return drawn.select(
        "series", "label", "network_id", "layer", "relative_depth", value="silhouette", chance=pl.lit(None, pl.Float32)
    )


# ------------------------------------------------------------------------------- what lies near, and where it looks


def neighbour_layers(study: Study, mapped: pl.DataFrame, view: str) -> pl.DataFrame:
    """The layers by which the neighbours are picked: those of the students that are mapped; see catalog.columns_of."""
    layers = study.frame("layers", network_id=mapped["network_id"].to_list(), view=view)
    students = mapped.filter(catalog.STUDENT)["network_id"].to_list()
    return catalog.columns_of(layers, students or mapped["network_id"].to_list())


def neighbours(
    study: Study, mapped: pl.DataFrame, samples: pl.DataFrame, sample: int, column: Mapping[str, Any], view: str
) -> list[tuple[str, str, str]]:
    """Of each mapped network: its label, words about its nearest images, and these as HTML.

    Args:
        samples: sample_id, class_name, image.
        column: a row of :func:`neighbour_layers`.
    """
    layers = study.frame("layers", network_id=mapped["network_id"].to_list(), view=view)
    near = {who: catalog.nearest_layer(layers, who, column["place"], column["count"]) for who in mapped["network_id"]}
    rows = study.frame(
        "neighbours", sample_id=sample, view=view, network_id=mapped["network_id"].to_list(),
        layer=sorted({layer for layer in near.values() if layer}),
    )  # fmt: skip
    truth = samples.row(by_predicate=pl.col("sample_id") == sample, named=True)["class_name"]
    ids = {
        (row["network_id"], row["layer"]): [int(one) for one in row["ids"][:NEIGHBOURS]]
        for row in rows.iter_rows(named=True)
    }
    teachers = mapped.filter(pl.col("role") == "teacher")["network_id"].to_list()
    teacher = next((set(ids[who, near[who]]) for who in teachers if (who, near[who]) in ids), None)
    made = []
    for who, label in mapped.select("network_id", "label").rows():
        mine = ids.get((who, near[who]))
        if mine is None:
            continue
        found = pl.DataFrame({"sample_id": mine}, schema={"sample_id": pl.Int32})
        found = found.join(samples, on="sample_id", how="left", maintain_order="left")
        same = (found["class_name"] == truth).sum()
        shared = "" if teacher is None or who in teachers else f", {len(teacher & set(mine))} are the teacher's too"
        figures = [
            (image, f"{'✓' if name == truth else '✗'} {name}", theme.RIGHT if name == truth else theme.WRONG)
            for name, image in found.select("class_name", "image").rows()
        ]
        made.append((label, f"at {near[who]}: {same} of {len(mine)} are of its class{shared}", strip(figures)))
    return made


def heat_maps(study: Study, chosen: pl.DataFrame, sample: int, image: bytes) -> tuple[str, pl.DataFrame, int] | None:
    """Where each network of ``chosen`` looks for the teacher's answer: HTML, the cosines, the class explained."""
    found = study.frame("explanations", sample_id=sample, network_id=chosen["network_id"].to_list())
    rows = chosen.select("network_id", "label").join(found, on="network_id", maintain_order="left")
    if rows.is_empty():
        return None
    figures = (
        (image, row["heatmap"], row["side"], f"{row['label']}: {alike(row['cosine'])}") for row in rows.rows(named=True)
    )
    return heat_strip(figures), rows.select("label", "cosine"), int(rows["class_index"][0])


def alike(cosine: float | None) -> str:
    """The cosine of a heat-map with the teacher's in words; one that is blank has none."""
    return "no evidence anywhere" if cosine is None else f"cosine {cosine:.2f}"
