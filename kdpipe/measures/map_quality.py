"""How much of a layer's neighbourhoods a map keeps, and what a random layout would keep.

Venna and Kaski (2001), Neighborhood preservation in nonlinear projection methods.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdpipe.measures.distances import points, squared_blocks
from kdpipe.measures.neighbourhood import check_k, nearest_neighbours
from kdpipe.measures.registry import Array, Measure

MAP_K = 15


@dataclass(frozen=True)
class MapPass:
    """Every measure of one map; ``misplacement`` is per image (N,), the rest are numbers."""

    trustworthiness: float
    continuity: float
    knn_recall: float
    misplacement: Array


def map_pass(X: Array, layout: Array, k: int = MAP_K, neighbours: Array | None = None) -> MapPass:
    """All measures of ``layout`` (N, 2) as a map of ``X`` (N, d), from one neighbour search in each.

    ``neighbours`` (N, >= k) are those of ``X`` where they are known already.
    """
    true = _true_neighbours(X, layout, k, neighbours)
    shown = nearest_neighbours(layout, k)[0]
    lost = _share_lost(true, shown)
    return MapPass(
        trustworthiness=_rank_agreement(X, shown, true, k),
        continuity=_rank_agreement(layout, true, shown, k),
        knn_recall=1 - float(lost.mean()),
        misplacement=lost,
    )


def trustworthiness(X: Array, layout: Array, k: int = MAP_K, neighbours: Array | None = None) -> float:
    """1 minus a penalty for points that are near on the map but not in ``X``. Venna and Kaski (2001), M1.

    1 - 2 / (N k (2N - 3k - 1)) sum_i sum_j max(0, rank of j around i in X - k), j the k nearest on the map.

    Raises:
        ValueError: k is not below N/2 (the penalty has no scale), sizes differ, NaN or infinity.
    """
    true = _true_neighbours(X, layout, k, neighbours)
    return _rank_agreement(X, nearest_neighbours(layout, k)[0], true, k)


def continuity(X: Array, layout: Array, k: int = MAP_K, neighbours: Array | None = None) -> float:
    """1 minus a penalty for points that are near in ``X`` but not on the map. Venna and Kaski (2001), M2.

    :func:`trustworthiness` with ``X`` and ``layout`` changed places.

    Raises:
        ValueError: as :func:`trustworthiness`.
    """
    true = _true_neighbours(X, layout, k, neighbours)
    return _rank_agreement(layout, true, nearest_neighbours(layout, k)[0], k)


def knn_recall(X: Array, layout: Array, k: int = MAP_K, neighbours: Array | None = None) -> float:
    """Share of the ``k`` true neighbours that are among the ``k`` nearest on the map, over all images."""
    return 1 - float(misplacement(X, layout, k, neighbours).mean())


def misplacement(X: Array, layout: Array, k: int = MAP_K, neighbours: Array | None = None) -> Array:
    """For each image (N,) the share of its ``k`` true neighbours that are not among its ``k`` on the map."""
    true = _true_neighbours(X, layout, k, neighbours)
    return _share_lost(true, nearest_neighbours(layout, k)[0])


def random_rank_agreement(n: int, k: int) -> float:
    """Trustworthiness and continuity of a random layout of ``n`` points, in expectation; near .5.

    A random point has each of the ranks 1 ... N-1 equally often; the penalty then adds up to this.
    """
    beyond = n - 1 - k
    return 1 - beyond * (beyond + 1) / ((n - 1) * (2 * n - 3 * k - 1))


def random_recall(n: int, k: int) -> float:
    """Neighbours kept by a random layout of ``n`` points: k / (N - 1)."""
    return k / (n - 1)


def _true_neighbours(X: Array, layout: Array, k: int, neighbours: Array | None) -> Array:
    n = len(X)
    if len(layout) != n:
        raise ValueError(f"A map shows each row of X: X has {n} rows, the layout has {len(layout)}.")
    check_k(k, n)
    if 2 * k >= n:
        raise ValueError(f"Map quality needs k below N / 2: k is {k} and there are {n} rows.")
    if neighbours is None:
        return nearest_neighbours(X, k)[0]
    if neighbours.ndim != 2 or len(neighbours) != n or neighbours.shape[1] < k:
        raise ValueError(f"neighbours must be of shape ({n}, at least {k}), not {neighbours.shape}.")
    return np.asarray(neighbours[:, :k])


def _share_lost(true: Array, shown: Array) -> Array:
    return np.asarray(1 - _contains(shown, true).mean(axis=1))


def _contains(rows: Array, wanted: Array) -> Array:
    """Whether each value of ``wanted`` (N, k) is in the same row of ``rows`` (N, k)."""
    return np.asarray((wanted[:, :, None] == rows[:, None, :]).any(axis=2))


def _rank_agreement(space: Array, named: Array, near: Array, k: int) -> float:
    """1 - 2 / (N k (2N - 3k - 1)) times how far beyond k the ``named`` points rank in ``space``.

    ``near`` are the k true neighbours there: what is among them costs nothing, whatever rounding says.
    """
    of = points(space)
    n, penalty = len(of), 0.0
    kept = _contains(near, named)
    for rows, squared in squared_blocks(of):
        squared[np.arange(len(rows)), rows] = np.inf
        for column in range(k):
            beyond = _rank(squared, named[rows, column]) - k
            penalty += float(np.where(kept[rows, column], 0, np.maximum(beyond, 1)).sum())
    return 1 - 2 * penalty / (n * k * (2 * n - 3 * k - 1))


def _rank(squared: Array, named: Array) -> Array:
    """Rank (B,), 1 for the nearest, of one ``named`` (B,) point in each row; ties to the smaller index."""
    distance = np.take_along_axis(squared, named[:, None].astype(np.intp), 1)
    closer = np.count_nonzero(squared < distance, axis=1)
    tied = np.count_nonzero(squared == distance, axis=1)
    if (tied > 1).any():
        earlier = np.arange(squared.shape[1]) < named[:, None]
        closer = closer + np.count_nonzero((squared == distance) & earlier, axis=1)
    return np.asarray(closer + 1)


def _recall_chance(y: Array, k: int) -> float:
    return random_recall(len(y), k)


def _rank_chance(y: Array, k: int) -> float:
    return random_rank_agreement(len(y), k)


_VENNA_KASKI = "Venna and Kaski (2001), Neighborhood preservation in nonlinear projection methods"

MEASURES = (
    Measure(
        name="trustworthiness",
        of="map",
        title="Trustworthiness",
        summary="Whether images that are near on the map are near in the layer too.",
        citation=_VENNA_KASKI,
        direction="higher",
        function=trustworthiness,
        chance=_rank_chance,
        low=0.0,
        high=1.0,
        k=MAP_K,
    ),
    Measure(
        name="continuity",
        of="map",
        title="Continuity",
        summary="Whether images that are near in the layer stay near on the map.",
        citation=_VENNA_KASKI,
        direction="higher",
        function=continuity,
        chance=_rank_chance,
        low=0.0,
        high=1.0,
        k=MAP_K,
    ),
    Measure(
        name="knn_recall",
        of="map",
        title="Neighbours kept",
        summary=f"Share of the {MAP_K} nearest images in the layer that are among the {MAP_K} nearest on the map.",
        citation="Lee and Verleysen (2009), Quality assessment of dimensionality reduction: rank-based criteria",
        direction="higher",
        function=knn_recall,
        chance=_recall_chance,
        low=0.0,
        high=1.0,
        k=MAP_K,
    ),
)
