"""From artifact schema 4 to 5, without a network: what was written into names becomes columns, and the study is judged.

Schema 4 had a checkpoint's step in its ``method_label``, teachers of controls among the controls, and of a control in
``comparisons`` its name and its kind in one text. Evidence is not converted but judged anew from per-image values: the
same values come out, now with their relations as columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from kdpipe.artifacts.schema import SCHEMA_VERSION, TABLES
from kdpipe.artifacts.store import Study, open_study, read_record, read_timings, sealed, write_study
from kdpipe.errors import ArtifactError, DamagedArtifactError, MissingArtifactError, OtherSchemaError
from kdpipe.files import sha256_of
from kdpipe.pipeline.conclusions import CONCLUSIONS, conclusions
from kdpipe.vocabulary import CHECKPOINT, CONTROL, CONTROL_TEACHER, TEACHER_ARCHITECTURE, UNTRAINED, budget_id

FROM = 4
_OLD_NULL, _OLD_UNTRAINED = "second-seed", "baseline"


@dataclass(frozen=True)
class Migration:
    """A study after its migration, and how many of its verdicts are others than before."""

    study: Study
    changed_verdicts: int


def migrate_study(folder: Path) -> Migration:
    """Bring the artifacts in ``folder`` from schema 4 to 5; the folder is replaced whole or stays as it was.

    Raises:
        ArtifactError: artifacts of another schema, damaged ones, or of a study that says nothing of its evidence.
    """
    record = read_record(folder)
    if record.get("schema_version") != FROM:
        raise OtherSchemaError(
            f"{folder.name} has artifact schema {record.get('schema_version')}: only schema {FROM} can be migrated to "
            f"{SCHEMA_VERSION}."
        )
    if record.get("sha256") != sealed(record)["sha256"]:
        raise DamagedArtifactError(f"{folder.name}/study.json was changed after it was written: run its study file.")
    if "evidence" not in record["study"]:
        raise ArtifactError(f"{folder.name} says nothing of how it is to be judged: run its study file again.")
    old = {name: _read(folder, TABLES[name].file, record) for name in TABLES if TABLES[name].file in record["files"]}
    stored = migrated({name: frame for name, frame in old.items() if name not in CONCLUSIONS})
    kept = {name: value for name, value in record.items() if name not in ("files", "sha256", "schema_version")}
    concluded = conclusions(stored, kept)
    write_study(folder, kept, stored | concluded, read_timings(folder))
    return Migration(open_study(folder), _changed(old["verdicts"], concluded["verdicts"]))


def migrated(frames: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The tables of schema 4 that are not evidence, as schema 5 has them."""
    changed = {"networks": _networks(frames["networks"]), "methods": _methods(frames["methods"])}
    return {name: changed.get(name, frame) for name, frame in frames.items()}


def _networks(old: pl.DataFrame) -> pl.DataFrame:
    step = pl.concat_str(pl.lit("-at"), pl.col("checkpoint_step"))
    checkpoint = pl.col("role") == CHECKPOINT
    role = (
        pl.when(pl.col("role") == _OLD_UNTRAINED)
        .then(pl.lit(UNTRAINED))
        .when((pl.col("role") == CONTROL) & (pl.col("student") == TEACHER_ARCHITECTURE))
        .then(pl.lit(CONTROL_TEACHER))
        .otherwise("role")
    )
    frame = old.with_columns(
        role=role,
        method_label=pl.when(checkpoint).then(pl.col("method_label").str.strip_suffix(step)).otherwise("method_label"),
        checkpoint_of=pl.when(checkpoint).then(pl.col("network_id").str.strip_suffix(step)),
        budget_id=pl.Series([budget_id(fraction) for fraction in old["label_fraction"]], dtype=pl.String),
    )
    return frame.select(list(TABLES["networks"].columns))


def _methods(old: pl.DataFrame) -> pl.DataFrame:
    return old.with_columns(null=pl.col("method") == _OLD_NULL).select(list(TABLES["methods"].columns))


def _changed(old: pl.DataFrame, new: pl.DataFrame) -> int:
    """How many verdicts differ, those counted that only one of the two has."""
    key = ("claim", "student", "method_label")

    def judged(verdicts: pl.DataFrame) -> dict[tuple[Any, ...], str]:
        rows = verdicts.iter_rows(named=True)
        return {(*(row[name] for name in key), budget_id(row["label_fraction"])): row["verdict"] for row in rows}

    before, after = judged(old), judged(new)
    return sum(before.get(cell) != after.get(cell) for cell in before.keys() | after.keys())


def _read(folder: Path, file: str, record: Mapping[str, Any]) -> pl.DataFrame:
    path, entry = folder / file, record["files"][file]
    if not path.is_file():
        raise MissingArtifactError(f"{folder.name}/{file} is missing: restore the folder from version control.")
    if sha256_of(path) != entry["sha256"]:
        raise DamagedArtifactError(f"{folder.name}/{file} is damaged: restore the folder from version control.")
    return pl.read_parquet(path)
