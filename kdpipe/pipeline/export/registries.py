"""The tables of methods and measures, so that the app needs no torch."""

from __future__ import annotations

import polars as pl

from kdpipe.config.study import StudySpec
from kdpipe.files import canonical_json
from kdpipe.measures import MEASURES, Measure
from kdpipe.methods import METHODS


def methods_table(spec: StudySpec) -> pl.DataFrame:
    used = dict.fromkeys(method.method for method in spec.methods)
    return pl.DataFrame(
        [
            {
                "method": name,
                "title": METHODS[name].title,
                "formula": METHODS[name].formula,
                "summary": METHODS[name].summary,
                "citation": METHODS[name].citation,
                "defaults": canonical_json(METHODS[name].resolved({}).model_dump(mode="json")),
                "role": METHODS[name].role,
                "explains": METHODS[name].explains,
                "control_of": METHODS[name].control_of,
                "null": METHODS[name].is_null,
            }
            for name in used
        ]
    )


def measures_table(spec: StudySpec) -> pl.DataFrame:
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
