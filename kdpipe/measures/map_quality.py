"""How much of a layer a map keeps, near by and far away, and what a random layout would keep.

Venna and Kaski (2001), Neighborhood preservation in nonlinear projection methods. scikit-learn's ``trustworthiness``
sorts all N² distances, knows no continuity and gives no value for an image; here blocks of rows are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist

from kdpipe.measures.distances import Points, exact_squared, points, squared_blocks
from kdpipe.measures.neighbourhood import check_k, nearest_neighbours
from kdpipe.measures.ranks import rank_correlation
from kdpipe.measures.registry import OF_IMAGES, OF_SHAPE, Array, Measure

MAP_K = 15
# The probe set's 2,000 images still have every pair looked at; the pairs then number no more than a block holds.
ALL_PAIRS_UP_TO = 400
# Drawing pairs or triplets, rather than taking them all, errs by about .0014 and .0011 (1 / sqrt and .5 / sqrt).
SAMPLED_PAIRS = 100_000
TRIPLETS = 50_000
_SAMPLE_SEED = 0


@dataclass(frozen=True)
class MapPass:
    """What one neighbour search in a layer and one in its map give: per image (N,) what is wrong around it.

    Attributes:
        misplacement: share of its true neighbours that the map does not show near it.
        false_neighbours, missing_neighbours: how far off those are that the map adds, and that it loses.
    """

    misplacement: Array
    false_neighbours: Array
    missing_neighbours: Array

    @property
    def trustworthiness(self) -> float:
        """As :func:`trustworthiness`, from what is known already."""
        return 1 - float(self.false_neighbours.mean())

    @property
    def continuity(self) -> float:
        """As :func:`continuity`, from what is known already."""
        return 1 - float(self.missing_neighbours.mean())

    @property
    def knn_recall(self) -> float:
        """As :func:`knn_recall`, from what is known already."""
        return 1 - float(self.misplacement.mean())


def map_pass(X: Array, layout: Array, k: int = MAP_K, neighbours: Array | None = None) -> MapPass:
    """What ``layout`` (N, 2) keeps of the ``k`` nearest in ``X`` (N, d), from one neighbour search in each.

    ``neighbours`` (N, >= k) are those of ``X`` where they are known already.
    """
    true = _true_neighbours(X, layout, k, neighbours)
    shown = nearest_neighbours(layout, k)[0]
    return MapPass(
        misplacement=_share_lost(true, shown),
        false_neighbours=_rank_penalties(X, shown, true, k),
        missing_neighbours=_rank_penalties(layout, true, shown, k),
    )


def trustworthiness(X: Array, layout: Array, k: int = MAP_K, neighbours: Array | None = None) -> float:
    """1 minus a penalty for points that are near on the map but not in ``X``. Venna and Kaski (2001), M1.

    1 - 2 / (N k (2N - 3k - 1)) sum_i sum_j max(0, rank of j around i in X - k), j the k nearest on the map.

    Raises:
        ValueError: k is not below N/2 (the penalty has no scale), sizes differ, NaN or infinity.
    """
    return 1 - float(false_neighbours(X, layout, k, neighbours).mean())


def continuity(X: Array, layout: Array, k: int = MAP_K, neighbours: Array | None = None) -> float:
    """1 minus a penalty for points that are near in ``X`` but not on the map. Venna and Kaski (2001), M2.

    :func:`trustworthiness` with ``X`` and ``layout`` changed places.

    Raises:
        ValueError: as :func:`trustworthiness`.
    """
    return 1 - float(missing_neighbours(X, layout, k, neighbours).mean())


def knn_recall(X: Array, layout: Array, k: int = MAP_K, neighbours: Array | None = None) -> float:
    """Share of the ``k`` true neighbours that are among the ``k`` nearest on the map, over all images.

    Of ``X`` (N, d) and ``layout`` (N, 2).

    Raises:
        ValueError: as :func:`trustworthiness`.
    """
    return 1 - float(misplacement(X, layout, k, neighbours).mean())


def misplacement(X: Array, layout: Array, k: int = MAP_K, neighbours: Array | None = None) -> Array:
    """For each image (N,) the share of its ``k`` true neighbours that are not among its ``k`` on the map.

    With k on both sides as many are added as are lost, so this share is that of false neighbours too;
    :func:`false_neighbours` and :func:`missing_neighbours` tell the two faults apart.
    """
    true = _true_neighbours(X, layout, k, neighbours)
    return _share_lost(true, nearest_neighbours(layout, k)[0])


def false_neighbours(X: Array, layout: Array, k: int = MAP_K, neighbours: Array | None = None) -> Array:
    """For each image (N,) how far away in ``X`` those are that only the map shows near it, in [0, 1].

    2 / (k (2N - 3k - 1)) sum_j max(0, rank of j around i in X - k), j the k nearest on the map: one image's
    term of Venna and Kaski (2001), M1, so the mean is 1 - :func:`trustworthiness`. 0: all k are true; 1: they
    are the k farthest in X. High where the map folds distant parts of X onto one place.

    Raises:
        ValueError: as :func:`trustworthiness`.
    """
    true = _true_neighbours(X, layout, k, neighbours)
    return _rank_penalties(X, nearest_neighbours(layout, k)[0], true, k)


def missing_neighbours(X: Array, layout: Array, k: int = MAP_K, neighbours: Array | None = None) -> Array:
    """For each image (N,) how far away on the map its ``k`` nearest of ``X`` are shown, in [0, 1].

    :func:`false_neighbours` with ``X`` and ``layout`` changed places, so the mean is 1 - :func:`continuity`.
    High where the map tears an image from its own.

    Raises:
        ValueError: as :func:`trustworthiness`.
    """
    true = _true_neighbours(X, layout, k, neighbours)
    return _rank_penalties(layout, true, nearest_neighbours(layout, k)[0], k)


def shepard(X: Array, layout: Array) -> float:
    """Spearman correlation of the distances in ``X`` (N, d) with those on the ``layout`` (N, 2), in [-1, 1].

    The rank correlation of the diagram of Shepard (1962); Espadoto et al. (2021) call it Shepard goodness.
    Large distances decide it, as most pairs are far apart. All pairs up to N = 2,000; beyond, a fixed sample
    of 500,000, so that the order of the rows matters a little. 0 for a random layout, and where all
    distances are equal on either side.

    Raises:
        ValueError: fewer than 3 rows, sizes differ, NaN or infinity.
    """
    true, shown = _both(X, layout)
    n = len(true)
    if n <= ALL_PAIRS_UP_TO:
        return rank_correlation(pdist(true.rows.astype(np.float64)), pdist(shown.rows.astype(np.float64)))
    random = np.random.default_rng(_SAMPLE_SEED)
    one = random.integers(n, size=SAMPLED_PAIRS)
    other = ((one + random.integers(1, n, size=SAMPLED_PAIRS)) % n)[:, None]
    return rank_correlation(exact_squared(true, one, other)[:, 0], exact_squared(shown, one, other)[:, 0])


def triplet_accuracy(X: Array, layout: Array) -> float:
    """Share of triplets (an image and two others) of which the nearer one in ``X`` is nearer on the map too.

    Wang et al. (2021). 50,000 fixed random triplets, each image in the middle about equally often, so that the
    order of the rows matters a little. A triplet that is tied in X has no nearer one and is left out; one tied
    only on the map counts half. .5 for a random layout, for a layout of one point, and where every triplet is
    tied in X.

    Raises:
        ValueError: fewer than 3 rows, sizes differ, NaN or infinity.
    """
    true, shown = _both(X, layout)
    n = len(true)
    random = np.random.default_rng(_SAMPLE_SEED)
    middle = np.arange(TRIPLETS) % n
    first, second = random.integers(1, n, size=TRIPLETS), random.integers(1, n - 1, size=TRIPLETS)
    second += second >= first
    others = (middle[:, None] + np.stack([first, second], axis=1)) % n
    nearer_in_X, nearer_on_map = (
        np.sign(np.diff(exact_squared(space, middle, others), axis=1)[:, 0]) for space in (true, shown)
    )
    told_apart = nearer_in_X != 0
    if not told_apart.any():
        return 0.5
    return float((1 + nearer_in_X[told_apart] * nearer_on_map[told_apart]).mean() / 2)


def displacement(layout: Array, other: Array) -> float:
    """How far two maps (N, 2) of the same images are apart once laid over each other, in RMS radii; 0 to 1.

    Root mean square distance of the points after translation, rotation, reflection and one scale that fit best,
    divided by the root mean square distance to the centre: sqrt(1 - r²) with r the nuclear norm of A'B over the
    lengths of the centred maps A and B. Schönemann and Carroll (1970); the root of what
    ``scipy.spatial.procrustes`` calls disparity. Two unrelated maps score near 1.

    Raises:
        ValueError: sizes that differ, all points of a map in one place, NaN or infinity.
    """
    one, two = _both(layout, other)
    if not (one.first.any() and two.first.any()):
        raise ValueError("A map whose points are all in one place cannot be laid over another.")
    return float(np.sqrt(procrustes(one.rows, two.rows)[2]))


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
    _check_rows(n, len(layout))
    check_k(k, n)
    if 2 * k >= n:
        raise ValueError(f"Map quality needs k below N / 2: k is {k} and there are {n} rows.")
    if neighbours is None:
        return nearest_neighbours(X, k)[0]
    if neighbours.ndim != 2 or len(neighbours) != n or neighbours.shape[1] < k:
        raise ValueError(f"neighbours must be of shape ({n}, at least {k}), not {neighbours.shape}.")
    return np.asarray(neighbours[:, :k])


def _both(X: Array, layout: Array) -> tuple[Points, Points]:
    _check_rows(len(X), len(layout))
    return points(X, least=3), points(layout, least=3)


def _check_rows(n: int, shown: int) -> None:
    if shown != n:
        raise ValueError(f"A map shows each row of X: X has {n} rows, the layout has {shown}.")


def _share_lost(true: Array, shown: Array) -> Array:
    return np.asarray(1 - _contains(shown, true).mean(axis=1))


def _contains(rows: Array, wanted: Array) -> Array:
    """Whether each value of ``wanted`` (N, k) is in the same row of ``rows`` (N, k)."""
    return np.asarray((wanted[:, :, None] == rows[:, None, :]).any(axis=2))


def _rank_penalties(space: Array, named: Array, near: Array, k: int) -> Array:
    """2 / (k (2N - 3k - 1)) times how far (N,) beyond k each row's ``named`` points rank in ``space``.

    ``near`` are the k true neighbours there: what is among them costs nothing, whatever rounding says.
    """
    of = points(space)
    n = len(of)
    penalties = np.zeros(n)
    kept = _contains(near, named)
    for rows, squared in squared_blocks(of):
        squared[np.arange(len(rows)), rows] = np.inf
        for column in range(k):
            beyond = _rank(squared, named[rows, column]) - k
            penalties[rows] += np.where(kept[rows, column], 0, np.maximum(beyond, 1))
    return penalties * 2 / (k * (2 * n - 3 * k - 1))


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
        takes=("X", "layout"),
        chance=_rank_chance,
        cost="N² d",
        low=0.0,
        high=1.0,
        k=MAP_K,
        of_pass=lambda found, k: found.trustworthiness,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="continuity",
        of="map",
        title="Continuity",
        summary="Whether images that are near in the layer stay near on the map.",
        citation=_VENNA_KASKI,
        direction="higher",
        function=continuity,
        takes=("X", "layout"),
        chance=_rank_chance,
        cost="N² d",
        low=0.0,
        high=1.0,
        k=MAP_K,
        of_pass=lambda found, k: found.continuity,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="knn_recall",
        of="map",
        title="Neighbours kept",
        summary=f"Share of the {MAP_K} nearest images in the layer that are among the {MAP_K} nearest on the map.",
        citation="Lee and Verleysen (2009), Quality assessment of dimensionality reduction: rank-based criteria",
        direction="higher",
        function=knn_recall,
        takes=("X", "layout"),
        chance=_recall_chance,
        cost="N² d",
        low=0.0,
        high=1.0,
        k=MAP_K,
        of_pass=lambda found, k: found.knn_recall,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="shepard",
        of="map",
        title="Distances kept",
        summary="Whether images far apart in the layer are far apart on the map: correlation of the distances' ranks.",
        citation="Shepard (1962), The analysis of proximities; its rank correlation as in Espadoto et al. (2021), "
        "Toward a quantitative survey of dimension reduction techniques",
        direction="higher",
        function=shepard,
        takes=("X", "layout"),
        chance=0.0,
        cost="N² d up to 2,000 images, d beyond",
        low=-1.0,
        high=1.0,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="triplet_accuracy",
        of="map",
        title="Triplets kept",
        summary="How often the nearer of two images in the layer is the nearer one on the map.",
        citation="Wang, Huang, Rudin and Shaposhnik (2021), Understanding how dimension reduction tools work",
        direction="higher",
        function=triplet_accuracy,
        takes=("X", "layout"),
        chance=0.5,
        cost="d",
        low=0.0,
        high=1.0,
        invariant_to=OF_SHAPE - OF_IMAGES,
    ),
    Measure(
        name="seed_drift",
        of="map",
        title="Seed drift",
        summary="How far the map moves when nothing but the projector's seed changes, in RMS radii.",
        citation="Orthogonal Procrustes with a scale: Schönemann and Carroll (1970), Fitting one matrix to another "
        "under choice of a central dilation and a rigid motion",
        direction="lower",
        function=displacement,
        takes=("layout", "other"),
        chance=None,
        cost="N",
        low=0.0,
        high=1.0,
        invariant_to=OF_SHAPE,
    ),
)
