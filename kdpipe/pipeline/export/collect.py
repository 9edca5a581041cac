"""Reading finished stages: which have an output, and one file of all of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
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


def logits_of(stage: Stage, cache: Cache) -> np.ndarray | None:
    """(N, K) of the probe images; None for raw pixels."""
    path = cache.path(stage) / "logits.npy"
    return np.load(path) if path.is_file() else None


def collected(file: str, stages: Mapping[Any, Stage], cache: Cache) -> pl.DataFrame:
    """One file of every stage that left it, with the network it belongs to: its name, or the first of several."""
    paths = {name: cache.path(stage) / file for name, stage in done(stages, cache).items()}
    frames = [
        pl.read_parquet(path).with_columns(network_id=pl.lit(name if isinstance(name, str) else name[0]))
        for name, path in paths.items()
        if path.is_file()
    ]
    return pl.concat(frames) if frames else pl.DataFrame()


def done(stages: Mapping[Name, Stage], cache: Cache) -> dict[Name, Stage]:
    """The stages that have an output; what failed is named under ``missing`` in study.json."""
    return {name: stage for name, stage in stages.items() if cache.has(stage)}
