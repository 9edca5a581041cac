"""From a study's tables to its evidence: comparisons, the specification curve, claims and verdicts.

Everything is computed from stored per-image values, so a study is judged again in seconds and without a network.
What a verdict is, and by which rules, stands in :mod:`kdpipe.evidence`; here it meets the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from kdpipe import __version__
from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import Study, open_study, write_study
from kdpipe.errors import ArtifactError
from kdpipe.evidence.claims import CLAIMS
from kdpipe.evidence.tables.comparisons import comparisons_of
from kdpipe.evidence.tables.contrasts import Draws, Limits, comparison_row, correct, judge_comparison
from kdpipe.evidence.tables.groups import Frames
from kdpipe.evidence.tables.specification import specification_rows
from kdpipe.evidence.tables.values import Values
from kdpipe.evidence.tables.verdicts import across, cell_verdicts, claim_row
from kdpipe.source import commit

EVIDENCE_TABLES = ("comparisons", "specification", "claims", "verdicts")


def judge_study(frames: Frames, record: Mapping[str, Any]) -> dict[str, pl.DataFrame]:
    """The tables of evidence of a study: comparisons, specification, claims and verdicts.

    Args:
        frames: networks, layers, samples, sample_measures, predictions and methods, as in the schema.
        record: what study.json says of the study, with its sections ``evidence`` and ``measures``, and its headline.
    """
    study = record["study"]
    limits, measures = _limits(study["evidence"]), study["measures"]
    values, draws = Values(frames), Draws(limits)
    cells = comparisons_of(frames, study["evidence"]["primary"] or record["headline"])
    judged = [judge_comparison(comparison, values, frames, limits, draws) for comparison in cells]
    correct(judged)
    ks = {"k": measures["k"], "second_k": measures["second_k"]}
    for cell in judged:
        if not cell.comparison.fair_teacher:
            cell.specifications = list(specification_rows(cell.comparison, values, draws, ks))
    verdicts = [row for cell in judged for row in cell_verdicts(cell, limits)]
    rows: dict[str, list[dict[str, Any]]] = {
        "comparisons": [comparison_row(row) for cell in judged for row in cell.rows],
        "specification": [row for cell in judged for row in cell.specifications],
        "claims": [claim_row(claim) for claim in CLAIMS],
        "verdicts": verdicts + across(verdicts),
    }
    return {name: _typed(name, found) for name, found in rows.items()}


def judge_again(folder: Path) -> Study:
    """Judge a stored study anew, by the rules as they are now, and replace its tables of evidence.

    Raises:
        ArtifactError: artifacts that cannot be read, or that were written before evidence was asked for.
    """
    study = open_study(folder)
    if "evidence" not in study.record["study"]:
        raise ArtifactError(f"{folder.name} says nothing of how it is to be judged: run its study file again.")
    frames = {name: study.frame(name) for name in TABLES if name not in EVIDENCE_TABLES}
    left_out = ("files", "sha256", "schema_version", "judged_with")
    record = {name: value for name, value in study.record.items() if name not in left_out}
    judge = {"kdpipe": __version__, "commit": commit()}
    if judge != {"kdpipe": record["versions"]["kdpipe"], "commit": record.get("commit")}:
        record["judged_with"] = judge  # else the study's own version and commit say it
    write_study(folder, record, frames | judge_study(frames, record), study.timings)
    return open_study(folder)


def _limits(evidence: Mapping[str, Any]) -> Limits:
    return Limits(**evidence["epsilon"], resamples=evidence["resamples"], seed=evidence["seed"])


def _typed(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    schema = TABLES[name].schema
    return pl.DataFrame([{column: row.get(column) for column in schema} for row in rows], schema=schema)
