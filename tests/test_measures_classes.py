from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom
from sklearn.linear_model import RidgeCV
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_samples
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

from kdpipe.measures import collapse, distances, probes, separation
from kdpipe.measures.collapse import cdnv, nc1, nc2
from kdpipe.measures.probes import (
    ALPHAS,
    fit_ridge,
    linear_probe,
    linear_probe_predictions,
    ncc_accuracy,
    ncc_predictions,
)
from kdpipe.measures.separation import class_scatter, davies_bouldin, fisher, silhouette_sq, silhouette_sq_samples

LABELS = np.array([0, 0, 1, 1])
PAIRS = np.array([[0.0], [1.0], [10.0], [11.0]])
OF_CLASSES = (silhouette_sq, fisher, davies_bouldin, nc1, cdnv, nc2)
OF_PROBES = (ncc_accuracy, linear_probe)

pytestmark = pytest.mark.filterwarnings("error")


def clusters(n: int = 300, d: int = 20, classes: int = 5, seed: int = 0, apart: float = 1.0):
    random = np.random.default_rng(seed)
    y = random.permutation(np.arange(n) % classes) ** 2
    centres = apart * random.normal(size=(classes**2, d))
    return (centres[y] + random.normal(size=(n, d))).astype(np.float32), y


def rotation(d: int, seed: int = 0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def simplex(classes: int, d: int, seed: int = 0):
    """Unit vectors to the corners of a simplex of K corners, turned at random in d dimensions."""
    corners = np.eye(classes) - 1 / classes
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)
    return corners @ rotation(max(classes, d), seed)[:classes, :d]


def exactly_spread(n: int, d: int, sigma: float):
    """n images whose mean is 0 and whose covariance is exactly sigma² times the identity."""
    noise = np.random.default_rng(1).normal(size=(n, d))
    noise -= noise.mean(axis=0)
    return sigma * np.sqrt(n) * np.linalg.svd(noise, full_matrices=False)[0]


def unequal(d: int = 20):
    """Classes of 150, 60, 20, 9 and 1 images."""
    y = np.random.default_rng(3).permutation(np.repeat([4, 7, -2, 0, 90], [150, 60, 20, 9, 1]))
    centres = np.random.default_rng(4).normal(size=(100, d))
    return centres[y] + np.random.default_rng(5).normal(size=(240, d)), y


# ---------------------------------------------------------------------------------- known answers


def test_two_pairs_on_a_line():
    # Image 0: a = 1, b = (100 + 121) / 2; image 1: a = 1, b = (81 + 100) / 2; the other pair mirrors them.
    assert silhouette_sq(PAIRS, LABELS) == pytest.approx((109.5 / 110.5 + 89.5 / 90.5) / 2)
    # Means .5 and 10.5, variances 1/4, mean distances to the mean 1/2.
    assert fisher(PAIRS, LABELS) == pytest.approx(25 / 0.25)
    assert davies_bouldin(PAIRS, LABELS) == pytest.approx(1 / 10)
    assert cdnv(PAIRS, LABELS) == pytest.approx(0.25 / 100)
    assert nc1(PAIRS, LABELS) == pytest.approx(0.25 / 25 / 2)
    assert nc2(PAIRS, LABELS) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("d", [4, 30])
def test_a_simplex_of_four_classes(d):
    """Means on unit vectors at -1/3, variance .04 in each of the d directions."""
    noise = exactly_spread(100, d, sigma=0.2)
    y = np.repeat(np.arange(4), 100)
    X = simplex(4, d)[y] + np.vstack([noise] * 4)
    assert nc1(X, y) == pytest.approx(0.09)
    assert nc2(X, y) == pytest.approx(0, abs=1e-12)
    # Squared distances of the means are 2 + 2/3, squared lengths 1.
    assert cdnv(X, y) == pytest.approx(0.04 * d / (8 / 3))
    assert fisher(X, y) == pytest.approx(1 / (0.04 * d))


def test_nc2_of_other_arrangements():
    y = np.arange(3)
    on_a_line = np.array([[-1.0, 2], [0, 2], [1, 2]])
    assert nc2(on_a_line, y) == pytest.approx(np.sqrt(2 - 2 / np.sqrt(2)))
    # A square: eigenvalues of the frame are 1, 1, 1, of the square 1, 1, 0: cosine 2 / sqrt(2 * 3).
    square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert nc2(square, np.arange(4)) == pytest.approx(np.sqrt(2 - 2 * np.sqrt(2 / 3)))
    longer = simplex(4, 3) * [[3], [1], [1], [1]]
    assert nc2(longer, np.arange(4)) > 0.1
    assert nc2(np.ones((4, 2)), np.arange(4)) == pytest.approx(np.sqrt(2))


def test_nc2_of_labels_that_say_nothing_comes_near_the_frame_in_many_dimensions():
    X, y = np.random.default_rng(0).normal(size=(200, 2000)), np.arange(200) % 5
    assert nc2(X, y) < 0.1
    assert nc2(X[:, :3], y) > 0.2


# ----------------------------------------------------------------------------------------- oracles


def slow_nc1(X, y):
    """The definition, with d x d matrices and NumPy's pinv."""
    means = np.array([X[y == label].mean(axis=0) for label in np.unique(y)])
    within = np.mean([np.cov(X[y == label].T, bias=True) for label in np.unique(y)], axis=0)
    return np.trace(within @ np.linalg.pinv(np.cov(means.T, bias=True), rcond=1e-10)) / len(means)


@pytest.mark.parametrize("d", [2, 20, 400])
def test_measures_of_unequal_classes_equal_scikit_learn_and_their_definitions(d, monkeypatch):
    monkeypatch.setattr(distances, "BLOCK_VALUES", 1000)
    X, y = unequal(d)
    assert silhouette_sq_samples(X, y) == pytest.approx(silhouette_samples(X, y, metric="sqeuclidean"), abs=1e-12)
    # scikit-learn takes distances from products, which cancel: that rounds further than the definition does.
    assert davies_bouldin(X, y) == pytest.approx(davies_bouldin_score(X, y), rel=1e-7)
    assert fisher(X, y, balanced=False) * 235 / 4 == pytest.approx(calinski_harabasz_score(X, y), rel=1e-12)
    assert nc1(X, y) == pytest.approx(slow_nc1(X, y), rel=1e-8)
    m = np.array([X[y == label].mean(axis=0) for label in np.unique(y)])
    v = np.array([X[y == label].var(axis=0).sum() for label in np.unique(y)])
    scatter = class_scatter(X, y)
    assert scatter.variances * scatter.of.scale**2 == pytest.approx(v)
    assert scatter.means * scatter.of.scale + X[0] == pytest.approx(m)
    pairs = [(v[i] + v[j]) / 2 / np.square(m[i] - m[j]).sum() for i in range(5) for j in range(5) if i != j]
    assert cdnv(X, y) == pytest.approx(np.mean(pairs), rel=1e-12)
    assert fisher(X, y) == pytest.approx(np.square(m - m.mean(axis=0)).sum() / v.sum(), rel=1e-12)


def test_silhouette_sq_is_averaged_over_classes_or_over_images():
    X, y = unequal()
    samples = silhouette_sq_samples(X, y)
    assert silhouette_sq(X, y) == pytest.approx(np.mean([samples[y == label].mean() for label in np.unique(y)]))
    assert silhouette_sq(X, y, balanced=False) == pytest.approx(samples.mean())
    assert samples[y == 90] == 0


def test_silhouette_sq_of_tight_classes_far_from_the_mean_survives_cancellation():
    random = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 50)
    X = 1e-6 * (random.normal(size=(150, 5)) + 3 * y[:, None])
    X[y == 2] += 100
    X += 100
    shifted = np.where(y[:, None] == 2, X - 200, X - 100) * 1e6
    shifted[y == 2] += 1e8
    expected = silhouette_samples(shifted[:100], y[:100], metric="sqeuclidean")
    assert silhouette_sq_samples(X, y)[:100] == pytest.approx(expected, abs=1e-6)


def test_nc1_ignores_what_varies_where_class_means_do_not():
    X, y = clusters(d=6)
    aside = np.random.default_rng(1).normal(size=(300, 1))
    for label in np.unique(y):
        aside[y == label] -= aside[y == label].mean()
    X = X.astype(np.float64)
    wider = np.hstack([X, 50 * aside])
    assert nc1(wider, y) == pytest.approx(nc1(X, y))
    assert cdnv(wider, y) > 10 * cdnv(X, y)
    assert fisher(wider, y) < fisher(X, y) / 10


@pytest.mark.parametrize("weak", [1e-1, 1e-3])
def test_a_weak_direction_of_the_class_means_counts_as_much_as_a_strong_one(weak):
    X, y = clusters(d=3)
    assert nc1(X * [1, 1, weak], y) == pytest.approx(nc1(X, y))


def test_a_copied_column_leaves_nc1_alone_although_float32_rounds_the_copy():
    X, y = clusters(d=2, classes=4)
    copied = np.hstack([X, X[:, :1] * np.float32(0.3)])
    stretched = X * np.array([np.sqrt(1 + 0.09), 1])
    assert nc1(copied, y) == pytest.approx(nc1(stretched, y), rel=1e-4)


# ------------------------------------------------------------------------------------ invariances


@given(st.integers(0, 10_000), st.sampled_from(OF_CLASSES))
@settings(max_examples=40, deadline=None)
def test_class_measures_ignore_rotation_translation_scale_order_and_names(seed, measure):
    X, y = clusters(n=60, d=6, seed=seed)
    X = X.astype(np.float64)
    order, names = np.random.default_rng(seed).permutation(60), np.random.default_rng(seed).permutation(99)
    moved = 3.7 * X @ rotation(6, seed) + 5
    assert measure(moved[order], names[y][order]) == pytest.approx(measure(X, y), rel=1e-7)


@pytest.mark.parametrize("measure", OF_CLASSES)
def test_stretching_one_axis_changes_all_class_measures_but_nc1_in_few_dimensions(measure):
    X, y = clusters(d=3)
    changed = abs(measure(X * [10, 1, 1], y) / measure(X, y) - 1)
    # Where the class means span every direction, tr(S_w S_b^-1) does not depend on the axes.
    assert changed < 1e-5 if measure is nc1 else changed > 0.01


@pytest.mark.parametrize("measure", [*OF_CLASSES, *OF_PROBES])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_the_type_of_the_same_numbers_does_not_matter(measure, dtype):
    X, y = clusters(d=4, apart=4.0)
    X = np.round(4 * X)
    more = (X[150:], y[150:]) if measure in OF_PROBES else ()
    assert measure(X.astype(dtype), y, *more) == pytest.approx(measure(X.astype(np.float64), y, *more), rel=1e-12)


@pytest.mark.parametrize("measure", [*OF_CLASSES, *OF_PROBES])
@pytest.mark.parametrize(("factor", "dtype"), [(1e30, np.float32), (1e-30, np.float32), (1e150, np.float64)])
def test_very_large_and_very_small_values(measure, factor, dtype):
    X, y = clusters(d=4)
    X = X.astype(dtype)
    more = (X[100:], y[100:]) if measure in OF_PROBES else ()
    scaled = (X[100:] * dtype(factor), y[100:]) if measure in OF_PROBES else ()
    assert measure(X * dtype(factor), y, *scaled) == pytest.approx(measure(X, y, *more), rel=1e-5)


@given(arrays(np.float32, st.tuples(st.integers(4, 20), st.integers(1, 3)), elements=st.integers(-2, 2)), st.data())
def test_no_layer_of_any_kind_gives_nan_or_leaves_the_range(X, data):
    y = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(X), max_size=len(X))))
    for measure in (*separation.MEASURES, *collapse.MEASURES, *probes.MEASURES):
        arguments = (X, y, X[::-1], y[::-1])[: len(measure.takes)]
        try:
            value = measure.function(*arguments)
        except ValueError as error:
            assert len(np.unique(y)) == 1 or len(np.unique(y)) == len(y), error
            continue
        assert type(value) is float
        assert not np.isnan(value)
        assert measure.low <= value + 1e-12
        assert measure.high is None or value <= measure.high + 1e-12


# --------------------------------------------------------------------------- what is hardly a layer


def test_a_layer_that_tells_no_images_apart_never_looks_separated():
    X, y = np.full((60, 8), 0.1, np.float32), np.arange(60) % 3
    assert silhouette_sq(X, y) == 0
    assert fisher(X, y) == 0
    assert davies_bouldin(X, y) == nc1(X, y) == cdnv(X, y) == np.inf
    assert nc2(X, y) == pytest.approx(np.sqrt(2))


def test_collapsed_classes_score_the_best_value_exactly():
    y = np.arange(60) % 3
    X = np.random.default_rng(0).normal(size=(3, 8))[y] + 1e3
    assert silhouette_sq(X, y) == 1
    assert fisher(X, y) == np.inf
    assert davies_bouldin(X, y) == nc1(X, y) == cdnv(X, y) == 0


def test_class_means_that_differ_by_rounding_only_coincide():
    """The same ten images in two classes, in another order and beside a third class."""
    same = np.random.default_rng(0).normal(size=(10, 4)) + 7
    X, y = np.vstack([same, same[::-1], same - 50]), np.repeat([0, 1, 2], 10)
    assert davies_bouldin(X, y) == cdnv(X, y) == np.inf
    assert nc1(X[:20], y[:20]) == np.inf
    assert fisher(X[:20], y[:20]) == 0
    assert nc2(X[:20], y[:20]) == pytest.approx(np.sqrt(2))


def test_two_images_of_different_classes_and_one_dimension():
    assert silhouette_sq(PAIRS[:2], np.array([0, 1])) == 0
    assert nc2(PAIRS[:2], np.array([0, 1])) == pytest.approx(0, abs=1e-12)
    assert fisher(PAIRS[:3], np.array([0, 1, 1])) > 0


# ------------------------------------------------------------------------------------------ probes


def halves(n: int = 400, d: int = 20, apart: float = 0.5, **more):
    X, y = clusters(n=n, d=d, apart=apart, **more)
    return X[: n // 2], y[: n // 2], X[n // 2 :], y[n // 2 :]


@pytest.mark.parametrize("d", [3, 300])
def test_nearest_class_centres_equal_scikit_learn(d, monkeypatch):
    monkeypatch.setattr(distances, "BLOCK_VALUES", 2000)
    X, y, X_train, y_train = halves(d=d)
    expected = NearestCentroid().fit(X_train.astype(np.float64), y_train).predict(X)
    assert (ncc_predictions(X, X_train, y_train) == expected).all()
    assert ncc_accuracy(X, y, X_train, y_train) == (expected == y).mean()


def test_centres_come_from_the_training_images_alone():
    X, y = np.array([[0.0], [1.0], [2.0], [9.0]]), np.array([0, 0, 0, 1])
    assert ncc_accuracy(X, y, np.array([[1.0], [3.0], [4.0], [6.0]]), np.array([0, 0, 1, 1])) == 1
    # The middle between the centres 0 and 1 is .5; a tie would go to label 0.
    assert ncc_predictions(np.array([[0.5], [0.6]]), np.array([[0.0], [1.0]]), np.array([0, 1])).tolist() == [0, 1]
    assert ncc_predictions(X * 1e-200, 1e200 * X, y).tolist() == [0, 0, 0, 0]
    assert ncc_predictions(X * 1e200, 1e-200 * X, y).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(("n", "d"), [(200, 20), (60, 150)])
def test_ridge_equals_scikit_learn(n, d, monkeypatch):
    monkeypatch.setattr(distances, "BLOCK_VALUES", 2000)
    random = np.random.default_rng(0)
    X = random.normal(size=(n, d)) * random.uniform(0.1, 30, d) + 4
    Y = X[:, :3] @ random.normal(size=(3, 2)) * 0.1 + random.normal(size=(n, 2)) + [0, 50]
    ridge = fit_ridge(X, Y)
    scaler = StandardScaler().fit(X)
    expected = RidgeCV(alphas=n * np.array(ALPHAS)).fit(scaler.transform(X), Y)
    assert ridge.alpha == pytest.approx(expected.alpha_ / n)
    assert ridge.mean == pytest.approx(scaler.mean_)
    assert ridge.scale == pytest.approx(scaler.scale_)
    assert ridge.coefficients == pytest.approx(expected.coef_.T, rel=1e-6, abs=1e-9)
    assert ridge.intercept == pytest.approx(expected.intercept_)
    assert ridge.predict(X) == pytest.approx(expected.predict(scaler.transform(X)), abs=1e-9)


def left_out_error(X, Y, alpha):
    """Squared errors of ridge on the standardised ``X``, fitted anew without each image."""
    n, columns = len(X), StandardScaler().fit_transform(X)
    total = 0.0
    for left_out in range(n):
        rest = np.arange(n) != left_out
        design, target = columns[rest] - columns[rest].mean(axis=0), Y[rest] - Y[rest].mean(axis=0)
        fitted = np.linalg.solve(design.T @ design + n * alpha * np.eye(X.shape[1]), design.T @ target)
        predicted = (columns[left_out] - columns[rest].mean(axis=0)) @ fitted + Y[rest].mean(axis=0)
        total += np.square(Y[left_out] - predicted).sum()
    return total


@pytest.mark.parametrize("d", [4, 40])
def test_of_any_two_penalties_the_one_is_chosen_that_errs_less_on_images_left_out(d):
    random, n = np.random.default_rng(0), 25
    X = random.normal(size=(n, d))
    Y = X[:, :3] + random.normal(size=(n, 3)) + 2
    errors = {alpha: left_out_error(X, Y, alpha) for alpha in ALPHAS}
    for pair in combinations(ALPHAS, 2):
        assert fit_ridge(X, Y, pair).alpha == min(pair, key=errors.get)
    assert fit_ridge(X, Y).alpha == min(errors, key=errors.get)


def test_ridge_chooses_a_small_penalty_for_a_law_and_the_largest_for_noise():
    random = np.random.default_rng(0)
    X = random.normal(size=(100, 10))
    assert fit_ridge(X, X[:, :1]).alpha == min(ALPHAS)
    assert fit_ridge(X, random.normal(size=(100, 1)), [1e9, 1e-3]).alpha == 1e9
    assert fit_ridge(0 * X, X[:, :1], [1.0, 5.0, 2.0]).alpha == 5.0


def test_ridge_leaves_constant_columns_out_even_where_they_differ_by_rounding():
    random = np.random.default_rng(0)
    X = random.normal(size=(80, 3)).astype(np.float32)
    dead = np.full((80, 2), 0.1, np.float32)
    dead[::2, 1] = np.nextafter(np.float32(0.1), np.float32(1))
    with_dead = fit_ridge(np.hstack([dead, X]), X[:, :1] ** 2)
    alone = fit_ridge(X, X[:, :1] ** 2)
    assert (with_dead.coefficients[:2] == 0).all()
    assert with_dead.coefficients[2:] == pytest.approx(alone.coefficients)
    assert with_dead.predict(np.hstack([dead + 1e6, X])) == pytest.approx(alone.predict(X))


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_linear_probe_ignores_scale_and_offset_of_each_column_and_the_names_of_labels(seed):
    X, y, X_train, y_train = (array.astype(np.float64) for array in halves(n=120, d=5, seed=seed))
    y, y_train = y.astype(int), y_train.astype(int)
    factor = np.random.default_rng(seed).uniform(0.1, 10, 5)
    expected = linear_probe_predictions(X, X_train, y_train)
    assert (linear_probe_predictions(X * factor + 3, X_train * factor + 3, y_train) == expected).all()
    assert (linear_probe_predictions(X, X_train[::-1], 5 - 3 * y_train[::-1]) == 5 - 3 * expected).all()


def test_stretching_one_column_changes_nearest_centres():
    X, y, X_train, y_train = halves()
    X2, X2_train = X.copy(), X_train.copy()
    X2[:, 0] *= 30
    X2_train[:, 0] *= 30
    assert abs(ncc_accuracy(X2, y, X2_train, y_train) - ncc_accuracy(X, y, X_train, y_train)) > 0.05


@pytest.mark.parametrize("probe", OF_PROBES)
def test_probes_are_right_about_separate_classes_and_at_chance_on_noise(probe):
    assert probe(*halves(apart=5.0)) == 1
    X, _, X_train, _ = halves(n=2000, d=30)
    right = 1000 * probe(X, np.arange(1000) % 4, X_train, np.arange(1000) % 4)
    assert binom.ppf(0.001, 1000, 0.25) <= right <= binom.ppf(0.999, 1000, 0.25)
    X, y, X_train, y_train = halves(n=80, d=500, apart=1.0)
    assert probe(X, y, X_train, y_train) > 0.9


def test_the_linear_probe_finds_what_nearest_centres_miss_and_the_other_way_round():
    random = np.random.default_rng(0)
    y = np.arange(800) % 2
    X = np.hstack([0.05 * random.normal(size=(800, 1)) + 0.2 * y[:, None], 20 * random.normal(size=(800, 3))])
    assert linear_probe(X[:400], y[:400], X[400:], y[400:]) > 0.95
    assert ncc_accuracy(X[:400], y[:400], X[400:], y[400:]) < 0.7
    three = np.arange(900) % 3
    line = three[:, None] + 0.05 * random.normal(size=(900, 1))
    assert ncc_accuracy(line[:450], three[:450], line[450:], three[450:]) == 1
    assert linear_probe(line[:450], three[:450], line[450:], three[450:]) == pytest.approx(2 / 3, abs=0.01)


def test_a_constant_layer_and_a_label_never_seen():
    X, y, X_train, y_train = halves()
    y_train = np.where(y_train == 16, 4, y_train)
    assert (linear_probe_predictions(0 * X + 1, 0 * X_train + 1, y_train) == 4).all()
    assert (ncc_predictions(0 * X + 1, 0 * X_train + 1, y_train) == 0).all()
    for probe in OF_PROBES:
        assert probe(X[y == 16], y[y == 16], X_train, y_train) == 0


# ------------------------------------------------------------------------------- what is refused


X0, Y0 = clusters(n=40, d=5)
SPOILT = np.where(np.arange(200).reshape(40, 5) == 7, np.nan, X0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        *((lambda f=f: f(X0, 0 * Y0), "two classes") for f in OF_CLASSES),
        *((lambda f=f: f(SPOILT, Y0), "NaN") for f in OF_CLASSES),
        *((lambda f=f: f(X0, Y0[1:]), "one label for each") for f in OF_CLASSES),
        *((lambda f=f: f(X0, Y0 / 2), "whole numbers") for f in OF_CLASSES),
        *((lambda f=f: f(X0[:, 0], Y0), "table") for f in OF_CLASSES),
        *((lambda f=f: f(X0, np.arange(40)), "two images") for f in OF_CLASSES if f not in (silhouette_sq, nc2)),
        *((lambda f=f: f(X0, Y0, X0, 0 * Y0), "two classes") for f in OF_PROBES),
        *((lambda f=f: f(X0, Y0, X0[:, :3], Y0), "5 columns where the training images have 3") for f in OF_PROBES),
        *((lambda f=f: f(X0, Y0[1:], X0, Y0), "one label for each") for f in OF_PROBES),
        *((lambda f=f: f(X0, Y0, X0, Y0[1:]), "one label for each") for f in OF_PROBES),
        *((lambda f=f: f(SPOILT, Y0, X0, Y0), "NaN") for f in OF_PROBES),
        *((lambda f=f: f(X0, Y0, SPOILT, Y0), "NaN") for f in OF_PROBES),
        *((lambda f=f: f(X0, Y0, X0[:, 0], Y0), "table") for f in OF_PROBES),
        (lambda: fit_ridge(X0, X0[1:]), "40 rows, Y has 39"),
        (lambda: fit_ridge(X0, X0[:, 0]), "table"),
        (lambda: fit_ridge(X0[:1], X0[:1]), "at least 2 rows"),
        (lambda: fit_ridge(X0, X0, []), "positive"),
        (lambda: fit_ridge(X0, X0, [1.0, 0.0]), "positive"),
        (lambda: fit_ridge(X0, X0, [np.inf]), "positive"),
        (lambda: fit_ridge(X0, X0).predict(X0[:, :2]), "2 columns"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(call, says):
    with pytest.raises(ValueError, match=says) as raised:
        call()
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


# -------------------------------------------------------------------------------------- registry


@pytest.mark.parametrize("measure", [*separation.MEASURES, *collapse.MEASURES, *probes.MEASURES], ids=lambda m: m.name)
def test_each_record_names_its_function_and_beats_shuffled_labels(measure):
    arrays = dict(zip(("X", "y", "X_train", "y_train"), halves(d=3, apart=3.0), strict=True))
    shuffled = {name: np.random.default_rng(0).permutation(arrays[name]) for name in ("y", "y_train")}
    value = measure.function(*(arrays[name] for name in measure.takes))
    chance = measure.function(*((arrays | shuffled)[name] for name in measure.takes))
    assert measure.function.__name__ == measure.name
    assert measure.chance == "shuffled"
    assert value > chance if measure.direction == "higher" else value < chance
    assert measure.low <= value
