"""Distillation of the correlation between the channels of a map."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.connectors import connector
from kdpipe.methods.layers import refuse_points
from kdpipe.methods.numerics import full_precision, unit, wide


@full_precision
def ickd_loss(map_student: Tensor, map_teacher: Tensor) -> Tensor:
    """Inter-channel correlation (ICKD-C): squared difference of two row-normalised channel Gram matrices, over C.

    The rows of G = F Fᵀ, with F the channels as vectors over positions, are divided by their Euclidean length; the
    mean is over images.

    Liu et al., "Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation", 2021, section 3.

    Args:
        map_student, map_teacher: (B, C, H, W), of the same channels and of any sizes.
    """
    student, teacher = (_correlations(wide(part).flatten(2)) for part in (map_student, map_teacher))
    return (student - teacher).square().sum((1, 2)).mean() / student.shape[1]


def _correlations(channels: Tensor) -> Tensor:
    return unit(channels @ channels.mT)


class IckdParameters(Parameters):
    """Parameters of inter-channel correlation."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    ickd_weight: float = Field(default=2.5, ge=0.0)


def _ickd_extras(pair: Pair, parameters: IckdParameters) -> nn.Module:
    return connector(pair.student.taps[-1], pair.teacher.taps[-1])


def _ickd_refuse(pair: Pair, parameters: IckdParameters) -> str | None:
    return refuse_points([pair.student.taps[-1], pair.teacher.taps[-1]])


def _ickd_terms(step: Step) -> Terms:
    chosen: IckdParameters = step.parameters
    assert step.extras is not None
    loss = ickd_loss(step.extras(step.student.maps[-1]), step.of_teacher.maps[-1])
    return {"ce": chosen.ce_weight * step.cross_entropy, "ickd": chosen.ickd_weight * loss}


ICKD = Method(
    name="ickd",
    title="Inter-channel correlation",
    role="distilled",
    family="features",
    terms=_ickd_terms,
    needs=("maps",),
    parameters=IckdParameters,
    extras=_ickd_extras,
    refuse=_ickd_refuse,
    formula="CE + 2.5 / C |rows(F_s F_s^T) - rows(F_t F_t^T)|^2, rows of length 1, F_s = R(last map of the student)",
    summary="Which of the teacher's channels go together, and which do not, holds for the student's last map too.",
    citation="Liu et al., Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation, 2021",
    differs="ICKD-C alone, for classification. As in the authors' code, rows of the Gram matrices have length 1 and "
    "the squares are divided by C once, which the weight of 2.5 belongs to.",
)

METHODS = (ICKD,)
