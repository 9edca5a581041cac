"""Distillation of logits."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdpipe.methods.base import Method, Parameters, Step, Terms


def kd_loss(logits_student: Tensor, logits_teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Hinton's knowledge distillation: T² · KL(teacher_T ‖ student_T), averaged over the batch.

    Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.

    Args:
        logits_student, logits_teacher: (B, K).
    """
    student = F.log_softmax(logits_student.float() / temperature, dim=1)
    teacher = F.log_softmax(logits_teacher.float() / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


class KdParameters(Parameters):
    temperature: float = Field(default=4.0, gt=0.0)
    ce_weight: float = Field(default=0.1, ge=0.0)
    kd_weight: float = Field(default=0.9, ge=0.0)


def _kd_terms(step: Step) -> Terms:
    chosen: KdParameters = step.parameters
    labelled = step.student.logits[: len(step.target)]
    return {
        "ce": chosen.ce_weight * F.cross_entropy(labelled, step.target),
        "kd": chosen.kd_weight * kd_loss(step.student.logits, step.of_teacher.logits, chosen.temperature),
    }


KD = Method(
    name="kd",
    title="Knowledge distillation",
    role="distilled",
    terms=_kd_terms,
    needs_teacher=True,
    parameters=KdParameters,
    formula="0.1 CE + 0.9 T^2 KL(teacher_T || student_T), T = 4",
    summary="The student matches the teacher's softened class probabilities.",
    citation="Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network, 2015",
)
