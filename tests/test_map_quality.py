"""What a map keeps of far and near, against SciPy, hand-made maps and the transformations that must not change it."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from kdpipe.measures import distances, map_quality
from kdpipe.measures.map_quality import (
    MEASURES,
    displacement,
    false_neighbours,
    map_pass,
    missing_neighbours,
    random_rank_agreement,
    shepard,
    triplet_accuracy,
    trustworthiness,
)
from kdpipe.representation.alignment import align

# Five standard errors of the share that is sampled, at their largest.
LUCK_OF_TRIPLETS = 5 * 0.5 / np.sqrt(map_quality.TRIPLETS)


def cloud(n: int = 120, d: int = 6, seed: int = 0):
    X = np.random.default_rng(seed).normal(size=(n, d))
    return X, X[:, :2] + 0.5 * X[:, 2:4]


def slow_penalties(space, named, k):
    """Venna and Kaski's sum by its definition, from full rank tables."""
    n = len(space)
    distance = cdist(space, space)
    np.fill_diagonal(distance, -1)
    rank = np.argsort(np.argsort(distance, axis=1, kind="stable"), axis=1)
    beyond = np.maximum(np.take_along_axis(rank, named, 1) - k, 0).sum(axis=1)
    return 2 * beyond / (k * (2 * n - 3 * k - 1))


def nearest(space, k):
    return np.argsort(cdist(space, space), axis=1, kind="stable")[:, 1 : k + 1]


# ------------------------------------------------------------------- false and missing neighbours


@pytest.mark.parametrize("k", [1, 7, 30])
def test_false_and_missing_neighbours_equal_the_definition_and_average_to_the_known_measures(k, monkeypatch):
    monkeypatch.setattr(distances, "BLOCK_VALUES", 3000)
    X, layout = cloud()
    false, missing = false_neighbours(X, layout, k), missing_neighbours(X, layout, k)
    assert false == pytest.approx(slow_penalties(X, nearest(layout, k), k), abs=1e-12)
    assert missing == pytest.approx(slow_penalties(layout, nearest(X, k), k), abs=1e-12)
    whole = map_pass(X, layout, k)
    assert whole.trustworthiness == trustworthiness(X, layout, k) == pytest.approx(1 - false.mean(), abs=1e-12)
    assert whole.continuity == pytest.approx(1 - missing.mean(), abs=1e-12)
    assert (whole.false_neighbours == false).all()
    assert (whole.missing_neighbours == missing).all()


def test_a_fold_gives_false_neighbours_and_a_tear_gives_missing_ones():
    line = np.arange(60.0)[:, None]
    folded = np.minimum(line, 59 - line) + 0.01 * (line > 29)
    ring = np.column_stack([np.cos(line * np.pi / 30), np.sin(line * np.pi / 30)])
    opened = map_pass(ring, line, k=4)
    assert opened.missing_neighbours[[0, 59]].min() > 10 * opened.false_neighbours[[0, 59]].max()
    fold = map_pass(line, folded, k=4)
    assert fold.false_neighbours[[0, 59]].min() > 10 * fold.missing_neighbours[[0, 59]].max()


def test_penalties_of_a_moved_point_by_hand():
    X = np.arange(9.0)[:, None]
    layout = X.copy()
    layout[0] = 4.4
    # Shown beside 4 and 5, ranked 4th and 5th in X; its own 1 and 2 are ranked 7th and 5th on the map.
    assert false_neighbours(X, layout, k=2)[0] == pytest.approx(2 * (2 + 3) / (2 * (18 - 6 - 1)))
    assert missing_neighbours(X, layout, k=2)[0] == pytest.approx(2 * (5 + 3) / (2 * (18 - 6 - 1)))
    layout[0] = 8.4  # beside the two that are farthest in X, and farthest from its own two
    assert false_neighbours(X, layout, k=2)[0] == missing_neighbours(X, layout, k=2)[0] == 1


def test_the_mean_over_all_orders_of_the_layout_is_the_floor():
    """Exactly, of images one by one: over all 720 orders each has each rank equally often."""
    X, layout = cloud(n=6)
    orders = list(permutations(range(6)))
    for penalties in (false_neighbours, missing_neighbours):
        found = np.array([penalties(X, layout[list(order)], k=2) for order in orders])
        assert found.mean(axis=0) == pytest.approx(np.full(6, 1 - random_rank_agreement(6, 2)), abs=1e-12)
        assert found.min() == 0 and found.max() == 1


# ------------------------------------------------------------------------------------- distances


def all_distances(X):
    return cdist(X, X)[np.triu_indices(len(X), 1)]


@pytest.mark.parametrize("lattice", [False, True])
def test_shepard_equals_scipy_on_all_pairs(lattice):
    X, layout = cloud()
    if lattice:  # many tied distances
        X, layout = np.rint(X), np.rint(layout)
    expected = spearmanr(all_distances(X), all_distances(layout)).statistic
    assert shepard(X, layout) == pytest.approx(expected, abs=1e-12)
    assert 0.3 < expected < 0.99


def test_shepard_of_three_points_by_hand():
    line = np.array([[0.0], [1.0], [3.0]])  # distances 1, 3, 2
    assert shepard(line, np.array([[0.0], [1.0], [-1.5]])) == pytest.approx(0.5)  # distances 1, 1.5, 2.5
    assert shepard(line, line[[0, 2, 1]]) == pytest.approx(-1)
    assert shepard(line, line**2) == pytest.approx(1)


def test_a_sample_of_pairs_is_near_the_whole_and_repeatable(monkeypatch):
    X, layout = cloud(n=300)
    whole = shepard(X, layout)
    monkeypatch.setattr(map_quality, "ALL_PAIRS_UP_TO", 100)
    monkeypatch.setattr(map_quality, "SAMPLED_PAIRS", 20_000)
    assert shepard(X, layout) == shepard(X, layout) != whole
    assert shepard(X, layout) == pytest.approx(whole, abs=0.02)
    assert shepard(X, X) == pytest.approx(1)


def every_triplet(X, layout):
    true, shown = cdist(X, X), cdist(layout, layout)
    kept = []
    for i in range(len(X)):
        for j in range(len(X)):
            for k in range(j):
                if i not in (j, k) and true[i, j] != true[i, k]:
                    sign = np.sign(true[i, j] - true[i, k]) * np.sign(shown[i, j] - shown[i, k])
                    kept.append((1 + sign) / 2)
    return np.mean(kept)


@pytest.mark.parametrize("lattice", [False, True])
def test_triplet_accuracy_is_near_that_of_all_triplets(lattice):
    X, layout = cloud(n=40)
    if lattice:
        X, layout = np.rint(X), np.rint(layout)
    assert triplet_accuracy(X, layout) == pytest.approx(every_triplet(X, layout), abs=LUCK_OF_TRIPLETS)


def test_triplets_are_of_three_different_images():
    """With the map turned inside out not one triplet is kept; a repeated image would tie and count half."""
    line = np.array([[0.0], [1.0], [3.0]])
    inside_out = np.array([[1.0, 0.0], [0.0, 0.0], [0.2, 0.0]])
    # Nearer to 0 is 1 (map: 2), to 1 is 0 (map: 2), to 3 is 1 (map: 1).
    assert triplet_accuracy(line, inside_out) == pytest.approx(1 / 3, abs=1e-4)
    assert triplet_accuracy(line, line) == 1


@pytest.mark.parametrize("measure", [shepard, triplet_accuracy])
def test_a_map_that_shows_one_point_or_a_layer_that_is_one_scores_the_floor(measure):
    X, layout = cloud()
    floor = {m.function: m.chance for m in MEASURES}[measure]
    assert measure(X, 0 * layout) == floor
    assert measure(0 * X, layout) == floor
    assert measure(np.full_like(X, 0.1), layout) == floor


@given(st.integers(0, 10_000), st.sampled_from([shepard, triplet_accuracy]))
@settings(max_examples=10, deadline=None)
def test_far_measures_ignore_rotation_translation_and_scale_on_either_side(seed, measure):
    X, layout = cloud(n=60, seed=seed)
    random = np.random.default_rng(seed)
    turn, turn_2 = (np.linalg.qr(random.normal(size=(d, d)))[0] for d in (6, 2))
    value = measure(X, layout)
    assert measure(3 * X @ turn + 1, layout @ turn_2 / 7 - 2) == pytest.approx(value, abs=1e-9)
    assert measure(X * 1e30, layout * 1e-30) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(("measure", "value"), [(shepard, 0.5), (triplet_accuracy, 2 / 3)])
def test_a_stretched_axis_changes_what_far_measures_say_by_hand(measure, value):
    """A right angle of sides 2 and 1 against one of sides 2 and 20.

    Distances rank 2 1 3 and 1 2 3, and the corner's nearer end is the other one.
    """
    angle = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    assert measure(angle, angle) == 1
    assert measure(angle * [1, 20], angle) == pytest.approx(value, abs=LUCK_OF_TRIPLETS)


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_shepard_ignores_the_order_of_images_and_is_symmetric(seed):
    X, layout = cloud(n=50, seed=seed)
    order = np.random.default_rng(seed).permutation(50)
    assert shepard(X[order], layout[order]) == pytest.approx(shepard(X, layout), abs=1e-12)
    assert shepard(layout, X) == pytest.approx(shepard(X, layout), abs=1e-12)


OF_ONE_MAP = [measure for measure in MEASURES if measure.takes == ("X", "layout")]


def test_displacement_is_what_no_rotation_mirror_or_scale_undoes():
    random = np.random.default_rng(0)
    layout, noise = random.normal(size=(400, 2)), random.normal(size=(400, 2))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]]) @ np.diag([1, -1])
    assert displacement(layout, 7 * layout @ turn + 3) == pytest.approx(0, abs=1e-12)
    assert displacement(layout, layout + 0.1 * noise) == pytest.approx(0.1, abs=0.01)
    assert displacement(layout, layout + 0.5 * noise) == pytest.approx(displacement(layout + 0.5 * noise, layout))
    assert displacement(layout, noise) <= 1
    cross = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert displacement(cross, cross[[1, 0, 2, 3]]) == pytest.approx(np.sqrt(3) / 2)
    moved = align(layout, noise).moved
    assert displacement(layout, noise) == pytest.approx(np.sqrt(np.square(moved).mean()), abs=1e-6)
    with pytest.raises(ValueError, match="all in one place"):
        displacement(layout, 0 * layout)


@pytest.mark.parametrize("measure", OF_ONE_MAP, ids=lambda measure: measure.name)
def test_the_floor_of_a_map_measure_is_its_mean_over_all_orders_of_the_layout(measure, monkeypatch):
    monkeypatch.setattr(map_quality, "TRIPLETS", 500)
    (X, layout), near = cloud(n=6), {"k": 2} if measure.k else {}
    values = [measure.function(X, layout[list(order)], **near) for order in permutations(range(6))]
    assert np.mean(values) == pytest.approx(measure.known_chance(np.zeros(6), **near), abs=1e-12)
    assert min(values) < np.mean(values) < max(values)


def test_what_is_read_off_the_pass_is_what_the_measure_gives():
    X, layout = cloud()
    whole = map_pass(X, layout)
    read_off = [measure for measure in OF_ONE_MAP if measure.of_pass]
    assert len(read_off) == 3
    for measure in read_off:
        assert measure.of_pass(whole, measure.k) == pytest.approx(measure.function(X, layout), abs=1e-12)


def test_whole_numbers_one_column_and_duplicates_are_measured():
    X = np.repeat(np.arange(20), 2)[:, None]
    assert shepard(X, X) == pytest.approx(1)
    assert triplet_accuracy(X, X) == 1
    assert not np.isnan(map_pass(X, -X, k=3).false_neighbours).any()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda X, layout: (X, layout[:-1]), "the layout has 119"),
        (lambda X, layout: (X[:2], layout[:2]), "at least 3 rows"),
        (lambda X, layout: (X * np.nan, layout), "NaN"),
        (lambda X, layout: (X, layout / 0.0), "infinity"),
        (lambda X, layout: (X[:, 0], layout), "table"),
    ],
)
@pytest.mark.parametrize("measure", [shepard, triplet_accuracy])
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_maps_that_cannot_be_measured_are_refused_in_one_sentence(measure, change, says):
    with pytest.raises(ValueError, match=says) as raised:
        measure(*change(*cloud()))
    assert str(raised.value).endswith(".")


@pytest.mark.parametrize("measure", [false_neighbours, missing_neighbours])
def test_neighbours_need_k_below_half_the_images(measure):
    with pytest.raises(ValueError, match="below N / 2"):
        measure(*cloud(n=20), k=10)
