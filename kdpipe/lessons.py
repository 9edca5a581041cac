"""Lessons: what a training step shows, and what the teacher says of it, each made once for all who ask.

The labelled and the unlabelled part go through the teacher apart, as its output must not depend on
whether the other part is there: kernels may round differently for another batch size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from kdpipe.data import Batch, Batches, derive_seed
from kdpipe.methods import Method
from kdpipe.networks import Forward, Network, Outputs, forward

CACHE_BATCH = 512


@dataclass
class StepClock:
    """Seconds by part of the training (data, teacher, student, loss), from every tenth step.

    Only some steps are timed, because on a GPU the clock has to wait for the device.
    """

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    timing: bool = False

    def start(self, step: int) -> None:
        self.timing = step % 10 == 5
        self.steps += self.timing

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if not self.timing:
            yield
            return
        started = self._now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - started

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @property
    def a_step(self) -> dict[str, float]:
        """Seconds a step by part; empty if nothing was timed."""
        return {name: seconds / self.steps for name, seconds in self.seconds.items()} if self.steps else {}


def frozen(teacher: Network, images: Tensor, half: bool, through: Forward = forward) -> Outputs:
    """What a teacher says of images, without gradients."""
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        return through(teacher, images)


class TeacherLogits:
    """The teacher's logits (views, images, K) for every view of every labelled image.

    Right only because the view is part of the address; pays where there are few images.
    """

    def __init__(self, teacher: Network, labelled: Batches, half: bool) -> None:
        images = torch.arange(len(labelled.labels)).split(CACHE_BATCH)
        views = [
            torch.cat([frozen(teacher, labelled.render(part, view), half).logits for part in images])
            for view in range(labelled.policy.views)
        ]
        self.logits = torch.stack(views)

    def __call__(self, batch: Batch) -> Tensor:
        """(B, K) float32."""
        return self.logits[batch.views, batch.positions]


@dataclass(frozen=True)
class Lessons:
    """Where a group of students learns from: two streams, one teacher, one way of changing views."""

    labelled: Batches
    unlabelled: Batches | None
    teacher: Network | None
    views: str
    half: bool
    channels_last: bool
    clock: StepClock
    forward: Forward = forward
    cache: TeacherLogits | None = None

    def at(self, step: int) -> Lesson:
        self.clock.start(step)
        return Lesson(self, step)


@dataclass(frozen=True)
class Shown:
    """A batch as one learner gets it; ``labels`` are those of the first rows, ``teacher`` what it is taught."""

    images: Tensor
    labels: Tensor
    index: Tensor
    teacher: Outputs | None


class Lesson:
    """One step: batches and the teacher's outputs on them, made when they are first asked for."""

    def __init__(self, lessons: Lessons, step: int) -> None:
        self._of, self._step = lessons, step

    def shown(self, method: Method, unlabelled: bool, recall: bool = False) -> Shown:
        """What a learner of ``method`` sees, with or without the unlabelled part.

        Args:
            recall: take the teacher's logits from the cache, for methods that read nothing else.
        """
        first = self._labelled
        taught = None
        if method.needs_teacher:
            taught = self._recalled if recall and method.reads_logits_alone else self._said
        if not unlabelled:
            return Shown(first.images, first.labels, first.positions, taught)
        more = self._more
        if taught is not None:
            taught = taught.joined(self._said_more.logits_alone() if not taught.maps else self._said_more)
        labels = torch.cat([first.labels, more.labels]) if method.reveals_labels else first.labels
        index = torch.cat([first.positions, more.positions + len(self._of.labelled.labels)])
        return Shown(torch.cat([first.images, more.images]), labels, index, taught)

    @cached_property
    def _labelled(self) -> Batch:
        return self._batch(self._of.labelled)

    @cached_property
    def _more(self) -> Batch:
        assert self._of.unlabelled is not None, "a learner asks for unlabelled images that the group has not"
        return self._batch(self._of.unlabelled)

    def _batch(self, stream: Batches) -> Batch:
        with self._of.clock.part("data"):
            batch = stream(self._step)
            images = batch.images if self._of.channels_last else batch.images.contiguous()
            if self._of.views == "mixup":
                images = mixup(images, derive_seed("mixup", stream.stream, stream.seed, self._step))
            return Batch(images, batch.labels, batch.positions, batch.views)

    @cached_property
    def _said(self) -> Outputs:
        return self._ask(self._labelled)

    @cached_property
    def _said_more(self) -> Outputs:
        return self._ask(self._more)

    @cached_property
    def _recalled(self) -> Outputs:
        assert self._of.cache is not None
        logits = self._of.cache(self._labelled)
        return Outputs(logits, [], logits, logits).logits_alone()

    def _ask(self, batch: Batch) -> Outputs:
        assert self._of.teacher is not None, "a learner asks for a teacher that the group has not"
        with self._of.clock.part("teacher"):
            return frozen(self._of.teacher, batch.images, self._of.half, self._of.forward)


def mixup(images: Tensor, seed: int) -> Tensor:
    """Each image mixed with the next of the batch, by a share drawn uniformly from [0, 1].

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018, with Beta(1, 1), drawn for each image.
    """
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device)
    return share * images + (1 - share) * images.roll(1, 0)
