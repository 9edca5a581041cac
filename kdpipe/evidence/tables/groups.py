"""Networks of a study that differ in their seed alone, and the controls that a comparison is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from kdpipe.vocabulary import Kind

Frames = Mapping[str, pl.DataFrame]


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
        name: the method_label of its students, or what they would be called.
        method: the control of the registry that it is, or that it is for another method; None for matched accuracy.
        why_not: a clause that says why it was not held against the cell, or None.
    """

    name: str
    kind: Kind
    method: str | None = None
    ids: Mapping[int, str] = field(default_factory=dict)
    why_not: str | None = None
