"""The tables of methods and measures, so that the app needs no torch."""

from __future__ import annotations

from typing import Any

import polars as pl

from kdpipe.config.study import BaseStudy, GivenStudy
from kdpipe.files import canonical_json
from kdpipe.measures import MEASURES, Measure
from kdpipe.methods import METHODS


def methods_table(spec: BaseStudy) -> pl.DataFrame:
    rows = [_registered(name) if name in METHODS else _unknown(name, spec) for name in dict.fromkeys(spec.method_names)]
    return pl.DataFrame(rows, infer_schema_length=None)


def _registered(name: str) -> dict[str, Any]:
    record = METHODS[name]
    fields = ("title", "formula", "summary", "citation", "role", "explains", "control_of")
    return {
        "method": name,
        **{field: getattr(record, field) for field in fields},
        "defaults": canonical_json(record.resolved({}).model_dump(mode="json")),
        "null": record.is_null,
    }


def _unknown(name: str, spec: BaseStudy) -> dict[str, Any]:
    """A method that finished networks say they were trained by, and that kdpipe does not know."""
    assert isinstance(spec, GivenStudy), "what is trained here is registered"
    first = next(network for network in spec.students if network.label == name)
    return {
        "method": name,
        "title": name,
        "formula": "not known to kdpipe",
        "summary": "The networks were trained elsewhere; this is what their owner calls it.",
        "citation": "",
        "role": first.role,
        "explains": first.explains,
        "control_of": None,
        "defaults": "{}",
        "null": False,
    }


def measures_table(spec: BaseStudy) -> pl.DataFrame:
    fields = ("of", "title", "summary", "citation", "direction", "low", "high", "cost")
    rows = []
    for name in spec.measures.names:
        measure = MEASURES[name]
        row = {"measure": name, **{field: getattr(measure, field) for field in fields}, "chance": _chance(measure)}
        if (k := measure.neighbours(spec.measures.k)) is not None:
            row["summary"] += f" Here k is {k}."
        rows.append(row)
    return pl.DataFrame(rows, schema_overrides={"low": pl.Float32, "high": pl.Float32}, infer_schema_length=None)


def _chance(measure: Measure) -> str:
    return "none" if measure.chance is None else "shuffled" if measure.chance == "shuffled" else "known"
