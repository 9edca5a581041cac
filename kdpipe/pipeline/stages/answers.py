"""The stages that compare two networks' answers: one stage a measure, and what became of the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.measures import MEASURES, flips
from kdpipe.pipeline.stages.predictions import read_answers
from kdpipe.seeds import derive_seed

MEASURED, SHARES = "measured.parquet", "shares.parquet"
_SCHEMA = {"measure": pl.String, "value": pl.Float32, "chance": pl.Float32}


@stage("answers-measure", takes=("probe", "own", "other"), title="comparing answers", light=True)
def make_answers_measure(task: Task, context: Context) -> None:
    """One measure of a network's answers against another's, and its chance."""
    measure = MEASURES[task.stage.params["measure"]]
    labels = np.load(task.inputs["probe"] / "labels.npy")
    own, other = (read_answers(task.inputs[which]) for which in ("own", "other"))
    value = measure.function(*_taken(measure.takes, own, other, labels))
    chance = measure.known_chance(labels)
    if measure.chance == "shuffled":
        shuffle = np.random.default_rng(derive_seed("shuffled answers")).permutation(len(labels))
        chance = measure.function(*_taken(measure.takes, own, other, labels, shuffle))
    _write(task.folder / MEASURED, {measure.name: value}, chance)


@stage("answers-shares", takes=("probe", "own", "other"), light=True)
def make_answers_shares(task: Task, context: Context) -> None:
    """Shares of the images whose answer was fixed, broken, kept or wrong from the other network to this one."""
    labels = np.load(task.inputs["probe"] / "labels.npy")
    own, other = (read_answers(task.inputs[which]) for which in ("own", "other"))
    _write(task.folder / SHARES, flips(other, own, labels).shares, None)


def _taken(
    takes: tuple[str, ...],
    own: NDArray[Any],
    other: NDArray[Any],
    labels: NDArray[Any],
    shuffle: NDArray[Any] | slice = slice(None),
) -> list[NDArray[Any]]:
    """The arrays that a measure takes; ``shuffle`` gives the other network's answers to other images."""
    arrays = {
        "a": own,
        "b": other[shuffle],
        "correct_a": own == labels,
        "correct_b": (other == labels)[shuffle],
    }
    return [arrays[name] for name in takes]


def _write(path: Path, values: dict[str, float], chance: float | None) -> None:
    rows = [{"measure": name, "value": value, "chance": chance} for name, value in values.items()]
    pl.DataFrame(rows, schema=_SCHEMA).write_parquet(path)
