"""What a plan would cost here, roughly: training by timing a step, the rest by rules of thumb."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from kdpipe.config.preflight import Preflight
from kdpipe.config.sections import ArchSpec
from kdpipe.config.study import BaseStudy, StudySpec
from kdpipe.config.training import TrainingSpec
from kdpipe.engine.cache import Cache
from kdpipe.engine.stage import Stage
from kdpipe.files import canonical_json
from kdpipe.models.build import build
from kdpipe.representation.projectors import PROJECTORS

# Seconds for one probe image: what timings.json of the committed studies says, on two cores.
SECONDS_AN_IMAGE = {
    "network": 0.001,
    "embedding": 0.0005,
    "neighbours": 0.0002,
    "image-measure": 0.0002,
    "measure": 0.00002,
    "similarity": 0.0001,
    "explained": 0.00005,
    "factors": 0.0004,
    "explanation": 0.0005,
    "consensus": 0.006,
    "map-neighbours": 0.0003,
    "map-measure": 0.00003,
}


TRAINED = ("teacher", "student")


def rough_seconds(
    stages: Sequence[Stage], spec: BaseStudy, preflight: Preflight, cache: Cache, device: str
) -> dict[str, float]:
    """Estimated seconds by kind for the stages that the cache does not have."""
    todo = [stage for stage in stages if not cache.has(stage)]
    seconds: dict[str, float] = {}
    trained = [stage for stage in todo if stage.kind in TRAINED]
    steps: dict[str, float] = {}
    for stage in trained:
        assert isinstance(spec, StudySpec), "only such a study has stages that train"
        if _shape_key(stage) not in steps:
            architecture, recipe = _architecture(spec, stage), _recipe(stage)
            steps[_shape_key(stage)] = _step_seconds(architecture, recipe, preflight, device)
    for stage in todo:
        if stage.kind in TRAINED:
            each = steps[_shape_key(stage)] * stage.cost / _recipe(stage).batch_size
        else:
            drawn = PROJECTORS[stage.params["projector"]].seconds / 1000 if stage.kind == "map" else 0.0
            each = SECONDS_AN_IMAGE.get(stage.kind, drawn) * stage.cost
        seconds[stage.kind] = seconds.get(stage.kind, 0.0) + each
    if "student" in seconds:
        steps_of = {stage.batch: _recipe(stage).steps for stage in todo if stage.kind == "student"}
        assert isinstance(spec, StudySpec)
        forward = _step_seconds(spec.teacher, spec.training, preflight, device) / 3
        seconds["student"] += forward * sum(steps_of.values())
    return seconds


def _shape_key(stage: Stage) -> str:
    """Networks with the same key take the same time a step."""
    return canonical_json([stage.kind, stage.params["network"], _recipe_of(stage)["batch_size"]])


def _recipe_of(stage: Stage) -> dict[str, Any]:
    params = stage.params
    return params["network"]["training"] if stage.kind == "teacher" else params["training"]


def _architecture(spec: StudySpec, stage: Stage) -> ArchSpec:
    """The section of the study that a stage's network comes from."""
    if stage.kind == "teacher":
        return spec.teacher
    described = stage.params["network"]
    return next(student for student in spec.students if student.keyed({"checkpoint", "name"}) == described)


def _recipe(stage: Stage) -> TrainingSpec:
    return TrainingSpec.model_validate(_recipe_of(stage))


def _step_seconds(architecture: ArchSpec, recipe: TrainingSpec, preflight: Preflight, device: str) -> float:
    """Forward and backward of one batch, the best of several after a warm-up."""
    channels = preflight.data.image_shape[0]
    network = build(
        architecture,
        image_shape=preflight.data.image_shape,
        classes=len(preflight.data.class_names),
        mean=[0.5] * channels,
        std=[0.5] * channels,
        seed=0,
        weights=False,
    )
    network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = torch.rand(recipe.batch_size, *preflight.data.image_shape, device=device)
    times = []
    for _ in range(7):
        started = time.perf_counter()
        network(images).logits.sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[2:])
