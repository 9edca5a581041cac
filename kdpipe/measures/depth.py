"""At which layer an image is decided, and how much the layers' votes differ."""

from __future__ import annotations

import numpy as np

from kdpipe.measures.registry import OF_IMAGES, Array, Measure


def prediction_depth(votes: Array, final: Array) -> Array:
    """Index (N,) of the first layer from which the kNN vote equals the network's answer at all later layers.

    Baldock, Maennel and Neyshabur (2021), section 2.1. ``L`` for an image whose last layer's vote still differs:
    only what comes after decides it.

    Args:
        votes: (L, N) label voted at each layer, first layer first.
        final: (N,) the network's answers.

    Raises:
        ValueError: no layers, no images, sizes that differ, or labels that are not whole numbers.
    """
    labels, answers = _check_votes(votes), np.asarray(final)
    if answers.shape != labels.shape[1:] or not np.issubdtype(answers.dtype, np.integer):
        raise ValueError(f"final must hold one whole number for each of the {labels.shape[1]} images.")
    settled = np.logical_and.accumulate(labels[::-1] == answers)
    return np.asarray(len(labels) - settled.sum(axis=0))


def relative_prediction_depth(votes: Array, final: Array, relative_depth: Array) -> Array:
    """:func:`prediction_depth` (N,) on the axis ``relative_depth`` (L,), rising, of the layers.

    An image never settled is put one step beyond the last layer, the step being that between the last two.

    Raises:
        ValueError: fewer than two layers, depths that do not rise or are not finite, or as :func:`prediction_depth`.
    """
    depths = np.asarray(relative_depth, dtype=np.float64)
    if depths.ndim != 1 or len(depths) < 2 or not np.isfinite(depths).all() or (np.diff(depths) <= 0).any():
        raise ValueError("relative_depth must hold the finite, rising depths of at least two layers.")
    index = prediction_depth(votes, final)
    if len(votes) != len(depths):
        raise ValueError(f"There are votes of {len(votes)} layers and depths of {len(depths)}.")
    return np.asarray(np.append(depths, 2 * depths[-1] - depths[-2])[index])


def mean_prediction_depth(votes: Array, final: Array, relative_depth: Array) -> float:
    """Mean over images of :func:`relative_prediction_depth`, for votes (L, N), answers (N,) and depths (L,)."""
    return float(relative_prediction_depth(votes, final, relative_depth).mean())


def vote_entropy(votes: Array) -> Array:
    """Entropy (N,), in nats, of the labels that the layers vote for an image; ``votes`` is (L, N).

    0 where all layers agree, log L where all differ: -sum_c p_c log p_c, p_c the share of layers that vote c.
    Shannon (1948). The order of the layers does not matter.

    Raises:
        ValueError: no layers, no images, or labels that are not whole numbers.
    """
    labels = _check_votes(votes)
    # Every layer stands for log p of its own vote; the mean over layers weights each label by its share.
    shares = np.stack([(labels == layer).mean(axis=0) for layer in labels])
    return np.asarray(np.abs(np.log(shares).mean(axis=0)))


def mean_vote_entropy(votes: Array) -> float:
    """Mean over images of :func:`vote_entropy`, for votes (L, N)."""
    return float(vote_entropy(votes).mean())


def _check_votes(votes: Array) -> Array:
    labels = np.asarray(votes)
    if labels.ndim != 2 or labels.size == 0:
        raise ValueError(f"votes must be of shape (layers, images), not {labels.shape}.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"votes must be whole numbers, not {labels.dtype}.")
    return labels


MEASURES = (
    Measure(
        name="prediction_depth",
        of="network",
        title="Prediction depth",
        summary="How deep in the network an image's nearest images settle on the network's final answer.",
        citation="Baldock, Maennel and Neyshabur (2021), Deep learning through the lens of example difficulty",
        direction="lower",
        function=mean_prediction_depth,
        takes=("votes", "final", "relative_depth"),
        chance=None,
        cost="N L",
        low=0.0,
        invariant_to=OF_IMAGES,
    ),
    Measure(
        name="vote_entropy",
        of="network",
        title="Layer-vote entropy",
        summary="How much the layers disagree about an image: 0 where all vote alike.",
        citation="Shannon (1948), A mathematical theory of communication; over the layers' votes",
        direction="lower",
        function=mean_vote_entropy,
        takes=("votes",),
        chance=None,
        cost="N L²",
        low=0.0,
        invariant_to=OF_IMAGES,
    ),
)
