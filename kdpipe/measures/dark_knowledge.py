"""Whether a layer puts those classes near each other that the teacher finds alike.

What a teacher's answers say of the wrong classes, "dark knowledge", is a similarity of classes (Hinton, Vinyals and
Dean 2015, section 1); where distillation hands it on, it should be found in the student's geometry (Tang et al. 2020,
Understanding and improving knowledge distillation: class relationships as a prior on the student's logit layer).
Both are compared as matrices of classes are in representational similarity analysis (Kriegeskorte, Mur and
Bandettini 2008): by ranks, over pairs of different classes.
"""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from kdpipe.measures.distances import check_labels, points
from kdpipe.measures.intervals import jackknife_interval
from kdpipe.measures.ranks import rank_correlation
from kdpipe.measures.registry import OF_SHAPE, TEACHER_PROBABILITIES, Array, Measure
from kdpipe.measures.separation import class_scatter

TEMPERATURE = 4.0  # as kd_loss
LEAST_CLASSES = 4  # three have three pairs, and their ranks six orders
GROUPS = 20
# What is equal but for rounding must not be ranked.
_DECIMALS = 10


def soft_labels(logits: Array, temperature: float = TEMPERATURE) -> Array:
    """Probabilities (N, K) float64 of ``logits`` (N, K) divided by ``temperature``. Hinton et al. (2015), eq. 1.

    Raises:
        ValueError: not a table, NaN or infinity, or a temperature that is not positive.
    """
    scores = np.asarray(logits, dtype=np.float64)
    if scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"Logits must be a table (N, K) of finite numbers; these are of shape {scores.shape}.")
    if not 0 < temperature < np.inf:
        raise ValueError(f"A temperature must be positive, not {temperature}.")
    # From the largest down, before a small temperature could make infinities of them.
    return np.asarray(softmax((scores - scores.max(axis=1, keepdims=True)) / temperature, axis=1))


def dark_knowledge(X: Array, y: Array, probabilities: Array) -> float:
    """Spearman's rho, over pairs of classes, of the teacher's class similarity and that of the layer's class centres.

    The teacher's: q_ab, the mean over images of class a of the probability of class b, without the own class and
    divided by the sum of what is left, so that a class counts by *which* others it is taken for and not by how
    often; then (q_ab + q_ba) / 2. The layer's: the cosine of two class centres as seen from their mean, as in Papyan,
    Han and Donoho (2020). Not their distance: a class far from all others would be unlike each of them, which the
    teacher's side, divided as it is, cannot say. Where a network ends in collapsed classes, its logits are inner
    products with those very centres (ibid., NC3), and so both sides order the classes alike.

    0 is the mean over all ways to exchange the names of the classes on one side, and the value where all centres are
    equally alike, or one. A centre in the middle of all others has cosine 0 with each. Classes without images are
    left out on both sides. Noise in the centres of few images pulls the value towards 0.

    Args:
        X: (N, d).
        y: (N,) labels, which are columns of ``probabilities``.
        probabilities: (N, K) the teacher's, softened (:func:`soft_labels`).

    Raises:
        ValueError: fewer than 4 classes with images; rows that are no probabilities or do not fit; a class whose
            images the teacher gives to no other; a teacher for whom all classes are equally alike; NaN or infinity.
    """
    labels, soft = _checked(X, y, probabilities)
    wanted = _class_similarity(_class_means(soft, labels))
    if wanted.min() == wanted.max():
        raise ValueError("The teacher finds all classes equally alike, so there is nothing to follow.")
    return rank_correlation(_centre_similarity(class_scatter(X, labels).centred_means()), wanted)


def dark_knowledge_interval(X: Array, y: Array, probabilities: Array, seed: int = 0) -> tuple[float, float] | None:
    """95 % interval over images of :func:`dark_knowledge`: a jackknife with groups dealt within each class.

    At most 20 groups, and no more than the smallest class has images; None where that is one. Not a bootstrap:
    images drawn twice double the noise in the class centres and with it the pull towards 0. The classes are taken as
    given, and so is that pull. Within [-1, 1].

    Raises:
        ValueError: as :func:`dark_knowledge`.
    """
    value = dark_knowledge(X, y, probabilities)
    labels, soft = _checked(X, y, probabilities)
    rows = points(X).rows
    values = np.hstack([np.subtract(rows, rows[0], dtype=np.float64), soft])
    groups = min(GROUPS, int(np.bincount(labels).min()))
    if groups < 2:
        return None
    dealt = _dealt(labels, groups, np.random.default_rng(seed))
    whole, counts = _class_sums(values, labels), np.bincount(labels)
    without = []
    for group in range(groups):
        part, left = values[dealt == group], labels[dealt == group]
        means = (whole - _class_sums(part, left)) / (counts - np.bincount(left))[:, None]
        centres, taught = np.split(means, [rows.shape[1]], axis=1)
        centred = centres - centres.mean(axis=0)
        without.append(rank_correlation(_centre_similarity(centred), _class_similarity(taught)))
    low, high = jackknife_interval(value, np.array(without))
    return max(low, -1.0), min(high, 1.0)


def _checked(X: Array, y: Array, probabilities: Array) -> tuple[Array, Array]:
    """Labels (N,) as 0 to C - 1 and the teacher's probabilities (N, C) of the C classes that have images."""
    given = np.asarray(probabilities, dtype=np.float64)
    if given.ndim != 2 or len(given) != len(X):
        raise ValueError(f"The teacher's probabilities must be a row for each of the {len(X)} images: {given.shape}.")
    labels = check_labels(y, len(given))
    if not np.isfinite(given).all() or given.min(initial=0) < 0 or (abs(given.sum(axis=1) - 1) > 1e-3).any():
        raise ValueError("Each row of the teacher's probabilities must be positive and add up to 1.")
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= given.shape[1]:
        raise ValueError(f"Labels must be columns of the {given.shape[1]} that the teacher's probabilities have.")
    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) < LEAST_CLASSES:
        raise ValueError(f"dark_knowledge needs at least {LEAST_CLASSES} classes with images, not {len(classes)}.")
    return index, given[:, classes]


def _class_sums(values: Array, labels: Array) -> Array:
    """Sums (C, m) of ``values`` (N, m) over the images of each class; every class must have one."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(labels.max() + 1))
    return np.asarray(np.add.reduceat(values[order], starts))


def _class_means(values: Array, labels: Array) -> Array:
    return np.asarray(_class_sums(values, labels) / np.bincount(labels)[:, None])


def _class_similarity(soft: Array) -> Array:
    """The teacher's similarity of each pair of classes, from the mean soft label (C, C) of each."""
    others = soft * (1 - np.eye(len(soft)))
    whole = others.sum(axis=1)
    if not (whole > 0).all():
        raise ValueError("The teacher gives the images of a class to no other class, with no probability at all.")
    shares = others / whole[:, None]
    mantissa, exponent = np.frexp(_pairs(shares + shares.T) / 2)
    return np.asarray(np.ldexp(np.round(mantissa, _DECIMALS), exponent))


def _centre_similarity(centred: Array) -> Array:
    """The cosine of each pair of centred class means (C, d); 0 for a mean of length 0."""
    lengths = np.linalg.norm(centred, axis=1)
    directions = centred / np.where(lengths > 0, lengths, 1)[:, None]
    return np.asarray(np.round(_pairs(directions @ directions.T), _DECIMALS))


def _pairs(matrix: Array) -> Array:
    """The entries above the diagonal: unordered pairs of different classes."""
    return np.asarray(matrix[np.triu_indices(len(matrix), 1)])


def _dealt(labels: Array, groups: int, random: np.random.Generator) -> Array:
    """A group (N,) for each image; those of a class are shuffled and dealt one to a group in turn."""
    dealt = np.empty(len(labels), dtype=np.int64)
    for label in range(labels.max() + 1):
        members = np.flatnonzero(labels == label)
        dealt[random.permutation(members)] = np.arange(len(members)) % groups
    return dealt


MEASURES = (
    Measure(
        name="dark_knowledge",
        of="layer",
        title="Dark knowledge",
        summary="How far classes that the study's teacher finds alike lie in like directions: rank correlation over "
        "pairs of classes of its soft labels (temperature 4) and the layer's class centres.",
        citation="Hinton, Vinyals and Dean (2015), Distilling the knowledge in a neural network; compared as in "
        "Kriegeskorte, Mur and Bandettini (2008), Representational similarity analysis",
        direction="higher",
        function=dark_knowledge,
        takes=("X", "y", TEACHER_PROBABILITIES),
        chance=0.0,
        cost="N d + K² d",
        low=-1.0,
        high=1.0,
        interval=dark_knowledge_interval,
        invariant_to=OF_SHAPE,
    ),
)
