"""Which networks and layers belong side by side, and what they are called. Frames in, frames out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from kdpipe import vocabulary
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study
from kdpipe.errors import ArtifactError
from kdpipe.relative_depth import nearest_place
from kdpipe.vocabulary import (
    CHECKPOINT,
    CONTROL,
    CONTROL_TEACHER,
    DISTILLED,
    PIXELS,
    PLAIN,
    ROLES,
    STUDENT_ROLES,
    TEACHER,
    UNTRAINED,
    budget_in_words,
)

VIEWS = {view: f"{words} ({view})" for view, words in vocabulary.VIEWS.items()}
# A study's one teacher has that role; teachers of controls, and students on their way, are no students.
OTHER_TEACHER = pl.col("role") == CONTROL_TEACHER
STUDENT = pl.col("role").is_in(STUDENT_ROLES)
TRAINED_STUDENT = STUDENT & (pl.col("status") == "trained")
NOT_TRAINED = pl.col("role") == UNTRAINED  # a student's initial weights, or the raw pixels
MOST_NAMED = 6  # more methods are counted in a sentence, not named


def networks(study: Study) -> pl.DataFrame:
    """All networks in reading order, with what pages call them.

    Returns:
        The networks table and series (one colour each), budget (in words), a unique label, rank (of the role) and
        null (whether it is plain again from other initial weights: what chance moves).
    """
    frame = study.networks
    fractions = frame["label_fraction"].to_list()
    frame = frame.with_columns(
        pl.Series("budget", [budget_in_words(fraction) for fraction in fractions], pl.String),
        null=(pl.col("role") == CONTROL) & pl.col("method").is_in(_nulls(study)),
    )
    frame = frame.with_columns(
        series=_series(_titles(study)),
        rank=pl.col("role").replace_strict({role: i for i, role in enumerate(ROLES)}, return_dtype=pl.Int64),
    )
    several = frame.filter(STUDENT)["student"].n_unique() > 1
    student = pl.concat_str(pl.col("student"), pl.lit(" ")) if several else pl.lit("")
    frame = frame.with_columns(
        label=pl.when((pl.col("role") == TEACHER) | (pl.col("student") == PIXELS)).then("series")
        .when(NOT_TRAINED).then(pl.concat_str(student, "series"))
        .when(OTHER_TEACHER & (pl.col("label_fraction") == 0)).then("series")
        .when(OTHER_TEACHER).then(pl.concat_str("series", pl.lit(", seed "), "seed"))
        .otherwise(pl.concat_str(student, "series", pl.lit(", "), "budget", pl.lit(", seed "), "seed"))
    )  # fmt: skip
    unique = pl.when(pl.col("label").is_duplicated()).then(pl.concat_str("label", pl.lit(" · "), "network_id"))
    on_its_way = pl.when(pl.col("role") == CHECKPOINT).then("checkpoint_step").otherwise(0)
    return frame.with_columns(label=unique.otherwise("label")).sort(
        "rank", "student", "label_fraction", on_its_way, ~pl.col("null"), "series", "seed", maintain_order=True
    )


def _series(titles: dict[str, str]) -> pl.Expr:
    """What a configuration is called; a control by its method's title, with what its label adds."""
    title, added = pl.col("method").replace(titles), pl.col("method_label").str.strip_prefix(pl.col("method"))
    control = pl.concat_str(title, pl.lit(" ("), added.str.strip_chars_start("-"), pl.lit(")"))
    step = pl.col("checkpoint_step").cast(pl.String)
    return (
        pl.when(pl.col("role") == TEACHER).then(pl.lit("teacher"))
        .when(NOT_TRAINED & (pl.col("student") == PIXELS)).then(pl.lit("raw pixels"))
        .when(NOT_TRAINED).then(pl.lit("untrained student"))
        .when(OTHER_TEACHER & (pl.col("label_fraction") == 0)).then(pl.lit("untrained teacher"))
        .when(OTHER_TEACHER).then(pl.concat_str(pl.lit("teacher on "), "budget"))
        .when(pl.col("role") == CHECKPOINT).then(pl.concat_str("method_label", pl.lit(" at step "), step))
        .when((pl.col("role") == CONTROL) & (added == "")).then(title)
        .when(pl.col("role") == CONTROL).then(control)
        .otherwise("method_label")
    )  # fmt: skip


def _nulls(study: Study) -> list[str]:
    """Methods that are plain again from other initial weights; without a readable table none is known."""
    try:
        return study.methods.filter("null")["method"].to_list()
    except ArtifactError:
        return []


def _titles(study: Study) -> dict[str, str]:
    """What methods are called inside a sentence; without a readable table their registry names serve."""
    try:
        named = study.methods.select("method", "title").rows()
    except ArtifactError:
        return {}
    return {method: in_sentence(title) for method, title in named}


def in_sentence(title: str) -> str:
    """A title without its capital, unless the first word has others: ``KD from …``, ``FitNet hints``."""
    first = title.split(" ")[0]
    return title if first[1:] != first[1:].lower() else title[:1].lower() + title[1:]


def view_in_words(view: str) -> str:
    """How a layer's output became a vector, in words."""
    return VIEWS.get(view, view)


def series_of(frame: pl.DataFrame) -> list[tuple[str, str]]:
    """(role, series) pairs in reading order; what colours are given to."""
    return frame.select("role", "series").unique(maintain_order=True).rows()


def headline(study: Study, frame: pl.DataFrame) -> pl.DataFrame:
    """The networks of the study's headline comparison (all seeds), without those that diverged.

    They are the teacher, plain, plain from other initial weights, and one method: for one student and budget.
    """
    wanted = study.record.get("headline") or {}
    trained = frame.filter(pl.col("status") == "trained")
    students = trained.filter(STUDENT)
    if students.filter(pl.col("student") == wanted.get("student", "")).height:
        students = students.filter(pl.col("student") == wanted["student"])
    if students.height:
        far = (pl.col("label_fraction") - wanted.get("label_fraction", 1.0)).abs()
        students = students.filter(budget_id=students.sort(far)["budget_id"][0])
    label = wanted.get("method_label") or wanted.get("method", "")
    distilled = students.filter(role=DISTILLED)["method_label"].to_list()
    if label not in students["method_label"].to_list() and distilled:
        label = distilled[0]
    kept = students.filter((pl.col("role") == PLAIN) | pl.col("null") | (pl.col("method_label") == label))
    return pl.concat([trained.filter(role=TEACHER), kept])


def headline_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of the first picture: teacher, plain, plain again from another seed, distilled."""
    mapped = frame.filter("mapped")
    picks = [(TEACHER, 1), (PLAIN, 2), (DISTILLED, 1)]
    parts = [mapped.filter(pl.col("role") == role).sort("seed").head(count) for role, count in picks]
    return pl.concat(parts)


def accuracies(frame: pl.DataFrame) -> pl.DataFrame:
    """Mean and spread of the test accuracy over seeds, for each student, method and label budget."""
    accuracy = pl.col("test_accuracy")
    return (
        frame.filter(accuracy.is_not_null())
        .group_by("rank", "role", "student", "series", "label_fraction", "budget", maintain_order=True)
        .agg(
            mean=accuracy.mean(),
            lowest=accuracy.min(),
            highest=accuracy.max(),
            deviation=accuracy.std(),
            seeds=pl.len(),
        )
        .sort("rank", "student", "label_fraction", "series")
    )


def columns_of(layers: pl.DataFrame, chosen: Sequence[str]) -> pl.DataFrame:
    """The layers that students of ``chosen`` have, by depth: what the columns of a picture are.

    Returns:
        layer, relative_depth, place (0 is the first layer) and count (of the network's layers).
    """
    mine = layers.filter(pl.col("network_id").is_in(list(chosen)))
    if mine.is_empty():
        mine = layers
    first = mine["network_id"][0] if mine.height else None
    return (
        mine.filter(pl.col("network_id") == first)
        .select("layer", "relative_depth", "order")
        .unique("layer", maintain_order=True)
        .sort("order")
        .select("layer", "relative_depth", place=pl.int_range(pl.len()), count=pl.len())
    )


def layers_in_order(layers: pl.DataFrame) -> dict[str, list[str]]:
    """Each network's layers, first to last, whatever views they are in."""
    ordered = layers.sort("network_id", "order").unique(["network_id", "layer"], keep="first", maintain_order=True)
    return dict(ordered.group_by("network_id", maintain_order=True).agg("layer").rows())


def nearest_layer(layers: pl.DataFrame, network_id: str, place: int, count: int) -> str | None:
    """The layer of a network that stands in a column: nearest in depth to layer ``place`` of ``count``."""
    mine = layers_in_order(layers.filter(pl.col("network_id") == network_id)).get(network_id)
    return mine[nearest_place(place, count, len(mine))] if mine else None


def study_in_words(study: Study, frame: pl.DataFrame) -> str:
    """One paragraph: dataset, teacher, students, methods, budgets, seeds, and what else there is."""
    data: dict[str, Any] = study.record.get("data") or {}
    students = frame.filter(STUDENT)
    teachers = _architectures(frame.filter(role=TEACHER))
    archs = _architectures(students)
    methods = students.filter(role=DISTILLED)["series"].unique(maintain_order=True).to_list()
    named = _listed([verbatim(name) for name in methods]) if len(methods) <= MOST_NAMED else f"{len(methods)} methods"
    budgets = _listed(students.sort("label_fraction")["budget"].unique(maintain_order=True).to_list())
    seeds = students.filter(pl.col("status") == "trained")["seed"].n_unique()
    size = " by ".join(str(n) for n in (data.get("image_shape") or [])[1:])
    return (
        f"Images: **{verbatim(str(data.get('dataset', 'unknown')))}** ({len(data.get('class_names', []))} classes"
        f"{f', {size} pixels' if size else ''}; {data.get('train', '?')} to train, {data.get('test', '?')} to test, "
        f"of which {data.get('probe', '?')} probe images are followed through every layer). "
        f"Teacher: **{teachers or 'none'}**. Student: **{archs or 'none'}**, plain and distilled with "
        f"**{named or 'no method'}**, on {budgets or 'no labels'}"
        f"{f', with {seeds} seed' + 's' * (seeds != 1) + ' each' if seeds else ''}.{_others(frame)}"
    )


def _others(frame: pl.DataFrame) -> str:
    """The networks that are neither teacher, plain, its second initialisation nor distilled, counted in a sentence."""
    controls = frame.filter((pl.col("role") == CONTROL) & ~pl.col("null"))["series"].n_unique()
    counts = {
        "other control": controls,
        "other teacher": frame.filter(OTHER_TEACHER).height,
        "student on its way": frame.filter(role=CHECKPOINT).height,
        "untrained student": frame.filter(NOT_TRAINED & (pl.col("student") != PIXELS)).height,
    }
    plural = {"student on its way": "students on their way"}
    said = [f"{n} {what if n == 1 else plural.get(what, what + 's')}" for what, n in counts.items() if n]
    return f" Besides these: {_listed(said)}." if said else ""


def _architectures(frame: pl.DataFrame) -> str:
    """Architectures with their size, where it is known: one timm name may stand for networks of several widths."""
    kinds = frame.select("arch", "params").unique(maintain_order=True).rows()
    return _listed(
        [verbatim(arch) + (f" ({params / 1e6:.3g} M parameters)" if params else "") for arch, params in kinds]
    )


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""
