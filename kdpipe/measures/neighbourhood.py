"""Which images are near which, exactly, and whether the near ones share a label."""

from __future__ import annotations

import numpy as np

from kdpipe.measures.distances import Points, check_labels, exact_squared, points, rounding, squared_blocks
from kdpipe.measures.registry import Array, Measure

VOTE_K = 20
# Candidates beyond k that are compared exactly: enough that rounding seldom asks for a second look.
_SPARE = 8


def nearest_neighbours(X: Array, k: int) -> tuple[Array, Array]:
    """The ``k`` nearest other rows of each row of ``X`` (N, d), exact, Euclidean, nearest first.

    A row is never its own neighbour, but a duplicate of it may be, at distance 0. Equal distances go to
    the smaller index. Not N x N in memory.

    Returns:
        indices (N, k) int32 and distances (N, k) float32.

    Raises:
        ValueError: ``k`` is not between 1 and N - 1, or X holds NaN or infinity.
    """
    of = points(X, least=2)
    check_k(k, len(of))
    indices = np.empty((len(of), k), np.int32)
    distances = np.empty((len(of), k), np.float32)
    for rows, squared in squared_blocks(of):
        indices[rows], nearest = nearest_in_block(of, rows, squared, k)
        distances[rows] = np.sqrt(nearest) * of.scale
    return indices, distances


def check_k(k: int, n: int) -> None:
    """Raise ValueError unless ``n`` rows have ``k`` neighbours each."""
    if not 1 <= k < n:
        raise ValueError(f"k must be between 1 and N - 1: k is {k} and there are {n} rows.")


def nearest_in_block(of: Points, rows: Array, squared: Array, k: int) -> tuple[Array, Array]:
    """Neighbours (B, k) and exact squared distances (B, k) from a block of :func:`squared_blocks`.

    The rounded distances choose k and a few more, exact ones put them in order. Where rounding could
    have kept out a nearer point (a tight cluster far from the mean, many duplicates), the row is done
    again with every point in question. Leaves infinity at each row's own place in ``squared``.
    """
    squared[np.arange(len(rows)), rows] = np.inf
    taken = min(k + _SPARE, len(of) - 1)
    candidates = np.argpartition(squared, taken - 1, axis=1)[:, :taken]
    exact = exact_squared(of, rows, candidates)
    order = np.lexsort((candidates, exact), axis=-1)[:, :k]
    indices, nearest = (np.take_along_axis(candidates, order, 1), np.take_along_axis(exact, order, 1))
    if taken == len(of) - 1:
        return indices, nearest
    last = nearest[:, -1]
    edge = np.take_along_axis(squared, candidates, 1).max(axis=1)
    limit = last + rounding(of, rows, last)
    for row in np.flatnonzero(edge <= limit):
        indices[row], nearest[row] = _nearest_within(of, int(rows[row]), squared[row], limit[row], k)
    return indices, nearest


def _nearest_within(of: Points, row: int, squared: Array, limit: float, k: int) -> tuple[Array, Array]:
    """One row's neighbours among all points at most ``limit`` away; identical points are measured once."""
    candidates = np.flatnonzero(squared <= limit)
    distinct, which = np.unique(of.first[candidates], return_inverse=True)
    exact = exact_squared(of, np.array([row]), distinct[None])[0][which]
    order = np.lexsort((candidates, exact))[:k]
    return candidates[order], exact[order]


def knn_vote(indices: Array, y: Array, k: int = VOTE_K) -> Array:
    """The label (N,) most frequent among the first ``k`` of each row's neighbours ``indices`` (N, >= k).

    Ties go to the smallest label.
    """
    indices = np.asarray(indices)
    labels = check_labels(y, len(indices))
    if not 1 <= k <= indices.shape[1]:
        raise ValueError(f"k must be between 1 and the {indices.shape[1]} neighbours given, not {k}.")
    classes, index = np.unique(labels, return_inverse=True)
    cells = np.arange(len(indices))[:, None] * len(classes) + index[indices[:, :k]]
    counts = np.bincount(cells.ravel(), minlength=len(indices) * len(classes))
    return np.asarray(classes[counts.reshape(len(indices), -1).argmax(axis=1)])


def knn_accuracy(X: Array, y: Array, k: int = VOTE_K) -> float:
    """Share of images whose ``k`` nearest others (leave-one-out) vote for their label.

    Cover and Hart (1967), Nearest neighbor pattern classification; equal votes, ties to the smallest label.
    """
    labels = check_labels(y, len(X))
    return float((knn_vote(nearest_neighbours(X, k)[0], labels, k) == labels).mean())


def largest_class_share(y: Array, _k: int = 0) -> float:
    """What always answering the most frequent label scores."""
    return float(np.unique(y, return_counts=True)[1].max() / len(y))


MEASURES = (
    Measure(
        name="knn_accuracy",
        of="layer",
        title="kNN accuracy",
        summary="Share of images whose k nearest other images mostly carry the same label.",
        citation="Cover and Hart (1967), Nearest neighbor pattern classification",
        direction="higher",
        function=knn_accuracy,
        chance=largest_class_share,
        low=0.0,
        high=1.0,
        k=VOTE_K,
    ),
)
