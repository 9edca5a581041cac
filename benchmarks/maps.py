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

from measures import replace

from kdpipe.artifacts.store import Study, open_study
from kdpipe.measures import displacement
from kdpipe.representation.alignment import align

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


def by_change(study: Study) -> list[str]:
    """Displacement of single images, by how many of their neighbours really differ between the two networks.

    The 15 nearest images in the layer's own space are compared; a map that can be compared moves what changed and
    leaves the rest where it was.
    """
    chosen = study.record["study"]["maps"]
    wanted = (pl.col("perplexity") == chosen["perplexity"]) & (pl.col("map_seed") == chosen["seed"])
    maps = study.frame("maps", projector="tsne").filter(wanted)
    near = study.frame("neighbours", view=chosen["view"])
    rows: list[dict[str, float | str]] = []
    for layer in maps["layer"].unique():
        sets = {name: part.sort("sample_id")["ids"].to_list() for name, part in _by_network(near, layer)}
        for layout in LAYOUTS:
            drawn = dict(_by_network(maps.filter(layout=layout), layer))
            for one, other in itertools.combinations(sorted(drawn.keys() & sets.keys()), 2):
                lost = [1 - len(set(a) & set(b)) / len(a) for a, b in zip(sets[one], sets[other], strict=True)]
                moved = align(
                    *(drawn[name].sort("sample_id").select("x", "y").to_numpy() for name in (one, other))
                ).moved
                rows += [{"layout": layout, "lost": a, "moved": float(b)} for a, b in zip(lost, moved, strict=True)]
    frame = pl.DataFrame(rows).with_columns(
        quarter=((pl.col("lost").rank("ordinal") - 1) * 4 // pl.len()).over("layout")
    )
    lines = [
        "| quarter of images | neighbours that differ | moved, independent | moved, consensus |",
        "|---|--:|--:|--:|",
    ]
    names = ("alike most", "second", "third", "alike least")
    for quarter, name in enumerate(names):
        mine = frame.filter(quarter=quarter)
        lost = mine["lost"].to_numpy().mean()
        rms = [np.sqrt(np.square(mine.filter(layout=layout)["moved"].to_numpy()).mean()) for layout in LAYOUTS]
        lines.append(f"| {name} | {lost:.0%} | {rms[0]:.3f} | {rms[1]:.3f} |")
    ranks = [
        frame.filter(layout=layout).select(pl.corr("lost", "moved", method="spearman")).item() for layout in LAYOUTS
    ]
    return [
        *lines,
        "",
        "Spearman correlation of an image's displacement with the share of its neighbours that differ: "
        f"{ranks[0]:.2f} between independent maps, {ranks[1]:.2f} between maps from the consensus.",
    ]


def _by_network(frame: pl.DataFrame, layer: str) -> list[tuple[str, pl.DataFrame]]:
    parts = frame.filter(pl.col("layer") == layer).partition_by("network_id", as_dict=True)
    return [(str(name), part) for (name,), part in parts.items()]


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
        *by_change(study),
        "",
    ]
    print("\n".join(lines))
    if chosen.write:
        replace("maps", "\n".join(lines))


if __name__ == "__main__":
    main()
