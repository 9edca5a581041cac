"""Learning rates over the steps of a training.

Functions of the step alone, unlike torch's schedulers, so that a resumed training has no state of theirs to restore.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from kdpipe.config.training import TrainingSpec


def onecycle(progress: float, warmup: float) -> float:
    """One cycle (Smith & Topin, 2019): cosine up from 1/25 over ``warmup``, then cosine down to 1e-4."""
    if progress < warmup:
        return _cosine(1 / 25, 1.0, progress / warmup)
    return _cosine(1.0, 1e-4, (progress - warmup) / (1.0 - warmup))


def cosine(progress: float, warmup: float) -> float:
    """Linear warm-up from zero, then half a cosine to zero (Loshchilov & Hutter, 2017)."""
    if progress < warmup:
        return progress / warmup
    return _cosine(1.0, 0.0, (progress - warmup) / (1.0 - warmup))


def step_decay(progress: float, warmup: float, milestones: Sequence[float], decay: float) -> float:
    """Linear warm-up from zero, then 1, times ``decay`` from each milestone on (He et al., 2016)."""
    if progress < warmup:
        return progress / warmup
    return decay ** sum(progress >= milestone for milestone in milestones)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


SCHEDULES: dict[str, Callable[[float, float], float]] = {"onecycle": onecycle, "cosine": cosine}


def learning_rate(recipe: TrainingSpec, step: int) -> float:
    """Learning rate of a step (0-based)."""
    progress = (step + 0.5) / recipe.steps
    if recipe.schedule == "step":
        return recipe.lr * step_decay(progress, recipe.warmup, recipe.milestones, recipe.decay)
    return recipe.lr * SCHEDULES[recipe.schedule](progress, recipe.warmup)
