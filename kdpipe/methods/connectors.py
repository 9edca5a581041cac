"""Trained 1x1 convolutions that bring a student's layers to the channels of its teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdpipe.methods.base import Pair
from kdpipe.methods.layers import smaller_size
from kdpipe.models.profile import Tap


def connector(student: Tap, teacher: Tap) -> nn.Module:
    """1x1 convolution and batch norm from the student's channels to the teacher's, for maps of any size."""
    convolution = nn.Conv2d(student.shape[0], teacher.shape[0], 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(teacher.shape[0]))


class Connectors(nn.Module):
    """A :func:`connector` for each pair of layers; maps of different size meet at the smaller of the two."""

    def __init__(self, pair: Pair, indices: list[tuple[int, int]]) -> None:
        super().__init__()
        self.indices = indices
        taps = [(pair.student.taps[own], pair.teacher.taps[other]) for own, other in indices]
        self.sizes = [smaller_size(student.shape, teacher.shape) for student, teacher in taps]
        self.layers = nn.ModuleList(connector(student, teacher) for student, teacher in taps)

    def forward(self, maps_student: list[Tensor], maps_teacher: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The student's connected maps and the teacher's, each (B, C, H, W) of one shape, pair by pair."""
        student, teacher = [], []
        for layer, size, (own, other) in zip(self.layers, self.sizes, self.indices, strict=True):
            student.append(layer(F.adaptive_avg_pool2d(maps_student[own], size)))
            teacher.append(F.adaptive_avg_pool2d(maps_teacher[other], size))
        return student, teacher


class ChannelProjections(nn.Module):
    """Pairs of layers for losses that want one number of channels; where it is the same, maps stay as they are."""

    def __init__(self, pair: Pair, indices: list[tuple[int, int]]) -> None:
        super().__init__()
        self.indices = indices
        self.layers = nn.ModuleList(
            _projection(pair.student.taps[own].shape[0], pair.teacher.taps[other].shape[0]) for own, other in indices
        )

    def forward(self, maps_student: list[Tensor], maps_teacher: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The student's maps in the teacher's channels and the teacher's maps, pair by pair; sizes are untouched."""
        pairs = zip(self.layers, self.indices, strict=True)
        return [layer(maps_student[own]) for layer, (own, _) in pairs], [
            maps_teacher[other] for _, other in self.indices
        ]


def _projection(student: int, teacher: int) -> nn.Module:
    return nn.Identity() if student == teacher else nn.Conv2d(student, teacher, 1, bias=False)
