"""What a table and a column are, and the columns that many tables share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

TEXT, BOOL, COUNT, REAL = pl.String(), pl.Boolean(), pl.Int32(), pl.Float32()


@dataclass(frozen=True)
class Column:
    """One column: its type, what it means, and whether it may be empty."""

    dtype: pl.DataType
    about: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One Parquet file: what a row is, which columns identify it, and every column in order."""

    name: str
    row: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]

    @property
    def file(self) -> str:
        return f"{self.name}.parquet"

    @property
    def schema(self) -> pl.Schema:
        return pl.Schema({name: column.dtype for name, column in self.columns.items()})


NETWORK = Column(TEXT, "the network, as in networks.parquet")
LAYER = Column(TEXT, "the tap's module name in the timm model")
VIEW = Column(TEXT, "how the layer's map became a vector: gap or projection")
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
