"""Distillation through classifiers: the teacher's reused, both applied at each position, or exits on the way."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.layers import final_map, meet, refuse_final_points
from kdpipe.methods.numerics import full_precision, unit, wide
from kdpipe.models.network import Network, ReusedHead
from kdpipe.models.weights import give_head

# ------------------------------------------------------------------------------------------ simkd


@full_precision
def simkd_loss(map_student: Tensor, map_teacher: Tensor) -> Tensor:
    """Mean squared error between the student's projected last map and the teacher's last map.

    Chen et al., "Knowledge Distillation with the Reused Teacher Classifier", 2022, equation 4.

    Args:
        map_student: (B, C, H, W), projected to the teacher's channels.
        map_teacher: (B, C, H, W); maps of different size meet at the smaller.
    """
    return F.mse_loss(*meet(wide(map_student), wide(map_teacher)))


class SimKdParameters(Parameters):
    """Parameters of SimKD."""

    simkd_weight: float = Field(default=1.0, gt=0.0)


def _simkd_refuse(pair: Pair, parameters: SimKdParameters) -> str | None:
    if not pair.teacher.linear_head:
        return "the teacher's logits are not one linear layer on the mean of its last map, which is what is reused"
    if pair.teacher.final[0] < 2:
        return "the teacher's last map has a single channel, too few for a projector half as wide"
    return None


def _simkd_adapt(student: Network, teacher: Network, pair: Pair, parameters: SimKdParameters) -> None:
    """End the student in a new projector and a copy of the teacher's classifier."""
    width, *size = pair.teacher.final
    head = ReusedHead(pair.student.final[0], (size[0], size[1]), width, pair.classes).to(student.mean.device)
    reused = teacher.classifier
    assert isinstance(reused, nn.Linear)
    with torch.no_grad():
        head.classifier.weight.copy_(reused.weight)
        head.classifier.bias.copy_(torch.zeros(()) if reused.bias is None else reused.bias)
    give_head(student, head)


def _simkd_terms(step: Step) -> Terms:
    chosen: SimKdParameters = step.parameters
    teacher = final_map(step.teacher_network, step.of_teacher)
    return {"simkd": chosen.simkd_weight * simkd_loss(step.student.final, teacher)}


SIMKD = Method(
    name="simkd",
    title="Reused teacher classifier",
    role="distilled",
    family="features",
    terms=_simkd_terms,
    needs=("maps", "classifier"),
    parameters=SimKdParameters,
    refuse=_simkd_refuse,
    adapt=_simkd_adapt,
    formula="MSE(R(last map of the student), last map of the teacher), no CE; R is kept, the classifier the teacher's",
    summary="The student learns the features alone and decides with the teacher's own classifier.",
    citation="Chen et al., Knowledge Distillation with the Reused Teacher Classifier, 2022",
)


# ----------------------------------------------------------------------------------------- cat-kd


@full_precision
def class_activation_maps(final: Tensor, weight: Tensor) -> Tensor:
    """A linear classifier at each position of the map whose mean it takes.

    Zhou et al., "Learning Deep Features for Discriminative Localization", 2016, equation 2; the mean
    over positions, plus the bias, is the logits.

    Args:
        final: (B, C, H, W).
        weight: (K, C) of the classifier.

    Returns:
        (B, K, H, W).
    """
    # Not a convolution, which cuDNN would compute in TF32.
    return torch.einsum("bchw,kc->bkhw", wide(final), wide(weight))


@full_precision
def catkd_loss(cam_student: Tensor, cam_teacher: Tensor, pooled: int = 2, normalised: bool = True) -> Tensor:
    """Class attention transfer: mean squared difference of pooled class-activation maps.

    Guo et al., "Class Attention Transfer Based Knowledge Distillation", 2023, section 3: maps are
    pooled to a few positions and each is brought to L2 norm 1; the mean is over classes and positions.

    Args:
        cam_student, cam_teacher: (B, K, H, W), of any size.
        pooled: positions a side that maps are average-pooled to.
        normalised: whether each class's pooled map is divided by its L2 norm.
    """
    student, teacher = (F.adaptive_avg_pool2d(wide(cam), pooled).flatten(2) for cam in (cam_student, cam_teacher))
    if normalised:
        student, teacher = unit(student), unit(teacher)
    return F.mse_loss(student, teacher)


class CatKdParameters(Parameters):
    """Parameters of CAT-KD."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    catkd_weight: float = Field(default=15.0, ge=0.0)
    pooled: int = Field(default=2, ge=2, description="positions a side that class-activation maps are pooled to")
    normalised: bool = Field(default=True, description="bring each pooled map to L2 norm 1")


def _catkd_refuse(pair: Pair, parameters: CatKdParameters) -> str | None:
    for profile, whose in ((pair.student, "student"), (pair.teacher, "teacher")):
        if not profile.linear_head:
            return (
                f"the {whose}'s logits are not one linear layer on the mean of its last map, "
                "so it has no class-activation maps"
            )
    if reason := refuse_final_points(pair):
        return reason
    smallest = min(*pair.student.final[1:], *pair.teacher.final[1:])
    if parameters.pooled > smallest:
        return f"parameters.pooled is {parameters.pooled}, but the smallest last map has {smallest} positions a side"
    return None


def _catkd_terms(step: Step) -> Terms:
    chosen: CatKdParameters = step.parameters
    cams = []
    for network, outputs in ((step.student_network, step.student), (step.teacher_network, step.of_teacher)):
        classifier = network.classifier if network is not None else None
        assert isinstance(classifier, nn.Linear)
        cams.append(class_activation_maps(final_map(network, outputs), classifier.weight))
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "catkd": chosen.catkd_weight * catkd_loss(cams[0], cams[1], chosen.pooled, chosen.normalised),
    }


CATKD = Method(
    name="catkd",
    title="Class attention transfer",
    role="distilled",
    family="features",
    terms=_catkd_terms,
    needs=("maps", "classifier"),
    parameters=CatKdParameters,
    refuse=_catkd_refuse,
    formula="CE + 15 MSE(A_student / |A_student|, A_teacher / |A_teacher|), A = class-activation map pooled to 2x2",
    summary="For each class, the student sees the evidence where the teacher sees it.",
    citation="Guo et al., Class Attention Transfer Based Knowledge Distillation, 2023",
    differs="Maps are normalised as in the paper. Published configurations of CAT-KD switch that off and tune the "
    "weight by pair (15 for ResNet32x4 to 8x4, 0.7 for ResNet56 to 20): set normalised = false to follow them.",
)


# -------------------------------------------------------------------------------------------- ofa


@full_precision
def ofa_loss(
    logits_exit: Tensor, logits_teacher: Tensor, target: Tensor, gamma: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """One-for-all distillation at one exit: cross-entropy to the teacher, with more weight on the label.

    Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge
    Distillation", 2023, section 3.3: -[(1 + q_y)^gamma - 1] log p_y - sum over c ≠ y of q_c log p_c.
    The -1 takes out the cross-entropy with the label, which stands as a term of its own. Like any
    cross-entropy it does not reach 0.

    Args:
        logits_exit, logits_teacher: (B, K), p and q after division by ``temperature``.
        target: (B,) labels y.
        gamma: from 1, where it is the cross-entropy to q, up: how much a confident teacher adds to the label.
    """
    student = F.log_softmax(wide(logits_exit) / temperature, dim=1)
    teacher = F.softmax(wide(logits_teacher) / temperature, dim=1)
    label = target[:, None]
    enhanced = torch.expm1(gamma * torch.log1p(teacher.gather(1, label)))
    return -(teacher.scatter(1, label, enhanced) * student).sum(1).mean()


class Exit(nn.Module):
    """Logits from a layer: depthwise-separable convolutions in place of the stages to come, mean, linear."""

    def __init__(self, channels: int, stages: int, width: int, classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for left in range(stages, 0, -1):
            wider = width if left == 1 else min(2 * channels, width)
            blocks += [
                nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False),
                nn.Conv2d(channels, wider, 1, bias=False),
                nn.BatchNorm2d(wider),
                nn.ReLU(inplace=True),
            ]
            channels = wider
        self.blocks = nn.Sequential(*blocks) if blocks else nn.Conv2d(channels, width, 1)
        self.classify = nn.Linear(width, classes)

    def forward(self, map_student: Tensor) -> Tensor:
        """Logits (B, K) from a layer's map (B, C, H, W)."""
        return self.classify(self.blocks(map_student).mean((2, 3)))


class Exits(nn.Module):
    """An exit on each chosen layer of the student."""

    def __init__(self, pair: Pair, indices: list[int]) -> None:
        super().__init__()
        taps, self.indices = pair.student.taps, indices
        width = max(taps[-1].shape[0], pair.teacher.taps[-1].shape[0])
        # The paper splits every network into four stages, so that at most three are left.
        self.exits = nn.ModuleList(
            Exit(taps[index].shape[0], min(len(taps) - 1 - index, 3), width, pair.classes) for index in indices
        )

    def forward(self, maps_student: list[Tensor]) -> list[Tensor]:
        """Logits (B, K) of each exit, from all maps of the student."""
        return [leave(maps_student[index]) for leave, index in zip(self.exits, self.indices, strict=True)]


class OfaParameters(Parameters):
    """Parameters of OFA-KD."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    ofa_weight: float = Field(default=1.0, ge=0.0)
    gamma: float = Field(default=1.0, ge=1.0)
    temperature: float = Field(default=1.0, gt=0.0)
    layers: list[str] | None = Field(
        default=None, min_length=1, description="student layers with an exit, all by default"
    )


def _ofa_refuse(pair: Pair, parameters: OfaParameters) -> str | None:
    known = [tap.layer for tap in pair.student.taps]
    for name in parameters.layers or ():
        if name not in known:
            return f"parameters.layers names layer {name!r}, but the student's layers are {', '.join(known)}"
    return None


def _ofa_extras(pair: Pair, parameters: OfaParameters) -> nn.Module:
    known = [tap.layer for tap in pair.student.taps]
    return Exits(pair, [known.index(name) for name in parameters.layers or known])


def _ofa_terms(step: Step) -> Terms:
    chosen: OfaParameters = step.parameters
    assert step.extras is not None
    count = len(step.target)
    teacher = step.of_teacher.logits[:count]
    leaving = [*step.extras([part[:count] for part in step.student.maps]), step.labelled]
    losses = [ofa_loss(logits, teacher, step.target, chosen.gamma, chosen.temperature) for logits in leaving]
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "ofa": chosen.ofa_weight * torch.stack(losses).sum(),
    }


OFA = Method(
    name="ofa",
    title="One-for-all exits",
    role="distilled",
    family="features",
    terms=_ofa_terms,
    needs=("logits", "maps"),
    parameters=OfaParameters,
    extras=_ofa_extras,
    refuse=_ofa_refuse,
    uses_labels=True,
    formula="CE - sum over exits and the logits of [((1 + q_y)^gamma - 1) log p_y + sum_{c != y} q_c log p_c], gamma 1",
    summary="Every layer of the student gets an exit that learns the teacher's probabilities, whatever the teacher is.",
    citation="Hao et al., One-for-All: Bridge the Gap Between Heterogeneous Architectures in KD, 2023",
    differs="Published code raises the other classes' q_c to gamma too, the paper the label's alone; at gamma = 1 they "
    "agree. Exits are convolutions for transformers as well, where published code takes transformer blocks.",
)

METHODS = (SIMKD, CATKD, OFA)
