"""Distillation of neuron selectivity: what the channels of a map respond to, as a distribution over channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from kdpipe.methods.base import Method, Step, Terms
from kdpipe.methods.layers import LayerParameters, compared_layers, meet, refuse_layers
from kdpipe.methods.numerics import full_precision, unit, wide


@full_precision
def nst_loss(maps_student: Sequence[Tensor], maps_teacher: Sequence[Tensor]) -> Tensor:
    """Neuron selectivity transfer: squared maximum mean discrepancy between two sets of channels, summed over layers.

    A channel is the vector of its activations over the positions, at length 1; the kernel is (xᵀy)². Maps of different
    size meet at the smaller, by adaptive average pooling; the numbers of channels may differ.

    Huang & Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", 2017, section 4.

    Args:
        maps_student, maps_teacher: lists of (B, C, H, W), pair by pair.
    """
    pairs = zip(maps_student, maps_teacher, strict=True)
    return torch.stack([_discrepancy(wide(student), wide(teacher)) for student, teacher in pairs]).sum()


def _discrepancy(student: Tensor, teacher: Tensor) -> Tensor:
    one, two = (unit(part.flatten(2)) for part in meet(student, teacher))
    return _mean_kernel(one, one) + _mean_kernel(two, two) - 2 * _mean_kernel(one, two)


def _mean_kernel(one: Tensor, two: Tensor) -> Tensor:
    """Mean over images and pairs of channels of (xᵀy)², for (B, C, P) and (B, D, P)."""
    channels = one.shape[1] * two.shape[1]
    if one.shape[2] ** 2 > channels:
        return (one @ two.transpose(1, 2)).square().mean()
    # The same sum as a product of position by position matrices, which are small in a network's last stages.
    grams = [part.transpose(1, 2) @ part for part in (one, two)]
    return (grams[0] * grams[1]).sum((1, 2)).mean() / channels


class NstParameters(LayerParameters):
    """Parameters of NST."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    nst_weight: float = Field(default=50.0, ge=0.0)


def _nst_terms(step: Step) -> Terms:
    chosen: NstParameters = step.parameters
    assert step.extras is not None
    loss = nst_loss(*step.extras(step.student.maps, step.of_teacher.maps))
    return {"ce": chosen.ce_weight * step.cross_entropy, "nst": chosen.nst_weight * loss}


NST = Method(
    name="nst",
    title="Neuron selectivity transfer",
    role="distilled",
    family="relations",
    terms=_nst_terms,
    needs=("maps",),
    parameters=NstParameters,
    extras=compared_layers,
    refuse=refuse_layers,
    formula="CE + 50 sum over layers of MMD^2(channels of the student, channels of the teacher), kernel (x^T y)^2",
    summary="The student's channels look at the same places as the teacher's, as a distribution of channels.",
    citation="Huang & Wang, Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, 2017",
    differs="The paper matches one late layer; here, as in published benchmarks, all layers that are looked at are "
    "summed.",
)

METHODS = (NST,)
