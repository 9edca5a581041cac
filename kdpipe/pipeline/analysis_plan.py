"""The second half of a study's plan: what is looked at of the networks that were trained to the end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from kdpipe.config.preflight import Preflight
from kdpipe.config.study import BaseStudy
from kdpipe.engine.stage import Stage, StageFunction
from kdpipe.models.profile import pair_by_depth
from kdpipe.pipeline.alignment_plan import ALIGNMENT_STAGES, AlignmentPlan, plan_alignment
from kdpipe.pipeline.answers_plan import ANSWER_STAGES, AnswersPlan, plan_answers
from kdpipe.pipeline.map_plan import MapPlan, plan_maps
from kdpipe.pipeline.measure_plan import MeasurePlanner
from kdpipe.pipeline.planned import NetworksPlan, Planned
from kdpipe.pipeline.stages.credit import make_credit
from kdpipe.pipeline.stages.embeddings import make_embeddings
from kdpipe.pipeline.stages.explanations import make_explanations
from kdpipe.pipeline.stages.factors import make_explained, make_factor, make_factors
from kdpipe.pipeline.stages.image_measures import make_image_measures
from kdpipe.pipeline.stages.layer_measures import make_measures
from kdpipe.pipeline.stages.map_measures import make_map_measures, make_map_pass
from kdpipe.pipeline.stages.maps import make_consensus, make_maps
from kdpipe.pipeline.stages.neighbours import make_neighbours
from kdpipe.pipeline.stages.network_measures import make_network_measures
from kdpipe.pipeline.stages.outputs import LAST
from kdpipe.pipeline.stages.similarity import make_similarity
from kdpipe.pipeline.stages.vectors import make_vector_embeddings
from kdpipe.vocabulary import PIXELS, TEACHER

ANALYSIS = (
    make_embeddings, make_vector_embeddings, make_neighbours, make_image_measures, make_measures,
    make_network_measures, make_similarity, make_factor, make_explained, make_factors, make_credit, make_explanations,
    make_consensus, make_maps, make_map_pass, make_map_measures, *ANSWER_STAGES, *ALIGNMENT_STAGES,
)  # fmt: skip
ANALYSIS_KINDS = tuple(dict.fromkeys(function.kind for function in ANALYSIS))


@dataclass(frozen=True)
class Analysis:
    """What is looked at of the networks: stages by network, and by what else there are several of.

    Attributes:
        neighbours: nearest images at every layer.
        images: measures of single images.
        measures: of layers, by (network, measure).
        network_measures: by (network, measure).
        similarity: by (network, other network, measure).
        factors: known factors of the images, by name.
        explained: what a factor explains, by (network, factor).
        residuals: what is left once all factors are taken out.
    """

    embeddings: dict[str, Stage]
    neighbours: dict[str, Stage]
    images: dict[str, Stage]
    measures: dict[tuple[str, str], Stage]
    network_measures: dict[tuple[str, str], Stage]
    similarity: dict[tuple[str, ...], Stage]
    factors: dict[str, Stage]
    explained: dict[tuple[str, str], Stage]
    residuals: dict[str, Stage]
    credit: dict[str, Stage]
    explanations: dict[str, Stage]
    maps: list[MapPlan]
    answers: AnswersPlan
    alignment: AlignmentPlan

    @property
    def stages(self) -> list[Stage]:
        by_name: Sequence[Mapping[Any, Stage]] = (
            self.embeddings, self.neighbours, self.images, self.measures, self.network_measures, self.similarity,
            self.factors, self.explained, self.residuals, self.credit, self.explanations,
        )  # fmt: skip
        shared = {drawn.shared.key: drawn.shared for drawn in self.maps if drawn.shared}
        first = chain.from_iterable(stages.values() for stages in by_name)
        drawn = chain.from_iterable(one.stages for one in self.maps)
        return [*first, *shared.values(), *drawn, *self.answers.stages, *self.alignment.stages]


def plan_analysis(spec: BaseStudy, preflight: Preflight, plan: NetworksPlan, networks: Sequence[Planned]) -> Analysis:
    """Everything that is looked at of ``networks``."""
    return _AnalysisPlanner(spec, preflight, plan, networks).plan()


class _AnalysisPlanner:
    def __init__(self, spec: BaseStudy, preflight: Preflight, plan: NetworksPlan, networks: Sequence[Planned]) -> None:
        self.spec, self.preflight, self.networks = spec, preflight, networks
        self.first_half, self.probe, self.teacher = plan, plan.probe, plan.teacher
        self.by_name = {planned.network_id: planned for planned in networks}
        self.embeddings = {planned.network_id: self._embedding(planned) for planned in networks}

    def plan(self) -> Analysis:
        answering = [one.network_id for one in self.networks if one.answers]  # in the order of the study
        measures = MeasurePlanner(self.spec, self.probe, self.embeddings, TEACHER, self._inputs(answering))
        pairs, known_k = self._pairs(), self.spec.measures.k
        maps = plan_maps(self.spec, self.preflight, self.first_half, self.networks, self.embeddings)
        factors, explained, residuals = measures.factors()
        return Analysis(
            self.embeddings,
            measures.neighbours,
            measures.images,
            measures.layers(),
            measures.networks(answering),
            measures.pairs({pair: self._same_depth(*pair) for pair in pairs}),
            factors,
            explained,
            residuals,
            {name: self._credit(name, plain, measures.neighbours) for name, plain in self._credited()},
            self._explanations() if self.spec.measures.explanations else {},
            maps,
            plan_answers(
                self.probe,
                {name: stage for name, stage in self.embeddings.items() if name in answering},
                pairs,
                self._trios(),
                measures.asked("answers"),
                factors,
                known_k,
            ),
            plan_alignment(maps, [one for one in measures.asked("map") if "other" in one.takes]),
        )

    def _stage(
        self, function: StageFunction, name: str, params: Mapping[str, Any], inputs: Mapping[str, Stage]
    ) -> Stage:
        inputs = {"probe": self.probe, **inputs}
        return function.plan(name, params, inputs, batch="all", cost=self.spec.data.probe_size)

    def _inputs(self, answering: Collection[str]) -> Collection[str]:
        """What measures and factors can be made from here, beside the vectors."""
        lacking = self.first_half.lacking
        teacher = ["logits"] if TEACHER in answering else []
        return [*({"images", "reference"} - lacking.keys()), *teacher]

    def _embedding(self, planned: Planned) -> Stage:
        if planned.vectors:
            inputs = {"probe": self.probe, "network": planned.stage}
            return make_vector_embeddings.plan(
                f"embedding of {planned.network_id}",
                {"views": list(self.spec.views), "vectors": planned.stage.params["vectors"]},
                inputs,
                batch="vectors",
                runtime=planned.stage.runtime,
                cost=self.spec.data.probe_size,
            )
        weights = {} if planned.weights == LAST else {"weights": planned.weights}
        return self._stage(
            make_embeddings,
            f"embedding of {planned.network_id}",
            {"views": list(self.spec.views), **weights},
            {"network": planned.stage},
        )

    # --------------------------------------------------------------------------------------- pairs

    def _companion(self, planned: Planned) -> str | None:
        """The plain student of the same architecture, budget and seed."""
        for other in self.networks:
            alike = (other.student, other.label_fraction, other.seed)
            if other.role == "plain" and alike == (planned.student, planned.label_fraction, planned.seed):
                return other.network_id
        return None

    def _pairs(self) -> list[tuple[str, str]]:
        """Every network with its teacher; students with plain of their seed; plain with plain of the first seed."""
        pairs = []
        for planned in self.networks:
            name = planned.network_id
            if name != TEACHER and name != PIXELS and TEACHER in self.by_name:
                pairs.append((name, TEACHER))
            if planned.role in ("distilled", "control") and (plain := self._companion(planned)):
                pairs.append((name, plain))
            if planned.role == "plain" and (first := self._first_plain(planned)) not in (None, name):
                pairs.append((name, str(first)))
        return pairs

    def _first_plain(self, planned: Planned) -> str | None:
        alike = (planned.student, planned.label_fraction)
        plain = (p for p in self.networks if p.role == "plain" and (p.student, p.label_fraction) == alike)
        return next((p.network_id for p in plain), None)

    def _same_depth(self, name: str, other: str) -> list[tuple[int, int]]:
        own, others = (self.preflight.shapes[self.by_name[which].shape].taps for which in (name, other))
        return list(enumerate(pair_by_depth(own, others)))

    # ----------------------------------------------------------------------------- credit, reasons

    def _credited(self) -> list[tuple[str, str]]:
        """Students of the study's teacher at their last step, with their plain companion."""
        whole = [p for p in self.networks if p.checkpoint is None and p.teacher is not None]
        taught = [p for p in whole if p.teacher is not None and p.teacher.network_id == TEACHER]
        return [(p.network_id, plain) for p in taught if (plain := self._companion(p))]

    def _credit(self, name: str, plain: str, neighbours: Mapping[str, Stage]) -> Stage:
        own, others = (self.preflight.layers(self.by_name[which].shape) for which in (name, TEACHER))
        pairs = [[own[i], others[j]] for i, j in self._same_depth(name, TEACHER)]
        inputs = {"own": neighbours[name], "plain": neighbours[plain], "teacher": neighbours[TEACHER]}
        return self._stage(make_credit, f"neighbours of {name}", {"teacher_layers": pairs}, inputs)

    def _trios(self) -> list[tuple[str, str, str]]:
        """Students with their plain companion and their teacher; with the study's, where they learned from none.

        How often those err like a teacher whom they never heard is what chance gives.
        """
        found = []
        for planned in self.networks:
            teacher = planned.teacher.network_id if planned.teacher else TEACHER
            compared = planned.role in ("distilled", "control")
            if compared and teacher in self.by_name and (plain := self._companion(planned)):
                found.append((planned.network_id, plain, teacher))
        return found

    def _explanations(self) -> dict[str, Stage]:
        """Grad-CAM of the teacher's answers, where a network has one; the teacher's own first."""
        if not self._has_grad_cam(self.teacher):
            return {}
        stages: dict[str, Stage] = {}
        for planned in sorted(self.networks, key=lambda planned: planned.network_id != TEACHER):
            name = planned.network_id
            if name == PIXELS or not self._has_grad_cam(planned):
                continue
            inputs = {"network": planned.stage, "answers": self.embeddings[TEACHER]}
            if name != TEACHER:
                inputs["teacher"] = stages[TEACHER]
            weights = {"weights": planned.weights}
            stages[name] = self._stage(make_explanations, f"explanations of {name}", weights, inputs)
        return stages

    def _has_grad_cam(self, planned: Planned) -> bool:
        """A map of one position shows no place."""
        shape = self.preflight.shapes[planned.shape]
        return shape.spatial_head and min(shape.final[1:]) > 1
