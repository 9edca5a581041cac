"""The flip ledger against counts by hand, plain loops, and the sums that must hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from kdpipe.artifacts.schema import TABLES
from kdpipe.measures import flip_ledger, flip_outcomes, flips, inherited
from kdpipe.measures.ledger import COMBINATIONS

# Teacher, plain, own and label of each image; few classes, so that shared errors happen.
answered = st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=1, max_size=60).map(lambda rows: np.array(rows).T)


def test_every_combination_by_hand():
    """Label 0 throughout, one image for each combination and shared error that there is."""
    images = [
        # teacher, plain, own
        (0, 0, 0),  # kept
        (0, 0, 1),  # broken, by nobody's example
        (0, 1, 0),  # fixed
        (0, 1, 1),  # wrong, and not the teacher's error
        (2, 0, 0),  # kept against the teacher
        (2, 0, 2),  # broken and inherited
        (2, 0, 1),  # broken, with another error than the teacher's
        (2, 1, 0),  # fixed against the teacher
        (2, 2, 0),  # fixed: plain shared the teacher's error and this network shed it
        (2, 1, 2),  # inherited: wrong before, otherwise
        (2, 2, 2),  # shared by all three, so not inherited
        (2, 2, 1),  # shed for another error
        (2, 1, 1),  # wrong like plain
    ]
    teacher, plain, own = np.array(images).T
    y = np.zeros(len(images), int)
    assert flip_ledger(teacher, plain, own, y) == {
        "images": 13,
        "right_right_right": 1,
        "right_right_wrong": 1,
        "right_wrong_right": 1,
        "right_wrong_wrong": 1,
        "wrong_right_right": 1,
        "wrong_right_wrong": 2,
        "wrong_wrong_right": 2,
        "wrong_wrong_wrong": 4,
        "fixed": 3,
        "broken": 3,
        "inherited": 2,
        "same_error": 3,
        "plain_same_error": 3,
        "p_value": 1.0,
    }
    expected = [
        "kept",
        "broken",
        "fixed",
        "wrong",
        "kept",
        "broken",
        "broken",
        "fixed",
        "fixed",
        "wrong",
        "wrong",
        "wrong",
        "wrong",
    ]
    assert flip_outcomes(plain, own, y) == expected
    assert np.flatnonzero(inherited(teacher, plain, own, y)).tolist() == [5, 9]


@given(answered)
def test_counts_are_those_of_a_plain_loop(rows):
    ledger = flip_ledger(*rows)
    combinations = dict.fromkeys(COMBINATIONS, 0)
    brought = same = plain_same = 0
    for teacher, plain, own, label in zip(*rows.tolist(), strict=True):
        combinations["_".join("right" if said == label else "wrong" for said in (teacher, plain, own))] += 1
        if teacher != label:
            same += own == teacher
            plain_same += plain == teacher
            brought += own == teacher and (plain == label or plain != teacher)
    assert {name: ledger[name] for name in COMBINATIONS} == combinations
    assert (ledger["inherited"], ledger["same_error"], ledger["plain_same_error"]) == (brought, same, plain_same)
    right, wrong = ledger["fixed"], ledger["broken"]
    expected = binomtest(right, right + wrong, 0.5).pvalue if right + wrong else 1.0
    assert ledger["p_value"] == pytest.approx(expected)


@given(answered)
def test_what_must_add_up_adds_up(rows):
    teacher, plain, own, y = rows
    ledger, of_pair = flip_ledger(*rows), flips(plain, own, y)
    assert sum(ledger[name] for name in COMBINATIONS) == ledger["images"] == len(y)
    assert (ledger["fixed"], ledger["broken"]) == (of_pair.fixed, of_pair.broken)
    assert ledger["fixed"] == ledger["right_wrong_right"] + ledger["wrong_wrong_right"]
    assert ledger["broken"] == ledger["right_right_wrong"] + ledger["wrong_right_wrong"]
    assert ledger["fixed"] - ledger["broken"] == (own == y).sum() - (plain == y).sum()
    assert ledger["inherited"] <= ledger["same_error"] <= ledger["wrong_right_wrong"] + ledger["wrong_wrong_wrong"]
    back = flip_ledger(teacher, own, plain, y)  # what plain would inherit is what the network shed
    assert ledger["same_error"] - ledger["plain_same_error"] == ledger["inherited"] - back["inherited"]
    assert (ledger["fixed"], ledger["broken"], ledger["p_value"]) == (back["broken"], back["fixed"], back["p_value"])


@given(answered, st.permutations(range(4)))
def test_neither_the_order_of_images_nor_the_names_of_classes_matter(rows, names):
    order = np.random.default_rng(0).permutation(rows.shape[1])
    assert flip_ledger(*np.array(names)[rows[:, order]]) == flip_ledger(*rows)


@given(answered)
def test_classes_add_up_to_the_whole_and_images_to_their_counts(rows):
    teacher, plain, own, y = rows
    whole = flip_ledger(*rows)
    parts = [flip_ledger(*rows[:, y == label]) for label in np.unique(y)]
    assert all(sum(part[name] for part in parts) == count for name, count in whole.items() if name != "p_value")
    outcomes = flip_outcomes(plain, own, y)
    assert all(outcomes.count(name) == whole[name] for name in ("fixed", "broken"))
    assert len(outcomes) == len(y) and set(outcomes) <= {"kept", "fixed", "broken", "wrong"}
    brought = inherited(teacher, plain, own, y)
    assert brought.sum() == whole["inherited"]
    assert {outcome for outcome, one in zip(outcomes, brought, strict=True) if one} <= {"broken", "wrong"}


def test_a_student_that_copies_its_teacher_inherits_all_its_errors_but_those_that_plain_made():
    random = np.random.default_rng(0)
    teacher, plain, y = random.integers(0, 5, (3, 400))
    ledger = flip_ledger(teacher, plain, teacher, y)
    assert ledger["same_error"] == (teacher != y).sum()
    assert ledger["inherited"] == (teacher != y).sum() - ((plain == teacher) & (teacher != y)).sum()
    assert flip_ledger(teacher, plain, plain, y)["inherited"] == 0


def test_the_table_has_every_count():
    ledger = flip_ledger(*np.zeros((4, 3), int))
    assert list(TABLES["flips"].columns)[4:] == list(ledger)


Y = np.zeros(4, int)


@pytest.mark.parametrize("function", [flip_ledger, inherited])
@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ((Y[:3], Y, Y, Y), "same images"),
        ((Y, Y[:3], Y, Y), "same images"),
        ((Y, Y, Y[:3], Y), "same images"),
        ((Y[:0], Y[:0], Y[:0], Y[:0]), "same images"),
        ((Y, Y / 2, Y, Y), "whole numbers"),
        ((Y, Y, Y, Y == 0), "whole numbers"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_one_sentence(function, answers, says):
    with pytest.raises(ValueError, match=says) as raised:
        function(*answers)
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="same images"):
        flip_outcomes(Y, Y, Y[:2])
