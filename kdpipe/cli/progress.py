"""What a run shows: progress bars with time left, warnings, a log file with all of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich import progress
from rich.console import Console
from rich.markup import escape


class Silent:
    """A reporter that shows nothing, for tests and notebooks."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        pass

    @contextmanager
    def track(self, title: str, total: float) -> Iterator[Silent]:
        yield self

    def say(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass


@dataclass
class Bar:
    """One running progress bar; the log gets a line about once a minute."""

    bars: progress.Progress
    task: progress.TaskID
    title: str
    logged: float

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.bars.update(self.task, advance=amount, note=escape(note))
        if time.monotonic() - self.logged > 60:
            state = self.bars.tasks[0]
            logging.getLogger("kdpipe").info("%s: %.0f %% %s", self.title, state.percentage, note)
            self.logged = time.monotonic()


class RichReporter:
    """Bars and messages on a console, and everything in the log."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.log = logging.getLogger("kdpipe")

    @contextmanager
    def track(self, title: str, total: float) -> Iterator[Bar]:
        started = time.monotonic()
        self.log.info("%s: started", title)
        bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=24),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
        )
        with bars:
            yield Bar(bars, bars.add_task(escape(title), total=total, note=""), title, started)
        self.log.info("%s: done after %.1f s", title, time.monotonic() - started)

    def say(self, message: str) -> None:
        self.console.print(escape(message))
        self.log.info(message)

    def warn(self, message: str) -> None:
        self.console.print(f"[yellow]warning:[/] {escape(message)}")
        self.log.warning(message)


def open_log(path: Path) -> None:
    """Send kdpipe's log to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("kdpipe")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
