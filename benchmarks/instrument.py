#!/usr/bin/env python
"""How often the instrument errs on layers whose truth is known, and how small an advance it can find.

``benchmarks/instrument.py [ARTIFACTS] [--method kd] [--only errors|coverage|power] [--write]``. ARTIFACTS is a
study with several seeds, such as ``artifacts/cifar10``: its per-image values say how much seeds, images and both
vary. ``--write`` puts the tables into docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measures import replace

from kdpipe.artifacts.store import Study, open_study
from kdpipe.evidence import ENDPOINTS, Cell, Components, Resamples, Verdict, area_weights, judge, variance_components
from kdpipe.evidence.simulation import (
    World,
    advance_of,
    advanced,
    better_everywhere,
    crossed_values,
    data_effect,
    detectable_area,
    identical,
)
from kdpipe.vocabulary import budget_id

NULLS, PLANTED, DESIGNS = 1000, 100, 1000
WORLD = World()
SEEDS, IMAGES = (3, 4, 5, 6, 7, 8, 10, 12, 16), (500, 1000, 2000, 5000)
COLUMNS = {"silhouette": "silhouette", "knn_accuracy": "knn_correct"}
TITLES = {"silhouette": "Silhouette", "knn_accuracy": "kNN accuracy"}
WORLDS: dict[str, Callable[[int], Cell]] = {
    "one layer ahead": advanced,
    "higher by a shift, one shape": better_everywhere,
    "stretched and higher, one shape": lambda seed: better_everywhere(seed, shift=0.02, factor=1.5),
    "one layer ahead, and so is a control": data_effect,
}


# ------------------------------------------------------------------------------------------- errors


def errors() -> list[str]:
    """How often nothing is called something, and what becomes of planted effects."""
    drawn = Resamples.draw(WORLD.labels, WORLD.seeds)
    found = [judge(identical(seed), drawn) for seed in range(NULLS)]
    significant = sum(any(p is not None and p < 0.05 for p in j.p_corrected.values()) for j in found)
    lines = [
        f"Silhouettes and kNN votes of Gaussian layers: {WORLD.seeds} seeds, {WORLD.images} images that all networks "
        f"share, {len(WORLD.rising)} layers, {WORLD.classes} classes.",
        "",
        f"Distilled and plain students of one distribution, {NULLS:,} times: significant on either endpoint after Holm "
        f"in {rate(significant, NULLS)}; an exact test of {WORLD.seeds} seeds has a size of at most "
        f"{2 * 2 * 3 / 2**WORLD.seeds:.3f}.",
        "",
        "| what was planted | verdicts |",
        "|---|---|",
        f"| nothing | {verdicts(Counter(j.verdict for j in found), NULLS)} |",
    ]
    for name, make in WORLDS.items():
        counts = Counter(judge(make(seed), drawn).verdict for seed in range(PLANTED))
        lines.append(f"| {name} | {verdicts(counts, PLANTED)} |")
    return lines


def rate(k: int, n: int) -> str:
    """A share with its exact interval (Clopper and Pearson)."""
    interval = binomtest(k, n).proportion_ci(0.95, method="exact")
    return f"{k / n:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def verdicts(counts: Counter[Verdict], n: int) -> str:
    return ", ".join(f"{name} {count / n:.1%}" for name, count in counts.most_common())


# ----------------------------------------------------------------------------------- a study's spread


@dataclass(frozen=True)
class Spread:
    """What a study's early areas vary by, at one endpoint.

    Attributes:
        plain: (L,) the plain students' mean curve over ``depth``.
        gain, null: components of distilled - plain and of second seed - plain.
    """

    depth: np.ndarray
    plain: np.ndarray
    seeds: int
    gain: Components
    null: Components


def spreads(study: Study, method: str) -> dict[str, Spread]:
    """By endpoint, for the first student and budget that has the method."""
    whole = study.networks.filter(pl.col("role") != "checkpoint")
    of = whole.filter(method_label=method).row(0, named=True)
    same = whole.filter(student=of["student"], budget_id=budget_id(of["label_fraction"]))
    arms = [same.filter(method_label=name) for name in (method, "plain", "second-seed")]
    seeds = sorted(set.intersection(*(set(arm["seed"]) for arm in arms)))
    ids = [[arm.filter(seed=seed)["network_id"][0] for seed in seeds] for arm in arms]
    found: dict[str, Spread] = {}
    for name, endpoint in ENDPOINTS.items():
        layers = study.layers.filter(network_id=ids[1][0], view=endpoint.view).sort("order")
        depth = layers["relative_depth"].to_numpy().astype(float)
        distilled, plain, second = (
            np.array(
                [values(study, network, layers["layer"].to_list(), endpoint.view, COLUMNS[name]) for network in arm]
            )
            for arm in ids
        )
        weights = area_weights(depth, early=True)
        gain, null = (variance_components(np.einsum("l,sln->sn", weights, arm - plain)) for arm in (distilled, second))
        found[name] = Spread(depth, plain.mean(axis=(0, 2)), len(seeds), gain, null)
    return found


def values(study: Study, network: str, layers: list[str], view: str, column: str) -> list[np.ndarray]:
    """Per-image values (L, N) of a network."""
    frame = study.frame("sample_measures", network_id=network, view=view).sort("sample_id")
    return [frame.filter(layer=layer)[column].cast(pl.Float64).to_numpy() for layer in layers]


# ----------------------------------------------------------------------------------------- coverage


def coverage(study: Study, method: str) -> list[str]:
    """Of intervals of 0 in crossed designs with a study's components: as they are, and with plain percentiles."""
    found = spreads(study, method)
    seeds = (3, 5, 8, 16)
    lines = [
        f"How often a 95 % interval holds the true early area, over {DESIGNS:,} crossed designs of 2,000 images with "
        f"the components of `{study.record['name']}`; in brackets with plain percentiles, which take no account of how "
        "few the seeds are.",
        "",
        "| contrast | endpoint | " + " | ".join(f"{count} seeds" for count in seeds) + " |",
        "|---|---|" + "--:|" * len(seeds),
    ]
    for contrast in ("gain", "null"):
        title = f"{method} - plain" if contrast == "gain" else "second seed - plain"
        for name, spread in found.items():
            cells = [both(covered(getattr(spread, contrast), count)) for count in seeds]
            lines.append(f"| {title} | {TITLES[name]} | {' | '.join(cells)} |")
    return lines


def both(shares: tuple[float, float]) -> str:
    return f"{shares[0]:.3f} ({shares[1]:.3f})"


def covered(components: Components, seeds: int, images: int = 2000) -> tuple[float, float]:
    """Share of intervals that hold 0, expanded and not."""
    random, drawn = np.random.default_rng(0), Resamples.draw(np.zeros(images, int), seeds)
    hits = np.zeros(2)
    for _ in range(DESIGNS // 50):
        designs = np.stack([crossed_values(components, seeds, images, random) for _ in range(50)], axis=1)
        means = drawn.means(designs)
        for at in range(50):
            for way, expand in enumerate((True, False)):
                low, high = drawn.interval(means[:, :, at], expand=expand)
                hits[way] += low <= 0 <= high
    expanded, plain = hits / DESIGNS
    return float(expanded), float(plain)


# -------------------------------------------------------------------------------------------- power


def power(study: Study, method: str) -> list[str]:
    """The least advance found four times in five, by seeds and images."""
    found = spreads(study, method)
    (seeds,) = {spread.seeds for spread in found.values()}
    lines = [
        "The least true advance, in layers, that is significant in 80 % of 300 simulations: interval above 0 and p "
        "below .05 after Holm's first step; in brackets the early area, in units of .001. The spread of "
        f"{method} - plain and the plain curve are those of `{study.record['name']}`, of {seeds} seeds and so "
        "themselves rough. Six seeds or fewer cannot reach such a p; verdicts ask for 8.",
    ]
    for name, spread in found.items():
        lines += [
            "",
            f"{TITLES[name]}: standard deviation of a seed {spread.gain.seed:.4f}, of an image "
            f"{spread.gain.image:.4f}, of both {spread.gain.both:.4f}.",
            "",
            "| seeds | " + " | ".join(f"{images:,} images" for images in IMAGES) + " |",
            "|--:|" + "--:|" * len(IMAGES),
        ]
        lines += [f"| {count} | {' | '.join(least(spread, count, images) for images in IMAGES)} |" for count in SEEDS]
    return lines


def least(spread: Spread, seeds: int, images: int) -> str:
    area = detectable_area(spread.gain, seeds, images)
    if not np.isfinite(area):
        return "never"
    layers = advance_of(spread.depth, spread.plain, area) * (len(spread.depth) - 1)
    return f"{layers:.2f} ({1000 * area:.1f})" if np.isfinite(layers) else f"more than all ({1000 * area:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="?", type=Path, default=ROOT / "artifacts" / "cifar10")
    parser.add_argument("--method", default="kd")
    parser.add_argument("--only", choices=("errors", "coverage", "power"))
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], list[str]]] = {
        "errors": errors,
        "coverage": lambda: coverage(open_study(chosen.artifacts), chosen.method),
        "power": lambda: power(open_study(chosen.artifacts), chosen.method),
    }
    for name, part in parts.items():
        if chosen.only in (None, name):
            text = "\n".join([*part(), ""])
            print(text)
            if chosen.write:
                replace(f"instrument-{name}", text)


if __name__ == "__main__":
    main()
