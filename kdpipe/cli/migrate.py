"""``migrate``: a finished study's artifacts, from the schema before to this one."""

from __future__ import annotations

from pathlib import Path

import click

from kdpipe.artifacts.schema import SCHEMA_VERSION
from kdpipe.cli import options
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
    named = artifacts / Path(study).name
    folder = named if named.is_dir() else Path(study)
    done = migrate_study(folder)
    changed = f"{done.changed_verdicts or 'none'} of {done.study.verdicts.height} verdicts changed"
    return f"{folder}: artifact schema {SCHEMA_VERSION}; {changed}."
