"""The engine: stages with content-addressed outputs, run once and never half-written.

A stage's key is the hash of its function's name and version, its parameters and the keys of its
inputs. Its output is a folder built aside, listed in a manifest with the sha256 of every file, and
renamed into the cache. So a run that was killed goes on from the last finished stage, and a changed
parameter re-runs only what depends on it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from kdpipe.errors import KdpipeError
from kdpipe.files import canonical_json, flush_folder, sha256_of, write_atomic

MANIFEST = "manifest.json"


class Progress(Protocol):
    """One long step, as a bar with time left or as nothing."""

    def advance(self, amount: float = 1, note: str = "") -> None: ...


class Reporter(Protocol):
    """Where a run says what it does."""

    def track(self, title: str, total: float) -> AbstractContextManager[Progress]: ...
    def say(self, message: str) -> None: ...
    def warn(self, message: str) -> None: ...


@dataclass(frozen=True)
class Context:
    """What a stage function may use beside its inputs; nothing of it is part of a key."""

    device: str
    data_root: Path
    reporter: Reporter
    scratch: Path
    hardware: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of the plan.

    Attributes:
        kind: what ``--only`` and ``--force`` call it.
        name: for people; unique within the plan.
        function: called with all tasks of one ``batch`` that are to be run, and the context.
        params: JSON values; with the inputs' keys and the version they make the key.
        version: raised whenever the function would give another result from the same inputs.
        batch: stages of one kind and batch are handed to the function together, if they are ready.
        batch_title: what they have in common, for people.
        runtime: where things lie on this machine (paths); no part of the key.
        cost: rough work, in the unit that ``plan`` prints for the kind.
    """

    kind: str
    name: str
    function: Callable[[Sequence[Task], Context], None]
    params: Mapping[str, Any]
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    version: int = 1
    batch: str | None = None
    batch_title: str = ""
    runtime: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 0.0

    @cached_property
    def key(self) -> str:
        identity = {
            "kind": self.kind,
            "function": self.function.__name__,
            "version": self.version,
            "params": self.params,
            "inputs": {name: stage.key for name, stage in self.inputs.items()},
        }
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:32]


@dataclass
class Task:
    """A stage that is being run: where to write, what to read, and how it ended.

    ``anew`` says that an output is there already, to be replaced because of force or damage.
    """

    stage: Stage
    folder: Path
    inputs: Mapping[str, Path]
    _finish: Callable[[Task], None]
    anew: bool = False
    finished: bool = False
    failure: str | None = None

    def finish(self) -> None:
        """Publish the output; done as soon as it is whole, not when the batch is."""
        self._finish(self)
        self.finished = True

    def fail(self, message: str) -> None:
        """Give this task up, with one sentence; the rest of the batch goes on."""
        self.failure = message


class Clock:
    """Wall time of a batch, handed out in laps so that the laps of its tasks add up to the whole."""

    def __init__(self) -> None:
        self._start = self._lap = time.perf_counter()

    def lap(self) -> float:
        before, self._lap = self._lap, time.perf_counter()
        return self._lap - before

    def total(self) -> float:
        return time.perf_counter() - self._start


def dropped(manifest: Mapping[str, Any]) -> frozenset[str]:
    """Names of the files that a thinned output once had."""
    return frozenset(manifest.get("dropped", ()))


class Cache:
    """Outputs of finished stages, one folder a key."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._trusted: set[str] = set()

    def path(self, stage: Stage) -> Path:
        return self.root / "stages" / stage.kind / stage.key

    def manifest(self, stage: Stage) -> dict[str, Any]:
        return json.loads((self.path(stage) / MANIFEST).read_text())

    def has(self, stage: Stage) -> bool:
        """Whether the stage's output is there and undamaged; of a thinned one, what was kept of it."""
        if stage.key in self._trusted:
            return True
        folder = self.path(stage)
        try:
            manifest = self.manifest(stage)
            kept = {name: digest for name, digest in manifest["files"].items() if name not in dropped(manifest)}
            whole = all(sha256_of(folder / name) == digest for name, digest in kept.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if whole:
            self._trusted.add(stage.key)
        return whole

    def thinned(self, stage: Stage) -> bool:
        """Whether files of the output were left behind (:mod:`kdpipe.packing`), so that no stage can read it."""
        return bool(dropped(self.manifest(stage)))

    def drop(self, stage: Stage) -> None:
        self._trusted.discard(stage.key)
        shutil.rmtree(self.path(stage), ignore_errors=True)

    def open_task(self, stage: Stage, clock: Clock) -> Task:
        parent = self.path(stage).parent
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=f".{stage.key}-"))
        inputs = {name: self.path(needed) for name, needed in stage.inputs.items()}
        anew = self.path(stage).exists()
        return Task(stage, folder, inputs, lambda task: self._publish(task, clock.lap()), anew)

    def _publish(self, task: Task, seconds: float) -> None:
        """Move a task's folder into the cache.

        An output that another run published meanwhile stays, as that run may be reading it.
        """
        folder, stage = task.folder, task.stage
        files = {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}
        manifest = {
            "kind": stage.kind,
            "name": stage.name,
            "version": stage.version,
            "params": stage.params,
            "inputs": {name: needed.key for name, needed in stage.inputs.items()},
            "files": dict(sorted(files.items())),
            "seconds": seconds,
        }
        write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))
        os.chmod(folder, 0o755)
        flush_folder(folder)
        try:
            os.replace(folder, self.path(stage))
        except OSError:
            if task.anew or not self.has(stage):
                self._swap(folder, self.path(stage))
            else:
                shutil.rmtree(folder, ignore_errors=True)
        self._trusted.add(stage.key)

    @staticmethod
    def _swap(folder: Path, target: Path) -> None:
        """Put ``folder`` in the place of ``target``, which is gone for no longer than two renames take."""
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        try:
            while True:
                with contextlib.suppress(FileNotFoundError):  # another run is swapping it too
                    os.replace(target, old)
                try:
                    return os.replace(folder, target)
                except OSError as error:
                    if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                        raise
                    shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(old, ignore_errors=True)

    def size(self) -> tuple[int, int]:
        """Finished stages, and bytes in all."""
        files = [path for path in self.root.rglob("*") if path.is_file()] if self.root.is_dir() else []
        return sum(path.name == MANIFEST for path in files), sum(path.stat().st_size for path in files)

    def clean(self) -> int:
        """Delete every output and what killed runs left, and return how many bytes that freed.

        Only folders that carry a manifest, or the hidden names of unfinished outputs, are touched: a folder
        that was named by mistake keeps what is in it. Logs stay.
        """
        unfinished = [folder for folder in self.root.glob("stages/*/.*") if folder.is_dir()]
        outputs = [manifest.parent for manifest in self.root.glob(f"stages/*/*/{MANIFEST}")]
        resume = [path for path in self.root.glob("scratch/resume/*.pt") if path.is_file()]
        freed = 0
        for folder in [*outputs, *unfinished]:
            freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            shutil.rmtree(folder, ignore_errors=True)
        for path in resume:
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
        self._trusted.clear()
        return freed

    def sweep(self) -> None:
        """Remove what killed runs left half-built more than a week ago."""
        for folder in self.root.glob("stages/*/.*"):
            if time.time() - folder.stat().st_mtime > 7 * 86_400:
                shutil.rmtree(folder, ignore_errors=True)


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
        batch = _batch_of(ready, waiting, done)
        failed = _run_batch(batch, cache, context, outcome)
        done |= {stage.key for stage in batch if stage.key not in failed}
        waiting = [stage for stage in waiting if stage not in batch]
        waiting = _without_dependents(waiting, failed, outcome)
    return outcome


def _batch_of(ready: list[Stage], waiting: list[Stage], done: set[str]) -> list[Stage]:
    """The first ready stages that go together; a batch that is still incomplete lets others go first."""

    def mates(stage: Stage, among: list[Stage]) -> list[Stage]:
        if stage.batch is None:
            return [stage]
        return [other for other in among if (other.kind, other.batch) == (stage.kind, stage.batch)]

    for stage in ready:
        if len(mates(stage, ready)) == len(mates(stage, waiting)):
            return mates(stage, ready)
    return mates(ready[0], ready)


def _run_batch(batch: list[Stage], cache: Cache, context: Context, outcome: Outcome) -> set[str]:
    """Run one batch; returns the keys of what failed."""
    clock = Clock()
    tasks = [cache.open_task(stage, clock) for stage in batch]
    try:
        batch[0].function(tasks, context)
    except KdpipeError as error:
        for task in tasks:
            if not task.finished and task.failure is None:
                task.fail(str(error))
    finally:
        for task in tasks:
            if not task.finished:
                shutil.rmtree(task.folder, ignore_errors=True)
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
