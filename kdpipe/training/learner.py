"""One student or teacher while it trains: its optimiser, its history, its best step, its resume file."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdpipe.config.training import TrainingSpec
from kdpipe.data.sources.base import Split
from kdpipe.files import new_file
from kdpipe.methods import Method, Step
from kdpipe.models.network import Network
from kdpipe.seeds import derive_seed
from kdpipe.training.clock import StepClock
from kdpipe.training.evaluation import EVALUATION_BATCH, accuracy, predict
from kdpipe.training.optimizers import RunningMean, State, clip_gradients, make_optimizer, snapshot
from kdpipe.training.schedules import learning_rate
from kdpipe.training.teacher_batches import LearnerBatch, TeacherBatches


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
        recipe: its own optimiser, learning rate, schedule and decay; the group's where it is None. What a group
            must share (steps, batches, precision) is the group's in any case.
        mean: the running mean of its weights, if the recipe asks for one; gone once it has taken their place.
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
    mean: RunningMean | None = None

    @property
    def recalls(self) -> bool:
        """Whether it takes its teacher's logits from the cache."""
        return self.recipe is not None and self.recipe.teacher_cache and self.method.reads_logits_alone

    def set_up(self, recipe: TrainingSpec, device: torch.device) -> None:
        """Move to the device and make the optimiser."""
        self.recipe = recipe = self.recipe or recipe
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        modules: list[nn.Module] = [self.network]
        if self.extras is not None:
            modules.append(self.extras.to(device))
        self.optimizer = make_optimizer(recipe, modules)
        self.mean = None if recipe.ema is None else RunningMean(self.network, recipe.ema)
        self.clock = StepClock(device)
        self._sums: dict[str, Tensor] = {}
        self._since = 0
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def learn(self, shown: LearnerBatch, teacher_batches: TeacherBatches, step: int, progress: float) -> None:
        """One step of the optimiser on the sum of the method's terms."""
        assert self.recipe is not None and self.clock is not None
        device, target, clock = shown.images.device, shown.labels, self.clock
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, step)
        self.network.train()
        if self.extras is not None:
            self.extras.train()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed("step", self.stream, step))
            with torch.autocast(device.type, torch.bfloat16, enabled=teacher_batches.half):
                with clock.part("student"):
                    outputs = teacher_batches.forward(self.network, shown.images)
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
                            teacher_network=teacher_batches.teacher if self.method.needs_teacher else None,
                            label_smoothing=self.recipe.label_smoothing,
                            class_shares=shown.class_shares,
                        )
                    )
                    loss = torch.stack([term.float() for term in terms.values()]).sum()
            with clock.part("student"):
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if self.recipe.clip_norm is not None:
                    clip_gradients(self.optimizer, self.recipe.clip_norm)
                self.optimizer.step()
                if self.mean is not None:
                    self.mean.update(step)
        with torch.no_grad():
            bad = ~torch.isfinite(loss) & (self._first_bad < 0)
            self._first_bad = torch.where(bad, step, self._first_bad)
            sums = {"loss": loss, **{f"loss/{name}": term for name, term in terms.items()}}
            if self.method.views == "shared" and shown.class_shares is None:  # a mixed image has no one label
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
        with self.mean.in_place() if self.mean is not None else nullcontext():
            self.val_accuracy = accuracy(self.network, validation)
        self.history.append((step, "val_accuracy", self.val_accuracy))
        if self.val_accuracy > self.best.accuracy:
            self.best = Best(step, self.val_accuracy, self.result())

    def result(self) -> State:
        """A copy of the weights that count: their running mean, if there is one."""
        if self.mean is None:
            return snapshot(self.network)
        return {name: tensor.clone() for name, tensor in self.mean.state.items()}

    def finish(self) -> None:
        """After the last step: the running mean takes the place of the weights."""
        if self.mean is not None:
            self.network.load_state_dict(self.mean.state)
            self.mean = None

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
            **({} if self.mean is None else {"mean": self.result()}),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what :meth:`checkpoint` gave.

        Raises:
            ValueError: something is missing or does not fit; the learner is as :meth:`set_up` left it.
        """
        assert self.recipe is not None and self.clock is not None
        initial = self.checkpoint(0)
        try:
            self._take(saved)
        except Exception as error:  # torch raises many types at a state that does not fit
            self.set_up(self.recipe, self.clock.device)
            self._take({**initial, "optimizer": self.optimizer.state_dict()})
            raise ValueError(f"{type(error).__name__}: {error}") from None

    def _take(self, saved: dict[str, Any]) -> None:
        assert self.recipe is not None
        if not 0 <= saved["step"] < max(self.recipe.steps, 1):
            raise ValueError(f"step {saved['step']} of {self.recipe.steps}")
        self.network.load_state_dict(saved["network"])
        if self.extras is not None:
            self.extras.load_state_dict(saved["extras"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.mean is not None:
            self.mean.restore(saved["mean"])
        self.history = [(int(step), str(name), float(value)) for step, name, value in saved["history"]]
        best_step, best_accuracy, best_state = saved["best"]
        self.best = Best(best_step, best_accuracy, best_state)
        self.val_accuracy = saved["val_accuracy"]
        self.kept = dict(saved["kept"])
        names = self.network.state_dict().keys()
        if any(state and state.keys() != names for state in (self.best.state, *self.kept.values())):
            raise ValueError("weights of another network")


class Resume:
    """Checkpoints of unfinished training, one file a learner, gone once it has finished."""

    def __init__(self, folder: Path, names: dict[str, str]) -> None:
        self.folder, self.names = folder, names

    def _path(self, learner: str) -> Path:
        return self.folder / f"{self.names[learner]}.pt"

    def load(self, learner: str) -> dict[str, Any] | None:
        """The last checkpoint, or None; an unreadable one is empty."""
        try:
            return torch.load(self._path(learner), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception:  # torch raises many types for a damaged file
            return {}

    def save(self, learner: str, state: dict[str, Any]) -> None:
        """Keep a :meth:`Learner.checkpoint`, in the place of the last one.

        Raises:
            OSError: the disk does not take it.
        """
        with new_file(self._path(learner)) as temporary:  # another run on the same cache may train the same learner
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # a full disk, in the library's own words
                raise OSError(f"{temporary}: {str(error).partition(chr(10))[0]}") from None

    def clear(self, learner: str) -> None:
        """Forget the checkpoint of a learner that has finished."""
        self._path(learner).unlink(missing_ok=True)
