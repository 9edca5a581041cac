"""Measures against known answers, scikit-learn, and the transformations that must not change them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.metrics import silhouette_samples as sklearn_silhouette
from sklearn.metrics import silhouette_score

from kdpipe import measures as m
from kdpipe.measures import distances
from kdpipe.measures.hsic import kernel_product

LABELS = np.array([0, 0, 1, 1])
PAIRS = np.array([[0.0], [1.0], [10.0], [11.0]])


def clusters(n: int = 300, d: int = 20, classes: int = 5, seed: int = 0, apart: float = 1.0):
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n)
    return (apart * random.normal(size=(classes, d))[y] + random.normal(size=(n, d))).astype(np.float32), y


def differences(X):
    """All distances the slow and exact way."""
    X = np.asarray(X, np.float64)
    return np.sqrt(np.square(X[:, None] - X[None]).sum(axis=2))


def slow_neighbours(X, k):
    distance = differences(X)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, :k]


def rotation(d: int, seed: int = 0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


small_tables = arrays(np.float32, st.tuples(st.integers(12, 40), st.integers(1, 4)), elements=st.integers(-4, 4))


# --------------------------------------------------------------------------------- neighbours


@given(small_tables)
def test_neighbours_of_a_lattice_are_exact_and_ties_go_to_the_smaller_index(X):
    indices, distance = m.nearest_neighbours(X, 3)
    assert (indices == slow_neighbours(X, 3)).all()
    assert distance == pytest.approx(np.take_along_axis(differences(X), indices.astype(int), 1), rel=1e-5)


@pytest.mark.parametrize("d", [3, 100])
def test_neighbours_of_a_tight_cluster_far_from_the_mean_survive_cancellation(d, monkeypatch):
    X = np.random.default_rng(0).normal(size=(200, d)).astype(np.float32)
    X[:80] = X[0] * 1e-4 + 500 + 1e-3 * X[:80]
    monkeypatch.setattr(distances, "BLOCK_VALUES", 5000)
    assert (m.nearest_neighbours(X, 10)[0] == slow_neighbours(X, 10)).all()


def test_many_duplicates_are_neighbours_at_distance_zero_in_index_order():
    X = np.random.default_rng(0).normal(size=(120, 100)).astype(np.float32)
    X[20:70] = 0
    indices, distance = m.nearest_neighbours(X, 5)
    assert indices[20].tolist() == [21, 22, 23, 24, 25]
    assert indices[69].tolist() == [20, 21, 22, 23, 24]
    assert (distance[20:70] == 0).all()
    assert (indices != np.arange(120)[:, None]).all()


def test_neighbours_have_the_declared_types_and_fill_up_to_n_minus_one():
    indices, distance = m.nearest_neighbours(PAIRS, 3)
    assert indices.dtype == np.int32
    assert distance.dtype == np.float32
    assert indices.tolist() == [[1, 2, 3], [0, 2, 3], [3, 1, 0], [2, 1, 0]]


def test_values_whose_squares_overflow_are_scaled_first():
    assert m.nearest_neighbours(PAIRS * 1e30, 1)[1] == pytest.approx(np.full((4, 1), 1e30), rel=1e-5)


def test_votes_are_for_the_most_frequent_label_and_ties_for_the_smallest():
    y = np.array([7, 7, 3, 3, 5])
    assert m.knn_vote(np.array([[0, 2, 3], [0, 2, 4], [0, 1, 2], [0, 2, 3], [3, 4, 0]]), y, k=3).tolist() == [
        3,
        3,
        7,
        3,
        3,
    ]


def test_knn_accuracy_of_separate_classes_is_one_and_of_noise_is_chance():
    X, y = clusters(apart=20.0)
    assert m.knn_accuracy(X, y) == 1
    # Over all 70 ways to label eight images by halves, the nearest has the own label 3 times in 7.
    noise = np.random.default_rng(1).normal(size=(8, 5))
    halves = [np.isin(np.arange(8), chosen).astype(int) for chosen in combinations(range(8), 4)]
    assert np.mean([m.knn_accuracy(noise, y, k=1) for y in halves]) == pytest.approx(3 / 7)


# ----------------------------------------------------------------------------- class structure


def test_silhouette_of_two_pairs():
    assert m.silhouette(PAIRS, LABELS) == pytest.approx(0.899749, abs=1e-6)
    assert m.intra_inter(PAIRS, LABELS) == pytest.approx(1 / 10)


@pytest.mark.parametrize("d", [20, 300])
def test_silhouette_equals_scikit_learn(d):
    X, y = clusters(d=d)
    y[0] = 9  # alone in its class
    assert m.silhouette_samples(X, y) == pytest.approx(sklearn_silhouette(X.astype(np.float64), y), abs=1e-6)
    assert m.silhouette(X, y, balanced=False) == pytest.approx(silhouette_score(X, y), abs=1e-6)
    assert m.silhouette_samples(X, y)[0] == 0


def test_balanced_silhouette_gives_each_class_the_same_weight():
    X, y = clusters()
    samples = m.silhouette_samples(X, y)
    assert m.silhouette(X, y) == pytest.approx(np.mean([samples[y == label].mean() for label in range(5)]))
    assert m.class_means(samples, y)[3] == pytest.approx(samples[y == 3].mean())


def test_intra_inter_equals_the_means_over_pairs():
    X, y = clusters(n=80)
    distance, same = differences(X), y[:, None] == y
    np.fill_diagonal(distance, np.nan)
    assert m.intra_inter(X, y) == pytest.approx(np.nanmean(distance[same]) / np.nanmean(distance[~same]), rel=1e-6)


@pytest.mark.parametrize("d", [20, 300])
def test_one_pass_equals_the_measures_one_by_one(d, monkeypatch):
    monkeypatch.setattr(distances, "BLOCK_VALUES", 7000)
    X, y = clusters(d=d)
    whole = m.layer_pass(X, y, k=25)
    assert (whole.neighbours == m.nearest_neighbours(X, 25)[0]).all()
    assert (whole.distances == m.nearest_neighbours(X, 25)[1]).all()
    assert whole.silhouette == pytest.approx(m.silhouette(X, y), abs=1e-6)
    assert whole.intra_inter == pytest.approx(m.intra_inter(X, y), abs=1e-6)
    assert whole.knn_accuracy == m.knn_accuracy(X, y)


def test_stretching_one_axis_changes_a_layer_measure():
    X, y = clusters(d=6)
    assert abs(m.silhouette(X * [10, 1, 1, 1, 1, 1], y) - m.silhouette(X, y)) > 0.01


def test_a_layer_that_tells_no_images_apart_scores_chance():
    X, y = np.full((60, 8), 0.1, np.float32), np.arange(60) % 3
    whole = m.layer_pass(X, y, k=20)
    assert whole.silhouette == 0
    assert whole.intra_inter == 1
    assert m.cka(X, clusters(n=60)[0]) == 0


# ------------------------------------------------------------------------------------ similarity


def gram_cka(X, Y):
    """Debiased CKA by the definition: kernels without diagonals, three terms."""

    def hsic(K, L):
        n, one = len(K), np.ones(len(K))
        K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
        first = np.trace(K @ L) + one @ K @ one * (one @ L @ one) / ((n - 1) * (n - 2))
        return first - 2 / (n - 2) * (one @ K @ L @ one)

    K, L = X @ X.T, Y @ Y.T
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


@pytest.mark.parametrize(("p", "q"), [(3, 200), (200, 300), (4, 5)])
def test_cka_equals_its_definition_in_both_forms(p, q):
    random = np.random.default_rng(0)
    X = random.normal(size=(40, p))
    Y = np.hstack([X @ random.normal(size=(p, q - 1)), random.normal(size=(40, 1))])
    assert m.cka(X, Y) == pytest.approx(gram_cka(X, Y), abs=1e-10)
    assert kernel_product(X, Y) == pytest.approx(np.square(X.T @ Y).sum())


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_cka_is_one_up_to_rotation_translation_and_scale_and_symmetric(seed):
    X, Y = clusters(n=50, d=8, seed=seed)[0], clusters(n=50, d=5, seed=seed + 1)[0]
    assert m.cka(X, 2.5 * X @ rotation(8, seed) + 3) == pytest.approx(1, abs=1e-5)
    assert m.cka(X, Y) == pytest.approx(m.cka(Y, X), abs=1e-12)
    assert -1 <= m.cka(X, Y) <= 1


def test_cka_changes_under_a_linear_map_and_under_another_order():
    X = np.random.default_rng(0).normal(size=(200, 4))
    assert m.cka(X, X * [20, 1, 1, 1]) < 0.9
    assert abs(m.cka(X, X[::-1])) < 0.2


# ----------------------------------------------------------------------------------- map quality


@pytest.mark.parametrize("k", [5, 15])
def test_trustworthiness_and_continuity_equal_scikit_learn(k, monkeypatch):
    monkeypatch.setattr(distances, "BLOCK_VALUES", 7000)
    X, _ = clusters(d=30)
    layout = X[:, :2] + 0.5 * X[:, 2:4]
    assert m.trustworthiness(X, layout, k) == pytest.approx(sklearn_trustworthiness(X, layout, n_neighbors=k), abs=1e-5)
    assert m.continuity(X, layout, k) == pytest.approx(sklearn_trustworthiness(layout, X, n_neighbors=k), abs=1e-5)


def test_a_map_of_itself_keeps_everything_even_with_ties():
    X = np.array([[i // 7, i % 7] for i in range(49)], np.float32)
    whole = m.map_pass(X, 3 * X + 1, k=8)
    assert (whole.trustworthiness, whole.continuity, whole.knn_recall) == (1, 1, 1)
    assert (whole.misplacement == 0).all()


def test_one_pass_over_a_map_equals_its_measures_and_takes_known_neighbours():
    X, _ = clusters()
    layout, known = X[:, :2], m.nearest_neighbours(X, 40)[0]
    whole = m.map_pass(X, layout, neighbours=known)
    assert whole.trustworthiness == m.trustworthiness(X, layout, neighbours=known) == m.trustworthiness(X, layout)
    assert whole.continuity == m.continuity(X, layout)
    assert whole.knn_recall == m.knn_recall(X, layout) == pytest.approx(1 - m.misplacement(X, layout).mean())


def test_misplacement_counts_the_neighbours_that_a_moved_point_lost():
    X = np.arange(40.0)[:, None]
    layout = np.hstack([X, 0 * X])
    layout[10] = 1000
    lost = m.misplacement(X, layout, k=2)
    assert lost[10] == 1
    assert lost[9] == lost[11] == 0.5
    assert lost[30] == 0


# ------------------------------------------------------------------------------------- intervals


def test_bootstrap_interval_has_the_width_of_the_standard_error_and_is_repeatable():
    values = np.random.default_rng(0).normal(size=2000)
    low, high = m.bootstrap_mean(values, seed=1)
    # Either end is a quantile of 1,000 means: three standard errors of half their distance, in standard deviations.
    luck = 3 * np.sqrt(0.025 * 0.975 / 1000) / norm.pdf(1.96) / np.sqrt(2) / 1.96
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(2000), rel=luck)
    assert low < values.mean() < high
    assert (low, high) == m.bootstrap_mean(values, seed=1) != m.bootstrap_mean(values, seed=2)


def test_bootstrap_within_strata_surrounds_the_balanced_mean_and_leaves_out_their_difference():
    y = np.repeat([0, 1], [90, 10])
    low, high = m.bootstrap_mean(y * 1.0, seed=0, strata=y)
    assert low == high == 0.5


# ------------------------------------------------------------------------------- what is refused


def changed(X, value):
    X = X.astype(np.float64).copy()
    X[3, 1] = value
    return X


X0, Y0 = clusters(n=40, d=5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: m.nearest_neighbours(X0, 40), "between 1 and N - 1"),
        (lambda: m.nearest_neighbours(X0, 0), "between 1 and N - 1"),
        (lambda: m.nearest_neighbours(X0[:, 0], 2), "table"),
        (lambda: m.nearest_neighbours(changed(X0, np.nan), 2), "NaN"),
        (lambda: m.nearest_neighbours(changed(X0, np.inf), 2), "infinity"),
        (lambda: m.layer_pass(X0, Y0, k=50), "40 rows"),
        (lambda: m.layer_pass(X0, 0 * Y0, k=5), "two classes"),
        (lambda: m.layer_pass(X0, Y0[:-1], k=5), "one label for each"),
        (lambda: m.layer_pass(X0, Y0 / 2, k=5), "whole numbers"),
        (lambda: m.silhouette(X0, 0 * Y0), "two classes"),
        (lambda: m.intra_inter(X0, np.arange(40)), "two images"),
        (lambda: m.knn_vote(np.zeros((40, 5), int), Y0), "between 1 and the 5"),
        (lambda: m.cka(X0[:3], X0[:3]), "at least 4 rows"),
        (lambda: m.cka(X0, X0[:9]), "same images"),
        (lambda: m.cka(X0, changed(X0, np.nan)), "NaN"),
        (lambda: m.trustworthiness(X0, X0[:, :2], k=20), "below N / 2"),
        (lambda: m.continuity(X0, X0[:9, :2]), "the layout has 9"),
        (lambda: m.map_pass(X0, X0[:, :2], neighbours=np.zeros((40, 3))), "at least 15"),
        (lambda: m.bootstrap_mean(np.array([]), 0), "at least one value"),
        (lambda: m.bootstrap_mean(np.array([1.0]), 0, level=1.5), "between 0 and 1"),
        (lambda: m.bootstrap_mean(np.ones(3), 0, strata=np.ones(2)), "strata"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(call, says):
    with pytest.raises(ValueError, match=says) as raised:
        call()
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


# -------------------------------------------------------------------------------------- registry


def test_every_measure_is_within_its_range_and_better_than_chance_on_separate_classes():
    X, y = clusters(apart=5.0)
    random = np.random.default_rng(0)
    arrays = {"X": X, "y": y, "X_train": X, "y_train": y, "Y": X[:, :7], "layout": X[:, :2], "other": X[:, 1:3]}
    shuffled = {"y": random.permutation(y), "Y": random.permutation(X[:, :7])}
    for name, measure in m.MEASURES.items():
        assert measure.name == name
        assert all((measure.title, measure.summary, measure.citation, measure.cost))
        if not set(measure.takes) <= set(arrays):
            continue  # measures of answers and factors, in files of their own
        value = measure.function(*(arrays[part] for part in measure.takes))
        chance = measure.known_chance(y)
        if measure.chance == "shuffled" and measure.direction != "neither":
            chance = measure.function(*({**arrays, **shuffled}[part] for part in measure.takes))
        assert measure.low is None or measure.low <= value
        assert measure.high is None or value <= measure.high
        if chance is not None and measure.direction != "neither":
            assert value > chance if measure.direction == "higher" else value < chance, name


def test_chance_of_knn_accuracy_is_the_share_of_the_largest_class():
    assert m.MEASURES["knn_accuracy"].known_chance(np.array([1, 1, 2, 3])) == 0.5
    assert m.MEASURES["knn_recall"].known_chance(np.zeros(101), k=10) == 0.1
