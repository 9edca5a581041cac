"""Distillation across layers: each of the student's layers learns which of the teacher's suit it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.layers import meet, smaller_size
from kdpipe.methods.logits import kd_loss
from kdpipe.methods.numerics import full_precision, unit, wide


@full_precision
def layer_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Which teacher layers each student layer attends to, image by image.

    Chen et al., "Cross-Layer Distillation with Semantic Calibration", 2021, attention allocation; on unit
    vectors, as in the authors' code.

    Args:
        queries: (B, S, D) of the student's layers.
        keys: (B, T, D) of the teacher's.

    Returns:
        (B, S, T), whose rows over the T layers sum to 1.
    """
    return (unit(wide(queries)) @ unit(wide(keys)).mT).softmax(2)


@full_precision
def semckd_loss(maps_student: Sequence[Sequence[Tensor]], maps_teacher: Sequence[Tensor], attention: Tensor) -> Tensor:
    """Mean squared differences of all pairs of layers, weighed by attention, averaged over student layers and images.

    Chen et al., "Cross-Layer Distillation with Semantic Calibration", 2021.

    Args:
        maps_student: for each of S student layers and T teacher layers, the student's map (B, C, H, W),
            projected to that teacher layer's channels.
        maps_teacher: T maps (B, C, H, W); maps of different size meet at the smaller.
        attention: (B, S, T).
    """
    distances = torch.stack(
        [torch.stack([_distance(own, other) for own, other in zip(row, maps_teacher, strict=True)], 1)
         for row in maps_student], 1,
    )  # fmt: skip
    return (wide(attention) * distances).sum(2).mean()


def _distance(map_student: Tensor, map_teacher: Tensor) -> Tensor:
    """Mean squared difference of each image, (B,)."""
    student, teacher = meet(wide(map_student), wide(map_teacher))
    return (student - teacher).square().mean((1, 2, 3))


@full_precision
def gram(maps: Tensor) -> Tensor:
    """(B, B) inner products of the maps (B, C, H, W) of a batch's images."""
    vectors = wide(maps).flatten(1)
    return vectors @ vectors.T


class SimilarityEmbedding(nn.Module):
    """Embeds each image's similarities to a batch; those to images that a smaller batch lacks count as 0."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        width = max(batch_size // 4, 1)
        self.batch_size = batch_size
        self.embed = nn.Sequential(nn.Linear(batch_size, 2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, width))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, D) from the maps (B, C, H, W) of a layer."""
        return self.embed(F.pad(gram(maps), (0, self.batch_size - len(maps))))


def _projection(channels_student: int, channels_teacher: int) -> nn.Module:
    between = 2 * channels_teacher
    return nn.Sequential(
        nn.Conv2d(channels_student, between, 1, bias=False),
        nn.BatchNorm2d(between),
        nn.ReLU(inplace=True),
        nn.Conv2d(between, between, 3, padding=1, bias=False),
        nn.BatchNorm2d(between),
        nn.ReLU(inplace=True),
        nn.Conv2d(between, channels_teacher, 1, bias=False),
    )


class SemanticCalibration(nn.Module):
    """Queries, keys, and a projection for each pair of a student layer and a teacher layer."""

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        student, teacher = pair.student.taps, pair.teacher.taps
        self.queries = nn.ModuleList(SimilarityEmbedding(pair.batch_size) for _ in student)
        self.keys = nn.ModuleList(SimilarityEmbedding(pair.batch_size) for _ in teacher)
        self.projections = nn.ModuleList(
            nn.ModuleList(_projection(own.shape[0], other.shape[0]) for other in teacher) for own in student
        )

    def attention(self, maps_student: list[Tensor], maps_teacher: list[Tensor]) -> Tensor:
        """:func:`layer_attention` (B, S, T) of the layers' maps."""
        queries = [embed(part) for embed, part in zip(self.queries, maps_student, strict=True)]
        keys = [embed(part) for embed, part in zip(self.keys, maps_teacher, strict=True)]
        return layer_attention(torch.stack(queries, 1), torch.stack(keys, 1))

    def forward(self, maps_student: list[Tensor], maps_teacher: list[Tensor]) -> Tensor:
        """:func:`semckd_loss` of all maps of both networks."""
        projected = []
        for row, own in zip(self.projections, maps_student, strict=True):
            assert isinstance(row, nn.ModuleList)
            projected.append(
                [
                    project(F.adaptive_avg_pool2d(own, smaller_size(own.shape, other.shape)))
                    for project, other in zip(row, maps_teacher, strict=True)
                ]
            )
        return semckd_loss(projected, maps_teacher, self.attention(maps_student, maps_teacher))


class SemCkdParameters(Parameters):
    """Parameters of SemCKD."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    semckd_weight: float = Field(default=400.0, ge=0.0)
    kd_weight: float = Field(default=1.0, ge=0.0)
    temperature: float = Field(default=4.0, gt=0.0)


def _semckd_extras(pair: Pair, parameters: SemCkdParameters) -> nn.Module:
    return SemanticCalibration(pair)


def _semckd_terms(step: Step) -> Terms:
    chosen: SemCkdParameters = step.parameters
    assert step.extras is not None
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "semckd": chosen.semckd_weight * step.extras(step.student.maps, step.of_teacher.maps),
        "kd": chosen.kd_weight * kd_loss(step.student.logits, step.of_teacher.logits, chosen.temperature),
    }


SEMCKD = Method(
    name="semckd",
    title="Semantic calibration",
    role="distilled",
    family="features",
    terms=_semckd_terms,
    needs=("logits", "maps"),
    parameters=SemCkdParameters,
    extras=_semckd_extras,
    formula="CE + 400 mean over student layers of sum over teacher layers of a MSE(R(map_student), map_teacher) + "
    "T^2 KL(teacher_T || student_T), a = softmax of query times key, both from similarities in the batch, T 4",
    summary="Each layer of the student attends to the teacher's layers that mean the same, and copies those.",
    citation="Chen et al., Cross-Layer Distillation with Semantic Calibration, 2021",
    differs="As in published code, queries and keys have unit length, so that no layer gets more than e^2 times the "
    "attention of another. The weight is that of CIFAR-100, where the learning rate was 0.05: at 0.1 a student of "
    "few layers can diverge, so give it training = { lr = 0.03 }. For ImageNet it is 50. Every pair of layers has "
    "convolutions of its own: look at few layers of deep transformers (layers = [...]).",
)

METHODS = (SEMCKD,)
