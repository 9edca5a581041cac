"""The stage that holds the layers of a network against what the study's teacher answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.measures import (
    MEASURES,
    Measure,
    soft_labels,
)
from kdpipe.measures.registry import TEACHER_PROBABILITIES
from kdpipe.pipeline.stages.embeddings import LAYERS, read_vectors
from kdpipe.pipeline.stages.layer_measures import VALUES, defined
from kdpipe.seeds import derive_seed


@stage(
    "teacher-measure", takes=("probe", "embedding", "teacher"), title="measuring layers against the teacher's answers"
)
def make_teacher_measures(task: Task, context: Context) -> None:
    """The measures of each layer of a network that ask what the study's teacher answers.

    A stage of their own, so that all other measures of a network do not rest on the teacher.
    """
    embedding = task.inputs["embedding"]
    taught = soft_labels(np.load(task.inputs["teacher"] / "logits.npy"))
    arrays = {"y": np.load(task.inputs["probe"] / "labels.npy"), TEACHER_PROBABILITIES: taught}
    layers = json.loads((embedding / LAYERS).read_text())
    rows: list[dict[str, Any]] = []
    for tap in layers["taps"]:
        for view in layers["views"]:
            arrays["X"] = read_vectors(embedding, tap["order"], view)
            place = {"layer": tap["layer"], "view": view}
            rows += [{**place, **_beside_teacher(MEASURES[name], arrays)} for name in task.stage.params["names"]]
    schema = {**VALUES, "layer": pl.String, "view": pl.String}
    pl.DataFrame(rows, schema=schema).write_parquet(task.folder / "values.parquet")


def _beside_teacher(measure: Measure, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Value, chance and interval of a measure whose chance level is known."""
    taken = [arrays[name] for name in measure.takes]
    value = defined(lambda measure: measure.function(*taken), measure)
    ends = None
    if measure.interval is not None and value is not None:
        with suppress(ValueError):  # not defined without some of the images
            ends = measure.interval(*taken, seed=derive_seed("jackknife", measure.name))
    low, high = ends or (None, None)
    return {
        "measure": measure.name,
        "value": value,
        "low": low,
        "high": high,
        "interval_over": "images" if ends else None,
        "chance": measure.known_chance(arrays["y"]),
    }
