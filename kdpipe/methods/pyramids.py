"""Distillation of feature maps through pyramids: the student's layers are fused from deep to shallow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Step, Terms
from kdpipe.methods.layers import LayerParameters, meet, paired_layers, refuse_layers, smaller_size
from kdpipe.methods.numerics import full_precision, wide
from kdpipe.models.profile import Tap

LEVELS = (4, 2, 1)
_WIDEST = 512


@full_precision
def reviewkd_loss(maps_student: Sequence[Tensor], maps_teacher: Sequence[Tensor]) -> Tensor:
    """Hierarchical context loss: squared differences of maps and of what they pool to, summed over layers.

    Chen et al., "Distilling Knowledge via Knowledge Review", 2021, section 3.4 (equation 7 and figure 4):
    a map counts 1 and its poolings to 4x4, 2x2 and 1x1, where they are smaller, 1/2, 1/4 and 1/8; the
    weighted mean of these is a layer's loss.

    Args:
        maps_student, maps_teacher: a pair of (B, C, H, W) a layer, of the same channels; maps of
            different size meet at the smaller.
    """
    losses = []
    for own, other in zip(maps_student, maps_teacher, strict=True):
        student, teacher = meet(wide(own), wide(other))
        loss, weight, total = F.mse_loss(student, teacher), 1.0, 1.0
        for level in LEVELS:
            if level < min(student.shape[2:]):
                weight /= 2
                own, other = F.adaptive_avg_pool2d(student, level), F.adaptive_avg_pool2d(teacher, level)
                loss = loss + weight * F.mse_loss(own, other)
                total += weight
        losses.append(loss / total)
    return torch.stack(losses).sum()


class Fusion(nn.Module):
    """Attention-based fusion: a layer of the student and what came of the deeper ones, weighed at each position."""

    def __init__(self, student: Tap, teacher: Tap, width: int, deepest: bool) -> None:
        super().__init__()
        self.size = smaller_size(student.shape, teacher.shape)
        self.enter = nn.Sequential(nn.Conv2d(student.shape[0], width, 1, bias=False), nn.BatchNorm2d(width))
        self.attend = None if deepest else nn.Conv2d(2 * width, 2, 1)
        self.leave = nn.Sequential(
            nn.Conv2d(width, teacher.shape[0], 3, padding=1, bias=False), nn.BatchNorm2d(teacher.shape[0])
        )

    def forward(self, map_student: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """The map to compare with the teacher's, and the fused one for the next layer up."""
        fused = self.enter(map_student)
        if self.attend is not None and deeper is not None:
            deeper = F.interpolate(deeper, fused.shape[2:], mode="nearest")
            attention = self.attend(torch.cat([fused, deeper], 1)).sigmoid()
            fused = fused * attention[:, :1] + deeper * attention[:, 1:]
        return self.leave(F.adaptive_avg_pool2d(fused, self.size)), fused


class Review(nn.Module):
    """Fusions from the deepest layer to the shallowest."""

    def __init__(self, pair: Pair, indices: list[tuple[int, int]]) -> None:
        super().__init__()
        self.indices = sorted(indices, reverse=True)
        student, teacher = pair.student.taps, pair.teacher.taps
        width = min(_WIDEST, student[self.indices[0][0]].shape[0])
        self.fusions = nn.ModuleList(
            Fusion(student[own], teacher[other], width, deepest=place == 0)
            for place, (own, other) in enumerate(self.indices)
        )

    def forward(self, maps_student: list[Tensor], maps_teacher: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The student's fused maps and the teacher's, each (B, C, H, W), pair by pair, the deepest first."""
        reviewed: list[Tensor] = []
        fused = None
        for fusion, (own, _) in zip(self.fusions, self.indices, strict=True):
            made, fused = fusion(maps_student[own], fused)
            reviewed.append(made)
        return reviewed, [maps_teacher[other] for _, other in self.indices]


class ReviewKdParameters(LayerParameters):
    """Parameters of ReviewKD."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    reviewkd_weight: float = Field(default=1.0, ge=0.0)
    warmup: float = Field(default=20 / 240, ge=0.0, le=1.0, description="share of the training with a rising weight")


def _reviewkd_extras(pair: Pair, parameters: ReviewKdParameters) -> nn.Module:
    return Review(pair, paired_layers(pair, parameters))


def _reviewkd_terms(step: Step) -> Terms:
    chosen: ReviewKdParameters = step.parameters
    assert step.extras is not None
    student, teacher = step.extras(step.student.maps, step.of_teacher.maps)
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "reviewkd": chosen.reviewkd_weight * step.ramp(chosen.warmup) * reviewkd_loss(student, teacher),
    }


REVIEWKD = Method(
    name="reviewkd",
    title="Knowledge review",
    role="distilled",
    family="features",
    terms=_reviewkd_terms,
    needs=("maps",),
    parameters=ReviewKdParameters,
    extras=_reviewkd_extras,
    refuse=refuse_layers,
    formula="CE + sum over layers of the weighted mean of MSE at full size, 4x4, 2x2 and 1x1, "
    "between the teacher's map and the student's own fused with its deeper ones; rises over 20/240 of the training",
    summary="Deeper layers of the student help its shallower ones to match the teacher's, at several resolutions.",
    citation="Chen et al., Distilling Knowledge via Knowledge Review, 2021",
    differs="Published code also reviews the pooled vector before the classifier, as a map of 1x1; here it is spatial "
    "layers alone. Maps of different size meet at the smaller by average pooling; code resizes to the teacher's.",
)

METHODS = (REVIEWKD,)
