"""The stages from trained networks to vectors: embeddings of the probe images, and of images to fit probes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from kdpipe.data.batches import as_input
from kdpipe.engine.stage import Context, Task, stage
from kdpipe.files import write_atomic
from kdpipe.models.saved import read_network
from kdpipe.pipeline.stages.outputs import HISTORY, HISTORY_SCHEMA, LAST, RESULT
from kdpipe.representation.embed import BATCH, VIEWS, Floats, embed, read_embedding, write_embedding
from kdpipe.vocabulary import PIXELS

LAYERS = "layers.json"
Labels = NDArray[np.int64]


def embedding_file(folder: Path, order: int, view: str) -> Path:
    return folder / f"{order:02d}-{view}.parquet"


def reference_file(folder: Path, order: int, view: str) -> Path:
    """The same layer's vectors of training images, on which probes are fitted."""
    return folder / f"reference-{order:02d}-{view}.parquet"


def read_vectors(folder: Path, order: int, view: str) -> Floats:
    """(N, d) of the probe images."""
    return read_embedding(embedding_file(folder, order, view))


@stage("untrained", takes=("probe",))
def make_pixels(task: Task, context: Context) -> None:
    """The raw images as a network of one layer, which nobody trained."""
    shape = np.load(task.inputs["probe"] / "images.npy", mmap_mode="r").shape[1:]
    tap = {"layer": PIXELS, "order": 0, "relative_depth": 0.0, "mac_share": 0.0, "shape": list(shape)}
    result = {"status": "trained", "params": 0, "macs": 0, "labelled_images": 0, "taps": [tap]}
    pl.DataFrame(schema=HISTORY_SCHEMA).write_parquet(task.folder / HISTORY)
    write_atomic(task.folder / "speed.json", "{}")
    write_atomic(task.folder / RESULT, json.dumps(result))


@stage("embedding", version=3, takes=("probe", "network"), title="embedding the probe images")
def make_embeddings(task: Task, context: Context) -> None:
    """Logits and every layer's vectors of the probe images, and the vectors of the reference images."""
    views = task.stage.params["views"]
    probe = task.inputs["probe"]
    images, reference = np.load(probe / "images.npy"), np.load(probe / "reference_images.npy")
    if task.stage.params.get("weights") == PIXELS:
        logits, vectors = None, _pixels(images, views)
        fitted = _pixels(reference, views) if len(reference) else {}
    else:
        weights = task.inputs["network"] / task.stage.params.get("weights", LAST)
        network = read_network(weights).to(torch.device(context.device))
        logits, vectors = embed(network, images, views)
        fitted = embed(network, reference, views)[1]
    if logits is not None:
        np.save(task.folder / "logits.npy", logits)
    for file, parts in ((embedding_file, vectors), (reference_file, fitted)):
        for (order, view), part in parts.items():
            write_embedding(file(task.folder, order, view), part, np.arange(len(part), dtype=np.int32))
    taps = json.loads((task.inputs["network"] / RESULT).read_text())["taps"]
    dims = {f"{order:02d}-{view}": part.shape[1] for (order, view), part in vectors.items()}
    write_atomic(task.folder / LAYERS, json.dumps({"taps": taps, "views": views, "dims": dims}))


def _pixels(images: NDArray[np.uint8], views: Sequence[str]) -> dict[tuple[int, str], Floats]:
    """Images (N, C, H, W) in [0, 1] as if they were the map of a layer."""
    parts = [as_input(images[start : start + BATCH], torch.device("cpu")) for start in range(0, len(images), BATCH)]
    return {(0, view): np.concatenate([VIEWS[view](part).numpy() for part in parts]) for view in views}
