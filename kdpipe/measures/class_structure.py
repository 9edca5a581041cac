"""How well the true classes are separated in a layer, and one pass that measures it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kdpipe.measures.dimension import MLE_K, mle_dimension_of, twonn_of
from kdpipe.measures.distances import check_labels, points
from kdpipe.measures.neighbourhood import VOTE_K, check_k, knn_vote
from kdpipe.measures.registry import OF_SHAPE, Array, Measure
from kdpipe.measures.tiles import ClassSums, all_pairs


@dataclass(frozen=True)
class LayerPass:
    """Everything that one pass over a layer's distances gives.

    Attributes:
        neighbours: (N, k) int32, nearest first, as :func:`nearest_neighbours`.
        distances: (N, k) float32, to those neighbours.
        silhouette_samples: (N,) float64.
        intra_inter: mean same-class over mean other-class distance.
        soft_nn: the soft nearest neighbour loss.
        y: (N,) the labels.
    """

    neighbours: Array
    distances: Array
    silhouette_samples: Array
    intra_inter: float
    soft_nn: float
    y: Array

    @property
    def silhouette(self) -> float:
        """Class-balanced mean of ``silhouette_samples``."""
        return class_balanced_mean(self.silhouette_samples, self.y)

    @property
    def knn_vote(self) -> Array:
        """Label (N,) of the vote among the 20 nearest, or among k where k is less."""
        return knn_vote(self.neighbours, self.y, min(VOTE_K, self.neighbours.shape[1]))

    @property
    def knn_correct(self) -> Array:
        """Whether (N,) each vote is the image's label."""
        return np.asarray(self.knn_vote == self.y)

    @property
    def knn_accuracy(self) -> float:
        """Share of images whose neighbours vote for their label."""
        return float(self.knn_correct.mean())

    @property
    def twonn(self) -> float:
        """Dimension by the two nearest of the known neighbours: :func:`twonn_of`."""
        return twonn_of(self.distances, self.neighbours)

    @property
    def mle_dimension(self) -> float:
        """Dimension by maximum likelihood from the known neighbours: :func:`mle_dimension_of`."""
        return mle_dimension_of(self.distances, min(MLE_K, self.distances.shape[1]), self.neighbours)


def layer_passes(
    X: Array, labellings: Sequence[Array], k: int = 50, device: str | torch.device = "cpu"
) -> list[LayerPass]:
    """Neighbours, silhouette, intra/inter, soft nearest neighbours and kNN vote of ``X`` (N, d), from one pass.

    Args:
        labellings: labels (N,); further ones cost little, such as shuffled labels, which show what chance gives.

    Raises:
        ValueError: fewer than two classes, no two images of one class, k not below N, NaN or infinity.
    """
    of = points(X, least=3)
    check_k(k, len(of))
    checked = [_membership(y, len(of)) for y in labellings]
    sums, found = all_pairs(of, [index for _, index in checked], k, device)
    assert found is not None, "k is at least 1"
    return [
        LayerPass(
            neighbours=found[0],
            distances=found[1],
            silhouette_samples=_silhouette_of(part.distances, labels),
            intra_inter=_intra_inter_of(part.distances, labels),
            soft_nn=_soft_nn_of(part.affinities, index),
            y=labels,
        )
        for part, (labels, index) in zip(sums, checked, strict=True)
    ]


def layer_pass(X: Array, y: Array, k: int = 50, device: str | torch.device = "cpu") -> LayerPass:
    """:func:`layer_passes` of ``X`` (N, d) for one labelling ``y`` (N,)."""
    return layer_passes(X, [y], k, device)[0]


def class_distances(X: Array, y: Array) -> Array:
    """Sum of Euclidean distances (N, K) from each row of ``X`` to each class, in the order of the labels."""
    return _sums(X, y)[0].distances


def _sums(X: Array, y: Array) -> tuple[ClassSums, Array]:
    """Sums over each class, and the class of each row as its place in the order of the labels."""
    of = points(X, least=3)
    _, index = _membership(y, len(of))
    return all_pairs(of, [index], 0)[0][0], index


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
    """Mean distance of two images of one class over that of two of different classes, for ``X`` (N, d), ``y`` (N,).

    Pairs count equally, an image and itself are not a pair. 1 where labels say nothing about distance,
    also for a layer that gives every image the same vector.

    Raises:
        ValueError: fewer than two classes, no two images of one class, NaN or infinity.
    """
    return _intra_inter_of(class_distances(X, y), np.asarray(y))


def soft_nn(X: Array, y: Array) -> float:
    """Soft nearest neighbour loss: mean of -log of the share of affinity that falls on the own class.

    Affinity of two images is exp(-squared distance / T). Frosst, Papernot and Hinton (2019), Analyzing and
    improving representations with the soft nearest neighbor loss, eq. 1, where T is free; here T is the mean
    squared distance of two images, so that the scale of the layer does not matter. An image alone in its class
    has no such share and is left out.

    Raises:
        ValueError: fewer than two classes, no two images of one class, NaN or infinity.
    """
    sums, index = _sums(X, y)
    return _soft_nn_of(sums.affinities, index)


def class_means(values: Array, y: Array) -> Mapping[int, float]:
    """Mean of per-image ``values`` (N,) for each label."""
    classes, index, counts = np.unique(y, return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=values) / counts
    return {int(label): float(mean) for label, mean in zip(classes, means, strict=True)}


def class_balanced_mean(values: Array, y: Array) -> float:
    """Mean over classes of the class means of per-image ``values`` (N,)."""
    return float(np.mean(list(class_means(values, y).values())))


def _membership(y: Array, n: int) -> tuple[Array, Array]:
    """Labels (N,) and each one's place (N,) in the order of the labels, or ValueError for a single class."""
    labels = check_labels(y, n)
    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"Class structure needs at least two classes; every label is {classes[0]}.")
    return labels, index


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


def _soft_nn_of(affinities: Array, index: Array) -> float:
    counts = np.bincount(index)
    paired = counts[index] > 1
    if not paired.any():
        raise ValueError("soft_nn needs a class with at least two images.")
    own, whole = affinities[np.arange(len(index)), index][paired], affinities.sum(axis=1)[paired]
    if not (whole > 0).all():  # one place for all images: labels say nothing about distance
        return float(np.log((len(index) - 1) / (counts[index][paired] - 1)).mean())
    return float(-np.log(own / whole).mean())


MEASURES = (
    Measure(
        name="silhouette",
        of="layer",
        title="Silhouette",
        summary="How much nearer an image is to its own class than to the next one, averaged over classes.",
        citation="Rousseeuw (1987), Silhouettes: a graphical aid to the interpretation of cluster analysis",
        direction="higher",
        function=silhouette,
        takes=("X", "y"),
        chance="shuffled",
        cost="N² d",
        low=-1.0,
        high=1.0,
        per_image=lambda found, k: found.silhouette_samples,
        class_balanced=True,
        invariant_to=OF_SHAPE,
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
        takes=("X", "y"),
        chance=1.0,
        cost="N² d",
        low=0.0,
        of_pass=lambda found, k: found.intra_inter,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="soft_nn",
        of="layer",
        title="Soft nearest neighbours",
        summary="How little of an image's nearness falls on its own class, all distances weighed; entangled classes "
        "score high.",
        citation="Frosst, Papernot and Hinton (2019), Analyzing and improving representations with the soft nearest "
        "neighbor loss",
        direction="lower",
        function=soft_nn,
        takes=("X", "y"),
        chance="shuffled",
        cost="N² d",
        low=0.0,
        of_pass=lambda found, k: found.soft_nn,
        invariant_to=OF_SHAPE,
    ),
)
