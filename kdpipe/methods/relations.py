"""Distillation of relations between the images of a batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.numerics import full_precision, unit, wide

# Two images nearer than this share of the mean distance have no direction from one to the other: a float32
# difference of equal rows is noise, and the gradient of an angle grows as one over the distance.
COINCIDENT = 1e-3


def off_diagonal(square: Tensor) -> Tensor:
    """(B, B) without its diagonal, as (B, B - 1)."""
    count = len(square)
    if count < 2:
        return square[:, :0]
    return square.flatten()[1:].view(count - 1, count + 1)[:, :-1].reshape(count, count - 1)


def _mean(values: Tensor, count: int) -> Tensor:
    """Sum over count; 0 where a batch is too small to have any relation."""
    return values.sum() / max(count, 1)


# --------------------------------------------------------------------------------------------- rkd


@full_precision
def rkd_loss(
    pooled_student: Tensor, pooled_teacher: Tensor, distance_weight: float = 25.0, angle_weight: float = 50.0
) -> Tensor:
    """Relational knowledge distillation: the Huber loss of distances between two images and of angles between three.

    Distances are divided by their mean over all pairs of the batch; an angle is the cosine at one image
    between the directions to two others. Both are averaged over tuples of different images.

    Park, Kim, Lu & Cho, "Relational Knowledge Distillation", 2019, section 3.2 (distance-wise and angle-wise losses).

    Args:
        pooled_student, pooled_teacher: (B, D), of different D or not.
    """
    count = len(pooled_student)
    (distances, cosines), (known_distances, known_cosines) = (
        _geometry(wide(g)) for g in (pooled_student, pooled_teacher)
    )
    distance = F.smooth_l1_loss(off_diagonal(distances), off_diagonal(known_distances), reduction="none")
    angle = F.smooth_l1_loss(cosines, known_cosines, reduction="none")
    # Angles at an image with itself are 0 on both sides already; the angle of a direction with itself is left out here.
    different = 1.0 - torch.eye(count, dtype=angle.dtype, device=angle.device)
    return distance_weight * _mean(distance, count * (count - 1)) + angle_weight * _mean(
        angle * different, count * (count - 1) * (count - 2)
    )


def _geometry(points: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (B, B) over their mean, and cosines (B, B, B): at the first image, from the second to the third."""
    # True differences rather than the Gram matrix, which loses the digits of near neighbours.
    differences = points[None, :] - points[:, None]
    lengths = torch.linalg.vector_norm(differences, dim=2)
    mean = _mean(lengths, len(points) * (len(points) - 1))
    apart = lengths > COINCIDENT * mean
    directions = differences / lengths.where(apart, 1.0)[..., None] * apart[..., None]
    return lengths / mean.where(mean > 0, 1.0), directions @ directions.transpose(1, 2)


class RkdParameters(Parameters):
    """Parameters of RKD."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    rkd_weight: float = Field(default=1.0, ge=0.0)
    distance_weight: float = Field(default=25.0, ge=0.0)
    angle_weight: float = Field(default=50.0, ge=0.0)


def _rkd_terms(step: Step) -> Terms:
    chosen: RkdParameters = step.parameters
    loss = rkd_loss(
        step.student.pooled,
        step.of_teacher.pooled,
        distance_weight=chosen.distance_weight,
        angle_weight=chosen.angle_weight,
    )
    return {"ce": chosen.ce_weight * step.cross_entropy, "rkd": chosen.rkd_weight * loss}


RKD = Method(
    name="rkd",
    title="Relational knowledge distillation",
    role="distilled",
    family="relations",
    terms=_rkd_terms,
    needs=("pooled",),
    parameters=RkdParameters,
    formula="CE + 25 Huber(distances / mean distance) + 50 Huber(cosines of angles), on pooled features",
    summary="The student keeps the teacher's distances between two images and its angles between three.",
    citation="Park, Kim, Lu & Cho, Relational Knowledge Distillation, 2019",
    differs="The paper writes sums over tuples of different images; here they are means, as its weights are of use to "
    "means alone. Published code takes tuples with the same image twice into the mean. Two images that coincide have "
    "no direction here, where published code divides by 1e-12.",
)


# ---------------------------------------------------------------------------------------------- sp


@full_precision
def sp_loss(map_student: Tensor, map_teacher: Tensor) -> Tensor:
    """Similarity-preserving distillation: squared difference of two row-normalised Gram matrices, over B².

    The rows of G = Q Qᵀ, with Q the flattened maps, are divided by their Euclidean length.

    Tung & Mori, "Similarity-Preserving Knowledge Distillation", 2019, section 3.

    Args:
        map_student, map_teacher: (B, C, H, W) or (B, D), of different shapes but for B.
    """
    student, teacher = (_similarities(wide(part).flatten(1)) for part in (map_student, map_teacher))
    return (student - teacher).square().mean()


def _similarities(rows: Tensor) -> Tensor:
    return unit(rows @ rows.T)


class SpParameters(Parameters):
    """Parameters of similarity preservation."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    sp_weight: float = Field(default=3000.0, ge=0.0)


def _sp_terms(step: Step) -> Terms:
    chosen: SpParameters = step.parameters
    loss = sp_loss(step.student.maps[-1], step.of_teacher.maps[-1])
    return {"ce": chosen.ce_weight * step.cross_entropy, "sp": chosen.sp_weight * loss}


SP = Method(
    name="sp",
    title="Similarity preservation",
    role="distilled",
    family="relations",
    terms=_sp_terms,
    needs=("maps",),
    parameters=SpParameters,
    formula="CE + 3000 / B^2 ||rows(Q_s Q_s^T) - rows(Q_t Q_t^T)||^2, rows of length 1, on the last map",
    summary="Images that activate the teacher's last map alike do so in the student's.",
    citation="Tung & Mori, Similarity-Preserving Knowledge Distillation, 2019",
)


# ---------------------------------------------------------------------------------------------- cc


@full_precision
def cc_loss(embedded_student: Tensor, embedded_teacher: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Correlation congruence: mean squared difference of two B x B kernel matrices.

    The kernel is a Gaussian of unit vectors, exp(-γ |x - y|²) = exp(-2γ) exp(2γ x·y), with the second factor's Taylor
    series cut after ``order``.

    Peng et al., "Correlation Congruence for Knowledge Distillation", 2019, section 3.

    Args:
        embedded_student, embedded_teacher: (B, D).
        gamma: sharpness of the Gaussian.
        order: highest power of the cosine.
    """
    student, teacher = (_taylor_gaussian(unit(wide(e)), gamma, order) for e in (embedded_student, embedded_teacher))
    return (student - teacher).square().mean()


def _taylor_gaussian(rows: Tensor, gamma: float, order: int) -> Tensor:
    exponent = 2 * gamma * (rows @ rows.T)
    series = sum((exponent**p / math.factorial(p) for p in range(1, order + 1)), torch.ones_like(exponent))
    return math.exp(-2 * gamma) * series


class CorrelationHeads(nn.Module):
    """Linear layers from both pooled features to one width. The student's trains; the teacher's stays as drawn.

    A random projection keeps the teacher's cosines. If it trained, both layers would send all images to one
    direction, where the kernels agree whatever the student has learned.
    """

    def __init__(self, student: int, teacher: int, width: int) -> None:
        super().__init__()
        self.student = nn.Linear(student, width, bias=False)
        self.teacher = nn.Linear(teacher, width, bias=False).requires_grad_(False)

    def forward(self, pooled_student: Tensor, pooled_teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Both pooled features (B, D) in the common space, each (B, width)."""
        return self.student(pooled_student), self.teacher(pooled_teacher)


class CcParameters(Parameters):
    """Parameters of correlation congruence."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    cc_weight: float = Field(default=100.0, ge=0.0)
    gamma: float = Field(default=0.4, gt=0.0)
    order: int = Field(default=2, ge=1, le=10, description="highest power in the kernel's Taylor series")
    width: int = Field(default=128, ge=1, description="of the common space")


def _cc_extras(pair: Pair, parameters: CcParameters) -> nn.Module:
    return CorrelationHeads(pair.student.pooled, pair.teacher.pooled, parameters.width)


def _cc_terms(step: Step) -> Terms:
    chosen: CcParameters = step.parameters
    assert step.extras is not None
    student, teacher = step.extras(step.student.pooled, step.of_teacher.pooled)
    loss = cc_loss(student, teacher, gamma=chosen.gamma, order=chosen.order)
    return {"ce": chosen.ce_weight * step.cross_entropy, "cc": chosen.cc_weight * loss}


CC = Method(
    name="cc",
    title="Correlation congruence",
    role="distilled",
    family="relations",
    terms=_cc_terms,
    needs=("pooled",),
    parameters=CcParameters,
    extras=_cc_extras,
    formula="CE + 100 / B^2 ||k(E_s g_s) - k(E_t g_t)||^2, k = Gaussian of unit vectors, Taylor order 2, gamma 0.4",
    summary="The student keeps the teacher's kernel similarities between images, in a common linear embedding.",
    citation="Peng et al., Correlation Congruence for Knowledge Distillation, 2019",
    differs="The paper's kernel congruence, without its logits term and its class-wise sampler. The widespread code "
    "multiplies the differences |E_s g_s - E_t g_t| of neighbours in the batch instead, and the weight 0.02 is "
    "of that form; here the weight is 100, which others use for the kernel. The teacher's layer is a fixed random "
    "projection: trained as in that code, both layers learn to send all images to one direction.",
)


# --------------------------------------------------------------------------------------------- pkt


@full_precision
def pkt_loss(pooled_student: Tensor, pooled_teacher: Tensor) -> Tensor:
    """Probabilistic knowledge transfer: KL of who is near whom in the batch, teacher to student.

    The probability of image i given j is the cosine kernel (cos + 1) / 2, divided by its sum over all images but j
    itself. The divergence is averaged over the B (B - 1) pairs.

    Passalis & Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", 2018, section 3.

    Args:
        pooled_student, pooled_teacher: (B, D), of different D or not.
    """
    count = len(pooled_student)
    student, teacher = (_log_conditional(wide(g)) for g in (pooled_student, pooled_teacher))
    return _mean(F.kl_div(student, teacher, reduction="none", log_target=True), count * (count - 1))


def _log_conditional(points: Tensor) -> Tensor:
    """Log probabilities (B, B - 1) of the other images."""
    rows = unit(points)
    # Opposite vectors have no probability; the floor keeps the logarithm finite.
    kernel = off_diagonal((rows @ rows.T + 1) / 2).clamp(min=1e-7)
    return F.log_softmax(kernel.log(), dim=1)


class PktParameters(Parameters):
    """Parameters of PKT."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    pkt_weight: float = Field(default=30000.0, ge=0.0)


def _pkt_terms(step: Step) -> Terms:
    chosen: PktParameters = step.parameters
    loss = pkt_loss(step.student.pooled, step.of_teacher.pooled)
    return {"ce": chosen.ce_weight * step.cross_entropy, "pkt": chosen.pkt_weight * loss}


PKT = Method(
    name="pkt",
    title="Probabilistic knowledge transfer",
    role="distilled",
    family="relations",
    terms=_pkt_terms,
    needs=("pooled",),
    parameters=PktParameters,
    formula="CE + 30000 mean over pairs of q log(q / p), p_i|j = (cos_ij + 1) / sum over k != j of (cos_kj + 1)",
    summary="Who is near whom in a batch is the same to student and teacher, as probabilities.",
    citation="Passalis & Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer, 2018",
    differs="The paper sums the divergence over pairs; published code takes the mean over pairs, and the weight 30000 "
    "goes with that mean, which falls with 1 / B. As in the paper, and unlike that code, an image is no neighbour "
    "of itself.",
)


METHODS = (RKD, SP, CC, PKT)
