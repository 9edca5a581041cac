"""From the cache to artifacts: the tables of :mod:`kdpipe.artifacts.schema`, assembled and written as one study."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from kdpipe.artifacts.store import write_study
from kdpipe.config.preflight import Preflight
from kdpipe.config.study import StudySpec
from kdpipe.engine.cache import Cache
from kdpipe.evidence.tables.judge_study import judge_study
from kdpipe.files import new_folder
from kdpipe.pipeline.export.collect import as_declared, collected
from kdpipe.pipeline.export.flips import flip_tables
from kdpipe.pipeline.export.layers import (
    class_measures_table,
    credit_table,
    factors_table,
    layer_measures_table,
    layers_table,
    neighbours_table,
    similarity_table,
)
from kdpipe.pipeline.export.maps import map_tables
from kdpipe.pipeline.export.networks import history_table, networks_table
from kdpipe.pipeline.export.record import study_record, timings_record
from kdpipe.pipeline.export.registries import measures_table, methods_table
from kdpipe.pipeline.export.samples import answers_table, predictions_table, samples_table
from kdpipe.pipeline.run_study import Result, finished
from kdpipe.pipeline.stages.embeddings import PIXELS
from kdpipe.pipeline.stages.image_measures import SAMPLES
from kdpipe.pipeline.stages.network_measures import NETWORK
from kdpipe.pipeline.training_plan import Training


def export(
    spec: StudySpec, preflight: Preflight, result: Result, cache: Cache, folder: Path, hardware: dict[str, Any]
) -> dict[str, pl.DataFrame]:
    """Assemble all tables of a finished run and write them to ``folder`` (``artifacts/<name>``).

    Returns:
        the frames that were written, by table name.
    """
    assert result.analysis is not None, "artifacts need the whole plan"
    training, analysis = result.training, result.analysis
    alive = finished(training, cache)
    layers = layers_table(analysis, cache)
    frames = {
        "networks": networks_table(spec, training, cache),
        "layers": layers,
        "samples": samples_table(training, analysis, preflight.data.class_names, cache),
        "predictions": predictions_table(training, analysis, cache),
        "history": history_table(training, cache),
        "neighbours": neighbours_table(alive, analysis, cache),
        **map_tables(spec, preflight, analysis, cache),
        "network_measures": collected(NETWORK, analysis.network_measures, cache),
        "answers": answers_table(spec, training, analysis, cache),
        **flip_tables(training, analysis, cache),
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
    frames = {name: as_declared(name, frame) for name, frame in frames.items()}
    record = study_record(spec, result, cache)
    frames |= judge_study(frames, record)
    write_study(folder, record, frames, timings_record(training, analysis, cache, hardware))
    return frames


def export_weights(training: Training, cache: Cache, folder: Path) -> list[str]:
    """Copy the last-step weights of every trained network, one safetensors file each.

    Returns:
        the networks whose weights are not at hand, as their stage was packed without them.
    """
    lacking = []
    with new_folder(folder) as building:
        for planned in (one for one in finished(training, cache) if one.network_id != PIXELS):
            name = f"{planned.network_id}.safetensors"
            source = cache.path(planned.stage) / planned.weights
            if cache.thinned(planned.stage):
                source = folder / name  # from an earlier run, if there was one
            if source.is_file():
                shutil.copyfile(source, building / name)
            else:
                lacking.append(planned.network_id)
    return lacking
