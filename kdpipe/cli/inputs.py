"""What commands are given, checked before anything runs: the study, kinds of stages, folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from kdpipe.cli.progress import RichReporter
from kdpipe.config.preflight import Preflight, run_preflight
from kdpipe.config.study import BaseStudy
from kdpipe.config.study_file import read_study
from kdpipe.data.sources.base import data_root
from kdpipe.errors import StudyError
from kdpipe.names import closest
from kdpipe.pipeline.analysis_plan import ANALYSIS_KINDS
from kdpipe.pipeline.networks_plan import NETWORK_KINDS

KINDS = NETWORK_KINDS + ANALYSIS_KINDS
console = Console()


def checked_study(
    study: Path,
    overrides: Sequence[str],
    root: Path | None,
    plugins: Sequence[Path],
    *,
    every_image: bool = False,
) -> tuple[BaseStudy, Path, Preflight]:
    """The study as it would run, the folder of its data, and what a look at data and networks found."""
    file = read_study(study, overrides, plugins)
    place = data_root(root)
    reporter = RichReporter(console) if every_image else None
    return file.spec, place, run_preflight(file, place, every_image=every_image, reporter=reporter)


def chosen_kinds(option: str, given: Sequence[str], or_all: bool = False) -> list[str]:
    """The kinds of stages named with ``option``; ``all`` stands for every one where ``or_all`` allows it."""
    known = [*KINDS, "all"] if or_all else list(KINDS)
    for kind in given:
        if kind not in known:
            raise StudyError(
                f"{option} {kind}: there is no such stage{closest(kind, known)}; stages: {', '.join(known)}"
            )
    return list(KINDS) if "all" in given else list(given)


def require_writable(folder: Path) -> None:
    """Find out before hours of training that their result could not be kept."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise StudyError(
            f"{folder}: nothing can be written there, as {existing} is no writable folder; choose another."
        )
