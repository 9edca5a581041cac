"""The stages that take in vectors made elsewhere: samples, probe, networks and their embeddings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from kdpipe.config.vector_store import taps_of
from kdpipe.data.splits import Indices, stratified_order
from kdpipe.engine.stage import Context, Task, stage
from kdpipe.errors import DataError
from kdpipe.files import write_atomic
from kdpipe.pipeline.stages.embeddings import LAYERS, embedding_file, reference_file
from kdpipe.pipeline.stages.outputs import HISTORY, HISTORY_SCHEMA, RESULT
from kdpipe.pipeline.stages.samples import SHOWN
from kdpipe.representation.embed import BATCH, VIEWS, Floats, write_embedding
from kdpipe.seeds import derive_seed
from kdpipe.vectors.content import Array, Samples
from kdpipe.vectors.store import StoredNetwork, VectorStore, open_vectors

ROWS, REFERENCE_ROWS = "rows.npy", "reference_rows.npy"
DESCRIBED = "vectors.json"


def _samples_of(task: Task) -> tuple[VectorStore, Samples]:
    store = open_vectors(Path(task.stage.runtime["folder"]))
    if store.samples_key() != task.stage.params["samples"]:
        raise DataError(f"{store.folder}: its samples changed since the study was planned; run it again.")
    return store, store.samples


def _network_of(task: Task) -> tuple[VectorStore, StoredNetwork]:
    store = open_vectors(Path(task.stage.runtime["folder"]))
    network = store.network(task.stage.runtime["network"])
    if store.network_key(network) != task.stage.params["vectors"]:
        raise DataError(f"{store.folder}: {network.record.name!r} changed since the study was planned; run it again.")
    return store, network


@stage("data")
def make_vector_data(task: Task, context: Context) -> None:
    """Keep the samples: labels, which of them probes are fitted on, and what is shown of each."""
    store, samples = _samples_of(task)
    np.save(task.folder / "labels.npy", samples.labels)
    np.save(task.folder / "reference.npy", samples.reference)
    if samples.images is not None:
        np.save(task.folder / "images.npy", samples.images)
    said = samples.texts if samples.texts is not None else [""] * len(samples)
    shown = [f"{one}\n{text}".strip() for one, text in zip(samples.ids, said, strict=True)]
    write_atomic(task.folder / SHOWN, json.dumps(shown))
    described = {"class_names": list(samples.class_names), "sha256": store.samples_key()}
    write_atomic(task.folder / DESCRIBED, json.dumps(described))


def described_vectors(folder: Path, probe: int, title: str, note: str, licence: str) -> dict[str, Any]:
    """What study.json says of the samples that :func:`make_vector_data` left in ``folder``."""
    described = json.loads((folder / DESCRIBED).read_text())
    fitted = int(np.load(folder / "reference.npy").sum())
    images = folder / "images.npy"
    return {
        "dataset": title or "Vectors made elsewhere",
        "licence": licence or "not said",
        "note": note,
        **described,
        "image_shape": list(np.load(images, mmap_mode="r").shape[1:]) if images.is_file() else [],
        "train": fitted,
        "validation": 0,
        "test": len(np.load(folder / "labels.npy")) - fitted,
        "probe": probe,
    }


@stage("probe", takes=("data",))
def make_vector_probe(task: Task, context: Context) -> None:
    """Choose the samples that are looked at, in display order, and those that probes are fitted on."""
    params, data = task.stage.params, task.inputs["data"]
    labels, fitted = np.load(data / "labels.npy"), np.load(data / "reference.npy")
    chosen = _chosen(labels, ~fitted, params["size"], derive_seed("probe", params["seed"]))
    reference = _chosen(labels, fitted, params["reference"], derive_seed("reference", params["seed"]))
    np.save(task.folder / ROWS, chosen)
    np.save(task.folder / REFERENCE_ROWS, reference)
    np.save(task.folder / "labels.npy", labels[chosen])
    np.save(task.folder / "reference_labels.npy", labels[reference])
    if (data / "images.npy").is_file():
        images = np.load(data / "images.npy", mmap_mode="r")
        np.save(task.folder / "images.npy", images[chosen])
        np.save(task.folder / "reference_images.npy", images[reference])
    shown = json.loads((data / SHOWN).read_text())
    write_atomic(task.folder / SHOWN, json.dumps([shown[row] for row in chosen]))


def _chosen(labels: Array, among: Array, size: int, seed: int) -> Indices:
    """Rows of ``size`` samples at most of those that are ``among``, any prefix of them stratified."""
    rows = np.flatnonzero(among)
    return rows[stratified_order(labels[rows], seed)[:size]] if len(rows) else rows


@stage("network", takes=("data",), title="reading vectors")
def make_vector_network(task: Task, context: Context) -> None:
    """What is known of a network whose vectors alone are there: its layers, and how often it is right."""
    store, network = _network_of(task)
    result: dict[str, Any] = {
        "status": "trained",
        "diverged_step": None,
        "params": 0,
        "macs": 0,
        "labelled_images": 0,
        "taps": [tap.__dict__ for tap in taps_of(network)],
    }
    if network.has_logits:
        data = task.inputs["data"]
        labels, fitted = np.load(data / "labels.npy"), np.load(data / "reference.npy")
        right = store.logits(network).argmax(axis=1) == labels
        result["test_accuracy"] = float(right[~fitted].mean())
    pl.DataFrame(schema=HISTORY_SCHEMA).write_parquet(task.folder / HISTORY)
    write_atomic(task.folder / "speed.json", "{}")
    write_atomic(task.folder / RESULT, json.dumps(result))


@stage("embedding", takes=("probe", "network"), title="reading the vectors of the probe")
def make_vector_embeddings(task: Task, context: Context) -> None:
    """Logits, if they are known, and the layers' vectors of the probe and of what probes are fitted on."""
    store, network = _network_of(task)
    views, probe = task.stage.params["views"], task.inputs["probe"]
    if network.has_logits:
        np.save(task.folder / "logits.npy", store.logits(network)[np.load(probe / ROWS)])
    dims: dict[str, int] = {}
    taps = json.loads((task.inputs["network"] / RESULT).read_text())["taps"]
    for tap in taps:
        order = tap["order"]
        for file, rows in ((embedding_file, np.load(probe / ROWS)), (reference_file, np.load(probe / REFERENCE_ROWS))):
            if not len(rows):
                continue
            for view, vectors in _views(store, network, order, rows, views).items():
                write_embedding(file(task.folder, order, view), vectors, np.arange(len(rows), dtype=np.int32))
                dims[f"{order:02d}-{view}"] = vectors.shape[1]
    write_atomic(task.folder / LAYERS, json.dumps({"taps": taps, "views": views, "dims": dims}))


def _views(
    store: VectorStore, network: StoredNetwork, order: int, rows: Indices, views: Sequence[str]
) -> Mapping[str, Floats]:
    """The vectors (N, d) of a layer in each view, of some rows."""
    if kept := network.views[order]:
        return {view: store.vectors(network, order, view)[rows].astype(np.float32) for view in views if view in kept}
    array = store.vectors(network, order)
    parts: dict[str, list[Floats]] = {view: [] for view in views}
    for start in range(0, len(rows), BATCH):
        part = torch.from_numpy(array[rows[start : start + BATCH]].astype(np.float32))
        maps = part if part.ndim == 4 else part[:, :, None, None]
        for view in views:
            parts[view].append(VIEWS[view](maps).numpy())
    return {view: np.concatenate(found) for view, found in parts.items()}
