"""The stage that looks at all pairs of images of each layer once, and what measures read off it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.errors import KdpipeError
from kdpipe.measures import LayerPass, layer_passes
from kdpipe.pipeline.stages.embeddings import LAYERS, Labels, read_vectors
from kdpipe.seeds import derive_seed

NEIGHBOURS, PASSES = "neighbours.parquet", "passes.npz"
CACHED_NEIGHBOURS, PUBLISHED_NEIGHBOURS = 50, 15
LABELLINGS = ("true", "shuffled")
_SHARED = ("neighbours", "distances")
_OWN = tuple(field.name for field in fields(LayerPass) if field.name not in (*_SHARED, "y"))


def shuffled_labels(labels: Labels) -> Labels:
    """The labels (N,) on other images: what is then found is chance."""
    return np.random.default_rng(derive_seed("shuffled labels")).permutation(labels)


@stage("neighbours", takes=("probe", "embedding"), title="finding neighbours")
def make_neighbours(task: Task, context: Context) -> None:
    """One pass over all pairs of images of each layer, for the labels and for shuffled ones."""
    embedding, labels = task.inputs["embedding"], np.load(task.inputs["probe"] / "labels.npy")
    wanted = min(task.stage.params["neighbours"], len(labels) - 1)
    layers = json.loads((embedding / LAYERS).read_text())
    sample_id = np.arange(len(labels), dtype=np.int32)
    frames: list[pl.DataFrame] = []
    arrays: dict[str, Any] = {}
    for tap in layers["taps"]:
        for view in layers["views"]:
            vectors = read_vectors(embedding, tap["order"], view)
            try:
                found = layer_passes(vectors, [labels, shuffled_labels(labels)], wanted, context.device)
            except ValueError as error:
                raise KdpipeError(f"layer {tap['layer']}, view {view}: {error}") from None
            ids = pl.DataFrame({"sample_id": sample_id, "ids": found[0].neighbours.astype(np.uint16)})
            place = {"layer": pl.lit(tap["layer"]), "view": pl.lit(view)}
            frames.append(ids.with_columns(pl.col("ids").arr.to_list(), **place))
            arrays |= _stored(found, tap["order"], view)
    pl.concat(frames).write_parquet(task.folder / NEIGHBOURS)
    np.savez(task.folder / PASSES, **arrays)


def _stored(found: list[LayerPass], order: int, view: str) -> dict[str, Any]:
    """Both passes of a layer; its neighbours are the same whatever the labels."""
    place = f"{order:02d}-{view}"
    shared = {f"{place} {name}": getattr(found[0], name) for name in _SHARED}
    own = {
        f"{place} {labelling} {name}": getattr(one, name)
        for labelling, one in zip(LABELLINGS, found, strict=True)
        for name in _OWN
    }
    return shared | own


class Passes:
    """What :func:`make_neighbours` left of a network, layer by layer."""

    def __init__(self, folder: Path) -> None:
        self.arrays = np.load(folder / PASSES)

    def of(self, order: int, view: str, labels: Labels, shuffled: bool = False) -> LayerPass:
        """The pass over a layer with its labels (N,), or with those of :func:`shuffled_labels`."""
        place, labelling = f"{order:02d}-{view}", LABELLINGS[shuffled]
        found = {name: self.arrays[f"{place} {name}"] for name in _SHARED}
        found |= {name: self.arrays[f"{place} {labelling} {name}"] for name in _OWN}
        numbers = {name: value if value.ndim else value.item() for name, value in found.items()}
        return LayerPass(**numbers, y=shuffled_labels(labels) if shuffled else labels)


def published(frame: pl.DataFrame) -> NDArray[Any]:
    """The nearest images (N, 15) of a layer's rows of ``neighbours.parquet``."""
    nearest = frame.sort("sample_id")["ids"].list.head(PUBLISHED_NEIGHBOURS)
    return nearest.list.to_array(PUBLISHED_NEIGHBOURS).to_numpy()
