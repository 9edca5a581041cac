"""From the cache to the tables of :mod:`kdpipe.artifacts.schema`: finished outputs, with the names of their networks.

Nothing is computed here. What a study says of itself, its verdicts and statistics, comes later and from these tables
alone (:mod:`kdpipe.pipeline.conclusions`).
"""

from __future__ import annotations

import polars as pl

from kdpipe.config.preflight import Preflight
from kdpipe.config.study import BaseStudy
from kdpipe.engine.cache import Cache
from kdpipe.pipeline.export.collect import as_declared, collected
from kdpipe.pipeline.export.layers import (
    class_measures_table,
    credit_table,
    factors_table,
    layer_measures_table,
    layers_table,
    neighbours_table,
    similarity_table,
)
from kdpipe.pipeline.export.maps import map_measures_table, maps_table
from kdpipe.pipeline.export.networks import history_table, networks_table
from kdpipe.pipeline.export.registries import measures_table, methods_table
from kdpipe.pipeline.export.samples import answers_table, flips_table, predictions_table, samples_table
from kdpipe.pipeline.run_study import Result, finished
from kdpipe.pipeline.stages.flips import FLIPS, SAMPLE_FLIPS
from kdpipe.pipeline.stages.image_measures import SAMPLES
from kdpipe.pipeline.stages.network_measures import NETWORK


def exported(spec: BaseStudy, preflight: Preflight, result: Result, cache: Cache) -> dict[str, pl.DataFrame]:
    """The tables of a finished run that its stages fill, by name."""
    assert result.analysis is not None, "artifacts need the whole plan"
    plan, analysis = result.plan, result.analysis
    layers = layers_table(analysis, cache)
    frames = {
        "networks": networks_table(plan, cache),
        "layers": layers,
        "samples": samples_table(analysis, preflight.data.class_names, cache),
        "predictions": predictions_table(analysis, cache),
        "history": history_table(plan, cache),
        "neighbours": neighbours_table(finished(plan, cache), analysis, cache),
        "maps": maps_table(preflight, analysis, cache),
        "map_measures": map_measures_table(preflight, analysis, cache),
        "network_measures": collected(NETWORK, analysis.network_measures, cache),
        "answers": answers_table(analysis, cache),
        "flips": flips_table(analysis, cache, FLIPS),
        "sample_flips": flips_table(analysis, cache, SAMPLE_FLIPS),
        "factors": factors_table(analysis, layers, cache),
        "neighbour_credit": credit_table(analysis, cache),
        "explanations": collected("explanations.parquet", analysis.explanations, cache),
        "layer_measures": layer_measures_table(analysis, layers, cache),
        "class_measures": class_measures_table(analysis, layers, cache),
        "sample_measures": collected(SAMPLES, analysis.images, cache),
        "similarity": similarity_table(analysis, cache),
        "methods": methods_table(spec),
        "measures": measures_table(spec),
    }
    return {name: as_declared(name, frame) for name, frame in frames.items()}
