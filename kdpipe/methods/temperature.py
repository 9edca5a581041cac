"""Distillation at a temperature that is learned: the student's adversary, which raises what the student lowers."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.decoupling import divergence
from kdpipe.methods.numerics import full_precision, wide


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reversed_gradient(tensor: Tensor, strength: float) -> Tensor:
    """The tensor as it is; what flows back through it is multiplied by -strength.

    Ganin & Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", 2015, section 3.
    """
    reversed_: Tensor = _Reversal.apply(tensor, strength)
    return reversed_


@full_precision
def ctkd_loss(logits_student: Tensor, logits_teacher: Tensor, temperature: Tensor) -> Tensor:
    """Knowledge distillation at given temperatures: T² · KL(teacher_T ‖ student_T), averaged over the batch.

    Unlike in :func:`kdpipe.methods.kd_loss`, T may differ between images, and gets a gradient: that of the whole
    product, through T² and both softmaxes.

    Li et al., "Curriculum Temperature for Knowledge Distillation", 2023.

    Args:
        logits_student, logits_teacher: (B, K).
        temperature: (1,) or (B,), positive.
    """
    divisor = wide(temperature).unsqueeze(1)
    student, teacher = (F.log_softmax(wide(logits) / divisor, dim=1) for logits in (logits_student, logits_teacher))
    return (wide(temperature).square() * divergence(student, teacher)).mean()


class GlobalTemperature(nn.Module):
    """One temperature for all images: start + span · sigmoid(a), a learned from 1."""

    def __init__(self, start: float, span: float) -> None:
        super().__init__()
        self.start, self.span = start, span
        # One dimension, so that weight decay, which would draw the temperature to the middle, spares it.
        self.before_sigmoid = nn.Parameter(torch.ones(1))

    def forward(self, logits_student: Tensor, logits_teacher: Tensor) -> Tensor:
        """The temperature, (1,), whatever the logits."""
        return self.start + self.span * self.before_sigmoid.sigmoid()


class InstanceTemperature(nn.Module):
    """A temperature for each image: start + span · sigmoid of two layers on both networks' logits."""

    def __init__(self, classes: int, width: int, start: float, span: float) -> None:
        super().__init__()
        self.start, self.span = start, span
        self.layers = nn.Sequential(nn.Linear(2 * classes, width), nn.ReLU(inplace=True), nn.Linear(width, 1))

    def forward(self, logits_student: Tensor, logits_teacher: Tensor) -> Tensor:
        """Temperatures (B,) for logits (B, K); the student learns nothing through them."""
        seen = torch.cat([logits_student.detach(), logits_teacher.detach()], dim=1)
        return self.start + self.span * self.layers(seen).squeeze(1).sigmoid()


class CtkdParameters(Parameters):
    """Parameters of curriculum temperature."""

    ce_weight: float = Field(default=0.1, ge=0.0)
    ctkd_weight: float = Field(default=0.9, ge=0.0)
    per: Literal["study", "image"] = Field(default="study", description="one temperature for all images, or one each")
    start: float = Field(default=1.0, gt=0.0, description="least temperature")
    span: float = Field(default=20.0, gt=0.0, description="greatest temperature less the least")
    reversal: float = Field(default=1.0, ge=0.0, description="what the temperature's reversed gradient rises to")
    warmup: float = Field(default=10 / 240, ge=0.0, le=1.0, description="share of training in which it rises")
    width: int = Field(default=32, ge=1, description="of the hidden layer behind a temperature for each image")


def _ctkd_extras(pair: Pair, parameters: CtkdParameters) -> nn.Module:
    if parameters.per == "study":
        return GlobalTemperature(parameters.start, parameters.span)
    return InstanceTemperature(pair.classes, parameters.width, parameters.start, parameters.span)


def _ctkd_terms(step: Step) -> Terms:
    chosen: CtkdParameters = step.parameters
    assert step.extras is not None
    student, teacher = step.student.logits, step.of_teacher.logits
    strength = chosen.reversal * (1 - math.cos(math.pi * step.ramp(chosen.warmup))) / 2
    temperature = reversed_gradient(step.extras(student, teacher), strength)
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "ctkd": chosen.ctkd_weight * ctkd_loss(student, teacher, temperature),
    }


CTKD = Method(
    name="ctkd",
    title="Curriculum temperature",
    role="distilled",
    family="logits",
    terms=_ctkd_terms,
    parameters=CtkdParameters,
    extras=_ctkd_extras,
    formula="0.1 CE + 0.9 T^2 KL(teacher_T || student_T), T = 1 + 20 sigmoid(a); a goes up the slope that the student "
    "goes down, the more the further a half cosine has risen over the first 10/240 of the training",
    summary="KD at a temperature that is learned against the student, so that its task grows harder.",
    citation="Li et al., Curriculum Temperature for Knowledge Distillation, 2023",
    differs="Published code lets weight decay act on a; here it is spared, like all scalars. With per = 'image' two "
    "layers on both networks' logits take the place of a. No gradient goes back through their inputs, which would have "
    "the student raise its own loss; their width is this project's. Epochs of warm-up are a share of the steps.",
)

METHODS = (CTKD,)
