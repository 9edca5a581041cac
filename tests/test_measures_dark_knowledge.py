"""Dark knowledge against values worked out by hand, its plain definition, and what must and must not change it."""

from __future__ import annotations

from inspect import signature
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binom, spearmanr
from scipy.stats import t as student_t

from kdpipe.measures import MEASURES, dark_knowledge, dark_knowledge_interval, jackknife_interval, soft_labels
from kdpipe.methods.logits import kd_loss

seeds = st.integers(0, 10_000)


def pair(seed: int, classes: int = 6, n: int = 90, d: int = 8):
    """A layer, its labels and a teacher's soft labels that know of the same hidden place of each class."""
    random = np.random.default_rng(seed)
    y = random.permutation(np.arange(n) % classes)
    place = random.normal(size=(classes, 3))
    X = (place @ random.normal(size=(3, d)))[y] + random.normal(size=(n, d))
    logits = (2 * place @ place.T)[y] + random.normal(size=(n, classes))
    return X, y, soft_labels(logits)


def slow(X, y, probabilities):
    """The definition, a pair of classes at a time."""
    classes = np.unique(y)
    centre = {a: X[y == a].mean(axis=0) for a in classes}
    middle = np.mean(list(centre.values()), axis=0)
    q = {a: probabilities[y == a].mean(axis=0) for a in classes}
    alike, near = [], []
    for i, a in enumerate(classes):
        for b in classes[i + 1 :]:
            shares = [q[one][other] / sum(q[one][c] for c in classes if c != one) for one, other in ((a, b), (b, a))]
            alike.append(sum(shares) / 2)
            u, v = centre[a] - middle, centre[b] - middle
            near.append(u @ v / np.sqrt((u @ u) * (v @ v)))
    return spearmanr(near, alike).statistic


# A rectangle of four classes: 0 and 1 (2 and 3) share a short side, 0 and 2 (1 and 3) a long one, the rest a diagonal.
RECTANGLE = np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])


def of_sides(short: float, long: float, diagonal: float, own: float = 0.4):
    shares = np.array([[0, short, long, diagonal], [short, 0, diagonal, long], [long, diagonal, 0, short]])
    shares = np.vstack([shares, shares[0, ::-1]])
    return own * np.eye(4) + (1 - own) * shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("alike", "rho"),
    [((3, 2, 1), 1.0), ((3, 1, 2), 0.5), ((2, 3, 1), 0.5), ((1, 3, 2), -0.5), ((2, 1, 3), -0.5), ((1, 2, 3), -1.0)],
)
def test_a_rectangle_by_hand(alike, rho):
    """The layer's ranks are 3, 2, 1 for short side, long side, diagonal, each twice: rho = 1 - sum of d² / 4."""
    assert dark_knowledge(RECTANGLE, np.arange(4), of_sides(*alike)) == pytest.approx(rho)
    assert dark_knowledge(100 - 3 * RECTANGLE, np.arange(4), of_sides(*alike)) == pytest.approx(rho)


def test_rounding_makes_no_order_among_equals():
    """As above from many images, of which the teacher is more or less sure: equal sums differ in their last digits."""
    y, doubt = np.arange(400) % 4, np.random.default_rng(0).uniform(0.01, 1, (400, 1))
    taught = (1 - doubt) * np.eye(4)[y] + doubt * of_sides(3, 1, 2, own=0.0)[y]
    assert dark_knowledge(RECTANGLE[y], y, taught) == pytest.approx(0.5, abs=1e-12)


@given(seeds, st.sampled_from([4, 6, 9]))
def test_it_equals_its_definition(seed, classes):
    X, y, taught = pair(seed, classes)
    assert dark_knowledge(X, y, taught) == pytest.approx(slow(X, y, taught), abs=1e-9)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_rotation_translation_scale_order_and_names_do_not_matter(seed):
    X, y, taught = pair(seed)
    random = np.random.default_rng(seed)
    value = dark_knowledge(X, y, taught)
    turn = np.linalg.qr(random.normal(size=(8, 8)))[0]
    assert dark_knowledge(7.3 * X @ turn + random.normal(size=8), y, taught) == pytest.approx(value, abs=1e-9)
    assert dark_knowledge(1e-30 * X, y, taught) == pytest.approx(value, abs=1e-9)
    order, names = random.permutation(len(y)), random.permutation(6)
    assert dark_knowledge(X[order], y[order], taught[order]) == pytest.approx(value, abs=1e-9)
    assert dark_knowledge(X, names[y], taught[:, np.argsort(names)]) == pytest.approx(value, abs=1e-9)


@given(seeds)
def test_how_sure_the_teacher_is_of_a_class_does_not_matter(seed):
    """Which others a class is taken for counts, not how often: q without the own class is divided by its sum."""
    X, y, taught = pair(seed)
    doubt = np.random.default_rng(seed).uniform(0.01, 1, 6)[y][:, None]
    surer = (1 - doubt) * np.eye(6)[y] + doubt * taught
    assert dark_knowledge(X, y, surer) == pytest.approx(dark_knowledge(X, y, taught), abs=1e-9)


def test_stretching_a_column_exchanging_names_and_swapping_images_matter():
    X, y, taught = pair(1)
    value = dark_knowledge(X, y, taught)
    assert value > 0.5
    assert abs(dark_knowledge(X * [50, 1, 1, 1, 1, 1, 1, 1], y, taught) - value) > 0.05
    assert abs(dark_knowledge(X, y, taught[:, [1, 0, 2, 3, 5, 4]]) - value) > 0.05
    assert abs(dark_knowledge(np.random.default_rng(0).permutation(X), y, taught)) < value - 0.2


@pytest.mark.parametrize("classes", [4, 5])
def test_chance_is_the_mean_over_all_exchanges_of_names(classes):
    """Exactly: each pair of classes comes to stand on each pair equally often."""
    X, _, taught = pair(3, classes, n=10 * classes)
    y = np.repeat(np.arange(classes), 10)
    images = np.arange(10 * classes).reshape(classes, 10)
    values = [dark_knowledge(X[images[list(names)].ravel()], y, taught) for names in permutations(range(classes))]
    assert np.mean(values) == pytest.approx(MEASURES["dark_knowledge"].known_chance(y), abs=1e-12)
    assert np.std(values) > 0.1


def test_a_collapsed_network_follows_its_own_answers():
    """Images on centres of equal length, logits their inner products with these centres: neural collapse."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(12, 40))
    centres -= centres.mean(axis=0)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    y = np.repeat(np.arange(12), 5)
    assert dark_knowledge(centres[y], y, soft_labels(4 * centres @ centres.T)[y]) > 0.99


def test_layers_that_tell_no_pair_of_classes_from_another_score_chance():
    """One vector for all; a simplex, whose pairs differ by rounding alone; all classes on the same images."""
    _, y, taught = pair(0, 5, n=50)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 30)))[0]
    simplex = np.eye(5, 30) @ turn
    shared = np.empty((50, 4))
    for label in range(5):
        shared[y == label] = np.random.default_rng(label).permutation(np.random.default_rng(9).normal(size=(10, 4)))
    for X in (np.full((50, 3), 0.1, np.float32), 3 + simplex[y], shared):
        assert dark_knowledge(X, y, taught) == 0
    low, high = dark_knowledge_interval(np.full((50, 3), 0.1, np.float32), y, taught)
    assert low == high == 0


def test_a_layer_of_one_column_has_two_sides():
    """Cosines are 1 or -1, and rounding makes no order among them."""
    X = np.array([[0.1], [0.2], [1.7], [1.9]])
    same_side = of_sides(3, 1, 1)
    assert dark_knowledge(X, np.arange(4), same_side) == pytest.approx(1)


def test_a_class_in_the_middle_is_defined():
    X = np.vstack([RECTANGLE, [[0.0, 0.0]]])
    taught = 0.9 * np.pad(of_sides(3, 2, 1), ((0, 1), (0, 1))) + 0.02
    taught[4] = 0.2
    assert 0 < dark_knowledge(X, np.arange(5), taught / taught.sum(axis=1, keepdims=True)) <= 1


def test_classes_without_images_are_left_out_on_both_sides():
    X, y, taught = pair(4)
    have = y != 2
    without = np.delete(taught[have], 2, axis=1)
    renamed = np.searchsorted([0, 1, 3, 4, 5], y[have])
    expected = dark_knowledge(X[have], renamed, without / without.sum(axis=1, keepdims=True))
    assert dark_knowledge(X[have], y[have], taught[have]) == pytest.approx(expected, abs=1e-9)


def test_a_very_sure_teacher_still_tells_classes_apart():
    """Similarities down to 1e-21 keep their order."""
    X, y, _ = pair(5)
    place = np.array([0.0, 1.0, 2.1, 3.3, 4.6, 6.0])
    taught = soft_labels(-12 * np.abs(place[y][:, None] - place), 1.0)
    assert dark_knowledge(X, y, taught) == pytest.approx(slow(X, y, taught), abs=1e-9)


X0, Y0, P0 = pair(0)


def changed(values, value, place=(3, 1)):
    values = values.astype(np.float64).copy()
    values[place] = value
    return values


@pytest.mark.parametrize("function", [dark_knowledge, dark_knowledge_interval])
@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ((X0[Y0 < 3], Y0[Y0 < 3], P0[Y0 < 3]), "at least 4 classes with images, not 3"),
        ((X0, 0 * Y0, P0), "at least 4 classes with images, not 1"),
        ((X0, Y0, np.eye(6)[Y0]), "no other class"),
        ((X0, Y0, np.full((90, 6), 1 / 6)), "equally alike"),
        ((X0, Y0, P0[:-1]), "a row for each of the 90 images"),
        ((X0, Y0, P0[:, 0]), "a row for each"),
        ((X0, Y0, 2 * P0), "add up to 1"),
        ((X0, Y0, changed(P0, np.nan)), "add up to 1"),
        ((X0, Y0, changed(P0, -0.1)), "must be positive"),
        ((X0, Y0 + 1, P0), "columns of the 6"),
        ((X0, Y0 - 1, P0), "columns of the 6"),
        ((X0, Y0[:-1], P0), "one label for each"),
        ((X0, Y0 / 2, P0), "whole numbers"),
        ((changed(X0, np.nan), Y0, P0), "NaN"),
        ((X0[:, :0], Y0, P0), "table"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(function, arrays, says):
    with pytest.raises(ValueError, match=says) as raised:
        function(*arrays)
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


# ----------------------------------------------------------------------------------- soft labels


def test_soft_labels_are_a_softmax_at_the_temperature_of_distillation():
    logits = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    assert soft_labels(logits) == pytest.approx(softmax(logits.astype(np.float64) / 4, axis=1))
    assert (
        signature(soft_labels).parameters["temperature"].default == signature(kd_loss).parameters["temperature"].default
    )
    assert soft_labels(np.array([[1e30, 0.0]])).tolist() == [[1, 0]]
    assert soft_labels(logits + 9) == pytest.approx(soft_labels(logits), abs=1e-6)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: soft_labels(np.array([[np.inf, 0.0]])), "finite"),
        (lambda: soft_labels(np.zeros(3)), "table"),
        (lambda: soft_labels(np.zeros((0, 3))), "table"),
        (lambda: soft_labels(np.zeros((2, 3)), 0.0), "positive"),
    ],
)
def test_soft_labels_of_what_are_no_logits_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# ------------------------------------------------------------------------------------- intervals


def test_a_jackknife_of_a_mean_without_each_image_is_the_t_interval():
    values = np.random.default_rng(0).normal(3, 2, 25)
    without = (values.sum() - values) / 24
    expected = student_t.interval(0.9, 24, values.mean(), values.std(ddof=1) / 5)
    assert jackknife_interval(values.mean(), without, 0.9) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: jackknife_interval(0.0, np.array([1.0])), "two groups"),
        (lambda: jackknife_interval(0.0, np.array([1.0, np.nan])), "finite"),
        (lambda: jackknife_interval(np.inf, np.ones(3)), "finite"),
        (lambda: jackknife_interval(0.0, np.ones(3), level=1.0), "between 0 and 1"),
    ],
)
def test_a_jackknife_of_nothing_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def replicates(images: int, runs: int, classes: int = 8, d: int = 24):
    """Value, interval and truth of draws of ``images`` a class from layers whose class centres are known."""
    for run in range(runs):
        random = np.random.default_rng(run)
        place = random.normal(size=(classes, 4))
        centres = place @ random.normal(size=(4, d)) + 0.7 * random.normal(size=(classes, d))
        logits = 0.6 * place @ place.T

        def drawn(n, random=random, centres=centres, logits=logits):
            y = np.repeat(np.arange(classes), n)
            taught = soft_labels(logits[y] + 3 * random.normal(size=(len(y), classes)))
            return centres[y] + 3 * random.normal(size=(len(y), d)), y, taught

        arrays = drawn(images)
        yield dark_knowledge(*arrays), dark_knowledge_interval(*arrays), dark_knowledge(*drawn(4000))


@pytest.fixture(scope="module")
def of_two_hundred():
    return list(replicates(images=200, runs=60))


def test_the_interval_covers_what_all_images_would_give(of_two_hundred):
    covered = [low <= truth <= high for _, (low, high), truth in of_two_hundred]
    # A bootstrap of the images covers little more than half.
    assert sum(covered) >= binom.ppf(0.01, len(covered), 0.95)


def test_the_interval_is_as_wide_as_values_scatter(of_two_hundred):
    """Around the truth of each draw, 20 groups: 2 * 2.09 standard deviations."""
    scatter = np.sqrt(np.mean([(value - truth) ** 2 for value, _, truth in of_two_hundred]))
    width = np.mean([high - low for _, (low, high), _ in of_two_hundred])
    assert 0.75 < width / (2 * 2.09 * scatter) < 1.75


def test_the_interval_surrounds_its_value_and_narrows_with_images(of_two_hundred):
    widths = {200: [high - low for _, (low, high), _ in of_two_hundred]}
    assert all(low <= value <= high and low >= -1 and high <= 1 for value, (low, high), _ in of_two_hundred)
    widths[50] = [high - low for _, (low, high), _ in replicates(images=50, runs=20)]
    assert 1.4 < np.mean(widths[50]) / np.mean(widths[200]) < 3


def test_the_interval_is_repeatable_and_none_where_a_class_has_one_image():
    X, y, taught = pair(0)
    assert dark_knowledge_interval(X, y, taught, 1) == dark_knowledge_interval(X, y, taught, 1)
    assert dark_knowledge_interval(X, y, taught, 1) != dark_knowledge_interval(X, y, taught, 2)
    once = np.concatenate([[np.flatnonzero(y == 0)[0]], np.flatnonzero(y != 0)])
    assert np.isfinite(dark_knowledge(X[once], y[once], taught[once]))
    assert dark_knowledge_interval(X[once], y[once], taught[once]) is None
    twice = np.concatenate([np.flatnonzero(y == 0)[:2], np.flatnonzero(y != 0)])
    low, high = dark_knowledge_interval(X[twice], y[twice], taught[twice])
    assert -1 <= low <= high <= 1


def test_its_record_calls_it_with_what_it_takes():
    record = MEASURES["dark_knowledge"]
    arrays = {"X": X0, "y": Y0, "teacher_probabilities": P0}
    assert record.needs_teacher and not MEASURES["silhouette"].needs_teacher
    value = record.function(*(arrays[name] for name in record.takes))
    assert record.low <= record.chance < value <= record.high
    low, high = record.interval(*(arrays[name] for name in record.takes), seed=3)
    assert low <= value <= high
