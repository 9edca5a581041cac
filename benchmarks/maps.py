#!/usr/bin/env python
"""How far maps of different networks lie apart: each made alone, against all started from one that they share.

``benchmarks/maps.py ARTIFACTS [--write]`` reads the maps of a study that drew both layouts, such as
``artifacts/cifar10``, and measures displacement (orthogonal Procrustes, in RMS radii) between all pairs of
networks at one depth, and between two seeds of one map: the noise floor. ``--write`` puts the table into
docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measures import replace  # noqa: E402

from kdpipe.measures import displacement  # noqa: E402
from kdpipe.store import Study, open_study  # noqa: E402

LAYOUTS = ("independent", "consensus")


def table(study: Study) -> list[str]:
    """Displacement between networks and between seeds, and neighbours kept, by layer of the student."""
    chosen = study.record["study"]["maps"]
    maps = study.frame("maps", projector="tsne").filter(pl.col("perplexity") == chosen["perplexity"])
    scores = study.frame("map_measures", projector="tsne").filter(pl.col("perplexity") == chosen["perplexity"])
    first = pl.col("map_seed") == chosen["seed"]
    kept = scores.filter(first & (pl.col("measure") == "knn_recall"))
    drift = scores.filter(first & (pl.col("measure") == "seed_drift"))
    lines = [
        "| layer | apart, independent | apart, consensus | ratio | noise floor, independent | noise floor, consensus | "
        "neighbours kept, independent | neighbours kept, consensus |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    depths = study.layers.select("layer", "order").unique("layer").sort("order")["layer"].to_list()
    rows = []
    for layer in [name for name in depths if name in maps["layer"].to_list()]:
        apart = [between_networks(maps.filter(first), layer, layout) for layout in LAYOUTS]
        floors = [mean(drift, layer, layout) for layout in LAYOUTS]
        recalls = [mean(kept, layer, layout) for layout in LAYOUTS]
        rows.append([*apart, apart[0] / apart[1], *floors, *recalls])
        lines.append(f"| {layer} | " + " | ".join(f"{value:.3f}" for value in rows[-1]) + " |")
    means = np.mean(rows, axis=0)
    means[2] = means[0] / means[1]
    lines.append("| mean | " + " | ".join(f"{value:.3f}" for value in means) + " |")
    return lines


def between_networks(maps: pl.DataFrame, layer: str, layout: str) -> float:
    """Mean displacement over all pairs of networks."""
    mine = maps.filter((pl.col("layer") == layer) & (pl.col("layout") == layout)).sort("sample_id")
    layouts = [part.select("x", "y").to_numpy() for part in mine.partition_by("network_id")]
    return float(np.mean([displacement(one, other) for one, other in itertools.combinations(layouts, 2)]))


def mean(scores: pl.DataFrame, layer: str, layout: str) -> float:
    found = scores.filter((pl.col("layer") == layer) & (pl.col("layout") == layout))["value"].mean()
    return float(found) if isinstance(found, float) else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    study = open_study(chosen.artifacts)
    maps = study.record["study"]["maps"]
    lines = [
        f"`benchmarks/maps.py` on the t-SNE maps of `{study.name}` (perplexity {maps['perplexity']:g}, "
        f"{study.samples.height:,} images, {study.networks.filter('mapped').height} networks). "
        f"{study.record['data'].get('note', '')}",
        "",
        *table(study),
        "",
    ]
    print("\n".join(lines))
    if chosen.write:
        replace("maps", "\n".join(lines))


if __name__ == "__main__":
    main()
