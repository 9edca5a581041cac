"""Where the seconds of a training step go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass
class StepClock:
    """Seconds by part of the training (data, teacher, student, loss), from every tenth step.

    Only some steps are timed, because on a GPU the clock has to wait for the device.
    """

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    timing: bool = False

    def start(self, step: int) -> None:
        """Say which step begins, and so whether it is timed."""
        self.timing = step % 10 == 5
        self.steps += self.timing

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to a part, if the step is timed."""
        if not self.timing:
            yield
            return
        started = self._now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - started

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @property
    def a_step(self) -> dict[str, float]:
        """Seconds a step by part; empty if nothing was timed."""
        return {name: seconds / self.steps for name, seconds in self.seconds.items()} if self.steps else {}
