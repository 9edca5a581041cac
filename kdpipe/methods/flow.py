"""Distillation of the flow from layer to layer: how the channels of one layer go with those of the next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdpipe.methods.base import Method, Pair, Step, Terms
from kdpipe.methods.connectors import ChannelProjections
from kdpipe.methods.layers import LayerParameters, paired_layers, refuse_names, smaller_size
from kdpipe.methods.numerics import full_precision, wide


@full_precision
def flow_matrix(front: Tensor, back: Tensor) -> Tensor:
    """Flow of solution procedure: inner products of the channels of two layers, over the number of positions.

    Yim, Joo, Bae & Kim, "A Gift from Knowledge Distillation", 2017, equation 1. Maps of different size meet at the
    smaller by max pooling.

    Args:
        front, back: (B, C, H, W) and (B, D, H', W').

    Returns:
        (B, C, D).
    """
    size = smaller_size(front.shape, back.shape)
    one, two = (F.adaptive_max_pool2d(wide(part), size).flatten(2) for part in (front, back))
    return one @ two.transpose(1, 2) / one.shape[2]


@full_precision
def fsp_loss(maps_student: Sequence[Tensor], maps_teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of flow matrices between each layer and the next, summed over these pairs.

    Yim, Joo, Bae & Kim, "A Gift from Knowledge Distillation", 2017, equation 2 with equal weights, as a mean over the
    elements of a matrix.

    Args:
        maps_student, maps_teacher: two layers or more, in order, each (B, C, H, W); the channels of a pair are the
            same, sizes may differ.
    """
    flows = [[flow_matrix(front, back) for front, back in pairwise(maps)] for maps in (maps_student, maps_teacher)]
    return torch.stack([F.mse_loss(student, teacher) for student, teacher in zip(*flows, strict=True)]).sum()


class FspParameters(LayerParameters):
    """Parameters of FSP."""

    ce_weight: float = Field(default=1.0, ge=0.0)
    fsp_weight: float = Field(default=1.0, gt=0.0)
    initialisation: float = Field(
        default=30 / 270, gt=0.0, lt=1.0, description="share of the training with this loss alone, at first"
    )


def successive_layers(pair: Pair, parameters: LayerParameters) -> list[tuple[int, int]]:
    """Paired layers in order: those that are named, or by depth each of the teacher's once, with the student's last."""
    layers = sorted(paired_layers(pair, parameters))
    if parameters.pairs is None:
        # A teacher's layer that two of the student's are nearest to has no way to itself.
        layers = [(own, other) for other, own in {other: own for own, other in layers}.items()]
    return layers


def refuse_one_layer(pair: Pair, parameters: LayerParameters) -> str | None:
    """Why a method on what is between layers cannot use a single pair of them, or an unknown one."""
    if reason := refuse_names(pair, parameters):
        return reason
    if len(successive_layers(pair, parameters)) < 2:
        return "it compares what is between a layer and the next, and there is a single pair of layers; look at more"
    return None


def projected_in_order(pair: Pair, parameters: LayerParameters) -> nn.Module:
    """The extras of a method on layers in order, in the teacher's channels."""
    return ChannelProjections(pair, successive_layers(pair, parameters))


def _fsp_terms(step: Step) -> Terms:
    chosen: FspParameters = step.parameters
    assert step.extras is not None
    nothing = step.student.logits.new_zeros(())
    if step.progress < chosen.initialisation:
        loss = fsp_loss(*step.extras(step.student.maps, step.of_teacher.maps))
        return {"ce": nothing, "fsp": chosen.fsp_weight * loss}
    return {"ce": chosen.ce_weight * step.cross_entropy, "fsp": nothing}


FSP = Method(
    name="fsp",
    title="Flow of solution procedure",
    role="distilled",
    family="features",
    terms=_fsp_terms,
    needs=("maps",),
    parameters=FspParameters,
    extras=projected_in_order,
    refuse=refuse_one_layer,
    formula="first 30/270 of the training: sum over neighbouring layers of MSE(G_student, G_teacher), G = front map x "
    "back map^T / positions; then CE",
    summary="The student starts from how the teacher's layers lead from one to the next, then learns its labels.",
    citation="Yim, Joo, Bae & Kim, A Gift from Knowledge Distillation, 2017",
    differs="The paper initialises the student first and trains it after, each with a schedule of its own; here both "
    "share the steps and the schedule. Its matrices are between the first and the last layer of a stage, here, as in "
    "published benchmarks, between neighbouring layers that are looked at. Squares are averaged over a matrix, not "
    "summed. Where channels differ, which the paper excludes, a 1x1 convolution brings the student's to the teacher's.",
)

METHODS = (FSP,)
