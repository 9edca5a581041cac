"""How many coordinates a layer's images need locally, judged by how fast neighbours are gained with distance.

Both estimators want neighbours that differ: identical rows count once. Where only distances to known
neighbours are at hand, ``twonn_of`` and ``mle_dimension_of`` leave out copies as well as these allow.
"""

from __future__ import annotations

import numpy as np

from kdpipe.measures.distances import points
from kdpipe.measures.neighbourhood import check_k, nearest_neighbours
from kdpipe.measures.registry import OF_SHAPE, Array, Measure

MLE_K = 20
TWONN_KEPT = 0.9


def twonn(X: Array) -> float:
    """Intrinsic dimension of ``X`` (N, d) by the ratio of second to first neighbour's distance.

    Facco et al. (2017), Estimating the intrinsic dimension of datasets by a minimal neighborhood information:
    the ratios follow F(r) = 1 - r^-dimension, and the slope of -log(1 - F) over log r through 0 is fitted to
    the 90 % smallest, as there. The likelihood's closed form, N / sum(log r), has less variance but no defence: one
    pair of nearly identical images has a first distance near 0 and a ratio without bound. Such ratios are in the tail
    that the fit discards, and a ReLU layer is full of them.

    Identical rows count once. A layer with fewer than 3 different rows is a few points, of dimension 0.

    Raises:
        ValueError: fewer than 3 rows, all ratios 1 (as on a lattice), NaN or infinity.
    """
    return twonn_of(_distances_between_different(X, 2))


def mle_dimension(X: Array, k: int = MLE_K) -> float:
    """Intrinsic dimension of ``X`` (N, d) by maximum likelihood from the distances to the ``k`` nearest rows.

    1 / dimension at a row is the mean of log(T_k / T_j) over j < k, T_j being the distance to the j-th neighbour:
    Levina and Bickel (2005), eq. 8. These inverses are averaged over rows, not the dimensions themselves: the
    likelihood of all rows asks for it, and it takes away the bias at small k (MacKay and Ghahramani 2005).

    Identical rows count once. A layer with at most k different rows is a few points, of dimension 0.

    Raises:
        ValueError: ``k`` is not between 2 and N - 1, all k distances equal in every row, NaN or infinity.
    """
    return mle_dimension_of(_distances_between_different(X, k), k)


def twonn_of(distances: Array, neighbours: Array | None = None) -> float:
    """:func:`twonn` from known ``distances`` (N, >= 2) to each row's nearest others, nearest first.

    With the ``neighbours`` (N, >= 2) they belong to, as :func:`nearest_neighbours` gives them, copies are told from
    equally far rows, and the value is that of :func:`twonn`, save for rows whose list ends in copies before it
    holds two different neighbours: they are left out. Without them, a row that has a copy is left out, and copies of
    its neighbours go unseen. 0 if no row is left.

    Raises:
        ValueError: distances that are not finite or not in order, shapes that differ, or all ratios 1.
    """
    nearest = _between_different(distances, neighbours, 2)
    if not len(nearest):
        return 0.0
    ratios = np.sort(np.log(nearest[:, 1] / nearest[:, 0]))
    kept = ratios[: max(1, int(TWONN_KEPT * len(ratios)))]
    expected = -np.log1p(-np.arange(1, len(kept) + 1) / max(len(ratios), 2))
    squares = float(kept @ kept)
    if squares == 0:
        raise ValueError("TwoNN has no value where each row's two nearest rows are equally far.")
    return float(kept @ expected) / squares


def mle_dimension_of(distances: Array, k: int = MLE_K, neighbours: Array | None = None) -> float:
    """:func:`mle_dimension` from known ``distances`` (N, >= k) to each row's nearest others, nearest first.

    Copies are left out as in :func:`twonn_of`, rows with fewer than ``k`` different neighbours in their list too.

    Raises:
        ValueError: ``k`` below 2, or as :func:`twonn_of`.
    """
    if k < 2:
        raise ValueError(f"The likelihood of a dimension needs k of at least 2, not {k}.")
    nearest = _between_different(distances, neighbours, k)
    if not len(nearest):
        return 0.0
    inverse = float(np.log(nearest[:, -1:] / nearest[:, :-1]).mean())
    if inverse == 0:
        raise ValueError(f"A dimension has no likelihood where each row's {k} nearest rows are equally far.")
    return 1 / inverse


def _distances_between_different(X: Array, k: int) -> Array:
    """Distances (M, k) from each different row of ``X`` to its k nearest, up to a factor; none if M <= k."""
    of = points(X, least=3)
    check_k(k, len(of))
    different = of.rows[np.unique(of.first)]
    return nearest_neighbours(different, k)[1] if len(different) > k else np.empty((0, k))


def _between_different(distances: Array, neighbours: Array | None, k: int) -> Array:
    """Of known ``distances``, those (M, k) from rows that count to their first k neighbours that count, in float64.

    Of identical rows the one with the smallest index counts. It heads every list of neighbours it shares with its
    copies, since equal distances go to the smaller index.
    """
    known = np.asarray(distances, np.float64)
    if known.ndim != 2 or known.shape[1] < k:
        raise ValueError(f"Distances to at least {k} neighbours of each row are needed, not of shape {known.shape}.")
    if not (np.isfinite(known).all() and (known >= 0).all() and (np.diff(known, axis=1) >= 0).all()):
        raise ValueError("Distances must be finite, not negative, and in each row nearest first.")
    if neighbours is None:
        return known[known[:, 0] > 0, :k]
    indices = np.asarray(neighbours)
    if indices.shape != known.shape:
        raise ValueError(f"There are distances of shape {known.shape} but neighbours of shape {indices.shape}.")
    own = np.arange(len(known))
    first = np.where(known[:, 0] == 0, np.minimum(indices[:, 0], own), own)
    counts = (first == own)[indices] & (known > 0)
    rows = np.flatnonzero((first == own) & (counts.sum(axis=1) >= k))
    order = np.argsort(~counts[rows], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(known[rows], order, axis=1)


MEASURES = (
    Measure(
        name="twonn",
        of="layer",
        title="Dimension (TwoNN)",
        summary="Coordinates that images need locally, by the distances to their two nearest. Not compactness.",
        citation="Facco et al. (2017), Estimating the intrinsic dimension of datasets by a minimal neighborhood "
        "information",
        direction="neither",
        function=twonn,
        takes=("X",),
        chance="shuffled",
        cost="N² d",
        low=0.0,
        of_pass=lambda found, k: found.twonn,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="mle_dimension",
        of="layer",
        title="Dimension (maximum likelihood)",
        summary="Coordinates that images need locally, by the distances to their k nearest. Not compactness.",
        citation="Levina and Bickel (2005), Maximum likelihood estimation of intrinsic dimension; averaged as "
        "MacKay and Ghahramani (2005), Comments on it",
        direction="neither",
        function=mle_dimension,
        takes=("X",),
        chance="shuffled",
        cost="N² d",
        low=0.0,
        k=MLE_K,
        of_pass=lambda found, k: found.mle_dimension,
        invariant_to=OF_SHAPE,
    ),
)
