"""Distillation into a head of its own: the second head, or the distillation token, of a distilled transformer."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.logits import kd_loss
from kdpipe.methods.numerics import full_precision, wide


@full_precision
def deit_loss(
    logits_student: Tensor, logits_teacher: Tensor, target: Literal["hard", "soft"] = "hard", temperature: float = 3.0
) -> Tensor:
    """What the head on the distillation token learns: the teacher's answer, or its probabilities.

    Touvron et al., "Training data-efficient image transformers & distillation through attention", 2021,
    equation 3 (hard: cross-entropy to the teacher's first choice) and equation 2 (soft: T² · KL).

    Args:
        logits_student, logits_teacher: (B, K), the student's of its second head.
        temperature: of the soft form; the hard one has none.
    """
    if target == "hard":
        return F.cross_entropy(wide(logits_student), logits_teacher.argmax(1))
    return kd_loss(logits_student, logits_teacher, temperature)


class DeitParameters(Parameters):
    """Parameters of distillation through a token."""

    ce_weight: float = Field(default=0.5, ge=0.0)
    deit_weight: float = Field(default=0.5, ge=0.0)
    target: Literal["hard", "soft"] = Field(default="hard", description="the teacher's first choice, or probabilities")
    temperature: float = Field(default=3.0, gt=0.0, description="of soft targets")


def _deit_refuse(pair: Pair, parameters: DeitParameters) -> str | None:
    if not pair.student.two_heads:
        return (
            "the student has no second head, on a distillation token, to learn the teacher's answers with; use an arch "
            "that has one, such as 'deit_tiny_distilled_patch16_224'"
        )
    return None


def _deit_terms(step: Step) -> Terms:
    chosen: DeitParameters = step.parameters
    assert step.student_network is not None
    own, taught = step.student_network.heads_apart(step.student.final)
    loss = deit_loss(taught, step.of_teacher.logits, chosen.target, chosen.temperature)
    return {
        "ce": chosen.ce_weight * step.cross_entropy_of(wide(own[: len(step.target)])),
        "deit": chosen.deit_weight * loss,
    }


DEIT = Method(
    name="deit",
    title="Distillation token",
    role="distilled",
    family="logits",
    terms=_deit_terms,
    parameters=DeitParameters,
    refuse=_deit_refuse,
    formula="CE(first head, label) / 2 + CE(second head, argmax of the teacher) / 2; the network answers with the "
    "mean of both heads; soft: T^2 KL(teacher_T || second head_T), T 3",
    summary="Labels teach the class token and the teacher a second token, each with a head of its own.",
    citation="Touvron et al., Training data-efficient image transformers & distillation through attention, 2021",
    differs="The paper adds the probabilities of the two heads; as in published code, their logits are averaged. "
    "Published code divides the soft form by images and classes, which is K times too small; here by images, as in the "
    "equation. The paper's 0.1 for soft targets is deit_weight = 0.1, ce_weight = 0.9. Labels are not smoothed. Other "
    "methods train both heads of such a student as one: their mean.",
)

METHODS = (DEIT,)
