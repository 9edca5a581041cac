"""Training: one teacher, or all students of one seed together.

Students that share a teacher and a data seed train together: one augmented batch and one teacher
forward serve all of them. Nothing a student does depends on who trains with it, so on a CPU it
gets the same bits alone and in any company.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from kdpipe.config.training import TrainingSpec
from kdpipe.data.batches import Batches
from kdpipe.data.sources.base import Split
from kdpipe.models.network import Network, compiled_forward, forward
from kdpipe.training.clock import StepClock
from kdpipe.training.evaluation import use_half
from kdpipe.training.learner import Learner, Resume
from kdpipe.training.teacher_batches import TeacherBatches, TeacherLogits

LOGS = 50


CHECKPOINT_SECONDS = 120.0


def train(
    learners: Sequence[Learner],
    *,
    teacher: Network | None,
    labelled: Batches,
    unlabelled: Batches | None,
    validation: Split,
    recipe: TrainingSpec,
    device: torch.device,
    resume: Resume | None = None,
    advance: Callable[[int, str], None] = lambda steps, note: None,
) -> dict[str, float]:
    """Train all learners on one stream of batches, in place.

    A learner whose loss is no longer finite is stopped and marked (``diverged_step``); the others go
    on. Learners that resume from different steps are taken forward in turn, so that each meets every
    step once.

    Args:
        recipe: what the group shares; learners may have their own optimiser, learning rate, schedule and decay.
        advance: told how many steps were done, and a note for people.

    Returns:
        seconds a step that went into data and teacher; what went into each student is on its ``clock``.
    """
    starts: dict[int, list[Learner]] = {}
    for learner in learners:
        learner.set_up(recipe, device)
        start = _resumed(learner, resume, advance) if resume else 0
        starts.setdefault(start, []).append(learner)
    half, clock = use_half(recipe, device), StepClock(device)
    cache = None
    if teacher is not None:
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        teacher.to(device=device, memory_format=layout).eval().requires_grad_(False)  # type: ignore[call-overload]
        if labelled.shows_known_views and any(learner.recalls for learner in learners):
            cache = TeacherLogits(teacher, labelled, half)
    _keep_preactivations(learners, teacher, validation)
    (views,) = {learner.method.views for learner in learners}
    through = compiled_forward() if recipe.compile else forward
    teacher_batches = TeacherBatches(
        labelled, unlabelled, teacher, views, half, recipe.channels_last, clock, through, cache
    )
    for start, group in sorted(starts.items()):
        advance(start * len(group), "resumed" if start else "")
        _train_from(start, group, teacher_batches, validation, recipe, resume, advance)
    return clock.a_step


def _keep_preactivations(learners: Sequence[Learner], teacher: Network | None, validation: Split) -> None:
    readers = [learner.network for learner in learners if "preactivations" in learner.method.needs]
    channels, height, width = validation.images.shape[1:]
    for network in [*readers, *([teacher] if teacher is not None and readers else [])]:
        network.keep_preactivations((channels, height, width))


def _resumed(learner: Learner, resume: Resume, advance: Callable[[int, str], None]) -> int:
    """The step that a learner goes on from: 0 where nothing was saved, or nothing that it can go on from."""
    saved = resume.load(learner.name)
    if saved is None:
        return 0
    try:
        learner.restore(saved)
    except ValueError:
        resume.clear(learner.name)
        advance(0, f"{learner.name} from the start, as its resume file is damaged")
        return 0
    return int(saved["step"])


def _train_from(
    start: int,
    group: list[Learner],
    teacher_batches: TeacherBatches,
    validation: Split,
    recipe: TrainingSpec,
    resume: Resume | None,
    advance: Callable[[int, str], None],
) -> None:
    if recipe.steps == 0:
        for learner in group:
            learner.evaluate(validation, 0)
    every, evaluate_every = max(recipe.steps // LOGS, 1), max(recipe.steps // recipe.evaluations, 1)
    saved_at = time.monotonic()
    for step in range(start, recipe.steps):
        alive = [learner for learner in group if learner.diverged_step is None]
        if not alive:
            advance((recipe.steps - step) * len(group), "")
            return
        teacher_batch = teacher_batches.at(step)
        for learner in alive:
            assert learner.clock is not None
            learner.clock.start(step)
            shown = teacher_batch.shown(learner.method, learner.unlabelled, learner.recalls)
            learner.learn(shown, teacher_batches, step, step / recipe.steps)
        done = step + 1
        last = done == recipe.steps
        if done % every == 0 or last:
            for learner in alive:
                learner.log(done)
                if last and learner.diverged_step is None:
                    learner.finish()
                    learner.check_end(validation, done, teacher_batches.half)
            alive = [learner for learner in alive if learner.diverged_step is None]
        if done % evaluate_every == 0 or last:
            for learner in alive:
                learner.evaluate(validation, done)
        for learner in alive:
            if done in learner.keep_at:
                learner.kept[done] = learner.result()
        if resume and done % every == 0 and not last and time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            for learner in alive:
                resume.save(learner.name, learner.checkpoint(done))
            saved_at = time.monotonic()
        advance(len(group), _note(alive))


def _note(alive: list[Learner]) -> str:
    known = [f"{learner.val_accuracy:.1%}" for learner in alive if learner.val_accuracy is not None]
    return f"validation {', '.join(known)}" if known else ""
