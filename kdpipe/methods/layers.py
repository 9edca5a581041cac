"""Layers of a student and of its teacher: which go together, which cannot, and where their maps meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Pair, Parameters
from kdpipe.models.network import Network, Outputs
from kdpipe.models.profile import Tap, pair_by_depth
from kdpipe.names import closest


class LayerParameters(Parameters):
    """Parameters of a method on several layers; ``pairs`` names them, by default all student layers by depth."""

    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None = Field(
        default=None, min_length=1, description="[student layer, teacher layer] for each pair"
    )


def paired_layers(pair: Pair, parameters: LayerParameters) -> list[tuple[int, int]]:
    """Indices (student tap, teacher tap): those that ``pairs`` names, or every student tap by relative depth."""
    if parameters.pairs is None:
        return list(enumerate(pair_by_depth(pair.student.taps, pair.teacher.taps)))
    student, teacher = ([tap.layer for tap in profile.taps] for profile in (pair.student, pair.teacher))
    return [(student.index(own), teacher.index(other)) for own, other in parameters.pairs]


def refuse_names(pair: Pair, parameters: LayerParameters) -> str | None:
    """Which named layer is not among the layers of the study, or which pair is named twice."""
    named = [tuple(names) for names in parameters.pairs or ()]
    if repeated := [names for names in named if named.count(names) > 1]:
        return f"parameters.pairs names {list(repeated[0])} twice"
    for own, other in parameters.pairs or ():
        for name, profile, whose in ((own, pair.student, "student"), (other, pair.teacher, "teacher")):
            known = [tap.layer for tap in profile.taps]
            if name not in known:
                hint = closest(name, known)
                return f"parameters.pairs names layer {name!r}{hint}; the {whose}'s layers are {', '.join(known)}"
    return None


def refuse_without_preactivations(pair: Pair, parameters: LayerParameters) -> str | None:
    """Why a method cannot read maps before the activations that end their layers, or its layers at all."""
    if not (pair.student.has_preactivations and pair.teacher.has_preactivations):
        return "it reads maps before their activations, which are found in timm's networks alone"
    return refuse_names(pair, parameters)


def refuse_points(taps: list[Tap]) -> str | None:
    """Why a spatial method cannot use these taps: a map under 2x2 has no space left in it."""
    for tap in taps:
        if min(tap.shape[1:]) < 2:
            return (
                f"layer {tap.layer} has a {tap.shape[1]}x{tap.shape[2]} map, on which a spatial method means "
                "nothing; use stem = 'small', larger images or an earlier layer"
            )
    return None


def refuse_layers(pair: Pair, parameters: LayerParameters) -> str | None:
    """:func:`refuse_names`, then :func:`refuse_points` on every layer that takes part."""
    if reason := refuse_names(pair, parameters):
        return reason
    chosen = paired_layers(pair, parameters)
    return refuse_points([tap for own, other in chosen for tap in (pair.student.taps[own], pair.teacher.taps[other])])


def refuse_final_points(pair: Pair) -> str | None:
    """Why a spatial method cannot use the last maps: one under 2x2 has no space left in it."""
    for profile, whose in ((pair.student, "student"), (pair.teacher, "teacher")):
        _, height, width = profile.final
        if min(height, width) < 2:
            return (
                f"the {whose}'s last map is {height}x{width}, on which a spatial method means nothing; "
                "use stem = 'small' or larger images"
            )
    return None


def final_map(network: Network | None, outputs: Outputs) -> Tensor:
    """What the head takes before it pools, as (B, C, H, W), without class or distillation tokens."""
    assert network is not None
    return network.as_map(outputs.final, outputs.maps[-1])


def smaller_size(student: Sequence[int], teacher: Sequence[int]) -> tuple[int, int]:
    """The height and width at which maps of two shapes (..., H, W) meet: the smaller of each."""
    return min(student[-2], teacher[-2]), min(student[-1], teacher[-1])


def meet(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two stacks of maps (..., H, W) at the smaller height and width of the two, by adaptive average pooling."""
    size = smaller_size(student.shape, teacher.shape)
    return F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)


class LayerPairs(nn.Module):
    """Which layers a method compares; nothing in it is trained."""

    def __init__(self, indices: list[tuple[int, int]]) -> None:
        super().__init__()
        self.indices = indices

    def forward(self, maps_student: list[Tensor], maps_teacher: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The student's maps and the teacher's, pair by pair."""
        return [maps_student[own] for own, _ in self.indices], [maps_teacher[other] for _, other in self.indices]


def compared_layers(pair: Pair, parameters: LayerParameters) -> LayerPairs:
    """The extras of a method that compares layers as they are."""
    return LayerPairs(paired_layers(pair, parameters))
