"""The one pass over all pairs: exact neighbours, sums that rounding does not spoil, several labellings, credit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_samples as sklearn_silhouette

from kdpipe import measures as m
from kdpipe.measures import tiles
from kdpipe.measures.distances import points


@pytest.fixture(params=[2048, 7, 64])
def tile(request, monkeypatch):
    """Tiles larger than the data, and so small that rows meet many of them."""
    monkeypatch.setattr(tiles, "TILE", request.param)
    return request.param


def slow_neighbours(X, k):
    distance = cdist(X.astype(np.float64), X.astype(np.float64))
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, :k], np.sort(distance, axis=1)[:, :k]


def layer(n=150, d=100, classes=4, seed=0, apart=0.5):
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n)
    return (apart * random.normal(size=(classes, d))[y] + random.normal(size=(n, d))).astype(np.float32), y


@pytest.mark.parametrize("d", [2, 100, 700])
def test_neighbours_are_exact_however_the_pass_is_cut(tile, d):
    X, y = layer(d=d)
    indices, distance = slow_neighbours(X, 20)
    found = m.layer_pass(X, y, 20)
    assert (found.neighbours == indices).all()
    assert found.distances == pytest.approx(distance, rel=2e-4)
    assert (m.nearest_neighbours(X, 20)[0] == indices).all()


@given(st.integers(0, 1000))
def test_order_survives_an_offset_that_swallows_most_digits(seed):
    """Distances of 1e-3 at 300 from the mean: float32 products alone put them in the wrong order."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(120, 30)).astype(np.float32)
    X[:60] = (300 + 1e-3 * X[:60]).astype(np.float32)
    assert (m.nearest_neighbours(X, 12)[0] == slow_neighbours(X, 12)[0]).all()


def test_many_equal_distances_go_to_the_smaller_index(tile):
    X = np.zeros((90, 70), np.float32)
    X[60:] = np.random.default_rng(0).normal(size=(30, 70))
    assert (m.nearest_neighbours(X, 5)[0] == slow_neighbours(X, 5)[0]).all()


def test_the_promised_rounding_is_kept():
    """Products of one sign are the worst case: every partial sum rounds."""
    random = np.random.default_rng(0)
    for d in (16, 300, 3000):
        of = points(random.random((64, d)).astype(np.float32) + 5)
        made = tiles.Tiles.of_points(of)
        truth = cdist(of.rows.astype(np.float64), of.rows.astype(np.float64), "sqeuclidean")
        for here, there, squared in made:
            rows = np.arange(64)[here]
            assert (abs(squared.numpy() - truth[here, there]) <= made.rounding(rows, truth[here, there])).all()


@pytest.mark.parametrize("d", [20, 400])
def test_sums_of_collapsed_classes_keep_their_digits(tile, d):
    """Classes a ten-thousandth as wide as they are apart, where float32 products would lose the width."""
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 150)
    X = (random.normal(size=(4, d))[y] + 1e-4 * random.normal(size=(150, d))).astype(np.float32)
    truth = sklearn_silhouette(X.astype(np.float64), y)
    assert m.silhouette_samples(X, y) == pytest.approx(truth, abs=1e-7)
    assert 1 - m.silhouette_samples(X, y) == pytest.approx(1 - truth, rel=1e-3)


def test_two_labellings_of_one_pass_are_those_of_two_passes(tile):
    X, y = layer()
    shuffled = np.random.default_rng(0).permutation(y)
    for found, labels in zip(m.layer_passes(X, [y, shuffled], 20), (y, shuffled), strict=True):
        alone = m.layer_pass(X, labels, 20)
        assert found.silhouette == pytest.approx(alone.silhouette, abs=1e-6)
        assert found.soft_nn == pytest.approx(alone.soft_nn, rel=1e-5)
        assert found.intra_inter == pytest.approx(m.intra_inter(X, labels), rel=1e-6)
        assert (found.knn_vote == alone.knn_vote).all()
    first, second = m.layer_passes(X, [y, shuffled], 20)
    assert first.silhouette > 0.05 > second.silhouette


def test_soft_nearest_neighbours_by_the_definition(tile):
    X, y = layer(n=60, d=5)
    squared = cdist(X.astype(np.float64), X.astype(np.float64), "sqeuclidean")
    temperature = squared.sum() / (60 * 59)
    weights = np.exp(-squared / temperature)
    np.fill_diagonal(weights, 0)
    own = (weights * (y[:, None] == y)).sum(1)
    assert m.soft_nn(X, y) == pytest.approx(-np.log(own / weights.sum(1)).mean(), rel=1e-5)


def test_soft_nearest_neighbours_of_two_pairs_and_of_one_place():
    """Pairs 0, 1 and 10, 11: the mean square is 67.67, so a partner weighs .985 and the two others .14 to .30."""
    X, y = np.array([[0.0], [1.0], [10.0], [11.0]]), np.array([0, 0, 1, 1])
    mean = (1 + 100 + 121 + 81 + 100 + 1) / 6
    near, middle, far, close = (np.exp(-s / mean) for s in (1, 100, 121, 81))
    by_hand = -np.log([near / (near + middle + far), near / (near + close + middle)]).mean()
    assert m.soft_nn(X, y) == pytest.approx(by_hand, rel=1e-6)
    assert m.soft_nn(np.zeros((6, 2)), np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(np.log(5 / 2))


@given(st.integers(0, 1000), st.sampled_from([1e-30, 1e-3, 1e4, 1e30]))
@settings(max_examples=20, deadline=None)
def test_no_measure_of_the_pass_minds_the_scale_or_the_place(seed, scale):
    X, y = layer(n=60, d=6, seed=seed)
    X = X.astype(np.float64)
    here, there = m.layer_pass(X, y, 10), m.layer_pass(scale * X, y, 10)
    assert there.soft_nn == pytest.approx(here.soft_nn, rel=1e-5)
    assert there.twonn == pytest.approx(here.twonn, rel=1e-3)
    assert there.mle_dimension == pytest.approx(here.mle_dimension, rel=1e-3)
    assert (there.neighbours == here.neighbours).all()


def test_stretching_an_axis_changes_what_the_pass_says():
    X, y = layer(n=100, d=6)
    wide = X * np.array([10, 1, 1, 1, 1, 1], np.float32)
    assert abs(m.soft_nn(wide, y) - m.soft_nn(X, y)) > 0.01
    assert m.layer_pass(wide, y, 20).mle_dimension < m.layer_pass(X, y, 20).mle_dimension


def test_an_image_alone_in_its_class_has_no_soft_neighbours():
    X, y = layer(n=40, d=3, classes=2)
    y[0] = 9
    assert np.isfinite(m.soft_nn(X, y))
    with pytest.raises(ValueError, match="at least two images"):
        m.soft_nn(X[:3], np.array([0, 1, 2]))


# ----------------------------------------------------------------------------------------- credit


def test_credit_of_one_image_by_hand():
    """Own 1 2 3, plain 1 4 5, teacher 1 2 4: 1 is kept, 2 gained, 4 lost, 3 invented; 5 counts nowhere."""
    own, plain, teacher = (np.array([ids] + [[0, 1, 2]] * 5) for ids in ([1, 2, 3], [1, 4, 5], [1, 2, 4]))
    found = m.neighbour_credit(own, plain, teacher, np.array([7, 7, 8, 7, 8, 7]))
    first = {name: int(counts[0]) for name, counts in found.items()}
    assert first == {
        "kept_same": 1, "kept_other": 0, "gained_same": 0, "gained_other": 1,
        "lost_same": 0, "lost_other": 1, "invented_same": 1, "invented_other": 0,
    }  # fmt: skip


@given(st.integers(0, 1000))
def test_credit_adds_up(seed):
    random = np.random.default_rng(seed)
    own, plain, teacher = (np.array([random.permutation(20)[:6] for _ in range(20)]) for _ in range(3))
    found = m.neighbour_credit(own, plain, teacher, random.integers(0, 3, 20))
    total = {kind: found[f"{kind}_same"] + found[f"{kind}_other"] for kind in ("kept", "gained", "lost", "invented")}
    for i in range(20):
        mine, its, theirs = set(own[i]), set(plain[i]), set(teacher[i])
        assert total["kept"][i] == len(mine & its & theirs)
        assert total["gained"][i] == len((mine & theirs) - its)
        assert total["lost"][i] == len((its & theirs) - mine)
        assert total["invented"][i] == len(mine - its - theirs)
    swapped = m.neighbour_credit(plain, own, teacher, np.zeros(20, int))
    assert (swapped["gained_same"] == total["lost"]).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda ids: (ids[:, :2], ids, ids), "one shape"),
        (lambda ids: (ids, ids[:3], ids), "one shape"),
        (lambda ids: (ids + 5, ids, ids), "not among the 5 images"),
    ],
)
def test_credit_refuses_what_does_not_fit(change, says):
    ids = np.array([[1, 2, 3]] * 5)
    with pytest.raises(ValueError, match=says):
        m.neighbour_credit(*change(ids), np.zeros(5, int))
