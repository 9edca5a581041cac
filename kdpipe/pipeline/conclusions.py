"""What a study says of itself, from its tables alone: verdicts with all that they rest on, and the pages' statistics.

Nothing here knows a network or a cache, so a stored study is judged again in seconds, by the rules as they are now.
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
from kdpipe.evidence.tables.groups import Frames
from kdpipe.evidence.tables.judge_study import EVIDENCE_TABLES, judge_study
from kdpipe.pipeline.statistics import STATISTICS_TABLES, statistics_tables
from kdpipe.source import commit

CONCLUSIONS = (*EVIDENCE_TABLES, *STATISTICS_TABLES)


def conclusions(frames: Frames, record: Mapping[str, Any]) -> dict[str, pl.DataFrame]:
    """The tables that follow from all others of a study.

    Args:
        frames: every other table, as in the schema.
        record: what study.json says of the study.
    """
    judged = judge_study(frames, record)
    return judged | statistics_tables({**frames, **judged})


def judge_again(folder: Path) -> Study:
    """Judge a stored study anew, by the rules as they are now, and replace its tables of evidence and statistics.

    Raises:
        ArtifactError: artifacts that cannot be read, or that were written before evidence was asked for.
    """
    study = open_study(folder)
    if "evidence" not in study.record["study"]:
        raise ArtifactError(f"{folder.name} says nothing of how it is to be judged: run its study file again.")
    frames = {name: study.frame(name) for name in TABLES if name not in CONCLUSIONS}
    left_out = ("files", "sha256", "schema_version", "judged_with")
    record = {name: value for name, value in study.record.items() if name not in left_out}
    judge = {"kdpipe": __version__, "commit": commit()}
    if judge != {"kdpipe": record["versions"]["kdpipe"], "commit": record.get("commit")}:
        record["judged_with"] = judge  # else the study's own version and commit say it
    write_study(folder, record, frames | conclusions(frames, record), study.timings)
    return open_study(folder)
