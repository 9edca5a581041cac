"""Similarities of two layers against known answers, their definitions, and what must and must not change them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes, subspace_angles
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from kdpipe.measures import distances, prepared_layer, similarity, tiles
from kdpipe.measures.prepared_layer import prepare_layer
from kdpipe.measures.similarity import (
    cka,
    cka_rbf,
    cka_rbf_table,
    mutual_knn,
    procrustes,
    rsa,
    similarity_table,
    svcca,
)

ALL = {measure.name: measure.function for measure in similarity.MEASURES}
every = pytest.mark.parametrize("name", sorted(ALL))


def noise(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def related(n=60, p=6, q=4, seed=0):
    X = noise(n, p, seed) * np.arange(1, p + 1)
    return X, X @ noise(p, q, seed + 1) + noise(n, q, seed + 2)


def rotation(d, seed=0):
    return np.linalg.qr(noise(d, d, seed))[0]


def centred(X):
    return X - X.mean(axis=0)


def slow_hsic(K, L):
    """Song et al. (2012): kernels without diagonals, three terms."""
    n, one = len(K), np.ones(len(K))
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    first = np.trace(K @ L) + one @ K @ one * (one @ L @ one) / ((n - 1) * (n - 2))
    return (first - 2 / (n - 2) * (one @ K @ L @ one)) / (n * (n - 3))


def slow_rbf(X):
    pairs = pdist(X)
    return np.exp(-np.square(squareform(pairs)) / (2 * (0.4 * np.median(pairs[pairs > 0])) ** 2))


def slow_cka_rbf(X, Y):
    K, L = slow_rbf(X), slow_rbf(Y)
    return slow_hsic(K, L) / np.sqrt(slow_hsic(K, K) * slow_hsic(L, L))


# ------------------------------------------------------------------------- against definitions


@pytest.mark.parametrize(("p", "q"), [(1, 3), (6, 4), (90, 70)])
def test_each_equals_its_definition(p, q, monkeypatch):
    monkeypatch.setattr(distances, "BLOCK_VALUES", 1000)
    monkeypatch.setattr(tiles, "TILE", 40)
    X, Y = related(p=p, q=q)
    assert cka_rbf(X, Y) == pytest.approx(slow_cka_rbf(X, Y), abs=1e-6)
    assert rsa(X, Y) == pytest.approx(spearmanr(pdist(X), pdist(Y)).statistic, abs=1e-5)
    near = [np.argsort(squareform(pdist(Z)) + np.diag(np.full(60, np.inf)), axis=1)[:, :10] for Z in (X, Y)]
    assert mutual_knn(X, Y) == pytest.approx(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)]))


def test_procrustes_is_one_minus_half_the_squared_distance_after_the_best_rotation():
    X, Y = (centred(Z) / np.linalg.norm(centred(Z)) for Z in related(p=5, q=5))
    R, _ = orthogonal_procrustes(X, Y)
    assert procrustes(X, Y) == pytest.approx(1 - np.square(X @ R - Y).sum() / 2, abs=1e-12)
    padded = np.hstack([Y[:, :3], np.zeros((60, 2))])
    assert procrustes(X, Y[:, :3]) == pytest.approx(procrustes(X, padded), abs=1e-12)


@pytest.mark.parametrize(("n", "p", "q"), [(80, 6, 4), (30, 30, 5), (30, 50, 40)])
def test_svcca_is_the_mean_cosine_of_the_angles_between_the_main_subspaces(n, p, q):
    X, Y = related(n, p, q)

    def main(Z):
        U, s, _ = np.linalg.svd(centred(Z), full_matrices=False)
        share = np.cumsum(s**2) / np.square(s).sum()
        return U[:, : int(np.argmax(share >= 0.99)) + 1]

    assert prepare_layer(X).basis.shape == main(X).shape
    assert svcca(X, Y) == pytest.approx(np.cos(subspace_angles(main(X), main(Y))).mean(), abs=1e-9)


def test_svcca_drops_the_directions_that_hold_the_last_percent():
    X = noise(100, 3) * [10, 1, 0.1]
    assert prepare_layer(X).basis.shape == (100, 1 if np.var(X[:, 0]) / np.var(X, axis=0).sum() >= 0.99 else 2)
    assert prepare_layer(noise(100, 3)).basis.shape == (100, 3)
    assert svcca(np.c_[X[:, :2], 1e-3 * noise(100, 1, 5)], X) == pytest.approx(1)


def test_in_one_dimension_procrustes_and_svcca_are_the_absolute_correlation():
    X, Y = related(p=1, q=1)
    expected = abs(np.corrcoef(X[:, 0], Y[:, 0])[0, 1])
    assert procrustes(X, Y) == pytest.approx(expected)
    assert svcca(X, Y) == pytest.approx(expected)


def test_rsa_of_four_points_by_hand():
    # Distances 1 3 7 2 6 4 and 1 2 4 1 3 2: ranks 1 3 6 2 5 4 and 1.5 3.5 6 1.5 5 3.5.
    X, Y = np.array([[0.0], [1], [3], [7]]), np.array([[0.0], [1], [2], [4]])
    assert rsa(X, Y) == pytest.approx(np.corrcoef([1, 3, 6, 2, 5, 4], [1.5, 3.5, 6, 1.5, 5, 3.5])[0, 1])


def test_mutual_neighbours_of_a_line_and_its_fold_by_hand():
    # 0 1 2 3 4 5 against 0 1 2 with 3 4 5 laid beside them: pairs 1 apart on the line, .1 apart in the fold.
    X = np.array([[0.0], [1.01], [2.03], [3.06], [4.1], [5.15]])
    Y = np.array([[0.0], [1.01], [2.03], [2.13], [1.11], [0.1]])
    # Nearest in X: 1 0 1 2 3 4; nearest in Y: 5 4 3 2 1 0. Only 3 -> 2 is shared.
    assert mutual_knn(X, Y, k=1) == pytest.approx(1 / 6)


# --------------------------------------------------------------------------------- invariances


@every
@given(seed=st.integers(0, 10_000), p=st.sampled_from([1, 3, 80]))
@settings(max_examples=12, deadline=None)
def test_one_for_rotation_translation_and_scale_and_symmetric_and_in_range(name, seed, p):
    X, Y = related(p=p, seed=seed)
    moved = 2.5 * X @ rotation(p, seed) - 3
    measure = ALL[name]
    assert measure(X, moved) == pytest.approx(1, abs=2e-5)
    assert measure(X, X) == pytest.approx(1, abs=1e-9)
    assert measure(X, Y) == pytest.approx(measure(Y, X), abs=1e-12)
    assert measure(moved, Y) == pytest.approx(measure(X, Y), abs=2e-5)
    record = next(m for m in similarity.MEASURES if m.name == name)
    assert record.low <= measure(X, Y) <= record.high


@every
def test_the_order_of_images_matters_only_between_the_two(name):
    X, Y = related()
    order = np.random.default_rng(3).permutation(len(X))
    assert ALL[name](X[order], Y[order]) == pytest.approx(ALL[name](X, Y), abs=1e-9)
    assert ALL[name](X[order], Y) < ALL[name](X, Y) - 0.1


@every
def test_a_linear_map_changes_all_but_svcca(name):
    X = noise(200, 4)
    stretched = X * [4, 1, 1, 1]
    if name == "svcca":
        assert svcca(X, stretched) == pytest.approx(1)
    else:
        assert ALL[name](X, stretched) < 0.97


def test_the_local_kernel_sees_what_the_linear_one_does_not():
    # The same four tight clusters, put at other corners: near images stay near, far ones are rearranged.
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]])
    which, spread = np.repeat(np.arange(4), 30), 0.2 * noise(120, 2)
    X, Y = corners[which] + spread, corners[[0, 3, 1, 2]][which] + spread
    assert cka_rbf(X, Y) > cka(X, Y) + 0.15


# ---------------------------------------------------------------------------------- chance


@pytest.mark.parametrize("name", ["cka", "cka_rbf", "rsa", "mutual_knn"])
def test_a_known_chance_is_the_mean_over_all_orders_of_one_layers_images(name):
    """Exactly, over all 120 orders of five; a biased CKA would not come to 0."""
    record = next(m for m in similarity.MEASURES if m.name == name)
    near = {"k": 2} if record.k else {}
    X, Y = related(n=5, p=30, q=30)
    layer = prepare_layer(X)
    values = [ALL[name](layer, Y[list(order)], **near) for order in permutations(range(5))]
    assert record.known_chance(np.zeros(5, int), **near) == (2 / 4 if name == "mutual_knn" else 0)
    assert np.mean(values) == pytest.approx(record.known_chance(np.zeros(5, int), **near), abs=1e-7)
    assert np.std(values) > 0


def test_procrustes_and_svcca_are_high_by_chance_in_wide_layers():
    X, Y = noise(64, 512), noise(64, 512, 1)
    assert procrustes(X, Y) > 0.8
    assert svcca(X, Y) > 0.9
    assert abs(cka_rbf(X, Y)) < 0.1


# ------------------------------------------------------------------------- prepared layers


def test_tables_equal_the_measures_pair_by_pair(monkeypatch):
    monkeypatch.setattr(distances, "BLOCK_VALUES", 700)
    layers, others = [noise(60, 5), noise(60, 80, 1)], [*related(), noise(60, 1, 7)]
    slow = np.array([[cka_rbf(a, b) for b in others] for a in layers])
    assert cka_rbf_table(layers, others) == pytest.approx(slow, abs=1e-12)
    for measure in (cka, rsa, procrustes, mutual_knn, svcca):
        slow = np.array([[measure(a, b) for b in others] for a in layers])
        assert (similarity_table(measure, layers, others) == slow).all()


def test_a_table_centres_each_layer_once(monkeypatch):
    calls = []
    monkeypatch.setattr(prepared_layer, "unit_length", lambda X, centred: calls.append(1) or centred_unit(X))

    def centred_unit(X):
        return centred(X) / np.linalg.norm(centred(X))

    layers = [noise(20, 3, seed) for seed in range(3)]
    similarity_table(cka, layers, layers[:2])
    assert len(calls) == 5


def test_empty_tables_have_a_shape():
    assert similarity_table(cka, [], [noise(9, 2)]).shape == (0, 1)


def test_known_neighbours_are_used_and_a_longer_list_serves_a_smaller_k():
    X = noise(50, 4)
    layer = prepare_layer(X)
    known = layer.neighbours(20)
    assert (prepare_layer(X, known).neighbours(5) == prepare_layer(X).neighbours(5)).all()
    wrong = prepare_layer(X, (known + 25) % 50)
    assert mutual_knn(wrong, X, 10) < mutual_knn(prepare_layer(X, known), X, 10) == 1
    assert wrong.neighbours(30).shape == (50, 30)


def test_beyond_two_thousand_images_distances_are_those_of_a_fixed_sample(monkeypatch):
    X, Y = related(n=300)
    whole = rsa(X, Y)
    monkeypatch.setattr(prepared_layer, "PAIRS_OF_IMAGES", 100)
    assert prepare_layer(X).pair_distances.shape == (4950,)
    assert rsa(X, Y) == rsa(X, Y) != whole
    assert rsa(X, Y) == pytest.approx(whole, abs=0.1)
    assert rsa(X, X @ rotation(6) + 1) == pytest.approx(1, abs=1e-5)
    assert cka_rbf(X, Y) == pytest.approx(slow_cka_rbf(X, Y), abs=0.05)


def test_the_bandwidth_of_a_sample_is_in_the_units_of_all_rows(monkeypatch):
    monkeypatch.setattr(prepared_layer, "PAIRS_OF_IMAGES", 20)
    X = noise(200, 3)
    chosen = np.random.default_rng(0).choice(200, 20, replace=False)
    X[np.setdiff1d(np.arange(200), chosen)[0]] = 1000
    layer = prepare_layer(X)
    assert layer.bandwidth * layer.of.scale == pytest.approx(0.4 * np.median(pdist(X[chosen])), rel=1e-6)


# ------------------------------------------------------------------------------ degenerate layers


@every
def test_a_layer_that_tells_no_images_apart_scores_zero_even_beside_itself(name):
    dead, Y = np.full((40, 8), 0.1, np.float32), noise(40, 5)
    assert ALL[name](dead, Y) == 0
    assert ALL[name](dead, dead) == 0
    assert ALL[name](np.zeros((40, 100)), 3 + dead) == 0


@every
@pytest.mark.parametrize("d", [5, 100])
def test_many_dead_images_give_a_number_and_one_beside_a_rotation(name, d):
    X = noise(100, d)
    X[20:75] = 0
    X = np.round(X, 3)
    assert ALL[name](X, X @ rotation(d) + 1) == pytest.approx(1, abs=1e-4)
    assert -0.2 < ALL[name](X, noise(100, d, 9)) < 1


@every
def test_one_image_apart_from_the_rest_gives_a_number(name):
    X = np.zeros((30, 3))
    X[4] = 1
    assert np.isfinite(ALL[name](X, noise(30, 4)))
    assert np.isfinite(ALL[name](X, X))


@every
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_and_type_do_not_matter(name, scale):
    X, Y = related()
    expected = ALL[name](X, Y)
    assert ALL[name]((X * scale).astype(np.float32), Y * scale) == pytest.approx(expected, abs=1e-4)
    assert ALL[name](X.astype(np.float16), Y) == pytest.approx(expected, abs=0.02)
    assert np.isfinite(ALL[name](np.rint(X).astype(int), Y))
    assert ALL[name](X * 1e200, Y * 1e-200) == pytest.approx(expected, abs=1e-5)


@every
def test_a_constant_column_and_a_far_mean_change_nothing(name):
    X, Y = related()
    assert ALL[name](np.c_[X, np.full(60, 7.0)], Y) == pytest.approx(ALL[name](X, Y), abs=1e-5)
    assert ALL[name](X + 1e6, Y) == pytest.approx(ALL[name](X, Y), abs=1e-5)


@every
def test_the_least_layer_has_four_images(name):
    k = {"k": 2} if name == "mutual_knn" else {}
    assert np.isfinite(ALL[name](noise(4, 2), noise(4, 3, 1), **k))


def changed(X, value):
    X = X.copy()
    X[1, 1] = value
    return X


@every
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda X: X[:3], "at least 4 rows"),
        (lambda X: X[:20], "same images: X has .* rows"),
        (lambda X: X[:, 0], "table"),
        (lambda X: changed(X, np.nan), "NaN"),
        (lambda X: changed(X, np.inf), "infinity"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(name, change, says):
    X = noise(30, 3)
    for pair in ((X, change(X)), (change(X), X)):
        with pytest.raises(ValueError, match=says) as raised:
            ALL[name](*pair)
        assert str(raised.value).endswith(".")
        assert "\n" not in str(raised.value)


def test_wrong_neighbours_and_k_are_refused():
    X = noise(30, 3)
    with pytest.raises(ValueError, match="between 1 and N - 1"):
        mutual_knn(X, X, k=30)
    with pytest.raises(ValueError, match="between 1 and N - 1"):
        mutual_knn(np.zeros((30, 3)), X, k=0)
    with pytest.raises(ValueError, match="table of 30 rows"):
        prepare_layer(X, np.zeros((29, 5), int))
