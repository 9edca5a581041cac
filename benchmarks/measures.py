#!/usr/bin/env python
"""One pass over a layer against scikit-learn, and what measures and maps take by the number of images.

``benchmarks/measures.py [--only pass|scale] [--device cpu] [--write]``. Ratios are of one run; each way is
timed in turns and the fastest of three counts. ``--write`` puts the tables into docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kdpipe.engine.hardware import describe_hardware, resolve_device
from kdpipe.measures import MEASURES, layer_pass, map_pass, nearest_neighbours
from kdpipe.representation.map_jobs import MapJob, Neighbours, TsneOptions, principal_components
from kdpipe.representation.tsne import tsne

NEIGHBOURS, CLASSES = 50, 10
WIDTHS, IMAGES = (64, 512, 2048), 10_000
SIZES = (2_000, 10_000, 50_000)
# t-SNE beyond this takes longer than all the rest together.
MOST_MAPPED = 20_000
# All pairs of images by kernels or distances: minutes at 50,000.
QUADRATIC_PAIRS = {"cka_rbf", "rsa"}


def layer(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping Gaussian classes, as a trained layer has them."""
    random = np.random.default_rng(0)
    y = random.integers(0, CLASSES, n)
    return (0.5 * random.normal(size=(CLASSES, d))[y] + random.normal(size=(n, d))).astype(np.float32), y


def brute_neighbours(X: np.ndarray) -> object:
    return NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(X).kneighbors()


def seconds(ways: list[Callable[[], object]], rounds: int = 3) -> list[float]:
    """Least seconds of each way, in turns."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, found in zip(ways, times, strict=True):
            started = time.perf_counter()
            way()
            found.append(time.perf_counter() - started)
    return [min(found) for found in times]


def one_pass(device: str) -> list[str]:
    lines = [
        f"N = {IMAGES:,}, {NEIGHBOURS} neighbours; the pass gives silhouette, kNN, intra/inter, soft nearest "
        "neighbours and both dimensions.",
        "",
        "| d | scikit-learn's silhouette / the pass | its silhouette and kNN / the pass | peak memory of the pass |",
        "|--:|--:|--:|--:|",
    ]
    for d in WIDTHS:
        X, y = layer(IMAGES, d)
        ours, silhouette, knn = seconds(
            [
                partial(layer_pass, X, y, NEIGHBOURS, device),
                partial(silhouette_samples, X, y),
                partial(brute_neighbours, X),
            ]
        )
        peak = peak_of(f"layer_pass(*layer({IMAGES}, {d}), {NEIGHBOURS}, {device!r})", f"layer({IMAGES}, {d})")
        lines.append(f"| {d} | {silhouette / ours:.2f} | {(silhouette + knn) / ours:.2f} | {peak:,.0f} MB |")
    return lines


def peak_of(work: str, before: str) -> float:
    """Megabytes that ``work`` takes beyond the interpreter, its imports and its input, in processes of their own."""

    def peak(code: str) -> float:
        program = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'benchmarks')!r}]\n"
        program += f"from measures import *\n{code}\n"
        program += "print(high_water())"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return float(done.stdout)

    return peak(work) - peak(before)


def high_water() -> float:
    """Megabytes of this process at most so far; getrusage would count the parent's from before the fork."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def scale(device: str) -> list[str]:
    """Seconds and memory by N at d = 512; one run each, as the largest take minutes, each N in a process of its own."""
    rows: dict[str, dict[int, str]] = {}
    for n in SIZES:
        program = f"import sys; sys.path[:0] = [{str(ROOT / 'benchmarks')!r}]\nfrom measures import *\n"
        program += f"print(json.dumps(timed({n}, {device!r})))"
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
        for name, cell in json.loads(done.stdout).items():
            rows.setdefault(name, {})[n] = cell
        print(f"N = {n:,} done", file=sys.stderr)
    head = " | ".join(f"N = {n:,}" for n in SIZES)
    lines = [f"d = 512, {CLASSES} classes.", "", f"| | {head} |", "|---|" + "--:|" * len(SIZES)]
    return lines + [f"| {name} | {' | '.join(cells.get(n, '–') for n in SIZES)} |" for name, cells in rows.items()]


def timed(n: int, device: str) -> dict[str, str]:
    """What each measure takes on ``n`` images, and what the process took in memory."""
    works, cells = _works(n, device), {}
    before = high_water()
    for name, work in works.items():
        started = time.perf_counter()
        work()
        cells[name] = f"{time.perf_counter() - started:.1f} s"
    cells["data, two layers and labels"] = f"{before:,.0f} MB"
    cells["peak of the process, data included"] = f"{high_water():,.0f} MB"
    return cells


def _works(n: int, device: str) -> dict[str, Callable[[], object]]:
    X, y = layer(n, 512)
    other, _ = layer(n, 512)[0][::-1].copy(), y
    train, train_y = X[: n // 2], y[: n // 2]
    arrays = {"X": X, "y": y, "X_train": train, "y_train": train_y, "Y": other}
    fused = {"silhouette", "intra_inter", "knn_accuracy", "soft_nn", "twonn", "mle_dimension"}
    works: dict[str, Callable[[], object]] = {
        "one pass (silhouette, kNN, dimensions, ...)": lambda: layer_pass(X, y, NEIGHBOURS, device)
    }
    for measure in MEASURES.values():
        if measure.of not in ("layer", "pair") or measure.name in fused or measure.needs_teacher:
            continue
        if measure.name in QUADRATIC_PAIRS and n > IMAGES:
            continue
        inputs = [arrays[name] for name in measure.takes]
        works[f"`{measure.name}`"] = partial(measure.function, *inputs)
    if n <= MOST_MAPPED or n == SIZES[-1]:
        drawn = min(n, MOST_MAPPED)
        title = f"t-SNE and its quality (N at most {MOST_MAPPED:,})"
        works[title] = lambda: map_of(X[:drawn])
    return works


def map_of(X: np.ndarray) -> None:
    points = principal_components(X)
    job = MapJob(points, TsneOptions(), Neighbours(*nearest_neighbours(points, 90)))
    map_pass(X, tsne(job))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("pass", "scale"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    device = resolve_device(chosen.device)
    hardware = describe_hardware(device)
    where = hardware["accelerator"] or f"{hardware['threads']} threads of {hardware['processor']}"
    for name, part in {"pass": one_pass, "scale": scale}.items():
        if chosen.only in (None, name):
            lines = [
                f"One run of `benchmarks/measures.py` on {where}, torch {torch.__version__}.",
                "",
                *part(device),
                "",
            ]
            print("\n".join(lines))
            if chosen.write:
                replace(f"measures-{name}", "\n".join(lines))


def replace(mark: str, text: str) -> None:
    """Put a table between its marks in docs/BENCHMARKS.md."""
    target = ROOT / "docs" / "BENCHMARKS.md"
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    before, found, rest = target.read_text().partition(begin)
    assert found, f"docs/BENCHMARKS.md has no {begin}"
    target.write_text(f"{before}{begin}\n{text}{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
