"""What a gain of distillation is held against: the plain student, and students that say where a gain may come from."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from kdpipe.methods.base import Method, Parameters, Step, Terms
from kdpipe.methods.logits import KD, KdParameters


def _ce_terms(step: Step) -> Terms:
    return {"ce": step.cross_entropy}


PLAIN = Method(
    name="plain",
    title="Plain student",
    role="plain",
    family="control",
    terms=_ce_terms,
    needs=(),
    teacher=None,
    formula="CE",
    summary="The student trained on its labels alone.",
    citation="-",
)

SECOND_SEED = Method(
    name="second-seed",
    title="Plain student, second initialisation",
    role="control",
    family="control",
    terms=_ce_terms,
    needs=(),
    teacher=None,
    own_initialisation=True,
    formula="CE",
    summary="The plain student from other initial weights on the same batches: what another start alone changes.",
    citation="-",
)

PLAIN_LONG = Method(
    name="plain-long",
    title="Plain student, trained longer",
    role="control",
    family="control",
    terms=_ce_terms,
    needs=(),
    teacher=None,
    trains_longer=True,
    explains="instead",
    formula="CE, (1 + t/3) times the steps, t = MACs of the teacher / MACs of the student",
    summary="The plain student with the extra compute that a teacher's forward passes cost a distilled one.",
    citation="-",
    differs="A step of the student counts as three of its forward passes.",
)

SUPERVISED = Method(
    name="supervised-on-the-same-images",
    title="Supervised on the same images",
    role="control",
    family="control",
    terms=_ce_terms,
    needs=(),
    teacher=None,
    reveals_labels=True,
    explains="instead",
    formula="CE on the labelled and the unlabelled images, all with their labels",
    summary="Sees every image that an unlabelled distillation sees, with true labels: an upper bound for its data.",
    citation="-",
)


class SmoothingParameters(Parameters):
    """Parameters of label smoothing."""

    epsilon: float = Field(default=0.1, ge=0.0, lt=1.0)


def _smoothing_terms(step: Step) -> Terms:
    chosen: SmoothingParameters = step.parameters
    return {"ce": replace(step, label_smoothing=chosen.epsilon).cross_entropy}


LABEL_SMOOTHING = Method(
    name="label-smoothing",
    title="Label smoothing",
    role="control",
    family="control",
    terms=_smoothing_terms,
    needs=(),
    teacher=None,
    parameters=SmoothingParameters,
    formula="CE with targets (1 - e) y + e/K, e = 0.1",
    explains="instead",
    summary="Soft targets without a teacher: what softness alone does.",
    citation="Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016",
)

RANDOM_TEACHER = Method(
    name="random-teacher",
    title="KD from an untrained teacher",
    role="control",
    family="control",
    terms=KD.terms,
    teacher="untrained",
    parameters=KdParameters,
    formula="as kd, the teacher at its initial weights",
    explains="instead",
    control_of="kd",
    summary="Distillation from a network that knows nothing: what the form of the loss alone does.",
    citation="-",
)


def _shuffled_terms(step: Step) -> Terms:
    """Each image gets the logits of the one before it; batches are in random order, so that is any other image.

    Where images are mixed with the one before, it is the logits of the one before that, which has no part in it.
    """
    said = step.of_teacher
    back = 1 if step.class_shares is None else 2
    return KD.terms(replace(step, teacher=replace(said, logits=said.logits.roll(back, 0))))


SHUFFLED_TEACHER = Method(
    name="shuffled-teacher",
    title="KD from another image's logits",
    role="control",
    family="control",
    terms=_shuffled_terms,
    parameters=KdParameters,
    formula="as kd, the teacher's logits exchanged between the images of a batch",
    explains="instead",
    control_of="kd",
    summary="The teacher's logits without their images: what their distribution alone does.",
    citation="-",
)

OWN_BUDGET_TEACHER = Method(
    name="own-budget-teacher",
    title="KD from a teacher with the student's labels",
    role="control",
    family="control",
    terms=KD.terms,
    teacher="own-budget",
    parameters=KdParameters,
    formula="as kd, the teacher trained on the student's own labelled images, for the student's number of steps",
    explains="without",
    control_of="kd",
    summary="No label reaches the student through the teacher that it has not itself: distillation without smuggling.",
    citation="-",
)

SELF_DISTILLATION = Method(
    name="self-distillation",
    title="Self-distillation",
    role="control",
    family="control",
    terms=KD.terms,
    teacher="self",
    own_initialisation=True,
    parameters=KdParameters,
    formula="as kd, the teacher a plain student of the same seed",
    explains="instead",
    control_of="kd",
    summary="Born again: the teacher is the plain student itself, so it knows nothing that plain does not.",
    citation="Furlanello et al., Born Again Neural Networks, 2018",
)

METHODS = (
    PLAIN,
    SECOND_SEED,
    PLAIN_LONG,
    SUPERVISED,
    LABEL_SMOOTHING,
    RANDOM_TEACHER,
    SHUFFLED_TEACHER,
    OWN_BUDGET_TEACHER,
    SELF_DISTILLATION,
)
