"""The tables of networks and of how they were trained."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from kdpipe.artifacts.schema import TABLES
from kdpipe.engine.cache import Cache
from kdpipe.pipeline.planned import NetworksPlan, Planned
from kdpipe.pipeline.stages.outputs import HISTORY, RESULT
from kdpipe.vocabulary import budget_id


def networks_table(plan: NetworksPlan, cache: Cache) -> pl.DataFrame:
    rows = []
    for planned in plan.networks:
        if not cache.has(planned.stage):
            continue
        result = json.loads((cache.path(planned.stage) / RESULT).read_text())
        numbers = {key: value for key, value in result.items() if key in TABLES["networks"].columns}
        if planned.checkpoint is not None:
            numbers |= {name: None for name in numbers if name.startswith("selected_")}
            numbers |= result.get("kept", {}).get(str(planned.checkpoint), {})
        rows.append({**_identity(planned), **numbers})
    columns = TABLES["networks"].schema
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=columns)


def _identity(planned: Planned) -> dict[str, Any]:
    taught, step = planned.teacher, planned.checkpoint
    return {
        "method_parameters": "{}",
        "training": "{}",
        "unlabelled": False,
        **planned.described,
        "network_id": planned.network_id,
        "role": planned.role,
        "student": planned.student,
        "method_label": planned.method or planned.described["method"],
        "teacher_id": taught.network_id if taught else None,
        "teacher_label_fraction": taught.label_fraction if taught else None,
        "budget_id": budget_id(planned.label_fraction),
        "label_fraction": planned.label_fraction,
        "seed": planned.seed,
        "init_seed": planned.init_seed,
        "data_seed": planned.seed,
        "label_seed": planned.seed,
        "checkpoint_of": planned.checkpoint_of,
        "checkpoint_step": planned.steps if step is None else step,
        "mapped": planned.mapped,
    }


def history_table(plan: NetworksPlan, cache: Cache) -> pl.DataFrame:
    frames = [
        pl.read_parquet(cache.path(planned.stage) / HISTORY).with_columns(network_id=pl.lit(planned.network_id))
        for planned in plan.networks
        if planned.checkpoint is None and cache.has(planned.stage)
    ]
    return pl.concat(frames)
