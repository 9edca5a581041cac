"""The stage that compares the layers of two networks: one stage a measure, and layers are prepared once for all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from kdpipe.engine.stage import Context, Task, batch_stage
from kdpipe.measures import MEASURES, PreparedLayer, prepare_layer
from kdpipe.pipeline.stages.embeddings import LAYERS, read_vectors
from kdpipe.pipeline.stages.outputs import by_input
from kdpipe.representation.embed import Floats
from kdpipe.seeds import derive_seed

SIMILARITY = "similarity.parquet"
_SCHEMA = {
    "layer": pl.String,
    "other_layer": pl.String,
    "view": pl.String,
    "measure": pl.String,
    "value": pl.Float32,
    "chance": pl.Float32,
}


@batch_stage("similarity", takes=("probe", "embedding", "other"), light=True)
def make_similarity(tasks: Sequence[Task], context: Context) -> None:
    """Each task is one measure between the layers of two networks."""
    with context.reporter.track("comparing layers", len(tasks)) as bar:
        for of_pair in by_input(tasks, "embedding", "other"):
            _compare(of_pair)
            bar.advance(len(of_pair), of_pair[0].stage.name)


def _compare(tasks: Sequence[Task]) -> None:
    """All measures of one pair of networks, view by view."""
    inputs = tasks[0].inputs
    here, there = (json.loads((inputs[which] / LAYERS).read_text()) for which in ("embedding", "other"))
    rows: dict[str, list[dict[str, Any]]] = {task.stage.key: [] for task in tasks}
    for view in here["views"]:
        sides = (("embedding", here), ("other", there))
        vectors = [[read_vectors(inputs[which], tap["order"], view) for tap in side["taps"]] for which, side in sides]
        prepared: list[list[PreparedLayer]] = []
        for task in tasks:
            if task.failure is None:
                with task.alone():
                    if not prepared:
                        prepared = [[prepare_layer(part) for part in side] for side in vectors]
                    layers = prepared if MEASURES[task.stage.params["measure"]].takes_prepared else vectors
                    rows[task.stage.key] += _rows(task, layers, here["taps"], there["taps"], view)
    for task in tasks:
        if task.failure is None:
            pl.DataFrame(rows[task.stage.key], schema=_SCHEMA).write_parquet(task.folder / SIMILARITY)
            task.finish()


def _rows(task: Task, layers: Any, taps: Any, others: Any, view: str) -> list[dict[str, Any]]:
    """One measure of the pairs of layers that it is asked for: all of them, or those at the same depth."""
    measure, rows = MEASURES[task.stage.params["measure"]], []
    known = measure.known_chance(np.load(task.inputs["probe"] / "labels.npy"))
    pairs = task.stage.params.get("same_depth") or [(i, j) for i in range(len(taps)) for j in range(len(others))]
    own, theirs = layers
    for i, j in pairs:
        chance = known
        if measure.chance == "shuffled":
            chance = measure.function(own[i], _shuffled_rows(task.inputs["other"], others[j]["order"], view))
        place = {"layer": taps[i]["layer"], "other_layer": others[j]["layer"], "view": view}
        value = float(measure.function(own[i], theirs[j]))
        rows.append({**place, "measure": measure.name, "value": value, "chance": chance})
    return rows


def _shuffled_rows(folder: Path, order: int, view: str) -> Floats:
    """The layer on other images: what is then alike is chance."""
    vectors = read_vectors(folder, order, view)
    return vectors[np.random.default_rng(derive_seed("shuffled rows")).permutation(len(vectors))]
