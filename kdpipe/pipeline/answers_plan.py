"""The plan of what networks answer: predictions, answers compared, and what a student fixed and broke."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdpipe.engine.stage import Stage, StageFunction
from kdpipe.measures import Measure
from kdpipe.pipeline.measure_plan import measure_params
from kdpipe.pipeline.stages.answers import make_answers_measure, make_answers_shares
from kdpipe.pipeline.stages.factors import factor_input
from kdpipe.pipeline.stages.flips import make_flips
from kdpipe.pipeline.stages.predictions import make_predictions
from kdpipe.pipeline.stages.samples import make_samples
from kdpipe.vocabulary import FACTORS, PIXELS

ANSWER_STAGES = (make_predictions, make_answers_measure, make_answers_shares, make_flips, make_samples)


@dataclass(frozen=True)
class AnswersPlan:
    """Stages of what networks answer.

    Attributes:
        predictions: by network; raw pixels answer nothing.
        measures: of two networks' answers, by (network, other network, measure).
        shares: what became of the answers, by (network, other network).
        flips: by (network, plain of its seed, teacher).
        samples: the probe images with their known factors.
    """

    predictions: dict[str, Stage]
    measures: dict[tuple[str, str, str], Stage]
    shares: dict[tuple[str, str], Stage]
    flips: dict[tuple[str, str, str], Stage]
    samples: Stage

    @property
    def stages(self) -> list[Stage]:
        compared = [*self.measures.values(), *self.shares.values(), *self.flips.values()]
        return [*self.predictions.values(), *compared, self.samples]


def plan_answers(
    probe: Stage,
    embeddings: Mapping[str, Stage],
    pairs: Iterable[tuple[str, str]],
    trios: Iterable[tuple[str, str, str]],
    measures: Sequence[Measure],
    factors: Mapping[str, Stage],
    k: int,
) -> AnswersPlan:
    """What is asked of the answers of every embedded network.

    Args:
        embeddings: by network, of those that answer.
        pairs: (network, other network), whose answers are compared, if both answer.
        trios: (network, plain of its seed, teacher), if all answer.
        measures: the study's measures of two networks' answers.
        factors: known factors of the images, by name.
        k: neighbours that measures look at, where they do.
    """

    def planned(function: StageFunction, name: str, params: Mapping[str, object], **inputs: Stage) -> Stage:
        return function.plan(name, params, {"probe": probe, **inputs}, batch="all")

    said = {
        name: planned(make_predictions, f"answers of {name}", {}, embedding=stage)
        for name, stage in embeddings.items()
        if name != PIXELS
    }
    pairs = [pair for pair in pairs if said.keys() >= set(pair)]
    trios = [trio for trio in trios if said.keys() >= set(trio)]
    measured = {
        (own, other, one.name): planned(
            make_answers_measure,
            f"{one.name} of answers of {own} and {other}",
            measure_params(one, k),
            own=said[own],
            other=said[other],
        )
        for own, other in pairs
        for one in measures
    }
    shares = {
        (own, other): planned(
            make_answers_shares, f"answers of {own} and {other}", {}, own=said[own], other=said[other]
        )
        for own, other in pairs
    }
    flipped = {
        (own, plain, teacher): planned(
            make_flips, f"flips of {own}", {}, own=said[own], plain=said[plain], teacher=said[teacher]
        )
        for own, plain, teacher in trios
    }
    shown = {name: factors[name] for name in FACTORS if name in factors}
    named = {factor_input(name): factor for name, factor in shown.items()}
    samples = planned(make_samples, "probe images", {"factors": list(shown)}, **named)
    return AnswersPlan(said, measured, shares, flipped, samples)
