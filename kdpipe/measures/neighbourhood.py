"""Which images are near which, exactly, and whether the near ones share a label."""

from __future__ import annotations

import numpy as np
import torch

from kdpipe.measures.distances import check_labels, points
from kdpipe.measures.registry import OF_SHAPE, Array, Measure
from kdpipe.measures.tiles import all_pairs

VOTE_K = 20


def nearest_neighbours(X: Array, k: int, device: str | torch.device = "cpu") -> tuple[Array, Array]:
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
    found = all_pairs(of, [], k, device)[1]
    assert found is not None, "k is at least 1"
    return found


def check_k(k: int, n: int) -> None:
    """Raise ValueError unless ``n`` rows have ``k`` neighbours each."""
    if not 1 <= k < n:
        raise ValueError(f"k must be between 1 and N - 1: k is {k} and there are {n} rows.")


def knn_vote(indices: Array, y: Array, k: int = VOTE_K) -> Array:
    """The label (N,) most frequent among the first ``k`` of each row's neighbours ``indices`` (N, >= k).

    Ties go to the smallest label.

    Raises:
        ValueError: ``k`` is not between 1 and the number of neighbours given, or labels that do not fit.
    """
    indices = np.asarray(indices)
    labels = check_labels(y, len(indices))
    if not 1 <= k <= indices.shape[1]:
        raise ValueError(f"k must be between 1 and the {indices.shape[1]} neighbours given, not {k}.")
    classes, index = np.unique(labels, return_inverse=True)
    # As scipy.stats.mode, in a third of the time.
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
        takes=("X", "y"),
        cost="N² d",
        chance=largest_class_share,
        low=0.0,
        high=1.0,
        k=VOTE_K,
        k_of_study=True,
        per_image=lambda found, k: knn_vote(found.neighbours, found.y, k) == found.y,
        invariant_to=OF_SHAPE,
    ),
)
