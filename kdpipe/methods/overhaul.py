"""Distillation of maps before their ReLU, of which only what the ReLU lets through must be met."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Step, Terms
from kdpipe.methods.boundaries import halved_towards_the_first
from kdpipe.methods.connectors import Connectors
from kdpipe.methods.layers import LayerParameters, meet, paired_layers, refuse_without_preactivations
from kdpipe.methods.numerics import full_precision, wide


@full_precision
def ofd_loss(maps_student: Sequence[Tensor], maps_teacher: Sequence[Tensor], margins: Sequence[Tensor]) -> Tensor:
    """Overhaul of feature distillation: partial L2 distance to the teacher's map after a margin ReLU.

    The margin ReLU is max(x, m) with a margin m <= 0 a channel. Where it leaves a value that is not above 0 and the
    student is at or below it, nothing counts: both are inactive. Squares are summed over a map and averaged over
    images. The last layer counts 1, and each before it half of the next.

    Heo et al., "A Comprehensive Overhaul of Feature Distillation", 2019, section 3 (margin ReLU, partial L2).

    Args:
        maps_student, maps_teacher: (B, C, H, W) before their activation, of the same channels, pair by pair and the
            deepest last; maps of different size meet at the smaller.
        margins: (C,) for each pair.
    """
    losses = []
    for own, other, margin in zip(maps_student, maps_teacher, margins, strict=True):
        student, teacher = meet(wide(own), wide(other))
        target = torch.maximum(teacher, wide(margin).view(1, -1, 1, 1))
        both_inactive = (target <= 0) & (student <= target)
        losses.append((student - target).square().masked_fill(both_inactive, 0.0).flatten(1).sum(1).mean())
    return halved_towards_the_first(losses)


class NegativeMeans(nn.Module):
    """The mean of each channel's negative values, over all batches in training mode: the margins of a margin ReLU.

    0 for a channel that had none so far, which leaves it as it is.
    """

    mean: Tensor
    count: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("count", torch.zeros(channels, dtype=torch.int64))

    @torch.no_grad()
    def forward(self, map_teacher: Tensor) -> Tensor:
        """(C,), for a map (B, C, H, W) that counts too."""
        if self.training:
            negative = map_teacher < 0
            more = negative.sum((0, 2, 3))
            self.count += more
            surplus = map_teacher.float().clamp(max=0).sum((0, 2, 3)) - more * self.mean
            self.mean += surplus / self.count.clamp(min=1)
        return self.mean.clone()


class Overhaul(nn.Module):
    """Connectors of the student's layers, and the margins of the teacher's."""

    def __init__(self, pair: Pair, indices: list[tuple[int, int]]) -> None:
        super().__init__()
        self.connectors = Connectors(pair, indices)
        self.margins = nn.ModuleList(NegativeMeans(pair.teacher.taps[other].shape[0]) for _, other in indices)

    def forward(self, maps_student: list[Tensor], maps_teacher: list[Tensor]) -> Tensor:
        """:func:`ofd_loss` of all pairs of layers."""
        student, teacher = self.connectors(maps_student, maps_teacher)
        margins = [margin(part) for margin, part in zip(self.margins, teacher, strict=True)]
        return ofd_loss(student, teacher, margins)


class OfdParameters(LayerParameters):
    """Parameters of the overhaul."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    ofd_weight: float = Field(default=1e-3, ge=0.0)


def _ofd_extras(pair: Pair, parameters: OfdParameters) -> nn.Module:
    return Overhaul(pair, sorted(paired_layers(pair, parameters)))


def _ofd_terms(step: Step) -> Terms:
    chosen: OfdParameters = step.parameters
    assert step.extras is not None
    loss = step.extras(step.student.preactivations, step.of_teacher.preactivations)
    return {"ce": chosen.ce_weight * step.cross_entropy, "ofd": chosen.ofd_weight * loss}


OFD = Method(
    name="ofd",
    title="Overhaul of feature distillation",
    role="distilled",
    family="features",
    terms=_ofd_terms,
    needs=("preactivations",),
    parameters=OfdParameters,
    extras=_ofd_extras,
    refuse=refuse_without_preactivations,
    formula="CE + 0.001 sum over layers, each half of the next, of |R(map_student) - max(map_teacher, m)|^2 before "
    "ReLU, but for what is inactive in both; m = mean of a channel's negative values",
    summary="The student meets the teacher's maps before their ReLU, and is free wherever the ReLU hides both.",
    citation="Heo et al., A Comprehensive Overhaul of Feature Distillation, 2019",
    differs="Margins are measured on the teacher's maps as training goes; published code computes them from the "
    "batch norm before the ReLU as though no shortcut were added to it; where none is, the two agree. Maps are "
    "those before the activation that ends a layer; a layer that ends in none (transformer blocks, linear "
    "bottlenecks, sums of pre-activation networks) is taken as it is. The teacher is frozen; published code leaves its "
    "batch norm in training mode. Maps of different size meet at the smaller by average pooling.",
)

METHODS = (OFD,)
