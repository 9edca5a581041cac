"""Distillation by Wasserstein distance: what it costs to carry the student's distribution over to the teacher's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.decoupling import at_class
from kdpipe.methods.layers import LayerParameters, paired_layers, refuse_names
from kdpipe.methods.logits import nkd_loss
from kdpipe.methods.numerics import full_precision, unit, wide


def _falling(step: Step, since: float) -> float:
    """A weight of 1 that falls to 0 as a half cosine over the rest of the training."""
    done = 0.0 if step.progress <= since else (step.progress - since) / (1.0 - since)
    return 0.5 * (1.0 + math.cos(math.pi * done))


# ----------------------------------------------------------------------------------------- wkd-l


@full_precision
def class_costs(weight: Tensor, sharpness: float = 1.0) -> Tensor:
    """What it costs to carry probability between classes: 1 - exp(-sharpness · (1 - cosine of their weights)).

    Args:
        weight: (K, D) of a linear classifier, a row for each class.

    Returns:
        (K, K), symmetric, in [0, 1), 0 on the diagonal.
    """
    directions = unit(wide(weight))
    costs = -torch.expm1(-sharpness * (1 - directions @ directions.T).clamp_min(0.0))
    return costs.masked_fill(torch.eye(len(costs), dtype=torch.bool, device=costs.device), 0.0)


def transport_cost(
    log_source: Tensor, log_target: Tensor, cost: Tensor, regularisation: float, iterations: int
) -> Tensor:
    """Cost of the plan that Sinkhorn's algorithm has reached from one distribution to another, (B,).

    It minimises <plan, cost> - regularisation · entropy(plan), and would keep both distributions in the end. Each
    iteration mends the target's side and then the source's, so it is the target's that a plan may still miss: few
    iterations of a small regularisation leave probability where it was, and cost too little.

    Cuturi, "Sinkhorn Distances: Lightspeed Computation of Optimal Transport", 2013, algorithm 1, on logarithms.

    Args:
        log_source, log_target: (B, K) logarithms of distributions; -inf where there is nothing.
        cost: (K, K); the greatest over ``regularisation`` has to stay under 80, where float32 ends.
        regularisation: weight of the plan's entropy.
        iterations: at least 1.
    """
    kernel = torch.exp(-cost / regularisation)
    log_u = torch.zeros_like(log_source).masked_fill(log_source.isneginf(), -torch.inf)
    log_v = log_u
    for _ in range(iterations):
        log_v = log_target - _log_product(log_u, kernel)
        log_u = log_source - _log_product(log_v, kernel.T)
    top = log_v.amax(1, keepdim=True).detach()
    return ((log_u + top).exp() * ((log_v - top).exp() @ (kernel * cost).T)).sum(1)


def _log_product(log_rows: Tensor, matrix: Tensor) -> Tensor:
    """log(exp(rows) @ matrix) for a positive matrix; each row's greatest term is 1 on the way, so none underflows."""
    top = log_rows.amax(1, keepdim=True).detach()
    return ((log_rows - top).exp() @ matrix).log() + top


@full_precision
def wkdl_loss(
    logits_student: Tensor,
    logits_teacher: Tensor,
    target: Tensor,
    cost: Tensor,
    temperature: float = 8.0,
    regularisation: float = 0.05,
    iterations: int = 10,
) -> Tensor:
    """Wasserstein distance between both networks' softened probabilities of the classes other than the label.

    Lv, Yang & Li, "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation", 2024,
    WKD-L; averaged over the batch. Carrying probability to a class like the right one costs little; a KL divergence
    knows no likeness. Entropy blurs plans, so it is near 0, not 0, at student = teacher.

    Args:
        logits_student, logits_teacher: (B, K), K >= 3.
        target: (B,).
        cost: (K, K) of :func:`class_costs`, or any other.
        regularisation, iterations: see :func:`transport_cost`.
    """
    is_target = at_class(logits_student, target)
    student, teacher = (
        F.log_softmax((wide(logits) / temperature).masked_fill(is_target, -torch.inf), dim=1)
        for logits in (logits_student, logits_teacher)
    )
    return transport_cost(student, teacher, cost.to(student), regularisation, iterations).mean()


class WkdlParameters(Parameters):
    """Parameters of WKD-L."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    target_weight: float = Field(default=1.0, ge=0.0, description="weight of the label's own term")
    wkdl_weight: float = Field(default=600.0, ge=0.0)
    temperature: float = Field(default=8.0, gt=0.0)
    sharpness: float = Field(default=1.0, gt=0.0, description="how fast costs grow as classes grow unlike")
    regularisation: float = Field(default=0.05, ge=0.02, description="weight of the plan's entropy")
    iterations: int = Field(default=10, ge=1, description="of Sinkhorn's algorithm")
    decay_from: float = Field(default=150 / 240, ge=0.0, le=1.0, description="share of training before the term fades")


def _wkdl_refuse(pair: Pair, parameters: WkdlParameters) -> str | None:
    if pair.classes < 3:
        return f"of {pair.classes} classes a single one is left beside the label, and nothing to carry elsewhere"
    if not pair.teacher.linear_classifier:
        return "the teacher does not end in one linear classifier, whose weights say how unlike its classes are"
    return None


def _wkdl_terms(step: Step) -> Terms:
    chosen: WkdlParameters = step.parameters
    classifier = step.teacher_network.classifier if step.teacher_network is not None else None
    assert isinstance(classifier, nn.Linear)
    cost = class_costs(classifier.weight.detach(), chosen.sharpness)
    teacher = step.of_teacher.logits[: len(step.target)]
    loss = wkdl_loss(
        step.labelled, teacher, step.target, cost, chosen.temperature, chosen.regularisation, chosen.iterations
    )
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        # What NKD says of the label is what WKD-L does.
        "target": chosen.target_weight * nkd_loss(step.labelled, teacher, step.target, gamma=0.0),
        "wkdl": chosen.wkdl_weight * _falling(step, chosen.decay_from) * loss,
    }


WKDL = Method(
    name="wkdl",
    title="Wasserstein distillation of logits",
    role="distilled",
    family="logits",
    terms=_wkdl_terms,
    needs=("logits", "classifier"),
    parameters=WkdlParameters,
    refuse=_wkdl_refuse,
    uses_labels=True,
    formula="CE - q_y log p_y + 600 W(p', q'), ' = normalised without y at T = 8, W = cost of Sinkhorn's plan (entropy "
    "0.05, 10 iterations) at 1 - exp(cos - 1) between classes; W fades as a half cosine from 150/240 of the training",
    summary="The student's probabilities are carried to the teacher's, at less cost between classes that are alike.",
    citation="Lv, Yang & Li, Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation, 2024",
    differs="How alike classes are is the cosine of the teacher's classifier weights, which published code offers; its "
    "results rest on CKA of all training images' features. Sinkhorn's algorithm works on logarithms, where published "
    "code adds 1e-8 to what it divides by. As there, 10 iterations stop short of the distance wherever classes are "
    "unlike; the weight is for that. Weight 600 and T = 8 are for ResNet32x4 to 8x4, 200 and 6 for WRN-40-2 to "
    "ShuffleNetV1.",
)

# ----------------------------------------------------------------------------------------- wkd-f


@full_precision
def wkdf_loss(
    map_student: Tensor, map_teacher: Tensor, mean_weight: float = 4.0, grid: int = 1, epsilon: float = 1e-5
) -> Tensor:
    """Squared Wasserstein distance between the Gaussians of two maps' positions, averaged over cells and the batch.

    Gaussians of independent channels: mean_weight ‖μ_s - μ_t‖² + ‖σ_s - σ_t‖², summed over the channels; with a weight
    of 1 it is the distance. Means and deviations are over the positions of a map, or of each of its grid² cells.

    Lv, Yang & Li, "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation", 2024, WKD-F.

    Args:
        map_student: (B, C, H, W), brought to the teacher's channels.
        map_teacher: (B, C, H', W'), of any size.
        epsilon: added to variances.
    """
    student, teacher = (_moments(wide(maps), grid, epsilon) for maps in (map_student, map_teacher))
    means, deviations = ((own - other).square().sum(1).mean() for own, other in zip(student, teacher, strict=True))
    return mean_weight * means + deviations


def _moments(maps: Tensor, grid: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Means and standard deviations, each (B, C, grid, grid)."""
    # Squares of what is far from 0 would cancel: the map's own mean goes first.
    centre = maps.mean((2, 3), keepdim=True)
    means = F.adaptive_avg_pool2d(maps - centre, grid)
    variances = F.adaptive_avg_pool2d((maps - centre).square(), grid) - means.square()
    return centre + means, (variances.clamp_min(0.0) + epsilon).sqrt()


class Projectors(nn.Module):
    """A 1x1 convolution with batch norm, and perhaps a ReLU, from each student layer to the teacher's channels."""

    def __init__(self, pair: Pair, indices: list[tuple[int, int]], rectified: bool) -> None:
        super().__init__()
        self.indices = indices
        self.layers = nn.ModuleList()
        for own, other in indices:
            width = pair.teacher.taps[other].shape[0]
            parts: list[nn.Module] = [nn.Conv2d(pair.student.taps[own].shape[0], width, 1), nn.BatchNorm2d(width)]
            self.layers.append(nn.Sequential(*parts, *([nn.ReLU(inplace=True)] if rectified else [])))

    def forward(self, maps_student: list[Tensor], maps_teacher: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The student's projected map and the teacher's, pair by pair."""
        return [
            (layer(maps_student[own]), maps_teacher[other])
            for layer, (own, other) in zip(self.layers, self.indices, strict=True)
        ]


class WkdfParameters(LayerParameters):
    """Parameters of WKD-F."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    wkdf_weight: float = Field(default=0.08, ge=0.0)
    mean_weight: float = Field(default=4.0, ge=0.0, description="weight of the means; the deviations' is 1")
    grid: int = Field(default=1, ge=1, description="cells a side, each with a Gaussian of its own")
    epsilon: float = Field(default=1e-5, gt=0.0, description="added to variances")
    rectified: bool = Field(default=True, description="end the projector in a ReLU, as convolutional teachers' maps do")
    decay_from: float = Field(default=150 / 240, ge=0.0, le=1.0, description="share of training before the term fades")
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None = Field(
        default=None, min_length=1, description="[student layer, teacher layer] for each pair; by default the last two"
    )


def _last_or_named(pair: Pair, parameters: WkdfParameters) -> list[tuple[int, int]]:
    if parameters.pairs is None:
        return [(len(pair.student.taps) - 1, len(pair.teacher.taps) - 1)]
    return paired_layers(pair, parameters)


def _wkdf_extras(pair: Pair, parameters: WkdfParameters) -> nn.Module:
    return Projectors(pair, _last_or_named(pair, parameters), parameters.rectified)


def _wkdf_refuse(pair: Pair, parameters: WkdfParameters) -> str | None:
    if reason := refuse_names(pair, parameters):
        return reason
    chosen = _last_or_named(pair, parameters)
    for tap in (tap for own, other in chosen for tap in (pair.student.taps[own], pair.teacher.taps[other])):
        if min(tap.shape[1:]) <= parameters.grid:
            return (
                f"layer {tap.layer} has a {tap.shape[1]}x{tap.shape[2]} map, whose positions have no spread in a grid "
                f"of {parameters.grid}x{parameters.grid}; use stem = 'small', larger images or an earlier layer"
            )
    return None


def _wkdf_terms(step: Step) -> Terms:
    chosen: WkdfParameters = step.parameters
    assert step.extras is not None
    compared: Sequence[tuple[Tensor, Tensor]] = step.extras(step.student.maps, step.of_teacher.maps)
    losses = [wkdf_loss(*maps, chosen.mean_weight, chosen.grid, chosen.epsilon) for maps in compared]
    weight = chosen.wkdf_weight * _falling(step, chosen.decay_from)
    return {"ce": chosen.ce_weight * step.cross_entropy, "wkdf": weight * torch.stack(losses).sum()}


WKDF = Method(
    name="wkdf",
    title="Wasserstein distillation of features",
    role="distilled",
    family="features",
    terms=_wkdf_terms,
    needs=("maps",),
    parameters=WkdfParameters,
    extras=_wkdf_extras,
    refuse=_wkdf_refuse,
    formula="CE + 0.08 (4 |mean_s - mean_t|^2 + |deviation_s - deviation_t|^2) over the positions of the last map, the "
    "student's through a 1x1 convolution, batch norm and ReLU; fades as a half cosine from 150/240 of the training",
    summary="The student's channels have the teacher's means and deviations over the image, wherever they respond.",
    citation="Lv, Yang & Li, Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation, 2024",
    differs="Variances are over all positions (N), published code's are the unbiased ones (N - 1), which a single "
    "position does not have. Maps keep their sizes, published code convolves the student's to the teacher's. A "
    "transformer's maps may be negative: set rectified = false for such a teacher. Weights are for ResNet32x4 to 8x4; "
    "WRN-40-2 to ShuffleNetV1 has 0.3, 3 for the means and a grid of 4.",
)

METHODS = (WKDL, WKDF)
