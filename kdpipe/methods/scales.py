"""Distillation of logits at several scales: those of the whole image, of its quarters and of their quarters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.decoupling import among_others, at_class, class_or_not, divergence
from kdpipe.methods.layers import refuse_final_points
from kdpipe.methods.numerics import full_precision, wide
from kdpipe.models.network import Network, Outputs

SCALES = (1, 2, 4)


@full_precision
def region_logits(final: Tensor, weight: Tensor, bias: Tensor | None, scales: Sequence[int] = SCALES) -> Tensor:
    """A linear classifier on the mean of each region of the map whose mean it takes.

    Args:
        final: (B, C, H, W).
        weight: (K, C) of the classifier.
        bias: (K,), if it has one.
        scales: regions a side, one grid for each.

    Returns:
        (B, R, K), R the sum of the squared scales; at scale 1 the network's own logits.
    """
    means = torch.cat([F.adaptive_avg_pool2d(wide(final), scale).flatten(2) for scale in scales], dim=2)
    logits = torch.einsum("bcr,kc->brk", means, wide(weight))
    return logits if bias is None else logits + wide(bias)


@full_precision
def sdd_loss(
    logits_student: Tensor,
    logits_teacher: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    complementary: float = 2.0,
) -> Tensor:
    """Scale decoupled distillation: DKD of each region's logits, averaged over the regions and the batch.

    Regions in which the teacher sees another class than in the whole image complement it and count
    ``complementary`` times. See :func:`kdpipe.methods.dkd_loss`.

    Wei, Luo & Luo, "Scale Decoupled Distillation", 2024.

    Args:
        logits_student, logits_teacher: (B, R, K) of R regions, the first of which is the whole image.
        target: (B,).
    """
    answers = logits_teacher.argmax(2)
    weights = torch.where(answers == answers[:, :1], 1.0, complementary).flatten()
    student, teacher = (wide(logits).flatten(0, 1) / temperature for logits in (logits_student, logits_teacher))
    is_target = at_class(student, target.repeat_interleave(logits_student.shape[1]))
    tckd, nckd = (
        divergence(part(student, is_target), part(teacher, is_target)) for part in (class_or_not, among_others)
    )
    return (weights * (alpha * tckd + beta * nckd)).mean() * temperature**2


class SddParameters(Parameters):
    """Parameters of scale decoupled distillation."""

    scales: list[Annotated[int, Field(ge=1)]] | None = Field(
        default=None, min_length=1, description="regions a side, 1 first; by default 1, 2 and 4, as far as maps go"
    )
    complementary: float = Field(default=2.0, ge=0.0, description="weight of regions that disagree with the whole")
    alpha: float = Field(default=1.0, ge=0.0, description="weight of the target class (TCKD)")
    beta: float = Field(default=8.0, ge=0.0, description="weight of the other classes (NCKD); 2 to 8 by pair")
    temperature: float = Field(default=4.0, gt=0.0)
    warmup: float = Field(default=20 / 240, ge=0.0, le=1.0, description="share of training in which the term rises")
    ce_weight: float = Field(default=1.0, ge=0.0)
    sdd_weight: float = Field(default=1.0, ge=0.0)


def _sdd_refuse(pair: Pair, parameters: SddParameters) -> str | None:
    for profile, whose in ((pair.student, "student"), (pair.teacher, "teacher")):
        if not profile.linear_head:
            return (
                f"the {whose}'s logits are not one linear layer on the mean of its last map, so its regions have none"
            )
    if reason := refuse_final_points(pair):
        return reason
    scales, smallest = parameters.scales or [1], min(*pair.student.final[1:], *pair.teacher.final[1:])
    if scales[0] != 1:
        return f"parameters.scales is {scales}, but the whole image, 1, has to be the first"
    if max(scales) > smallest:
        return (
            f"parameters.scales asks for {max(scales)} regions a side, but the smallest last map has {smallest} "
            "positions a side"
        )
    return None


def _last_map(network: Network | None, outputs: Outputs, labelled: int) -> tuple[Tensor, nn.Linear]:
    """The map that the head takes, of the labelled images, and the classifier on its mean."""
    assert network is not None
    classifier = network.classifier
    assert isinstance(classifier, nn.Linear)
    return network.as_map(outputs.final, outputs.maps[-1])[:labelled], classifier


def _sdd_terms(step: Step) -> Terms:
    chosen: SddParameters = step.parameters
    seen = (step.student_network, step.student), (step.teacher_network, step.of_teacher)
    maps = [_last_map(*part, len(step.target)) for part in seen]
    smallest = min(side for final, _ in maps for side in final.shape[2:])
    scales = chosen.scales or [scale for scale in SCALES if scale <= smallest]
    student, teacher = (region_logits(final, head.weight, head.bias, scales) for final, head in maps)
    loss = sdd_loss(student, teacher, step.target, chosen.alpha, chosen.beta, chosen.temperature, chosen.complementary)
    return {"ce": chosen.ce_weight * step.cross_entropy, "sdd": chosen.sdd_weight * step.ramp(chosen.warmup) * loss}


SDD = Method(
    name="sdd",
    title="Scale decoupled distillation",
    role="distilled",
    family="logits",
    terms=_sdd_terms,
    needs=("logits", "maps", "classifier"),
    parameters=SddParameters,
    refuse=_sdd_refuse,
    uses_labels=True,
    formula="CE + mean over 1 + 4 + 16 regions of w DKD(classifier on the region's mean), w = 2 where the teacher's "
    "answer is another than for the whole image, else 1; rises over the first 1/12 of the training",
    summary="DKD for the whole image and for its parts; those in which the teacher sees something else weigh more.",
    citation="Wei, Luo & Luo, Scale Decoupled Distillation, 2024",
    differs="Published code tells agreement by right and wrong: two different wrong answers agree there, here they do "
    "not. It pools regions from a grid of 4x4, here each scale is pooled from the map itself: the same, where 4 "
    "divides the map. Scales finer than a last map are left out, where published code repeats its positions. Its 20 "
    "of 240 epochs of warm-up are a share of the steps.",
)

METHODS = (SDD,)
