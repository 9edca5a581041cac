"""What plans of networks that were trained elsewhere have in common, whether the networks are here or their vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kdpipe.config.sections import GivenSpec
from kdpipe.config.study import Given, GivenStudy
from kdpipe.engine.stage import Stage
from kdpipe.pipeline.planned import Planned
from kdpipe.vocabulary import CHECKPOINT, DISTILLED, PLAIN, SUPERVISED_TEACHER, TEACHER, TEACHER_ARCHITECTURE


def given_networks(
    spec: GivenStudy[Given], seeds: Sequence[int] | None, planned: Callable[[Given], Planned]
) -> tuple[Planned, list[Planned], list[Planned]]:
    """The teacher, the students (of some seeds alone, if they are named), and checkpoints on their way.

    Args:
        planned: makes one network of its section.
    """
    teacher = next(planned(one) for one in spec.networks if one.role == TEACHER)
    students: list[Planned] = []
    checkpoints: list[Planned] = []
    for network in spec.networks:
        if network.role == TEACHER or (seeds and network.seed not in seeds):
            continue
        made = planned(network)
        made = replace(made, teacher=teacher) if network.role == DISTILLED else made
        (checkpoints if spec.is_checkpoint(network) else students).append(made)
    return teacher, students, checkpoints


def given_network(spec: GivenStudy[Given], network: Given, stage: Stage, described: Mapping[str, Any]) -> Planned:
    """A network as its section names it.

    Args:
        stage: makes it; its name is the network's.
        described: its architecture, for networks.parquet.
    """
    is_teacher, checkpoint = network.role == TEACHER, spec.is_checkpoint(network)
    whole = network.model_copy(update={"step": None})
    return Planned(
        network_id=spec.network_id(network),
        role=CHECKPOINT if checkpoint else network.role,
        stage=stage,
        student=TEACHER_ARCHITECTURE if is_teacher else network.student,
        shape=spec.network_id(network),
        described={**described, "method": SUPERVISED_TEACHER if is_teacher else network.label},
        steps=network.step or 0,
        method=None if is_teacher else network.label,
        label_fraction=network.label_fraction,
        seed=network.seed,
        init_seed=network.seed,
        mapped=not checkpoint and bool(spec.maps.projectors) and _is_drawn(spec, network),
        checkpoint=network.step if checkpoint else None,
        checkpoint_of=spec.network_id(whole) if checkpoint else None,
    )


def _is_drawn(spec: GivenStudy[Given], network: GivenSpec) -> bool:
    """The headline's student, of the first seeds, by every method; and the teacher."""
    headline, seeds = spec.resolved_headline, spec.student_seeds
    if network.role == TEACHER:
        return True
    drawn = {PLAIN: network.seed in seeds[: spec.maps.plain_seeds], DISTILLED: network.seed == seeds[0]}
    alike = network.student == headline.student and network.label_fraction == headline.label_fraction
    return drawn.get(network.role, False) and alike
