"""What a plan would cost here, roughly: training by timing a step, the rest by rules of thumb."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from kdpipe.checks import Facts
from kdpipe.engine import Cache, Stage
from kdpipe.networks import build
from kdpipe.study import ArchSpec, StudySpec, TrainingSpec

# Seconds for one probe image: what timings.json of the committed studies says, on two cores.
SECONDS_AN_IMAGE = {
    "tsne": 0.004,
    "ivis": 0.006,
    "pca": 0.0003,
    "embedding": 0.0005,
    "measure": 0.0007,
    "similarity": 0.0006,
}


def rough_seconds(
    stages: Sequence[Stage], spec: StudySpec, facts: Facts, cache: Cache, device: str
) -> dict[str, float]:
    """Estimated seconds by kind for the stages that the cache does not have."""
    todo = [stage for stage in stages if not cache.has(stage)]
    seconds: dict[str, float] = {}
    steps = {
        stage.kind: _step_seconds(_architecture(spec, stage), _recipe(spec, stage), facts, device)
        for stage in {stage.kind: stage for stage in todo if stage.kind in {"teacher", "student"}}.values()
    }
    for stage in todo:
        if stage.kind in steps:
            each = steps[stage.kind] * stage.cost / _recipe(spec, stage).batch_size
        else:
            what = stage.params.get("projector", stage.kind)
            each = SECONDS_AN_IMAGE.get(what, 0.0) * stage.cost
        seconds[stage.kind] = seconds.get(stage.kind, 0.0) + each
    if "student" in steps:
        groups = len({stage.batch for stage in todo if stage.kind == "student"})
        forward = _step_seconds(spec.teacher, spec.training, facts, device) / 3
        seconds["student"] += groups * forward * spec.training.steps
    return seconds


def _architecture(spec: StudySpec, stage: Stage) -> ArchSpec:
    return spec.teacher if stage.kind == "teacher" else spec.students[0]


def _recipe(spec: StudySpec, stage: Stage) -> TrainingSpec:
    return spec.teacher.training if stage.kind == "teacher" else spec.training


def _step_seconds(architecture: ArchSpec, recipe: TrainingSpec, facts: Facts, device: str) -> float:
    """Forward and backward of one batch, the best of several after a warm-up."""
    channels = facts.data.image_shape[0]
    network = build(
        architecture,
        image_shape=facts.data.image_shape,
        classes=len(facts.data.class_names),
        mean=[0.5] * channels,
        std=[0.5] * channels,
        seed=0,
        weights=False,
    )
    network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = torch.rand(recipe.batch_size, *facts.data.image_shape, device=device)
    times = []
    for _ in range(7):
        started = time.perf_counter()
        network(images).logits.sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[2:])
