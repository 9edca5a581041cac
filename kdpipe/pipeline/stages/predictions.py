"""The stage that turns a network's logits into its answers to the probe images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.measures import margins
from kdpipe.pipeline.stages.embeddings import Labels

PREDICTIONS = "predictions.parquet"


@stage("prediction", takes=("probe", "embedding"))
def make_predictions(task: Task, context: Context) -> None:
    """What a network answers to each probe image, how sure it is, and its logits.

    Stages that compare answers take this one, not the embedding: it is small enough to travel whole.
    """
    labels = np.load(task.inputs["probe"] / "labels.npy")
    logits = np.load(task.inputs["embedding"] / "logits.npy")
    predictions(logits, labels).write_parquet(task.folder / PREDICTIONS)


def predictions(logits: NDArray[np.float32], labels: Labels) -> pl.DataFrame:
    """sample_id, predicted, confidence, margin, correct and logits, from logits (N, K) and labels (N,)."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    predicted = logits.argmax(axis=1)
    return pl.DataFrame(
        {
            "sample_id": np.arange(len(labels), dtype=np.int32),
            "predicted": predicted.astype(np.int32),
            "confidence": (shifted.max(axis=1) / shifted.sum(axis=1)).astype(np.float32),
            "margin": margins(logits, labels).astype(np.float32),
            "correct": predicted == labels,
            "logits": list(logits),
        },
        schema_overrides={"logits": pl.List(pl.Float32)},
    )


def read_answers(folder: Path) -> Labels:
    """(N,) the class that a network answers to each probe image."""
    return pl.read_parquet(folder / PREDICTIONS, columns=["predicted"])["predicted"].to_numpy().astype(np.int64)


def read_logits(folder: Path) -> NDArray[np.float32]:
    """(N, K) of the probe images."""
    return np.array(pl.read_parquet(folder / PREDICTIONS, columns=["logits"])["logits"].to_list(), dtype=np.float32)
