"""Networks of a study that differ in their seed alone, and the controls that a comparison is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

Kind = Literal["instead", "without"]
Frames = Mapping[str, pl.DataFrame]


STUDENT = ~pl.col("student").is_in(["teacher", "pixels"])


@dataclass(frozen=True)
class Group:
    """Networks that differ in their seed alone: seed -> network_id."""

    label: str
    method: str
    role: str
    unlabelled: bool
    ids: Mapping[int, str]


@dataclass(frozen=True)
class NamedControl:
    """A control of a cell.

    Attributes:
        why_not: a clause that says why it was not held against the cell, or None.
    """

    name: str
    kind: Kind
    ids: Mapping[int, str] = field(default_factory=dict)
    why_not: str | None = None
