"""What a table and a column are, and the columns that many tables share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from kdpipe.vocabulary import VIEWS

TEXT, BOOL, COUNT, REAL = pl.String(), pl.Boolean(), pl.Int32(), pl.Float32()


@dataclass(frozen=True)
class Column:
    """One column: its type, what it means, and which values it may hold.

    Attributes:
        nullable: whether it may be empty.
        allowed: the only values; None where any may stand.
        low, high: the least and the greatest value, both allowed; None where there is no end.
        json: whether each value is an object in JSON.
    """

    dtype: pl.DataType
    about: str
    nullable: bool = False
    allowed: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    json: bool = False


@dataclass(frozen=True)
class Table:
    """One Parquet file: what a row is, which columns identify it, and every column in order.

    Attributes:
        small: whether it is a few rows for each network or comparison, and so read, checked and kept as a whole.
    """

    name: str
    row: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]
    small: bool = False

    @property
    def file(self) -> str:
        return f"{self.name}.parquet"

    @property
    def schema(self) -> pl.Schema:
        return pl.Schema({name: column.dtype for name, column in self.columns.items()})


NETWORK = Column(TEXT, "the network, as in networks.parquet")
LAYER = Column(TEXT, "the tap's module name in the timm model")
VIEW = Column(TEXT, "how the layer's map became a vector: gap or projection", allowed=tuple(VIEWS))
BUDGET = Column(TEXT, "the share of the training labels as text, by which tables are joined")
SAMPLE = Column(COUNT, "the probe image, as in samples.parquet")
MEASURE = Column(TEXT, "the measure, as in measures.parquet")
ON_LAYER = {"network_id": NETWORK, "layer": LAYER, "view": VIEW}


def disagreement(table: Table, schema: Mapping[str, pl.DataType]) -> str | None:
    """Say in one clause how ``schema`` differs from what ``table`` declares; None if it does not."""
    declared = table.schema
    if missing := [name for name in declared if name not in schema]:
        return f"column {missing[0]!r} is missing"
    if unknown := [name for name in schema if name not in declared]:
        return f"column {unknown[0]!r} is not part of the schema"
    for name, dtype in declared.items():
        if schema[name] != dtype:
            return f"column {name!r} holds {schema[name]}, not {dtype}"
    if list(schema) != list(declared):
        return "its columns stand in another order"
    return None


def misfit(table: Table, frame: pl.DataFrame) -> str | None:
    """Say in one clause what ``frame`` holds that ``table`` does not allow; None if it holds nothing of that kind.

    Args:
        frame: of the table's own schema.
    """
    for name, column in table.columns.items():
        if problem := _misfit(name, column, frame[name]):
            return problem
    if frame.select(table.key).is_duplicated().any():
        return f"two rows share the key {', '.join(table.key)}"
    return None


def _misfit(name: str, column: Column, values: pl.Series) -> str | None:
    if not column.nullable and values.null_count():
        return f"column {name!r} has empty values"
    present = values.drop_nulls()
    if column.dtype.is_float() and present.is_nan().any():
        return f"column {name!r} holds NaN"
    if column.allowed is not None and (strange := sorted(set(present.unique()) - set(column.allowed))):
        return f"column {name!r} holds {strange[0]!r}, which is none of {', '.join(filter(None, column.allowed))}"
    if column.low is not None and (below := present.filter(present < column.low)).len():
        return f"column {name!r} holds {below[0]:g}, the least it may is {column.low:g}"
    if column.high is not None and (above := present.filter(present > column.high)).len():
        return f"column {name!r} holds {above[0]:g}, the greatest it may is {column.high:g}"
    if column.json and any(not _is_object(value) for value in present.unique()):
        return f"column {name!r} holds something else than an object in JSON"
    return None


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
