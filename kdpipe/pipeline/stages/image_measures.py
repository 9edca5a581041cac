"""The stage that measures single images at each layer: the two endpoints, and where a network's votes settle."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.measures import LayerPass, knn_vote, layer_pass, prediction_depth, standardise, vote_entropy
from kdpipe.pipeline.stages.embeddings import LAYERS, Labels, read_vectors
from kdpipe.pipeline.stages.neighbours import Passes
from kdpipe.representation.embed import Floats

SAMPLES, SETTLED, VOTES = "samples.parquet", "answers.parquet", "votes.npy"
VARIANTS = {
    "knn_correct_second": pl.Boolean,
    "silhouette_standardised": pl.Float32,
    "knn_correct_standardised": pl.Boolean,
}


@stage("image-measure", takes=("probe", "embedding", "neighbours"), title="measuring images")
def make_image_measures(task: Task, context: Context) -> None:
    """Silhouette and kNN vote of every image at each layer, and how its votes differ from layer to layer."""
    params, embedding = task.stage.params, task.inputs["embedding"]
    labels = np.load(task.inputs["probe"] / "labels.npy")
    passes = Passes(task.inputs["neighbours"])
    layers = json.loads((embedding / LAYERS).read_text())
    frames: list[pl.DataFrame] = []
    votes: dict[str, list[Labels]] = {view: [] for view in layers["views"]}
    for tap in layers["taps"]:
        for view in layers["views"]:
            found = passes.of(tap["order"], view, labels)
            vote = knn_vote(found.neighbours, labels, params["k"])
            variants: dict[str, Any] = dict.fromkeys(VARIANTS)
            if params["second_k"] is not None:
                vectors = read_vectors(embedding, tap["order"], view)
                variants = _variants(vectors, found, params["k"], params["second_k"], context.device)
            frames.append(_images(found, vote, variants, {"layer": tap["layer"], "view": view}))
            votes[view].append(vote)
    pl.concat(frames).write_parquet(task.folder / SAMPLES)
    view = "gap" if "gap" in votes else layers["views"][0]
    stacked = np.stack(votes[view])
    np.save(task.folder / VOTES, stacked)
    _settled(task, stacked).write_parquet(task.folder / SETTLED)


def _variants(vectors: Floats, found: LayerPass, k: int, second_k: int, device: str) -> dict[str, Any]:
    """The endpoints of each image in other ways: another k, and every column of the layer counting equally."""
    second = knn_vote(found.neighbours, found.y, second_k)
    other = layer_pass(standardise(vectors), found.y, k, device)
    return {
        "knn_correct_second": second == found.y,
        "silhouette_standardised": other.silhouette_samples.astype(np.float32),
        "knn_correct_standardised": knn_vote(other.neighbours, found.y, k) == found.y,
    }


def _images(found: LayerPass, vote: Labels, variants: dict[str, Any], place: dict[str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "sample_id": np.arange(len(vote), dtype=np.int32),
            "silhouette": found.silhouette_samples.astype(np.float32),
            "knn_vote": vote.astype(np.int32),
            "knn_correct": vote == found.y,
            **variants,
        },
        schema_overrides=VARIANTS,
    ).with_columns(**{name: pl.lit(value) for name, value in place.items()})


def _settled(task: Task, votes: NDArray[Any]) -> pl.DataFrame:
    """From which layer on an image's votes are the network's answer, and how they differ."""
    logits = task.inputs["embedding"] / "logits.npy"
    frame = pl.DataFrame({"sample_id": np.arange(votes.shape[1], dtype=np.int32)})
    if not logits.is_file():  # raw pixels answer nothing
        return frame
    depth = pl.Series(prediction_depth(votes, np.load(logits).argmax(axis=1)).astype(np.int32))
    settles = pl.when(depth < len(votes)).then(depth)  # one past the last layer stands for never
    return frame.with_columns(prediction_depth=settles, vote_entropy=pl.Series(vote_entropy(votes)))
