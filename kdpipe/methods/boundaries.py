"""Distillation of activation boundaries: which of the teacher's neurons are active, and not by how much."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Step, Terms
from kdpipe.methods.connectors import Connectors
from kdpipe.methods.layers import LayerParameters, meet, paired_layers, refuse_without_preactivations
from kdpipe.methods.logits import kd_loss
from kdpipe.methods.numerics import full_precision, wide


def halved_towards_the_first(losses: Sequence[Tensor]) -> Tensor:
    """The sum of losses of layers, in order: the last counts 1, and each layer before it half of the next."""
    return torch.stack([loss / 2 ** (len(losses) - 1 - place) for place, loss in enumerate(losses)]).sum()


@full_precision
def ab_loss(maps_student: Sequence[Tensor], maps_teacher: Sequence[Tensor], margin: float = 1.0) -> Tensor:
    """Activation boundaries: a squared hinge on the student's neurons, on the side where the teacher's are.

    Where the teacher's neuron is active (above 0), relu(margin - s)²; elsewhere relu(margin + s)²; summed over a map,
    averaged over images. The last layer counts 1, and each before it half of the next.

    Heo, Lee, Yun & Choi, "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons",
    2019, the loss that stands in for the activation transfer loss.

    Args:
        maps_student, maps_teacher: (B, C, H, W) before their activation, of the same channels, pair by pair and the
            deepest last; maps of different size meet at the smaller.
    """
    losses = []
    for own, other in zip(maps_student, maps_teacher, strict=True):
        student, teacher = meet(wide(own), wide(other))
        missing = F.relu(margin + torch.where(teacher > 0, -student, student))
        losses.append(missing.square().flatten(1).sum(1).mean())
    return halved_towards_the_first(losses)


class AbParameters(LayerParameters):
    """Parameters of activation boundaries, and of the KD that follows."""

    ce_weight: float = Field(default=0.1, ge=0.0)
    kd_weight: float = Field(default=0.9, ge=0.0)
    temperature: float = Field(default=4.0, gt=0.0)
    ab_weight: float = Field(default=3e-3, gt=0.0)
    margin: float = Field(default=1.0, gt=0.0)
    initialisation: float = Field(
        default=30 / 270, gt=0.0, lt=1.0, description="share of the training with this loss alone, at first"
    )


def _ab_extras(pair: Pair, parameters: AbParameters) -> nn.Module:
    return Connectors(pair, sorted(paired_layers(pair, parameters)))


def _ab_terms(step: Step) -> Terms:
    chosen: AbParameters = step.parameters
    assert step.extras is not None
    nothing = step.student.logits.new_zeros(())
    if step.progress < chosen.initialisation:
        student, teacher = step.extras(step.student.preactivations, step.of_teacher.preactivations)
        return {"ce": nothing, "kd": nothing, "ab": chosen.ab_weight * ab_loss(student, teacher, chosen.margin)}
    loss = kd_loss(step.student.logits, step.of_teacher.logits, chosen.temperature)
    return {"ce": chosen.ce_weight * step.cross_entropy, "kd": chosen.kd_weight * loss, "ab": nothing}


AB = Method(
    name="ab",
    title="Activation boundaries",
    role="distilled",
    family="features",
    terms=_ab_terms,
    needs=("logits", "preactivations"),
    parameters=AbParameters,
    extras=_ab_extras,
    refuse=refuse_without_preactivations,
    formula="first 30/270 of the training: 0.003 sum over layers, each half of the next, of relu(1 - s)^2 where the "
    "teacher's neuron is active, relu(1 + s)^2 elsewhere, s = R(map_student); then 0.1 CE + 0.9 KD, T = 4",
    summary="The student starts from the teacher's pattern of active and inactive neurons, then learns by KD.",
    citation="Heo, Lee, Yun & Choi, Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden "
    "Neurons, 2019",
    differs="The paper initialises the student first and trains it after, each with a schedule of its own; here both "
    "share the steps and the schedule. What follows is KD as kd has it; the authors' code takes T = 3, no T^2 and no "
    "labels, published benchmarks labels alone (kd_weight = 0, ce_weight = 1). Maps are those before the activation "
    "that ends a layer; a layer that ends in none (transformer blocks, linear bottlenecks) is split at 0 as it is. The "
    "teacher is frozen; the authors' code leaves its batch norm in training mode.",
)

METHODS = (AB,)
