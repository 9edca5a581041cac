"""The first half of any study's plan: its networks, trained here or finished before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdpipe.config.preflight import Preflight
from kdpipe.config.study import BaseStudy, FinishedStudy, StudySpec, VectorStudy
from kdpipe.errors import StudyError
from kdpipe.pipeline.finished_plan import FINISHED, plan_finished
from kdpipe.pipeline.planned import NetworksPlan
from kdpipe.pipeline.training_plan import TRAINING, plan_training
from kdpipe.pipeline.vector_plan import GIVEN, plan_vectors

NETWORK_KINDS = tuple(dict.fromkeys(function.kind for function in (*TRAINING, *FINISHED, *GIVEN)))


def plan_networks(
    spec: BaseStudy, preflight: Preflight, root: Path, seeds: Sequence[int] | None = None
) -> NetworksPlan:
    """Images and networks of a study.

    Args:
        root: where relative data paths start.
        seeds: only the students of these seeds.

    Raises:
        DataError, NetworkError: files that are not there.
        StudyError: seeds the study does not have.
    """
    if unknown := set(seeds or ()) - set(spec.student_seeds):
        raise StudyError(f"--seed {min(unknown)}: the study has seeds {', '.join(map(str, spec.student_seeds))}.")
    if isinstance(spec, StudySpec):
        return plan_training(spec, preflight, root, seeds)
    if isinstance(spec, VectorStudy):
        return plan_vectors(spec, root, seeds)
    assert isinstance(spec, FinishedStudy)
    return plan_finished(spec, root, seeds)
