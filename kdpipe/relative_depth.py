"""Layers by relative depth: which of two networks' are level, and curves over depth, their area and their advance.

A curve holds a measure, higher is better, at each of L layers: shape (..., L), over ``depth`` (L,), rising. A leaf that
needs NumPy alone, so that evidence and the app work with one definition.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# A curve may fall by this share of its range and still count as rising.
FALL_TOLERANCE = 0.1


def nearest_place(place: int, count: int, others: int) -> int:
    """Which of ``others`` layers is nearest in relative depth to layer ``place`` of ``count``; the earlier on ties.

    Depths are compared as integers, place x (others - 1), as thirds and halves of floats tie by luck.
    """
    own, other = max(count - 1, 1), max(others - 1, 1)
    return min(range(others), key=lambda j: abs(place * other - j * own))


def area_weights(depth: ArrayLike, early: bool = False) -> Array:
    """Weights (L,) whose product with a curve is its area over ``depth`` by the trapezoid rule.

    The area is not divided by the depth that it spans: its unit is that of the measure times that of depth.

    Args:
        early: end at the last layer but one; the last layer's weight is 0.

    Raises:
        ValueError: depths that are not finite or do not rise, or fewer than 2 layers (3 with ``early``).
    """
    depths = _depths(depth)
    if early and len(depths) < 3:
        raise ValueError("The area before the last layer needs at least three layers: before two there is one point.")
    half = np.diff(depths) / 2
    if early:
        half[-1] = 0.0
    return np.append(half, 0.0) + np.append(0.0, half)


def abc(depth: ArrayLike, curve: ArrayLike, other: ArrayLike) -> Array:
    """Area (...) between two curves (..., L), positive where ``curve`` is the higher one."""
    weights = area_weights(depth)
    return (_curves(curve, len(weights)) - _curves(other, len(weights))) @ weights


def early_abc(depth: ArrayLike, curve: ArrayLike, other: ArrayLike) -> Array:
    """:func:`abc` without the last layer: the area up to the last layer but one.

    Raises:
        ValueError: fewer than three layers, which leave no depth to integrate over.
    """
    weights = area_weights(depth, early=True)
    return (_curves(curve, len(weights)) - _curves(other, len(weights))) @ weights


def first_reached(depth: ArrayLike, curve: ArrayLike, level: ArrayLike) -> Array:
    """Depth (...) at which ``curve`` (..., L), straight between layers, first is at ``level`` (...) or above it.

    The first depth where it starts there, NaN where it never gets there.
    """
    depths = _depths(depth)
    values, levels = np.broadcast_arrays(_curves(curve, len(depths)), np.asarray(level, np.float64)[..., None])
    reached = values >= levels
    after = reached.argmax(axis=-1)[..., None]
    before = np.maximum(after - 1, 0)
    low, high = np.take_along_axis(values, before, -1), np.take_along_axis(values, after, -1)
    climbs = high > low
    share = np.where(climbs, levels[..., :1] - low, 0.0) / np.where(climbs, high - low, 1.0)
    start, stop = depths[before], depths[after]
    crossing = np.where(climbs, start + share * (stop - start), stop)[..., 0]
    return np.where(reached.any(axis=-1), crossing, np.nan)


def advance(depth: ArrayLike, curve: ArrayLike, plain: ArrayLike) -> Array:
    """Depth (...) at which ``plain`` first reaches its own final value, minus that at which ``curve`` does.

    Positive where ``curve`` is earlier. NaN where it never reaches that value: whoever averages counts these
    and says so, as what is left is a selection.
    """
    other = _curves(plain, len(_depths(depth)))
    final = other[..., -1]
    return first_reached(depth, other, final) - first_reached(depth, curve, final)


def rescaled(curve: ArrayLike) -> Array:
    """A curve (..., L) with its lowest value at 0 and its highest at 1; NaN throughout where all are equal."""
    values = np.asarray(curve, np.float64)
    low, high = values.min(axis=-1, keepdims=True), values.max(axis=-1, keepdims=True)
    return np.where(high > low, values - low, np.nan) / np.where(high > low, high - low, 1.0)


def shape_abc(depth: ArrayLike, curve: ArrayLike, other: ArrayLike) -> Array:
    """:func:`abc` of the two curves, each :func:`rescaled` by itself: earlier, whatever its level and range.

    A common shift or a common factor of a curve changes nothing. NaN where either curve has no range; ask
    :func:`why_not_computable` first.
    """
    weights = area_weights(depth)
    return (rescaled(_curves(curve, len(weights))) - rescaled(_curves(other, len(weights)))) @ weights


def why_not_computable(curve: ArrayLike, epsilon: float, tolerance: float = FALL_TOLERANCE) -> str | None:
    """Why a curve (L,) has no meaningful "earlier", as a clause, or None.

    Args:
        epsilon: a curve whose range is not above it is flat; in the unit of the measure.
        tolerance: the share of its range by which a curve may lie below what it has already reached.
    """
    values = np.asarray(curve, np.float64)
    gaps = int((~np.isfinite(values)).sum())
    if gaps:
        return f"is missing at {gaps} of {len(values)} layers"
    extent = float(values.max() - values.min())
    if extent <= epsilon:
        return f"is flat: its range {extent:.3g} is not above {epsilon:.3g}"
    fall = float((np.maximum.accumulate(values) - values).max())
    if fall > tolerance * extent:
        return f"is not monotone: it falls by {fall:.3g}, {fall / extent:.0%} of its range"
    return None


def _depths(depth: ArrayLike) -> Array:
    depths = np.asarray(depth, np.float64)
    if depths.ndim != 1 or len(depths) < 2 or not np.isfinite(depths).all() or (np.diff(depths) <= 0).any():
        raise ValueError("depth must hold the finite, rising depths of at least two layers.")
    return depths


def _curves(curve: ArrayLike, layers: int) -> Array:
    values = np.asarray(curve, np.float64)
    if values.ndim == 0 or values.shape[-1] != layers:
        raise ValueError(f"A curve needs one value for each of {layers} layers; its shape is {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError("A curve holds NaN or infinity.")
    return values
