"""Two-dimensional maps of a layer: PCA, t-SNE and ivis, all of the same prepared points.

:func:`prepare` once, then any of ``PROJECTORS``; :func:`align` puts a map on the axes of another. Every
projector draws many maps in one call, because ivis must: it needs TensorFlow, which cannot share a
process with torch, so all ivis maps go to one ``python -m kdpipe.ivis_worker``. Nothing here imports
TensorFlow, and openTSNE only when a t-SNE is drawn.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdpipe.errors import MapError
from kdpipe.ivis_worker import IvisOptions, read_answers, write_jobs
from kdpipe.measures import nearest_neighbours

Array = NDArray[Any]
_EXTRA = "pip install 'kdpipe[precompute]'"
_SAME = "every image has the same vector, so there is nothing to map"


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


IvisJob = MapJob  # one whose options are IvisOptions
Layouts = dict[str, Array | MapError]
OnDone = Callable[[str, Array | MapError], None]


@dataclass(frozen=True)
class Projector:
    """One way to draw maps. ``layouts`` draws many; a map that fails comes back as its MapError."""

    name: str
    title: str
    summary: str
    citation: str
    options: type[PcaOptions | TsneOptions | IvisOptions]
    layouts: Callable[[Mapping[str, MapJob], Path, OnDone | None], Layouts]


# ------------------------------------------------------------------------------------ preparation


def prepare(X: Array, components: int = 50) -> Array:
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
        raise MapError(f"The map cannot be drawn: {_SAME}.")
    loadings = _loadings(centred / size, components)
    return np.asarray((centred @ loadings).astype(np.float32))


def _loadings(centred: Array, components: int) -> Array:
    """Principal axes (d, at most ``components``), from the smaller of the two products of X with itself."""
    n, d = centred.shape
    by_features = d <= n
    values, vectors = np.linalg.eigh(centred.T @ centred if by_features else centred @ centred.T)
    # Eigenvalues are squares: below this they, and the axes that belong to them, are rounding.
    kept = np.flatnonzero(values > values[-1] * max(n, d) * np.finfo(np.float64).eps)[::-1][:components]
    axes = vectors[:, kept] if by_features else centred.T @ vectors[:, kept] / np.sqrt(values[kept])
    largest = np.abs(axes).argmax(axis=0)
    return np.asarray(axes * np.sign(axes[largest, np.arange(axes.shape[1])]))


# ------------------------------------------------------------------------------------- projectors


def pca(job: MapJob) -> Array:
    """The first two principal components (N, 2) of the points; a second one of zeros if there is only one."""
    return np.asarray(_two_columns(prepare(job.X, 2)))


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
    beside = np.hstack([job.X / np.linalg.norm(job.X) for job in jobs])
    return _optimised(shared, _pca_start(prepare(beside, 2), options.seed), options, exaggerated=True)


def _tsne_options(job: MapJob) -> TsneOptions:
    assert isinstance(job.options, TsneOptions), "a t-SNE is asked for with another projector's options"
    return job.options


@contextmanager
def _opentsne() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MapError(f"t-SNE needs openTSNE: {_EXTRA}.") from error


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
    layout = _two_columns(np.asarray(X, dtype=np.float64))
    layout = layout - layout.mean(axis=0)
    size = float(layout[:, 0].std())
    if not size > 0:
        raise MapError(f"The map cannot be drawn: {_SAME}.")
    return np.asarray(1e-4 * (layout / size + np.random.default_rng(seed).normal(0, 1e-2, layout.shape)))


def _random_start(n: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(0, 1e-4, (n, 2))


def _shaken(layout: Array, seed: int) -> Array:
    """A layout around its centre; other seeds than 0 move each point by about a hundredth of the layout's width."""
    layout = layout - layout.mean(axis=0)
    size = 1e-2 * float(layout[:, 0].std()) if seed else 0.0
    return np.asarray(layout + np.random.default_rng(seed).normal(0, size, layout.shape))


def _two_columns(X: Array) -> Array:
    return X[:, :2] if X.shape[1] > 1 else np.hstack([X, np.zeros_like(X)])


def ivis_layouts(jobs: Mapping[str, MapJob], workdir: Path, on_done: OnDone | None = None) -> Layouts:
    """Draw ivis maps (N, 2) of prepared points in one process of their own.

    Args:
        jobs: by name; the options are :class:`IvisOptions`.
        workdir: a folder for the files between the two processes; nothing is left in it.
        on_done: called with a map's name and layout, or MapError, as soon as it is finished.

    Returns:
        a layout, or the MapError of a map that failed, for each name in the order of ``jobs``.

    Raises:
        MapError: ivis or TensorFlow is not installed.
    """
    if missing := [name for name in ("ivis", "tensorflow", "tf_keras") if find_spec(name) is None]:
        raise MapError(f"ivis maps need {', '.join(missing)}: {_EXTRA}.")
    done: Layouts = {}

    def finish(name: str, result: Array | MapError) -> None:
        done[name] = result
        if on_done is not None:
            on_done(name, result)

    with tempfile.TemporaryDirectory(prefix="ivis-", dir=workdir) as folder:
        ready: dict[str, tuple[Array, Array, IvisOptions]] = {}
        for name, job in jobs.items():
            try:
                ready[name] = _ivis_input(job)
            except (ValueError, TypeError) as error:
                finish(name, _failed("ivis", name, error))
        write_jobs(Path(folder), ready)
        ending = _run_worker(Path(folder), finish) if ready else ""
    for name in jobs:
        if name not in done:
            finish(name, MapError(f"The ivis map {name!r} was not drawn: {ending}."))
    return {name: done[name] for name in jobs}


def _ivis_input(job: MapJob) -> tuple[Array, Array, IvisOptions]:
    if not isinstance(job.options, IvisOptions):
        raise TypeError(f"its options are {type(job.options).__name__}, not IvisOptions.")
    indices, _ = job.neighbours or nearest_neighbours(job.X, job.options.k)
    return job.X, indices, job.options


def _run_worker(folder: Path, finish: OnDone) -> str:
    """Run the worker on ``folder``, pass on each map as it comes, and say in a clause how the worker ended."""
    root = str(Path(__file__).resolve().parent.parent)
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    log = folder / "stderr.log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "kdpipe.ivis_worker", str(folder)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": search},
            text=True,
        ) as worker,
    ):
        try:
            assert worker.stdout is not None
            _pass_on(folder, read_answers(worker.stdout), finish)
        except BaseException:
            worker.kill()
            raise
    return _how_it_ended(worker.returncode, log)


def _pass_on(folder: Path, answers: Iterator[dict[str, str]], finish: OnDone) -> None:
    for answer in answers:
        name = answer["name"]
        if "layout" in answer:
            finish(name, np.load(folder / answer["layout"]))
        else:
            finish(name, _failed("ivis", name, answer.get("error", "no reason given")))


def _how_it_ended(code: int, log: Path) -> str:
    if code == 0:
        return "its process ended without drawing it"
    cause = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended with exit code {code}"
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"its process {cause}" + (f"; its last words: {lines[-1].strip()}" if lines and code > 0 else "")


def _failed(projector: str, name: str, reason: object) -> MapError:
    return MapError(f"The {projector} map {name!r} was not drawn: {str(reason).rstrip('.')}.")


def _in_turn(
    projector: str, draw: Callable[..., Array]
) -> Callable[[Mapping[str, MapJob], Path, OnDone | None], Layouts]:
    """Let ``draw``, which draws one map in this process, draw many."""

    def layouts(jobs: Mapping[str, MapJob], workdir: Path, on_done: OnDone | None = None) -> Layouts:
        done: Layouts = {}
        for name, job in jobs.items():
            try:
                done[name] = draw(job)
            except (MapError, ValueError) as error:
                done[name] = _failed(projector, name, error)
            if on_done is not None:
                on_done(name, done[name])
        return done

    return layouts


PROJECTORS: dict[str, Projector] = {
    projector.name: projector
    for projector in (
        Projector(
            name="tsne",
            title="t-SNE",
            summary="Keeps each image beside its nearest neighbours; distances between groups say little.",
            citation="van der Maaten and Hinton (2008), Visualizing data using t-SNE; openTSNE, Poličar et al. (2019)",
            options=TsneOptions,
            layouts=_in_turn("t-SNE", tsne),
        ),
        Projector(
            name="ivis",
            title="ivis",
            summary="A small network trained to keep neighbours together; keeps more of the coarse arrangement.",
            citation="Szubert, Cole, Monaco and Drozdov (2019), Structure-preserving visualisation of high "
            "dimensional single-cell datasets",
            options=IvisOptions,
            layouts=ivis_layouts,
        ),
        Projector(
            name="pca",
            title="PCA",
            summary="The two directions in which the images differ most; linear, nothing is pulled apart.",
            citation="Pearson (1901), On lines and planes of closest fit; Hotelling (1933)",
            options=PcaOptions,
            layouts=_in_turn("PCA", pca),
        ),
    )
}


# -------------------------------------------------------------------------------------- alignment


@dataclass(frozen=True)
class Aligned:
    """A layout on the axes of a reference.

    Attributes:
        layout: (N, 2) float32, in the units of the reference.
        moved: (N,) how far each point still is from its place in the reference, in RMS radii of the
            reference (root mean square distance to its centre).
        displacement: root mean square of ``moved``; 0 for the same map, at most 1.
    """

    layout: Array
    moved: Array
    displacement: float


def align(layout: Array, reference: Array) -> Aligned:
    """Lay ``layout`` (N, 2) over ``reference`` (N, 2) by translation, rotation, reflection and one scale.

    Orthogonal Procrustes, Schönemann (1966); the scale of Schönemann and Carroll (1970). None of these
    changes who is near whom, so maps of one kind can share axes.

    Raises:
        MapError: shapes that differ, NaN or infinity, or all points of one of them in one place.
    """
    moving, fixed = np.asarray(layout, np.float64), np.asarray(reference, np.float64)
    if moving.shape != fixed.shape or moving.ndim != 2:
        raise MapError(f"Maps to be aligned must show the same points; they have shapes {moving.shape}, {fixed.shape}.")
    if not (np.isfinite(moving).all() and np.isfinite(fixed).all()):
        raise MapError("A map to be aligned holds NaN or infinity.")
    centre = fixed.mean(axis=0)
    moving, fixed = moving - moving.mean(axis=0), fixed - centre
    size, radius = (float(np.square(moving).sum()), float(np.sqrt(np.square(fixed).sum(axis=1).mean())))
    if not (size > 0 and radius > 0):
        raise MapError("A map whose points are all in one place cannot be aligned.")
    left, weights, right = np.linalg.svd(moving.T @ fixed)
    turned = moving @ (left @ right) * (weights.sum() / size)
    moved = np.linalg.norm(turned - fixed, axis=1) / radius
    return Aligned(
        layout=(turned + centre).astype(np.float32), moved=moved, displacement=float(np.sqrt(np.square(moved).mean()))
    )
