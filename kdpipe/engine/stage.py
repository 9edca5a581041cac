"""A stage of a plan, the task that runs it, and what a running task may use."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

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
