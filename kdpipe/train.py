"""Training: one teacher, or all students of one seed beside each other.

Students that share a teacher and a data seed train together: one augmented batch and one teacher
forward serve all of them. Nothing a student does depends on who trains beside it, so on a CPU it
gets the same bits alone and in any company.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdpipe.data import Batches, as_input, derive_seed
from kdpipe.lessons import Lessons, Shown, StepClock, TeacherLogits
from kdpipe.methods import Method, Step
from kdpipe.networks import Network, compiled_forward, forward
from kdpipe.sources import Split
from kdpipe.study import TrainingSpec

LOGS, CHECKPOINT_SECONDS, EVALUATION_BATCH = 50, 120.0, 500
State = dict[str, Tensor]


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


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


SCHEDULES: dict[str, Callable[[float, float], float]] = {"onecycle": onecycle, "cosine": cosine}


def learning_rate(recipe: TrainingSpec, step: int) -> float:
    """Learning rate of a step (0-based)."""
    return recipe.lr * SCHEDULES[recipe.schedule]((step + 0.5) / recipe.steps, recipe.warmup)


@dataclass
class Best:
    """The weights with the best validation accuracy so far (the earliest on ties)."""

    step: int = 0
    accuracy: float = -1.0
    state: State = field(default_factory=dict)


@dataclass
class Learner:
    """One network in training.

    Attributes:
        stream: names the learner's own randomness (dropout); independent of its companions.
        recipe: its own learning rate, schedule and decay; the group's where it is None. What a group
            must share (steps, batches, precision) is the group's in any case.
        keep_at: steps after which its weights are kept, in ``kept``.
        history: (step, quantity, value) rows.
    """

    name: str
    network: Network
    method: Method
    parameters: Any
    extras: nn.Module | None
    stream: str
    unlabelled: bool = False
    recipe: TrainingSpec | None = None
    keep_at: tuple[int, ...] = ()
    kept: dict[int, State] = field(default_factory=dict)
    clock: StepClock | None = None
    history: list[tuple[int, str, float]] = field(default_factory=list)
    best: Best = field(default_factory=Best)
    diverged_step: int | None = None
    val_accuracy: float | None = None

    @property
    def recalls(self) -> bool:
        """Whether it takes its teacher's logits from the cache."""
        return self.recipe is not None and self.recipe.teacher_cache and self.method.reads_logits_alone

    def prepare(self, recipe: TrainingSpec, device: torch.device) -> None:
        """Move to the device and make the optimiser; weight decay spares norms, biases and scalars."""
        self.recipe = recipe = self.recipe or recipe
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        modules: list[nn.Module] = [self.network]
        if self.extras is not None:
            modules.append(self.extras.to(device))
        parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
        self.clock = StepClock(device)
        self._sums: dict[str, Tensor] = {}
        self._since = 0
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def learn(self, shown: Shown, lessons: Lessons, step: int, progress: float) -> None:
        """One step of SGD on the sum of the method's terms."""
        assert self.recipe is not None and self.clock is not None
        device, target, clock = shown.images.device, shown.labels, self.clock
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, step)
        self.network.train()
        if self.extras is not None:
            self.extras.train()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed("step", self.stream, step))
            with torch.autocast(device.type, torch.bfloat16, enabled=lessons.half):
                with clock.part("student"):
                    outputs = lessons.forward(self.network, shown.images)
                with clock.part("loss"):
                    terms = self.method.terms(
                        Step(
                            student=outputs,
                            teacher=shown.teacher,
                            target=target,
                            index=shown.index,
                            progress=progress,
                            parameters=self.parameters,
                            extras=self.extras,
                            student_network=self.network,
                            teacher_network=lessons.teacher if self.method.needs_teacher else None,
                        )
                    )
                    loss = torch.stack([term.float() for term in terms.values()]).sum()
            with clock.part("student"):
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
        with torch.no_grad():
            bad = ~torch.isfinite(loss) & (self._first_bad < 0)
            self._first_bad = torch.where(bad, step, self._first_bad)
            sums = {"loss": loss, **{f"loss/{name}": term for name, term in terms.items()}}
            if self.method.views == "shared":  # a mixed image has no one label
                sums["train_accuracy"] = (outputs.logits[: len(target)].argmax(1) == target).float().mean()
            for name, value in sums.items():
                self._sums[name] = self._sums.get(name, torch.zeros((), device=device)) + value.detach().float()
            self._since += 1

    def log(self, step: int) -> None:
        """Add the means since the last log to the history, and notice divergence."""
        assert self.recipe is not None
        first_bad = int(self._first_bad)
        if first_bad >= 0:
            self.diverged_step = first_bad + 1
            return
        self.history += [(step, name, float(value) / self._since) for name, value in self._sums.items()]
        self.history.append((step, "lr", learning_rate(self.recipe, step - 1)))
        self._sums, self._since = {}, 0

    def check_end(self, validation: Split, step: int, half: bool) -> None:
        """Notice a network that the last step spoiled: no loss comes after it that would tell."""
        if not torch.isfinite(predict(self.network, validation.images[:EVALUATION_BATCH], half)).all():
            self.diverged_step = step

    def evaluate(self, validation: Split, step: int) -> None:
        """Validation accuracy in float32, as the test accuracy is; keep the weights if it is the best."""
        self.val_accuracy = accuracy(self.network, validation)
        self.history.append((step, "val_accuracy", self.val_accuracy))
        if self.val_accuracy > self.best.accuracy:
            self.best = Best(step, self.val_accuracy, snapshot(self.network))

    def checkpoint(self, step: int) -> dict[str, Any]:
        """All that the rest of the training depends on, after ``step`` steps; taken right after a log."""
        return {
            "step": step,
            "network": snapshot(self.network),
            "extras": None if self.extras is None else snapshot(self.extras),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": (self.best.step, self.best.accuracy, self.best.state),
            "val_accuracy": self.val_accuracy,
            "kept": self.kept,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"], strict=False)
        if self.extras is not None:
            self.extras.load_state_dict(saved["extras"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.history = [(int(step), str(name), float(value)) for step, name, value in saved["history"]]
        self.best = Best(*saved["best"])
        self.val_accuracy = saved["val_accuracy"]
        self.kept = saved["kept"]


class Resume:
    """Checkpoints of unfinished training, one file a learner, gone once it has finished."""

    def __init__(self, folder: Path, names: dict[str, str]) -> None:
        self.folder, self.names = folder, names

    def _path(self, learner: str) -> Path:
        return self.folder / f"{self.names[learner]}.pt"

    def load(self, learner: str) -> dict[str, Any] | None:
        """The last checkpoint, or None; an unreadable one counts as none."""
        try:
            return torch.load(self._path(learner), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception:  # torch raises many types for a damaged file, and training from step 0 mends all
            return None

    def save(self, learner: str, state: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # A name of its own, as another run on the same cache may train the same learner.
        temporary = self._path(learner).with_suffix(f".{os.getpid()}.tmp")
        torch.save(state, temporary)
        os.replace(temporary, self._path(learner))

    def clear(self, learner: str) -> None:
        self._path(learner).unlink(missing_ok=True)


def snapshot(module: nn.Module) -> State:
    """A copy of a module's state that further training does not change."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def use_half(recipe: TrainingSpec, device: torch.device) -> bool:
    """Whether matrix products run in bfloat16: on request, or by default on CUDA."""
    return recipe.precision == "bfloat16" or (recipe.precision == "auto" and device.type == "cuda")


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
        recipe: what the group shares; learners may have their own learning rate, schedule and decay.
        advance: told how many steps were done, and a note for people.

    Returns:
        seconds a step that went into data and teacher; what went into each student is on its ``clock``.
    """
    starts: dict[int, list[Learner]] = {}
    for learner in learners:
        learner.prepare(recipe, device)
        saved = resume.load(learner.name) if resume else None
        if saved is not None:
            learner.restore(saved)
        starts.setdefault(saved["step"] if saved else 0, []).append(learner)
    half, clock = use_half(recipe, device), StepClock(device)
    cache = None
    if teacher is not None:
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        teacher.to(device=device, memory_format=layout).eval().requires_grad_(False)  # type: ignore[call-overload]
        if any(learner.recalls for learner in learners):
            cache = TeacherLogits(teacher, labelled, half)
    (views,) = {learner.method.views for learner in learners}
    through = compiled_forward() if recipe.compile else forward
    lessons = Lessons(labelled, unlabelled, teacher, views, half, recipe.channels_last, clock, through, cache)
    for start, group in sorted(starts.items()):
        advance(start * len(group), "resumed" if start else "")
        _train_from(start, group, lessons, validation, recipe, resume, advance)
    return clock.a_step


def _train_from(
    start: int,
    group: list[Learner],
    lessons: Lessons,
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
        lesson = lessons.at(step)
        for learner in alive:
            assert learner.clock is not None
            learner.clock.start(step)
            shown = lesson.shown(learner.method, learner.unlabelled, learner.recalls)
            learner.learn(shown, lessons, step, step / recipe.steps)
        done = step + 1
        last = done == recipe.steps
        if done % every == 0 or last:
            for learner in alive:
                learner.log(done)
                if last and learner.diverged_step is None:
                    learner.check_end(validation, done, lessons.half)
            alive = [learner for learner in alive if learner.diverged_step is None]
        if done % evaluate_every == 0 or last:
            for learner in alive:
                learner.evaluate(validation, done)
        for learner in alive:
            if done in learner.keep_at:
                learner.kept[done] = snapshot(learner.network)
        if resume and done % every == 0 and not last and time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            for learner in alive:
                resume.save(learner.name, learner.checkpoint(done))
            saved_at = time.monotonic()
        advance(len(group), _note(alive))


def _note(alive: list[Learner]) -> str:
    known = [f"{learner.val_accuracy:.1%}" for learner in alive if learner.val_accuracy is not None]
    return f"validation {', '.join(known)}" if known else ""


@torch.no_grad()
def predict(network: Network, images: np.ndarray, half: bool = False) -> Tensor:
    """Logits (N, K) float32 on the CPU for uint8 images (N, C, H, W), in eval mode."""
    network.eval()
    device = network.mean.device
    parts = []
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = as_input(images[start : start + EVALUATION_BATCH], device)
            parts.append(network(batch.to(memory_format=torch.channels_last)).logits.cpu())
    return torch.cat(parts)


def accuracy(network: Network, split: Split, half: bool = False) -> float:
    """Share of a split that the network gets right."""
    predicted = predict(network, split.images, half).argmax(1).numpy()
    return float((predicted == split.labels).mean())
