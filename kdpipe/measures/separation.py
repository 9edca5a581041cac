"""How far the classes of a layer lie apart, from class means: in time that grows with N, not with N².

:class:`ClassScatter` holds the means; collapse and probes are measured from it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kdpipe.measures.class_structure import class_balanced_mean
from kdpipe.measures.distances import Points, check_labels, points, row_slices
from kdpipe.measures.registry import OF_SHAPE, Array, Measure


@dataclass(frozen=True)
class ClassScatter:
    """Class means of a layer and what its images differ from them, in float64 and divided by ``of.scale``.

    Each class is averaged as differences from its first image, which leaves identical images exactly on
    their mean: where the classes have collapsed, what is left must be 0 and not rounding.

    Attributes:
        of: the checked X (N, d).
        labels: (K,) the labels that occur, in order.
        members: for each class the indices of its rows.
        offsets: (K, d) class mean minus the first row of the class.
        means: (K, d) class mean minus the first row of X.
    """

    of: Points
    labels: Array
    members: list[Array]
    offsets: Array
    means: Array

    @property
    def counts(self) -> Array:
        """Images (K,) of each class."""
        return np.array([len(rows) for rows in self.members])

    def deviations(self) -> Iterator[tuple[int, Array, Array]]:
        """Yield the place of a class, some of its rows (B,) and their differences from its mean (B, d)."""
        for place, rows, difference in _from_first(self.of, self.members):
            yield place, rows, difference - self.offsets[place]

    @cached_property
    def variances(self) -> Array:
        """Mean squared distance (K,) of the images of each class to their mean."""
        sums = np.zeros(len(self.labels))
        for place, _, deviation in self.deviations():
            sums[place] += np.einsum("bd,bd->", deviation, deviation)
        return sums / self.counts

    def mean_differences(self, place: int) -> Array:
        """The mean of one class minus each class mean (K, d); exactly 0 where that is but rounding."""
        return self._rounded(self.means[place] - self.means)

    def centred_means(self, weights: Array | None = None) -> Array:
        """Class means minus their mean (K, d), each class counting equally unless ``weights`` (K,) are given."""
        difference = self.means - self.means[0]
        return self._rounded(difference - np.average(difference, axis=0, weights=weights))

    @cached_property
    def squared_between(self) -> Array:
        """Squared distances (K, K) of the class means."""
        return np.array([np.square(self.mean_differences(place)).sum(axis=1) for place in range(len(self.labels))])

    def check_pairs(self, measure: str) -> None:
        """Raise ValueError where every class has a single image, so that nothing is known of its scatter."""
        if len(self.labels) == len(self.of):
            raise ValueError(f"{measure} needs a class with at least two images.")

    def _rounded(self, difference: Array) -> Array:
        # The sum of N numbers below 1 is off by about sqrt(N) roundings; measures divide by what this leaves.
        noise = 2 * np.finfo(np.float64).eps * np.sqrt(len(self.of))
        return np.where(np.abs(difference) > noise, difference, 0)


def class_scatter(X: Array, y: Array) -> ClassScatter:
    """Class means of ``X`` (N, d) with labels ``y`` (N,).

    Raises:
        ValueError: fewer than two classes, NaN or infinity.
    """
    of = points(X, least=2)
    labels, index, counts = np.unique(check_labels(y, len(of)), return_inverse=True, return_counts=True)
    if len(labels) < 2:
        raise ValueError(f"Class structure needs at least two classes; every label is {labels[0]}.")
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(counts)[:-1])
    offsets = np.zeros((len(labels), of.rows.shape[1]))
    for place, _, difference in _from_first(of, members):
        offsets[place] += difference.sum(axis=0)
    offsets /= counts[:, None]
    first = of.rows[[rows[0] for rows in members]].astype(np.float64)
    return ClassScatter(of, labels, members, offsets, first - of.rows[0] + offsets)


def _from_first(of: Points, members: list[Array]) -> Iterator[tuple[int, Array, Array]]:
    """Place of a class, rows (B,) of it, and their differences (B, d) from its first row, in blocks."""
    for place, whole in enumerate(members):
        for part in row_slices(len(whole), max(of.rows.shape[1], len(members))):
            rows = whole[part]
            yield place, rows, np.subtract(of.rows[rows], of.rows[whole[0]], dtype=np.float64)


def silhouette_sq_samples(X: Array, y: Array) -> Array:
    """Silhouette coefficient (N,) of each row with *squared* Euclidean distances: (b - a) / max(a, b).

    As :func:`silhouette_samples` (Rousseeuw 1987, section 2), but without a look at pairs of images: the
    mean squared distance of x to the n images of a class is |x - mean|² plus their variance (Huygens), and
    n / (n - 1) times that for its own class, where x itself is no neighbour. Squares stretch the ratio of a
    and b, so values lie further from 0 than ``silhouette``'s. 0 for an image alone in its class, and where
    a and b are both 0.

    Raises:
        ValueError: fewer than two classes, NaN or infinity.
    """
    scatter = class_scatter(X, y)
    counts, samples = scatter.counts, np.zeros(len(scatter.of))
    for place, rows, deviation in scatter.deviations():
        if counts[place] < 2:
            continue
        # Measured from the class's own mean, the product cancels only against distances that matter.
        away = scatter.mean_differences(place)
        squared = 2 * deviation @ away.T
        squared += np.einsum("bd,bd->b", deviation, deviation)[:, None]
        squared += np.einsum("kd,kd->k", away, away)
        np.maximum(squared, 0, out=squared)
        squared += scatter.variances
        a = squared[:, place] * counts[place] / (counts[place] - 1)
        squared[:, place] = np.inf
        b = squared.min(axis=1)
        larger = np.maximum(a, b)
        samples[rows] = np.where(larger > 0, b - a, 0) / np.where(larger > 0, larger, 1)
    return samples


def silhouette_sq(X: Array, y: Array, balanced: bool = True) -> float:
    """Mean of :func:`silhouette_sq_samples`: over classes of the class means (``balanced``), or over images."""
    samples = silhouette_sq_samples(X, y)
    return class_balanced_mean(samples, y) if balanced else float(samples.mean())


def fisher(X: Array, y: Array, balanced: bool = True) -> float:
    """Trace of the between-class over that of the within-class scatter: sum p |m - m0|² / sum p v.

    m and v are mean and variance of a class, m0 the mean of the m. Fukunaga (1990), Introduction to
    statistical pattern recognition, section 10.2, criterion J4, on S_b and S_w, with every class as
    probable (``balanced``), or as probable as it is frequent; then it is scikit-learn's Calinski-Harabasz
    score times (K - 1) / (N - K). It is not 0 but about (K - 1) / N for labels that say nothing. A class of
    one image has variance 0. Infinite where classes differ and no class varies, 0 where no class means differ.

    Raises:
        ValueError: fewer than two classes, no two images of one class, NaN or infinity.
    """
    scatter = class_scatter(X, y)
    scatter.check_pairs("fisher")
    weights = np.ones(len(scatter.labels)) if balanced else scatter.counts
    between = float(weights @ np.square(scatter.centred_means(weights)).sum(axis=1))
    within = float(weights @ scatter.variances)
    if within > 0:
        return between / within
    return np.inf if between > 0 else 0.0


def davies_bouldin(X: Array, y: Array) -> float:
    """Mean over classes i of the worst (S_i + S_j) / M_ij among the other classes j.

    S is the mean distance of a class's images to their mean, M the distance of two means. Davies and
    Bouldin (1979), A cluster separation measure, with q = 1 and p = 2, as scikit-learn. A class of one image
    has S = 0. Infinite where two class means coincide; scikit-learn leaves such a pair out, and calls
    a layer that gives every image the same vector perfect.

    Raises:
        ValueError: fewer than two classes, no two images of one class, NaN or infinity.
    """
    scatter = class_scatter(X, y)
    scatter.check_pairs("davies_bouldin")
    sums = np.zeros(len(scatter.labels))
    for place, _, deviation in scatter.deviations():
        sums[place] += np.sqrt(np.einsum("bd,bd->b", deviation, deviation)).sum()
    spread = sums / scatter.counts
    ratios = over_distance(spread[:, None] + spread, np.sqrt(scatter.squared_between))
    np.fill_diagonal(ratios, -np.inf)
    return float(ratios.max(axis=1).mean())


def over_distance(values: Array, distance: Array) -> Array:
    """``values`` / ``distance``, both (...), infinite where the distance is 0."""
    with np.errstate(over="ignore"):
        return np.divide(values, distance, out=np.full(np.shape(values), np.inf), where=distance > 0)


MEASURES = (
    Measure(
        name="silhouette_sq",
        of="layer",
        title="Silhouette, squared distances",
        summary="Silhouette from squared distances, which needs class means only and no pairs of images.",
        citation="Rousseeuw (1987), Silhouettes: a graphical aid to the interpretation of cluster analysis; with "
        "squared Euclidean distances",
        direction="higher",
        function=silhouette_sq,
        takes=("X", "y"),
        chance="shuffled",
        cost="N K d",
        low=-1.0,
        high=1.0,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="fisher",
        of="layer",
        title="Fisher criterion",
        summary="How far the class means are spread, as a multiple of how far images are spread around them.",
        citation="Fukunaga (1990), Introduction to statistical pattern recognition, section 10.2, ratio of traces",
        direction="higher",
        function=fisher,
        takes=("X", "y"),
        chance="shuffled",
        cost="N d",
        low=0.0,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="davies_bouldin",
        of="layer",
        title="Davies-Bouldin index",
        summary="Spread of two classes over the distance of their means, for each class the worst, averaged.",
        citation="Davies and Bouldin (1979), A cluster separation measure",
        direction="lower",
        function=davies_bouldin,
        takes=("X", "y"),
        chance="shuffled",
        cost="N d + K² d",
        low=0.0,
        invariant_to=OF_SHAPE,
    ),
)
