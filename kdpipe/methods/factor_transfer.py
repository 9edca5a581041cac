"""Distillation of factors: the teacher's last map paraphrased without labels, the student's translated to it."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.layers import meet
from kdpipe.methods.numerics import full_precision, unit, wide

_SLOPE = 0.1


@full_precision
def ft_loss(factor_student: Tensor, factor_teacher: Tensor, p: int = 1) -> Tensor:
    """Factor transfer: the mean p-th power of the differences of two factors, each at Euclidean length 1 an image.

    Kim, Park & Kwak, "Paraphrasing Complex Network: Network Compression via Factor Transfer", 2018, section 3.2,
    as a mean over elements and images.

    Args:
        factor_student, factor_teacher: (B, C, H, W), of the same channels; maps of different size meet at the smaller.
        p: 1 or 2.

    Raises:
        ValueError: another p.
    """
    if p not in (1, 2):
        raise ValueError(f"ft_loss takes p = 1 or p = 2, not {p}.")
    student, teacher = (unit(factor.flatten(1)) for factor in meet(wide(factor_student), wide(factor_teacher)))
    return F.l1_loss(student, teacher) if p == 1 else F.mse_loss(student, teacher)


@full_precision
def reconstruction_loss(rebuilt: Tensor, map_teacher: Tensor) -> Tensor:
    """Mean squared error of a paraphraser, which sees no labels.

    Kim, Park & Kwak, 2018, section 3.1.

    Args:
        rebuilt, map_teacher: (B, C, H, W).
    """
    return F.mse_loss(wide(rebuilt), wide(map_teacher))


def _layers(kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], widths: list[int]) -> nn.Sequential:
    """3x3 layers with batch norm and leaky ReLU, of the given widths from input to output."""
    made: list[nn.Module] = []
    for before, after in pairwise(widths):
        # A mean over all batches: the paraphraser is frozen after few of them.
        norm = nn.BatchNorm2d(after, momentum=None)
        made += [kind(before, after, 3, padding=1, bias=False), norm, nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*made)


class Paraphraser(nn.Module):
    """An autoencoder of the teacher's map (B, channels, H, W), whose code (B, width, H, W) is the teacher's factor."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.encoder = _layers(nn.Conv2d, [channels, channels, width, width])
        self.decoder = _layers(nn.ConvTranspose2d, [width, width, channels, channels])

    def forward(self, map_teacher: Tensor) -> tuple[Tensor, Tensor]:
        """The factor, and the map rebuilt from it."""
        factor = self.encoder(map_teacher)
        return factor, self.decoder(factor)


class Factors(nn.Module):
    """A :class:`Paraphraser` of the teacher, and a translator from the student's map to a factor of the same width."""

    def __init__(self, student: int, teacher: int, width: int) -> None:
        super().__init__()
        self.paraphraser = Paraphraser(teacher, width)
        self.translator = _layers(nn.Conv2d, [student, student, width, width])


class FtParameters(Parameters):
    """Parameters of factor transfer."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    ft_weight: float = Field(default=500.0, ge=0.0)
    reconstruction_weight: float = Field(default=1.0, gt=0.0)
    rate: float = Field(default=0.5, gt=0.0, description="channels of a factor, as a share of the teacher's")
    p: Literal[1, 2] = Field(default=1, description="power of the differences between factors")
    paraphrasing: float = Field(
        default=30 / 270, gt=0.0, lt=1.0, description="share of the training in which the paraphraser learns, at first"
    )


def _ft_extras(pair: Pair, parameters: FtParameters) -> nn.Module:
    student, teacher = pair.student.taps[-1].shape[0], pair.teacher.taps[-1].shape[0]
    return Factors(student, teacher, max(1, round(parameters.rate * teacher)))


def _ft_terms(step: Step) -> Terms:
    chosen: FtParameters = step.parameters
    assert isinstance(step.extras, Factors)
    paraphraser, map_teacher = step.extras.paraphraser, step.of_teacher.maps[-1]
    terms = {"ce": chosen.ce_weight * step.cross_entropy}
    nothing = step.student.logits.new_zeros(())
    if step.progress < chosen.paraphrasing:
        _, rebuilt = paraphraser(map_teacher)
        loss = reconstruction_loss(rebuilt, map_teacher)
        return terms | {"reconstruction": chosen.reconstruction_weight * loss, "ft": nothing}
    # Without a gradient the optimiser leaves the paraphraser alone, its momentum and weight decay too.
    factor = paraphraser.eval().encoder(map_teacher).detach()
    loss = ft_loss(step.extras.translator(step.student.maps[-1]), factor, chosen.p)
    return terms | {"reconstruction": nothing, "ft": chosen.ft_weight * loss}


FT = Method(
    name="ft",
    title="Factor transfer",
    role="distilled",
    family="features",
    terms=_ft_terms,
    needs=("maps",),
    parameters=FtParameters,
    extras=_ft_extras,
    formula="first 30/270 of the training: CE + MSE(P(map_teacher), map_teacher); then CE + 500 mean |F_student / "
    "|F_student| - F_teacher / |F_teacher||, F_teacher = code of the autoencoder P, F_student = translated last map",
    summary="An autoencoder puts the teacher's last map in other words, and the student learns to translate into them.",
    citation="Kim, Park & Kwak, Paraphrasing Complex Network: Network Compression via Factor Transfer, 2018",
    differs="The paper trains the paraphraser before the student; here it learns during the first part of the "
    "training, in which the student has its labels alone, and is frozen then, so that steps stay equal. The norm of "
    "the difference is a mean over elements, as in the authors' code, which the weight of 500 belongs to. Widespread "
    "code averages the squared factor over channels first, which leaves an attention map of it.",
)

METHODS = (FT,)
