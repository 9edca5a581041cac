"""The tables of networks and of how they were trained."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from kdpipe.artifacts.schema import TABLES
from kdpipe.config.study import StudySpec
from kdpipe.engine.cache import Cache
from kdpipe.files import canonical_json
from kdpipe.methods import METHODS
from kdpipe.models.origins import origin_of
from kdpipe.pipeline.stages.outputs import HISTORY, RESULT
from kdpipe.pipeline.training_plan import Planned, Training
from kdpipe.vocabulary import PIXELS, SUPERVISED_TEACHER, TEACHER_ARCHITECTURE, UNTRAINED_NETWORK, budget_id


def networks_table(spec: StudySpec, training: Training, cache: Cache) -> pl.DataFrame:
    rows = []
    for planned in training.networks:
        if not cache.has(planned.stage):
            continue
        result = json.loads((cache.path(planned.stage) / RESULT).read_text())
        numbers = {key: value for key, value in result.items() if key in TABLES["networks"].columns}
        if planned.checkpoint is not None:
            numbers |= {name: None for name in numbers if name.startswith("selected_")}
            numbers |= result.get("kept", {}).get(str(planned.checkpoint), {})
        rows.append({**_identity(spec, planned), **numbers})
    columns = TABLES["networks"].schema
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=columns)


def _identity(spec: StudySpec, planned: Planned) -> dict[str, Any]:
    if planned.network_id == PIXELS:
        return _pixels_identity(planned)
    architecture = planned.student or spec.teacher
    method = planned.method
    record = METHODS[method.method] if method else None
    taught, step = planned.teacher, planned.checkpoint
    supervised = SUPERVISED_TEACHER if planned.label_fraction else UNTRAINED_NETWORK
    return {
        "network_id": planned.network_id,
        "role": planned.role,
        "student": planned.student.name if planned.student else TEACHER_ARCHITECTURE,
        "arch": origin_of(architecture),
        "arch_arguments": canonical_json(
            {"arguments": architecture.arguments, "stem": architecture.stem, "stem_stride": architecture.stem_stride}
        ),
        "method": method.method if method else supervised,
        "method_label": method.name if method else supervised,
        "method_parameters": canonical_json(
            record.resolved(method.parameters).model_dump(mode="json") if record and method else {}
        ),
        "training": canonical_json(method.training if method else {}),
        "teacher_id": taught.network_id if taught else None,
        "teacher_label_fraction": taught.label_fraction if taught else None,
        "budget_id": budget_id(planned.label_fraction),
        "label_fraction": planned.label_fraction,
        "unlabelled": method.unlabelled if method else False,
        "seed": planned.seed,
        "init_seed": planned.init_seed,
        "data_seed": planned.seed,
        "label_seed": planned.seed,
        "checkpoint_of": planned.checkpoint_of,
        "checkpoint_step": planned.recipe.steps if step is None else step,
        "mapped": planned.mapped,
    }


def _pixels_identity(planned: Planned) -> dict[str, Any]:
    """The raw images: no architecture, no training, no answers."""
    none = dict.fromkeys(("arch", "student", "method", "method_label", "network_id"), PIXELS)
    nothing = dict.fromkeys(("arch_arguments", "method_parameters", "training"), "{}")
    zero = dict.fromkeys(("label_fraction", "seed", "init_seed", "data_seed", "label_seed", "checkpoint_step"), 0)
    return {
        **none,
        **nothing,
        **zero,
        "role": planned.role,
        "budget_id": budget_id(0),
        "unlabelled": False,
        "mapped": False,
    }


def history_table(training: Training, cache: Cache) -> pl.DataFrame:
    frames = [
        pl.read_parquet(cache.path(planned.stage) / HISTORY).with_columns(network_id=pl.lit(planned.network_id))
        for planned in training.networks
        if planned.checkpoint is None and cache.has(planned.stage)
    ]
    return pl.concat(frames)
