"""How many directions a layer uses, and how its rows spread over the sphere.

Every measure here is unchanged by rotation and by scale. None says how compact the classes are.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import entr

from kdpipe.measures.distances import FLOAT64_UP_TO, points
from kdpipe.measures.registry import OF_SHAPE, Array, Measure
from kdpipe.measures.tiles import Tiles

RANKME_EPSILON = 1e-7
# t of Wang and Isola's kernel exp(-t |u - v|^2): the value they use throughout.
UNIFORMITY_T = 2.0
_EPSILON = float(np.finfo(np.float64).eps)


def participation_ratio(X: Array) -> float:
    """(sum of eigenvalues)^2 / sum of their squares, of the covariance of ``X`` (N, d).

    From 1 (one direction) to d (all alike). Gao et al. (2017), A theory of multineuronal dimensionality, dynamics
    and measurement. A layer that tells no images apart scores 0.

    Raises:
        ValueError: fewer than 2 rows, NaN or infinity.
    """
    return participation_ratio_of(singular_values(X, centred=True))


def effective_rank(X: Array) -> float:
    """exp of the entropy of the singular values of the centred ``X`` (N, d), taken as shares of their sum.

    From 1 to min(N - 1, d). Roy and Vetterli (2007), The effective rank, section 2. A layer that tells no
    images apart scores 0.

    Raises:
        ValueError: fewer than 2 rows, NaN or infinity.
    """
    return effective_rank_of(singular_values(X, centred=True))


def rankme(X: Array) -> float:
    """As :func:`effective_rank`, of ``X`` (N, d) as it is, mean included, with 1e-7 added to each share.

    Garrido et al. (2023), RankMe, section 3. A layer of zeros scores 0.

    Raises:
        ValueError: fewer than 2 rows, NaN or infinity.
    """
    return rankme_of(singular_values(X, centred=False))


def participation_ratio_of(values: Array) -> float:
    """:func:`participation_ratio` from the singular ``values`` (r,) of a centred layer."""
    eigenvalues = np.square(values)
    squares = float(np.square(eigenvalues).sum())
    return float(eigenvalues.sum() ** 2 / squares) if squares > 0 else 0.0


def effective_rank_of(values: Array) -> float:
    """:func:`effective_rank` from the singular ``values`` (r,) of a centred layer."""
    return _exp_entropy(values / values.sum()) if values.any() else 0.0


def rankme_of(values: Array) -> float:
    """:func:`rankme` from the singular ``values`` (r,) of a layer as it is."""
    return _exp_entropy(values / values.sum() + RANKME_EPSILON) if values.any() else 0.0


def anisotropy(X: Array) -> float:
    """Mean cosine of two different rows of ``X`` (N, d), in [-1, 1]. Ethayarajh (2019), over all pairs.

    Rows of zeros have no direction and are left out; with fewer than two others it is 0. Activations behind a ReLU
    are never negative, so they score high before anything is learned: read it with :func:`anisotropy_centred`.

    Raises:
        ValueError: fewer than 2 rows, NaN or infinity.
    """
    return _mean_cosine(points(X, least=2).rows)


def anisotropy_centred(X: Array) -> float:
    """:func:`anisotropy` of ``X`` (N, d) minus its mean row; about 0 unless a few rows outweigh the rest.

    Raises:
        ValueError: fewer than 2 rows, NaN or infinity.
    """
    return _mean_cosine(unit_length(X, centred=True))


def uniformity(X: Array) -> float:
    """log of the mean of exp(-2 |u - v|^2) over pairs of different rows of ``X`` (N, d) put on the unit sphere.

    From -8 (two opposite points) to 0 (one direction); lower is more evenly spread. Wang and Isola (2020), section
    4.1, with their t = 2. Rows of zeros have no direction and are left out; with fewer than two others it is 0.

    Raises:
        ValueError: fewer than 2 rows, NaN or infinity.
    """
    units = _directions(points(X, least=2).rows)
    n = len(units)
    if n < 2:
        return 0.0
    of, total = points(units), 0.0
    for here, there, squared in Tiles.of_points(of, double=units.shape[1] <= FLOAT64_UP_TO):
        kernel = squared.mul_(-UNIFORMITY_T * of.scale**2).exp_()
        if here == there:
            kernel.fill_diagonal_(0)
        total += (1 if here == there else 2) * float(kernel.sum(dtype=torch.float64))
    return float(np.log(total / (n * (n - 1))))


def singular_values(X: Array, centred: bool) -> Array:
    """Singular values (min(N, d),) of ``X`` (N, d), largest first, their squares adding up to 1.

    From the eigenvalues of the smaller Gram matrix, whose rounding hides what is below about 1e-7 of the
    largest: that is set to 0. All are 0 for a layer of zeros, or of constant columns if ``centred``.
    """
    return np.asarray(np.sqrt(gram_eigenvalues(np.linalg.eigvalsh(smaller_gram(unit_length(X, centred)))))[::-1])


def smaller_gram(a: Array) -> Array:
    """a'a (d, d) or aa' (N, N), whichever has fewer rows; both have the same eigenvalues above 0."""
    return np.asarray(a.T @ a if a.shape[1] <= len(a) else a @ a.T)


def gram_eigenvalues(found: Array) -> Array:
    """Eigenvalues ``found`` (r,) of a Gram matrix, with those that rounding cannot tell from 0 set to 0."""
    return np.where(found > 8 * len(found) * _EPSILON * found.max(), found, 0)


def unit_length(X: Array, centred: bool, least: int = 2) -> Array:
    """``X`` (N, d) in float64, of Frobenius norm 1; exactly 0 if it is, or if ``centred`` and its columns are constant.

    Raises:
        ValueError: fewer than ``least`` rows, NaN or infinity.
    """
    rows = points(X, least).rows.astype(np.float64)
    length = float(np.linalg.norm(rows))
    noise = 0.0
    if centred:
        noise = len(rows) * _EPSILON * length
        rows = rows - rows.mean(axis=0)
        length = float(np.linalg.norm(rows))
    return np.asarray(rows / length) if length > noise else np.zeros_like(rows)


def _exp_entropy(shares: Array) -> float:
    # Not scipy.stats.entropy, which would divide RankMe's shares by their sum once more.
    return float(np.exp(entr(shares).sum()))


def _directions(rows: Array) -> Array:
    """Rows (M, d) of length 1 in float64, without those that are 0."""
    largest = np.abs(rows).max(axis=1)
    kept = rows[largest > 0].astype(np.float64)
    # Twice, since the squares of a row far smaller than the others would underflow.
    kept /= np.abs(kept).max(axis=1, keepdims=True)
    return np.asarray(kept / np.linalg.norm(kept, axis=1, keepdims=True))


def _mean_cosine(rows: Array) -> float:
    """|sum of unit vectors|^2 counts every pair twice and each vector with itself once."""
    units = _directions(rows)
    n = len(units)
    if n < 2:
        return 0.0
    return float(np.clip((np.square(units.sum(axis=0)).sum() - n) / (n * (n - 1)), -1, 1))


MEASURES = (
    Measure(
        name="participation_ratio",
        of="layer",
        title="Participation ratio",
        summary="Number of directions that share a layer's variance, had each an equal share.",
        citation="Gao et al. (2017), A theory of multineuronal dimensionality, dynamics and measurement",
        direction="neither",
        function=participation_ratio,
        takes=("X",),
        chance="shuffled",
        cost="N d²",
        low=0.0,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="effective_rank",
        of="layer",
        title="Effective rank",
        summary="Number of directions a layer uses, by the entropy of its singular values around the mean.",
        citation="Roy and Vetterli (2007), The effective rank: a measure of effective dimensionality",
        direction="neither",
        function=effective_rank,
        takes=("X",),
        chance="shuffled",
        cost="N d²",
        low=0.0,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="rankme",
        of="layer",
        title="RankMe",
        summary="Number of directions a layer uses, its mean among them, by the entropy of its singular values.",
        citation="Garrido et al. (2023), RankMe: assessing the downstream performance of pretrained self-supervised "
        "representations by their rank",
        direction="neither",
        function=rankme,
        takes=("X",),
        chance="shuffled",
        cost="N d²",
        low=0.0,
        invariant_to=OF_SHAPE - {"translation"},
    ),
    Measure(
        name="anisotropy",
        of="layer",
        title="Anisotropy",
        summary="Mean cosine of two images: 1 if all point one way, about 0 if they point everywhere.",
        citation="Ethayarajh (2019), How contextual are contextualized word representations?",
        direction="neither",
        function=anisotropy,
        takes=("X",),
        chance="shuffled",
        cost="N d",
        low=-1.0,
        high=1.0,
        invariant_to=OF_SHAPE - {"translation"},
    ),
    Measure(
        name="anisotropy_centred",
        of="layer",
        title="Anisotropy around the mean",
        summary="Mean cosine of two images as seen from the layer's mean.",
        citation="Ethayarajh (2019), How contextual are contextualized word representations?; centred as in "
        "Cai et al. (2021), Isotropy in the contextual embedding space",
        direction="neither",
        function=anisotropy_centred,
        takes=("X",),
        chance="shuffled",
        cost="N d",
        low=-1.0,
        high=1.0,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="uniformity",
        of="layer",
        title="Uniformity",
        summary="How evenly images spread over the sphere: 0 if all point one way, lower if more evenly.",
        citation="Wang and Isola (2020), Understanding contrastive representation learning through alignment and "
        "uniformity on the hypersphere",
        direction="neither",
        function=uniformity,
        takes=("X",),
        chance="shuffled",
        cost="N² d",
        low=-8.0,
        high=0.0,
        invariant_to=OF_SHAPE - {"translation"},
    ),
)
