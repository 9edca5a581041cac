"""What measures say they do not mind, they do not mind; what they do not say so of changes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from kdpipe.measures import MEASURES, Measure
from kdpipe.measures.registry import Invariance

Arrays = dict[str, Any]
IMAGES, TRAIN, CLASSES, WIDTH = 120, 90, 6, 8
# What may be done to vectors; the answers of networks have none, only an order.
DONE_TO_VECTORS = set(get_args(Invariance)) - {"permutation of images"}
OF_VECTORS = ("layer", "pair", "map")
# Neighbours and blocks are found in float32 before doubtful ones are settled exactly.
TOLERANCE = 1e-5


def example(seed: int) -> Arrays:
    """Every array that a measure may take: overlapping classes, columns of different widths, a place off the origin."""
    random = np.random.default_rng(seed)
    widths, place = np.array([6, 3, 2, 1, 1, 0.5, 0.5, 0.3]), np.array([4.0, -2, 1, 1, 0, 0, 0, 3])
    centres = random.normal(size=(CLASSES, WIDTH))
    y, y_train = np.arange(IMAGES) % CLASSES, np.arange(TRAIN) % CLASSES
    X = place + widths * (centres[y] + random.normal(size=(IMAGES, WIDTH)))
    logits = 2 * np.eye(CLASSES)[y] + random.normal(size=(IMAGES, CLASSES))
    soft = np.exp(logits / 4)
    said, other = logits.argmax(axis=1), (logits + random.normal(size=logits.shape)).argmax(axis=1)
    return {
        "X": X,
        "y": y,
        "X_train": place + widths * (centres[y_train] + random.normal(size=(TRAIN, WIDTH))),
        "y_train": y_train,
        "teacher_probabilities": soft / soft.sum(axis=1, keepdims=True),
        "Y": X @ random.normal(size=(WIDTH, 5)) + random.normal(size=(IMAGES, 5)),
        "layout": X[:, :2] + random.normal(size=(IMAGES, 2)),
        "other": X[:, :2] + random.normal(size=(IMAGES, 2)),
        "logits": logits,
        "final": said,
        "votes": np.where(random.random((4, IMAGES)) < 0.7, said, random.integers(CLASSES, size=(4, IMAGES))),
        "relative_depth": np.linspace(0, 1, 4),
        "a": said,
        "b": other,
        "correct_a": said == y,
        "correct_b": other == y,
    }


# Arrays of vectors, those of the same space together: what is done to one is done to the other.
SPACES = (("X", "X_train"), ("Y",), ("layout",), ("other",))
BY_COLUMN = ("votes",)  # their images are columns


def rotated(X: Any, random: np.random.Generator) -> Any:
    return X @ np.linalg.qr(random.normal(size=(X.shape[1],) * 2))[0]


ON_VECTORS: dict[str, Callable[[Any, np.random.Generator], Any]] = {
    "rotation": rotated,
    "translation": lambda X, random: X + 5 * random.normal(size=X.shape[1]),
    "scale": lambda X, random: 7.3 * X,
    "permutation of features": lambda X, random: X[:, random.permutation(X.shape[1])],
}


def changed(arrays: Arrays, what: str, space: tuple[str, ...], seed: int) -> Arrays:
    """The arrays after one change: of one space's vectors, or of the order of the images in all of them."""
    if what != "permutation of images":
        return {**arrays, **{name: ON_VECTORS[what](arrays[name], np.random.default_rng(seed)) for name in space}}
    order = np.random.default_rng(seed).permutation(IMAGES)
    moved = {
        name: one[:, order] if name in BY_COLUMN else one[order]
        for name, one in arrays.items()
        if len(one) == IMAGES or name in BY_COLUMN
    }
    return {**arrays, **moved}


def value(measure: Measure, arrays: Arrays) -> float:
    return measure.function(*(arrays[name] for name in measure.takes))


def cases(declared: bool) -> list[Any]:
    """Each measure with each change that it does, or does not, say it ignores."""
    return [
        pytest.param(measure, what, id=f"{name}, {what}")
        for name, measure in MEASURES.items()
        for what in get_args(Invariance)
        if (what in measure.invariant_to) == declared and (what not in DONE_TO_VECTORS or measure.of in OF_VECTORS)
    ]


def spaces(measure: Measure, what: str) -> list[tuple[str, ...]]:
    mine = [space for space in SPACES if set(space) & set(measure.takes)]
    return mine if what in DONE_TO_VECTORS else mine[:1] or [()]


@pytest.mark.parametrize(("measure", "what"), cases(declared=True))
def test_what_a_measure_ignores_does_not_change_it(measure, what):
    """On either side of a pair or map alone, for several draws."""
    for seed in range(3):
        arrays = example(seed)
        before = value(measure, arrays)
        for space in spaces(measure, what):
            assert value(measure, changed(arrays, what, space, seed)) == pytest.approx(
                before, rel=TOLERANCE, abs=TOLERANCE
            )


@pytest.mark.parametrize(("measure", "what"), cases(declared=False))
def test_what_a_measure_does_not_say_it_ignores_changes_it(measure, what):
    """On at least one of several draws: an accuracy may stay the same by chance."""
    moved = []
    for seed in range(3):
        arrays = example(seed)
        before = value(measure, arrays)
        for space in spaces(measure, what):
            moved.append(abs(value(measure, changed(arrays, what, space, seed)) - before))
    assert max(moved) > 100 * TOLERANCE


def test_most_of_what_could_be_said_is_said():
    """Every measure declares something, and the two tests above have both kinds of cases."""
    assert all(measure.invariant_to for measure in MEASURES.values())
    assert len(cases(declared=True)) > 100 and len(cases(declared=False)) >= 5


def test_an_array_of_every_name_is_in_the_example():
    arrays = example(0)
    assert {name for measure in MEASURES.values() for name in measure.takes} <= arrays.keys()
