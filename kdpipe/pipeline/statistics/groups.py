"""Students of a study that differ in their seed alone, and whom they are held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from kdpipe.artifacts.schema import TABLES
from kdpipe.vocabulary import CONTROL, STUDENT_ROLES, TEACHER_ARCHITECTURE

Frames = Mapping[str, pl.DataFrame]
CELL = ("student", "budget_id")  # nothing else is comparable
STUDENT = pl.col("role").is_in(list(STUDENT_ROLES)) & (pl.col("student") != TEACHER_ARCHITECTURE)
TRAINED = STUDENT & (pl.col("status") == "trained")


def second_start(frames: Frames) -> pl.Expr:
    """Whether a network is plain again from other initial weights: what chance alone moves."""
    null = frames["methods"].filter("null")["method"].to_list()
    return (pl.col("role") == CONTROL) & pl.col("method").is_in(null)


@dataclass(frozen=True)
class Trios:
    """One kind of student at some of its seeds, each with plain of its seed and its teacher.

    Attributes:
        place: the columns student, method_label, label_fraction, budget_id, and seed: the one seed, or None for all.
        rows: seed, network_id, plain_id and teacher_id, a row a seed.
        second_start: the same of plain's second start at these seeds; none where it has none, or is it itself.
    """

    place: Mapping[str, Any]
    rows: pl.DataFrame
    second_start: pl.DataFrame


def trios_of(frames: Frames) -> Iterator[Trios]:
    """Every kind of student with flips: all its seeds together, then each by itself where there are several."""
    ids = ["network_id", "plain_id", "teacher_id"]
    compared = frames["flips"].filter(pl.col("label").is_null()).select(ids)
    named = frames["networks"].select(
        "network_id", *CELL, "method_label", "label_fraction", "seed", null=second_start(frames)
    )
    rows = named.join(compared, on="network_id", maintain_order="left").sort("seed", maintain_order=True)
    for (student, budget), cell in rows.group_by(CELL, maintain_order=True):
        null = cell.filter("null").select("seed", *ids)
        for (label,), mine in cell.group_by(["method_label"], maintain_order=True):
            place = placed(student, label, budget, cell["label_fraction"][0])
            own, again = mine.select("seed", *ids), null if not mine["null"].any() else null.clear()
            for seed in (None, *(own["seed"] if own.height > 1 else ())):
                chosen = own if seed is None else own.filter(pl.col("seed") == seed)
                yield Trios(
                    {**place, "seed": seed}, chosen, again.filter(pl.col("seed").is_in(chosen["seed"].to_list()))
                )


def placed(student: object, method_label: object, budget: object, label_fraction: float) -> dict[str, Any]:
    """The columns that say which students a row is of."""
    return {
        "student": student,
        "method_label": method_label,
        "budget_id": budget,
        "label_fraction": label_fraction,
    }


def typed(name: str, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as the table of this name; what a row does not say is empty."""
    schema = TABLES[name].schema
    return pl.DataFrame([{column: row.get(column) for column in schema} for row in rows], schema=schema)
