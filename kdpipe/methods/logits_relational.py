"""Distillation of relations between logits: correlations and Gram matrices over images and over classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdpipe.methods.base import Method, Parameters, Step, Terms
from kdpipe.methods.numerics import full_precision, unit_deviation, wide


@full_precision
def dist_loss(
    logits_student: Tensor, logits_teacher: Tensor, beta: float = 1.0, gamma: float = 1.0, temperature: float = 4.0
) -> Tensor:
    """DIST: T² · [beta (1 - mean correlation of rows) + gamma (1 - mean correlation of columns)].

    Rows are images, columns are classes of the softened probabilities, the correlation is Pearson's. A row
    or column that is constant correlates with nothing: it counts 0 and has no gradient.

    Huang et al., "Knowledge Distillation from A Stronger Teacher", 2022, equations 8 to 10.

    Args:
        logits_student, logits_teacher: (B, K); with B = 1 columns are constant.
        beta: weight of the rows (inter-class relations).
        gamma: weight of the columns (intra-class relations).
    """
    student, teacher = (F.softmax(wide(logits) / temperature, dim=1) for logits in (logits_student, logits_teacher))
    rows, columns = (
        1 - (unit_deviation(student, dim) * unit_deviation(teacher, dim)).sum(dim).mean() for dim in (1, 0)
    )
    return (beta * rows + gamma * columns) * temperature**2


class DistParameters(Parameters):
    """Parameters of DIST."""

    beta: float = Field(default=1.0, ge=0.0, description="weight of the rows: each image over the classes")
    gamma: float = Field(default=1.0, ge=0.0, description="weight of the columns: each class over the images")
    temperature: float = Field(default=4.0, gt=0.0)
    ce_weight: float = Field(default=1.0, ge=0.0)
    dist_weight: float = Field(default=2.0, ge=0.0)


def _dist_terms(step: Step) -> Terms:
    chosen: DistParameters = step.parameters
    logits = step.student.logits, step.of_teacher.logits
    loss = dist_loss(*logits, chosen.beta, chosen.gamma, chosen.temperature)
    return {"ce": chosen.ce_weight * step.cross_entropy, "dist": chosen.dist_weight * loss}


DIST = Method(
    name="dist",
    title="DIST",
    role="distilled",
    family="logits",
    terms=_dist_terms,
    parameters=DistParameters,
    formula="CE + 2 T^2 [(1 - mean correlation of rows) + (1 - mean correlation of columns)], T = 4",
    summary="The student's probabilities correlate with the teacher's over classes and over images.",
    citation="Huang et al., Knowledge Distillation from A Stronger Teacher, 2022",
    differs="The squared temperature in front is the published code's. Constant rows and columns give no gradient "
    "instead of dividing by 1e-8.",
)


@full_precision
def mlkd_loss(
    logits_student: Tensor, logits_teacher: Tensor, temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0)
) -> Tensor:
    """Multi-level logit distillation, summed over temperatures: KD + ‖ΔPPᵀ‖² / B + ‖ΔPᵀP‖² / K.

    P (B, K) are the softened probabilities; Δ is the teacher's Gram matrix less the student's, the first
    between images (B, B), the second between classes (K, K). The latter sums over the images as the paper
    writes it, so its size grows with the square of the batch.

    Jin, Wang & Lin, "Multi-Level Logit Distillation", 2023, section 3.

    Args:
        logits_student, logits_teacher: (B, K).
    """
    images, classes = logits_student.shape
    levels = []
    for temperature in temperatures:
        log_p, log_q = (F.log_softmax(wide(logits) / temperature, dim=1) for logits in (logits_student, logits_teacher))
        student, teacher = log_p.exp(), log_q.exp()
        between_images = (teacher @ teacher.T - student @ student.T).square().sum() / images
        between_classes = (teacher.T @ teacher - student.T @ student).square().sum() / classes
        instance = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * temperature**2
        levels.append(instance + between_images + between_classes)
    return torch.stack(levels).sum()


class MlkdParameters(Parameters):
    """Parameters of multi-level logit distillation."""

    temperatures: list[Annotated[float, Field(gt=0.0)]] = Field(default=[2.0, 3.0, 4.0, 5.0, 6.0], min_length=1)
    ce_weight: float = Field(default=0.1, ge=0.0)
    mlkd_weight: float = Field(default=0.9, ge=0.0)


def _mlkd_terms(step: Step) -> Terms:
    chosen: MlkdParameters = step.parameters
    loss = mlkd_loss(step.student.logits, step.of_teacher.logits, chosen.temperatures)
    return {"ce": chosen.ce_weight * step.cross_entropy, "mlkd": chosen.mlkd_weight * loss}


MLKD = Method(
    name="mlkd",
    title="Multi-level logit distillation",
    role="distilled",
    family="logits",
    terms=_mlkd_terms,
    parameters=MlkdParameters,
    formula="0.1 CE + 0.9 sum over T in {2, ..., 6} of KD_T + |batch Gram difference|^2 / B + |class Gram ...|^2 / K",
    summary="The student matches the teacher's probabilities image by image, between images and between classes.",
    citation="Jin, Wang & Lin, Multi-Level Logit Distillation, 2023",
    differs="The paper's three terms alone: the published code adds a strongly augmented view and masks by the "
    "teacher's confidence; neither is here. Its weights, 0.1 and 0.9, are kept.",
)

METHODS = (DIST, MLKD)
