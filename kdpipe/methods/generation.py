"""Distillation by generation: the teacher's map is made from the student's, of which a part is hidden."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.layers import LayerParameters, final_map, meet, paired_layers, refuse_layers, refuse_names
from kdpipe.methods.numerics import full_precision, wide
from kdpipe.models.profile import Profile


def _aligned(channels_student: int, channels_teacher: int) -> nn.Module:
    """A 1x1 convolution to the teacher's channels, where they differ."""
    if channels_student == channels_teacher:
        return nn.Identity()
    return nn.Conv2d(channels_student, channels_teacher, 1)


def _generator(channels: int) -> nn.Module:
    """Two 3x3 convolutions, which see what stands around a hidden place."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
    )


# -------------------------------------------------------------------------------------------- mgd


@full_precision
def mgd_loss(map_student: Tensor, map_teacher: Tensor) -> Tensor:
    """Squared differences, summed over a map and averaged over images.

    Yang et al., "Masked Generative Distillation", 2022, section 3.

    Args:
        map_student: (B, C, H, W), generated from what was left of the student's map.
        map_teacher: (B, C, H, W).
    """
    return (wide(map_student) - wide(map_teacher)).square().sum((1, 2, 3)).mean()


class MgdParameters(LayerParameters):
    """Parameters of masked generative distillation; ``pairs`` names layers, by default the last of each network."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    mgd_weight: float = Field(default=7e-5, ge=0.0)
    masked: float = Field(default=0.15, ge=0.0, lt=1.0, description="share of the student's map that is hidden")
    masked_over: Literal["channels", "positions"] = Field(default="channels", description="what is hidden")


def _mgd_pairs(pair: Pair, parameters: MgdParameters) -> list[tuple[int, int]]:
    if parameters.pairs is None:
        return [(len(pair.student.taps) - 1, len(pair.teacher.taps) - 1)]
    return paired_layers(pair, parameters)


class Regeneration(nn.Module):
    """Brings a student map to the teacher's channels, hides a part of it and generates the teacher's from the rest."""

    def __init__(self, channels_student: int, channels_teacher: int) -> None:
        super().__init__()
        self.align = _aligned(channels_student, channels_teacher)
        self.generate = _generator(channels_teacher)

    def forward(self, map_student: Tensor, masked: float, over: Literal["channels", "positions"]) -> Tensor:
        """(B, C, H, W) from (B, C_student, H, W); what is hidden is drawn anew for each image."""
        aligned = self.align(map_student)
        images, channels, height, width = aligned.shape
        shape = (images, channels, 1, 1) if over == "channels" else (images, 1, height, width)
        hidden = torch.rand(shape, device=aligned.device) < masked
        return self.generate(aligned.masked_fill(hidden, 0.0))


class Regenerations(nn.Module):
    """A :class:`Regeneration` for each pair of layers."""

    def __init__(self, pair: Pair, indices: list[tuple[int, int]]) -> None:
        super().__init__()
        self.indices = indices
        self.layers = nn.ModuleList(
            Regeneration(pair.student.taps[own].shape[0], pair.teacher.taps[other].shape[0]) for own, other in indices
        )

    def forward(
        self,
        maps_student: list[Tensor],
        maps_teacher: list[Tensor],
        masked: float,
        over: Literal["channels", "positions"],
    ) -> Tensor:
        """The sum of :func:`mgd_loss` over the pairs of layers."""
        losses = []
        for layer, (own, other) in zip(self.layers, self.indices, strict=True):
            student, teacher = meet(maps_student[own], maps_teacher[other])
            losses.append(mgd_loss(layer(student, masked, over), teacher))
        return torch.stack(losses).sum()


def _mgd_extras(pair: Pair, parameters: MgdParameters) -> nn.Module:
    return Regenerations(pair, _mgd_pairs(pair, parameters))


def _mgd_refuse(pair: Pair, parameters: MgdParameters) -> str | None:
    if reason := refuse_names(pair, parameters):
        return reason
    names = [
        [pair.student.taps[own].layer, pair.teacher.taps[other].layer] for own, other in _mgd_pairs(pair, parameters)
    ]
    return refuse_layers(pair, parameters.model_copy(update={"pairs": names}))


def _mgd_terms(step: Step) -> Terms:
    chosen: MgdParameters = step.parameters
    assert step.extras is not None
    loss = step.extras(step.student.maps, step.of_teacher.maps, chosen.masked, chosen.masked_over)
    return {"ce": chosen.ce_weight * step.cross_entropy, "mgd": chosen.mgd_weight * loss}


MGD = Method(
    name="mgd",
    title="Masked generative distillation",
    role="distilled",
    family="features",
    terms=_mgd_terms,
    needs=("maps",),
    parameters=MgdParameters,
    extras=_mgd_extras,
    refuse=_mgd_refuse,
    formula="CE + 7e-5 sum (G(map_student with 15 % of its channels at 0) - map_teacher)^2 an image, "
    "G two 3x3 convolutions, on the last layer",
    summary="From what is left of its last map the student has to generate all of the teacher's.",
    citation="Yang et al., Masked Generative Distillation, 2022",
    differs="The paper hides positions; the authors' code hides channels for classification, which the "
    'share of 0.15 belongs to, and positions for detection: masked_over = "positions". The sum over a map makes the '
    "weight one for maps of 512 x 7 x 7; smaller maps want a larger one. Maps of different size meet at the smaller.",
)


# ------------------------------------------------------------------------------------------ vitkd


@full_precision
def vitkd_loss(map_student: Tensor, map_teacher: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Squared differences of tokens, summed over an image and averaged over images.

    Yang et al., "ViTKD: Feature-based Knowledge Distillation for Vision Transformers", 2024: mimicking of
    shallow layers over all tokens, generation of the deep layer over the hidden ones alone, divided by their share.

    Args:
        map_student: (B, C, H, W), brought to the teacher's channels, or generated.
        map_teacher: (B, C, H, W).
        hidden: (B, 1, H, W) which tokens count; all, if it is None.
    """
    squares = (wide(map_student) - wide(map_teacher)).square()
    if hidden is None:
        return squares.sum((1, 2, 3)).mean()
    return (squares * hidden).sum((1, 2, 3)).mean() / hidden.to(squares).mean()


class VitKdParameters(Parameters):
    """Parameters of ViTKD."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    shallow_weight: float = Field(default=3e-5, ge=0.0, description="of mimicking the first two layers")
    deep_weight: float = Field(default=3e-6, ge=0.0, description="of generating the last layer")
    masked: float = Field(default=0.5, gt=0.0, lt=1.0, description="share of tokens that are hidden")


_SHALLOW = 2


class TokenGeneration(nn.Module):
    """Alignment of the first layers; a token in the place of hidden ones, and the generator, for the last."""

    def __init__(self, student: Profile, teacher: Profile) -> None:
        super().__init__()
        own, other = student.final[0], teacher.final[0]
        self.shallow = nn.ModuleList(_aligned(own, other) for _ in range(_SHALLOW))
        self.deep = _aligned(own, other)
        self.token = nn.Parameter(torch.zeros(other))
        self.generate = _generator(other)

    def mimicked(self, maps_student: list[Tensor]) -> list[Tensor]:
        """The student's first layers (B, C_student, H, W) at the teacher's channels."""
        return [align(part) for align, part in zip(self.shallow, maps_student[:_SHALLOW], strict=True)]

    def generated(self, map_student: Tensor, masked: float) -> tuple[Tensor, Tensor]:
        """The last layer (B, C, H, W), generated, and which tokens (B, 1, H, W) were hidden, of each image as many."""
        aligned = self.deep(map_student)
        images, _, height, width = aligned.shape
        kept = max(min(int(height * width * (1 - masked)), height * width - 1), 1)
        order = torch.rand(images, height * width, device=aligned.device).argsort(1).argsort(1)
        hidden = (order >= kept).view(images, 1, height, width)
        return self.generate(torch.where(hidden, self.token.to(aligned).view(1, -1, 1, 1), aligned)), hidden


def _vitkd_refuse(pair: Pair, parameters: VitKdParameters) -> str | None:
    for profile, whose in ((pair.student, "student"), (pair.teacher, "teacher")):
        other = next((tap for tap in profile.taps if tap.shape != profile.final), None)
        if other is not None:
            sizes = ["x".join(map(str, shape)) for shape in (other.shape, profile.final)]
            return (
                f"it wants tokens, as many and as wide in every layer, as in a plain transformer; the {whose}'s layer "
                f"{other.layer} has a map of {sizes[0]}, its last map is {sizes[1]}"
            )
        if len(profile.taps) <= _SHALLOW:
            return (
                f"it takes the first {_SHALLOW} layers and the last; the study looks at {len(profile.taps)} of the "
                f"{whose}'s, so name more under layers, or leave them to 'stages'"
            )
        if min(profile.final[1:]) < 2:
            return f"the {whose}'s tokens lie on a {profile.final[1]}x{profile.final[2]} grid; use smaller patches"
    return None


def _vitkd_extras(pair: Pair, parameters: VitKdParameters) -> nn.Module:
    return TokenGeneration(pair.student, pair.teacher)


def _vitkd_terms(step: Step) -> Terms:
    chosen: VitKdParameters = step.parameters
    assert isinstance(step.extras, TokenGeneration)
    shallow = [
        vitkd_loss(*meet(own, other))
        for own, other in zip(step.extras.mimicked(step.student.maps), step.of_teacher.maps[:_SHALLOW], strict=True)
    ]
    student, teacher = meet(
        final_map(step.student_network, step.student), final_map(step.teacher_network, step.of_teacher)
    )
    generated, hidden = step.extras.generated(student, chosen.masked)
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "shallow": chosen.shallow_weight * torch.stack(shallow).sum(),
        "deep": chosen.deep_weight * vitkd_loss(generated, teacher, hidden),
    }


VITKD = Method(
    name="vitkd",
    title="Tokens mimicked and generated",
    role="distilled",
    family="features",
    terms=_vitkd_terms,
    needs=("maps",),
    parameters=VitKdParameters,
    extras=_vitkd_extras,
    refuse=_vitkd_refuse,
    formula="CE + 3e-5 sum over the first two layers of |L(tokens_student) - tokens_teacher|^2 + 3e-6 / 0.5 "
    "|G(half of the last tokens) - tokens_teacher|^2 over the other half, an image, G two 3x3 convolutions",
    summary="A transformer copies its teacher's first layers token by token, and generates the last from half of it.",
    citation="Yang et al., ViTKD: Feature-based Knowledge Distillation for Vision Transformers, 2024",
    differs="Sums over an image's tokens make the weights ones for 14 x 14 tokens of 384; fewer or narrower ones want "
    "larger weights. Grids of different size meet at the smaller. The paper's best students also take NKD.",
)

METHODS = (MGD, VITKD)
