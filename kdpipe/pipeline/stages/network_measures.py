"""The stage that measures what a network answers: one stage a measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.measures import MEASURES, Measure
from kdpipe.pipeline.stages.embeddings import LAYERS
from kdpipe.pipeline.stages.image_measures import VOTES
from kdpipe.pipeline.stages.neighbours import shuffled_labels

NETWORK = "network.parquet"


@stage(
    "network-measure",
    takes=("probe", "embedding"),
    may_take=("votes",),
    title="measuring networks",
    light=True,
)
def make_network_measures(task: Task, context: Context) -> None:
    """One measure of a network's answers and of its layers' votes."""
    measure, k = MEASURES[task.stage.params["measure"]], task.stage.params.get("k")
    y = np.load(task.inputs["probe"] / "labels.npy")
    chance = measure.known_chance(y, k)
    if measure.chance == "shuffled":
        chance = measure.function(*_arrays(measure, task, shuffled_labels(y)))
    row = {"measure": measure.name, "value": measure.function(*_arrays(measure, task, y)), "chance": chance}
    schema = {"measure": pl.String, "value": pl.Float32, "chance": pl.Float32}
    pl.DataFrame([row], schema=schema).write_parquet(task.folder / NETWORK)


def _arrays(measure: Measure, task: Task, y: Any) -> list[Any]:
    embedding = task.inputs["embedding"]
    made: dict[str, Callable[[], Any]] = {
        "y": lambda: y,
        "logits": lambda: np.load(embedding / "logits.npy"),
        "final": lambda: np.load(embedding / "logits.npy").argmax(axis=1),
        "votes": lambda: np.load(task.inputs["votes"] / VOTES),
        "relative_depth": lambda: np.array(
            [tap["relative_depth"] for tap in json.loads((embedding / LAYERS).read_text())["taps"]]
        ),
    }
    return [made[name]() for name in measure.takes]
