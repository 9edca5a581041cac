"""ivis maps, drawn by a process of their own: TensorFlow cannot share one with torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from kdpipe.errors import MapError
from kdpipe.files import scratch_folder
from kdpipe.measures import nearest_neighbours
from kdpipe.representation.ivis_worker import IvisOptions, read_answers, write_jobs
from kdpipe.representation.map_jobs import EXTRA, Array, Layouts, MapJob, OnDone, map_failed


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
        raise MapError(f"ivis maps need {', '.join(missing)}: {EXTRA}.")
    done: Layouts = {}

    def finish(name: str, result: Array | MapError) -> None:
        done[name] = result
        if on_done is not None:
            on_done(name, result)

    with scratch_folder(workdir, "ivis-") as folder:
        ready: dict[str, tuple[Array, Array, IvisOptions]] = {}
        for name, job in jobs.items():
            try:
                ready[name] = _ivis_input(job)
            except (ValueError, TypeError) as error:
                finish(name, map_failed("ivis", name, error))
        write_jobs(folder, ready)
        ending = _run_worker(folder, finish) if ready else ""
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
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    log = folder / "stderr.log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "kdpipe.representation.ivis_worker", str(folder)],
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
            finish(name, map_failed("ivis", name, answer.get("error", "no reason given")))


def _how_it_ended(code: int, log: Path) -> str:
    if code == 0:
        return "its process ended without drawing it"
    cause = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended with exit code {code}"
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"its process {cause}" + (f"; its last words: {lines[-1].strip()}" if lines and code > 0 else "")
