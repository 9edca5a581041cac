"""Neural collapse: classes shrinking to their means, and the means spreading out evenly."""

from __future__ import annotations

import numpy as np

from kdpipe.measures.registry import OF_SHAPE, Array, Measure
from kdpipe.measures.separation import class_scatter, over_distance


def nc1(X: Array, y: Array) -> float:
    """Within-class scatter along the directions in which the class means differ: tr(S_w pinv(S_b)) / K.

    Papyan, Han and Donoho (2020), Prevalence of neural collapse, figure 6. Both scatters are averaged over
    classes, whatever their size. Through the singular vectors of the K class means, so d may exceed N.
    pinv leaves out directions whose singular value is below max(K, d) roundings of the largest; of what
    varies within classes, only the at most K - 1 directions that are left count. Each of them counts
    equally, so one weak direction can decide the value. Means of labels that say nothing differ too, by
    chance: compare with shuffled labels. A class of one image has no scatter. 0 if collapsed; infinite
    where all class means coincide.

    Raises:
        ValueError: fewer than two classes, no two images of one class, NaN or infinity.
    """
    scatter = class_scatter(X, y)
    scatter.check_pairs("nc1")
    means = scatter.centred_means()
    _, singular, directions = np.linalg.svd(means / np.sqrt(len(means)), full_matrices=False)
    kept = singular > singular[0] * max(means.shape) * np.finfo(scatter.of.rows.dtype).eps
    if not kept.any():
        return np.inf
    whiten = directions[kept].T / singular[kept]
    sums = np.zeros(len(means))
    for place, _, deviation in scatter.deviations():
        sums[place] += np.square(deviation @ whiten).sum()
    return float((sums / scatter.counts).mean() / len(means))


def cdnv(X: Array, y: Array) -> float:
    """Class-distance normalised variance: (v_i + v_j) / (2 |m_i - m_j|²), averaged over pairs of classes.

    m and v are mean and variance (mean squared distance to m) of a class. Galanti, György and Hutter
    (2022), On the role of neural collapse in transfer learning. A class of one image has variance 0. 0 if
    collapsed; infinite where any two class means coincide.

    Raises:
        ValueError: fewer than two classes, no two images of one class, NaN or infinity.
    """
    scatter = class_scatter(X, y)
    scatter.check_pairs("cdnv")
    v = scatter.variances
    ratios = over_distance((v[:, None] + v) / 2, scatter.squared_between)
    return float(ratios[~np.eye(len(v), dtype=bool)].mean())


def nc2(X: Array, y: Array) -> float:
    """How far the class means are from a simplex equiangular tight frame (equal lengths, equal angles).

    |G / |G| - E / |E||, in Frobenius norms, where G (K, K) holds the inner products of the centred class
    means and E = I - 11'/K those of the frame. Zhu et al. (2021), A geometric analysis of neural collapse
    with unconstrained features, whose NC2 is this for the classifier's weights; here it is for the means of
    features. 0 for the frame, sqrt(2 - 2 / sqrt(K - 1)) where the means lie on a line. Two classes always
    score 0, d < K - 1 never does, and in many dimensions the means of labels that say nothing come near
    it: compare with shuffled labels. sqrt(2), which no other layer reaches, where all class means coincide.

    Raises:
        ValueError: fewer than two classes, NaN or infinity.
    """
    means = class_scatter(X, y).centred_means()
    if not means.any():
        return float(np.sqrt(2))
    gram, frame = means @ means.T, np.eye(len(means)) - 1 / len(means)
    return float(np.linalg.norm(gram / np.linalg.norm(gram) - frame / np.linalg.norm(frame)))


MEASURES = (
    Measure(
        name="nc1",
        of="layer",
        title="Within-class variability (NC1)",
        summary="Spread of images around their class mean, in units of the spread of the class means.",
        citation="Papyan, Han and Donoho (2020), Prevalence of neural collapse during the terminal phase of deep "
        "learning training",
        direction="lower",
        function=nc1,
        takes=("X", "y"),
        chance="shuffled",
        cost="N K d",
        low=0.0,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="cdnv",
        of="layer",
        title="Class-distance normalised variance",
        summary="Spread of two classes over the squared distance of their means, averaged over pairs of classes.",
        citation="Galanti, György and Hutter (2022), On the role of neural collapse in transfer learning",
        direction="lower",
        function=cdnv,
        takes=("X", "y"),
        chance="shuffled",
        cost="N d + K² d",
        low=0.0,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="nc2",
        of="layer",
        title="Distance from a simplex frame (NC2)",
        summary="How far the class means are from lying equally far from each other in all directions.",
        citation="Zhu et al. (2021), A geometric analysis of neural collapse with unconstrained features; after "
        "Papyan, Han and Donoho (2020), Prevalence of neural collapse",
        direction="lower",
        function=nc2,
        takes=("X", "y"),
        chance="shuffled",
        cost="N d + K² d",
        low=0.0,
        high=float(np.sqrt(2)),
        invariant_to=OF_SHAPE,
    ),
)
