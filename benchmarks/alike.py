#!/usr/bin/env python
"""How far maps lie apart by how alike the networks are, and what bringing them closer still would cost.

``benchmarks/alike.py STUDY.toml [--data-root FOLDER] [--write]`` takes the embeddings of a study that has run from
the cache: a distilled student beside its own checkpoints, beside other students of its seed, and beside its teacher.
Each pair is drawn alone and from a map that the two share, at every layer. Then the networks that the study maps
are drawn at the first and the last layer with a pull towards their mean, of several strengths: the front between
maps that are near each other and maps that keep neighbours. ``--write`` puts both tables into docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from openTSNE import TSNEEmbedding
from openTSNE.affinity import PrecomputedAffinities

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measures import replace as write_table

from kdpipe.config.preflight import run_preflight
from kdpipe.config.study_file import StudyFile, read_study
from kdpipe.engine.cache import Cache
from kdpipe.measures import displacement, knn_recall, mutual_knn
from kdpipe.pipeline.analysis_plan import plan_analysis
from kdpipe.pipeline.networks_plan import plan_networks
from kdpipe.pipeline.planned import Planned
from kdpipe.pipeline.stages.embeddings import read_vectors
from kdpipe.representation.map_jobs import MapJob, TsneOptions, principal_components
from kdpipe.representation.tsne import affinities, consensus, tsne
from kdpipe.vocabulary import TEACHER

Array = NDArray[Any]
NEIGHBOURS, PULLS, STEPS, CHUNK = 15, (0.0, 0.05, 0.1, 0.2), 500, 5


class Outcome(NamedTuple):
    """Mean displacement between networks, and the mean share of neighbours that their maps keep."""

    apart: float
    kept: float


class Embeddings:
    """The vectors of a study's networks, from the cache."""

    def __init__(self, study: StudyFile, root: Path, cache: Cache) -> None:
        facts = run_preflight(study, root)
        plan = plan_networks(study.spec, facts, root)
        self.networks = plan.networks
        self.stages = plan_analysis(study.spec, facts, plan, self.networks).embeddings
        if missing := [name for name, stage in self.stages.items() if not cache.has(stage)]:
            raise SystemExit(f"{missing[0]} is not in the cache: run {study.path} first.")
        self.layers = facts.layers(TEACHER)
        self.spec, self.cache = study.spec, cache

    def of(self, network: Planned, order: int) -> Array:
        return np.asarray(read_vectors(self.cache.path(self.stages[network.network_id]), order, self.spec.maps.view))

    def pairs(self) -> list[tuple[str, Planned, Planned]]:
        """The first distilled student of the headline beside networks that are less and less like it."""
        whole = [n for n in self.networks if n.checkpoint is None]
        headline = self.spec.headline
        own = next(n for n in whole if headline and n.method and n.method == headline.method)
        later = [n for n in self.networks if n.checkpoint and n.stage is own.stage]
        rivals = [n for n in whole if n.method and n is not own and n.seed == own.seed]
        named = [(f"itself at step {n.checkpoint} of {own.steps}", n) for n in reversed(later)]
        named += [(n.method, n) for n in rivals if n.method]
        named += [("its teacher", n) for n in whole if n.network_id == TEACHER]
        return [(name, own, other) for name, other in named]


def drawn(vectors: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Maps of each layer alone, and from the map that the layers share."""
    jobs = [MapJob(principal_components(X), TsneOptions()) for X in vectors]
    shared = consensus(jobs)
    return [tsne(job) for job in jobs], [tsne(replace(job, start=shared)) for job in jobs]


def outcome(vectors: Sequence[Array], layouts: Sequence[Array]) -> Outcome:
    apart = np.mean([displacement(one, other) for one, other in itertools.combinations(layouts, 2)])
    kept = np.mean([knn_recall(X, layout, k=NEIGHBOURS) for X, layout in zip(vectors, layouts, strict=True)])
    return Outcome(float(apart), float(kept))


def by_likeness(study: Embeddings) -> list[str]:
    lines = [
        "| the headline's student and | neighbours they share | apart, independent | apart, consensus | ratio | "
        "neighbours kept, independent | neighbours kept, consensus |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, one, other in study.pairs():
        rows = []
        for order in range(len(study.layers)):
            vectors = [study.of(network, order) for network in (one, other)]
            alone, shared = (outcome(vectors, layouts) for layouts in drawn(vectors))
            alike = mutual_knn(vectors[0], vectors[1], k=NEIGHBOURS)
            rows.append([alike, alone.apart, shared.apart, alone.kept, shared.kept])
        alike, apart, near, kept, still = np.mean(rows, axis=0)
        lines.append(
            f"| {name} | {alike:.0%} | {apart:.3f} | {near:.3f} | {apart / near:.1f} | {kept:.3f} | {still:.3f} |"
        )
        print(lines[-1], flush=True)
    return lines


def front(study: Embeddings) -> list[str]:
    networks = [network for network in study.networks if network.mapped]
    lines = ["| layer | maps | apart | ratio | neighbours kept | fewer by |", "|---|---|--:|--:|--:|--:|"]
    for order in (0, len(study.layers) - 1):
        vectors = [study.of(network, order) for network in networks]
        jobs = [MapJob(principal_components(X), TsneOptions()) for X in vectors]
        alone, shared = outcome(vectors, [tsne(job) for job in jobs]), consensus(jobs)
        layer = study.layers[order]
        lines.append(f"| {layer} | independent | {alone.apart:.3f} | 1.0 | {alone.kept:.3f} | – |")
        for pull in PULLS:
            near = outcome(vectors, pulled(jobs, shared, pull))
            name = f"from the consensus, pulled by {pull:g}" if pull else "from the consensus"
            lines.append(
                f"| {layer} | {name} | {near.apart:.3f} | {alone.apart / near.apart:.1f} | {near.kept:.3f} | "
                f"{1 - near.kept / alone.kept:.1%} |"
            )
            print(lines[-1], flush=True)
    return lines


def pulled(jobs: Sequence[MapJob], start: Array, strength: float) -> list[Array]:
    """Maps optimised side by side, each drawn every few steps towards the mean of all by a share of the way."""
    if not strength:
        return [tsne(replace(job, start=start)) for job in jobs]
    maps = [
        TSNEEmbedding(
            np.asarray(start - start.mean(axis=0), np.float64),
            PrecomputedAffinities(affinities(job)),
            learning_rate=len(start) / 12,
            random_state=0,
        )
        for job in jobs
    ]
    for _ in range(STEPS // CHUNK):
        maps = [layout.optimize(CHUNK, momentum=0.8) for layout in maps]
        centre = np.mean([np.asarray(layout) for layout in maps], axis=0)
        for layout in maps:
            layout += strength * (centre - np.asarray(layout))
    return [np.asarray(layout) for layout in maps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data-root", type=Path, default=Path())
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    study = Embeddings(read_study(chosen.study), chosen.data_root, Cache(ROOT / "cache"))
    spec = study.spec
    mapped = sum(network.mapped for network in study.networks)
    lines = [
        f"`benchmarks/alike.py` on `{spec.name}`: {spec.data.probe_size:,} images, perplexity 30, means of "
        f"{len(study.layers)} layers. {spec.data.note or ''}",
        "",
        *by_likeness(study),
        "",
        f"First and last layer of the {mapped} networks that the study maps, drawn together at several strengths:",
        "",
        *front(study),
        "",
    ]
    print("\n".join(lines))
    if chosen.write:
        write_table("maps-alike", "\n".join(lines))


if __name__ == "__main__":
    main()
