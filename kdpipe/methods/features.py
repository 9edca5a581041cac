"""Distillation of feature maps."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.networks import Tap, pair_by_depth


def fitnet_loss(map_student: Tensor, map_teacher: Tensor) -> Tensor:
    """Mean squared error between a regressed student map and the teacher's hint.

    Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, equation 3 (as a mean over elements).

    Args:
        map_student: (B, C, H, W), already brought to the teacher's channels.
        map_teacher: (B, C, H, W).
    """
    return F.mse_loss(map_student.float(), map_teacher.float())


class Regressor(nn.Module):
    """1x1 convolution and batch norm from the student's channels to the teacher's.

    Maps of different size meet at the smaller of the two, by adaptive average pooling.
    """

    def __init__(self, student: Tap, teacher: Tap, student_index: int, teacher_index: int) -> None:
        super().__init__()
        self.student_index, self.teacher_index = student_index, teacher_index
        self.size = (min(student.shape[1], teacher.shape[1]), min(student.shape[2], teacher.shape[2]))
        self.project = nn.Sequential(
            nn.Conv2d(student.shape[0], teacher.shape[0], 1, bias=False), nn.BatchNorm2d(teacher.shape[0])
        )

    def forward(self, maps_student: list[Tensor], maps_teacher: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The pair of maps to compare."""
        student = F.adaptive_avg_pool2d(maps_student[self.student_index], self.size)
        teacher = F.adaptive_avg_pool2d(maps_teacher[self.teacher_index], self.size)
        return self.project(student), teacher


class FitNetParameters(Parameters):
    ce_weight: float = Field(default=1.0, ge=0.0)
    hint_weight: float = Field(default=100.0, ge=0.0)
    depth: float = Field(default=0.5, ge=0.0, le=1.0, description="relative depth of the guided layer")


def _hint(pair: Pair, depth: float) -> tuple[int, int]:
    """Indices of the student's guided tap and of the teacher's tap at that depth."""
    # Rounded, so that a tie between two layers is a tie, and the later of them is taken.
    student = min(range(len(pair.student)), key=lambda i: (round(abs(pair.student[i].relative_depth - depth), 6), -i))
    return student, pair_by_depth(pair.student, pair.teacher)[student]


def _fitnet_extras(pair: Pair, parameters: FitNetParameters) -> nn.Module:
    student, teacher = _hint(pair, parameters.depth)
    return Regressor(pair.student[student], pair.teacher[teacher], student, teacher)


def _fitnet_refuse(pair: Pair, parameters: FitNetParameters) -> str | None:
    student, teacher = _hint(pair, parameters.depth)
    return refuse_points([pair.student[student], pair.teacher[teacher]])


def refuse_points(taps: list[Tap]) -> str | None:
    """Why a spatial method cannot use these taps: a map under 2x2 has no space left in it."""
    for tap in taps:
        if min(tap.shape[1:]) < 2:
            return (
                f"layer {tap.layer} has a {tap.shape[1]}x{tap.shape[2]} map, on which a spatial method means "
                "nothing; use stem = 'small', larger images or an earlier layer"
            )
    return None


def _fitnet_terms(step: Step) -> Terms:
    chosen: FitNetParameters = step.parameters
    assert step.extras is not None
    labelled = step.student.logits[: len(step.target)]
    student, teacher = step.extras(step.student.maps, step.of_teacher.maps)
    return {
        "ce": chosen.ce_weight * F.cross_entropy(labelled, step.target),
        "hint": chosen.hint_weight * fitnet_loss(student, teacher),
    }


FITNET = Method(
    name="fitnet",
    title="FitNet hints",
    role="distilled",
    terms=_fitnet_terms,
    needs_teacher=True,
    parameters=FitNetParameters,
    extras=_fitnet_extras,
    refuse=_fitnet_refuse,
    formula="CE + 100 MSE(R(map_student), map_teacher) at the middle layer, R = 1x1 convolution + batch norm",
    summary="The student's middle layer is regressed onto the teacher's, together with the labels in one stage.",
    citation="Romero et al., FitNets: Hints for Thin Deep Nets, 2015 (there in two stages)",
)
