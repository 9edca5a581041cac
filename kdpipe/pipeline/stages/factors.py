"""The stage that asks how much of a layer known factors of the images explain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import entropy

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.measures import (
    explained_shares,
    knn_accuracy,
    split,
)
from kdpipe.pipeline.stages.embeddings import LAYERS, Labels, read_vectors
from kdpipe.representation.embed import Floats
from kdpipe.seeds import derive_seed


@stage("factors", takes=("probe", "embedding", "teacher"), title="asking what known factors explain")
def make_factors(task: Task, context: Context) -> None:
    """How much of each layer is known factors of the images, and what the rest tells of the classes."""
    labels = np.load(task.inputs["probe"] / "labels.npy")
    factors = read_factors(task.inputs["probe"], task.inputs["teacher"])
    k = task.stage.params["k"]
    layers = json.loads((task.inputs["embedding"] / LAYERS).read_text())
    rows: list[dict[str, Any]] = []
    for tap in layers["taps"]:
        for view in layers["views"]:
            vectors = read_vectors(task.inputs["embedding"], tap["order"], view)
            place = {"layer": tap["layer"], "view": view}
            rows += [{**place, **row} for row in _explain_layer(vectors, labels, factors, k)]
    schema = dict.fromkeys(EXPLAINED, pl.Float32)
    pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None).write_parquet(task.folder / "factors.parquet")


EXPLAINED = ("explained", "residual", "chance", "share_of_layer", "knn_explained", "knn_residual", "knn_whole")


def _explain_layer(
    vectors: Floats, labels: Labels, factors: Mapping[str, NDArray[Any]], k: int
) -> list[dict[str, Any]]:
    """A row a factor, and one for all of them."""
    together = np.hstack(list(factors.values()))
    explained, residual = split(vectors, together)
    shuffle = np.random.default_rng(derive_seed("shuffled factors")).permutation(len(labels))
    wanted = {**factors, "all": together}
    moved = {f"{name}, shuffled": values[shuffle] for name, values in wanted.items()}
    shares = explained_shares(vectors, {**wanted, **moved})
    left = explained_shares(residual, wanted)
    centred = vectors - vectors.mean(axis=0)
    scatter = float(np.square(centred, dtype=np.float64).sum())
    whole = {
        "share_of_layer": 1 - float(np.square(residual).sum()) / scatter if scatter > 0 else 0.0,
        "knn_explained": knn_accuracy(explained, labels, k),
        "knn_residual": knn_accuracy(residual, labels, k),
        "knn_whole": knn_accuracy(vectors, labels, k),
    }
    return [
        {
            "factor": name,
            "explained": shares[name],
            "residual": left[name],
            "chance": shares[f"{name}, shuffled"],
            **{column: (value if name == "all" else None) for column, value in whole.items()},
        }
        for name in wanted
    ]


def read_factors(probe: Path, teacher: Path) -> dict[str, NDArray[Any]]:
    """The known factors of the probe images, each (N, m) and of mean 0 and standard deviation 1.

    Those of the pixels, and the entropy of the teacher's answer; a constant one is left out.
    """
    found = dict(np.load(probe / "factors.npz"))
    found["teacher_entropy"] = teacher_entropy(np.load(teacher / "logits.npy"))
    columns = {name: np.atleast_2d(values.T).T.astype(np.float64) for name, values in found.items()}
    spread = {name: float(np.sqrt(values.var(axis=0).mean())) for name, values in columns.items()}
    return {name: (v - v.mean(axis=0)) / spread[name] for name, v in columns.items() if spread[name] > 0}


def teacher_entropy(logits: NDArray[Any]) -> NDArray[Any]:
    """Entropy (N,) in bits of the softmax of ``logits`` (N, K)."""
    return entropy(softmax(logits.astype(np.float64), axis=1), base=2, axis=1)
