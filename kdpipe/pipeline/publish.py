"""From a finished run to the artifacts of its study: the tables that stages filled, and what follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from kdpipe.artifacts.store import write_study
from kdpipe.config.preflight import Preflight
from kdpipe.config.study import BaseStudy
from kdpipe.engine.cache import Cache
from kdpipe.pipeline.conclusions import conclusions
from kdpipe.pipeline.export.record import study_record, timings_record
from kdpipe.pipeline.export.study import exported
from kdpipe.pipeline.run_study import Result


def publish(
    spec: BaseStudy, preflight: Preflight, result: Result, cache: Cache, folder: Path, hardware: dict[str, Any]
) -> dict[str, pl.DataFrame]:
    """Write the artifacts of a finished run to ``folder`` (``artifacts/<name>``).

    Returns:
        the frames that were written, by table name.
    """
    assert result.analysis is not None, "artifacts need the whole plan"
    record = study_record(spec, result, cache)
    frames = exported(spec, preflight, result, cache)
    frames |= conclusions(frames, record)
    write_study(folder, record, frames, timings_record(result.plan, result.analysis, cache, hardware))
    return frames
