"""The stage that compares the layers of two networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.measures import (
    MEASURES,
    prepare_layer,
    similarity_table,
)
from kdpipe.pipeline.stages.embeddings import LAYERS, read_vectors
from kdpipe.representation.embed import Floats
from kdpipe.seeds import derive_seed


@stage("similarity", takes=("probe", "embedding", "other"), title="comparing layers")
def make_similarity(task: Task, context: Context) -> None:
    """Pair measures between the layers of two networks: CKA for all pairs, the others at the same depth."""
    params = task.stage.params
    here, there = (json.loads((task.inputs[which] / LAYERS).read_text()) for which in ("embedding", "other"))
    labels = np.load(task.inputs["probe"] / "labels.npy")
    same_depth = {tuple(pair) for pair in params["same_depth"]}
    rows = []
    for view in here["views"]:
        own, others = (
            [prepare_layer(read_vectors(task.inputs[which], tap["order"], view)) for tap in side["taps"]]
            for which, side in (("embedding", here), ("other", there))
        )
        for name in params["names"]:
            measure = MEASURES[name]
            table = similarity_table(measure.function, own, others) if name == "cka" else None
            for i, tap in enumerate(here["taps"]):
                for j, other in enumerate(there["taps"]):
                    if table is None and (i, j) not in same_depth:
                        continue
                    value = float(table[i, j]) if table is not None else measure.function(own[i], others[j])
                    chance = measure.known_chance(labels)
                    if measure.chance == "shuffled":
                        chance = measure.function(own[i], _shuffled_rows(task.inputs["other"], other["order"], view))
                    place = {"layer": tap["layer"], "other_layer": other["layer"], "view": view, "measure": name}
                    rows.append({**place, "value": value, "chance": chance})
    schema = {"value": pl.Float32, "chance": pl.Float32}
    pl.DataFrame(rows, schema_overrides=schema).write_parquet(task.folder / "similarity.parquet")


def _shuffled_rows(folder: Path, order: int, view: str) -> Floats:
    """The layer on other images: what is then alike is chance."""
    vectors = read_vectors(folder, order, view)
    return vectors[np.random.default_rng(derive_seed("shuffled rows")).permutation(len(vectors))]
