"""The second half of a study's plan: what is looked at of the networks that were trained to the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdpipe.config.preflight import Preflight
from kdpipe.config.study import StudySpec
from kdpipe.engine.stage import Stage, StageFunction
from kdpipe.measures import MEASURES
from kdpipe.models.profile import pair_by_depth
from kdpipe.pipeline.alignment_plan import ALIGNMENT_STAGES, AlignmentPlan, plan_alignment
from kdpipe.pipeline.answers_plan import ANSWER_STAGES, AnswersPlan, plan_answers
from kdpipe.pipeline.stages.credit import make_credit
from kdpipe.pipeline.stages.embeddings import make_embeddings
from kdpipe.pipeline.stages.explanations import make_explanations
from kdpipe.pipeline.stages.factors import make_factors
from kdpipe.pipeline.stages.layer_measures import make_measures
from kdpipe.pipeline.stages.maps import make_consensus, make_maps
from kdpipe.pipeline.stages.similarity import make_similarity
from kdpipe.pipeline.stages.teacher_measures import make_teacher_measures
from kdpipe.pipeline.training_plan import Planned, Training
from kdpipe.vocabulary import CONSENSUS, INDEPENDENT, PIXELS, TEACHER

ANALYSIS = (
    make_embeddings, make_measures, make_teacher_measures, make_similarity, make_factors, make_credit,
    make_explanations, make_consensus, make_maps, *ANSWER_STAGES, *ALIGNMENT_STAGES,
)  # fmt: skip
ANALYSIS_KINDS = tuple(function.kind for function in ANALYSIS)


@dataclass(frozen=True)
class MapPlan:
    """A map of one layer of a network.

    Attributes:
        place: order of the teacher's layer at the same depth; maps of one place share axes.
        shared: the map that the networks have in common there, where t-SNE is drawn.
        strip: drawn to show what the perplexity or the seed change.
    """

    planned: Planned
    stage: Stage
    order: int
    place: int
    layout: str
    shared: Stage | None
    strip: bool = False


@dataclass(frozen=True)
class Analysis:
    """Stages by network, ``similarity`` by (network, other network)."""

    embeddings: dict[str, Stage]
    measures: dict[str, Stage]
    teacher_measures: dict[str, Stage]
    similarity: dict[tuple[str, str], Stage]
    factors: dict[str, Stage]
    credit: dict[str, Stage]
    explanations: dict[str, Stage]
    maps: list[MapPlan]
    answers: AnswersPlan
    alignment: AlignmentPlan

    @property
    def stages(self) -> list[Stage]:
        by_network: Sequence[Mapping[Any, Stage]] = (
            self.embeddings, self.measures, self.teacher_measures, self.similarity, self.factors, self.credit,
            self.explanations,
        )  # fmt: skip
        shared = {drawn.shared.key: drawn.shared for drawn in self.maps if drawn.shared}
        first = [stage for stages in by_network for stage in stages.values()]
        drawn = [*shared.values(), *(drawn.stage for drawn in self.maps)]
        return [*first, *drawn, *self.answers.stages, *self.alignment.stages]


def plan_analysis(spec: StudySpec, preflight: Preflight, training: Training, networks: Sequence[Planned]) -> Analysis:
    """Everything that is looked at of ``networks``."""
    return _AnalysisPlanner(spec, preflight, training, networks).plan()


class _AnalysisPlanner:
    def __init__(self, spec: StudySpec, preflight: Preflight, training: Training, networks: Sequence[Planned]) -> None:
        self.spec, self.preflight, self.networks = spec, preflight, networks
        self.probe, self.teacher = training.probe, training.teacher
        self.by_name = {planned.network_id: planned for planned in networks}
        self.embeddings = {planned.network_id: self._embedding(planned) for planned in networks}
        self.of_layers = {
            "names": self._measures("layer"),
            "of_networks": self._measures("network"),
            "k": spec.measures.k,
            "second_k": spec.measures.second_k if spec.measures.specifications else None,
        }

    def _measures(self, of: str, beside_teacher: bool = False) -> list[str]:
        asked = (MEASURES[name] for name in self.spec.measures.names)
        return [one.name for one in asked if one.of == of and one.needs_teacher == beside_teacher]

    def plan(self) -> Analysis:
        measures = {
            name: self._stage(make_measures, f"measures of {name}", self.of_layers, {"embedding": stage})
            for name, stage in self.embeddings.items()
        }
        pairs, maps = self._pairs(), self._maps()
        return Analysis(
            self.embeddings,
            measures,
            self._teacher_measures(),
            {pair: self._similarity(*pair) for pair in pairs} if self._measures("pair") else {},
            {name: self._factors(name) for name in self.embeddings} if self.spec.measures.factors else {},
            {name: self._credit(name, plain, measures) for name, plain in self._credited()},
            self._explanations() if self.spec.measures.explanations else {},
            maps,
            plan_answers(self.probe, self.embeddings, pairs, self._trios(), self._measures("answers")),
            plan_alignment(maps),
        )

    def _stage(
        self, function: StageFunction, name: str, params: Mapping[str, Any], inputs: Mapping[str, Stage]
    ) -> Stage:
        inputs = {"probe": self.probe, **inputs}
        return function.plan(name, params, inputs, batch="all", cost=self.spec.data.probe_size)

    def _embedding(self, planned: Planned) -> Stage:
        last = planned.checkpoint is None and planned.network_id != PIXELS
        weights = PIXELS if planned.network_id == PIXELS else planned.weights
        return self._stage(
            make_embeddings,
            f"embedding of {planned.network_id}",
            {"views": list(self.spec.views), **({} if last else {"weights": weights})},
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
            if planned.role in ("distilled", "control") and planned.student and (plain := self._companion(planned)):
                pairs.append((name, plain))
            if planned.role == "plain" and (first := self._first_plain(planned)) not in (None, name):
                pairs.append((name, str(first)))
        return pairs

    def _first_plain(self, planned: Planned) -> str | None:
        alike = (planned.student, planned.label_fraction)
        plain = (p for p in self.networks if p.role == "plain" and (p.student, p.label_fraction) == alike)
        return next((p.network_id for p in plain), None)

    def _similarity(self, name: str, other: str) -> Stage:
        params = {"names": self._measures("pair"), "same_depth": [list(pair) for pair in self._same_depth(name, other)]}
        inputs = {"embedding": self.embeddings[name], "other": self.embeddings[other]}
        return self._stage(make_similarity, f"similarity of {name} and {other}", params, inputs)

    def _same_depth(self, name: str, other: str) -> list[tuple[int, int]]:
        own, others = (self.preflight.shape(self.by_name[which].student).taps for which in (name, other))
        return list(enumerate(pair_by_depth(own, others)))

    # -------------------------------------------------------------------- factors, credit, reasons

    def _factors(self, name: str) -> Stage:
        inputs = {"embedding": self.embeddings[name], "teacher": self.embeddings[TEACHER]}
        return self._stage(make_factors, f"factors of {name}", {"k": self.spec.measures.k}, inputs)

    def _credited(self) -> list[tuple[str, str]]:
        """Students of the study's teacher at their last step, with their plain companion."""
        whole = [p for p in self.networks if p.checkpoint is None and p.teacher is not None]
        taught = [p for p in whole if p.teacher is not None and p.teacher.network_id == TEACHER]
        return [(p.network_id, plain) for p in taught if p.student and (plain := self._companion(p))]

    def _credit(self, name: str, plain: str, measures: Mapping[str, Stage]) -> Stage:
        own, others = (self.preflight.layers(self.by_name[which].student) for which in (name, TEACHER))
        pairs = [[own[i], others[j]] for i, j in self._same_depth(name, TEACHER)]
        inputs = {"own": measures[name], "plain": measures[plain], "teacher": measures[TEACHER]}
        return self._stage(make_credit, f"neighbours of {name}", {"teacher_layers": pairs}, inputs)

    def _teacher_measures(self) -> dict[str, Stage]:
        """The measures of layers that ask what the study's teacher answers, where the study has some."""
        if not (names := self._measures("layer", beside_teacher=True)):
            return {}
        teacher, params = self.embeddings[TEACHER], {"names": names}
        return {
            name: self._stage(
                make_teacher_measures,
                f"{name} beside the teacher's answers",
                params,
                {"embedding": stage, "teacher": teacher},
            )
            for name, stage in self.embeddings.items()
        }

    def _trios(self) -> list[tuple[str, str, str]]:
        """Students with their plain companion and their teacher; with the study's, where they learned from none.

        How often those err like a teacher whom they never heard is what chance gives.
        """
        found = []
        for planned in self.networks:
            teacher = planned.teacher.network_id if planned.teacher else TEACHER
            compared = planned.role in ("distilled", "control") and planned.student is not None
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
        shape = self.preflight.shape(planned.student)
        return shape.spatial_head and min(shape.final[1:]) > 1

    # ---------------------------------------------------------------------------------------- maps

    def _maps(self) -> list[MapPlan]:
        drawn: list[MapPlan] = []
        places = self._places()
        chosen = self.spec.maps
        for projector in chosen.projectors:
            for place, members in enumerate(places):
                shared = self._consensus(place, members, chosen.perplexity) if "tsne" in chosen.projectors else None
                for planned, order in members:
                    drawn += self._panels(planned, order, place, projector, shared)
        for place, members in enumerate(places):
            headline = [(planned, order) for planned, order in members if self._in_strip(planned)]
            drawn += self._strip(place, members, headline) if "tsne" in chosen.projectors else []
        return drawn

    def _places(self) -> list[list[tuple[Planned, int]]]:
        """For each layer of the teacher the mapped layers that stand at its depth."""
        places: list[list[tuple[Planned, int]]] = [[] for _ in self.preflight.teacher.taps]
        for planned in self.networks:
            if planned.mapped:
                taps = self.preflight.shape(planned.student).taps
                for order, place in enumerate(pair_by_depth(taps, self.preflight.teacher.taps)):
                    places[place].append((planned, order))
        return places

    def _in_strip(self, planned: Planned) -> bool:
        headline = self.spec.resolved_headline
        if planned.network_id == TEACHER:
            return True
        named = planned.method is not None and (planned.role == "plain" or planned.method.name == headline.method)
        return named and planned.seed == self.spec.seeds[0]

    def _panels(self, planned: Planned, order: int, place: int, projector: str, shared: Stage | None) -> list[MapPlan]:
        options: dict[str, Any] = {"seed": self.spec.maps.seed} if projector != "pca" else {}
        if projector == "tsne":
            options["perplexity"] = self.spec.maps.perplexity
        layouts = self.spec.maps.layouts if projector == "tsne" else [INDEPENDENT]
        return [self._drawn(planned, order, place, projector, layout, options, shared) for layout in layouts]

    def _strip(
        self, place: int, members: Sequence[tuple[Planned, int]], headline: Sequence[tuple[Planned, int]]
    ) -> list[MapPlan]:
        """Other perplexities, and other seeds of both layouts, of the headline comparison."""
        chosen, drawn = self.spec.maps, []
        for perplexity in chosen.strip_perplexities:
            fits = 3 * perplexity < self.spec.data.probe_size
            if perplexity == chosen.perplexity or not headline or not fits:
                continue
            shared = self._consensus(place, members, perplexity)
            options = {"perplexity": perplexity, "seed": chosen.seed}
            drawn += [self._drawn(p, order, place, "tsne", CONSENSUS, options, shared, True) for p, order in headline]
        for seed in chosen.strip_seeds:
            if seed == chosen.seed or not headline:
                continue
            shared = self._consensus(place, members, chosen.perplexity)
            options = {"perplexity": chosen.perplexity, "seed": seed}
            drawn += [
                self._drawn(p, order, place, "tsne", layout, options, shared, True)
                for p, order in headline
                for layout in chosen.layouts
            ]
        return drawn

    def _drawn(
        self,
        planned: Planned,
        order: int,
        place: int,
        projector: str,
        layout: str,
        options: Mapping[str, Any],
        shared: Stage | None,
        strip: bool = False,
    ) -> MapPlan:
        name, layer = planned.network_id, self.preflight.layers(planned.student)[order]
        variant = ", ".join(f"{option} {value:g}" for option, value in options.items())
        inputs = {"embedding": self.embeddings[name]}
        if layout == CONSENSUS:
            assert shared is not None, "a consensus layout starts from the shared map"
            inputs["consensus"] = shared
        stage = make_maps.plan(
            f"{layout} {projector} of {name}, {layer}" + (f" ({variant})" if strip else ""),
            {
                "projector": projector,
                "options": options,
                "order": order,
                "view": self.spec.maps.view,
                "neighbours": int(3 * options.get("perplexity", self.spec.maps.perplexity)),
            },
            inputs,
            batch=projector,
            cost=self.spec.data.probe_size,
        )
        return MapPlan(planned, stage, order, place, layout, shared, strip)

    def _consensus(self, place: int, members: Sequence[tuple[Planned, int]], perplexity: float) -> Stage:
        orders = {f"{planned.network_id}, layer {order}": order for planned, order in members}
        return make_consensus.plan(
            f"shared map at {self.preflight.teacher.taps[place].layer}, perplexity {perplexity:g}",
            {
                "orders": orders,
                "view": self.spec.maps.view,
                "options": {"perplexity": perplexity, "seed": self.spec.maps.seed},
                "neighbours": int(3 * perplexity),
            },
            {f"{planned.network_id}, layer {order}": self.embeddings[planned.network_id] for planned, order in members},
            batch="all",
            cost=self.spec.data.probe_size,
        )
