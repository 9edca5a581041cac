"""What distillation gained: each network against the plain student of its own seed, in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog
from kdpipe.vocabulary import LEAST_SEEDS

_PAIR = ["student", "budget_id", "seed"]
# What seeds are averaged over.
KIND = ("rank", "role", "null", "student", "series", "budget_id", "label_fraction", "budget")


def pairs(networks: pl.DataFrame) -> pl.DataFrame:
    """Gain over plain in points of test accuracy, a row a network.

    A pair is a network and the plain student of the same student, budget and seed (so of the
    same labels and batches). A network whose partner diverged is in no pair, and shifts no mean. Other
    teachers and checkpoints are no students, so they are in no pair either.

    Returns:
        rank, role, null, student, series, budget_id, label_fraction, budget, seed, gain.
    """
    done = networks.filter(catalog.TRAINED_STUDENT & pl.col("test_accuracy").is_not_null())
    plain = done.filter(pl.col("role") == "plain").unique(_PAIR, keep="first", maintain_order=True)
    both = done.filter(pl.col("role") != "plain").join(plain.select(*_PAIR, plain="test_accuracy"), on=_PAIR)
    gain = 100 * (pl.col("test_accuracy").cast(pl.Float64) - pl.col("plain").cast(pl.Float64))
    return both.select(*KIND, "seed", gain=gain)


def over_seeds(each: pl.DataFrame) -> pl.DataFrame:
    """Mean, lowest and highest over the pairs of each student, budget and method; the highest mean first.

    Args:
        each: rows as of :func:`pairs`, of any quantity.

    Returns:
        rank, role, null, student, series, budget_id, label_fraction, budget, gain (the mean), lowest, highest, pairs.
    """
    gain = pl.col("gain")
    return (
        each.group_by(KIND, maintain_order=True)
        .agg(gain=gain.mean(), lowest=gain.min(), highest=gain.max(), pairs=pl.len())
        .sort("student", "label_fraction", "gain", descending=[False, False, True], maintain_order=True)
    )


def paired(networks: pl.DataFrame) -> pl.DataFrame:
    """:func:`over_seeds` of the :func:`pairs` in test accuracy."""
    return over_seeds(pairs(networks))


def in_words(gains: pl.DataFrame, headline: Sequence[str] = ()) -> str:
    """The gains of one student and budget, methods first, and what the control's range means.

    Args:
        gains: rows of :func:`paired`.
        headline: series that are named even where there are too many to name all.
    """
    if gains.is_empty():
        return "No network here has a plain student of its own seed to be compared with, so there is no gain to show."
    methods, chance = gains.filter(pl.col("role") == "distilled"), gains.filter("null")
    said = [
        "Each network is compared with the plain student **of its own seed** (same labels, same batches)"
        + (f": {_methods(methods, headline)}." if methods.height else ".")
    ]
    if chance.is_empty():
        said.append("Plain was not trained again from other initial weights, so nothing tells how much that moves.")
    else:
        said.append(
            "The control is the plain student of the same seed again, **from other initial weights**: "
            f"{'; '.join(map(_one, chance.rows(named=True)))}. Its range over seeds is what another initialisation "
            "alone moves in one run: **one run's gain inside that range could be luck**; what a mean over seeds "
            "says is judged on the page of evidence. "
            "Two plain students of different seeds differ in more: in initial weights, batches and which images are "
            "labelled."
        )
    return " ".join(said)


def _methods(methods: pl.DataFrame, headline: Sequence[str]) -> str:
    """Every method where they are few; of many the headline's, the highest and the lowest."""
    rows = list(methods.rows(named=True))
    if len(rows) <= catalog.MOST_NAMED:
        return "; ".join(map(_one, rows))
    named = [(row, "the headline") for row in rows if row["series"] in headline]
    named += [(rows[0], f"the highest mean of {len(rows)} methods, which is in part luck"), (rows[-1], "the lowest")]
    what: dict[str, list[str]] = {}
    for row, said in named:
        what.setdefault(_one(row), []).append(said)
    return "; ".join(f"{one} ({', '.join(said)})" for one, said in what.items())


def _one(row: dict[str, object]) -> str:
    pairs = row["pairs"]
    spread = f" on average, from {row['lowest']:+.1f} to {row['highest']:+.1f} over {pairs} seeds"
    return f"**{row['series']}** {row['gain']:+.1f} points{' (1 seed)' if pairs == 1 else spread}"


def tiles(summary: pl.DataFrame, gains: pl.DataFrame) -> None:
    """A tile a network kind: mean test accuracy and the mean paired gain over plain.

    Args:
        summary: rows of :func:`kdpipe.app.shared.catalog.accuracies`.
        gains: rows of :func:`paired` for the same student and budget.
    """
    if summary.is_empty():
        return
    gained = dict(gains.select("series", "gain").rows())
    pairs = dict(gains.select("series", "pairs").rows())
    counts = dict(summary.group_by("role").len().rows())
    for place, row in zip(st.columns(summary.height), summary.iter_rows(named=True), strict=True):
        series, role = row["series"], row["role"]
        alone = role in ("teacher", "plain", "control") and counts[role] == 1
        gain = gained.get(series)
        of = "one network" if row["seeds"] == 1 else f"mean of {row['seeds']} seeds"
        with place:
            st.metric(
                role.capitalize() if alone else f"{role.capitalize()}: {series}",
                f"{row['mean']:.1%}",
                None if gain is None else f"{gain:+.1f} vs plain",
                delta_color="off" if role == "control" else "normal",
                help=f"{series}: test accuracy, {row['budget']}, {of}."
                + (
                    "" if gain is None else f" Below: mean gain in points over plain, paired by seed ({pairs[series]})."
                ),
                border=True,
                height="stretch",
            )


def caption(summary: pl.DataFrame) -> str:
    """What the tiles stand for: budget and seeds of the students, and apart from them the teacher's."""
    students = summary.filter(pl.col("role") != "teacher")
    teacher = summary.filter(pl.col("role") == "teacher")
    said = ["Test accuracy at the last step."]
    if students.height:
        kinds = (
            f"{row['series']} {row['lowest']:.1%} to {row['highest']:.1%} ({row['seeds']} seeds)"
            if row["seeds"] > 1
            else f"{row['series']} 1 seed"
            for row in students.rows(named=True)
        )
        said.append(f"Students: {students['budget'][0]}, mean over seeds; lowest to highest seed: {'; '.join(kinds)}.")
    if teacher.height:
        count = int(teacher["seeds"].sum())
        said.append(f"Teacher: {teacher['budget'][0]}, {'one network' if count == 1 else f'{count} networks'}.")
    return " ".join(said)


def few_seeds(gains: pl.DataFrame) -> None:
    """Say that the numbers are estimates, where they are."""
    pairs = int(gains["pairs"].min() or 0) if gains.height else 0  # type: ignore[arg-type]
    if 0 < pairs < LEAST_SEEDS:
        st.info(
            f"With {pairs} paired seed{'s' * (pairs != 1)} these are estimates. "
            f"A verdict needs at least {LEAST_SEEDS} paired seeds.", icon=":material/balance:",
        )  # fmt: skip
