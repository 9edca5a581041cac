#!/usr/bin/env python
"""Mutation check: small faults put into methods, measures and evidence, one at a time, and who notices.

``python benchmarks/mutants.py [--count 40] [--seed 0] [--only kdpipe/measures/depth.py] [--list] [--write]`` draws
faults such as a flipped comparison, a constant off by one, a dropped ``not`` or ``abs``, ``mean`` for ``sum`` or
another axis; puts each into a copy of the repository; and runs the quick tests that name what its module
offers, up to the first that fails; that one must pass again without the fault. A fault that no test notices is a
survivor. ``--write`` puts the table into docs/BENCHMARKS.md.

A fault's place in the draw is a hash of the seed, its module, its function and its text, so one seed draws the same
faults wherever the code around them changes. Faults that change no result are named in ``equivalent_mutants.toml``,
each with the reason, and count neither way.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from mutations import Mutant, mutants_of

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
# The parts of the package whose results are numbers, and the tests that hold each of them.
TESTS = {
    "kdpipe/methods": ("test_methods*.py", "test_every_method.py"),
    "kdpipe/measures": ("test_measure*.py", "test_map_quality.py"),
    "kdpipe/evidence": ("test_evidence*.py", "test_judging.py"),
    "kdpipe/relative_depth.py": ("test_evidence_curves.py",),
    "kdpipe/pipeline/statistics": ("test_statistics.py",),
}
PYTEST = (
    "-x", "-q", "--tb=no", "-rfE", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-profile=mutants",
)  # fmt: skip
# What tests import and no mutant changes.
LIBRARIES = [
    "altair",
    "hypothesis.extra.numpy",
    "openTSNE",
    "playwright.sync_api",
    "polars",
    "pyarrow.parquet",
    "pydantic",
    "pytest",
    "scipy.ndimage",
    "scipy.spatial",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.manifold",
    "sklearn.neighbors",
    "streamlit.testing.v1",
    "timm",
    "torch",
    "torch._subclasses",
]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``caught``, ``survived``, ``timeout`` or ``equivalent``, and by whom or why."""

    mutant: Mutant
    fate: str
    by: str = ""


def modules_of(place: Path) -> Iterator[Path]:
    """A module, or those of a folder."""
    return iter([place]) if place.is_file() else place.rglob("*.py")


def draw(root: Path, seed: int, only: str = "") -> list[Mutant]:
    """All mutants under ``only``, a module or a folder, in the order of the draw."""
    modules = sorted(path for part in TESTS for path in modules_of(root / part))
    names = [(path, path.relative_to(root).as_posix()) for path in modules]
    every = [mutant for path, name in names if name.startswith(only) for mutant in mutants_of(name, path.read_text())]
    return sorted(every, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.identity}".encode()).digest())


def test_files(root: Path, module: str, function: str = "") -> list[str]:
    """The tests of the module's part that name what is public in it, first those that name the function most often."""
    part = next(part for part in TESTS if module.startswith(part))
    files = sorted({path for pattern in TESTS[part] for path in (root / "tests").glob(pattern)})
    defined = [node.name for node in ast.parse((root / module).read_text()).body if hasattr(node, "name")]
    names = [name for name in defined if not name.startswith("_")]
    public = re.compile(rf"\b({'|'.join(names) or 'nothing'})\b")
    own = re.compile(rf"\b{re.escape(function.partition('.')[0]) or 'nothing'}\b")
    texts = {path: path.read_text() for path in files}
    mentions = {path: (len(own.findall(text)), len(public.findall(text))) for path, text in texts.items()}
    named = sorted((path for path in files if any(mentions[path])), key=mentions.__getitem__, reverse=True)
    return [path.relative_to(root).as_posix() for path in named or files]


def copy_repository(to: Path) -> None:
    """What git tracks or would track, as it stands in the work tree."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to / name)


class Runner:
    """Runs tests in a copy of the repository, each time in a process forked from one that has the libraries."""

    def __init__(self, copy: Path) -> None:
        self.copy, self.written = copy, count(1)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(LIBRARIES)

    def write(self, module: str, text: str) -> None:
        """With a time of change of its own, by which Python knows its bytecode from that of other versions."""
        path, moment = self.copy / module, next(self.written)
        path.write_text(text)
        os.utime(path, (moment, moment))

    def test(self, files: list[str], timeout: float | None = None) -> tuple[int | None, str]:
        """pytest's exit status, None where it ran out of time, and what it wrote."""
        log = self.copy / "pytest.log"
        process = self.context.Process(target=run_pytest, args=(self.copy, log, files))
        process.start()
        process.join(timeout)
        status = process.exitcode
        if status is None:
            process.kill()
            process.join()
        return status, log.read_text(errors="replace")


def run_pytest(copy: Path, log: Path, files: list[str]) -> None:
    """In a process of its own: the package and its tests are the copy's."""
    import pytest

    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1), os.dup2(out, 2)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    sys.dont_write_bytecode = False  # what one run compiles, the next one reads
    sys.path.insert(0, str(copy))
    sys.exit(pytest.main([*PYTEST, *files]))


def fate_of(mutant: Mutant, runner: Runner, limit: float) -> Outcome:
    """Puts the mutant into the copy, runs the tests, takes it out again and asks whether it was the mutant's doing."""
    whole = (runner.copy / mutant.module).read_text()
    files = test_files(runner.copy, mutant.module, mutant.function)
    runner.write(mutant.module, mutant.applied_to(whole))
    status, wrote = runner.test(files, limit)
    runner.write(mutant.module, whole)
    if status is None:
        return Outcome(mutant, "timeout", f"{limit:.0f} s")
    if status == 0:
        return Outcome(mutant, "survived", ", ".join(name.removeprefix("tests/") for name in files))
    failure = re.search(r"^(?:FAILED|ERROR) ([^\s[]+)", wrote, re.MULTILINE)
    if failure is None:
        raise SystemExit(f"pytest ended with {status}, no test named, at {mutant.identity}:\n{wrote[-2000:]}")
    status, wrote = runner.test([failure[1]], limit)
    if status != 0:
        raise SystemExit(f"{failure[1]} fails without any mutant:\n{wrote[-2000:]}")
    return Outcome(mutant, "caught", failure[1].removeprefix("tests/"))


def outcomes(mutants: list[Mutant], reasons: dict[str, str], limit: float) -> Iterator[Outcome]:
    """What becomes of each, as it is known. The copy of the repository is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        copy_repository(Path(folder))
        runner = Runner(Path(folder))
        for mutant in mutants:
            if mutant.identity in reasons:
                yield Outcome(mutant, "equivalent", reasons[mutant.identity])
            else:
                yield fate_of(mutant, runner, limit)


def table(found: list[Outcome], seed: int) -> list[str]:
    """The score, and every mutant with its fate, in Markdown."""
    counts = {fate: sum(one.fate == fate for one in found) for fate in ("caught", "timeout", "survived", "equivalent")}
    noticed, decided = counts["caught"] + counts["timeout"], len(found) - counts["equivalent"]
    lines = [
        f"One run of `benchmarks/mutants.py --count {len(found)} --seed {seed}`: {noticed} of {decided} mutants are "
        f"noticed, {counts['timeout']} of them by a test that never ends; {counts['survived']} survive, and "
        f"{counts['equivalent']} change no result.",
        "",
        "| where | what | fate | by, or why |",
        "|---|---|---|---|",
    ]
    for one in sorted(found, key=lambda one: (one.mutant.module, one.mutant.line)):
        where = f"`{one.mutant.module.removeprefix('kdpipe/')}` {one.mutant.function}"
        what = one.mutant.what.replace("|", "\\|")
        lines.append(f"| {where} | `{what}` | {one.fate} | {one.by.replace('|', chr(92) + '|')} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a module or a folder, from the root of the repository")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which tests are taken to run for ever")
    parser.add_argument("--list", action="store_true", help="show the draw and run nothing")
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    every = draw(ROOT, chosen.seed, chosen.only)
    drawn = every[: chosen.count]
    print(f"{len(drawn)} of {len(every)} mutants.", flush=True)
    if chosen.list:
        print("\n".join(f"{mutant.line:4} {mutant.identity}" for mutant in drawn))
        return
    reasons = tomllib.loads(EQUIVALENT.read_text()) if EQUIVALENT.exists() else {}
    found = []
    for one in outcomes(drawn, reasons, chosen.limit):
        found.append(one)
        mutant = one.mutant
        print(f"{one.fate:10} {mutant.module}:{mutant.line} {mutant.function}: {mutant.what}  {one.by}", flush=True)
    lines = table(found, chosen.seed)
    print(lines[0])
    if chosen.write:
        from measures import replace

        replace("mutants", "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
