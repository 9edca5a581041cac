"""The plan of networks that are there already: they are read, and asked how often they are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kdpipe.config.sections import GivenSpec, NetworkSpec
from kdpipe.config.study import FinishedStudy, Given, GivenStudy
from kdpipe.engine.stage import Stage
from kdpipe.pipeline.planned import (
    NetworksPlan,
    Planned,
    architecture_params,
    described_architecture,
    plan_data,
    plan_pixels,
)
from kdpipe.pipeline.stages.data import make_data, make_probe
from kdpipe.pipeline.stages.embeddings import make_pixels
from kdpipe.pipeline.stages.finished import make_finished
from kdpipe.vocabulary import CHECKPOINT, DISTILLED, PLAIN, SUPERVISED_TEACHER, TEACHER, TEACHER_ARCHITECTURE

FINISHED = (make_data, make_probe, make_finished, make_pixels)
# Of a section: what the network is in the study, and nothing that changes what it answers.
ROLE_FIELDS = {"role", "student", "method", "explains", "seed", "step"}


def plan_finished(spec: FinishedStudy, root: Path, seeds: Sequence[int] | None = None) -> NetworksPlan:
    """Images and networks of a study that trains nothing.

    Args:
        root: where relative data paths start.
        seeds: only the students of these seeds.

    Raises:
        DataError, NetworkError: files that are not there.
    """
    data, probe = plan_data(spec, root)
    teacher = next(_planned(spec, one, data) for one in spec.networks if one.role == TEACHER)
    students: list[Planned] = []
    checkpoints: list[Planned] = []
    for network in spec.networks:
        if network.role == TEACHER or (seeds and network.seed not in seeds):
            continue
        planned = _planned(spec, network, data)
        if network.role == DISTILLED:
            planned = replace(planned, teacher=teacher)
        (checkpoints if spec.is_checkpoint(network) else students).append(planned)
    untrained = [] if seeds else [plan_pixels(probe)]
    return NetworksPlan(data, probe, teacher, [], students, checkpoints, untrained)


def _planned(spec: FinishedStudy, network: NetworkSpec, data: Stage) -> Planned:
    name, teacher = spec.network_id(network), network.role == TEACHER
    params, runtime = architecture_params(network, ROLE_FIELDS)
    checkpoint = spec.is_checkpoint(network)
    whole = network.model_copy(update={"step": None})
    return Planned(
        network_id=name,
        role=CHECKPOINT if checkpoint else network.role,
        stage=make_finished.plan(name, params, {"data": data}, batch="all", runtime=runtime, cost=spec.data.probe_size),
        student=TEACHER_ARCHITECTURE if teacher else network.student,
        shape=name,
        described={
            **described_architecture(network),
            "method": SUPERVISED_TEACHER if teacher else network.label,
        },
        steps=network.step or 0,
        method=None if teacher else network.label,
        label_fraction=network.label_fraction,
        seed=network.seed,
        init_seed=network.seed,
        mapped=not checkpoint and bool(spec.maps.projectors) and is_drawn(spec, network),
        checkpoint=network.step if checkpoint else None,
        checkpoint_of=spec.network_id(whole) if checkpoint else None,
    )


def is_drawn(spec: GivenStudy[Given], network: GivenSpec) -> bool:
    """The headline's student, of the first seeds, by every method; and the teacher."""
    headline, seeds = spec.resolved_headline, spec.student_seeds
    if network.role == TEACHER:
        return True
    drawn = {PLAIN: network.seed in seeds[: spec.maps.plain_seeds], DISTILLED: network.seed == seeds[0]}
    alike = network.student == headline.student and network.label_fraction == headline.label_fraction
    return drawn.get(network.role, False) and alike
