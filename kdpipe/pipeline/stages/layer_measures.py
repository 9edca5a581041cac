"""The stage that measures the layers of a network: one stage a measure, and each layer is read once for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.engine.stage import Context, Task, batch_stage
from kdpipe.measures import MEASURES, LayerPass, Measure, bootstrap_mean, class_balanced_mean, class_means, soft_labels
from kdpipe.measures.registry import TEACHER_PROBABILITIES
from kdpipe.pipeline.stages.embeddings import LAYERS, Labels, read_vectors, reference_file
from kdpipe.pipeline.stages.neighbours import Passes, shuffled_labels
from kdpipe.pipeline.stages.outputs import by_input
from kdpipe.representation.embed import Floats, read_embedding
from kdpipe.seeds import derive_seed

VALUES_FILE, CLASSES_FILE = "values.parquet", "classes.parquet"
VALUES = {
    "measure": pl.String,
    "value": pl.Float32,
    "low": pl.Float32,
    "high": pl.Float32,
    "interval_over": pl.String,
    "chance": pl.Float32,
    "layer": pl.String,
    "view": pl.String,
}
CLASSES = {"measure": pl.String, "label": pl.Int32, "value": pl.Float32, "layer": pl.String, "view": pl.String}


@batch_stage("measure", takes=("probe", "embedding"), may_take=("neighbours", "teacher"), light=True)
def make_measures(tasks: Sequence[Task], context: Context) -> None:
    """Each task is one measure of every layer of a network."""
    with context.reporter.track("measuring layers", len(tasks)) as bar:
        for of_network in by_input(tasks, "embedding"):
            _measure_network(of_network)
            bar.advance(len(of_network), of_network[0].stage.name)


def _measure_network(tasks: Sequence[Task]) -> None:
    """All measures of one network, layer by layer."""
    embedding = tasks[0].inputs["embedding"]
    layers = json.loads((embedding / LAYERS).read_text())
    rows: dict[str, list[dict[str, Any]]] = {task.stage.key: [] for task in tasks}
    classes: dict[str, list[dict[str, Any]]] = {task.stage.key: [] for task in tasks}
    for tap in layers["taps"]:
        for view in layers["views"]:
            layer = _Layer(tasks, tap["order"], view)
            place = {"layer": tap["layer"], "view": view}
            for task in tasks:
                if task.failure is None:
                    with task.alone():
                        one = _OfLayer(MEASURES[task.stage.params["measure"]], layer, task.stage.params.get("k") or 0)
                        rows[task.stage.key].append({**one.row, **place})
                        classes[task.stage.key] += [{**row, **place} for row in one.classes]
    for task in tasks:
        if task.failure is None:
            pl.DataFrame(rows[task.stage.key], schema=VALUES).write_parquet(task.folder / VALUES_FILE)
            if of_classes := classes[task.stage.key]:
                pl.DataFrame(of_classes, schema=CLASSES).write_parquet(task.folder / CLASSES_FILE)
            task.finish()


class _Layer:
    """One layer of a network in one view, and what several measures need of it; each piece is read when asked for."""

    def __init__(self, tasks: Sequence[Task], order: int, view: str) -> None:
        self.inputs = {name: folder for task in tasks for name, folder in task.inputs.items()}
        self.order, self.view = order, view

    @cached_property
    def y(self) -> Labels:
        return np.load(self.inputs["probe"] / "labels.npy")

    @cached_property
    def shuffled(self) -> Labels:
        return shuffled_labels(self.y)

    @cached_property
    def vectors(self) -> Floats:
        return read_vectors(self.inputs["embedding"], self.order, self.view)

    @cached_property
    def unordered(self) -> Floats:
        """The layer with each column shuffled over the images: its values, and no structure beyond them."""
        return np.random.default_rng(derive_seed("shuffled columns")).permuted(self.vectors, axis=0)

    @cached_property
    def reference(self) -> tuple[Floats, Labels]:
        """Vectors and labels of the training images that probes are fitted on."""
        vectors = read_embedding(reference_file(self.inputs["embedding"], self.order, self.view))
        return vectors, np.load(self.inputs["probe"] / "reference_labels.npy")

    @cached_property
    def taught(self) -> NDArray[Any]:
        """The teacher's soft labels (N, K)."""
        return soft_labels(np.load(self.inputs["teacher"] / "logits.npy"))

    @cached_property
    def passes(self) -> tuple[LayerPass, LayerPass]:
        """The pass with the labels, and the one with shuffled ones."""
        stored = Passes(self.inputs["neighbours"])
        return stored.of(self.order, self.view, self.y), stored.of(self.order, self.view, self.y, shuffled=True)

    def arrays(self, measure: Measure, y: Labels) -> list[Any]:
        """What the measure takes, with these labels."""
        made: dict[str, Callable[[], Any]] = {
            "X": lambda: self.vectors,
            "y": lambda: y,
            "X_train": lambda: self.reference[0],
            "y_train": lambda: self.reference[1],
            TEACHER_PROBABILITIES: lambda: self.taught,
        }
        return [made[name]() for name in measure.takes]


@dataclass(frozen=True)
class _OfLayer:
    """One measure of one layer."""

    measure: Measure
    layer: _Layer
    k: int

    @property
    def row(self) -> dict[str, Any]:
        """Value, chance and interval."""
        if not self.measure.needs_pass:
            self.layer.arrays(self.measure, self.layer.y)  # what cannot be read fails the stage, and is not undefined
        value = defined(self.value)
        low, high = (value is not None and self._interval()) or (None, None)
        return {
            "measure": self.measure.name,
            "value": value,
            "low": low,
            "high": high,
            "interval_over": None if low is None else "images",
            "chance": defined(self.chance),
        }

    @property
    def classes(self) -> list[dict[str, Any]]:
        """The mean of each class, for a measure that is a mean over images."""
        if self.measure.per_image is None:
            return []
        means = class_means(self._images(shuffled=False), self.layer.y)
        return [{"measure": self.measure.name, "label": label, "value": value} for label, value in means.items()]

    def value(self) -> float:
        return self._with(shuffled=False)

    def chance(self) -> float | None:
        """The known chance level, or the value with labels (or, for want of them, columns) shuffled."""
        if self.measure.chance != "shuffled":
            return self.measure.known_chance(self.layer.y, self.k)
        if "y" in self.measure.takes:
            return self._with(shuffled=True)
        return self.measure.function(self.layer.unordered)

    def _with(self, shuffled: bool) -> float:
        y = self.layer.shuffled if shuffled else self.layer.y
        if self.measure.per_image is not None:
            samples = self._images(shuffled)
            return class_balanced_mean(samples, y) if self.measure.class_balanced else float(samples.mean())
        if self.measure.of_pass is not None:
            return float(self.measure.of_pass(self.layer.passes[shuffled], self.k))
        return self.measure.function(*self.layer.arrays(self.measure, y))

    def _images(self, shuffled: bool) -> NDArray[np.float64]:
        assert self.measure.per_image is not None
        return np.asarray(self.measure.per_image(self.layer.passes[shuffled], self.k)).astype(np.float64)

    def _interval(self) -> tuple[float, float] | None:
        """95 % over images: of a mean over images, or the measure's own."""
        name, y = self.measure.name, self.layer.y
        if self.measure.per_image is not None:
            strata = y if self.measure.class_balanced else None
            return bootstrap_mean(self._images(shuffled=False), derive_seed("bootstrap", name), strata=strata)
        if self.measure.interval is not None:
            with suppress(ValueError):  # not defined without some of the images
                arrays = self.layer.arrays(self.measure, y)
                return self.measure.interval(*arrays, seed=derive_seed("jackknife", name))
        return None


def defined(value: Callable[[], float | None]) -> float | None:
    """A measure's value, or None on a layer for which it is not defined or has no bound, such as a constant one."""
    try:
        found = value()
    except ValueError:
        return None
    return found if found is not None and np.isfinite(found) else None
