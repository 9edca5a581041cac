"""What the study used of the registries, so that the app needs no torch."""

from __future__ import annotations

from kdpipe.artifacts.schema.table import (
    BOOL,
    REAL,
    TEXT,
    Column,
    Table,
)
from kdpipe.vocabulary import CONTROL_KINDS, METHOD_ROLES

DIRECTIONS = ("higher", "lower", "neither")

TABLES = (
    Table(
        "methods",
        "a method used in the study",
        ("method",),
        {
            "method": Column(TEXT, "registry name"),
            "title": Column(TEXT, "name for people"),
            "formula": Column(TEXT, "loss, in plain text"),
            "summary": Column(TEXT, "one line for people"),
            "citation": Column(TEXT, "paper"),
            "defaults": Column(TEXT, "default parameters, as JSON", json=True),
            "role": Column(TEXT, "plain, distilled or control", allowed=METHOD_ROLES),
            "explains": Column(
                TEXT,
                "how this control can explain a gain away: instead (if it gains as much) or without (if nothing is "
                "gained with what it withholds gone)",
                nullable=True,
                allowed=tuple(CONTROL_KINDS),
            ),
            "control_of": Column(TEXT, "the method that it varies in one thing; empty for any", nullable=True),
            "null": Column(BOOL, "whether it is plain again from other initial weights: what chance moves"),
        },
        small=True,
    ),
    Table(
        "measures",
        "a measure of layers, maps or layer pairs",
        ("measure",),
        {
            "measure": Column(TEXT, "registry name, the value of every measure column"),
            "of": Column(TEXT, "layer, map, pair (of layers), network or answers (of two networks)"),
            "title": Column(TEXT, "name for people"),
            "summary": Column(TEXT, "one line for people"),
            "citation": Column(TEXT, "paper"),
            "direction": Column(TEXT, "which end means better: higher, lower or neither", allowed=DIRECTIONS),
            "low": Column(REAL, "least possible value", nullable=True),
            "high": Column(REAL, "greatest possible value", nullable=True),
            "chance": Column(TEXT, "where its chance level comes from: known, shuffled or none"),
            "cost": Column(TEXT, "how its time grows with images N, width d and classes K"),
        },
        small=True,
    ),
)
