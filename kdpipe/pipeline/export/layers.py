"""The tables of layers: shapes, measures, neighbours and similarity."""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl

from kdpipe.engine.cache import Cache
from kdpipe.pipeline.analysis_plan import Analysis
from kdpipe.pipeline.export.collect import collected, done
from kdpipe.pipeline.planned import Planned
from kdpipe.pipeline.stages.embeddings import LAYERS
from kdpipe.pipeline.stages.factors import EXPLAINED, TOGETHER
from kdpipe.pipeline.stages.layer_measures import CLASSES_FILE, VALUES_FILE
from kdpipe.pipeline.stages.neighbours import NEIGHBOURS, PUBLISHED_NEIGHBOURS
from kdpipe.pipeline.stages.similarity import SIMILARITY
from kdpipe.vocabulary import ALL_FACTORS


def layers_table(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    rows = []
    for network_id, stage in done(analysis.embeddings, cache).items():
        layers = json.loads((cache.path(stage) / LAYERS).read_text())
        for tap in layers["taps"]:
            for view in layers["views"]:
                dim = layers["dims"][f"{tap['order']:02d}-{view}"]
                rows.append({"network_id": network_id, "view": view, "dim": dim, **tap})
    return pl.DataFrame(rows, infer_schema_length=None)


def layer_measures_table(analysis: Analysis, layers: pl.DataFrame, cache: Cache) -> pl.DataFrame:
    """Every measure of every layer: network by network, layer by layer."""
    return _by_layer(collected(VALUES_FILE, analysis.measures, cache), layers)


def class_measures_table(analysis: Analysis, layers: pl.DataFrame, cache: Cache) -> pl.DataFrame:
    """The means of each class, of the measures that are means over images."""
    return _by_layer(collected(CLASSES_FILE, analysis.measures, cache), layers)


def _by_layer(frame: pl.DataFrame, layers: pl.DataFrame) -> pl.DataFrame:
    """Rows in the order of the table of layers; what stages say of one layer stays in the order of the stages."""
    if not frame.width:
        return frame
    keys = ["network_id", "layer", "view"]
    places = layers.select(keys).with_row_index("place")
    return frame.join(places, on=keys, maintain_order="left").sort("place", maintain_order=True).drop("place")


def neighbours_table(alive: Sequence[Planned], analysis: Analysis, cache: Cache) -> pl.DataFrame:
    mapped = {planned.network_id for planned in alive if planned.mapped}
    stages = {name: stage for name, stage in analysis.neighbours.items() if name in mapped}
    frame = collected(NEIGHBOURS, stages, cache)
    return frame.with_columns(pl.col("ids").list.head(PUBLISHED_NEIGHBOURS)) if frame.width else frame


def similarity_table(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Every measure of every pair of layers that was compared."""
    return collected(SIMILARITY, analysis.similarity, cache, "other_id")


def factors_table(analysis: Analysis, layers: pl.DataFrame, cache: Cache) -> pl.DataFrame:
    """What each factor explains of each layer, what is left of it, and a row for all factors together."""
    keys = ["network_id", "layer", "view", "factor"]
    of_one = collected(EXPLAINED, analysis.explained, cache)
    of_all = collected(TOGETHER, analysis.residuals, cache)
    if not of_one.width or not of_all.width:
        return pl.DataFrame()
    whole = of_all.filter(factor=ALL_FACTORS).rename({"explained_of_all": "explained", "chance_of_all": "chance"})
    left = of_all.select(*keys, "residual")
    frame = pl.concat([of_one.join(left, on=keys, how="left", maintain_order="left"), whole], how="diagonal")
    return _by_layer(frame, layers)


def credit_table(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Neighbour credit, with the plain student that each network is held against."""
    frame = collected("credit.parquet", analysis.credit, cache)
    plain = {name: stage.inputs["plain"] for name, stage in analysis.credit.items()}
    names = {stage.key: name for name, stage in analysis.neighbours.items()}
    companions = {name: names[stage.key] for name, stage in plain.items()}
    if not frame.width:
        return frame
    return frame.with_columns(plain_id=pl.col("network_id").replace_strict(companions))
