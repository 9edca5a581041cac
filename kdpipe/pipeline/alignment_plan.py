"""The plan of how maps are laid over each other, and of how far seeds move them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kdpipe.engine.stage import Stage
from kdpipe.files import canonical_json
from kdpipe.measures import MEASURES, Measure
from kdpipe.pipeline.map_plan import MapPlan
from kdpipe.pipeline.stages.alignment import make_alignment, make_seed_drift
from kdpipe.vocabulary import TEACHER

ALIGNMENT_STAGES = (make_alignment, make_seed_drift)
Axes = tuple[str, int]


@dataclass(frozen=True)
class AlignmentPlan:
    """Stages by the key of the map's stage.

    Attributes:
        aligned: of every map.
        drift: by measure too, of maps that were drawn with several seeds.
    """

    aligned: dict[str, Stage]
    drift: dict[tuple[str, str], Stage]

    @property
    def stages(self) -> list[Stage]:
        return [*self.aligned.values(), *self.drift.values()]


def plan_alignment(maps: Sequence[MapPlan], measures: Sequence[Measure]) -> AlignmentPlan:
    """Each map on the reference of its axes; maps that differ in nothing but their seed side by side.

    Args:
        measures: those of two maps of one layer.
    """
    references = _references(maps)
    aligned = {one.stage.key: _alignment(one, references.get(_axes(one))) for one in maps}
    drift: dict[tuple[str, str], Stage] = {}
    for first, *others in _alike(maps):
        if others:
            names = ["first", *(f"other {index}" for index in range(1, len(others) + 1))]
            inputs = [aligned[one.stage.key] for one in (first, *others)]
            for one in measures:
                drift[first.stage.key, one.name] = make_seed_drift.plan(
                    f"{one.name} of {first.stage.name}",
                    {
                        "maps": names,
                        "measure": one.name,
                        "version": one.version,
                        **MEASURES.plugin_in_key(one.name),
                    },
                    dict(zip(names, inputs, strict=True)),
                    batch="all",
                )
    return AlignmentPlan(aligned, drift)


def _alignment(one: MapPlan, reference: Stage | None) -> Stage:
    inputs = {"map": one.stage} if reference is None else {"map": one.stage, "reference": reference}
    return make_alignment.plan(f"{one.stage.name}, aligned", {}, inputs, batch="all")


def _axes(one: MapPlan) -> Axes:
    """Maps of the same axes lie on one reference: t-SNE's consensus, or the teacher's map where there is none."""
    return ("" if one.shared else one.stage.params["projector"], one.place)


def _references(maps: Iterable[MapPlan]) -> dict[Axes, Stage]:
    found: dict[Axes, Stage] = {}
    for one in maps:
        if one.shared and not one.strip:
            found.setdefault(_axes(one), one.shared)
        elif not one.shared and one.planned.network_id == TEACHER:
            found.setdefault(_axes(one), one.stage)
    return found


def _alike(maps: Iterable[MapPlan]) -> list[list[MapPlan]]:
    """Maps of one layer that differ in nothing but their seed."""
    found: dict[tuple[Any, ...], list[MapPlan]] = {}
    for one in maps:
        options = {name: value for name, value in one.stage.params["options"].items() if name != "seed"}
        same = (one.planned.network_id, one.order, one.stage.params["projector"], one.layout, canonical_json(options))
        found.setdefault(same, []).append(one)
    return list(found.values())
