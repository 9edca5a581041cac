"""Names of the files that stages leave for each other."""

from __future__ import annotations

import polars as pl

RESULT, LAST, SELECTED, HISTORY = "result.json", "last.safetensors", "selected.safetensors", "history.parquet"


HISTORY_SCHEMA = {"step": pl.Int32, "quantity": pl.String, "value": pl.Float32}


def kept_weights(step: int) -> str:
    """File name of the weights after a step on the way."""
    return f"step-{step:06d}.safetensors"
