"""What a map is drawn from: the first principal components of a layer, their neighbours, and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdpipe.errors import MapError
from kdpipe.measures.spectrum import smaller_gram
from kdpipe.representation.ivis_worker import IvisOptions

Array = NDArray[Any]


EXTRA = "pip install 'kdpipe[precompute]'"


ALL_THE_SAME = "every image has the same vector, so there is nothing to map"


class Neighbours(NamedTuple):
    """Exact neighbours of the prepared points, as ``nearest_neighbours`` gives them: two of (N, k)."""

    indices: Array
    distances: Array


@dataclass(frozen=True)
class PcaOptions:
    """PCA has none: the first two principal components."""


@dataclass(frozen=True)
class TsneOptions:
    """Options of t-SNE (van der Maaten and Hinton 2008); two maps side by side beat one map on two threads."""

    perplexity: float = 30.0
    seed: int = 0
    n_jobs: int = 1


@dataclass(frozen=True)
class MapJob:
    """One map to draw.

    Attributes:
        X: (N, d) prepared points.
        neighbours: of X, where known.
        start: (N, 2) map to start from, which only t-SNE can.
    """

    X: Array
    options: PcaOptions | TsneOptions | IvisOptions
    neighbours: Neighbours | tuple[Array, Array] | None = None
    start: Array | None = None


Layouts = dict[str, Array | MapError]


OnDone = Callable[[str, Array | MapError], None]


def principal_components(X: Array, components: int = 50) -> Array:
    """The first principal components (N, at most ``components``) of a layer ``X`` (N, d), float32.

    Fewer where X has a lower rank. The sign of each is fixed: its largest loading is positive.

    Raises:
        MapError: NaN or infinity, or every row is the same.
    """
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or not np.isfinite(X).all():
        raise MapError(f"A map needs a table of finite numbers; X has shape {X.shape} or holds NaN or infinity.")
    centred = X - X.mean(axis=0)
    size = float(np.abs(centred).max(initial=0))
    if size <= 1e-12 * float(np.abs(X).max(initial=0)):
        raise MapError(f"The map cannot be drawn: {ALL_THE_SAME}.")
    axes = loadings(centred / size, components)
    return np.asarray((centred @ axes).astype(np.float32))


def loadings(centred: Array, components: int) -> Array:
    """Principal axes (d, at most ``components``), from the smaller of the two products of X with itself.

    scikit-learn's PCA rounds otherwise and keeps directions of pure rounding; both would make other t-SNE maps.
    """
    n, d = centred.shape
    values, vectors = np.linalg.eigh(smaller_gram(centred))
    # Eigenvalues are squares: below this they, and the axes that belong to them, are rounding.
    kept = np.flatnonzero(values > values[-1] * max(n, d) * np.finfo(np.float64).eps)[::-1][:components]
    axes = vectors[:, kept] if d <= n else centred.T @ vectors[:, kept] / np.sqrt(values[kept])
    largest = np.abs(axes).argmax(axis=0)
    return np.asarray(axes * np.sign(axes[largest, np.arange(axes.shape[1])]))


def two_columns(X: Array) -> Array:
    """The first two columns (N, 2) of ``X`` (N, d); a second one of zeros if there is only one."""
    return X[:, :2] if X.shape[1] > 1 else np.hstack([X, np.zeros_like(X)])


def map_failed(projector: str, name: str, reason: object) -> MapError:
    """The error of one map, with a ``reason`` that is a clause or a sentence."""
    return MapError(f"The {projector} map {name!r} was not drawn: {str(reason).rstrip('.')}.")


def in_turn(
    projector: str, draw: Callable[..., Array]
) -> Callable[[Mapping[str, MapJob], Path, OnDone | None], Layouts]:
    """Let ``draw``, which draws one map in this process, draw many."""

    def layouts(jobs: Mapping[str, MapJob], workdir: Path, on_done: OnDone | None = None) -> Layouts:
        done: Layouts = {}
        for name, job in jobs.items():
            try:
                done[name] = draw(job)
            except (MapError, ValueError) as error:
                done[name] = map_failed(projector, name, error)
            if on_done is not None:
                on_done(name, done[name])
        return done

    return layouts
