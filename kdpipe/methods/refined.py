"""Distillation of logits that labels have refined: what a wrong teacher says in the label's place is left out."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from kdpipe.methods.base import Method, Parameters, Step, Terms
from kdpipe.methods.decoupling import among_others, at_class, class_or_not, divergence
from kdpipe.methods.numerics import full_precision, wide


@full_precision
def rld_loss(
    logits_student: Tensor,
    logits_teacher: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    confidence_temperature: float = 1.0,
    correlation_temperature: float = 4.0,
) -> Tensor:
    """Refined logit distillation: alpha T_1² SCD + beta T_2² MCD, averaged over the batch.

    Sample confidence (SCD) is the KL divergence of two probabilities of two: the teacher's of the class that it takes
    for right and of all others, the student's of the label and of all others. Masked correlation (MCD) is that of the
    classes to which the teacher gives less than to the label, among themselves; the label is not one of them. Where
    the teacher gives no class less, it is 0. With a teacher that is right, and one temperature, this is DKD.

    Sun et al., "Knowledge Distillation with Refined Logits", 2024.

    Args:
        logits_student, logits_teacher: (B, K).
        target: (B,).
    """
    student, teacher = wide(logits_student), wide(logits_teacher)
    confidence = divergence(
        class_or_not(student / confidence_temperature, at_class(student, target)),
        class_or_not(teacher / confidence_temperature, at_class(teacher, teacher.argmax(1))),
    )
    left_out = teacher >= teacher.gather(1, target.unsqueeze(1))
    correlation = divergence(
        among_others(student / correlation_temperature, left_out),
        among_others(teacher / correlation_temperature, left_out),
    )
    weights = alpha * confidence_temperature**2, beta * correlation_temperature**2
    return (weights[0] * confidence + weights[1] * correlation).mean()


class RldParameters(Parameters):
    """Parameters of refined logit distillation."""

    alpha: float = Field(default=1.0, ge=0.0, description="weight of the sample's confidence (SCD)")
    beta: float = Field(default=8.0, ge=0.0, description="weight of the masked correlation (MCD)")
    confidence_temperature: float = Field(default=1.0, gt=0.0)
    correlation_temperature: float = Field(default=4.0, gt=0.0)
    warmup: float = Field(default=20 / 240, ge=0.0, le=1.0, description="share of training in which the term rises")
    ce_weight: float = Field(default=1.0, ge=0.0)
    rld_weight: float = Field(default=1.0, ge=0.0)


def _rld_terms(step: Step) -> Terms:
    chosen: RldParameters = step.parameters
    loss = rld_loss(
        step.labelled,
        step.of_teacher.logits[: len(step.target)],
        step.target,
        chosen.alpha,
        chosen.beta,
        chosen.confidence_temperature,
        chosen.correlation_temperature,
    )
    return {"ce": chosen.ce_weight * step.cross_entropy, "rld": chosen.rld_weight * step.ramp(chosen.warmup) * loss}


RLD = Method(
    name="rld",
    title="Refined logit distillation",
    role="distilled",
    family="logits",
    terms=_rld_terms,
    parameters=RldParameters,
    uses_labels=True,
    formula="CE + KL(teacher: its top class or not || student: the label or not) + 8 T^2 KL among the classes that the "
    "teacher ranks under the label, T = 4; all but CE rises over the first 1/12 of the training",
    summary="The student is as sure of the label as the teacher is of its answer; classes that a wrong teacher puts "
    "before the label are left out.",
    citation="Sun et al., Knowledge Distillation with Refined Logits, 2024",
    differs="Published code takes log(softmax), which is -inf on underflow, and masks with -1e9; here nothing leaves "
    "log space. Its example for CIFAR-100 sets the confidence's temperature to 4 as well, its default is 1. The 20 of "
    "240 epochs of warm-up are a share of the steps.",
)

METHODS = (RLD,)
