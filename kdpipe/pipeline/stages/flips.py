"""The stage that counts what a student fixed, broke and inherited."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.measures import flip_ledger, flip_outcomes, inherited
from kdpipe.pipeline.stages.embeddings import Labels
from kdpipe.pipeline.stages.predictions import read_answers

FLIPS, SAMPLE_FLIPS = "flips.parquet", "sample_flips.parquet"


@stage("flips", takes=("probe", "teacher", "plain", "own"))
def make_flips(task: Task, context: Context) -> None:
    """A student's answers against those of plain of its seed and of its teacher: counts, and every image's outcome."""
    labels = np.load(task.inputs["probe"] / "labels.npy")
    teacher, plain, own = (read_answers(task.inputs[which]) for which in ("teacher", "plain", "own"))
    pl.DataFrame(ledgers(teacher, plain, own, labels), infer_schema_length=None).write_parquet(task.folder / FLIPS)
    pl.DataFrame(
        {
            "sample_id": np.arange(len(labels), dtype=np.int32),
            "outcome": flip_outcomes(plain, own, labels),
            "teacher_correct": teacher == labels,
            "inherited": inherited(teacher, plain, own, labels),
        }
    ).write_parquet(task.folder / SAMPLE_FLIPS)


def ledgers(teacher: Labels, plain: Labels, own: Labels, labels: Labels) -> list[dict[str, Any]]:
    """The ledger of all images, and that of each class."""
    groups: list[tuple[int | None, Any]] = [(None, np.ones(len(labels), bool))]
    groups += [(int(label), labels == label) for label in np.unique(labels)]
    return [
        {"label": label, **flip_ledger(teacher[rows], plain[rows], own[rows], labels[rows])} for label, rows in groups
    ]
