"""The stages of known factors: what they are of each image, and how much of each layer they explain."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.engine.stage import ANY, Context, Task, batch_stage, stage
from kdpipe.measures import FACTORS, explained_shares, knn_accuracy, split
from kdpipe.pipeline.stages.embeddings import LAYERS, Labels, read_vectors
from kdpipe.pipeline.stages.outputs import by_input
from kdpipe.representation.embed import Floats
from kdpipe.seeds import derive_seed
from kdpipe.vocabulary import ALL_FACTORS

FACTOR, EXPLAINED, TOGETHER = "values.npy", "explained.parquet", "together.parquet"
_PLACE = {"layer": pl.String, "view": pl.String, "factor": pl.String}
_EXPLAINED = {**_PLACE, "explained": pl.Float32, "chance": pl.Float32}
_OF_ALL = ("share_of_layer", "knn_explained", "knn_residual", "knn_whole")
_TOGETHER = {
    **_PLACE,
    "residual": pl.Float32,
    **{f"{name}_of_all": pl.Float32 for name in ("explained", "chance")},
    **dict.fromkeys(_OF_ALL, pl.Float32),
}


@stage("factor", takes=("probe",), may_take=("teacher",), light=True)
def make_factor(task: Task, context: Context) -> None:
    """A known factor of the probe images, (N,) or (N, m)."""
    factor = FACTORS[task.stage.params["factor"]]
    folder = task.inputs["teacher" if factor.takes == "logits" else "probe"]
    np.save(task.folder / FACTOR, factor.function(np.load(folder / f"{factor.takes}.npy")))


def factor_input(name: str) -> str:
    """What an input that holds this factor is called."""
    return f"factor {name}"


def _standardised(folder: Path) -> NDArray[np.float64] | None:
    """A factor (N, m) at mean 0 and standard deviation 1; None for a constant one."""
    values = np.atleast_2d(np.load(folder / FACTOR).T).T.astype(np.float64)
    spread = float(np.sqrt(values.var(axis=0).mean()))
    return (values - values.mean(axis=0)) / spread if spread > 0 else None


def _shuffle(images: int) -> NDArray[np.int64]:
    """Which image's factor each image gets: what is then explained is chance."""
    return np.random.default_rng(derive_seed("shuffled factors")).permutation(images)


def _layers(embedding: Path) -> Iterator[tuple[dict[str, str], Floats]]:
    """Every layer in every view, with its vectors."""
    layers = json.loads((embedding / LAYERS).read_text())
    for tap in layers["taps"]:
        for view in layers["views"]:
            yield {"layer": tap["layer"], "view": view}, read_vectors(embedding, tap["order"], view)


@batch_stage("explained", takes=("embedding", "factor"), light=True)
def make_explained(tasks: Sequence[Task], context: Context) -> None:
    """Each task is one factor in the layers of one network; a layer is decomposed once for all of them."""
    with context.reporter.track("asking what known factors explain", len(tasks)) as bar:
        for of_network in by_input(tasks, "embedding"):
            _explain(of_network)
            bar.advance(len(of_network), of_network[0].stage.name)


def _explain(tasks: Sequence[Task]) -> None:
    rows: dict[str, list[dict[str, Any]]] = {task.stage.key: [] for task in tasks}
    found = {task.stage.key: _standardised(task.inputs["factor"]) for task in tasks}
    wanted = {
        (key, moved): values[_shuffle(len(values))] if moved else values
        for key, values in found.items()
        if values is not None
        for moved in (False, True)
    }
    for place, vectors in _layers(tasks[0].inputs["embedding"]):
        try:
            shares = explained_shares(vectors, wanted)
        except ValueError as error:
            for task in tasks:
                task.fail(str(error))
            return
        for task in tasks:
            if found[task.stage.key] is not None:
                own = {"explained": shares[task.stage.key, False], "chance": shares[task.stage.key, True]}
                rows[task.stage.key].append({**place, "factor": task.stage.params["factor"], **own})
    for task in tasks:
        if task.failure is None:
            pl.DataFrame(rows[task.stage.key], schema=_EXPLAINED).write_parquet(task.folder / EXPLAINED)
            task.finish()


@stage("factors", version=2, takes=(ANY,), title="taking known factors out")
def make_factors(task: Task, context: Context) -> None:
    """How much of each layer all known factors explain together, and what the rest tells of each and of the classes."""
    labels, k = np.load(task.inputs["probe"] / "labels.npy"), task.stage.params["k"]
    read = {name: _standardised(task.inputs[factor_input(name)]) for name in task.stage.params["factors"]}
    factors = {name: values for name, values in read.items() if values is not None}
    rows: list[dict[str, Any]] = []
    for place, vectors in _layers(task.inputs["embedding"]):
        rows += [{**place, **row} for row in _take_out(vectors, labels, factors, k)]
    pl.DataFrame(rows, schema=_TOGETHER).write_parquet(task.folder / TOGETHER)


def _take_out(vectors: Floats, labels: Labels, factors: Mapping[str, NDArray[Any]], k: int) -> Iterator[dict[str, Any]]:
    """A row a factor, and one for all of them."""
    together = np.hstack(list(factors.values()))
    explained, residual = split(vectors, together)
    left = explained_shares(residual, {**factors, ALL_FACTORS: together})
    shares = explained_shares(vectors, {"here": together, "moved": together[_shuffle(len(labels))]})
    centred = vectors - vectors.mean(axis=0)
    scatter = float(np.square(centred, dtype=np.float64).sum())
    whole = {
        "explained_of_all": shares["here"],
        "chance_of_all": shares["moved"],
        "share_of_layer": 1 - float(np.square(residual).sum()) / scatter if scatter > 0 else 0.0,
        "knn_explained": knn_accuracy(explained, labels, k),
        "knn_residual": knn_accuracy(residual, labels, k),
        "knn_whole": knn_accuracy(vectors, labels, k),
    }
    for name in left:
        yield {"factor": name, "residual": left[name], **(whole if name == ALL_FACTORS else {})}
