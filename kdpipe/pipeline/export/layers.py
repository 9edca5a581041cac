"""The tables of layers: shapes, measures, neighbours and similarity."""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl

from kdpipe.engine.cache import Cache
from kdpipe.pipeline.analysis_plan import Analysis
from kdpipe.pipeline.export.collect import collected, done
from kdpipe.pipeline.stages.embeddings import LAYERS
from kdpipe.pipeline.stages.layer_measures import PUBLISHED_NEIGHBOURS
from kdpipe.pipeline.training_plan import Planned


def layers_table(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    rows = []
    for network_id, stage in done(analysis.embeddings, cache).items():
        layers = json.loads((cache.path(stage) / LAYERS).read_text())
        for tap in layers["taps"]:
            for view in layers["views"]:
                dim = layers["dims"][f"{tap['order']:02d}-{view}"]
                rows.append({"network_id": network_id, "view": view, "dim": dim, **tap})
    return pl.DataFrame(rows, infer_schema_length=None)


def layer_measures_table(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Those of a layer by itself and those beside the teacher's answers, network by network."""
    stages = (analysis.measures, analysis.teacher_measures)
    frames = [frame for part in stages if (frame := collected("values.parquet", part, cache)).width]
    if not frames:
        return pl.DataFrame()
    order = pl.Enum(list(analysis.embeddings))
    return pl.concat(frames).sort(pl.col("network_id").cast(order), maintain_order=True)


def neighbours_table(alive: Sequence[Planned], analysis: Analysis, cache: Cache) -> pl.DataFrame:
    mapped = {planned.network_id for planned in alive if planned.mapped}
    stages = {name: stage for name, stage in analysis.measures.items() if name in mapped}
    frame = collected("neighbours.parquet", stages, cache)
    return frame.with_columns(pl.col("ids").list.head(PUBLISHED_NEIGHBOURS)) if frame.width else frame


def similarity_table(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    return collected("similarity.parquet", analysis.similarity, cache, "other_id")


def credit_table(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Neighbour credit, with the plain student that each network is held against."""
    frame = collected("credit.parquet", analysis.credit, cache)
    plain = {name: stage.inputs["plain"] for name, stage in analysis.credit.items()}
    names = {stage.key: name for name, stage in analysis.measures.items()}
    companions = {name: names[stage.key] for name, stage in plain.items()}
    if not frame.width:
        return frame
    return frame.with_columns(plain_id=pl.col("network_id").replace_strict(companions))
