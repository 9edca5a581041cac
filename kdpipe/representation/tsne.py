"""t-SNE maps, each alone or all from what they share.

Starts are as openTSNE's ``initialization`` makes them, but drawn from NumPy's own generators, not from its legacy
ones: a start that is drawn anew is another map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from kdpipe.errors import MapError
from kdpipe.measures import nearest_neighbours
from kdpipe.representation.map_jobs import (
    ALL_THE_SAME,
    EXTRA,
    Array,
    MapJob,
    TsneOptions,
    principal_components,
    two_columns,
)


def tsne(job: MapJob) -> Array:
    """A t-SNE (N, 2), float32, of the job's points; exact neighbours, 3 x perplexity of them.

    From scratch it starts at the first two columns (seed 0) or at random places (other seeds), with early
    exaggeration 12 for 250 steps. From a given map it starts right there, at its size and without
    exaggeration; a shrunk or exaggerated start would forget where it came from. Then 500 steps;
    learning rate N / 12 (Belkina et al. 2019; Kobak and Berens 2019). One seed and one thread give the same bits.

    Raises:
        MapError: fewer than 3 x perplexity + 1 points, all the same point, or openTSNE is missing.
    """
    options = _tsne_options(job)
    start = _random_start(len(job.X), options.seed) if options.seed else _pca_start(job.X, options.seed)
    if job.start is not None:
        start = _shaken(np.asarray(job.start, np.float64), options.seed)
    return _optimised(affinities(job), start, options, exaggerated=job.start is None)


def affinities(job: MapJob) -> Any:
    """t-SNE's joint probabilities (N, N) of a job's points, sparse; they add up to 1.

    Raises:
        MapError: as :func:`tsne`.
    """
    options = _tsne_options(job)
    k = int(3 * options.perplexity)
    if options.perplexity < 1 or k >= len(job.X):
        raise MapError(
            f"t-SNE at perplexity {options.perplexity:g} needs at least 1 and more than {max(k, 3)} images; "
            f"there are {len(job.X)}."
        )
    indices, distances = job.neighbours or nearest_neighbours(job.X, k)
    if indices.shape[1] < k:
        raise MapError(f"t-SNE at perplexity {options.perplexity:g} needs {k} neighbours, not {indices.shape[1]}.")
    with _opentsne():
        from openTSNE.affinity import PerplexityBasedNN
        from openTSNE.nearest_neighbors import PrecomputedNeighbors
    index = PrecomputedNeighbors(indices[:, :k].astype(np.int64), distances[:, :k].astype(np.float64))
    return PerplexityBasedNN(perplexity=options.perplexity, knn_index=index, n_jobs=options.n_jobs).P


def consensus(jobs: Sequence[MapJob]) -> Array:
    """One t-SNE (N, 2) that several networks' layers share: of the mean of their affinities.

    Every layer counts the same whatever its scale. A map that starts from it shows what its own layer moves,
    where maps from scratch mostly show where they started.

    Args:
        jobs: layers of the same images, in the same order, with the same options.
    """
    options = _tsne_options(jobs[0])
    shared = sum(affinities(job) for job in jobs) / len(jobs)
    joined = np.hstack([job.X / np.linalg.norm(job.X) for job in jobs])
    return _optimised(shared, _pca_start(principal_components(joined, 2), options.seed), options, exaggerated=True)


def _tsne_options(job: MapJob) -> TsneOptions:
    assert isinstance(job.options, TsneOptions), "a t-SNE is asked for with another projector's options"
    return job.options


@contextmanager
def _opentsne() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MapError(f"t-SNE needs openTSNE: {EXTRA}.") from error


def _optimised(shared: Any, start: Array, options: TsneOptions, exaggerated: bool) -> Array:
    with _opentsne():
        from openTSNE import TSNEEmbedding
        from openTSNE.affinity import PrecomputedAffinities
    embedding = TSNEEmbedding(
        start,
        PrecomputedAffinities(shared.copy()),
        learning_rate=len(start) / 12,
        n_jobs=options.n_jobs,
        random_state=options.seed,
    )
    if exaggerated:
        embedding = embedding.optimize(250, exaggeration=12, momentum=0.5)
    layout = np.asarray(embedding.optimize(500, momentum=0.8), dtype=np.float32)
    if not np.isfinite(layout).all():
        raise MapError("t-SNE did not converge to finite positions.")
    return layout


def _pca_start(X: Array, seed: int) -> Array:
    """The first two columns, shrunk to 1e-4 as t-SNE wants; jittered, as points on one spot never part."""
    layout = two_columns(np.asarray(X, dtype=np.float64))
    layout = layout - layout.mean(axis=0)
    size = float(layout[:, 0].std())
    if not size > 0:
        raise MapError(f"The map cannot be drawn: {ALL_THE_SAME}.")
    return np.asarray(1e-4 * (layout / size + np.random.default_rng(seed).normal(0, 1e-2, layout.shape)))


def _random_start(n: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(0, 1e-4, (n, 2))


def _shaken(layout: Array, seed: int) -> Array:
    """A layout around its centre; other seeds than 0 move each point by about a hundredth of the layout's width."""
    layout = layout - layout.mean(axis=0)
    size = 1e-2 * float(layout[:, 0].std()) if seed else 0.0
    return np.asarray(layout + np.random.default_rng(seed).normal(0, size, layout.shape))
