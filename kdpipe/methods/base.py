"""What a distillation method is: one pure loss, and one small record that says what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from kdpipe.models.network import Network, Outputs
from kdpipe.models.profile import Profile

Terms = dict[str, Tensor]
Need = Literal["logits", "maps", "preactivations", "pooled", "classifier", "index", "second-order gradients"]
Teacher = Literal["study", "untrained", "own-budget", "self"]


class Parameters(BaseModel):
    """A method's parameters with their published defaults; unknown ones are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Pair:
    """A student and its teacher as shapes: what extras are built from and refusals rest on.

    Attributes:
        classes: number of classes.
        labels: class of each training image that the student may see, -1 where it has no label;
            an image's place here is its ``index`` in a :class:`Step`. Empty while only shapes are known.
        batch_size: images in a training step, unlabelled ones too; 0 while it is not known.
    """

    student: Profile
    teacher: Profile
    classes: int
    labels: tuple[int, ...] = ()
    batch_size: int = 0


@dataclass(frozen=True)
class Step:
    """All a loss may look at in one training step.

    Attributes:
        student, teacher: outputs on one and the same views; the teacher's carry no gradient.
        target: labels (L,) of the first L rows; the rest of the batch has none.
        index: (B,) which training image each row is, as a place in ``Pair.labels``.
        progress: share of the training that is done, in [0, 1).
        extras: the method's own trainable modules, if it has any.
        student_network, teacher_network: for methods that ask more of them than outputs.
        label_smoothing: share of each label that is spread over all classes.
        class_shares: (L, K) how much of each class is in the first L rows, where images are mixed.
    """

    student: Outputs
    teacher: Outputs | None
    target: Tensor
    index: Tensor
    progress: float
    parameters: Any
    extras: nn.Module | None
    student_network: Network
    teacher_network: Network | None
    label_smoothing: float = 0.0
    class_shares: Tensor | None = None

    @property
    def of_teacher(self) -> Outputs:
        """The teacher's outputs, for methods that have one."""
        assert self.teacher is not None, "the registry says that this method needs no teacher"
        return self.teacher

    @property
    def labelled(self) -> Tensor:
        """The student's logits (L, K) of the labelled rows."""
        return self.student.logits[: len(self.target)]

    @property
    def cross_entropy(self) -> Tensor:
        """The plain student's loss."""
        return self.cross_entropy_of(self.labelled)

    def cross_entropy_of(self, logits: Tensor) -> Tensor:
        """Cross-entropy of logits (L, K) of the labelled rows with labels, mixed and smoothed as the training asks."""
        target = self.target if self.class_shares is None else self.class_shares
        return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)

    def ramp(self, warmup: float) -> float:
        """A weight that rises linearly to 1 over the first ``warmup`` of the training."""
        return 1.0 if warmup == 0 else min(self.progress / warmup, 1.0)


def _no_extras(pair: Pair, parameters: Any) -> nn.Module | None:
    return None


def _fits(pair: Pair, parameters: Any) -> str | None:
    return None


def _as_it_is(student: Network, teacher: Network, pair: Pair, parameters: Any) -> None:
    return None


@dataclass(frozen=True)
class Method:
    """A way to train a student.

    Attributes:
        role: what its networks are in a study.
        terms: weighted, named terms of the loss, whose sum is minimised and which reach the history.
        needs: what the terms read of the two networks and of the data.
        teacher: which teacher it learns from; None for none.
        extras: builds trainable modules from shapes; they are dropped after training.
        refuse: says why a pair cannot be served, or None. Asked before ``extras``.
        adapt: changes the student before training, for good.
        views: how the shared views are changed for both networks: "mixup" mixes pairs of images.
        uses_labels: the teacher's term needs labels, so unlabelled and mixed images are of no use to it.
        reveals_labels: unlabelled images come with their labels after all.
        own_initialisation: the student starts from other weights than its companions of the seed.
        trains_longer: the steps are multiplied by what the teacher's passes would have cost.
        explains: how this control can explain a distilled student's gain away: ``instead``, if what it does in the
            place of distillation gains as much; ``without``, if nothing is gained once what it withholds is gone.
        control_of: the method of which it is this one with one thing changed; None if it stands against any.
        differs: where this form departs from the paper or from published code, for people.
        version: raised when the same training would end elsewhere; only its own students are trained again.
    """

    name: str
    title: str
    role: Literal["plain", "distilled", "control"]
    family: Literal["control", "logits", "features", "relations", "contrastive", "explanation", "consistency"]
    terms: Callable[[Step], Terms]
    formula: str
    summary: str
    citation: str
    needs: tuple[Need, ...] = ("logits",)
    teacher: Teacher | None = "study"
    parameters: type[Parameters] = Parameters
    extras: Callable[[Pair, Any], nn.Module | None] = _no_extras
    refuse: Callable[[Pair, Any], str | None] = _fits
    adapt: Callable[[Network, Network, Pair, Any], None] = _as_it_is
    views: Literal["shared", "mixup"] = "shared"
    uses_labels: bool = False
    reveals_labels: bool = False
    own_initialisation: bool = False
    trains_longer: bool = False
    explains: Literal["instead", "without"] | None = None
    control_of: str | None = None
    differs: str = ""
    version: int = 1

    @property
    def needs_teacher(self) -> bool:
        """Whether it learns from any teacher."""
        return self.teacher is not None

    @property
    def is_null(self) -> bool:
        """Whether it is plain again from other initial weights: what chance alone moves."""
        return self.own_initialisation and not self.needs_teacher

    @property
    def reads_logits_alone(self) -> bool:
        """Whether logits of a known view are all it asks of its teacher; a mixed image is no known view."""
        return self.needs_teacher and self.needs == ("logits",) and self.views == "shared"

    def resolved(self, parameters: Mapping[str, Any]) -> Parameters:
        """Typed parameters, the defaults filled in."""
        return self.parameters.model_validate(dict(parameters))
