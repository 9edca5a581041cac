"""Flips on their way to artifacts: each student's answers beside those of plain of its seed and of its teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from kdpipe.engine.cache import Cache
from kdpipe.measures import flip_ledger, flip_outcomes, inherited
from kdpipe.pipeline.analysis_plan import Analysis
from kdpipe.pipeline.stages.embeddings import Labels
from kdpipe.pipeline.training_plan import Training


def flip_tables(training: Training, analysis: Analysis, cache: Cache) -> dict[str, pl.DataFrame]:
    """Counts for each student, over all classes and for each, and what became of every image."""
    labels = np.load(cache.path(training.probe) / "labels.npy")
    done = {name: stage for name, stage in analysis.embeddings.items() if cache.has(stage)}
    chosen = [trio for trio in analysis.flips if set(trio) <= done.keys()]
    answers = {
        name: np.load(cache.path(done[name]) / "logits.npy").argmax(axis=1)
        for name in dict.fromkeys(name for trio in chosen for name in trio)
    }
    counts: list[dict[str, Any]] = []
    images: list[pl.DataFrame] = []
    for own, plain, teacher in chosen:
        place = {"network_id": own, "plain_id": plain, "teacher_id": teacher}
        said = [answers[name] for name in (teacher, plain, own)]
        counts += [{**place, **row} for row in _ledgers(said, labels)]
        images.append(_images(said, labels).with_columns(pl.lit(value).alias(name) for name, value in place.items()))
    return {
        "flips": pl.DataFrame(counts, infer_schema_length=None),
        "sample_flips": pl.concat(images) if images else pl.DataFrame(),
    }


def _ledgers(said: list[Labels], labels: Labels) -> list[dict[str, Any]]:
    """The ledger of all images, and that of each class."""
    teacher, plain, own = said
    groups: list[tuple[int | None, Any]] = [(None, np.ones(len(labels), bool))]
    groups += [(int(label), labels == label) for label in np.unique(labels)]
    return [
        {"label": label, **flip_ledger(teacher[rows], plain[rows], own[rows], labels[rows])} for label, rows in groups
    ]


def _images(said: list[Labels], labels: Labels) -> pl.DataFrame:
    teacher, plain, own = said
    return pl.DataFrame(
        {
            "sample_id": np.arange(len(labels), dtype=np.int32),
            "outcome": flip_outcomes(plain, own, labels),
            "teacher_correct": teacher == labels,
            "inherited": inherited(teacher, plain, own, labels),
        }
    )
