"""From a plan to finished stages: the networks first, then what is looked at of those that came out whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from kdpipe.config.preflight import Preflight
from kdpipe.config.study import BaseStudy
from kdpipe.engine.cache import Cache
from kdpipe.engine.run import Outcome, run
from kdpipe.engine.stage import Context
from kdpipe.errors import KdpipeError
from kdpipe.pipeline.analysis_plan import ANALYSIS_KINDS, Analysis, plan_analysis
from kdpipe.pipeline.networks_plan import plan_networks
from kdpipe.pipeline.planned import NetworksPlan, Planned
from kdpipe.pipeline.stages.outputs import RESULT


@dataclass(frozen=True)
class Result:
    """What a run did, in both halves."""

    plan: NetworksPlan
    analysis: Analysis | None
    outcome: Outcome


def run_study(
    spec: BaseStudy,
    preflight: Preflight,
    cache: Cache,
    context: Context,
    *,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    force: Sequence[str] = (),
) -> Result:
    """Run what the cache does not have of a study.

    Args:
        only: kinds to run, with what they need; all of them if empty.
        force: kinds to run anew, with all that rests on them.

    Raises:
        KdpipeError: the data or the teacher failed, on which everything rests.
    """
    plan = plan_networks(spec, preflight, context.data_root, seeds)
    # All the rest is for nothing without these, so they come first and end the run if they fail.
    base = [plan.data, plan.probe, plan.teacher.stage]
    base_alone = bool(only) and set(only) <= {stage.kind for stage in base}
    outcome = run([s for s in base if not base_alone or s.kind in only], cache, context, force)
    if outcome.failed:
        raise KdpipeError(next(iter(outcome.failed.values())))  # what came after it was only left out
    if not base_alone:
        students = {one.stage.key: one.stage for one in [*plan.students, *plan.checkpoints, *plan.untrained]}
        outcome = _merged(outcome, run(list(students.values()), cache, context, force, outcome.again))
    if only and not set(only) & set(ANALYSIS_KINDS):
        return Result(plan, None, outcome)
    analysis = plan_analysis(spec, preflight, plan, finished(plan, cache))
    stages = [stage for stage in analysis.stages if not only or stage.kind in only]
    later = run(stages, cache, context, force, outcome.again)
    return Result(plan, analysis, _merged(outcome, later))


def finished(plan: NetworksPlan, cache: Cache) -> list[Planned]:
    """The networks that were trained to the end."""

    def whole(planned: Planned) -> bool:
        if not cache.has(planned.stage):
            return False
        return bool(json.loads((cache.path(planned.stage) / RESULT).read_text())["status"] == "trained")

    return [planned for planned in plan.networks if whole(planned)]


def _merged(first: Outcome, second: Outcome) -> Outcome:
    ran = {stage.key for stage in first.ran}
    cached = {stage.key for stage in first.cached}
    return Outcome(
        ran=first.ran + [stage for stage in second.ran if stage.key not in ran],
        cached=first.cached + [stage for stage in second.cached if stage.key not in ran | cached],
        failed={**first.failed, **second.failed},
        again=first.again | second.again,
        seconds={
            kind: first.seconds.get(kind, 0.0) + second.seconds.get(kind, 0.0)
            for kind in {**first.seconds, **second.seconds}
        },
    )
