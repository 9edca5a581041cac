"""Dimension and spectrum of a layer against known answers, their definitions, and degenerate layers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from kdpipe.measures import dimension, spectrum, tiles
from kdpipe.measures.class_structure import layer_pass
from kdpipe.measures.dimension import mle_dimension, mle_dimension_of, twonn, twonn_of
from kdpipe.measures.neighbourhood import nearest_neighbours
from kdpipe.measures.spectrum import (
    anisotropy,
    anisotropy_centred,
    effective_rank,
    participation_ratio,
    rankme,
    singular_values,
    uniformity,
)

RECORDS = {measure.name: measure for measure in (*dimension.MEASURES, *spectrum.MEASURES)}
ALL = {name: measure.function for name, measure in RECORDS.items()}
every = pytest.mark.parametrize("name", sorted(ALL))
either_dimension = pytest.mark.parametrize("name", ["twonn", "mle_dimension"])


def noise(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def rotation(d, seed=0):
    return np.linalg.qr(noise(d, d, seed))[0]


def plane(n=2000, within=20, seed=0):
    """A uniform three-plane in ``within`` dimensions."""
    flat = np.random.default_rng(seed).uniform(size=(n, 3))
    return np.hstack([flat, np.zeros((n, within - 3))]) @ rotation(within) + 1


def with_copies(X, copies):
    """``X`` with its first rows repeated that many times more, in random order."""
    repeated = np.vstack([X, *(np.repeat(X[i : i + 1], c, axis=0) for i, c in enumerate(copies))])
    return np.random.default_rng(0).permutation(repeated)


def orthogonal(values, n=60, centred=True):
    """A table of the given singular values, its columns of mean 0 if ``centred``."""
    U = np.random.default_rng(0).normal(size=(n, len(values)))
    U = np.linalg.qr(U - U.mean(axis=0) if centred else U)[0]
    return U * values @ rotation(len(values)).T


# ----------------------------------------------------------------------------------- dimension


@pytest.mark.parametrize("seed", range(3))
def test_a_three_plane_has_dimension_three(seed):
    assert twonn(plane(seed=seed)) == pytest.approx(3.0, abs=0.15)
    assert mle_dimension(plane(seed=seed)) == pytest.approx(3.0, abs=0.25)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_gaussian_of_few_columns_has_that_many(d):
    """TwoNN is a maximum likelihood of N ratios: standard error d / sqrt(N), of which four; the other has more."""
    assert twonn(noise(3000, d)) == pytest.approx(d, rel=4 / np.sqrt(3000) + 0.01)
    assert mle_dimension(noise(3000, d)) == pytest.approx(d, rel=4 / np.sqrt(3000))


@pytest.mark.parametrize("d", [3, 100])
def test_each_dimension_equals_its_definition(d):
    X = noise(300, d)
    T = NearestNeighbors(n_neighbors=21).fit(X).kneighbors(X)[0][:, 1:]
    inverse = [np.mean([np.log(row[19] / row[j]) for j in range(19)]) for row in T]
    assert mle_dimension(X) == pytest.approx(1 / np.mean(inverse), rel=1e-5)
    x = np.sort(np.log(T[:, 1] / T[:, 0]))[:270]
    y = [-np.log(1 - i / 300) for i in range(1, 271)]
    assert twonn(X) == pytest.approx(np.linalg.lstsq(x[:, None], y, rcond=None)[0][0], rel=1e-5)


def test_twonn_by_hand():
    # Ratios 2, 4 and, discarded, 8; F = 1/3, 2/3.
    found = twonn_of(np.array([[1.0, 8.0], [1.0, 2.0], [1.0, 4.0]]))
    a, b = np.log(2), np.log(4)
    assert found == pytest.approx((a * np.log(3 / 2) + b * np.log(3)) / (a * a + b * b))


def test_mle_by_hand():
    # Inverses of the rows: (log 4 + log 2) / 2 and (log 9 + log 3) / 2.
    found = mle_dimension_of(np.array([[1.0, 2.0, 4.0], [1.0, 3.0, 9.0]]), k=3)
    assert found == pytest.approx(2 / ((np.log(8) + np.log(27)) / 2))


def test_nearly_identical_images_hardly_move_twonn():
    X = plane()
    X[:20] = X[20:40] + 1e-7 * noise(20, 20)
    likelihood = len(X) / np.log(np.divide(*nearest_neighbours(X, 2)[1].T[::-1])).sum()
    assert twonn(X) == pytest.approx(twonn(plane()), rel=0.05)
    assert likelihood < 2


@either_dimension
def test_identical_rows_count_once(name):
    X = noise(300, 6)
    assert ALL[name](with_copies(X, [5, 1, 1, 60])) == pytest.approx(ALL[name](X), rel=1e-6)
    assert ALL[name](np.vstack([X, -0.0 * X[:50]])) == pytest.approx(ALL[name](np.vstack([X, 0 * X[:1]])), rel=1e-6)


@pytest.mark.parametrize("d", [6, 90])
def test_one_pass_gives_the_same_dimensions_with_and_without_copies(d):
    X = noise(300, d)
    for rows in (X, with_copies(X, [5, 1, 1, 20])):
        whole = layer_pass(rows, np.arange(len(rows)) % 3, k=50)
        assert twonn_of(whole.distances, whole.neighbours) == pytest.approx(twonn(X), rel=1e-5)
        assert mle_dimension_of(whole.distances, 20, whole.neighbours) == pytest.approx(mle_dimension(X), rel=1e-5)
    assert twonn_of(nearest_neighbours(X, 2)[1]) == pytest.approx(twonn(X), rel=1e-6)
    assert mle_dimension_of(nearest_neighbours(X, 30)[1]) == pytest.approx(mle_dimension(X), rel=1e-6)


@pytest.mark.parametrize("dead", [30, 200])
def test_known_distances_of_a_layer_with_dead_images_come_near(dead):
    X = np.vstack([noise(400, 4), np.full((dead, 4), 3.0)])
    indices, known = nearest_neighbours(X, 50)
    assert twonn_of(known, indices) == pytest.approx(twonn(X), rel=0.02)
    assert mle_dimension_of(known, 20, indices) == pytest.approx(mle_dimension(X), rel=0.02)
    assert twonn_of(known) == pytest.approx(twonn(X), rel=0.1)
    assert mle_dimension_of(known) == pytest.approx(mle_dimension(X), rel=0.1)


@given(seed=st.integers(0, 10_000))
def test_lattices_and_copies_never_give_nan(seed):
    random = np.random.default_rng(seed)
    X = random.integers(0, 3, size=(random.integers(4, 60), random.integers(1, 4)))
    indices, known = nearest_neighbours(X, len(X) - 1)
    for whole, parts in (
        (twonn, twonn_of),
        (lambda X: mle_dimension(X, 3), lambda far, near: mle_dimension_of(far, 3, near)),
    ):
        try:
            value = whole(X)
        except ValueError as error:
            assert "equally far" in str(error)
            with pytest.raises(ValueError, match="equally far"):
                parts(known, indices)
        else:
            assert 0 <= value < np.inf
            assert parts(known, indices) == pytest.approx(value, rel=1e-5)


@either_dimension
def test_too_few_different_rows_are_points(name):
    assert ALL[name](np.full((40, 5), 0.1)) == 0
    assert ALL[name](np.repeat([[0.0, 1], [1, 1]], 20, axis=0)) == 0
    assert mle_dimension(np.repeat(noise(20, 3), 3, axis=0)) == 0 < mle_dimension(np.repeat(noise(21, 3), 3, axis=0))
    assert twonn(np.repeat(noise(3, 3), 3, axis=0)) > 0
    assert twonn_of(np.zeros((9, 5))) == mle_dimension_of(np.zeros((9, 5)), 5) == 0


# ------------------------------------------------------------------------------------ spectrum


def test_participation_ratio_of_eigenvalues_four_and_one():
    assert participation_ratio(orthogonal([2, 1])) == pytest.approx(25 / 17)


def test_seven_equal_singular_values_are_of_effective_rank_seven():
    X = np.hstack([orthogonal([3.0] * 7), np.zeros((60, 5))])
    assert effective_rank(X) == pytest.approx(7)
    assert effective_rank(X + 100) == pytest.approx(7)
    assert participation_ratio(X) == pytest.approx(7)
    assert rankme(orthogonal([3.0] * 7, centred=False)) == pytest.approx(7, abs=1e-4)


def test_effective_rank_and_rankme_of_shares_three_quarters_and_one_quarter():
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert effective_rank(orthogonal([3, 1])) == pytest.approx(expected)
    assert rankme(orthogonal([3, 1], centred=False)) == pytest.approx(expected, abs=1e-6)


def test_rankme_adds_its_epsilon_to_every_share():
    X = np.zeros((1000, 400))
    X[:, 0] = 1
    shares = np.array([1.0] + [0.0] * 399) + 1e-7
    assert rankme(X) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-12)
    assert rankme(X) > 1.0005


def test_rankme_counts_the_mean_and_effective_rank_does_not():
    X = orthogonal([1.0] * 7)
    assert effective_rank(X + 50) == pytest.approx(7)
    assert rankme(X + 50) < 2


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (30, 30), (200, 1)])
@pytest.mark.parametrize("centred", [True, False])
def test_singular_values_equal_the_decomposition(shape, centred):
    X = noise(*shape) + 2
    expected = np.linalg.svd(X - X.mean(axis=0) * centred, compute_uv=False)
    assert singular_values(X, centred) == pytest.approx(expected / np.linalg.norm(expected), abs=1e-7)


def test_antipodes_are_as_uniform_as_two_points_can_be():
    assert uniformity(np.array([[3.0, 0], [-0.1, 0]])) == pytest.approx(-8)
    assert uniformity(np.array([[1.0, 0], [0, 1]])) == pytest.approx(-4)
    assert uniformity(np.array([[1.0, 2], [2, 4], [3, 6]])) == pytest.approx(0)


@pytest.mark.parametrize("d", [1, 3, 100])
def test_uniformity_and_anisotropy_equal_their_definitions(d, monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 40)
    X = noise(130, d) + 0.5
    units = X / np.linalg.norm(X, axis=1, keepdims=True)
    assert uniformity(X) == pytest.approx(np.log(np.exp(-2 * np.square(pdist(units))).mean()), abs=1e-6)
    above = np.triu_indices(130, 1)
    assert anisotropy(X) == pytest.approx(cosine_similarity(X)[above].mean(), abs=1e-12)
    assert anisotropy_centred(X) == pytest.approx(cosine_similarity(X - X.mean(axis=0))[above].mean(), abs=1e-12)


def test_a_common_offset_makes_a_layer_anisotropic_until_it_is_centred():
    X = noise(500, 20)
    assert anisotropy(X) == pytest.approx(0, abs=0.01)
    assert anisotropy(X + 10) > 0.95
    assert anisotropy_centred(X + 10) == pytest.approx(anisotropy_centred(X), abs=1e-12)
    assert anisotropy(np.abs(X)) > 0.5


def test_rows_of_zeros_have_no_direction_and_are_left_out():
    X = noise(50, 4)
    padded = np.vstack([X, np.zeros((30, 4))])
    assert anisotropy(padded) == pytest.approx(anisotropy(X), abs=1e-12)
    assert uniformity(padded) == pytest.approx(uniformity(X), abs=1e-12)
    assert anisotropy(np.zeros((5, 4))) == uniformity(np.zeros((5, 4))) == 0
    assert anisotropy(np.eye(4)[[0, 0]] * [[1], [0]]) == 0


def test_a_row_far_smaller_than_another_keeps_its_direction():
    X = np.array([[1e-200, 0], [1e100, 0], [0, 1.0]])
    assert anisotropy(X) == pytest.approx(1 / 3)


# --------------------------------------------------------------------------------- invariances


@every
def test_stretching_one_axis_changes_all_but_the_centred_mean_cosine(name):
    X = noise(400, 3)
    change = abs(ALL[name](X * [30, 1, 1]) - ALL[name](X))
    assert change > 0.01 if "anisotropy" not in name else change < 0.05


@every
def test_a_column_of_zeros_changes_nothing(name):
    X = noise(100, 5)
    assert ALL[name](np.c_[X, np.zeros(100)]) == pytest.approx(ALL[name](X), rel=1e-5)


# ----------------------------------------------------------------------------- degenerate layers


@every
def test_a_layer_that_tells_no_images_apart(name):
    X = np.full((40, 6), 0.1, np.float32)
    expected = {"rankme": 1, "anisotropy": 1}
    assert ALL[name](X) == pytest.approx(expected.get(name, 0), abs=1e-4)
    assert ALL[name](0 * X) == 0
    inexact_mean = np.full((43, 6), 0.7)
    assert ALL[name](inexact_mean) == pytest.approx(expected.get(name, 0), abs=1e-4)


@every
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_and_type_do_not_matter(name, scale):
    X = noise(100, 5) + 1
    expected = ALL[name](X)
    assert ALL[name]((X * scale).astype(np.float32)) == pytest.approx(expected, rel=1e-3)
    assert ALL[name](X * scale**9) == pytest.approx(expected, rel=1e-5)
    assert ALL[name](X.astype(np.float16)) == pytest.approx(expected, rel=0.05)
    assert ALL[name](np.rint(1000 * X).astype(int)) == pytest.approx(expected, rel=0.05)


@every
@pytest.mark.parametrize("d", [1, 200])
def test_one_column_many_columns_and_dead_images_are_within_range(name, d):
    X = np.maximum(noise(90, d), 0)
    X[10:50] = 0
    value = ALL[name](X)
    assert RECORDS[name].low <= value <= (1.5 * d if RECORDS[name].high is None else RECORDS[name].high)
    assert RECORDS[name].direction == "neither"


def changed(X, value):
    X = X.copy()
    X[1, 1] = value
    return X


@every
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda X: X[:1], "at least [23] rows"),
        (lambda X: X[:, 0], "table"),
        (lambda X: changed(X, np.nan), "NaN"),
        (lambda X: changed(X, -np.inf), "infinity"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(name, change, says):
    with pytest.raises(ValueError, match=says) as raised:
        ALL[name](change(noise(40, 3)))
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: mle_dimension(noise(20, 2)), "between 1 and N - 1"),
        (lambda: mle_dimension(noise(20, 2), k=1), "k of at least 2"),
        (lambda: mle_dimension_of(np.ones((9, 5))), "at least 20 neighbours"),
        (lambda: mle_dimension_of(np.ones((9, 25))), "equally far"),
        (lambda: twonn_of(np.ones((9, 1))), "at least 2 neighbours"),
        (lambda: twonn_of(np.array([[2.0, 1.0]])), "nearest first"),
        (lambda: twonn_of(np.array([[1.0, np.nan]])), "finite"),
        (lambda: twonn_of(np.ones((9, 2)), np.ones((9, 3), int)), "neighbours of shape"),
        (lambda: twonn(np.eye(5)), "equally far"),
    ],
)
def test_dimensions_that_have_no_value_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
