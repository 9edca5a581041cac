"""Tests, corrections and effect sizes for differences that are paired by seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import gammaln

from kdpipe.relative_depth import Array

# Sign flips up to this number of seeds are all gone through: 65,536.
EXACT_SEEDS = 16


def sign_flip(differences: ArrayLike) -> float:
    """Two-sided p of paired ``differences`` (S,), one a seed, by flipping their signs.

    Null hypothesis: a difference is as likely as its opposite, seed by seed. All 2^S signs are gone through for
    up to 16 seeds, so p cannot fall below 2^(1 - S): .0625 for 5 seeds, .0078 for 8. Beyond, 65,536 random ones
    from a fixed stream. Fisher (1935), The design of experiments, section 21; ``scipy.stats.permutation_test``.

    Raises:
        ValueError: fewer than two differences, NaN or infinity.
    """
    values = _row(differences, least=2)

    def mean(rows: Array, axis: int) -> Array:
        # Sums that are equal but for the order of their terms must tie: rounded, as the largest term is 1.
        return np.round(rows.mean(axis=axis), 12)

    found = stats.permutation_test(
        (values / (np.abs(values).max() or 1.0),),
        mean,
        permutation_type="samples",
        n_resamples=2**EXACT_SEEDS,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(p_values: ArrayLike) -> Array:
    """p values (m,) corrected so that any false one among them is as rare as alpha.

    Holm (1979), A simple sequentially rejective multiple test procedure: the i-th smallest times m + 1 - i, never
    below a smaller one's.

    Raises:
        ValueError: no p values, or one outside [0, 1].
    """
    values = _p_values(p_values)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def benjamini_hochberg(p_values: ArrayLike) -> Array:
    """p values (m,) corrected so that among those below alpha a share of at most alpha is expected to be false.

    Benjamini and Hochberg (1995), Controlling the false discovery rate; ``scipy.stats.false_discovery_control``.

    Raises:
        ValueError: as :func:`holm`.
    """
    return np.asarray(stats.false_discovery_control(_p_values(p_values), method="bh"))


def hedges_dz(differences: ArrayLike) -> float:
    """Mean of paired ``differences`` (S,) in units of their standard deviation, corrected for few seeds.

    d_z times J = G(f/2) / (sqrt(f/2) G((f - 1)/2)), f = S - 1, G the gamma function. Hedges (1981), Distribution
    theory for Glass's estimator of effect size, eq. 6e. Equal differences give an infinity with the sign of
    the mean, and 0 where all are 0.

    Raises:
        ValueError: fewer than three differences (J is 0 for two), NaN or infinity.
    """
    values = _row(differences, least=3)
    mean, half = float(values.mean()), (len(values) - 1) / 2
    # Equal up to rounding is equal: a spread of one unit in the last place is no unit to measure in.
    if np.ptp(values) <= 4 * np.finfo(np.float64).eps * np.abs(values).max():
        return _over_zero(mean)
    correction = np.exp(gammaln(half) - gammaln(half - 0.5)) / np.sqrt(half)
    return float(correction * mean / values.std(ddof=1))


def null_ratio(differences: ArrayLike, null: ArrayLike) -> float:
    """Mean of paired ``differences`` (S,) over the root mean square of a ``null`` contrast (S',).

    The null is the same statistic between two plain students that differ in nothing but their seed; which of
    them is called the first is arbitrary, so its spread is taken around 0. 1 means that distillation moves the
    statistic by as much as another seed typically does. It is a size and no test: the mean of S effects is
    compared with single null differences. A null of zeros gives an infinity with the sign of the mean, or 0.

    Raises:
        ValueError: no differences, no null, NaN or infinity.
    """
    mean = float(_row(differences, least=1).mean())
    spread = float(np.sqrt(np.square(_row(null, least=1)).mean()))
    return mean / spread if spread > 0 else _over_zero(mean)


@dataclass(frozen=True)
class Components:
    """Standard deviations of what makes up values (S, N): the seed's, the image's, and what is left of both."""

    seed: float
    image: float
    both: float


def variance_components(values: ArrayLike) -> Components:
    """Components of ``values`` (S, N) with seeds and images crossed, from mean squares; a negative one is 0.

    Searle, Casella and McCulloch (1992), Variance components: two-way crossed, one value a cell, all effects random.

    Raises:
        ValueError: fewer than two seeds or two images, NaN or infinity.
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(f"Components need at least two seeds by two images, all finite, not shape {table.shape}.")
    (seeds, images), mean = table.shape, table.mean()
    of_seed, of_image = table.mean(axis=1) - mean, table.mean(axis=0) - mean
    left = table - mean - of_seed[:, None] - of_image
    both = float(np.square(left).sum()) / ((seeds - 1) * (images - 1))
    between_seeds = float(np.square(of_seed).sum()) / (seeds - 1) - both / images
    between_images = float(np.square(of_image).sum()) / (images - 1) - both / seeds
    return Components(*(float(np.sqrt(max(part, 0.0))) for part in (between_seeds, between_images, both)))


def _over_zero(mean: float) -> float:
    return float(np.copysign(np.inf, mean)) if mean else 0.0


def _row(values: ArrayLike, least: int) -> Array:
    row = np.asarray(values, np.float64)
    if row.ndim != 1 or len(row) < least or not np.isfinite(row).all():
        raise ValueError(f"Needs a row of at least {least} values, all finite; the shape is {row.shape}.")
    return row


def _p_values(p_values: ArrayLike) -> Array:
    values = np.asarray(p_values, np.float64)
    if values.ndim != 1 or len(values) == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("p values must be a row of at least one number between 0 and 1.")
    return values
