"""The engine: stages with content-addressed outputs, run once and never half-written.

A stage's key is the hash of its function's name and version, its parameters and the keys of its
inputs. Its output is a folder built aside, listed in a manifest with the sha256 of every file, and
renamed into the cache. So a run that was killed goes on from the last finished stage, and a changed
parameter re-runs only what depends on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from kdpipe.engine.cache import Cache
from kdpipe.engine.stage import Clock, Context, Stage
from kdpipe.errors import KdpipeError


@dataclass
class Outcome:
    """How a plan went: what ran, what was there, and what failed with which sentence.

    ``again`` holds the keys that were to be made anew although they might have been there.
    """

    ran: list[Stage] = field(default_factory=list)
    cached: list[Stage] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)


def with_inputs(stages: Iterable[Stage]) -> list[Stage]:
    """The stages and everything they rest on, inputs first, each once."""
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.key in ordered:
            return
        for needed in stage.inputs.values():
            visit(needed)
        ordered[stage.key] = stage

    for stage in stages:
        visit(stage)
    return list(ordered.values())


def run(
    stages: Sequence[Stage],
    cache: Cache,
    context: Context,
    force: Sequence[str] = (),
    remade: Collection[str] = (),
) -> Outcome:
    """Run what is missing of a plan, in this process, batch by batch.

    Args:
        force: kinds whose outputs are made anew, with everything that rests on them.
        remade: keys that an earlier part of the same run made anew.
    """
    plan = with_inputs(stages)
    outcome = Outcome()
    again = outcome.again
    for stage in plan:
        rests_on_new = any(needed.key in again or needed.key in remade for needed in stage.inputs.values())
        if stage.key not in remade and (stage.kind in force or rests_on_new):
            again.add(stage.key)
    done: set[str] = set()
    for stage in plan:
        if stage.key not in again and cache.has(stage):
            done.add(stage.key)
            outcome.cached.append(stage)
    for stage in reversed(plan):  # users before what they need: a thinned output that is to be read is made again
        if stage.key not in done:
            done -= {needed.key for needed in stage.inputs.values() if needed.key in done and cache.thinned(needed)}
    outcome.cached = [stage for stage in outcome.cached if stage.key in done]
    waiting = [stage for stage in plan if stage.key not in done]
    while waiting:
        ready = [stage for stage in waiting if all(needed.key in done for needed in stage.inputs.values())]
        if not ready:
            for stage in waiting:
                outcome.failed.setdefault(stage.name, "left out, as something it needs failed")
            return outcome
        batch = _batch_of(ready, waiting)
        failed = _run_batch(batch, cache, context, outcome)
        done |= {stage.key for stage in batch if stage.key not in failed}
        taken = {stage.key for stage in batch}
        waiting = [stage for stage in waiting if stage.key not in taken]
        waiting = _without_dependents(waiting, failed, outcome)
    return outcome


def _batch_of(ready: list[Stage], waiting: list[Stage]) -> list[Stage]:
    """The first ready stages that go together; a batch that is still incomplete lets others go first."""

    def together(stage: Stage) -> tuple[str, ...]:
        return (stage.key,) if stage.batch is None else (stage.kind, stage.batch)

    batches: dict[tuple[str, ...], list[Stage]] = {}
    for stage in ready:
        batches.setdefault(together(stage), []).append(stage)
    whole = Counter(map(together, waiting))
    return next((mates for which, mates in batches.items() if len(mates) == whole[which]), next(iter(batches.values())))


def _run_batch(batch: list[Stage], cache: Cache, context: Context, outcome: Outcome) -> set[str]:
    """Run one batch; returns the keys of what failed."""
    clock = Clock()
    with cache.building() as building:
        tasks = [cache.open_task(stage, building, clock) for stage in batch]
        try:
            batch[0].function(tasks, context)
        except KdpipeError as error:
            for task in tasks:
                if not task.finished and task.failure is None:
                    task.fail(str(error))
    kind = batch[0].kind
    outcome.seconds[kind] = outcome.seconds.get(kind, 0.0) + clock.total()
    failed: set[str] = set()
    for task in tasks:
        if task.finished:
            outcome.ran.append(task.stage)
        else:
            message = task.failure or "it ended without a result"
            outcome.failed[task.stage.name] = message
            context.reporter.warn(f"{task.stage.name}: {message}")
            failed.add(task.stage.key)
    return failed


def _without_dependents(waiting: list[Stage], failed: set[str], outcome: Outcome) -> list[Stage]:
    """Drop the stages that rest on a failed one, and say so in the outcome."""
    lost = set(failed)
    kept = []
    for stage in waiting:  # inputs stand before their users
        if any(needed.key in lost for needed in stage.inputs.values()):
            lost.add(stage.key)
            outcome.failed.setdefault(stage.name, "left out, as something it needs failed")
        else:
            kept.append(stage)
    return kept
