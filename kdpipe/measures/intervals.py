"""How far a mean over images, or a statistic of them, may be off because the images are a sample."""

from __future__ import annotations

import numpy as np
from scipy.stats import t as student_t

from kdpipe.measures.registry import Array


def bootstrap_mean(
    values: Array, seed: int, resamples: int = 1000, level: float = 0.95, strata: Array | None = None
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of per-image ``values`` (N,).

    Efron and Tibshirani (1993), An introduction to the bootstrap, section 13.3. Only per-image values are
    resampled: neighbours or silhouettes of images drawn twice would find the copy at distance 0. It covers
    the choice of images, not that of seeds. With ``strata`` (N,) images are drawn within each stratum and
    the strata's means averaged, as in a class-balanced mean; ``scipy.stats.bootstrap`` knows no strata.

    Raises:
        ValueError: no values, NaN or infinity, sizes that differ, or a level outside (0, 1).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError("A bootstrap needs a row of at least one value, all finite.")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level must lie between 0 and 1 and resamples be positive: {level}, {resamples}.")
    groups = np.zeros(len(values), int) if strata is None else np.asarray(strata)
    if groups.shape != values.shape:
        raise ValueError(f"strata must hold one entry for each of the {len(values)} values.")
    random = np.random.default_rng(seed)
    parts = [values[groups == group] for group in np.unique(groups)]
    means = np.mean([_resampled_means(part, resamples, random) for part in parts], axis=0)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _resampled_means(values: Array, resamples: int, random: np.random.Generator) -> Array:
    """Means (resamples,) of N values drawn with replacement, in blocks that bound the memory."""
    n = len(values)
    height = max(1, 2_000_000 // n)
    means = np.empty(resamples)
    for start in range(0, resamples, height):
        drawn = random.integers(n, size=(min(height, resamples - start), n))
        means[start : start + height] = values[drawn].mean(axis=1)
    return means


def jackknife_interval(value: float, without: Array, level: float = 0.95) -> tuple[float, float]:
    """Interval of a statistic from its ``value`` on all images and its values ``without`` (g,) each of g groups.

    value ± t S, S² = (g - 1) / g * sum of squares of ``without`` around its mean, t of Student's distribution with
    g - 1 degrees of freedom: Kott (2001), The delete-a-group jackknife. Groups are of about equal size and
    dealt at random within each stratum. It asks for g values where a bootstrap asks for hundreds, and it adds no
    noise to means of few images, which a bootstrap doubles. For a mean and groups of one image it is the t interval.

    Raises:
        ValueError: fewer than two groups, NaN or infinity, or a level outside (0, 1).
    """
    without = np.asarray(without, dtype=np.float64)
    g = len(without)
    if without.ndim != 1 or g < 2 or not (np.isfinite(without).all() and np.isfinite(value)):
        raise ValueError("A jackknife needs the values without each of at least two groups, all finite.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}.")
    spread = np.sqrt((g - 1) / g * np.square(without - without.mean()).sum())
    reach = float(student_t.ppf((1 + level) / 2, g - 1) * spread)
    return value - reach, value + reach
