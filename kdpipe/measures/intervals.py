"""How far a mean over images may be off because the images are a sample."""

from __future__ import annotations

import numpy as np

from kdpipe.measures.registry import Array


def bootstrap_mean(
    values: Array, seed: int, resamples: int = 1000, level: float = 0.95, strata: Array | None = None
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of per-image ``values`` (N,).

    Efron and Tibshirani (1993), An introduction to the bootstrap, section 13.3. Only per-image values are
    resampled: neighbours or silhouettes of images drawn twice would find the copy at distance 0. It covers
    the choice of images, not that of seeds. With ``strata`` (N,) images are drawn within each stratum and
    the strata's means averaged, as in a class-balanced mean.

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
