"""The stage that counts whose neighbours a network has."""

from __future__ import annotations

import numpy as np
import polars as pl

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.measures import neighbour_credit
from kdpipe.pipeline.stages.neighbours import NEIGHBOURS, published


@stage("credit", takes=("probe", "own", "plain", "teacher"))
def make_credit(task: Task, context: Context) -> None:
    """Which of the teacher's neighbours a network shares with its plain companion, gained, lost or invented."""
    labels = np.load(task.inputs["probe"] / "labels.npy")
    keys = ["layer", "view"]
    own, plain, teacher = (
        pl.read_parquet(task.inputs[which] / NEIGHBOURS).partition_by(keys, as_dict=True)
        for which in ("own", "plain", "teacher")
    )
    frames = []
    for layer, other in task.stage.params["teacher_layers"]:
        for view in sorted({view for _, view in own}):
            places = (own[layer, view], plain[layer, view], teacher[other, view])
            mine, its, theirs = (published(part) for part in places)
            counts = neighbour_credit(mine, its, theirs, labels)
            frames.append(
                pl.DataFrame({"sample_id": np.arange(len(labels), dtype=np.int32), **counts}).with_columns(
                    pl.selectors.matches("_(same|other)$").cast(pl.UInt8), layer=pl.lit(layer), view=pl.lit(view)
                )
            )
    pl.concat(frames).write_parquet(task.folder / "credit.parquet")
