"""The stage that measures how far two networks answer alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.measures import MEASURES, flips
from kdpipe.pipeline.stages.predictions import read_answers
from kdpipe.seeds import derive_seed

ANSWERS = "answers.parquet"


@stage("answers", takes=("probe", "own", "other"))
def make_answers(task: Task, context: Context) -> None:
    """Measures of a network's answers beside another's, each with its chance, and the shares of what became of them."""
    labels = np.load(task.inputs["probe"] / "labels.npy")
    own, other = (read_answers(task.inputs[which]) for which in ("own", "other"))
    right = other == labels
    arrays = {"a": own, "b": other, "correct_a": own == labels, "correct_b": right}
    shuffle = np.random.default_rng(derive_seed("shuffled answers")).permutation(len(labels))
    moved = {**arrays, "b": other[shuffle], "correct_b": right[shuffle]}
    rows: list[dict[str, Any]] = []
    for measure in (MEASURES[name] for name in task.stage.params["names"]):
        value = measure.function(*(arrays[name] for name in measure.takes))
        chance = measure.known_chance(labels)
        if measure.chance == "shuffled":
            chance = measure.function(*(moved[name] for name in measure.takes))
        rows.append({"measure": measure.name, "value": value, "chance": chance})
    shares = flips(other, own, labels).shares
    rows += [{"measure": name, "value": value, "chance": None} for name, value in shares.items()]
    schema = {"measure": pl.String, "value": pl.Float32, "chance": pl.Float32}
    pl.DataFrame(rows, schema=schema).write_parquet(task.folder / ANSWERS)
