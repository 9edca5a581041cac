"""The stage that counts whose neighbours a network has."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.measures import (
    neighbour_credit,
)
from kdpipe.pipeline.stages.layer_measures import PUBLISHED_NEIGHBOURS


@stage("credit", takes=("probe", "own", "plain", "teacher"))
def make_credit(task: Task, context: Context) -> None:
    """Which of the teacher's neighbours a network shares with its plain companion, gained, lost or invented."""
    labels = np.load(task.inputs["probe"] / "labels.npy")
    keys = ["layer", "view"]
    own, plain, teacher = (
        pl.read_parquet(task.inputs[which] / "neighbours.parquet").partition_by(keys, as_dict=True)
        for which in ("own", "plain", "teacher")
    )
    frames = []
    for layer, other in task.stage.params["teacher_layers"]:
        for view in sorted({view for _, view in own}):
            places = (own[layer, view], plain[layer, view], teacher[other, view])
            mine, its, theirs = (_ids(part) for part in places)
            counts = neighbour_credit(mine, its, theirs, labels)
            frames.append(
                pl.DataFrame({"sample_id": np.arange(len(labels), dtype=np.int32), **counts}).with_columns(
                    pl.selectors.matches("_(same|other)$").cast(pl.UInt8), layer=pl.lit(layer), view=pl.lit(view)
                )
            )
    pl.concat(frames).write_parquet(task.folder / "credit.parquet")


def _ids(frame: pl.DataFrame) -> NDArray[Any]:
    return frame.sort("sample_id")["ids"].list.head(PUBLISHED_NEIGHBOURS).list.to_array(PUBLISHED_NEIGHBOURS).to_numpy()
