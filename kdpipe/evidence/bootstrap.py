"""Intervals over seeds and images, for arms that are paired by seed and share their images.

Values are those of single images: (S, L, N) for S seeds, L layers and N images, or (S, N) where there are no
layers. Seeds and images are crossed: the same images are seen by all seeds, so both are resampled, each by
itself. Neighbours and silhouettes are never computed again on resampled images, where a copy would be the
nearest neighbour of its original.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from kdpipe.relative_depth import Array

Statistic = Callable[[Array, Array], Array]

RESAMPLES = 2000
# Doubles in the block of draws that is multiplied at a time: 32 MB.
BLOCK_VALUES = 4_000_000


def image_weights(labels: ArrayLike, balanced: bool = True) -> Array:
    """Weights (N,) that sum to 1 and make a mean over images: over class means (``balanced``) or over all images."""
    classes = np.asarray(labels)
    if classes.ndim != 1 or len(classes) == 0:
        raise ValueError("labels must hold one label for each of at least one image.")
    _, index, counts = np.unique(classes, return_inverse=True, return_counts=True)
    weights = 1 / (len(counts) * counts[index]) if balanced else np.full(len(classes), 1 / len(classes))
    return np.asarray(weights, np.float64)


@dataclass(frozen=True)
class Resamples:
    """Draws with replacement of S seeds and of N images, to be shared by all contrasts of one probe set.

    Images are drawn within their class, so that every resample has all classes and a class-balanced mean.

    Attributes:
        labels: (N,) class of each image.
        seed_counts: (R, S) how often each seed was drawn.
        image_counts: (R, N) how often each image was drawn; unsigned integers.
    """

    labels: NDArray[Any]
    seed_counts: NDArray[Any]
    image_counts: NDArray[Any]

    @classmethod
    def draw(cls, labels: ArrayLike, seeds: int, resamples: int = RESAMPLES, seed: int = 0) -> Resamples:
        """Draw ``resamples`` times; ``seed`` is that of the random stream.

        Raises:
            ValueError: no images, no seeds or no resamples.
        """
        classes = np.asarray(labels)
        image_weights(classes)
        if seeds < 1 or resamples < 1:
            raise ValueError(f"seeds and resamples must be positive: {seeds}, {resamples}.")
        random = np.random.default_rng(seed)
        images = np.empty((resamples, len(classes)), np.min_scalar_type(len(classes)))
        for label in np.unique(classes):
            members = np.flatnonzero(classes == label)
            images[:, members] = _counts(len(members), resamples, random)
        return cls(classes, _counts(seeds, resamples, random), images)

    def means(self, values: ArrayLike, balanced: bool = True) -> Array:
        """Means (R, S, ...) over each draw of images of ``values`` (S, ..., N); seeds are not yet drawn.

        Args:
            balanced: over class means, as the silhouette, or over images, as kNN accuracy.

        Raises:
            ValueError: other sizes than were drawn for, NaN or infinity.
        """
        arms = self._checked(values)
        rows = arms.reshape(-1, arms.shape[-1]).T
        weights = image_weights(self.labels, balanced)
        means = np.empty((len(self.image_counts), rows.shape[1]))
        height = max(1, BLOCK_VALUES // len(weights))
        for start in range(0, len(means), height):
            block = slice(start, start + height)
            means[block] = (self.image_counts[block] * weights) @ rows
        return means.reshape(-1, *arms.shape[:-1])

    def interval(self, drawn: ArrayLike, level: float = 0.95, expand: bool = True) -> tuple[float, float]:
        """Percentile interval of the mean over drawn seeds of a statistic ``drawn`` (R, S), one a draw of images.

        A resample in which the statistic is undefined (NaN) counts at both ends, so that the interval opens
        to infinity rather than pass over it.

        Args:
            expand: leave :func:`tail` beyond each end instead of (1 - level)/2, which suits many seeds.

        Raises:
            ValueError: another shape than was drawn, or a level outside (0, 1).
        """
        statistic = np.asarray(drawn, np.float64)
        if statistic.shape != self.seed_counts.shape:
            raise ValueError(f"The statistic needs shape {self.seed_counts.shape}, not {statistic.shape}.")
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, not {level}.")
        undefined, seeds = np.isnan(statistic), self.seed_counts.shape[1]
        means = np.where(undefined, 0.0, statistic * self.seed_counts).sum(axis=1) / seeds
        lost = (undefined & (self.seed_counts > 0)).any(axis=1)
        share = tail(statistic, level) if expand else (1 - level) / 2
        low = np.quantile(np.where(lost, -np.inf, means), share, method="lower")
        high = np.quantile(np.where(lost, np.inf, means), 1 - share, method="higher")
        return float(low), float(high)

    def _checked(self, values: ArrayLike) -> Array:
        arms = np.asarray(values, np.float64)
        seeds, images = self.seed_counts.shape[1], len(self.labels)
        if arms.ndim < 2 or (arms.shape[0], arms.shape[-1]) != (seeds, images):
            raise ValueError(f"values must be of shape ({seeds} seeds, ..., {images} images), not {arms.shape}.")
        if not np.isfinite(arms).all():
            raise ValueError("values hold NaN or infinity.")
        return arms


def _counts(n: int, resamples: int, random: np.random.Generator) -> NDArray[Any]:
    """How often each of n was drawn (resamples, n) in n draws with replacement."""
    counts = np.empty((resamples, n), np.min_scalar_type(n))
    height = max(1, BLOCK_VALUES // n)
    for start in range(0, resamples, height):
        part = counts[start : start + height]
        cells = random.integers(n, size=part.shape) + n * np.arange(len(part))[:, None]
        part[:] = np.bincount(cells.ravel(), minlength=part.size).reshape(part.shape)
    return counts


def tail(drawn: ArrayLike, level: float = 0.95) -> float:
    """Share of resamples to leave beyond each end of a percentile interval of ``level``, seeds being few.

    (1 - level)/2 leaves out too many where S seeds make the spread: resampled, their variance has the divisor S
    instead of S - 1 and its tails are normal instead of Student's. So it is Phi(c t), t Student's quantile and
    c the root of what the divisor costs: the expanded percentile interval of Hesterberg (2015), What teachers
    should know about the bootstrap. As images, which are many, make part of the spread, c corrects the seeds'
    part alone, and t has (S - 1) / part^2 degrees of freedom, as Satterthwaite (1946), An approximate
    distribution of estimates of variance components. With 8 seeds it is .006 where they make all of the spread
    and .025 where they make nothing of it.

    Args:
        drawn: (R, S) the statistic of each seed over each draw of images. One seed alone has no spread that is
            known: then the interval is about images only.
    """
    values, share = np.asarray(drawn, np.float64), (1 - level) / 2
    values = values[~np.isnan(values).any(axis=1)]
    seeds = values.shape[1]
    if len(values) == 0 or seeds < 2:
        return share
    of_seeds, of_images = values.mean(axis=0).var() / seeds, values.mean(axis=1).var()
    if of_seeds == 0:
        return share
    unbiased = of_seeds * seeds / (seeds - 1)
    part = unbiased / (unbiased + of_images)
    correction = np.sqrt((unbiased + of_images) / (of_seeds + of_images))
    return float(stats.norm.cdf(correction * stats.t.ppf(share, (seeds - 1) / max(part**2, 1e-300))))


def difference(first: Array, second: Array) -> Array:
    """The plain paired difference, for values without layers."""
    return first - second


def pigeonhole_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    resamples: Resamples,
    statistic: Statistic = difference,
    balanced: bool = True,
    level: float = 0.95,
    expand: bool = True,
) -> tuple[float, float]:
    """Percentile interval of a statistic of two arms, over resampled seeds and images.

    Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1(2): rows and columns are resampled
    independently. It is right about the variances of seeds and of images and counts that of their interaction
    about three times, so it errs on the wide side. What is drawn is drawn in both arms: they stay paired.

    Args:
        first, second: values (S, L, N) or (S, N), paired by seed and image.
        statistic: of curves ((..., L), (..., L)) -> (...), such as ``partial(early_abc, depth)``; it is taken for
            each seed and averaged over the drawn seeds.
        balanced: as :meth:`Resamples.means`.
        expand: as :meth:`Resamples.interval`.

    Raises:
        ValueError: arms of different shapes or not of the drawn sizes, NaN or infinity.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(f"The arms differ in shape: {np.shape(first)} and {np.shape(second)}.")
    curves = [resamples.means(arm, balanced) for arm in (first, second)]
    return resamples.interval(statistic(*curves), level, expand)
