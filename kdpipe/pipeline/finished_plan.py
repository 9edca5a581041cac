"""The plan of networks that are there already: they are read, and asked how often they are right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdpipe.config.sections import NetworkSpec
from kdpipe.config.study import FinishedStudy
from kdpipe.pipeline.given_plan import given_network, given_networks
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

FINISHED = (make_data, make_probe, make_finished, make_pixels)
# Of a section: what the network is in the study, and nothing that changes what it answers.
ROLE_FIELDS = {"role", "student", "method", "explains", "seed", "step"}

LACKING = {"training": "The networks were trained elsewhere: there are no losses, training curves or times."}


def plan_finished(spec: FinishedStudy, root: Path, seeds: Sequence[int] | None = None) -> NetworksPlan:
    """Images and networks of a study that trains nothing.

    Args:
        root: where relative data paths start.
        seeds: only the students of these seeds.

    Raises:
        DataError, NetworkError: files that are not there.
    """
    data, probe = plan_data(spec, root)

    def planned(network: NetworkSpec) -> Planned:
        params, runtime = architecture_params(network, ROLE_FIELDS)
        stage = make_finished.plan(
            spec.network_id(network),
            params,
            {"data": data},
            batch="all",
            runtime=runtime,
            cost=spec.data.probe_size,
        )
        return given_network(spec, network, stage, described_architecture(network))

    teacher, students, checkpoints = given_networks(spec, seeds, planned)
    untrained = [] if seeds else [plan_pixels(probe)]
    return NetworksPlan(data, probe, teacher, [], students, checkpoints, untrained, LACKING)
