"""``migrate``: a finished study's artifacts, from the schema before to this one."""

from __future__ import annotations

from pathlib import Path

import click

from kdpipe.artifacts.schema import SCHEMA_VERSION
from kdpipe.artifacts.store import read_record, study_names
from kdpipe.cli import options
from kdpipe.errors import StudyError
from kdpipe.names import closest
from kdpipe.pipeline.migrate import migrate_study


@click.command()
@click.argument("study", metavar="NAME")
@options.artifacts
def migrate(study: str, artifacts: Path) -> None:
    """Bring a finished study's artifacts to the present schema, without a network. Its verdicts are judged anew.

    NAME is that of a folder under the artifacts folder, or the path of one.
    """
    click.echo(migrate_named(study, artifacts))


def migrate_named(study: str, artifacts: Path) -> str:
    """Migrate a study by its name under ``artifacts``, or by its path; what was done, in a sentence."""
    folder = artifacts / study if study in study_names(artifacts) else Path(study)
    if not folder.is_dir():
        known = study_names(artifacts)
        said = closest(study, known) or (f"; there are {', '.join(known)}." if known else ".")
        raise StudyError(f"{study!r}: no study of that name lies in {artifacts}, and it is no folder{said}")
    if read_record(folder).get("schema_version") == SCHEMA_VERSION:
        return f"{folder} has artifact schema {SCHEMA_VERSION} already."
    done = migrate_study(folder)
    changed = f"{done.changed_verdicts or 'none'} of {done.study.verdicts.height} verdicts changed"
    return f"{folder}: artifact schema {SCHEMA_VERSION}; {changed}."
