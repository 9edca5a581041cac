"""The plan of what networks answer: predictions, answers beside each other, and what a student fixed and broke."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdpipe.engine.stage import Stage, StageFunction
from kdpipe.pipeline.stages.answers import make_answers
from kdpipe.pipeline.stages.flips import make_flips
from kdpipe.pipeline.stages.predictions import make_predictions
from kdpipe.pipeline.stages.samples import make_samples
from kdpipe.vocabulary import PIXELS, TEACHER

ANSWER_STAGES = (make_predictions, make_answers, make_flips, make_samples)


@dataclass(frozen=True)
class AnswersPlan:
    """Stages of what networks answer.

    Attributes:
        predictions: by network; raw pixels answer nothing.
        answers: by (network, other network).
        flips: by (network, plain of its seed, teacher).
        samples: the probe images with their known factors, of which the teacher's entropy is one.
    """

    predictions: dict[str, Stage]
    answers: dict[tuple[str, str], Stage]
    flips: dict[tuple[str, str, str], Stage]
    samples: Stage | None

    @property
    def stages(self) -> list[Stage]:
        found = [*self.predictions.values(), *self.answers.values(), *self.flips.values()]
        return found if self.samples is None else [*found, self.samples]


def plan_answers(
    probe: Stage,
    embeddings: Mapping[str, Stage],
    pairs: Iterable[tuple[str, str]],
    trios: Iterable[tuple[str, str, str]],
    measures: Sequence[str],
) -> AnswersPlan:
    """What is asked of the answers of every embedded network.

    Args:
        embeddings: by network.
        pairs: (network, other network), whose answers are held beside each other.
        trios: (network, plain of its seed, teacher).
        measures: names of the study's measures of two networks' answers.
    """

    def planned(function: StageFunction, name: str, params: Mapping[str, object], **inputs: Stage) -> Stage:
        return function.plan(name, params, {"probe": probe, **inputs}, batch="all")

    said = {
        name: planned(make_predictions, f"answers of {name}", {}, embedding=stage)
        for name, stage in embeddings.items()
        if name != PIXELS
    }
    beside = {
        (own, other): planned(
            make_answers, f"answers of {own} and {other}", {"names": list(measures)}, own=said[own], other=said[other]
        )
        for own, other in pairs
    }
    flipped = {
        (own, plain, teacher): planned(
            make_flips, f"flips of {own}", {}, own=said[own], plain=said[plain], teacher=said[teacher]
        )
        for own, plain, teacher in trios
    }
    shown = planned(make_samples, "probe images", {}, teacher=said[TEACHER]) if TEACHER in said else None
    return AnswersPlan(said, beside, flipped, shown)
