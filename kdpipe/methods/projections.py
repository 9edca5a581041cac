"""Distillation of one vector an image: the student's, through a projection, is to be the teacher's."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.layers import final_map
from kdpipe.methods.logits import kd_loss
from kdpipe.methods.numerics import full_precision, wide


def _mean_vectors(step: Step) -> tuple[Tensor, Tensor]:
    """Means over the positions of the last maps: the student's (B, D), the teacher's (B, E)."""
    return (
        final_map(step.student_network, step.student).mean((2, 3)),
        final_map(step.teacher_network, step.of_teacher).mean((2, 3)),
    )


# -------------------------------------------------------------------------------------- projected


@full_precision
def projected_loss(pooled_student: Tensor, pooled_teacher: Tensor) -> Tensor:
    """Mean squared error between the student's projected vector and the teacher's.

    The feature distillation of timm (Wightman, ``timm.task.FeatureDistillationTask``), a hint (Romero et al.,
    2015) on what the classifier takes.

    Args:
        pooled_student: (B, D), already projected to the teacher's width.
        pooled_teacher: (B, D).
    """
    return F.mse_loss(wide(pooled_student), wide(pooled_teacher))


class ProjectedParameters(Parameters):
    """Parameters of projected features."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    projected_weight: float = Field(default=1.0, ge=0.0)


def _projected_extras(pair: Pair, parameters: ProjectedParameters) -> nn.Module | None:
    own, other = pair.student.pooled, pair.teacher.pooled
    return nn.Linear(own, other) if own != other else None


def _projected_terms(step: Step) -> Terms:
    chosen: ProjectedParameters = step.parameters
    pooled = step.student.pooled if step.extras is None else step.extras(step.student.pooled)
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "projected": chosen.projected_weight * projected_loss(pooled, step.of_teacher.pooled),
    }


PROJECTED = Method(
    name="projected",
    title="Projected features",
    role="distilled",
    family="features",
    terms=_projected_terms,
    needs=("pooled",),
    parameters=ProjectedParameters,
    extras=_projected_extras,
    formula="CE + MSE(P(pooled_student), pooled_teacher), P linear with a bias, and none where widths are equal",
    summary="The vector before the student's classifier becomes, after a linear layer, the teacher's.",
    citation="Wightman, PyTorch Image Models (timm), feature distillation task, 2025",
    differs="Weights are those that timm takes unless told otherwise; its example gives features 5.",
)


# -------------------------------------------------------------------------------------------- vkd

# Singular values below this share of the largest are float32's rounding of zero.
_NO_SPREAD = 1e-5


@full_precision
def whitened(vectors: Tensor) -> Tensor:
    """Vectors (B, D) with mean 0 and covariance 1 over the batch, turned as little as possible (ZCA).

    Directions in which the batch does not spread are 0. Where B <= D, the batch spreads in fewer than D
    directions and all images come out equally far from each other, whatever they were.
    """
    deviation = wide(vectors) - wide(vectors).mean(0)
    left, spread, right = torch.linalg.svd(deviation, full_matrices=False)
    kept = spread > _NO_SPREAD * spread[:1]
    return (left * kept) @ right * len(vectors) ** 0.5


@full_precision
def vkd_loss(
    features_student: Tensor, features_teacher: Tensor, normalisation: Literal["layer", "whitening"] = "layer"
) -> Tensor:
    """Smooth L1 between the student's orthogonally projected features and the teacher's normalised ones.

    Miles, Elezi & Deng, "VkD: Improving Knowledge Distillation using Orthogonal Projections", 2024, section 3.
    The teacher's features alone are normalised: each image's to mean 0 and variance 1 (for classification), or
    all of a batch to covariance 1 (:func:`whitened`; for generation, where it keeps outputs diverse).

    Args:
        features_student: (B, D), projected to the teacher's width.
        features_teacher: (B, D).
    """
    teacher = wide(features_teacher)
    known = whitened(teacher) if normalisation == "whitening" else F.layer_norm(teacher, teacher.shape[1:])
    return F.smooth_l1_loss(wide(features_student), known)


class VkdParameters(Parameters):
    """Parameters of VkD."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    vkd_weight: float = Field(default=1.0, ge=0.0)
    kd_weight: float = Field(default=1.0, ge=0.0)
    temperature: float = Field(default=1.0, gt=0.0)
    normalisation: Literal["layer", "whitening"] = Field(default="layer", description="of the teacher's features")


def _vkd_extras(pair: Pair, parameters: VkdParameters) -> nn.Module:
    projection = nn.Linear(pair.student.final[0], pair.teacher.final[0], bias=False)
    # Not the default map of oblong weights (Householder): it keeps signs among what is trained and rounds them to
    # whole numbers, so that the first step of weight decay makes the whole projection 0.
    return parametrizations.orthogonal(projection, orthogonal_map="cayley")


def _vkd_refuse(pair: Pair, parameters: VkdParameters) -> str | None:
    width = pair.teacher.final[0]
    if parameters.normalisation == "whitening" and 0 < pair.batch_size <= width:
        return (
            f"a step shows {pair.batch_size} images and the teacher's last map has {width} channels, so that whitening "
            "would make all images equally different; use a batch_size above that, or normalisation = 'layer'"
        )
    return None


def _vkd_terms(step: Step) -> Terms:
    chosen: VkdParameters = step.parameters
    assert step.extras is not None
    student, teacher = _mean_vectors(step)
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "vkd": chosen.vkd_weight * vkd_loss(step.extras(student), teacher, chosen.normalisation),
        "kd": chosen.kd_weight * kd_loss(step.student.logits, step.of_teacher.logits, chosen.temperature),
    }


VKD = Method(
    name="vkd",
    title="Orthogonal projection",
    role="distilled",
    family="features",
    terms=_vkd_terms,
    needs=("logits", "maps"),
    parameters=VkdParameters,
    extras=_vkd_extras,
    refuse=_vkd_refuse,
    formula="CE + SmoothL1(P mean(map_student), LayerNorm(mean(map_teacher))) + KL(teacher || student), P orthogonal",
    summary="A projection that can only turn leaves all of the learning to the student: distances are kept on the way.",
    citation="Miles, Elezi & Deng, VkD: Improving Knowledge Distillation using Orthogonal Projections, 2024",
    differs="Published code gives the KL to a second head of the student; here it is on the logits. A student wider "
    "than its teacher gets orthonormal rows instead, and loses what lies across them. Published code has no whitening; "
    "here it is ZCA over the batch, and refused where a batch is too small for it.",
)


# -------------------------------------------------------------------------------------------- srd


@full_precision
def srd_loss(
    features_student: Tensor, features_teacher: Tensor, exponent: float = 4.0, epsilon: float = 1e-5
) -> Tensor:
    """Logarithm of the sum of powers of differences, a soft maximum, after both were standardised over the batch.

    Miles & Mikolajczyk, "Understanding the Role of the Projector in Knowledge Distillation", 2024, section 3:
    log(sum over images and features of |z_student - z_teacher|^exponent). It may be negative.

    Args:
        features_student: (B, D), projected to the teacher's width.
        features_teacher: (B, D).
        epsilon: added to the sum, whose logarithm is -inf where student and teacher agree.
    """
    student, teacher = (
        F.batch_norm(wide(part), None, None, training=True, eps=1e-4) for part in (features_student, features_teacher)
    )
    return ((student - teacher).abs().pow(exponent).sum() + epsilon).log()


class SrdParameters(Parameters):
    """Parameters of SRD."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    srd_weight: float = Field(default=2.0, ge=0.0)
    kd_weight: float = Field(default=1.0, ge=0.0)
    temperature: float = Field(default=1.0, gt=0.0)
    exponent: float = Field(default=4.0, ge=1.0, description="higher ones look at the largest differences alone")
    epsilon: float = Field(default=1e-5, gt=0.0, description="added to the sum under the logarithm")


def _srd_extras(pair: Pair, parameters: SrdParameters) -> nn.Module:
    return nn.Linear(pair.student.final[0], pair.teacher.final[0])


def _srd_terms(step: Step) -> Terms:
    chosen: SrdParameters = step.parameters
    assert step.extras is not None
    student, teacher = _mean_vectors(step)
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "srd": chosen.srd_weight * srd_loss(step.extras(student), teacher, chosen.exponent, chosen.epsilon),
        "kd": chosen.kd_weight * kd_loss(step.student.logits, step.of_teacher.logits, chosen.temperature),
    }


SRD = Method(
    name="srd",
    title="Simple recipe distillation",
    role="distilled",
    family="features",
    terms=_srd_terms,
    needs=("logits", "maps"),
    parameters=SrdParameters,
    extras=_srd_extras,
    formula="CE + 2 log sum |BN(P mean(map_student)) - BN(mean(map_teacher))|^4 + KL(teacher || student), P linear, "
    "BN without parameters",
    summary="Standardised features meet through a linear layer; what differs most counts most, in a logarithm.",
    citation="Miles & Mikolajczyk, Understanding the Role of the Projector in Knowledge Distillation, 2024",
    differs="As in the authors' code for transformers, 1e-5 keeps the logarithm finite; that for ResNets, which the "
    "weight of 2 comes from, has none.",
)


# ------------------------------------------------------------------------------------------- srrl


@full_precision
def srrl_loss(pooled_student: Tensor, pooled_teacher: Tensor, weight: Tensor) -> Tensor:
    """Softmax regression: both features through the teacher's classifier, mean squared difference of the logits.

    Yang et al., "Knowledge Distillation via Softmax Regression Representation Learning", 2021, section 3.
    The classifier's bias is in both logits, and so in no difference.

    Args:
        pooled_student: (B, D), brought to the teacher's width.
        pooled_teacher: (B, D), what the teacher's classifier takes.
        weight: (K, D) of the teacher's classifier, which is not trained.
    """
    return F.linear(wide(pooled_student) - wide(pooled_teacher), wide(weight)).square().mean()


class SrrlParameters(Parameters):
    """Parameters of SRRL."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    srrl_weight: float = Field(default=1.0, ge=0.0, description="of the difference through the teacher's classifier")
    feature_weight: float = Field(default=1.0, ge=0.0, description="of the difference of the features themselves")


def _srrl_refuse(pair: Pair, parameters: SrrlParameters) -> str | None:
    if not pair.teacher.linear_classifier:
        return (
            "the teacher's logits are not one linear layer on its pooled vector, which is what the student goes through"
        )
    return None


def _srrl_extras(pair: Pair, parameters: SrrlParameters) -> nn.Module:
    width = pair.teacher.pooled
    return nn.Sequential(nn.Linear(pair.student.pooled, width, bias=False), nn.BatchNorm1d(width))


def _srrl_terms(step: Step) -> Terms:
    chosen: SrrlParameters = step.parameters
    assert step.extras is not None and step.teacher_network is not None
    classifier = step.teacher_network.classifier
    assert isinstance(classifier, nn.Linear)
    student, teacher = step.extras(step.student.pooled), step.of_teacher.pooled
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "srrl": chosen.srrl_weight * srrl_loss(student, teacher, classifier.weight.detach()),
        "feature": chosen.feature_weight * projected_loss(student, teacher),
    }


SRRL = Method(
    name="srrl",
    title="Softmax regression representation",
    role="distilled",
    family="features",
    terms=_srrl_terms,
    needs=("pooled", "classifier"),
    parameters=SrrlParameters,
    extras=_srrl_extras,
    refuse=_srrl_refuse,
    formula="CE + MSE(W R(pooled_student), W pooled_teacher) + MSE(R(pooled_student), pooled_teacher), "
    "W the teacher's classifier, R linear + batch norm",
    summary="The student's feature has to do as well in the teacher's classifier as the teacher's own.",
    citation="Yang et al., Knowledge Distillation via Softmax Regression Representation Learning, 2021",
    differs="Published code brings the whole map to the teacher's channels and ends in a ReLU; here it is the pooled "
    "vector, and without one, so that teachers whose features are negative too, such as transformers, can be met. "
    "Other published code gives the classifier's term 5.",
)

METHODS = (PROJECTED, VKD, SRD, SRRL)
