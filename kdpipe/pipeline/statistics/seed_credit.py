"""What another plain student gains and loses of the teacher's neighbours: a null where plain was not started again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.measures import neighbour_credit
from kdpipe.pipeline.statistics.groups import CELL, TRAINED, Frames, typed
from kdpipe.relative_depth import nearest_place

Ids = NDArray[np.int64]


def seed_credit_table(frames: Frames) -> pl.DataFrame:
    """The second plain student of each cell against the first, in each view in which neighbours of both are stored.

    Labels, batches and initial weights differ, so it moves more than initial weights alone would.
    """
    labels = frames["samples"].sort("sample_id")["label"].to_numpy()
    plain = frames["networks"].filter(TRAINED & (pl.col("role") == "plain"))
    rows: list[dict[str, Any]] = []
    for _, cell in plain.group_by(CELL, maintain_order=True):
        students = cell.sort("seed", maintain_order=True)["network_id"].to_list()
        for (view,), stored in frames["neighbours"].group_by(["view"], maintain_order=True):
            rows += [{"view": view, **row} for row in _beside(frames, students, stored, labels)]
    return typed("seed_credit", rows)


def _beside(frames: Frames, students: list[str], stored: pl.DataFrame, labels: Ids) -> Iterator[dict[str, Any]]:
    """Rows of one view; none where it has the neighbours of fewer than two of the students, or not the teacher's."""
    held = stored["network_id"].unique().to_list()
    teachers = frames["networks"].filter(pl.col("role") == "teacher")["network_id"].to_list()
    teacher, plain = ([name for name in names if name in held] for names in (teachers, students))
    if not teacher or len(plain) < 2:
        return
    first, second, *_ = plain
    own, others, theirs = (_layers(frames["layers"], stored, name) for name in (second, first, teacher[0]))
    for place, (layer, ids) in enumerate(own.items()):
        near = list(theirs.values())[nearest_place(place, len(own), len(theirs))]
        counts = neighbour_credit(ids, others[layer], near, labels)
        means = {kind: float(count.mean()) for kind, count in counts.items()}
        yield {"network_id": second, "plain_id": first, "layer": layer, **means}


def _layers(layers: pl.DataFrame, stored: pl.DataFrame, network_id: str) -> dict[str, Ids]:
    """Neighbours (N, k) at each layer of a network, first to last."""
    ordered = layers.filter(network_id=network_id).sort("order")["layer"].unique(maintain_order=True)
    parts = stored.filter(network_id=network_id).sort("sample_id").partition_by("layer", as_dict=True)
    return {layer: np.array(parts[(layer,)]["ids"].to_list(), dtype=np.int64) for layer in ordered}
