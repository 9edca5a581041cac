"""The tables of probe images and of what networks answer to them."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from kdpipe.engine.cache import Cache
from kdpipe.errors import KdpipeError
from kdpipe.pipeline.analysis_plan import Analysis
from kdpipe.pipeline.export.collect import collected, done
from kdpipe.pipeline.stages.answers import MEASURED, SHARES
from kdpipe.pipeline.stages.image_measures import SETTLED
from kdpipe.pipeline.stages.predictions import PREDICTIONS
from kdpipe.pipeline.stages.samples import SAMPLES


def samples_table(analysis: Analysis, class_names: Sequence[str], cache: Cache) -> pl.DataFrame:
    stage = analysis.answers.samples
    if stage is None or not cache.has(stage):
        raise KdpipeError("The probe images could not be made ready to be shown, see above; no artifacts were written.")
    frame = pl.read_parquet(cache.path(stage) / SAMPLES)
    names = dict(enumerate(class_names))
    return frame.with_columns(class_name=pl.col("label").replace_strict(names, return_dtype=pl.String))


def predictions_table(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Each network's answers, with the layer from which on its neighbours vote for them where that was measured."""
    frames = []
    for network_id, stage in done(analysis.answers.predictions, cache).items():
        frame = pl.read_parquet(cache.path(stage) / PREDICTIONS)
        measured = analysis.images[network_id]
        if cache.has(measured):
            settled = pl.read_parquet(cache.path(measured) / SETTLED)
        else:
            settled = frame.select("sample_id", prediction_depth=None, vote_entropy=None)
        frames.append(frame.join(settled, on="sample_id").with_columns(network_id=pl.lit(network_id)))
    return pl.concat(frames, how="vertical_relaxed") if frames else pl.DataFrame()


def answers_table(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Each network's answers against its teacher's and those of plain of the same seed."""
    parts = (
        collected(MEASURED, analysis.answers.measures, cache, "other_id"),
        collected(SHARES, analysis.answers.shares, cache, "other_id"),
    )
    frames = [frame for frame in parts if frame.width]
    return pl.concat(frames).sort("network_id", "other_id", maintain_order=True) if frames else pl.DataFrame()


def flips_table(analysis: Analysis, cache: Cache, file: str) -> pl.DataFrame:
    """What each student fixed, broke and inherited: one of the two files of the stage."""
    return collected(file, analysis.answers.flips, cache, "plain_id", "teacher_id")
