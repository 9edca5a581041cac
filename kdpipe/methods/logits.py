"""Distillation of logits: the teacher's class probabilities, whole, decoupled or transformed."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdpipe.methods import logits_relational
from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.decoupling import among_others, at_class, class_or_not, divergence
from kdpipe.methods.numerics import full_precision, unit_deviation, wide

# --------------------------------------------------------------------------------------------- kd


@full_precision
def kd_loss(logits_student: Tensor, logits_teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Hinton's knowledge distillation: T² · KL(teacher_T ‖ student_T), averaged over the batch.

    Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.

    Args:
        logits_student, logits_teacher: (B, K).
    """
    student = F.log_softmax(wide(logits_student) / temperature, dim=1)
    teacher = F.log_softmax(wide(logits_teacher) / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


class KdParameters(Parameters):
    """Parameters of KD, and of its controls."""

    temperature: float = Field(default=4.0, gt=0.0)
    ce_weight: float = Field(default=0.1, ge=0.0)
    kd_weight: float = Field(default=0.9, ge=0.0)


def _kd_terms(step: Step) -> Terms:
    chosen: KdParameters = step.parameters
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "kd": chosen.kd_weight * kd_loss(step.student.logits, step.of_teacher.logits, chosen.temperature),
    }


KD = Method(
    name="kd",
    title="Knowledge distillation",
    role="distilled",
    family="logits",
    terms=_kd_terms,
    parameters=KdParameters,
    formula="0.1 CE + 0.9 T^2 KL(teacher_T || student_T), T = 4",
    summary="The student matches the teacher's softened class probabilities.",
    citation="Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network, 2015",
)

# -------------------------------------------------------------------------- the target and the rest


@full_precision
def dkd_loss(
    logits_student: Tensor,
    logits_teacher: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Decoupled knowledge distillation: T² · (alpha TCKD + beta NCKD), averaged over the batch.

    TCKD is the KL divergence of (target, not target), NCKD that of the classes other than the target
    among themselves. KD is TCKD + (1 - q_target) NCKD: a sure teacher silences its own NCKD there.

    Zhao et al., "Decoupled Knowledge Distillation", 2022, equation 7.

    Args:
        logits_student, logits_teacher: (B, K).
        target: (B,).
    """
    is_target = at_class(logits_student, target)
    student, teacher = wide(logits_student) / temperature, wide(logits_teacher) / temperature
    tckd, nckd = (
        F.kl_div(part(student, is_target), part(teacher, is_target), reduction="batchmean", log_target=True)
        for part in (class_or_not, among_others)
    )
    return (alpha * tckd + beta * nckd) * temperature**2


class DkdParameters(Parameters):
    """Parameters of DKD."""

    alpha: float = Field(default=1.0, ge=0.0, description="weight of the target class (TCKD)")
    beta: float = Field(default=8.0, ge=0.0, description="weight of the other classes (NCKD); 2 to 8 by pair")
    temperature: float = Field(default=4.0, gt=0.0)
    warmup: float = Field(default=20 / 240, ge=0.0, le=1.0, description="share of training in which the term rises")
    ce_weight: float = Field(default=1.0, ge=0.0)
    dkd_weight: float = Field(default=1.0, ge=0.0)


def _dkd_terms(step: Step) -> Terms:
    chosen: DkdParameters = step.parameters
    teacher = step.of_teacher.logits[: len(step.target)]
    loss = dkd_loss(step.labelled, teacher, step.target, chosen.alpha, chosen.beta, chosen.temperature)
    return {"ce": chosen.ce_weight * step.cross_entropy, "dkd": chosen.dkd_weight * step.ramp(chosen.warmup) * loss}


DKD = Method(
    name="dkd",
    title="Decoupled knowledge distillation",
    role="distilled",
    family="logits",
    terms=_dkd_terms,
    parameters=DkdParameters,
    uses_labels=True,
    formula="CE + T^2 (TCKD + 8 NCKD), T = 4; the second term rises over the first 1/12 of the training",
    summary="What the teacher says of the true class and how it ranks the others are matched apart, the latter more.",
    citation="Zhao et al., Decoupled Knowledge Distillation, 2022",
    differs="The published code takes log(softmax), which is -inf on underflow, and puts -1000 for the target; "
    "here nothing leaves log space. Its 20 of 240 epochs of warm-up are a share of the steps.",
)


@full_precision
def nkd_loss(
    logits_student: Tensor, logits_teacher: Tensor, target: Tensor, gamma: float = 1.5, temperature: float = 1.0
) -> Tensor:
    """Normalised knowledge distillation: -q_y log p_y - gamma T² Σ_{c≠y} q̂_c log p̂_c, averaged over the batch.

    p̂ and q̂ are the softened probabilities among the classes other than the label y; the first term
    knows no temperature. Both terms are cross-entropies, so at student = teacher -q_y log q_y + gamma T² H(q̂)
    is left, and the infimum, gamma T² H(q̂), is at p̂ = q̂ and p_y = 1.

    Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation", 2023, section 3.

    Args:
        logits_student, logits_teacher: (B, K).
        target: (B,).
    """
    student, teacher, label = wide(logits_student), wide(logits_teacher), target.unsqueeze(1)
    log_p, log_q = (F.log_softmax(logits, dim=1).gather(1, label) for logits in (student, teacher))
    is_target = at_class(student, target)
    log_p_others, log_q_others = (among_others(logits / temperature, is_target) for logits in (student, teacher))
    others = (log_q_others.exp() * log_p_others).sum(1).mean()
    return -(log_q.exp() * log_p).mean() - gamma * temperature**2 * others


class NkdParameters(Parameters):
    """Parameters of NKD."""

    gamma: float = Field(default=1.5, ge=0.0, description="weight of the classes other than the label")
    temperature: float = Field(default=1.0, gt=0.0)
    ce_weight: float = Field(default=1.0, ge=0.0)
    nkd_weight: float = Field(default=1.0, ge=0.0)


def _nkd_terms(step: Step) -> Terms:
    chosen: NkdParameters = step.parameters
    teacher = step.of_teacher.logits[: len(step.target)]
    loss = nkd_loss(step.labelled, teacher, step.target, chosen.gamma, chosen.temperature)
    return {"ce": chosen.ce_weight * step.cross_entropy, "nkd": chosen.nkd_weight * loss}


NKD = Method(
    name="nkd",
    title="Normalised knowledge distillation",
    role="distilled",
    family="logits",
    terms=_nkd_terms,
    parameters=NkdParameters,
    uses_labels=True,
    formula="CE - q_y log p_y - 1.5 T^2 sum over c != y of q'_c log p'_c, T = 1, ' = normalised without y",
    summary="The teacher's confidence weighs the label; the other classes are matched among themselves.",
    citation="Yang et al., From Knowledge Distillation to Self-Knowledge Distillation, 2023",
    differs="Both terms are cross-entropies: the loss does not reach 0 at student = teacher. gamma = 1.5 and T = 1 are "
    "published for ImageNet; a published setting for CIFAR-100 has gamma = 3.5 and T = 3.",
)

# ------------------------------------------------------------------------------- transformed logits


@full_precision
def lskd_loss(logits_student: Tensor, logits_teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Knowledge distillation of standardised logits: T² · KL(teacher_T ‖ student_T) of each row's z-scores.

    Logits of another mean or of another (positive) scale give the same loss.

    Sun et al., "Logit Standardization in Knowledge Distillation", 2024, algorithm 1.

    Args:
        logits_student, logits_teacher: (B, K), K >= 3: the z-scores of two numbers are constants.
    """
    unbiased = (logits_student.shape[1] - 1) ** 0.5
    student, teacher = (unbiased * unit_deviation(wide(logits), 1) for logits in (logits_student, logits_teacher))
    return kd_loss(student, teacher, temperature)


class LskdParameters(Parameters):
    """Parameters of logit standardisation."""

    temperature: float = Field(default=2.0, gt=0.0)
    ce_weight: float = Field(default=0.1, ge=0.0)
    lskd_weight: float = Field(default=9.0, ge=0.0)


def _lskd_terms(step: Step) -> Terms:
    chosen: LskdParameters = step.parameters
    loss = lskd_loss(step.student.logits, step.of_teacher.logits, chosen.temperature)
    return {"ce": chosen.ce_weight * step.cross_entropy, "lskd": chosen.lskd_weight * loss}


def _lskd_refuse(pair: Pair, parameters: LskdParameters) -> str | None:
    if pair.classes > 2:
        return None
    return f"{pair.classes} classes leave no more than a sign after standardisation, which has no gradient"


LSKD = Method(
    name="lskd",
    title="Logit standardisation",
    role="distilled",
    family="logits",
    terms=_lskd_terms,
    parameters=LskdParameters,
    refuse=_lskd_refuse,
    formula="0.1 CE + 9 T^2 KL(teacher_T || student_T) of z-scored logits, T = 2",
    summary="The student matches the teacher's softened probabilities after each row of logits is z-scored.",
    citation="Sun et al., Logit Standardization in Knowledge Distillation, 2024",
    differs="The standard deviation is the unbiased one (K - 1) of the published code; with K it would be a "
    "temperature smaller by sqrt((K - 1) / K). Rows of equal logits give no gradient instead of dividing by 1e-7.",
)


def _transformed(logits_teacher: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Logarithms of q^gamma / Σ q^gamma, (B, K), and of Σ q^gamma, (B,), for the teacher's probabilities q."""
    power = gamma * F.log_softmax(wide(logits_teacher), dim=1)
    log_sum = power.logsumexp(1, keepdim=True)
    return power - log_sum, log_sum.squeeze(1)


@full_precision
def ttm_loss(logits_student: Tensor, logits_teacher: Tensor, gamma: float = 0.1) -> Tensor:
    """Transformed teacher matching: KL(q^gamma / Σ q^gamma ‖ p), averaged over the batch.

    The teacher's probabilities q are flattened by a power, gamma = 1 / T, which is its softmax at temperature T; the
    student's p are not. With p_T the student's softmax at T it is T KL(q_T ‖ p_T) - (T - 1) H(p) but for a constant
    of the teacher's, H the student's Rényi entropy of order 1 / T: KD that rewards an unsure student.

    Zheng & Yang, "Knowledge Distillation Based on Transformed Teacher Matching", 2024, section 3.

    Args:
        logits_student, logits_teacher: (B, K).
    """
    student = F.log_softmax(wide(logits_student), dim=1)
    return divergence(student, _transformed(logits_teacher, gamma)[0]).mean()


class TtmParameters(Parameters):
    """Parameters of TTM."""

    gamma: float = Field(default=0.1, gt=0.0, description="power of the teacher's probabilities, 1 / temperature")
    ce_weight: float = Field(default=1.0, ge=0.0)
    ttm_weight: float = Field(default=45.0, ge=0.0)


def _ttm_terms(step: Step) -> Terms:
    chosen: TtmParameters = step.parameters
    loss = ttm_loss(step.student.logits, step.of_teacher.logits, chosen.gamma)
    return {"ce": chosen.ce_weight * step.cross_entropy, "ttm": chosen.ttm_weight * loss}


TTM = Method(
    name="ttm",
    title="Transformed teacher matching",
    role="distilled",
    family="logits",
    terms=_ttm_terms,
    parameters=TtmParameters,
    formula="CE + 45 KL(q^0.1 / sum_c q_c^0.1 || p)",
    summary="The teacher alone is softened, so that the student is also kept from being too sure.",
    citation="Zheng & Yang, Knowledge Distillation Based on Transformed Teacher Matching, 2024",
    differs="Weight 45 and gamma 0.1 are those of the authors' published example (VGG13 to VGG8 on CIFAR-100); good "
    "ones depend on the pair. Published code raises probabilities to the power, where those that underflow stay 0; "
    "here their logarithms are scaled.",
)


@full_precision
def wttm_loss(logits_student: Tensor, logits_teacher: Tensor, gamma: float = 0.2) -> Tensor:
    """Weighted transformed teacher matching: Σ_c q_c^gamma · KL(q^gamma / Σ q^gamma ‖ p), averaged over the batch.

    The teacher's probabilities q are flattened by a power, gamma = 1 / T, the student's p are not; the power
    sum, large where the teacher is unsure, weighs each image.

    Zheng & Yang, "Knowledge Distillation Based on Transformed Teacher Matching", 2024, section 4.

    Args:
        logits_student, logits_teacher: (B, K).
    """
    student = F.log_softmax(wide(logits_student), dim=1)
    transformed, log_sum = _transformed(logits_teacher, gamma)
    return (log_sum.exp() * divergence(student, transformed)).mean()


class WttmParameters(Parameters):
    """Parameters of WTTM."""

    gamma: float = Field(default=0.2, gt=0.0, description="power of the teacher's probabilities, 1 / temperature")
    ce_weight: float = Field(default=1.0, ge=0.0)
    wttm_weight: float = Field(default=4.0, ge=0.0)


def _wttm_terms(step: Step) -> Terms:
    chosen: WttmParameters = step.parameters
    loss = wttm_loss(step.student.logits, step.of_teacher.logits, chosen.gamma)
    return {"ce": chosen.ce_weight * step.cross_entropy, "wttm": chosen.wttm_weight * loss}


WTTM = Method(
    name="wttm",
    title="Weighted transformed teacher matching",
    role="distilled",
    family="logits",
    terms=_wttm_terms,
    parameters=WttmParameters,
    formula="CE + 4 sum_c q_c^0.2 KL(q^0.2 / sum_c q_c^0.2 || p)",
    summary="The teacher alone is softened, and images on which it is unsure weigh more.",
    citation="Zheng & Yang, Knowledge Distillation Based on Transformed Teacher Matching, 2024",
    differs="Weight 4 and gamma 0.2 are those of the authors' published example, there with another method; "
    "good ones depend on the pair.",
)

METHODS = (KD, DKD, NKD, LSKD, TTM, WTTM, *logits_relational.METHODS)
