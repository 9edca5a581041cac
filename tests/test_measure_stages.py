"""The measure stages on embeddings made up here: specification variants, and measures beside the teacher's answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import silhouette_samples as sklearn_silhouette
from sklearn.preprocessing import StandardScaler

from kdpipe.cli.progress import Silent
from kdpipe.engine.cache import Cache
from kdpipe.engine.run import run
from kdpipe.engine.stage import Context, Stage, batch_stage
from kdpipe.measures import dark_knowledge, knn_vote, nearest_neighbours, soft_labels, standardise
from kdpipe.pipeline.stages.embeddings import embedding_file, reference_file
from kdpipe.pipeline.stages.image_measures import make_image_measures
from kdpipe.pipeline.stages.layer_measures import make_measures
from kdpipe.pipeline.stages.neighbours import make_neighbours
from kdpipe.representation.embed import read_embedding, write_embedding

N, K, D = 80, 5, 6
LABELS = np.arange(N) % K


def layer(seed: int, n: int = N, d: int = D):
    """Classes that overlap, in columns of very different widths, one of them constant."""
    random = np.random.default_rng(seed)
    X = 1.2 * np.random.default_rng(0).normal(size=(K, d))[np.arange(n) % K] + random.normal(size=(n, d))
    X[:, 1] *= 100
    X[:, 2] = 0.3
    return X.astype(np.float32)


@batch_stage("probe")
def make_probe(tasks, context):
    for task in tasks:
        labels = LABELS % task.stage.params["classes"]
        np.save(task.folder / "labels.npy", labels)
        np.save(task.folder / "reference_labels.npy", labels)
        task.finish()


@batch_stage("embedding")
def make_layers(tasks, context):
    """An embedding of one layer, all images alike if the scale is 0, with logits unless the network is raw pixels."""
    for task in tasks:
        params, sample_id = task.stage.params, np.arange(N, dtype=np.int32)
        for file in (embedding_file, reference_file):
            write_embedding(file(task.folder, 0, "gap"), params["scale"] * layer(params["seed"]), sample_id)
        if params["logits"] is not None:
            drawn = np.random.default_rng(params["seed"]).normal(size=(N, K)).astype(np.float32)
            with np.errstate(over="ignore"):  # beyond all numbers on purpose
                np.save(task.folder / "logits.npy", params["logits"] * (3 * np.eye(K)[LABELS] + drawn))
        tap = {"layer": "layer1", "order": 0, "relative_depth": 0.0, "mac_share": 0.0, "shape": [D, 1, 1]}
        (task.folder / "layers.json").write_text(json.dumps({"taps": [tap], "views": ["gap"], "dims": {}}))
        task.finish()


class Lab:
    """One probe, and embeddings to measure."""

    def __init__(self, root: Path, classes: int = K) -> None:
        self.root, self.cache = root, Cache(root / "cache")
        self.probe = make_probe.plan("probe", {"classes": classes})

    def embedding(self, seed: int, scale: float = 1.0, logits: float | None = 1.0) -> Stage:
        return make_layers.plan(f"e{seed} {scale} {logits}", {"seed": seed, "scale": scale, "logits": logits})

    def run(self, *stages: Stage):
        return run(stages, self.cache, Context("cpu", self.root, Silent(), self.root / "scratch", {}))

    def measured(self, embedding: Stage, second_k: int | None, k: int = 8) -> dict[str, pl.DataFrame]:
        """Every table of the stages that measure one network; those of one measure after its name."""
        inputs = {"probe": self.probe, "embedding": embedding}
        neighbours = make_neighbours.plan("neighbours", {"neighbours": max(50, k, second_k or 0)}, inputs)
        inputs = {**inputs, "neighbours": neighbours}
        images = make_image_measures.plan("images", {"k": k, "second_k": second_k}, inputs)
        measures = {
            f"{name} ": make_measures.plan(name, {"measure": name, "version": 1, "k": k}, inputs, batch="all")
            for name in ("silhouette", "knn_accuracy")
        }
        assert not self.run(neighbours, images, *measures.values()).failed
        return {
            prefix + path.stem: pl.read_parquet(path)
            for prefix, stages in {"": (neighbours, images), **{name: (one,) for name, one in measures.items()}}.items()
            for stage in stages
            for path in self.cache.path(stage).glob("*.parquet")
        }

    def beside(self, embedding: Stage, teacher: Stage):
        inputs = {"probe": self.probe, "embedding": embedding, "teacher": teacher}
        stage = make_measures.plan("t", {"measure": "dark_knowledge", "version": 1}, inputs)
        outcome = self.run(stage)
        return outcome, self.cache.path(stage) / "values.parquet"

    def vectors(self, embedding: Stage):
        return read_embedding(embedding_file(self.cache.path(embedding), 0, "gap"))


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


# ------------------------------------------------------------------------------- the standardised


@given(st.integers(0, 1000), st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
def test_columns_come_to_mean_zero_and_deviation_one_whatever_they_were(seed, scale):
    random = np.random.default_rng(seed)
    X = scale * (random.normal(size=(50, 4)) * [1, 1e3, 1e-4, 1] + [0, -7e3, 5e-4, 100])
    found = standardise(X)
    assert found.mean(axis=0) == pytest.approx(np.zeros(4), abs=1e-9)
    assert found.std(axis=0) == pytest.approx(np.ones(4))
    assert found == pytest.approx(StandardScaler().fit_transform(X / scale), abs=1e-9)


def test_constant_columns_and_layers_are_left_at_zero_and_nearly_constant_ones_are_not():
    X = np.array([[0.1, 1.0, 0.0], [0.1, 1.0, -0.0], [0.1, np.nextafter(1.0, 2), 0.0]])
    found = standardise(X)
    assert (found[:, [0, 2]] == 0).all()
    assert found[:, 1] == pytest.approx([-np.sqrt(0.5), -np.sqrt(0.5), np.sqrt(2)])
    assert (standardise(np.full((7, 2), 3.3, np.float32)) == 0).all()


def test_identical_rows_stay_identical_and_types_are_kept():
    X = layer(0)
    X[10:20] = X[3]
    found = standardise(X)
    assert found.dtype == np.float32 and standardise(X.astype(np.float64)).dtype == np.float64
    assert (found[10:20] == found[3]).all()
    assert standardise(1000 * X - 5) == pytest.approx(found, abs=1e-3)


@pytest.mark.parametrize("X", [np.zeros(3), np.zeros((3, 0)), np.array([[np.nan, 1.0]])])
def test_what_is_no_layer_is_refused(X):
    with pytest.raises(ValueError, match="X "):
        standardise(X)


# ----------------------------------------------------------------------------- variants per sample


@pytest.mark.parametrize("k", [8, 30])
def test_variants_are_what_scikit_learn_and_the_definitions_give(lab, k):
    embedding = lab.embedding(1)
    found = lab.measured(embedding, second_k=3, k=k)["samples"]
    X = lab.vectors(embedding).astype(np.float64)
    other = StandardScaler().fit_transform(X)
    expected = {
        "silhouette": sklearn_silhouette(X, LABELS),
        "silhouette_standardised": sklearn_silhouette(other, LABELS),
        "knn_correct": knn_vote(nearest_neighbours(X, k)[0], LABELS, k) == LABELS,
        "knn_correct_second": knn_vote(nearest_neighbours(X, 3)[0], LABELS, 3) == LABELS,
        "knn_correct_standardised": knn_vote(nearest_neighbours(other, k)[0], LABELS, k) == LABELS,
    }
    for name, values in expected.items():
        assert found[name].to_numpy() == pytest.approx(values, abs=1e-5), name
    columns = [found[name].to_list() for name in expected]
    assert all(columns[i] != columns[j] for i in range(5) for j in range(i))  # or the test could not tell them apart


def test_variants_are_empty_where_not_asked_for_and_change_nothing_else(lab):
    without, asked = (lab.measured(lab.embedding(1), second_k) for second_k in (None, 3))
    names = ["knn_correct_second", "silhouette_standardised", "knn_correct_standardised"]
    assert without["samples"].schema == asked["samples"].schema
    assert without["samples"].select(names).null_count().row(0) == (N, N, N)
    assert asked["samples"].select(names).null_count().row(0) == (0, 0, 0)
    assert without["samples"].drop(names).equals(asked["samples"].drop(names))
    measured = [f"{name} {table}" for name in ("silhouette", "knn_accuracy") for table in ("values", "classes")]
    for table in ("neighbours", "answers", *measured):
        assert without[table].equals(asked[table]), table


def test_a_second_k_beyond_the_cached_neighbours_is_served(lab):
    found = lab.measured(lab.embedding(1), second_k=70)["samples"]
    X = lab.vectors(lab.embedding(1))
    assert (
        found["knn_correct_second"].to_list() == (knn_vote(nearest_neighbours(X, 70)[0], LABELS, 70) == LABELS).tolist()
    )


def test_a_layer_without_any_structure_has_variants_too(lab):
    found = lab.measured(lab.embedding(1, scale=0.0), second_k=3)["samples"]
    assert (found["silhouette_standardised"] == 0).all() and found.null_count().sum_horizontal().item() == 0


# --------------------------------------------------------------------- beside the teacher's answers


@pytest.mark.parametrize("logits", [1.0, None])
def test_every_network_is_held_against_the_teachers_soft_labels(lab, logits):
    """Raw pixels, which answer nothing, have layers all the same."""
    embedding, teacher = lab.embedding(1, logits=logits), lab.embedding(2)
    outcome, path = lab.beside(embedding, teacher)
    assert not outcome.failed
    row = pl.read_parquet(path).row(0, named=True)
    taught = soft_labels(np.load(lab.cache.path(teacher) / "logits.npy"), 4.0)
    value = dark_knowledge(lab.vectors(embedding), LABELS, taught)
    assert row["value"] == pytest.approx(value, abs=1e-6) and row["chance"] == 0
    assert row["low"] < value < row["high"] and row["interval_over"] == "images"
    assert (row["measure"], row["layer"], row["view"]) == ("dark_knowledge", "layer1", "gap")


def test_what_is_not_defined_is_empty_and_never_a_failure(tmp_path):
    lab = Lab(tmp_path / "five")
    for teacher in (lab.embedding(2, logits=0.0), lab.embedding(2, logits=1e5)):  # indifferent; sure beyond all doubt
        outcome, path = lab.beside(lab.embedding(1), teacher)
        assert not outcome.failed
        row = pl.read_parquet(path).row(0, named=True)
        assert [row[name] for name in ("value", "low", "high", "interval_over")] == [None] * 4 and row["chance"] == 0
    few = Lab(tmp_path / "three", classes=3)
    outcome, path = few.beside(few.embedding(1), few.embedding(2))
    assert not outcome.failed and pl.read_parquet(path)["value"].to_list() == [None]


def test_a_layer_that_tells_no_images_apart_follows_nothing(lab):
    _, path = lab.beside(lab.embedding(1, scale=0.0), lab.embedding(2))
    assert pl.read_parquet(path).select("value", "low", "high").row(0) == (0, 0, 0)


def test_a_teacher_beyond_all_numbers_is_said_of_the_network(lab):
    outcome, path = lab.beside(lab.embedding(1), lab.embedding(2, logits=1e308))
    assert "Logits must be a table" in outcome.failed["t"] and not path.exists()
