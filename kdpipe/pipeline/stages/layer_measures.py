"""The stage that measures the layers of a network, and its answers layer by layer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.engine.stage import Context, Task, stage
from kdpipe.errors import KdpipeError
from kdpipe.measures import (
    MEASURES,
    LayerPass,
    Measure,
    bootstrap_mean,
    class_means,
    knn_vote,
    layer_pass,
    layer_passes,
    mean_prediction_depth,
    mean_vote_entropy,
    prediction_depth,
    standardise,
    vote_entropy,
)
from kdpipe.pipeline.stages.embeddings import LAYERS, Labels, read_vectors, reference_file
from kdpipe.representation.embed import Floats, read_embedding
from kdpipe.seeds import derive_seed

CACHED_NEIGHBOURS, PUBLISHED_NEIGHBOURS = 50, 15


@stage("measure", version=3, takes=("probe", "embedding"), title="measuring layers")
def make_measures(task: Task, context: Context) -> None:
    """Neighbours and all measures of each layer of a network."""
    params, probe, embedding = task.stage.params, task.inputs["probe"], task.inputs["embedding"]
    labels = np.load(probe / "labels.npy")
    layers = json.loads((embedding / LAYERS).read_text())
    found: list[dict[str, pl.DataFrame]] = []
    votes: dict[str, list[Labels]] = {view: [] for view in layers["views"]}
    for tap in layers["taps"]:
        for view in layers["views"]:
            where = f"layer {tap['layer']}, view {view}"
            layer = _Layer(
                embedding, probe, tap["order"], view, labels, params["k"], params["second_k"], context.device
            )
            try:
                frames = _measure_layer(layer, params["names"])
            except ValueError as error:
                raise KdpipeError(f"{where}: {error}") from None
            place = {"layer": tap["layer"], "view": view}
            found.append({name: _placed(frame, place) for name, frame in frames.items()})
            votes[view].append(layer.vote)
    for name in found[0]:
        pl.concat([frames[name] for frames in found]).write_parquet(task.folder / f"{name}.parquet")
    view = "gap" if "gap" in votes else layers["views"][0]
    depths = np.array([tap["relative_depth"] for tap in layers["taps"]])
    _write_answers(task, np.stack(votes[view]), depths, labels)


def _placed(frame: pl.DataFrame, place: Mapping[str, str]) -> pl.DataFrame:
    return frame.with_columns(**{name: pl.lit(value) for name, value in place.items()})


@dataclass(frozen=True)
class _Layer:
    """One layer of a network in one view, and what several of its measures need."""

    folder: Path
    probe: Path
    order: int
    view: str
    y: Labels
    k: int
    second_k: int | None
    device: str

    @cached_property
    def vectors(self) -> Floats:
        return read_vectors(self.folder, self.order, self.view)

    @cached_property
    def shuffled(self) -> Labels:
        """The labels on other images: what is then found is chance."""
        return np.random.default_rng(derive_seed("shuffled labels")).permutation(self.y)

    @cached_property
    def passes(self) -> list[LayerPass]:
        """One pass with the labels, one with shuffled ones."""
        wanted = min(max(CACHED_NEIGHBOURS, self.k, self.second_k or 0), len(self.y) - 1)
        return layer_passes(self.vectors, [self.y, self.shuffled], wanted, self.device)

    @property
    def vote(self) -> Labels:
        return knn_vote(self.passes[0].neighbours, self.y, self.k)

    @property
    def variants(self) -> dict[str, Any]:
        """The endpoints of each image in other ways: another k, and every column of the layer counting equally.

        Empty where the study does not ask for them.
        """
        if self.second_k is None:
            return dict.fromkeys(VARIANTS)
        second = knn_vote(self.passes[0].neighbours, self.y, self.second_k)
        other = layer_pass(standardise(self.vectors), self.y, self.k, self.device)
        return {
            "knn_correct_second": second == self.y,
            "silhouette_standardised": other.silhouette_samples.astype(np.float32),
            "knn_correct_standardised": knn_vote(other.neighbours, self.y, self.k) == self.y,
        }

    @cached_property
    def unordered(self) -> Floats:
        """The layer with each column shuffled over the images: its values, and no structure beyond them."""
        return np.random.default_rng(derive_seed("shuffled columns")).permuted(self.vectors, axis=0)

    @cached_property
    def reference(self) -> tuple[Floats, Labels]:
        """Vectors and labels of the training images that probes are fitted on."""
        return read_embedding(reference_file(self.folder, self.order, self.view)), np.load(
            self.probe / "reference_labels.npy"
        )

    def value(self, measure: Measure) -> float:
        return self._of(measure, self.vectors, self.y, self.passes[0])

    def chance(self, measure: Measure) -> float | None:
        """The known chance level, or the value with labels (or, for want of them, columns) shuffled."""
        if measure.chance != "shuffled":
            return measure.known_chance(self.y, self.k)
        if "y" in measure.takes:
            return self._of(measure, self.vectors, self.shuffled, self.passes[1])
        return measure.function(self.unordered)

    def _of(self, measure: Measure, vectors: Floats, y: Labels, found: LayerPass) -> float:
        if measure.name == "knn_accuracy":
            return float((knn_vote(found.neighbours, y, self.k) == y).mean())
        if hasattr(found, measure.name):
            return float(getattr(found, measure.name))
        arrays: dict[str, Any] = {"X": vectors, "y": y}
        if "X_train" in measure.takes:
            arrays["X_train"], arrays["y_train"] = self.reference
        return measure.function(*(arrays[name] for name in measure.takes))


VALUES = {
    "measure": pl.String,
    "value": pl.Float32,
    "low": pl.Float32,
    "high": pl.Float32,
    "interval_over": pl.String,
    "chance": pl.Float32,
}


CLASSES = {"measure": pl.String, "label": pl.Int32, "value": pl.Float32}


VARIANTS = {
    "knn_correct_second": pl.Boolean,
    "silhouette_standardised": pl.Float32,
    "knn_correct_standardised": pl.Boolean,
}


def _measure_layer(layer: _Layer, names: Sequence[str]) -> dict[str, pl.DataFrame]:
    """Neighbours, values, class values and sample values of one layer in one view."""
    found, vote = layer.passes[0], layer.vote
    per_sample = {"silhouette": found.silhouette_samples, "knn_accuracy": (vote == layer.y).astype(np.float64)}
    values = [
        {
            "measure": name,
            "value": defined(layer.value, MEASURES[name]),
            "chance": defined(layer.chance, MEASURES[name]),
            **_interval(name, per_sample.get(name), layer.y),
        }
        for name in names
    ]
    classes = [
        {"measure": name, "label": label, "value": value}
        for name, samples in per_sample.items()
        if name in names
        for label, value in class_means(samples, layer.y).items()
    ]
    sample_id = np.arange(len(layer.y), dtype=np.int32)
    neighbours = pl.DataFrame({"sample_id": sample_id, "ids": found.neighbours.astype(np.uint16)})
    return {
        "neighbours": neighbours.with_columns(pl.col("ids").arr.to_list()),
        "values": pl.DataFrame(values, schema=VALUES),
        "classes": pl.DataFrame(classes, schema=CLASSES),
        "samples": pl.DataFrame(
            {
                "sample_id": sample_id,
                "silhouette": found.silhouette_samples.astype(np.float32),
                "knn_vote": vote.astype(np.int32),
                "knn_correct": vote == layer.y,
                **layer.variants,
            },
            schema_overrides=VARIANTS,
        ),
    }


def defined(value: Callable[[Measure], float | None], measure: Measure) -> float | None:
    """A measure's value, or None on a layer for which it is not defined or has no bound, such as a constant one."""
    try:
        found = value(measure)
    except ValueError:
        return None
    return found if found is not None and np.isfinite(found) else None


def _interval(name: str, samples: NDArray[Any] | None, labels: Labels) -> dict[str, Any]:
    """The interval over images of a measure that is a mean over images; silhouette's is class-balanced."""
    if samples is None:
        return {"low": None, "high": None, "interval_over": None}
    strata = labels if name == "silhouette" else None
    low, high = bootstrap_mean(samples, derive_seed("bootstrap", name), strata=strata)
    return {"low": low, "high": high, "interval_over": "images"}


def _write_answers(task: Task, votes: NDArray[Any], depths: NDArray[Any], labels: Labels) -> None:
    """What the network answers, layer by layer: when votes settle on it, how they differ, how sure it is."""
    path = task.inputs["embedding"] / "logits.npy"
    answers: dict[str, Any] = {"sample_id": np.arange(len(labels), dtype=np.int32)}
    numbers: list[dict[str, Any]] = []
    wanted = task.stage.params["of_networks"]
    if path.is_file():  # raw pixels answer nothing
        logits = np.load(path)
        final = logits.argmax(axis=1)
        settled = prediction_depth(votes, final)
        answers |= {"prediction_depth": settled.astype(np.int32), "vote_entropy": vote_entropy(votes)}
        known = {
            "prediction_depth": lambda: mean_prediction_depth(votes, final, depths),
            "vote_entropy": lambda: mean_vote_entropy(votes),
            "ece": lambda: MEASURES["ece"].function(logits, labels),
        }
        numbers = [{"measure": name, "value": known[name](), "chance": None} for name in wanted]
    frame = pl.DataFrame(answers)
    if "prediction_depth" in frame.columns:  # one past the last layer stands for never
        never = pl.col("prediction_depth") >= len(votes)
        frame = frame.with_columns(prediction_depth=pl.when(~never).then("prediction_depth"))
    frame.write_parquet(task.folder / "answers.parquet")
    schema = {"measure": pl.String, "value": pl.Float32, "chance": pl.Float32}
    pl.DataFrame(numbers, schema=schema).write_parquet(task.folder / "network.parquet")
