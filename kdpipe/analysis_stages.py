"""The stages from trained networks to numbers: embeddings, measures, similarity, maps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from kdpipe.data import derive_seed
from kdpipe.embed import Floats, embed, read_embedding, write_embedding
from kdpipe.engine import Context, Task
from kdpipe.errors import KdpipeError, MapError
from kdpipe.files import write_atomic
from kdpipe.maps import PROJECTORS, MapJob, Neighbours, prepare
from kdpipe.measures import MEASURES, bootstrap_mean, class_means, knn_vote, layer_pass, map_pass, nearest_neighbours
from kdpipe.networks import read_network
from kdpipe.training_stages import LAST, RESULT

CACHED_NEIGHBOURS, PUBLISHED_NEIGHBOURS = 50, 15
LAYERS = "layers.json"


def embedding_file(folder: Path, order: int, view: str) -> Path:
    return folder / f"{order:02d}-{view}.parquet"


@contextmanager
def _failing_alone(task: Task) -> Iterator[None]:
    """What goes wrong with one task is said of that task, and the rest of its batch goes on."""
    try:
        yield
    except (KdpipeError, ValueError) as error:
        task.fail(str(error))


def make_embeddings(tasks: Sequence[Task], context: Context) -> None:
    """Logits and every layer's vectors of the probe images."""
    with context.reporter.track("embedding the probe images", len(tasks)) as bar:
        for task in tasks:
            with _failing_alone(task):
                _embed_network(task, context)
            bar.advance(1, task.stage.name)


def _embed_network(task: Task, context: Context) -> None:
    weights = task.inputs["network"] / task.stage.params.get("weights", LAST)
    network = read_network(weights).to(torch.device(context.device))
    views = task.stage.params["views"]
    logits, vectors = embed(network, np.load(task.inputs["probe"] / "images.npy"), views)
    np.save(task.folder / "logits.npy", logits)
    for (order, view), part in vectors.items():
        write_embedding(embedding_file(task.folder, order, view), part, np.arange(len(part), dtype=np.int32))
    taps = json.loads((task.inputs["network"] / RESULT).read_text())["taps"]
    dims = {f"{order:02d}-{view}": part.shape[1] for (order, view), part in vectors.items()}
    write_atomic(task.folder / LAYERS, json.dumps({"taps": taps, "views": views, "dims": dims}))
    task.finish()


def make_measures(tasks: Sequence[Task], context: Context) -> None:
    """Neighbours and all measures of each layer of a network."""
    with context.reporter.track("measuring layers", len(tasks)) as bar:
        for task in tasks:
            with _failing_alone(task):
                _measure_network(task)
            bar.advance(1, task.stage.name)


def _measure_network(task: Task) -> None:
    labels = np.load(task.inputs["probe"] / "labels.npy")
    layers = json.loads((task.inputs["embedding"] / LAYERS).read_text())
    found: list[dict[str, pl.DataFrame]] = []
    for tap in layers["taps"]:
        for view in layers["views"]:
            vectors = read_embedding(embedding_file(task.inputs["embedding"], tap["order"], view))
            place = {"layer": tap["layer"], "view": view}
            found.append(_measure_layer(vectors, labels, place, task.stage.params))
    for name in found[0]:
        pl.concat([frames[name] for frames in found]).write_parquet(task.folder / f"{name}.parquet")
    task.finish()


VALUES = {
    "measure": pl.String,
    "value": pl.Float32,
    "low": pl.Float32,
    "high": pl.Float32,
    "interval_over": pl.String,
    "chance": pl.Float32,
}
CLASSES = {"measure": pl.String, "label": pl.Int32, "value": pl.Float32}


def _measure_layer(
    vectors: Floats, labels: NDArray[np.int64], place: dict[str, str], params: Mapping[str, Any]
) -> dict[str, pl.DataFrame]:
    """Neighbours, values, class values and sample values of one layer in one view."""
    k = params["k"]
    try:
        found = layer_pass(vectors, labels, min(max(CACHED_NEIGHBOURS, k), len(labels) - 1))
        vote = knn_vote(found.neighbours, labels, k)
        per_sample = {"silhouette": found.silhouette_samples, "knn_accuracy": (vote == labels).astype(np.float64)}
        known = {
            "silhouette": found.silhouette,
            "knn_accuracy": float((vote == labels).mean()),
            "intra_inter": found.intra_inter,
        }
        values = [
            {
                "measure": name,
                "value": known[name] if name in known else MEASURES[name].function(vectors, labels),
                "chance": MEASURES[name].chance_for(labels, k),
                **_interval(name, per_sample.get(name), labels),
            }
            for name in params["names"]
        ]
    except ValueError as error:
        raise KdpipeError(f"layer {place['layer']}, view {place['view']}: {error}") from None
    classes = [
        {"measure": name, "label": label, "value": value}
        for name, samples in per_sample.items()
        if name in params["names"]
        for label, value in class_means(samples, labels).items()
    ]
    sample_id = np.arange(len(labels), dtype=np.int32)
    frames = {
        "neighbours": pl.DataFrame({"sample_id": sample_id, "ids": found.neighbours.astype(np.uint16)}).with_columns(
            pl.col("ids").arr.to_list()
        ),
        "values": pl.DataFrame(values, schema=VALUES),
        "classes": pl.DataFrame(classes, schema=CLASSES),
        "samples": pl.DataFrame(
            {
                "sample_id": sample_id,
                "silhouette": found.silhouette_samples.astype(np.float32),
                "knn_vote": vote.astype(np.int32),
                "knn_correct": vote == labels,
            }
        ),
    }
    return {name: frame.with_columns(**{c: pl.lit(v) for c, v in place.items()}) for name, frame in frames.items()}


def _interval(name: str, samples: NDArray[Any] | None, labels: NDArray[np.int64]) -> dict[str, Any]:
    """The interval over images of a measure that is a mean over images; silhouette's is class-balanced."""
    if samples is None:
        return {"low": None, "high": None, "interval_over": None}
    strata = labels if name == "silhouette" else None
    low, high = bootstrap_mean(samples, derive_seed("bootstrap", name), strata=strata)
    return {"low": low, "high": high, "interval_over": "images"}


def make_similarity(tasks: Sequence[Task], context: Context) -> None:
    """Every pair measure between all layers of a network and all layers of its teacher."""
    with context.reporter.track("comparing layers with the teacher's", len(tasks)) as bar:
        for task in tasks:
            with _failing_alone(task):
                _compare_networks(task)
            bar.advance(1, task.stage.name)


def _compare_networks(task: Task) -> None:
    own, others = task.inputs["embedding"], task.inputs["teacher"]
    here, there = (json.loads((folder / LAYERS).read_text()) for folder in (own, others))
    labels = np.load(task.inputs["probe"] / "labels.npy")
    rows = []
    for view in here["views"]:
        theirs = {tap["layer"]: read_embedding(embedding_file(others, tap["order"], view)) for tap in there["taps"]}
        for tap in here["taps"]:
            vectors = read_embedding(embedding_file(own, tap["order"], view))
            for other, their_vectors in theirs.items():
                place = {"layer": tap["layer"], "other_layer": other, "view": view}
                for name in task.stage.params["names"]:
                    value = MEASURES[name].function(vectors, their_vectors)
                    rows.append({**place, "measure": name, "value": value, "chance": MEASURES[name].chance_for(labels)})
    schema = {"value": pl.Float32, "chance": pl.Float32}
    pl.DataFrame(rows, schema_overrides=schema).write_parquet(task.folder / "similarity.parquet")
    task.finish()


def make_maps(tasks: Sequence[Task], context: Context) -> None:
    """Maps of many layers by one projector, and what each map keeps."""
    projector = PROJECTORS[tasks[0].stage.params["projector"]]
    by_name = {task.stage.name: task for task in tasks}
    jobs: dict[str, MapJob] = {}
    with context.reporter.track(f"{projector.title} maps", len(tasks)) as bar:

        def publish(name: str, layout: NDArray[Any] | MapError) -> None:
            if isinstance(layout, MapError):
                by_name[name].fail(str(layout))
            else:
                with _failing_alone(by_name[name]):
                    _write_map(by_name[name], layout)
            bar.advance(1, name)

        for name, task in by_name.items():
            with _failing_alone(task):
                jobs[name] = _map_job(task)
        context.scratch.mkdir(parents=True, exist_ok=True)
        projector.layouts(jobs, context.scratch, publish)


def _map_job(task: Task) -> MapJob:
    """The layer's first 50 principal components and their exact neighbours (``space=pca50``)."""
    params = task.stage.params
    points = prepare(_vectors(task))
    neighbours = Neighbours(*nearest_neighbours(points, min(params["neighbours"], len(points) - 1)))
    return MapJob(points, PROJECTORS[params["projector"]].options(**params["options"]), neighbours)


def _vectors(task: Task) -> Floats:
    return read_embedding(
        embedding_file(task.inputs["embedding"], task.stage.params["order"], task.stage.params["view"])
    )


def _write_map(task: Task, layout: NDArray[Any]) -> None:
    quality = map_pass(_vectors(task), layout, PUBLISHED_NEIGHBOURS)
    np.save(task.folder / "layout.npy", layout.astype(np.float32))
    np.save(task.folder / "misplacement.npy", quality.misplacement.astype(np.float32))
    numbers = {name: getattr(quality, name) for name in ("trustworthiness", "continuity", "knn_recall")}
    write_atomic(task.folder / "quality.json", json.dumps(numbers))
    task.finish()
