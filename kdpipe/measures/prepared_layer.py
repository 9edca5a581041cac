"""A layer that is compared with many others: what comparisons need of it, worked out once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.stats import rankdata

from kdpipe.measures.distances import Points, points, squared_blocks
from kdpipe.measures.hsic import hsic
from kdpipe.measures.neighbourhood import nearest_neighbours
from kdpipe.measures.registry import Array
from kdpipe.measures.spectrum import gram_eigenvalues, smaller_gram, unit_length

# Their pairs, 1,999,000, are as many values as a block holds.
PAIRS_OF_IMAGES = 2000
RBF_BANDWIDTH = 0.4
SVCCA_VARIANCE = 0.99
_LEAST_IMAGES = 4


@dataclass(frozen=True, eq=False)
class PreparedLayer:
    """A layer's checked rows (N, d), with what comparisons need of it, each piece worked out when first asked for."""

    of: Points
    known: dict[int, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        """N."""
        return len(self.of)

    @cached_property
    def tells_apart(self) -> bool:
        """Whether any two images differ."""
        return bool(self.of.first.any())

    @cached_property
    def centred(self) -> Array:
        """Rows (N, d) around their mean in float64, of Frobenius norm 1; all 0 if it tells no images apart."""
        return unit_length(self.of.rows, centred=True)

    @cached_property
    def self_hsic(self) -> float:
        """Unbiased HSIC of the layer with itself."""
        return hsic(self.centred, self.centred)

    @cached_property
    def basis(self) -> Array:
        """Orthonormal left singular vectors (N, r) of the largest singular values that hold 99 % of the variance."""
        values, vectors = np.linalg.eigh(smaller_gram(self.centred))
        values = gram_eigenvalues(values)[::-1]
        if not values.any():
            return np.empty((len(self), 0))
        share = np.cumsum(values) / values.sum()
        rank = min(int(np.searchsorted(share, SVCCA_VARIANCE)) + 1, int((values > 0).sum()))
        kept = vectors[:, ::-1][:, :rank]
        of_columns = self.centred.shape[1] <= len(self)
        return np.asarray(self.centred @ kept / np.sqrt(values[:rank]) if of_columns else kept)

    @cached_property
    def pair_distances(self) -> Array:
        """Distances (M (M - 1) / 2,) between images, all of them or a fixed random 2,000; in the units of ``of.rows``.

        The sample is the same for layers of equally many images.
        """
        sample, scale = self.of, 1.0
        if len(self) > PAIRS_OF_IMAGES:
            chosen = np.random.default_rng(0).choice(len(self), PAIRS_OF_IMAGES, replace=False)
            sample = points(self.of.rows[np.sort(chosen)])
            scale = sample.scale
        columns = np.arange(len(sample))
        above = [squared[columns > rows[:, None]] for rows, squared in squared_blocks(sample)]
        return np.asarray(np.sqrt(np.concatenate(above), dtype=np.float64) * scale)

    @cached_property
    def distance_ranks(self) -> Array:
        """Ranks of ``pair_distances``, ties sharing theirs, as a vector of mean 0 and length 1, or of zeros."""
        ranks = rankdata(self.pair_distances)
        ranks -= ranks.mean()
        length = float(np.linalg.norm(ranks))
        return np.asarray(ranks / length if length > 0 else ranks)

    @cached_property
    def bandwidth(self) -> float:
        """0.4 of the median distance of different images, in the units of ``of.rows``; 1 if none differ."""
        distances = self.pair_distances[self.pair_distances > 0]
        return RBF_BANDWIDTH * float(np.median(distances)) if len(distances) else 1.0

    def neighbours(self, k: int) -> Array:
        """The k nearest other images (N, k) of each, nearest first."""
        widest = max(self.known, default=0)
        if widest < k:
            self.known[k], widest = nearest_neighbours(self.of.rows, k)[0], k
        return self.known[widest][:, :k]


Layer = Array | PreparedLayer


def prepare_layer(X: Layer, neighbours: Array | None = None) -> PreparedLayer:
    """``X`` (N, d) checked and ready for many comparisons; a prepared layer stays as it is.

    ``neighbours`` (N, >= k) are the nearest others, where they are known already.

    Raises:
        ValueError: fewer than 4 images, NaN or infinity, neighbours of another number of images.
    """
    if isinstance(X, PreparedLayer):
        return X
    of = points(X, _LEAST_IMAGES)
    if neighbours is None:
        return PreparedLayer(of)
    if neighbours.ndim != 2 or len(neighbours) != len(of):
        raise ValueError(f"neighbours must be a table of {len(of)} rows, not of shape {neighbours.shape}.")
    return PreparedLayer(of, {neighbours.shape[1]: neighbours})


def same_images(X: Layer, Y: Layer) -> tuple[PreparedLayer, PreparedLayer]:
    """Two layers prepared, or ValueError where they are not of equally many images."""
    a, b = prepare_layer(X), prepare_layer(Y)
    if len(a) != len(b):
        raise ValueError(f"Two layers are compared on the same images: X has {len(a)} rows, Y has {len(b)}.")
    return a, b
