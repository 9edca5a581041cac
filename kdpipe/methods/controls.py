"""Training without distillation: the student that every comparison needs, and its controls."""

from __future__ import annotations

import torch.nn.functional as F

from kdpipe.methods.base import Method, Step, Terms


def _ce_terms(step: Step) -> Terms:
    return {"ce": F.cross_entropy(step.student.logits[: len(step.target)], step.target)}


PLAIN = Method(
    name="plain",
    title="Plain student",
    role="plain",
    terms=_ce_terms,
    needs_teacher=False,
    formula="CE",
    summary="The student trained on its labels alone.",
    citation="-",
)

SECOND_SEED = Method(
    name="second-seed",
    title="Plain student, second initialisation",
    role="control",
    terms=_ce_terms,
    needs_teacher=False,
    own_initialisation=True,
    formula="CE",
    summary="The plain student from other initial weights on the same batches: what another start alone changes.",
    citation="-",
)
