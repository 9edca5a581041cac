"""Names of the files that stages leave for each other, and tasks that read the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from kdpipe.engine.stage import Task

RESULT, LAST, SELECTED, HISTORY = "result.json", "last.safetensors", "selected.safetensors", "history.parquet"


HISTORY_SCHEMA = {"step": pl.Int32, "quantity": pl.String, "value": pl.Float32}


def kept_weights(step: int) -> str:
    """File name of the weights after a step on the way."""
    return f"step-{step:06d}.safetensors"


def by_input(tasks: Sequence[Task], *names: str) -> list[list[Task]]:
    """The tasks in groups that share these inputs, so that each group reads them once."""
    groups: dict[tuple[str, ...], list[Task]] = {}
    for task in tasks:
        groups.setdefault(tuple(task.stage.inputs[name].key for name in names), []).append(task)
    return list(groups.values())
