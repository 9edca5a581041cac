"""The stages from vectors to numbers: measures of layers, of pairs of layers, of neighbours and of known factors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.data import derive_seed
from kdpipe.embed import Floats, read_embedding
from kdpipe.embedding_stages import LAYERS, Labels, failing_alone, read_vectors, reference_file
from kdpipe.engine import Context, Task
from kdpipe.errors import KdpipeError
from kdpipe.measures import (
    MEASURES,
    LayerPass,
    Measure,
    bootstrap_mean,
    class_means,
    explained_shares,
    knn_accuracy,
    knn_vote,
    layer_pass,
    layer_passes,
    mean_prediction_depth,
    mean_vote_entropy,
    neighbour_credit,
    prediction_depth,
    prepare,
    similarity_table,
    soft_labels,
    split,
    standardise,
    vote_entropy,
)
from kdpipe.measures.registry import TEACHER_PROBABILITIES

CACHED_NEIGHBOURS, PUBLISHED_NEIGHBOURS = 50, 15


def make_measures(tasks: Sequence[Task], context: Context) -> None:
    """Neighbours and all measures of each layer of a network."""
    with context.reporter.track("measuring layers", len(tasks)) as bar:
        for task in tasks:
            with failing_alone(task):
                _measure_network(task, context)
            bar.advance(1, task.stage.name)


def _measure_network(task: Task, context: Context) -> None:
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
    task.finish()


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
            "value": _defined(layer.value, MEASURES[name]),
            "chance": _defined(layer.chance, MEASURES[name]),
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


def _defined(value: Callable[[Measure], float | None], measure: Measure) -> float | None:
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


# ------------------------------------------------------------------- layers beside the teacher's answers


def make_teacher_measures(tasks: Sequence[Task], context: Context) -> None:
    """The measures of each layer of a network that ask what the study's teacher answers.

    A stage of their own, so that all other measures of a network do not rest on the teacher.
    """
    with context.reporter.track("layers beside the teacher's answers", len(tasks)) as bar:
        for task in tasks:
            with failing_alone(task):
                _measure_beside_teacher(task)
            bar.advance(1, task.stage.name)


def _measure_beside_teacher(task: Task) -> None:
    embedding = task.inputs["embedding"]
    taught = soft_labels(np.load(task.inputs["teacher"] / "logits.npy"))
    arrays = {"y": np.load(task.inputs["probe"] / "labels.npy"), TEACHER_PROBABILITIES: taught}
    layers = json.loads((embedding / LAYERS).read_text())
    rows: list[dict[str, Any]] = []
    for tap in layers["taps"]:
        for view in layers["views"]:
            arrays["X"] = read_vectors(embedding, tap["order"], view)
            place = {"layer": tap["layer"], "view": view}
            rows += [{**place, **_beside_teacher(MEASURES[name], arrays)} for name in task.stage.params["names"]]
    schema = {**VALUES, "layer": pl.String, "view": pl.String}
    pl.DataFrame(rows, schema=schema).write_parquet(task.folder / "values.parquet")
    task.finish()


def _beside_teacher(measure: Measure, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Value, chance and interval of a measure whose chance level is known."""
    taken = [arrays[name] for name in measure.takes]
    value = _defined(lambda measure: measure.function(*taken), measure)
    ends = None
    if measure.interval is not None and value is not None:
        with suppress(ValueError):  # not defined without some of the images
            ends = measure.interval(*taken, seed=derive_seed("jackknife", measure.name))
    low, high = ends or (None, None)
    return {
        "measure": measure.name,
        "value": value,
        "low": low,
        "high": high,
        "interval_over": "images" if ends else None,
        "chance": measure.known_chance(arrays["y"]),
    }


# ------------------------------------------------------------------------------------- similarity


def make_similarity(tasks: Sequence[Task], context: Context) -> None:
    """Pair measures between the layers of two networks: CKA for all pairs, the others at the same depth."""
    with context.reporter.track("comparing layers", len(tasks)) as bar:
        for task in tasks:
            with failing_alone(task):
                _compare_networks(task)
            bar.advance(1, task.stage.name)


def _compare_networks(task: Task) -> None:
    params = task.stage.params
    here, there = (json.loads((task.inputs[which] / LAYERS).read_text()) for which in ("embedding", "other"))
    labels = np.load(task.inputs["probe"] / "labels.npy")
    same_depth = {tuple(pair) for pair in params["same_depth"]}
    rows = []
    for view in here["views"]:
        own, others = (
            [prepare(read_vectors(task.inputs[which], tap["order"], view)) for tap in side["taps"]]
            for which, side in (("embedding", here), ("other", there))
        )
        for name in params["names"]:
            measure = MEASURES[name]
            table = similarity_table(measure.function, own, others) if name == "cka" else None
            for i, tap in enumerate(here["taps"]):
                for j, other in enumerate(there["taps"]):
                    if table is None and (i, j) not in same_depth:
                        continue
                    value = float(table[i, j]) if table is not None else measure.function(own[i], others[j])
                    chance = measure.known_chance(labels)
                    if measure.chance == "shuffled":
                        chance = measure.function(own[i], _shuffled_rows(task.inputs["other"], other["order"], view))
                    place = {"layer": tap["layer"], "other_layer": other["layer"], "view": view, "measure": name}
                    rows.append({**place, "value": value, "chance": chance})
    schema = {"value": pl.Float32, "chance": pl.Float32}
    pl.DataFrame(rows, schema_overrides=schema).write_parquet(task.folder / "similarity.parquet")
    task.finish()


def _shuffled_rows(folder: Path, order: int, view: str) -> Floats:
    """The layer on other images: what is then alike is chance."""
    vectors = read_vectors(folder, order, view)
    return vectors[np.random.default_rng(derive_seed("shuffled rows")).permutation(len(vectors))]


# ---------------------------------------------------------------------------------------- factors


def make_factors(tasks: Sequence[Task], context: Context) -> None:
    """How much of each layer is known factors of the images, and what the rest tells of the classes."""
    with context.reporter.track("known factors", len(tasks)) as bar:
        for task in tasks:
            with failing_alone(task):
                _explain_network(task)
            bar.advance(1, task.stage.name)


def _explain_network(task: Task) -> None:
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
    task.finish()


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
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -(np.exp(log_p) * log_p).sum(axis=1) / np.log(2)


# ------------------------------------------------------------------------------- neighbour credit


def make_credit(tasks: Sequence[Task], context: Context) -> None:
    """Which of the teacher's neighbours a network shares with its plain companion, gained, lost or invented."""
    for task in tasks:
        with failing_alone(task):
            _credit_network(task)


def _credit_network(task: Task) -> None:
    labels = np.load(task.inputs["probe"] / "labels.npy")
    keys = ["layer", "view"]
    own, plain, teacher = (
        pl.read_parquet(task.inputs[which] / "neighbours.parquet").partition_by(keys, as_dict=True)
        for which in ("own", "plain", "teacher")
    )
    frames = []
    for layer, other in task.stage.params["teacher_layers"]:
        for view in sorted({view for _, view in own}):
            places = (own[layer, view], plain[layer, view], teacher[other, view])
            mine, its, theirs = (_ids(part) for part in places)
            counts = neighbour_credit(mine, its, theirs, labels)
            frames.append(
                pl.DataFrame({"sample_id": np.arange(len(labels), dtype=np.int32), **counts}).with_columns(
                    pl.selectors.matches("_(same|other)$").cast(pl.UInt8), layer=pl.lit(layer), view=pl.lit(view)
                )
            )
    pl.concat(frames).write_parquet(task.folder / "credit.parquet")
    task.finish()


def _ids(frame: pl.DataFrame) -> NDArray[Any]:
    return frame.sort("sample_id")["ids"].list.head(PUBLISHED_NEIGHBOURS).list.to_array(PUBLISHED_NEIGHBOURS).to_numpy()
