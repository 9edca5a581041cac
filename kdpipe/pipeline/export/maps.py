"""The tables of maps: where each image lies, and how well each map keeps what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from kdpipe.artifacts.schema import TABLES
from kdpipe.config.preflight import Preflight
from kdpipe.engine.cache import Cache
from kdpipe.pipeline.analysis_plan import Analysis
from kdpipe.pipeline.export.collect import done
from kdpipe.pipeline.map_plan import MapPlan
from kdpipe.pipeline.stages.map_measures import VALUE, read_map_pass
from kdpipe.pipeline.stages.maps import LAYOUT

MISPLACED = ("misplacement", "false_neighbours", "missing_neighbours")


def maps_table(preflight: Preflight, analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Points of every map, as aligned with what the networks share at its depth."""
    frames = []
    for one in _drawn(analysis, cache):
        aligned = analysis.alignment.aligned[one.stage.key]
        layout = np.load(cache.path(aligned if cache.has(aligned) else one.stage) / LAYOUT)
        frames.append(_named(_points(cache.path(one.neighbours), layout), _place(preflight, one)))
    return pl.concat(frames) if frames else pl.DataFrame()


def map_measures_table(preflight: Preflight, analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Measures of every map, and how far another seed moves it where it was drawn with several."""
    frames = []
    for one in _drawn(analysis, cache):
        between = {name: stage for (key, name), stage in analysis.alignment.drift.items() if key == one.stage.key}
        for stage in done({**one.measures, **between}, cache).values():
            value = cache.path(stage) / VALUE
            if value.is_file():
                frames.append(_named(pl.read_parquet(value), _place(preflight, one)))
    return pl.concat(frames) if frames else pl.DataFrame()


def _drawn(analysis: Analysis, cache: Cache) -> Iterator[MapPlan]:
    return (one for one in analysis.maps if cache.has(one.stage) and cache.has(one.neighbours))


def _place(preflight: Preflight, one: MapPlan) -> dict[str, Any]:
    """What tells a map from all others."""
    params = one.stage.params
    return {
        "network_id": one.planned.network_id,
        "layer": preflight.layers(one.planned.shape)[one.order],
        "view": params["view"],
        "projector": params["projector"],
        "layout": one.layout,
        "perplexity": params["options"].get("perplexity"),
        "map_seed": params["options"].get("seed", 0),
    }


def _points(neighbours: Path, layout: np.ndarray) -> pl.DataFrame:
    """One map: where each image lies, and how far its neighbourhood there is not its own."""
    found = read_map_pass(neighbours)
    misplaced = {name: getattr(found, name).astype(np.float32) for name in MISPLACED}
    x, y = layout.T.astype(np.float32)
    return pl.DataFrame({"sample_id": np.arange(len(layout), dtype=np.int32), "x": x, "y": y, **misplaced})


def _named(frame: pl.DataFrame, place: dict[str, Any]) -> pl.DataFrame:
    columns = TABLES["maps"].columns
    return frame.with_columns(**{name: pl.lit(value, dtype=columns[name].dtype) for name, value in place.items()})
