from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdpipe.evidence import (
    abc,
    advance,
    area_weights,
    early_abc,
    first_reached,
    rescaled,
    shape_abc,
    why_not_computable,
)

DEPTH = [0.0, 0.5, 1.0]
VALUES = st.floats(-10, 10, allow_nan=False).map(lambda value: round(value, 3))
LAYERS = st.integers(3, 8)

pytestmark = pytest.mark.filterwarnings("error")


@st.composite
def pairs(draw):
    """A depth axis and two stacks of curves over it, (3, L)."""
    layers = draw(LAYERS)
    steps = draw(arrays(np.float64, layers, elements=st.floats(0.1, 2.0)))
    curve, other = (draw(arrays(np.float64, (3, layers), elements=VALUES)) for _ in range(2))
    return np.cumsum(steps), curve, other


# ------------------------------------------------------------------------------------------- areas


def test_areas_worked_by_hand():
    assert abc(DEPTH, [1, 2, 4], [0, 0, 0]) == 0.75 + 1.5
    assert early_abc(DEPTH, [1, 2, 4], [0, 0, 0]) == 0.75
    assert abc([0, 0.2, 1], [1, 1, 1], [0, 1, 0]) == pytest.approx(0.1 * 1 + 0 + 0.4 * 1)
    assert abc([0, 1], [3, 5], [1, 1]) == 3


def test_weights_worked_by_hand_on_depths_of_unequal_steps():
    assert area_weights([0, 0.2, 1]) == pytest.approx([0.1, 0.5, 0.4])
    assert area_weights([0, 0.2, 1], early=True) == pytest.approx([0.1, 0.1, 0.0])
    assert area_weights([0, 0.5, 0.75, 1], early=True) == pytest.approx([0.25, 0.375, 0.125, 0.0])


def test_the_early_area_is_that_of_the_curves_cut_before_the_last_layer():
    depth, curve, other = [0, 0.1, 0.4, 1.0], [1.0, 3.0, 2.0, 9.0], [0.5, 0.0, 1.0, -9.0]
    assert early_abc(depth, curve, other) == pytest.approx(abc(depth[:-1], curve[:-1], other[:-1]))
    assert early_abc(depth, [*curve[:-1], 77.0], other) == early_abc(depth, curve, other)


@given(pairs())
def test_areas_are_signed_and_equal_numpys_trapezoid(found):
    depth, curve, other = found
    assert abc(depth, curve, other) == pytest.approx(np.trapezoid(curve - other, depth, axis=-1), abs=1e-9)
    assert abc(depth, curve, other) == pytest.approx(-abc(depth, other, curve))
    assert early_abc(depth, curve, other) == pytest.approx(-early_abc(depth, other, curve))
    assert (abc(depth, curve, curve) == 0).all()


@given(pairs(), st.integers(0, 100))
def test_areas_are_linear_in_the_values_of_single_images(found, seed):
    """What lets a bootstrap weigh images once and take areas of the means."""
    depth, *_ = found
    images = np.random.default_rng(seed).normal(size=(2, len(depth), 30))
    of_means = early_abc(depth, images[0].mean(axis=-1), images[1].mean(axis=-1))
    of_images = early_abc(depth, images[0].T, images[1].T)
    assert of_means == pytest.approx(of_images.mean(), abs=1e-12)


@given(pairs())
def test_leading_axes_are_only_stacked(found):
    depth, curve, other = found
    for function in (abc, early_abc, shape_abc, advance):
        apart = [function(depth, *rows) for rows in zip(curve, other, strict=True)]
        np.testing.assert_allclose(function(depth, curve, other), apart, atol=1e-12)
        np.testing.assert_allclose(function(depth, curve[None], other[None])[0], apart, atol=1e-12)


# ----------------------------------------------------------------------------------------- advance


@pytest.mark.parametrize(
    ("curve", "plain", "expected"),
    [
        ([1, 2, 3, 3], [0, 1, 2, 3], 1),  # one layer ahead
        ([0, 2, 4, 4], [0, 1, 2, 3], 1.5),  # 3 lies halfway between 2 and 4
        ([3, 3, 3, 3], [0, 1, 2, 3], 3),  # there from the start
        ([0, 1, 2, 3], [0, 1, 2, 3], 0),
        ([0, 0, 1, 4], [0, 1, 2, 3], 1 / 3),  # later, but higher in the end
        ([0, 1, 2, 2], [0, 3, 1, 2], 2 / 3 - 2),  # the plain curve reaches its final value before it is final
        ([0, 5, 0, 9], [0, 1, 2, 4], 3 - 0.8),  # the first crossing counts, not the last
    ],
)
def test_advance_worked_by_hand(curve, plain, expected):
    assert advance([0, 1, 2, 3], curve, plain) == pytest.approx(expected)


def test_advance_is_nan_where_the_value_is_never_reached_and_only_there():
    found = advance([0, 1, 2], [[0, 1, 1.9], [0, 1, 2]], [0, 1, 2])
    assert np.isnan(found).tolist() == [True, False]
    assert found[1] == 0


def test_a_level_between_layers_of_unequal_steps():
    assert first_reached([0, 1, 3], [0, 1, 2], 1.5) == 2
    assert first_reached([0, 1, 3], [0, 1, 2], [0.5, -1, 2]).tolist() == [0.5, 0, 3]
    assert first_reached([0, 1, 3], [[0, 0, 2]], 0).tolist() == [0]
    assert np.isnan(first_reached([0, 1, 3], [0, 1, 2], 2.1))


@given(pairs(), st.floats(-5, 5), st.floats(0.1, 10))
def test_advance_depends_on_neither_offset_nor_scale_of_the_measure_and_moves_with_depth(found, offset, factor):
    depth, curve, other = found
    curve[:, -1] = other[:, -1] + 1  # reached, and not by a rounding error
    expected = advance(depth, curve, other)
    np.testing.assert_allclose(advance(3 * depth - 1, curve, other), 3 * expected, atol=1e-9)
    # Where a curve touches the level it is rounding that decides, so values keep three digits and levels do not.
    moved = advance(depth, factor * curve + offset, factor * other + offset)
    ties = (np.abs(curve[:, :-1] - other[:, -1:]) < 1e-6).any() or (np.abs(other[:, :-1] - other[:, -1:]) < 1e-6).any()
    assert ties or np.allclose(moved, expected, atol=1e-6)


@given(pairs())
def test_a_curve_above_another_is_never_later(found):
    depth, curve, _ = found
    lower = np.sort(curve, axis=-1)
    assert (advance(depth, lower + 0.5, lower) >= 0).all()
    assert (advance(depth, lower, lower) == 0).all()


# ------------------------------------------------------------------------------------------- shape


def test_shape_worked_by_hand():
    assert shape_abc(DEPTH, [0, 1, 1], [0, 0.5, 1]) == 0.25
    assert shape_abc(DEPTH, [5, 5, 7], [0, 1, 1]) == -0.5
    assert rescaled([2, 4, 3]).tolist() == [0, 1, 0.5]


@given(pairs(), st.floats(-5, 5), st.floats(0.1, 10))
def test_shape_ignores_a_common_shift_and_stretch_of_either_curve(found, offset, factor):
    depth, curve, other = found
    curve[:, 0], curve[:, 1] = -11, 11
    other[:, 0], other[:, 1] = -11, 11
    expected = shape_abc(depth, curve, other)
    np.testing.assert_allclose(shape_abc(depth, factor * curve + offset, other), expected, atol=1e-9)
    np.testing.assert_allclose(shape_abc(depth, other, factor * curve + offset), -expected, atol=1e-9)
    np.testing.assert_allclose(shape_abc(depth, factor * curve + offset, curve), 0, atol=1e-9)


@given(pairs())
def test_shape_lies_within_the_depth_that_it_spans_and_is_nan_for_flat_curves_alone(found):
    depth, curve, other = found
    area = shape_abc(depth, curve, other)
    flat = (np.ptp(curve, axis=-1) == 0) | (np.ptp(other, axis=-1) == 0)
    assert (np.isnan(area) == flat).all()
    assert (np.abs(area[~flat]) <= depth[-1] - depth[0] + 1e-9).all()


# ---------------------------------------------------------------------------------- not computable


@pytest.mark.parametrize(
    ("curve", "says"),
    [
        ([0, 1, 2], None),
        ([0, 2, 1.8], None),  # falls by a tenth of its range
        ([0, 2, 1.79], "is not monotone: it falls by 0.21, 10% of its range"),
        ([2, 1, 0], "is not monotone: it falls by 2, 100% of its range"),
        ([0, 1, 0.95, 0.9, 0.85], "is not monotone: it falls by 0.15, 15% of its range"),  # in small steps
        ([1, 1, 1], "is flat: its range 0 is not above 0.01"),
        ([0, 0.005, 0.01], "is flat: its range 0.01 is not above 0.01"),
        ([0, 0.005, 0.011], None),
        ([0, np.nan, np.inf], "is missing at 2 of 3 layers"),
    ],
)
def test_why_a_curve_is_not_computable(curve, says):
    assert why_not_computable(curve, epsilon=0.01) == says


def test_the_tolerance_is_a_share_of_the_range_and_can_be_chosen():
    assert why_not_computable([0, 100, 95], 0.01) is None
    assert why_not_computable([0, 100, 95], 0.01, tolerance=0.04) is not None
    assert why_not_computable([0, 0, 0], 0.0) is not None
    assert why_not_computable([0, 1e-9, 1e-9], 0.0) is None


@given(pairs(), st.floats(0.5, 10))
def test_computable_curves_stay_so_in_another_unit_and_when_sorted(found, factor):
    _, curve, _ = found
    for row in curve:
        assert (why_not_computable(row, 0.5) is None) == (why_not_computable(1024 * row, 512.0) is None)
        assert np.ptp(row) <= 0.5 or why_not_computable(np.sort(row), 0.5) is None


# ------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: early_abc([0, 1], [1, 2], [1, 2]), "at least three layers"),
        (lambda: area_weights([0, 1], early=True), "at least three layers"),
        (lambda: abc([0], [1], [1]), "at least two layers"),
        (lambda: abc([0, 0, 1], [1, 2, 3], [1, 2, 3]), "rising"),
        (lambda: abc([1, 0.5, 0], [1, 2, 3], [1, 2, 3]), "rising"),
        (lambda: abc([0, 1, np.nan], [1, 2, 3], [1, 2, 3]), "finite"),
        (lambda: abc([[0, 1]], [1, 2], [1, 2]), "rising depths"),
        (lambda: abc(DEPTH, [1, 2], [1, 2, 3]), "one value for each of 3 layers"),
        (lambda: abc(DEPTH, 1.0, [1, 2, 3]), "one value for each of 3 layers"),
        (lambda: shape_abc(DEPTH, [1, 2, 3], [1, np.nan, 3]), "NaN"),
        (lambda: advance(DEPTH, [1, 2, np.inf], [1, 2, 3]), "infinity"),
        (lambda: advance(DEPTH, [1, 2, 3], [1, 2]), "one value for each of 3 layers"),
    ],
)
def test_what_is_refused_in_one_sentence(call, says):
    with pytest.raises(ValueError, match=says) as raised:
        call()
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


@given(pairs())
def test_inputs_are_left_as_they_were(found):
    depth, curve, other = found
    before = depth.copy(), curve.copy(), other.copy()
    for function in (abc, early_abc, shape_abc, advance):
        function(depth, curve, other)
    rescaled(curve)
    for array, kept in zip((depth, curve, other), before, strict=True):
        np.testing.assert_array_equal(array, kept)
