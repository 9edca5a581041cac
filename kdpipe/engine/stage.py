"""A stage of a plan, the task that runs it, and what a running task may use."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from kdpipe.errors import KdpipeError
from kdpipe.files import canonical_json


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
    """What a stage function may use apart from its inputs; nothing of it is part of a key."""

    device: str
    data_root: Path
    reporter: Reporter
    scratch: Path
    hardware: Mapping[str, Any]


Work = Callable[["Sequence[Task]", Context], None]


@dataclass(frozen=True)
class StageFunction:
    """What a kind of stage does, declared next to the code that does it: see :func:`stage` and :func:`batch_stage`.

    Attributes:
        kind: what ``--only`` and ``--force`` call it.
        name: of the function; part of every key, so a renamed function is a new one.
        version: raised whenever the function would give another result from the same inputs.
        takes: names of the inputs that it reads.
        may_take: names of inputs that some of its stages have.
        work: called with all tasks of one batch that are to be run.
        light: its output takes less time to make than to force to disk, so it is not forced. What a power cut
            takes of it, the manifest's checksums tell, and it is made again.
    """

    kind: str
    name: str
    version: int
    takes: tuple[str, ...]
    may_take: tuple[str, ...]
    work: Work
    light: bool = False

    def __call__(self, tasks: Sequence[Task], context: Context) -> None:
        self.work(tasks, context)

    def plan(
        self, name: str, params: Mapping[str, Any], inputs: Mapping[str, Stage] | None = None, **more: Any
    ) -> Stage:
        """A stage of this kind.

        Args:
            more: further attributes of :class:`Stage`.

        Raises:
            TypeError: an input that it does not take, or lacks.
        """
        inputs = inputs or {}
        if self.takes != (ANY,):
            unknown = inputs.keys() - {*self.takes, *self.may_take}
            lacking = set(self.takes) - inputs.keys()
            if unknown or lacking:
                wanted, given = (", ".join(names) or "nothing" for names in (self.takes, inputs))
                raise TypeError(f"a {self.kind} stage takes {wanted}, not {given}")
        return Stage(self, name, params, inputs, **more)


ANY = "*"  # a stage that takes any number of inputs, by names of its own


def batch_stage(
    kind: str, *, version: int = 1, takes: Sequence[str] = (), may_take: Sequence[str] = (), light: bool = False
) -> Callable[[Work], StageFunction]:
    """Declare a stage whose tasks are worked on together: what it decorates gets all tasks of a batch.

    The function finishes each task when its output is whole, and fails those that cannot be done
    (:meth:`Task.alone`).
    """

    def declare(work: Work) -> StageFunction:
        return StageFunction(kind, work.__name__, version, tuple(takes), tuple(may_take), work, light)

    return declare


def stage(
    kind: str,
    *,
    version: int = 1,
    takes: Sequence[str] = (),
    may_take: Sequence[str] = (),
    title: str = "",
    light: bool = False,
) -> Callable[[Callable[[Task, Context], None]], StageFunction]:
    """Declare a stage whose tasks have nothing in common: what it decorates gets one task and fills its folder.

    Each task is alone in failing: what goes wrong with it is said of it, and the rest of the batch goes on.

    Args:
        title: of the progress bar; without it there is none.
    """

    def declare(one: Callable[[Task, Context], None]) -> StageFunction:
        def each(tasks: Sequence[Task], context: Context) -> None:
            with context.reporter.track(title, len(tasks)) if title else nullcontext() as bar:
                for task in tasks:
                    with task.alone():
                        one(task, context)
                        task.finish()
                    if bar is not None:
                        bar.advance(1, task.stage.name)

        return StageFunction(kind, one.__name__, version, tuple(takes), tuple(may_take), each, light)

    return declare


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of the plan.

    Attributes:
        function: what it does, with its kind and version.
        name: for people; unique within the plan.
        params: JSON values; with the inputs' keys, the function's name and version they make the key.
        batch: stages of one kind and batch are handed to the function together, if they are ready.
        batch_title: what they have in common, for people.
        runtime: where things lie on this machine (paths); no part of the key.
        cost: rough work, in the unit that ``plan`` prints for the kind.
    """

    function: StageFunction
    name: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    batch: str | None = None
    batch_title: str = ""
    runtime: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 0.0

    @property
    def kind(self) -> str:
        """What ``--only`` and ``--force`` call it."""
        return self.function.kind

    @property
    def version(self) -> int:
        """That of its function."""
        return self.function.version

    @cached_property
    def key(self) -> str:
        """Identity of the output, 32 hex digits: of function, version, parameters and all that it rests on."""
        identity = {
            "kind": self.kind,
            "function": self.function.name,
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

    @contextmanager
    def alone(self) -> Iterator[None]:
        """What goes wrong inside is said of this task, and the rest of its batch goes on.

        Measures and projectors say with a ValueError what they cannot do; any other error is a bug and ends the run.
        """
        try:
            yield
        except (KdpipeError, ValueError) as error:
            self.fail(str(error))


class Clock:
    """Wall time of a batch, handed out in laps so that the laps of its tasks add up to the whole."""

    def __init__(self) -> None:
        self._start = self._lap = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap, or since the start."""
        before, self._lap = self._lap, time.perf_counter()
        return self._lap - before

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start
