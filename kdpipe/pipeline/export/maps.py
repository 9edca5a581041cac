"""Maps on their way to artifacts: each laid over what the networks share at its depth, with its measures."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from kdpipe.artifacts.schema import TABLES
from kdpipe.config.preflight import Preflight
from kdpipe.config.study import StudySpec
from kdpipe.engine.cache import Cache
from kdpipe.errors import MapError
from kdpipe.files import canonical_json
from kdpipe.measures import MEASURES
from kdpipe.pipeline.analysis_plan import Analysis
from kdpipe.pipeline.export.collect import done
from kdpipe.pipeline.map_plan import MapPlan
from kdpipe.pipeline.stages.map_measures import VALUE, read_map_pass
from kdpipe.pipeline.stages.maps import LAYOUT
from kdpipe.pipeline.training_plan import TEACHER
from kdpipe.representation.alignment import align


def map_tables(spec: StudySpec, preflight: Preflight, analysis: Analysis, cache: Cache) -> dict[str, pl.DataFrame]:
    """Points and measures of every map, each rotated onto what the networks share at its depth."""
    drawn = [one for one in analysis.maps if cache.has(one.stage)]
    references = _references(drawn, cache)
    layouts = {
        one.stage.key: _on_reference(np.load(cache.path(one.stage) / LAYOUT), references.get(_axes(one)))
        for one in drawn
    }
    drift = _drift(spec, drawn, layouts)
    points, numbers = [], []
    for one in drawn:
        params = one.stage.params
        place = {
            "network_id": one.planned.network_id,
            "layer": preflight.layers(one.planned.student)[one.order],
            "view": params["view"],
            "projector": params["projector"],
            "layout": one.layout,
            "perplexity": params["options"].get("perplexity"),
            "map_seed": params["options"].get("seed", 0),
        }
        if not cache.has(one.neighbours):
            continue
        found = read_map_pass(cache.path(one.neighbours))
        points.append(_points(place, layouts[one.stage.key], vars(found)))
        values = [pl.read_parquet(cache.path(stage) / VALUE) for stage in done(one.measures, cache).values()]
        numbers += [{**place, **row} for frame in values for row in frame.to_dicts()]
        numbers += [{**place, **row} for row in drift.get(one.stage.key, [])]
    return {
        "maps": pl.concat(points) if points else pl.DataFrame(),
        "map_measures": pl.DataFrame(numbers, infer_schema_length=None),
    }


Axes = tuple[str, int]


def _axes(one: MapPlan) -> Axes:
    """Maps of the same axes lie on one reference: t-SNE's consensus, or the teacher's map where there is none."""
    return ("" if one.shared else one.stage.params["projector"], one.place)


def _references(drawn: Sequence[MapPlan], cache: Cache) -> dict[Axes, np.ndarray]:
    found: dict[Axes, np.ndarray] = {}
    for one in drawn:
        if one.shared and not one.strip and cache.has(one.shared):
            found.setdefault(_axes(one), np.load(cache.path(one.shared) / LAYOUT))
        elif not one.shared and one.planned.network_id == TEACHER:
            found.setdefault(_axes(one), np.load(cache.path(one.stage) / LAYOUT))
    return found


def _drift(
    spec: StudySpec, drawn: Sequence[MapPlan], layouts: dict[str, np.ndarray]
) -> dict[str, list[dict[str, Any]]]:
    """Measures of a map beside the same map with other seeds, as means over those, by the key of the map's stage."""
    asked = [MEASURES[name] for name in spec.measures.names if "other" in MEASURES[name].takes]
    of: dict[tuple[Any, ...], list[MapPlan]] = {}
    for one in drawn:
        options = {name: value for name, value in one.stage.params["options"].items() if name != "seed"}
        same = (one.planned.network_id, one.order, one.stage.params["projector"], one.layout, canonical_json(options))
        of.setdefault(same, []).append(one)
    found: dict[str, list[dict[str, Any]]] = {}
    for seeds in of.values():
        first, *others = (layouts[one.stage.key] for one in seeds)
        for measure in asked if others else []:
            with contextlib.suppress(ValueError):
                value = float(np.mean([measure.function(other, first) for other in others]))
                row = {"measure": measure.name, "value": value, "chance": None}
                found.setdefault(seeds[0].stage.key, []).append(row)
    return found


def _on_reference(layout: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
    """The layout on the reference's axes and in its size; as it is where there is nothing to align it with.

    Procrustes' own scale is undone: it shrinks a map the less it resembles the reference, which to
    the eye is compactness, the very thing that these maps are looked at for.
    """
    if reference is None:
        return layout
    try:
        turned = align(layout, reference).layout
    except MapError:
        return layout
    centre = reference.mean(axis=0)
    return centre + (turned - centre) * (_radius(reference) / _radius(turned))


def _radius(layout: np.ndarray) -> float:
    """Root mean square distance of the points to their centre."""
    return float(np.sqrt(np.square(layout - layout.mean(axis=0)).sum(axis=1).mean()))


def _points(place: dict[str, Any], layout: np.ndarray, misplaced: dict[str, np.ndarray]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "sample_id": np.arange(len(layout), dtype=np.int32),
            "x": layout[:, 0].astype(np.float32),
            "y": layout[:, 1].astype(np.float32),
            **{name: values.astype(np.float32) for name, values in misplaced.items()},
        }
    ).with_columns(**{name: pl.lit(value, dtype=TABLES["maps"].columns[name].dtype) for name, value in place.items()})
