"""Distillation by the angle between logits: a method in one file."""

import torch.nn.functional as F

from kdpipe.methods import Method, Step, Terms


def cosine_terms(step: Step) -> Terms:
    angle = 1 - F.cosine_similarity(step.student.logits, step.of_teacher.logits).mean()
    return {"ce": step.cross_entropy, "cosine": angle}


COSINE = Method(
    name="cosine",
    title="Cosine of logits",
    role="distilled",
    family="logits",
    terms=cosine_terms,
    formula="CE + 1 - cos(logits_student, logits_teacher)",
    summary="The student's logits are to point where the teacher's do, however long they are.",
    citation="an example of a plug-in",
)
