"""The stages that measure maps: one neighbour search for each map, and one stage a measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.measures import MEASURES, MapPass, map_pass
from kdpipe.pipeline.stages.embeddings import read_vectors
from kdpipe.pipeline.stages.maps import LAYOUT

PASS, VALUE = "pass.npz", "value.parquet"
MAP_VALUE = {"measure": pl.String, "value": pl.Float32, "chance": pl.Float32}
MAP_NEIGHBOURS = 15


@stage("map-neighbours", takes=("embedding", "map"), title="searching maps for neighbours", light=True)
def make_map_pass(task: Task, context: Context) -> None:
    """Which of each image's neighbours a map keeps, loses and invents."""
    params, layout = task.stage.params, np.load(task.inputs["map"] / LAYOUT)
    vectors = read_vectors(task.inputs["embedding"], params["order"], params["view"])
    np.savez(task.folder / PASS, **vars(map_pass(vectors, layout, params["k"])))


def read_map_pass(folder: Path) -> MapPass:
    """What :func:`make_map_pass` left."""
    return MapPass(**np.load(folder / PASS))


@stage("map-measure", takes=("probe", "embedding", "map"), may_take=("neighbours",), title="measuring maps", light=True)
def make_map_measures(task: Task, context: Context) -> None:
    """One measure of one map, and what it would be for a random layout."""
    params = task.stage.params
    measure, k = MEASURES[params["measure"]], params.get("k")
    if measure.of_pass is not None:
        value = measure.of_pass(read_map_pass(task.inputs["neighbours"]), k or 0)
    else:
        made: dict[str, Callable[[], Any]] = {
            "X": lambda: read_vectors(task.inputs["embedding"], params["order"], params["view"]),
            "layout": lambda: np.load(task.inputs["map"] / LAYOUT),
        }
        value = measure.function(*(made[name]() for name in measure.takes))
    chance = measure.known_chance(np.load(task.inputs["probe"] / "labels.npy"), k)
    row = {"measure": measure.name, "value": float(value), "chance": chance}
    pl.DataFrame([row], schema=MAP_VALUE).write_parquet(task.folder / VALUE)
