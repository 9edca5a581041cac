"""Distillation of explanations: the student is to be right for the teacher's reasons."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.layers import meet, refuse_final_points
from kdpipe.methods.logits import kd_loss
from kdpipe.methods.numerics import full_precision, unit, wide
from kdpipe.models.network import Network, Outputs


@full_precision
def e2kd_loss(explanation_student: Tensor, explanation_teacher: Tensor) -> Tensor:
    """One minus the cosine of two explanations, averaged over images.

    Parchami-Araghi et al., "Good Teachers Explain: Explanation-Enhanced Knowledge Distillation", 2024,
    equation 2. A map that is zero everywhere points nowhere: its cosine counts as 0, and the image
    adds a constant 1 without a gradient.

    Args:
        explanation_student, explanation_teacher: (B, H, W); maps of different size meet at the smaller.
    """
    student, teacher = meet(wide(explanation_student), wide(explanation_teacher))
    return 1.0 - (unit(student.flatten(1)) * unit(teacher.flatten(1))).sum(1).mean()


def grad_cam(network: Network, outputs: Outputs, classes: Tensor, create_graph: bool = False) -> Tensor:
    """Grad-CAM of one class an image, on what the network's head takes before it pools.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks", 2017, equations 1 and 2.

    Args:
        outputs: of the network.
        classes: (B,) the class that is explained.
        create_graph: whether the maps keep a graph to the weights, of which ``outputs`` must then have
            one. Otherwise the head alone runs again, and outputs without a graph will do.

    Returns:
        (B, H, W), not negative.
    """
    with torch.enable_grad():
        if create_graph:
            final, logits = outputs.final, outputs.logits
        else:
            final = outputs.final.detach().requires_grad_()
            logits = network.classify(final, outputs.shown)[1]
        explained = logits.gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(explained, final, create_graph=create_graph)
    maps, slopes = (wide(network.as_map(part, outputs.maps[-1])) for part in (final, gradient))
    explanation = (slopes.mean((2, 3), keepdim=True) * maps).sum(1).relu()
    return explanation if create_graph else explanation.detach()


class E2KdParameters(Parameters):
    """Parameters of e²KD."""

    ce_weight: float = Field(default=0.0, ge=0.0)
    kd_weight: float = Field(default=1.0, ge=0.0)
    e2kd_weight: float = Field(default=1.0, ge=0.0, description="the paper's lambda: 0.2, 1, 5 or 10")
    temperature: float = Field(default=1.0, gt=0.0)


def _e2kd_refuse(pair: Pair, parameters: E2KdParameters) -> str | None:
    for profile, whose in ((pair.student, "student"), (pair.teacher, "teacher")):
        if not profile.spatial_head:
            return f"not every position of the {whose}'s last map reaches its logits, so it has no Grad-CAM"
    return refuse_final_points(pair)


def _e2kd_terms(step: Step) -> Terms:
    chosen: E2KdParameters = step.parameters
    assert step.student_network is not None and step.teacher_network is not None
    classes = step.of_teacher.logits.argmax(1)
    student = grad_cam(step.student_network, step.student, classes, create_graph=True)
    teacher = grad_cam(step.teacher_network, step.of_teacher, classes)
    return {
        "ce": chosen.ce_weight * step.cross_entropy,
        "kd": chosen.kd_weight * kd_loss(step.student.logits, step.of_teacher.logits, chosen.temperature),
        "e2kd": chosen.e2kd_weight * e2kd_loss(student, teacher),
    }


E2KD = Method(
    name="e2kd",
    title="Explanation-enhanced distillation",
    role="distilled",
    family="explanation",
    terms=_e2kd_terms,
    needs=("logits", "maps", "classifier", "second-order gradients"),
    parameters=E2KdParameters,
    refuse=_e2kd_refuse,
    formula="T^2 KL(teacher_T || student_T) + lambda (1 - cos(E_student, E_teacher)), E = Grad-CAM of the teacher's "
    "first choice, lambda 1, T 1",
    summary="The student matches the teacher's probabilities and the places that the teacher decides by.",
    citation="Parchami-Araghi et al., Good Teachers Explain: Explanation-Enhanced Knowledge Distillation, 2024",
    differs="Explanations are compared at the size of the last maps; published code enlarges them to the image's. "
    "Temperature and lambda are the middle of published grids (T 1 or 5; lambda 0.2, 1, 5 or 10).",
)

METHODS = (E2KD,)
