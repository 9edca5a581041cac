"""The plan of maps: which layers are drawn how, and what is measured of each map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdpipe.config.preflight import Preflight
from kdpipe.config.study import BaseStudy
from kdpipe.engine.stage import Stage
from kdpipe.measures import MEASURES, Measure
from kdpipe.models.profile import pair_by_depth
from kdpipe.pipeline.measure_plan import measure_params
from kdpipe.pipeline.planned import NetworksPlan, Planned
from kdpipe.pipeline.stages.map_measures import MAP_NEIGHBOURS, make_map_measures, make_map_pass
from kdpipe.pipeline.stages.maps import make_consensus, make_maps
from kdpipe.registry import version_in_key
from kdpipe.representation.projectors import PROJECTORS
from kdpipe.vocabulary import CONSENSUS, INDEPENDENT, TEACHER


@dataclass(frozen=True)
class MapPlan:
    """A map of one layer of a network.

    Attributes:
        place: order of the teacher's layer at the same depth; maps of one place share axes.
        shared: the map that the networks have in common there, where one is drawn that can start from it.
        neighbours: the stage that searches the map for neighbours.
        strip: drawn to show what the perplexity or the seed change.
        measures: stages by the name of their measure.
    """

    planned: Planned
    stage: Stage
    order: int
    place: int
    layout: str
    shared: Stage | None
    neighbours: Stage
    strip: bool = False
    measures: Mapping[str, Stage] = field(default_factory=dict)

    @property
    def stages(self) -> list[Stage]:
        return [self.stage, self.neighbours, *self.measures.values()]


def plan_maps(
    spec: BaseStudy,
    preflight: Preflight,
    plan: NetworksPlan,
    networks: Sequence[Planned],
    embeddings: Mapping[str, Stage],
) -> list[MapPlan]:
    """Every map of the study, by every projector that it names."""
    return _MapPlanner(spec, preflight, plan.probe, networks, embeddings).plan()


class _MapPlanner:
    def __init__(
        self,
        spec: BaseStudy,
        preflight: Preflight,
        probe: Stage,
        networks: Sequence[Planned],
        embeddings: Mapping[str, Stage],
    ) -> None:
        self.spec, self.preflight, self.probe = spec, preflight, probe
        self.networks, self.embeddings = networks, embeddings
        self.teacher_taps = preflight.shapes[TEACHER].taps
        asked = (MEASURES[name] for name in spec.measures.names)
        # What compares two maps of one layer is worked out from both of them, once they lie on the same axes.
        self.measures = [one for one in asked if one.of == "map" and "other" not in one.takes]
        # The first of the projectors whose maps can start from a shared one also shows what else changes a map.
        self.headline = next((name for name in spec.maps.projectors if PROJECTORS[name].can_start_from_map), None)

    def plan(self) -> list[MapPlan]:
        drawn: list[MapPlan] = []
        places = self._places()
        for projector in self.spec.maps.projectors:
            for place, members in enumerate(places):
                shared = self._consensus(place, members, self.spec.maps.perplexity) if self.headline else None
                for planned, order in members:
                    drawn += self._panels(planned, order, place, projector, shared)
        for place, members in enumerate(places):
            headline = [(planned, order) for planned, order in members if self._in_strip(planned)]
            drawn += self._strip(place, members, headline, self.headline) if self.headline and headline else []
        return drawn

    def _places(self) -> list[list[tuple[Planned, int]]]:
        """For each layer of the teacher the mapped layers that stand at its depth."""
        places: list[list[tuple[Planned, int]]] = [[] for _ in self.teacher_taps]
        for planned in self.networks:
            if planned.mapped:
                taps = self.preflight.shapes[planned.shape].taps
                for order, place in enumerate(pair_by_depth(taps, self.teacher_taps)):
                    places[place].append((planned, order))
        return places

    def _in_strip(self, planned: Planned) -> bool:
        headline = self.spec.resolved_headline
        if planned.network_id == TEACHER:
            return True
        named = planned.method is not None and (planned.role == "plain" or planned.method == headline.method)
        return named and planned.seed == self.spec.student_seeds[0]

    def _panels(self, planned: Planned, order: int, place: int, projector: str, shared: Stage | None) -> list[MapPlan]:
        record = PROJECTORS[projector]
        known = {"seed": self.spec.maps.seed, "perplexity": self.spec.maps.perplexity}
        options = {name: value for name, value in known.items() if record.takes(name)}
        layouts = self.spec.maps.layouts if record.can_start_from_map else [INDEPENDENT]
        return [self._drawn(planned, order, place, projector, layout, options, shared) for layout in layouts]

    def _strip(
        self,
        place: int,
        members: Sequence[tuple[Planned, int]],
        headline: Sequence[tuple[Planned, int]],
        projector: str,
    ) -> list[MapPlan]:
        """Other perplexities, and other seeds of both layouts, of the headline comparison."""
        chosen, drawn = self.spec.maps, []
        for perplexity in chosen.strip_perplexities:
            fits = 3 * perplexity < self.spec.data.probe_size
            if perplexity == chosen.perplexity or not fits:
                continue
            shared = self._consensus(place, members, perplexity)
            options = {"perplexity": perplexity, "seed": chosen.seed}
            drawn += [
                self._drawn(p, order, place, projector, CONSENSUS, options, shared, True) for p, order in headline
            ]
        for seed in chosen.strip_seeds:
            if seed == chosen.seed:
                continue
            shared = self._consensus(place, members, chosen.perplexity)
            options = {"perplexity": chosen.perplexity, "seed": seed}
            drawn += [
                self._drawn(planned, order, place, projector, layout, options, shared, True)
                for planned, order in headline
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
        name, layer = planned.network_id, self.preflight.layers(planned.shape)[order]
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
                **version_in_key(PROJECTORS[projector]),
                **PROJECTORS.plugin_in_key(projector),
            },
            inputs,
            batch=projector,
            cost=self.spec.data.probe_size,
        )
        neighbours, measures = self._measured(stage, order)
        return MapPlan(planned, stage, order, place, layout, shared, neighbours, strip, measures)

    def _measured(self, drawn: Stage, order: int) -> tuple[Stage, dict[str, Stage]]:
        """The neighbour search of a map, and its measures by name."""
        where = {"order": order, "view": self.spec.maps.view}
        inputs = {"embedding": drawn.inputs["embedding"], "map": drawn}
        neighbours = make_map_pass.plan(
            f"neighbours on {drawn.name}", {**where, "k": MAP_NEIGHBOURS}, inputs, batch="all", cost=drawn.cost
        )
        return neighbours, {one.name: self._measure(one, drawn, neighbours, where) for one in self.measures}

    def _measure(self, measure: Measure, drawn: Stage, neighbours: Stage, where: Mapping[str, Any]) -> Stage:
        inputs = {"probe": self.probe, "embedding": drawn.inputs["embedding"], "map": drawn}
        if measure.of_pass is not None:
            inputs["neighbours"] = neighbours
        params = {**measure_params(measure, self.spec.measures.k), **where}
        return make_map_measures.plan(f"{measure.name} of {drawn.name}", params, inputs, batch="all", cost=drawn.cost)

    def _consensus(self, place: int, members: Sequence[tuple[Planned, int]], perplexity: float) -> Stage:
        orders = {f"{planned.network_id}, layer {order}": order for planned, order in members}
        return make_consensus.plan(
            f"shared map at {self.teacher_taps[place].layer}, perplexity {perplexity:g}",
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
