"""How well the true classes are separated in a layer, and one pass that measures it all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kdpipe.measures.distances import check_labels, points, squared_blocks
from kdpipe.measures.neighbourhood import VOTE_K, check_k, knn_vote, nearest_in_block
from kdpipe.measures.registry import Array, Measure


@dataclass(frozen=True)
class LayerPass:
    """Everything that one pass over a layer's distances gives.

    Attributes:
        neighbours: (N, k) int32, nearest first, as :func:`nearest_neighbours`.
        distances: (N, k) float32, to those neighbours.
        class_distances: (N, K) float64, sum of distances to each class in the order of its label.
        silhouette_samples: (N,) float64.
        intra_inter: mean same-class over mean other-class distance.
        knn_vote: (N,) label of the vote among the 20 nearest, or among k where k is less.
        y: (N,) the labels.
    """

    neighbours: Array
    distances: Array
    class_distances: Array
    silhouette_samples: Array
    intra_inter: float
    knn_vote: Array
    y: Array

    @property
    def silhouette(self) -> float:
        return class_balanced_mean(self.silhouette_samples, self.y)

    @property
    def knn_correct(self) -> Array:
        return np.asarray(self.knn_vote == self.y)

    @property
    def knn_accuracy(self) -> float:
        return float(self.knn_correct.mean())


def layer_pass(X: Array, y: Array, k: int = 50) -> LayerPass:
    """Neighbours, silhouette, intra/inter and kNN vote of ``X`` (N, d) from one blocked pass.

    The exact distances of the k nearest also replace the rounded ones in the class sums.

    Raises:
        ValueError: fewer than two classes, no two images of one class, k not below N, NaN or infinity.
    """
    of = points(X, least=3)
    check_k(k, len(of))
    labels, one_hot = _membership(y, len(of), of.centred.dtype)
    neighbours, distances = (np.empty((len(of), k), np.int32), np.empty((len(of), k), np.float32))
    sums = np.empty((len(of), one_hot.shape[1]))
    for rows, squared in squared_blocks(of):
        neighbours[rows], nearest = nearest_in_block(of, rows, squared, k)
        distances[rows] = np.sqrt(nearest) * of.scale
        np.put_along_axis(squared, neighbours[rows].astype(np.intp), nearest.astype(squared.dtype), 1)
        squared[np.arange(len(rows)), rows] = 0
        sums[rows] = np.sqrt(squared, out=squared) @ one_hot
    sums *= of.scale
    return LayerPass(
        neighbours=neighbours,
        distances=distances,
        class_distances=sums,
        silhouette_samples=_silhouette_of(sums, labels),
        intra_inter=_intra_inter_of(sums, labels),
        knn_vote=knn_vote(neighbours, labels, min(VOTE_K, k)),
        y=labels,
    )


def class_distances(X: Array, y: Array) -> Array:
    """Sum of Euclidean distances (N, K) from each row of ``X`` to each class, in the order of the labels."""
    of = points(X, least=3)
    _, one_hot = _membership(y, len(of), of.centred.dtype)
    sums = np.empty((len(of), one_hot.shape[1]))
    for rows, squared in squared_blocks(of):
        sums[rows] = np.sqrt(squared, out=squared) @ one_hot
    return sums * of.scale


def silhouette_samples(X: Array, y: Array) -> Array:
    """Silhouette coefficient (N,) of each row with the classes ``y`` as clusters: (b - a) / max(a, b).

    a is the mean distance to the own class without itself, b the least mean distance to another class.
    Rousseeuw (1987), Silhouettes, section 2. An image alone in its class scores 0 (ibid.), and so does one
    whose a and b are both 0.

    Raises:
        ValueError: fewer than two classes, NaN or infinity.
    """
    return _silhouette_of(class_distances(X, y), np.asarray(y))


def silhouette(X: Array, y: Array, balanced: bool = True) -> float:
    """Mean silhouette: over classes of the class means (``balanced``), or over images as scikit-learn.

    Balanced by default: a large class should not decide how separated a layer is.
    """
    samples = silhouette_samples(X, y)
    return class_balanced_mean(samples, y) if balanced else float(samples.mean())


def intra_inter(X: Array, y: Array) -> float:
    """Mean distance of two images of one class over that of two images of different classes.

    Pairs count equally, an image and itself are not a pair. 1 where labels say nothing about distance,
    also for a layer that gives every image the same vector.

    Raises:
        ValueError: fewer than two classes, no two images of one class, NaN or infinity.
    """
    return _intra_inter_of(class_distances(X, y), np.asarray(y))


def class_means(values: Array, y: Array) -> Mapping[int, float]:
    """Mean of per-image ``values`` (N,) for each label."""
    classes, index, counts = np.unique(y, return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=values) / counts
    return {int(label): float(mean) for label, mean in zip(classes, means, strict=True)}


def class_balanced_mean(values: Array, y: Array) -> float:
    """Mean over classes of the class means of per-image ``values`` (N,)."""
    return float(np.mean(list(class_means(values, y).values())))


def _membership(y: Array, n: int, dtype: np.dtype) -> tuple[Array, Array]:
    """Labels (N,) and class membership (N, K) as 0 and 1, or ValueError for a single class."""
    labels = check_labels(y, n)
    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"Class structure needs at least two classes; every label is {classes[0]}.")
    one_hot = np.zeros((n, len(classes)), dtype)
    one_hot[np.arange(n), index] = 1
    return labels, one_hot


def _silhouette_of(sums: Array, y: Array) -> Array:
    _, index, counts = np.unique(y, return_inverse=True, return_counts=True)
    own = np.arange(len(y)), index
    others = sums / counts
    others[own] = np.inf
    own_count = counts[index] - 1
    a, b = sums[own] / np.maximum(own_count, 1), others.min(axis=1)
    larger = np.maximum(a, b)
    defined = (own_count > 0) & (larger > 0)
    return np.where(defined, b - a, 0) / np.where(defined, larger, 1)


def _intra_inter_of(sums: Array, y: Array) -> float:
    n = len(y)
    _, index, counts = np.unique(y, return_inverse=True, return_counts=True)
    same_pairs = int((counts * (counts - 1)).sum())
    if same_pairs == 0:
        raise ValueError("intra_inter needs a class with at least two images.")
    within = float(sums[np.arange(n), index].sum())
    between = float(sums.sum()) - within
    if between <= 0:
        return 1.0
    return (within / same_pairs) / (between / (n * (n - 1) - same_pairs))


MEASURES = (
    Measure(
        name="silhouette",
        of="layer",
        title="Silhouette",
        summary="How much nearer an image is to its own class than to the next one, averaged over classes.",
        citation="Rousseeuw (1987), Silhouettes: a graphical aid to the interpretation of cluster analysis",
        direction="higher",
        function=silhouette,
        chance=0.0,
        low=-1.0,
        high=1.0,
    ),
    Measure(
        name="intra_inter",
        of="layer",
        title="Intra/inter distance",
        summary="Distance between images of one class, as a share of the distance between classes.",
        citation="Ratio of mean pairwise distances, after the scatter ratio of Fisher (1936), The use of multiple "
        "measurements in taxonomic problems",
        direction="lower",
        function=intra_inter,
        chance=1.0,
        low=0.0,
    ),
)
