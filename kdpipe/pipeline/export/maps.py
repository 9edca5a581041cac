"""The tables of maps: where each image lies, and how well each map keeps what it shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from kdpipe.artifacts.schema import TABLES
from kdpipe.config.preflight import Preflight
from kdpipe.config.study import StudySpec
from kdpipe.engine.cache import Cache
from kdpipe.measures import MEASURES
from kdpipe.pipeline.analysis_plan import Analysis, MapPlan
from kdpipe.pipeline.stages.alignment import DRIFT
from kdpipe.pipeline.stages.maps import LAYOUT, MAP_NEIGHBOURS, MISPLACED, QUALITY
from kdpipe.pipeline.training_plan import Training


def maps_table(preflight: Preflight, analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Points of every map, as aligned with what the networks share at its depth."""
    frames = []
    for one in _drawn(analysis, cache):
        aligned = analysis.alignment.aligned[one.stage.key]
        layout = np.load(cache.path(aligned if cache.has(aligned) else one.stage) / LAYOUT)
        frames.append(_named(_points(cache.path(one.stage), layout), _place(preflight, one)))
    return pl.concat(frames) if frames else pl.DataFrame()


def map_measures_table(
    spec: StudySpec, preflight: Preflight, training: Training, analysis: Analysis, cache: Cache
) -> pl.DataFrame:
    """Measures of every map, and how far another seed moves it where it was drawn with several."""
    labels = np.load(cache.path(training.probe) / "labels.npy")
    rows: list[dict[str, Any]] = []
    for one in _drawn(analysis, cache):
        place = _place(preflight, one)
        quality = json.loads((cache.path(one.stage) / QUALITY).read_text())
        rows += [
            {**place, "measure": name, "value": value, "chance": MEASURES[name].known_chance(labels, MAP_NEIGHBOURS)}
            for name, value in quality.items()
            if name in spec.measures.names
        ]
        drift = analysis.alignment.drift.get(one.stage.key)
        found = json.loads((cache.path(drift) / DRIFT).read_text()) if drift and cache.has(drift) else {}
        rows += [{**place, "measure": name, "value": v, "chance": None} for name, v in found.items() if v is not None]
    return pl.DataFrame(rows, infer_schema_length=None)


def _drawn(analysis: Analysis, cache: Cache) -> Iterator[MapPlan]:
    return (one for one in analysis.maps if cache.has(one.stage))


def _place(preflight: Preflight, one: MapPlan) -> dict[str, Any]:
    """What tells a map from all others."""
    params = one.stage.params
    return {
        "network_id": one.planned.network_id,
        "layer": preflight.layers(one.planned.student)[one.order],
        "view": params["view"],
        "projector": params["projector"],
        "layout": one.layout,
        "perplexity": params["options"].get("perplexity"),
        "map_seed": params["options"].get("seed", 0),
    }


def _points(folder: Path, layout: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "sample_id": np.arange(len(layout), dtype=np.int32),
            "x": layout[:, 0].astype(np.float32),
            "y": layout[:, 1].astype(np.float32),
            **{name: np.load(folder / f"{name}.npy").astype(np.float32) for name in MISPLACED},
        }
    )


def _named(frame: pl.DataFrame, place: dict[str, Any]) -> pl.DataFrame:
    columns = TABLES["maps"].columns
    return frame.with_columns(**{name: pl.lit(value, dtype=columns[name].dtype) for name, value in place.items()})
