"""Distillation as function matching: one view for both networks, and nothing but the teacher."""

from __future__ import annotations

from pydantic import Field

from kdpipe.methods.base import Method, Parameters, Step, Terms
from kdpipe.methods.logits import kd_loss


class FunMatchParameters(Parameters):
    """Parameters of function matching."""

    kl_weight: float = Field(default=1.0, ge=0.0)
    temperature: float = Field(default=1.0, gt=0.0)


def _funmatch_terms(step: Step) -> Terms:
    chosen: FunMatchParameters = step.parameters
    loss = kd_loss(step.student.logits, step.of_teacher.logits, temperature=chosen.temperature)
    return {"kl": chosen.kl_weight * loss}


FUNMATCH = Method(
    name="funmatch",
    title="Function matching",
    role="distilled",
    family="consistency",
    terms=_funmatch_terms,
    parameters=FunMatchParameters,
    views="mixup",
    formula="KL(teacher || student) on the same mixed images, T = 1, no labels",
    summary="The student copies the teacher's function, on mixtures of images too, and never sees a label.",
    citation="Beyer et al., Knowledge Distillation: A Good Teacher Is Patient and Consistent, 2022",
    differs="The paper's gains come with schedules of hundreds of epochs and more; here the long schedule is the "
    "study's steps, so give it many. Crops are the study's own, not the paper's strongly zoomed ones.",
)

METHODS = (FUNMATCH,)
