"""The plan of measures: a stage for each measure of each network, pair of networks and factor.

So a measure that is added, or whose version is raised, is worked out alone; what several share is a stage of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from kdpipe.config.study import BaseStudy
from kdpipe.engine.stage import Stage, StageFunction
from kdpipe.measures import FACTORS, MEASURES, Measure
from kdpipe.measures.registry import Kind
from kdpipe.pipeline.stages.factors import factor_input, make_explained, make_factor, make_factors
from kdpipe.pipeline.stages.image_measures import make_image_measures
from kdpipe.pipeline.stages.layer_measures import make_measures
from kdpipe.pipeline.stages.neighbours import CACHED_NEIGHBOURS, make_neighbours
from kdpipe.pipeline.stages.network_measures import make_network_measures
from kdpipe.pipeline.stages.similarity import make_similarity


def measure_params(measure: Measure, k: int) -> dict[str, Any]:
    """What the key of a measure's stage says of it: nothing that is another measure's, or that it does not take."""
    neighbours = measure.neighbours(k)
    return {
        "measure": measure.name,
        "version": measure.version,
        **MEASURES.plugin_in_key(measure.name),
        **({} if neighbours is None else {"k": neighbours}),
    }


class MeasurePlanner:
    """Plans what is measured of embedded networks; stages by network, or by network and name."""

    def __init__(
        self,
        spec: BaseStudy,
        probe: Stage,
        embeddings: Mapping[str, Stage],
        teacher: str,
        known: Collection[str] = ("images", "reference", "logits"),
    ) -> None:
        """Args: known: what there is beside vectors: images, reference samples, the teacher's logits."""
        self.spec, self.probe, self.embeddings, self.teacher, self.known = spec, probe, embeddings, teacher, known
        second_k = spec.measures.second_k if spec.measures.specifications else None
        wanted = max(CACHED_NEIGHBOURS, spec.measures.k, second_k or 0)
        self.neighbours = {
            name: self._stage(make_neighbours, f"neighbours of {name}", {"neighbours": wanted}, {"embedding": stage})
            for name, stage in embeddings.items()
        }
        votes = {"k": spec.measures.k, "second_k": second_k}
        self.images = {
            name: self._stage(
                make_image_measures,
                f"images of {name}",
                votes,
                {"embedding": stage, "neighbours": self.neighbours[name]},
            )
            for name, stage in embeddings.items()
        }

    def asked(self, of: Kind) -> list[Measure]:
        """The measures of one kind that the study names."""
        return [MEASURES[name] for name in self.spec.measures.names if MEASURES[name].of == of]

    def _stage(
        self, function: StageFunction, name: str, params: Mapping[str, Any], inputs: Mapping[str, Stage]
    ) -> Stage:
        inputs = {"probe": self.probe, **inputs}
        return function.plan(name, params, inputs, batch="all", cost=self.spec.data.probe_size)

    def layers(self) -> dict[tuple[str, str], Stage]:
        """The measures of layers, by network and measure."""
        found = {}
        for name in self.embeddings:
            for measure in self.asked("layer"):
                if not self._can_be_made(measure):
                    continue
                inputs = {"embedding": self.embeddings[name]}
                inputs |= {"neighbours": self.neighbours[name]} if measure.needs_pass else {}
                inputs |= {"teacher": self.embeddings[self.teacher]} if measure.needs_teacher else {}
                params = measure_params(measure, self.spec.measures.k)
                found[name, measure.name] = self._stage(make_measures, f"{measure.name} of {name}", params, inputs)
        return found

    def _can_be_made(self, measure: Measure) -> bool:
        fitted = "X_train" in measure.takes or "y_train" in measure.takes
        return ("reference" in self.known or not fitted) and ("logits" in self.known or not measure.needs_teacher)

    def networks(self, answering: Iterable[str]) -> dict[tuple[str, str], Stage]:
        """The measures of networks that answer, by network and measure."""
        found = {}
        for name in answering:
            for measure in self.asked("network"):
                inputs = {"embedding": self.embeddings[name]}
                inputs |= {"votes": self.images[name]} if "votes" in measure.takes else {}
                params = measure_params(measure, self.spec.measures.k)
                found[name, measure.name] = self._stage(
                    make_network_measures, f"{measure.name} of {name}", params, inputs
                )
        return found

    def pairs(self, same_depth: Mapping[tuple[str, str], Sequence[tuple[int, int]]]) -> dict[tuple[str, ...], Stage]:
        """The measures of pairs of layers, by network, other network and measure.

        Args:
            same_depth: for each pair of networks the orders of their layers that stand at the same depth.
        """
        found: dict[tuple[str, ...], Stage] = {}
        for (name, other), places in same_depth.items():
            for measure in self.asked("pair"):
                params = measure_params(measure, self.spec.measures.k)
                if not measure.all_layers:
                    params["same_depth"] = [list(place) for place in places]
                inputs = {"embedding": self.embeddings[name], "other": self.embeddings[other]}
                title = f"{measure.name} of {name} and {other}"
                found[name, other, measure.name] = self._stage(make_similarity, title, params, inputs)
        return found

    def factors(self) -> tuple[dict[str, Stage], dict[tuple[str, str], Stage], dict[str, Stage]]:
        """Known factors by name, what each explains by network and factor, and what is left by network.

        The images' factors are always at hand; what they explain of layers is asked if the study says so.
        """
        embeddings = self.embeddings
        values = {
            name: self._stage(
                make_factor,
                name,
                {"factor": name, "version": factor.version, **FACTORS.plugin_in_key(name)},
                {"teacher": embeddings[self.teacher]} if factor.takes == "logits" else {},
            )
            for name, factor in FACTORS.items()
            if factor.takes in self.known
        }
        if not self.spec.measures.factors or not values:
            return values, {}, {}
        explained, together = {}, {}
        all_of_them = {factor_input(factor): stage for factor, stage in values.items()}
        for name, embedding in embeddings.items():
            for factor, stage in values.items():
                explained[name, factor] = make_explained.plan(
                    f"{factor} in {name}",
                    {"factor": factor},
                    {"embedding": embedding, "factor": stage},
                    batch="all",
                    cost=self.spec.data.probe_size,
                )
            params = {"k": self.spec.measures.k, "factors": list(values)}
            inputs = {"embedding": embedding, **all_of_them}
            together[name] = self._stage(make_factors, f"factors of {name}", params, inputs)
        return values, explained, together
