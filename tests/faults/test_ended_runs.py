"""Real runs that are killed, asked to end, or meet a full disk: what is finished stays, what is not leaves no trace.

KDPIPE_KILLS says how many times a study is killed before it may end.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CommandLine

KILLS = int(os.environ.get("KDPIPE_KILLS", "4"))
ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
LIMITED = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"  # noqa: E501


def hidden(line: CommandLine) -> list[Path]:
    """What is still under construction, or was left so."""
    return [path for path in line.root.rglob(".*") if path.name.startswith(".")]


def building(line: CommandLine, kind: str = "") -> bool:
    return any((line.cache / "stages").glob(f".building-*/{kind}*"))


def exporting(line: CommandLine) -> bool:
    return any(folder.is_dir() and any(folder.glob(".tiny.*")) for folder in (line.artifacts, line.weights))


def ended(
    line: CommandLine, number: int, when: Callable[[CommandLine], bool], wait: float = 0.0
) -> subprocess.CompletedProcess[str] | None:
    """A run that gets a signal ``wait`` seconds after something came true; None if it had ended before."""
    command = line.arguments()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    deadline = time.monotonic() + 600
    while process.poll() is None and not when(line) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(wait)
    running = process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, None, err) if running else None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_asked_to_end_says_so_and_leaves_nothing_behind(
    command_line: CommandLine, number: signal.Signals
) -> None:
    run = ended(command_line, number, lambda line: building(line, "student"))
    assert run is not None
    assert run.stderr == "Stopped; the next run goes on from the last finished stage.\n"
    assert run.returncode == 128 + number
    assert len(command_line.stages("teacher")) == 1 and not command_line.stages("student")
    assert not hidden(command_line)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(finished: CommandLine, command_line: CommandLine) -> None:
    """However often, whenever: in the first training, at random, while artifacts and weights are written."""
    draw = random.Random(KILLS)
    assert ended(command_line, signal.SIGKILL, lambda line: building(line, "student")) is not None
    assert len(command_line.stages("teacher")) == 1 and not command_line.stages("student")
    assert hidden(command_line) and not command_line.artifacts.exists()
    kept = modified(command_line)
    for _ in range(KILLS - 2):
        ended(command_line, signal.SIGKILL, building, 3 * draw.random() ** 2)
        now = modified(command_line)
        assert now.items() >= kept.items()  # no finished stage is made again
        kept = now
    ended(command_line, signal.SIGKILL, exporting)
    assert command_line().code == 0
    assert modified(command_line).items() >= kept.items()
    assert command_line.files() == finished.first
    assert weights(command_line) == weights(finished)
    assert not hidden(command_line)


def modified(line: CommandLine) -> dict[str, int]:
    """When each finished stage was published, by its key."""
    return {path.parent.name: path.stat().st_mtime_ns for path in line.cache.glob("stages/*/*/manifest.json")}


def weights(line: CommandLine) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (line.weights / "tiny").iterdir()}


@pytest.mark.parametrize("room", [20_000, 60_000, 73_500])
def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_nothing_half_written(
    command_line: CommandLine, room: int
) -> None:
    """Files may not grow beyond ``room`` bytes: images, the embedding of labels, a teacher's weights do not fit."""
    first, *rest = command_line.arguments()
    done = subprocess.run([first, "-c", LIMITED, str(room), *rest], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: a file cannot be read or written (")
    assert len(done.stderr.splitlines()) == 1 and done.stderr.endswith("free space or choose another folder.\n")
    assert not hidden(command_line) and not command_line.artifacts.exists()
