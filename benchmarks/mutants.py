#!/usr/bin/env python
"""Mutation check: small faults put into methods, measures and evidence, one at a time, and who notices.

``python benchmarks/mutants.py [--count 40] [--seed 0] [--only kdpipe/measures/depth.py] [--list] [--write]`` draws
faults such as a flipped comparison, a constant off by one, a dropped ``not`` or ``abs``, ``mean`` for ``sum`` or
another axis; puts each into a copy of the repository; and runs the tests of that part of the package up to the first
that fails, those of the module first. A fault that no test notices is a survivor. ``--write`` puts the table into
docs/BENCHMARKS.md. It takes from half a minute to a few minutes a fault, more for survivors.

A fault's place in the draw is a hash of the seed, its module, its function and its text, so one seed draws the same
faults wherever the code around them changes. Faults that change no result are named in ``equivalent_mutants.toml``,
each with the reason, and count neither way.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mutations import Mutant, mutants_of

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
# The parts of the package whose results are numbers, and the tests that hold each of them.
TESTS = {
    "kdpipe/methods": ("test_methods*.py", "test_every_method.py"),
    "kdpipe/measures": ("test_measure*.py", "test_map_quality.py"),
    "kdpipe/evidence": ("test_evidence*.py", "test_judging.py"),
}
# A mutant that takes this many times the unchanged tests, and so many seconds, runs for ever.
PATIENCE, LEAST_SECONDS = 4, 120
PYTEST = ("-m", "pytest", "-x", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", "--hypothesis-profile=mutants")


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``caught``, ``survived``, ``timeout`` or ``equivalent``, and by whom or why."""

    mutant: Mutant
    fate: str
    by: str = ""


def draw(root: Path, seed: int, only: str = "") -> list[Mutant]:
    """All mutants under ``only``, a module or a folder, in the order of the draw."""
    modules = sorted(path for part in TESTS for path in (root / part).rglob("*.py"))
    names = [(path, path.relative_to(root).as_posix()) for path in modules]
    every = [mutant for path, name in names if name.startswith(only) for mutant in mutants_of(name, path.read_text())]
    return sorted(every, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.identity}".encode()).digest())


def test_files(root: Path, module: str) -> list[str]:
    """The tests of the module's part of the package, those that import the module itself first."""
    part = next(part for part in TESTS if module.startswith(part))
    files = sorted({path for pattern in TESTS[part] for path in (root / "tests").glob(pattern)})
    stem = Path(module).stem
    named = {path for path in files if re.search(rf"^(from|import) .*\b{stem}\b", path.read_text(), re.MULTILINE)}
    nearest = sorted(files, key=lambda path: (stem not in path.stem, path not in named))
    return [path.relative_to(root).as_posix() for path in nearest]


def copy_repository(to: Path) -> None:
    """What git tracks or would track, as it stands in the work tree."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to / name)


def run_tests(copy: Path, files: list[str], timeout: float | None) -> tuple[int, str]:
    """pytest's exit status and what it wrote; the package is the copy's own."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *PYTEST, *files], cwd=copy, env=environment, capture_output=True, text=True, timeout=timeout
    )
    return done.returncode, done.stdout + done.stderr


def seconds_unchanged(copy: Path, module: str) -> float:
    """How long the tests of the module's part take where nothing is wrong. They must pass."""
    started = time.perf_counter()
    status, wrote = run_tests(copy, test_files(copy, module), timeout=None)
    if status:
        raise SystemExit(f"The tests fail without any mutant:\n{wrote[-2000:]}")
    return time.perf_counter() - started


def fate_of(mutant: Mutant, copy: Path, timeout: float) -> Outcome:
    """Puts the mutant into the copy, runs the tests and takes it out again."""
    path = copy / mutant.module
    whole = path.read_text()
    path.write_text(mutant.applied_to(whole))
    try:
        status, wrote = run_tests(copy, test_files(copy, mutant.module), timeout)
    except subprocess.TimeoutExpired:
        return Outcome(mutant, "timeout", f"{timeout:.0f} s")
    finally:
        path.write_text(whole)
    if status == 0:
        return Outcome(mutant, "survived")
    failure = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", wrote, re.MULTILINE)
    if failure is None:
        raise SystemExit(f"pytest ended with {status}, no test named, at {mutant.identity}:\n{wrote[-2000:]}")
    return Outcome(mutant, "caught", failure[1])


def outcomes(mutants: list[Mutant], reasons: dict[str, str]) -> Iterator[Outcome]:
    """What becomes of each, as it is known. The copy of the repository is gone afterwards."""
    limits: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_repository(copy)
        for mutant in mutants:
            if mutant.identity in reasons:
                yield Outcome(mutant, "equivalent", reasons[mutant.identity])
                continue
            part = next(part for part in TESTS if mutant.module.startswith(part))
            if part not in limits:
                limits[part] = max(LEAST_SECONDS, PATIENCE * seconds_unchanged(copy, mutant.module))
            yield fate_of(mutant, copy, limits[part])


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
    for one in outcomes(drawn, reasons):
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
