"""Distillation of feature maps, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Step, Terms
from kdpipe.methods.layers import (
    LayerParameters,
    compared_layers,
    meet,
    paired_layers,
    refuse_layers,
    refuse_names,
    refuse_points,
    smaller_size,
)
from kdpipe.methods.numerics import full_precision, unit, wide
from kdpipe.models.profile import Tap, pair_by_depth

# ----------------------------------------------------------------------------------------- fitnet


@full_precision
def fitnet_loss(map_student: Tensor, map_teacher: Tensor) -> Tensor:
    """Mean squared error between a regressed student map and the teacher's hint.

    Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, equation 3 (as a mean over elements).

    Args:
        map_student: (B, C, H, W), already brought to the teacher's channels.
        map_teacher: (B, C, H, W).
    """
    return F.mse_loss(wide(map_student), wide(map_teacher))


class Regressor(nn.Module):
    """1x1 convolution and batch norm from the student's channels to the teacher's.

    Maps of different size meet at the smaller of the two, by adaptive average pooling.
    """

    def __init__(self, student: Tap, teacher: Tap, student_index: int, teacher_index: int) -> None:
        super().__init__()
        self.student_index, self.teacher_index = student_index, teacher_index
        self.size = smaller_size(student.shape, teacher.shape)
        self.project = nn.Sequential(
            nn.Conv2d(student.shape[0], teacher.shape[0], 1, bias=False), nn.BatchNorm2d(teacher.shape[0])
        )

    def forward(self, maps_student: list[Tensor], maps_teacher: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The pair of maps to compare."""
        student = F.adaptive_avg_pool2d(maps_student[self.student_index], self.size)
        teacher = F.adaptive_avg_pool2d(maps_teacher[self.teacher_index], self.size)
        return self.project(student), teacher


class FitNetParameters(LayerParameters):
    """Parameters of FitNet hints."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    hint_weight: float = Field(default=100.0, ge=0.0)
    depth: float = Field(default=0.5, ge=0.0, le=1.0, description="relative depth of the guided layer")
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None = Field(
        default=None, min_length=1, max_length=1, description="[[student layer, teacher layer]], instead of depth"
    )


def _hint(pair: Pair, parameters: FitNetParameters) -> tuple[int, int]:
    """Indices of the student's guided tap and of the teacher's: as named, or at the asked depth."""
    if parameters.pairs is not None:
        return paired_layers(pair, parameters)[0]
    # Rounded, so that a tie between two layers is a tie, and the later of them is taken.
    taps = pair.student.taps
    student = min(range(len(taps)), key=lambda i: (round(abs(taps[i].relative_depth - parameters.depth), 6), -i))
    return student, pair_by_depth(taps, pair.teacher.taps)[student]


def _fitnet_extras(pair: Pair, parameters: FitNetParameters) -> nn.Module:
    student, teacher = _hint(pair, parameters)
    return Regressor(pair.student.taps[student], pair.teacher.taps[teacher], student, teacher)


def _fitnet_refuse(pair: Pair, parameters: FitNetParameters) -> str | None:
    if reason := refuse_names(pair, parameters):
        return reason
    student, teacher = _hint(pair, parameters)
    return refuse_points([pair.student.taps[student], pair.teacher.taps[teacher]])


def _fitnet_terms(step: Step) -> Terms:
    chosen: FitNetParameters = step.parameters
    assert step.extras is not None
    student, teacher = step.extras(step.student.maps, step.of_teacher.maps)
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "hint": chosen.hint_weight * fitnet_loss(student, teacher),
    }


FITNET = Method(
    name="fitnet",
    title="FitNet hints",
    role="distilled",
    family="features",
    terms=_fitnet_terms,
    needs=("maps",),
    parameters=FitNetParameters,
    extras=_fitnet_extras,
    refuse=_fitnet_refuse,
    formula="CE + 100 MSE(R(map_student), map_teacher) at the middle layer, R = 1x1 convolution + batch norm",
    summary="The student's middle layer is regressed onto the teacher's, together with the labels in one stage.",
    citation="Romero et al., FitNets: Hints for Thin Deep Nets, 2015",
    differs="The paper trains up to the hint first and distils logits after; here hint and labels share one stage.",
)


# --------------------------------------------------------------------------------------------- at


@full_precision
def at_loss(maps_student: Sequence[Tensor], maps_teacher: Sequence[Tensor]) -> Tensor:
    """Attention transfer: the squared distance of L2-normalised attention maps, summed over layers.

    Zagoruyko & Komodakis, "Paying More Attention to Attention", 2017, equation 2 with attention
    F(A) = sum over channels of A². Squared and averaged over positions and images, as the published
    beta of 1000 is one "divided by the number of elements in the attention map and the batch size".

    Args:
        maps_student, maps_teacher: a pair of (B, C, H, W) a layer, of any channels; attention maps of
            different size meet at the smaller.
    """
    losses = []
    for own, other in zip(maps_student, maps_teacher, strict=True):
        student, teacher = meet(_attention(wide(own)), _attention(wide(other)))
        losses.append(F.mse_loss(unit(student.flatten(1)), unit(teacher.flatten(1))))
    return torch.stack(losses).sum()


def _attention(maps: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H, W); the mean in place of the sum is the same after normalisation, and smaller."""
    return maps.square().mean(1)


class AtParameters(LayerParameters):
    """Parameters of attention transfer."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    at_weight: float = Field(default=1000.0, ge=0.0)


def _at_terms(step: Step) -> Terms:
    chosen: AtParameters = step.parameters
    assert step.extras is not None
    student, teacher = step.extras(step.student.maps, step.of_teacher.maps)
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "at": chosen.at_weight * at_loss(student, teacher),
    }


AT = Method(
    name="at",
    title="Attention transfer",
    role="distilled",
    family="features",
    terms=_at_terms,
    needs=("maps",),
    parameters=AtParameters,
    extras=compared_layers,
    refuse=refuse_layers,
    formula="CE + 1000 sum over layers of MSE(Q_student / |Q_student|, Q_teacher / |Q_teacher|), Q = sum_c map_c^2",
    summary="The student puts its activation where the teacher puts its own, in every layer.",
    citation="Zagoruyko & Komodakis, Paying More Attention to Attention, 2017",
    differs="Equation 2 writes beta / 2 and a distance that is not squared; as in the published code, beta = 1000 "
    "weighs the mean squared difference. Attention maps of different size meet at the smaller by average pooling.",
)


# -------------------------------------------------------------------------------------------- vid


@full_precision
def vid_loss(map_student: Tensor, map_teacher: Tensor, log_scale: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Variational information distillation: Gaussian negative log-likelihood of the teacher's map.

    Ahn et al., "Variational Information Distillation for Knowledge Transfer", 2019, equations 4 to 6:
    log sigma + (teacher - mean)² / (2 sigma²), sigma² = softplus(log_scale) + epsilon for each channel.
    The constant log sqrt(2 pi) is left out; it is a mean over elements, so it may be negative.

    Args:
        map_student: (B, C, H, W), the predicted mean.
        map_teacher: (B, C, H, W); maps of different size meet at the smaller.
        log_scale: (C,), what softplus takes to the variance.
    """
    student, teacher = meet(wide(map_student), wide(map_teacher))
    variance = (F.softplus(wide(log_scale)) + epsilon).view(1, -1, 1, 1)
    return 0.5 * (variance.log() + (teacher - student).square() / variance).mean()


class Observer(nn.Module):
    """Predicts a layer of the teacher from one of the student: 1x1 convolutions, and a log-scale a channel."""

    def __init__(self, student: Tap, teacher: Tap, variance: float) -> None:
        super().__init__()
        width = teacher.shape[0]
        self.size = smaller_size(student.shape, teacher.shape)
        self.mean = nn.Sequential(
            nn.Conv2d(student.shape[0], width, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1, bias=False),
        )
        # softplus(log_scale) = variance
        self.log_scale = nn.Parameter(torch.full((width,), variance + math.log(-math.expm1(-variance))))

    def forward(self, map_student: Tensor) -> Tensor:
        """The teacher's map, as predicted from the student's (B, C, H, W)."""
        return self.mean(F.adaptive_avg_pool2d(map_student, self.size))


class Observers(nn.Module):
    """An :class:`Observer` for each pair of layers."""

    def __init__(self, pair: Pair, indices: list[tuple[int, int]], variance: float) -> None:
        super().__init__()
        self.indices = indices
        self.layers = nn.ModuleList(
            Observer(pair.student.taps[own], pair.teacher.taps[other], variance) for own, other in indices
        )

    def forward(self, maps_student: list[Tensor], maps_teacher: list[Tensor], epsilon: float) -> Tensor:
        """The sum of :func:`vid_loss` over the pairs of layers."""
        losses = []
        for layer, (own, other) in zip(self.layers, self.indices, strict=True):
            assert isinstance(layer, Observer)
            losses.append(vid_loss(layer(maps_student[own]), maps_teacher[other], layer.log_scale, epsilon=epsilon))
        return torch.stack(losses).sum()


class VidParameters(LayerParameters):
    """Parameters of variational information distillation."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    vid_weight: float = Field(default=1.0, ge=0.0)
    initial_variance: float = Field(default=5.0, gt=0.0)
    epsilon: float = Field(default=1e-5, gt=0.0, description="least variance")


def _vid_extras(pair: Pair, parameters: VidParameters) -> nn.Module:
    return Observers(pair, paired_layers(pair, parameters), parameters.initial_variance)


def _vid_terms(step: Step) -> Terms:
    chosen: VidParameters = step.parameters
    assert step.extras is not None
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "vid": chosen.vid_weight * step.extras(step.student.maps, step.of_teacher.maps, chosen.epsilon),
    }


VID = Method(
    name="vid",
    title="Variational information distillation",
    role="distilled",
    family="features",
    terms=_vid_terms,
    needs=("maps",),
    parameters=VidParameters,
    extras=_vid_extras,
    refuse=refuse_names,
    formula="CE + sum over layers of mean(log sigma + (map_teacher - R(map_student))^2 / (2 sigma^2)), "
    "sigma^2 = softplus(a) + 1e-5 learned for each channel",
    summary="The student's layers are to tell as much as they can of the teacher's, channel by channel.",
    citation="Ahn et al., Variational Information Distillation for Knowledge Transfer, 2019",
    differs="The paper sums the likelihood over a map; as in published code, it is averaged, which the weight of 1 "
    "belongs to. Maps of different size meet at the smaller by average pooling, not by strided convolutions.",
)

METHODS = (FITNET, AT, VID)
