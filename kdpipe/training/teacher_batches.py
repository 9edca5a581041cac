"""TeacherBatches: what a training step shows, and what the teacher says of it, each made once for all who ask.

The labelled and the unlabelled part go through the teacher apart, as its output must not depend on
whether the other part is there: kernels may round differently for another batch size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from kdpipe.data.batches import Batch, Batches
from kdpipe.methods import Method
from kdpipe.models.network import Forward, Network, Outputs, forward
from kdpipe.seeds import derive_seed
from kdpipe.training.clock import StepClock

CACHE_BATCH = 512


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
class TeacherBatches:
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

    def at(self, step: int) -> TeacherBatch:
        """What step ``step`` (from 0) shows."""
        self.clock.start(step)
        return TeacherBatch(self, step)


@dataclass(frozen=True)
class LearnerBatch:
    """A batch as one learner gets it; ``labels`` are those of the first rows, ``teacher`` what it is taught.

    ``class_shares`` are those of the first rows too, where images are mixed.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    teacher: Outputs | None
    class_shares: Tensor | None


class TeacherBatch:
    """One step: batches and the teacher's outputs on them, made when they are first asked for."""

    def __init__(self, teacher_batches: TeacherBatches, step: int) -> None:
        self._of, self._step = teacher_batches, step

    def shown(self, method: Method, unlabelled: bool, recall: bool = False) -> LearnerBatch:
        """What a learner of ``method`` sees, with or without the unlabelled part.

        Args:
            recall: take the teacher's logits from the cache, for methods that read nothing else.
        """
        first = self._labelled
        taught = None
        if method.needs_teacher:
            recall = recall and method.reads_logits_alone and self._of.cache is not None
            taught = self._recalled if recall else self._said
        if not unlabelled:
            return LearnerBatch(first.images, first.labels, first.positions, taught, first.class_shares)
        more = self._more
        if taught is not None:
            taught = taught.joined(self._said_more.logits_alone() if not taught.maps else self._said_more)
        labels, shares = first.labels, first.class_shares
        if method.reveals_labels:
            labels = torch.cat([labels, more.labels])
            if shares is not None and more.class_shares is not None:
                shares = torch.cat([shares, more.class_shares])
        index = torch.cat([first.positions, more.positions + len(self._of.labelled.labels)])
        return LearnerBatch(torch.cat([first.images, more.images]), labels, index, taught, shares)

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
            return replace(batch, images=images)

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
