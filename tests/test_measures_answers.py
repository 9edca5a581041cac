"""Measures of answers and of depth, against values worked out by hand, scikit-learn and plain definitions."""

from __future__ import annotations

from itertools import permutations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binom
from sklearn.metrics import cohen_kappa_score

from kdpipe.measures import answers, depth
from kdpipe.measures.answers import Flips, churn, ece, flips, kappa, margins, mcnemar
from kdpipe.measures.depth import (
    mean_prediction_depth,
    mean_vote_entropy,
    prediction_depth,
    relative_prediction_depth,
    vote_entropy,
)

labels = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=40).map(lambda rows: np.array(rows).T)


# --------------------------------------------------------------------------------------- margins


def test_margins_by_hand_with_a_tie_and_a_wrong_answer():
    logits = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [5.0, 5.0, 0.0]])
    assert margins(logits, np.array([0, 1, 1])).tolist() == [1, -2, 0]


@given(st.integers(0, 10_000))
def test_margins_are_positive_where_right_and_ignore_a_constant_but_not_a_scale(seed):
    random = np.random.default_rng(seed)
    logits, y = random.normal(size=(30, 4)), random.integers(0, 4, 30)
    found = margins(logits, y)
    assert ((found > 0) == (logits.argmax(axis=1) == y)).all()
    assert margins(logits + random.normal(size=(30, 1)), y) == pytest.approx(found)
    assert margins(2 * logits, y) == pytest.approx(2 * found)


@pytest.mark.parametrize("dtype", [np.float16, np.int64])
def test_margins_of_narrow_and_whole_numbers_do_not_overflow(dtype):
    assert margins(np.array([[60000, -60000]], dtype), np.array([1], np.uint8)) == pytest.approx(-120000, rel=1e-3)


# ----------------------------------------------------------------------------------- calibration


def slow_ece(logits, y, bins):
    """Guo et al., eq. 3, as it is written: one bin at a time."""
    probability = softmax(np.asarray(logits, np.float64), axis=1)
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == y
    total = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@given(st.integers(0, 10_000), st.sampled_from([1, 4, 15]), st.sampled_from([0.3, 3.0, 30.0]))
def test_ece_equals_its_definition(seed, bins, scale):
    random = np.random.default_rng(seed)
    logits, y = scale * random.normal(size=(50, 5)), random.integers(0, 5, 50)
    assert ece(logits, y, bins) == pytest.approx(slow_ece(logits, y, bins), abs=1e-12)


def test_ece_by_hand():
    """Confidence .75 with half right, and .95 with all right: (.25 * 4 + .05 * 2) / 6."""
    logits = np.log([[0.75, 0.25]] * 4 + [[0.05, 0.95]] * 2)
    assert ece(logits, np.array([0, 0, 1, 1, 1, 1])) == pytest.approx(1.1 / 6)
    # In one bin the gaps of both signs cancel: mean confidence 4.9 / 6 against 4 right of 6.
    assert ece(logits, np.array([0, 0, 1, 1, 1, 1]), bins=1) == pytest.approx(0.9 / 6)


def test_a_bin_is_closed_above():
    """.5 and .4 share the lower of two bins, so their gaps +.5 and -.4 nearly cancel."""
    logits = np.log([[0.5, 0.25, 0.25], [0.4, 0.3, 0.3]])
    assert ece(logits, np.array([0, 1]), bins=2) == pytest.approx(0.1 / 2)


def test_ece_of_a_sure_network_is_its_error_and_of_huge_logits_is_finite():
    logits = 1e30 * np.eye(4, dtype=np.float32)
    assert ece(logits, np.arange(4)) == 0
    assert ece(logits, np.array([0, 1, 2, 0])) == 0.25
    assert ece(np.zeros((3, 4)), np.array([0, 1, 2])) == pytest.approx(1 / 3 - 1 / 4)


def test_ece_of_a_calibrated_network_is_about_zero_and_of_one_too_sure_is_not():
    """Its mean is at most sqrt(bins / N) / 2, and an answer moves it by 1 / N at most (McDiarmid): once in 1,000."""
    random, n = np.random.default_rng(0), 20_000
    logits = 2 * random.normal(size=(n, 6))
    y = (softmax(logits, axis=1).cumsum(axis=1) < random.random((n, 1))).sum(axis=1)
    assert ece(logits, y) < np.sqrt(15 / n) / 2 + np.sqrt(np.log(1000) / (2 * n))
    # In one bin it is mean confidence less accuracy, and the accuracy of a calibrated network is its confidence.
    sure, sober = (softmax(z, axis=1).max(axis=1).mean() for z in (3 * logits, logits))
    assert ece(3 * logits, y) >= ece(3 * logits, y, bins=1) - 1e-12
    assert ece(3 * logits, y, bins=1) == pytest.approx(sure - sober, abs=4 * 0.5 / np.sqrt(n))
    assert sure - sober > 0.1
    assert ece(logits + 7, y) == pytest.approx(ece(logits, y), abs=1e-6)


# ------------------------------------------------------------------------------ pairs of answers


def test_flips_by_hand():
    y = np.array([0, 0, 0, 1, 1, 1])
    before = np.array([0, 0, 1, 0, 2, 1])
    after = np.array([0, 1, 0, 1, 0, 1])
    found = flips(before, after, y)
    assert found == Flips(fixed=2, broken=1, inherited=1, kept=2)
    assert found.shares == pytest.approx({"fixed": 2 / 6, "broken": 1 / 6, "inherited": 1 / 6, "kept": 2 / 6})


@given(labels)
def test_flips_add_up_to_the_gain_and_change_sides_with_the_order(rows):
    before, after, y = rows
    found, back = flips(before, after, y), flips(after, before, y)
    assert found.shares["fixed"] - found.shares["broken"] == pytest.approx((after == y).mean() - (before == y).mean())
    assert sum(found.shares.values()) == pytest.approx(1)
    assert (found.fixed, found.broken) == (back.broken, back.fixed)
    assert (found.inherited, found.kept) == (back.inherited, back.kept)
    assert churn(before, after) >= found.shares["fixed"] + found.shares["broken"] - 1e-12


def test_churn_counts_two_different_wrong_answers():
    assert churn(np.array([1, 2, 3, 0]), np.array([1, 3, 3, 1])) == 0.5


@given(labels)
def test_kappa_equals_scikit_learn_and_ignores_the_names_of_labels(rows):
    a, b, _ = rows
    if len(np.unique([a, b])) > 1:
        assert kappa(a, b) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)
    assert kappa(a, b) == pytest.approx(kappa(7 - 2 * b, 7 - 2 * a), abs=1e-12)
    assert -1 <= kappa(a, b) <= 1


def test_kappa_by_hand_and_of_constant_answers():
    assert kappa(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])) == pytest.approx((0.75 - 0.5) / 0.5)
    assert kappa(np.array([0, 1]), np.array([1, 0])) == -1
    assert kappa(np.array([0, 1, 2]), np.array([0, 1, 2])) == 1
    assert kappa(np.array([4, 4]), np.array([4, 4])) == 0
    assert kappa(np.array([4, 4]), np.array([4, 1])) == 0


def test_kappa_of_shuffled_answers_is_its_chance():
    """Exactly, over all 720 orders of six answers; equal answers meet with the sum of their squared shares."""
    a = np.array([0, 0, 0, 1, 1, 2])
    orders = [a[list(order)] for order in permutations(range(6))]
    assert np.mean([kappa(a, b) for b in orders]) == pytest.approx(0, abs=1e-12)
    assert np.mean([churn(a, b) for b in orders]) == pytest.approx(1 - (9 + 4 + 1) / 36)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 6), (6, 0), (1, 9), (5, 5), (10, 3), (0, 1), (40, 20)])
def test_mcnemar_is_the_binomial_tail_on_both_sides(only_a, only_b):
    a = np.array([True] * only_a + [False] * only_b + [True, False] * 4)
    b = np.array([False] * only_a + [True] * only_b + [True, False] * 4)
    n, least = only_a + only_b, min(only_a, only_b)
    expected = min(1.0, 2 * sum(comb(n, i) for i in range(least + 1)) / 2**n)
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b.astype(int), a.astype(np.uint8)) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_looks_only_at_images_that_one_network_has_right():
    assert mcnemar(np.array([1, 0, 1]), np.array([1, 0, 1])) == 1
    assert mcnemar(np.array([1] * 5), np.array([0] * 5)) == pytest.approx(2 / 32)
    assert mcnemar(np.array([1] * 5 + [0, 1] * 50), np.array([0] * 5 + [0, 1] * 50)) == pytest.approx(2 / 32)


def test_mcnemar_rejects_equal_networks_no_more_often_than_it_says():
    random = np.random.default_rng(0)
    found = [mcnemar(random.random(200) < 0.7, random.random(200) < 0.7) for _ in range(400)]
    assert sum(p < 0.05 for p in found) <= binom.ppf(0.999, 400, 0.05)


# ------------------------------------------------------------------------------ prediction depth


VOTES = np.array(
    [
        [1, 0, 2, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 0, 1, 1, 0],
        [1, 1, 1, 0, 0],
    ]
)
FINAL = np.array([1, 1, 1, 1, 1])


def slow_depth(votes, final):
    """The definition: the least l with all votes from l on equal to the answer."""
    return [next(i for i in range(len(votes) + 1) if (votes[i:, n] == final[n]).all()) for n in range(len(final))]


def test_prediction_depth_is_the_first_layer_that_agrees_for_good():
    assert prediction_depth(VOTES, FINAL).tolist() == [0, 3, 1, 4, 4]
    assert relative_prediction_depth(VOTES, FINAL, [0, 0.5, 0.75, 1]) == pytest.approx([0, 1, 0.5, 1.25, 1.25])
    assert mean_prediction_depth(VOTES, FINAL, [0, 0.5, 0.75, 1]) == pytest.approx(4 / 5)


@given(st.integers(1, 7), st.integers(1, 20), st.integers(0, 10_000))
def test_prediction_depth_equals_its_definition(layers, images, seed):
    random = np.random.default_rng(seed)
    votes, final = random.integers(0, 2, (layers, images)), random.integers(0, 2, images)
    found = prediction_depth(votes, final)
    assert found.tolist() == slow_depth(votes, final)
    if layers > 1:
        even = relative_prediction_depth(votes, final, np.linspace(0, 1, layers))
        assert even == pytest.approx(found / (layers - 1))


def test_an_early_vote_that_is_given_up_does_not_count_and_order_matters():
    votes = np.array([[1], [1], [0], [1]])
    assert prediction_depth(votes, np.array([1])).tolist() == [3]
    assert prediction_depth(votes[[2, 0, 1, 3]], np.array([1])).tolist() == [1]


def test_vote_entropy_by_hand():
    votes = np.array([[1, 1, 1, 5], [1, 2, 1, 5], [1, 3, 2, 2], [1, 4, 2, 5]])
    expected = [0, np.log(4), np.log(2), -0.75 * np.log(0.75) - 0.25 * np.log(0.25)]
    assert vote_entropy(votes) == pytest.approx(expected)
    assert mean_vote_entropy(votes) == pytest.approx(np.mean(expected))
    assert not np.signbit(vote_entropy(votes)).any()


@given(st.integers(1, 7), st.integers(0, 10_000))
def test_vote_entropy_equals_its_definition_and_ignores_order_and_names(layers, seed):
    random = np.random.default_rng(seed)
    votes = random.integers(-2, 3, (layers, 12))
    shares = np.stack([(votes == label).mean(axis=0) for label in range(-2, 3)])
    expected = -np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0).sum(axis=0)
    assert vote_entropy(votes) == pytest.approx(expected, abs=1e-12)
    assert vote_entropy(10 - 3 * random.permutation(votes)) == pytest.approx(expected, abs=1e-12)


# ------------------------------------------------------------------------------- what is refused


LOGITS, Y = np.eye(3), np.arange(3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: margins(LOGITS[:, :1], 0 * Y), "at least two classes"),
        (lambda: margins(LOGITS[:0], Y[:0]), "at least two classes"),
        (lambda: margins(LOGITS, Y[:2]), "each of the 3 rows"),
        (lambda: margins(LOGITS, Y / 1), "whole number"),
        (lambda: margins(LOGITS, Y + 1), "between 0 and K - 1 = 2"),
        (lambda: margins(LOGITS, Y - 1), "between 0 and K - 1 = 2"),
        (lambda: ece(LOGITS * np.nan, Y), "NaN"),
        (lambda: ece(LOGITS, Y, bins=0), "at least one bin"),
        (lambda: flips(Y, Y[:2], Y), "same images"),
        (lambda: flips(Y, Y, Y[:2]), "same images"),
        (lambda: churn(Y[:0], Y[:0]), "same images"),
        (lambda: churn(Y / 1, Y), "whole numbers"),
        (lambda: kappa(Y, LOGITS), "same images"),
        (lambda: mcnemar(Y, Y), "0 and 1"),
        (lambda: mcnemar(np.array([np.nan]), np.array([1.0])), "0 and 1"),
        (lambda: prediction_depth(VOTES, FINAL[:2]), "each of the 5 images"),
        (lambda: prediction_depth(VOTES, FINAL / 2), "whole number"),
        (lambda: prediction_depth(VOTES[0], FINAL), "layers, images"),
        (lambda: prediction_depth(VOTES[:0], FINAL), "layers, images"),
        (lambda: relative_prediction_depth(VOTES, FINAL, [0, 1]), "votes of 4 layers"),
        (lambda: relative_prediction_depth(VOTES, FINAL, [0, 0.5, 0.5, 1]), "rising"),
        (lambda: relative_prediction_depth(VOTES, FINAL, [0, 0.5, 0.7, np.nan]), "finite"),
        (lambda: relative_prediction_depth(VOTES[:1], FINAL, [0]), "at least two layers"),
        (lambda: vote_entropy(VOTES / 2), "whole numbers"),
        (lambda: vote_entropy(VOTES[:, :0]), "layers, images"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(call, says):
    with pytest.raises(ValueError, match=says) as raised:
        call()
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


def test_every_record_calls_its_function_with_what_it_takes():
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 40)
    given_arrays = {
        "logits": random.normal(size=(40, 4)),
        "y": y,
        "a": y,
        "b": random.integers(0, 4, 40),
        "correct_a": random.random(40) < 0.5,
        "correct_b": random.random(40) < 0.5,
        "votes": random.integers(0, 4, (5, 40)),
        "final": y,
        "relative_depth": np.linspace(0, 1, 5),
    }
    for measure in (*answers.MEASURES, *depth.MEASURES):
        value = measure.function(*(given_arrays[name] for name in measure.takes))
        assert isinstance(value, float)
        assert measure.low is None or measure.low <= value
        assert measure.high is None or value <= measure.high
