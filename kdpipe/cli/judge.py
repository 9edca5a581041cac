"""``kdpipe judge``: the verdicts of a finished study, by the rules as they are now."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from kdpipe.artifacts.store import Study, study_names
from kdpipe.cli import options
from kdpipe.errors import StudyError
from kdpipe.names import closest
from kdpipe.pipeline.conclusions import judge_again
from kdpipe.vocabulary import full_title


@click.command()
@click.argument("study", metavar="NAME")
@options.artifacts
def judge(study: str, artifacts: Path) -> None:
    """Judge a finished study again from its artifacts, without a network, and show its verdicts.

    NAME is that of a folder under the artifacts folder.
    """
    known = study_names(artifacts)
    if study not in known:
        said = closest(study, known) or (f"; there are {', '.join(known)}." if known else ".")
        raise StudyError(f"{study!r}: no study of that name lies in {artifacts}{said}")
    started = time.perf_counter()
    found = judge_again(artifacts / study)
    console = Console()
    console.print(_verdicts(found))
    console.print(f"{found.verdicts.height} verdicts in {time.perf_counter() - started:.1f} s: {artifacts / study}")


def _verdicts(study: Study) -> Table:
    table = Table(title=study.title)
    for column in ("claim", "student", "method", "labels", "verdict"):
        table.add_column(column)
    for row in study.verdicts.iter_rows(named=True):
        claim, student, method = row["claim"], row["student"] or "all", row["method_label"] or "all"
        table.add_row(
            claim,
            student,
            method,
            f"{row['label_fraction']:.4g}",
            full_title(row["verdict"], row["title"], row["controls_not_asked"]),
        )
    return table
