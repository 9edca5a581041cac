"""Distillation of the singular vectors of maps: what a layer's main direction is to the next one's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from kdpipe.methods.base import Method, Pair, Step, Terms
from kdpipe.methods.flow import projected_in_order, refuse_one_layer, successive_layers
from kdpipe.methods.layers import LayerParameters
from kdpipe.methods.numerics import full_precision, unit, wide

# Squared singular values, whose sum is 1, that are nearer to each other than this have no direction of their own.
_DEGENERATE = 1e-3
# More of the student's vectors than of the teacher's are tried, as they may come in another order.
_SPARE = 3


class _RightVectors(torch.autograd.Function):
    """Singular vectors (B, C, k) of the k largest singular values of (B, P, C), with a gradient that is bounded.

    A vector's derivative holds 1 / gap to each other squared singular value, and is infinite where two are equal, as
    zeros are. gap / (gap² + e²) in its place (Liao et al., "Differentiable Programming Tensor Networks", 2019) is the
    same for wide gaps, and 0 for none, where a rotation among equals changes nothing.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, X: Tensor, k: int) -> Tensor:
        energy, vectors = _decomposed(X)
        ctx.save_for_backward(X, energy, vectors)
        return vectors[..., :k].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        X, energy, vectors = ctx.saved_tensors
        largest, chosen = energy[:, None, : gradient.shape[2]], vectors[..., : gradient.shape[2]]
        within = vectors.mT @ gradient
        # What the vectors do not span has singular value 0.
        outside = gradient - vectors @ within
        moved = vectors @ (within * _inverse(largest - energy[:, :, None])) + outside * _inverse(largest)
        return (X @ moved) @ chosen.mT + (X @ chosen) @ moved.mT, None


def _decomposed(X: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values (B, r) and right vectors (B, C, r) of (B, P, C), the largest first; r = min(P, C).

    From the eigenvectors of the smaller Gram matrix, which devices find for a whole batch at once.
    """
    fewer_positions = X.shape[1] < X.shape[2]
    gram = X @ X.mT if fewer_positions else X.mT @ X
    # The library raises at what is not finite, which would end the training of this student's companions too.
    broken = ~gram.isfinite().all(2).all(1)[:, None, None]
    energy, vectors = torch.linalg.eigh(gram.masked_fill(broken, 0.0))
    if fewer_positions:
        vectors = unit(vectors.mT @ X).mT
    return energy.flip(1).clamp(min=0), vectors.flip(2).masked_fill(broken, torch.nan)


def _inverse(gap: Tensor) -> Tensor:
    return gap / (gap.square() + _DEGENERATE**2)


def _positions_by_channels(maps: Tensor) -> Tensor:
    """(B, C, H, W) as matrices (B, HW, C) of length 1, as singular vectors do not depend on it."""
    return unit(wide(maps).flatten(1)).view(len(maps), maps.shape[1], -1).mT


def _teachers_vectors(maps: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Singular vectors (B, C, k) whose elements sum to no negative number, and their values (B, 1, k) at length 1."""
    energy, vectors = (part[..., :k] for part in _decomposed(_positions_by_channels(maps)))
    # Their signs are the library's choice, which the distances to the next layer's vectors must not depend on.
    return vectors * torch.where(vectors.sum(1, keepdim=True) < 0, -1.0, 1.0), unit(energy[:, None].sqrt())


def _students_vectors(maps: Tensor, teacher: Tensor) -> Tensor:
    """For each vector of the teacher, the student's of the largest cosine, with the sign that makes it positive."""
    X = _positions_by_channels(maps)
    vectors: Tensor = _RightVectors.apply(X, min(teacher.shape[2] + _SPARE, *X.shape[1:]))
    cosines = vectors.mT @ teacher
    best = cosines.abs().argmax(1, keepdim=True)
    signs = torch.where(cosines.gather(1, best) < 0, -1.0, 1.0)
    return vectors.gather(2, best.expand(-1, vectors.shape[1], -1)) * signs


@full_precision
def kdsvd_loss(maps_student: Sequence[Tensor], maps_teacher: Sequence[Tensor], k: int = 1) -> Tensor:
    """Distillation by singular value decomposition: squared differences of kernels between neighbouring layers.

    A map, as positions by channels, is cut to its k main right singular vectors; the student's are matched to the
    teacher's and both weighed by the teacher's singular values. The kernel of two layers' elements is
    exp(-(v - w)² / 8). Squares are summed over the elements of the kernel and averaged over images.

    Lee, Kim & Song, "Self-supervised Knowledge Distillation Using Singular Value Decomposition", 2018, section 3.

    Args:
        maps_student, maps_teacher: two layers or more, in order, each (B, C, H, W); the channels of a pair are the
            same, sizes may differ.
        k: vectors a layer, at most its positions and its channels.
    """
    kernels: list[tuple[Tensor, Tensor]] = []
    before: tuple[Tensor, Tensor] | None = None
    for own, other in zip(maps_student, maps_teacher, strict=True):
        teacher, values = _teachers_vectors(other, k)
        layer = _students_vectors(own, teacher) * values, teacher * values
        if before is not None:
            kernels.append((_kernel(before[0], layer[0]), _kernel(before[1], layer[1])))
        before = layer
    return torch.stack([(own - other).square().flatten(1).sum(1).mean() for own, other in kernels]).sum()


def _kernel(front: Tensor, back: Tensor) -> Tensor:
    """(B, C, k) and (B, D, k) to (B, C, D, k)."""
    return (-(front[:, :, None] - back[:, None]).square() / 8).exp()


class KdsvdParameters(LayerParameters):
    """Parameters of distillation by singular value decomposition."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    kdsvd_weight: float = Field(default=1.0, ge=0.0)
    k: int = Field(default=1, ge=1, description="singular vectors a layer")


def _kdsvd_refuse(pair: Pair, parameters: KdsvdParameters) -> str | None:
    if reason := refuse_one_layer(pair, parameters):
        return reason
    for own, other in successive_layers(pair, parameters):
        student, teacher = pair.student.taps[own], pair.teacher.taps[other]
        for tap in (student, teacher):
            positions = tap.shape[1] * tap.shape[2]
            if parameters.k > (most := min(teacher.shape[0], positions)):
                return (
                    f"parameters.k is {parameters.k}, but layer {tap.layer} has {positions} positions and "
                    f"{teacher.shape[0]} channels, and so {most} singular vectors at most"
                )
    return None


def _kdsvd_terms(step: Step) -> Terms:
    chosen: KdsvdParameters = step.parameters
    assert step.extras is not None
    student, teacher = step.extras(step.student.maps, step.of_teacher.maps)
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "kdsvd": chosen.kdsvd_weight * kdsvd_loss(student, teacher, chosen.k),
    }


KDSVD = Method(
    name="kdsvd",
    title="Singular vectors",
    role="distilled",
    family="features",
    terms=_kdsvd_terms,
    needs=("maps",),
    parameters=KdsvdParameters,
    extras=projected_in_order,
    refuse=_kdsvd_refuse,
    formula="CE + sum over neighbouring layers of |K_student - K_teacher|^2, K = exp(-(v - w)^2 / 8), v and w = main "
    "singular vectors over channels of a layer and of the next",
    summary="The main direction of each of the student's layers is to the next one's as it is in the teacher.",
    citation="Lee, Kim & Song, Self-supervised Knowledge Distillation Using Singular Value Decomposition, 2018",
    differs="The paper clips this loss's gradient by that of the labels; here it is bounded where singular values are "
    "equal, where published code has infinite ones and drops what is not finite. A teacher's vector has the sign that "
    "makes its sum positive, where published code leaves it to the library. One published code decomposes a map along "
    "its width alone. Where channels differ, a 1x1 convolution brings the student's to the teacher's.",
)

METHODS = (KDSVD,)
