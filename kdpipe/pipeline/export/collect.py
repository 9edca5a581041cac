"""Reading finished stages: which have an output, and one file of all of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

import polars as pl

from kdpipe.artifacts.schema import TABLES
from kdpipe.engine.cache import Cache
from kdpipe.engine.stage import Stage

Name = TypeVar("Name", bound=Hashable)


def as_declared(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Columns in the order of the schema, numbers in its types."""
    schema = TABLES[name].schema
    if not frame.width:
        return pl.DataFrame(schema=schema)
    return frame.select(pl.col(column).cast(dtype) for column, dtype in schema.items())


def collected(file: str, stages: Mapping[Name, Stage], cache: Cache, *others: str) -> pl.DataFrame:
    """One file of every stage that left it, with the networks that it is about.

    Args:
        stages: by network, or by several networks and what else tells the stages apart, which the file says itself.
        others: columns for the networks after the first, whose column is ``network_id``.
    """
    frames = []
    for name, stage in done(stages, cache).items():
        path = cache.path(stage) / file
        if path.is_file():
            names = name if isinstance(name, tuple) else (name,)
            place = dict(zip(("network_id", *others), names, strict=False))
            frames.append(pl.read_parquet(path).with_columns(**{column: pl.lit(one) for column, one in place.items()}))
    return pl.concat(frames) if frames else pl.DataFrame()


def done(stages: Mapping[Name, Stage], cache: Cache) -> dict[Name, Stage]:
    """The stages that have an output; what failed is named under ``missing`` in study.json."""
    return {name: stage for name, stage in stages.items() if cache.has(stage)}
