"""A study's artifacts on disk: written whole and checked, read checked.

A study is a folder with ``study.json`` (the resolved study, versions, a catalog of files with their
sha256) and one Parquet file a table of :mod:`kdpipe.artifacts.schema`. Everything here needs polars alone, so
that the app and a notebook read the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from kdpipe.artifacts.schema import SCHEMA_VERSION, TABLES, Table, disagreement, misfit
from kdpipe.artifacts.tables import StudyTables
from kdpipe.errors import (
    ArtifactError,
    DamagedArtifactError,
    MissingArtifactError,
    OtherSchemaError,
    UnexpectedContentError,
)
from kdpipe.files import canonical_json, new_folder, sha256_of, write_atomic
from kdpipe.source import HERE

ARTIFACTS = HERE / "artifacts"
STUDY_FILE, TIMINGS_FILE = "study.json", "timings.json"
_REMEDY = "use kdpipe run on its study file again, or restore the folder from version control"
# What study.json holds under a name; without those that are needed a study cannot be opened.
_NEEDED = ("name", "title", "study_hash", "files", "study")
_RECORD: Mapping[str, type] = {
    **dict.fromkeys(("name", "title", "study_hash", "description"), str),
    **dict.fromkeys(("files", "study", "data", "headline", "versions", "missing"), dict),
}


# --------------------------------------------------------------------------------------- writing


def write_table(folder: Path, name: str, frame: pl.DataFrame, study_hash: str, code_version: str) -> None:
    """Check ``frame`` against the declared table ``name`` and write it with its footer.

    Raises:
        ArtifactError: a column, type, empty value or key that the schema does not allow.
    """
    table = TABLES[name]
    if problem := _problem(table, frame):
        raise ArtifactError(f"{table.file} cannot be written: {problem}.")
    frame.write_parquet(
        folder / table.file,
        compression="zstd",
        compression_level=6,
        row_group_size=_row_group_size(table, frame),
        metadata={"schema_version": str(SCHEMA_VERSION), "study_hash": study_hash, "code_version": code_version},
    )


def _row_group_size(table: Table, frame: pl.DataFrame) -> int:
    """Row groups of about one network, so that a reader who wants one network skips the others."""
    if "network_id" not in table.key or not frame.height:
        return max(frame.height, 1)
    return max(frame.height // frame["network_id"].n_unique(), 1_000)


def _problem(table: Table, frame: pl.DataFrame) -> str | None:
    if problem := disagreement(table, frame.schema):
        return problem
    return misfit(table, frame)


def write_study(
    folder: Path,
    study: Mapping[str, Any],
    frames: Mapping[str, pl.DataFrame],
    timings: Mapping[str, Any],
) -> None:
    """Write all artifacts of a study, replacing ``folder`` whole or leaving it as it was.

    Args:
        folder: ``artifacts/<name>``.
        study: what ``study.json`` says besides the catalog; must hold ``name``, ``study_hash`` and
            ``versions`` (with ``kdpipe``), and ``commit`` where it is known.
        frames: one frame for each table of the schema.
        timings: wall times and hardware, kept outside every claim of identity.
    """
    if missing := TABLES.keys() - frames.keys():
        raise ArtifactError(f"a study needs every table; {sorted(missing)[0]} is missing.")
    with new_folder(folder) as building:
        for name, frame in frames.items():
            write_table(building, name, frame, study["study_hash"], code_version(study))
        files = {
            TABLES[name].file: {
                "rows": frame.height,
                "bytes": (building / TABLES[name].file).stat().st_size,
                "sha256": sha256_of(building / TABLES[name].file),
            }
            for name, frame in frames.items()
        }
        record = {"schema_version": SCHEMA_VERSION, **study, "files": files}
        write_atomic(building / STUDY_FILE, json.dumps(sealed(record), indent=1, sort_keys=True) + "\n")
        write_atomic(building / TIMINGS_FILE, json.dumps(timings, indent=1, sort_keys=True) + "\n")


def code_version(study: Mapping[str, Any]) -> str:
    """Version and commit of the kdpipe that made a study: ``0.2.0 1f3c…``, without the commit where it is unknown."""
    return " ".join(part for part in (study["versions"]["kdpipe"], study.get("commit")) if part)


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The content of study.json with the sha256 of all of it but this hash itself."""
    rest = {name: value for name, value in record.items() if name != "sha256"}
    return {**rest, "sha256": hashlib.sha256(canonical_json(rest).encode()).hexdigest()}


# --------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Study(StudyTables):
    """The artifacts of one study, read on demand and checked as they are read.

    Every table is a property and a polars frame: ``study.networks``. ``study.frame("maps", network_id=…)`` reads the
    rows of some networks alone. A file's sha256 is verified the first time that this object reads it, because flipped
    bytes in Parquet mostly read without complaint. Small tables are then checked value by value and kept; a frame is
    not to be changed in place. Several threads may share a study.

    Attributes:
        folder: ``artifacts/<name>``.
        record: what study.json says: the resolved study, data, versions and the catalog of files.

    Raises:
        ArtifactError: whatever cannot be read, in one sentence with the file and what to do.
    """

    folder: Path
    record: Mapping[str, Any] = field(repr=False)  # pages long, and a notebook shows what a cell ends in
    _verified: set[str] = field(default_factory=set, repr=False, compare=False)
    _kept: dict[str, pl.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The study's name, which is that of its folder."""
        return str(self.record["name"])

    @property
    def title(self) -> str:
        """The study's title for people."""
        return str(self.record["title"])

    @property
    def hash(self) -> str:
        """Identity of the run: it stands in the footer of each file."""
        return str(self.record["study_hash"])

    @cached_property
    def timings(self) -> dict[str, Any]:
        """Wall times and hardware; empty if the file is missing, as nothing else rests on it."""
        return read_timings(self.folder)

    def scan(self, name: str) -> pl.LazyFrame:
        """A lazy frame over table ``name``, whose file was checked against the schema and the catalog.

        What goes wrong when it is collected is polars' own error; :meth:`collect` turns it into an ArtifactError.
        """
        table = self._table(name)
        path = self.folder / table.file
        if name not in self._verified:
            self._verify(table, path)
            self._verified.add(name)
        return pl.scan_parquet(path)

    def collect(self, name: str, rows: pl.LazyFrame) -> pl.DataFrame:
        """What a lazy frame that was made from ``scan(name)`` holds."""
        try:
            return rows.collect()
        except (OSError, pl.exceptions.ComputeError) as error:
            place = f"{self.folder.name}/{self._table(name).file}"
            raise DamagedArtifactError(f"{place} cannot be read as Parquet: {_REMEDY}.") from error

    def frame(self, name: str, *where: pl.Expr, columns: Sequence[str] | None = None, **equals: Any) -> pl.DataFrame:
        """Rows of table ``name``: all, or those that every condition keeps.

        Args:
            where: conditions as polars expressions.
            columns: the only columns to read.
            equals: column and the value, or a list of the values, that it is to hold.
        """
        table = self._table(name)
        if unknown := [column for column in (*(columns or ()), *equals) if column not in table.columns]:
            raise ArtifactError(f"{table.file} has no column {unknown[0]!r}; it has {', '.join(table.columns)}.")
        if table.small and not where and columns is None and not equals:
            return self._whole(table)
        rows = self._whole(table).lazy() if table.small else self.scan(name)
        for column, value in equals.items():
            allowed = list(value) if isinstance(value, (list, tuple, set, frozenset, pl.Series)) else [value]
            rows = rows.filter(pl.col(column).is_in(allowed))
        rows = rows.filter(*where) if where else rows
        return self.collect(name, rows if columns is None else rows.select(columns))

    def _whole(self, table: Table) -> pl.DataFrame:
        """A small table, checked value by value and kept. Two threads may both read it: they read the same."""
        if table.name not in self._kept:
            found = self.collect(table.name, self.scan(table.name))
            if problem := misfit(table, found):
                place = f"{self.folder.name}/{table.file}"
                raise UnexpectedContentError(f"{place} holds what the schema does not allow: {problem}; {_REMEDY}.")
            self._kept[table.name] = found
        return self._kept[table.name]

    def _table(self, name: str) -> Table:
        if name not in TABLES:
            raise ArtifactError(f"there is no table {name!r}; the tables are {', '.join(TABLES)}.")
        return TABLES[name]

    def _verify(self, table: Table, path: Path) -> None:
        place = f"{self.folder.name}/{table.file}"
        entry = self.record["files"].get(table.file)
        if entry is None:
            raise DamagedArtifactError(f"{place} is not in the study's catalog: {_REMEDY}.")
        if not path.is_file():
            raise MissingArtifactError(f"{place} is missing: {_REMEDY}.")
        try:
            intact = path.stat().st_size == entry["bytes"] and sha256_of(path) == entry["sha256"]
        except (OSError, KeyError, TypeError) as error:
            raise DamagedArtifactError(f"{place} cannot be read: {_REMEDY}.") from error
        if not intact:
            raise DamagedArtifactError(
                f"{place} is damaged (its content is not what the study's catalog says): {_REMEDY}."
            )
        try:
            footer = pl.read_parquet_metadata(path)
            schema = pl.read_parquet_schema(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DamagedArtifactError(f"{place} cannot be read as Parquet: {_REMEDY}.") from error
        if footer.get("schema_version") != str(SCHEMA_VERSION):
            raise OtherSchemaError(_other_version(place, footer.get("schema_version"), self.folder))
        if footer.get("study_hash") != self.hash:
            raise DamagedArtifactError(f"{place} belongs to another run of the study: {_REMEDY}.")
        if problem := disagreement(table, schema):
            raise UnexpectedContentError(f"{place} does not follow the schema: {problem}; {_REMEDY}.")


def _other_version(place: str, found: Any, folder: Path) -> str:
    remedy = "use kdpipe run on its study file again"
    if str(found) == str(SCHEMA_VERSION - 1):
        remedy = f"run kdpipe migrate {folder.name}"
    return f"{place} was written with artifact schema {found}, this kdpipe reads schema {SCHEMA_VERSION}: {remedy}."


def open_study(folder: Path) -> Study:
    """Open the artifacts in ``folder``; tables are read and checked when they are first asked for.

    Raises:
        ArtifactError: no readable ``study.json`` of this schema version.
    """
    record = read_record(folder)
    place = f"{folder.name}/{STUDY_FILE}"
    if record.get("schema_version") != SCHEMA_VERSION:
        raise OtherSchemaError(_other_version(place, record.get("schema_version"), folder))
    for name, kind in _RECORD.items():
        if name not in record and name in _NEEDED:
            raise UnexpectedContentError(f"{place} lacks {name!r}: {_REMEDY}.")
        if name in record and not isinstance(record[name], kind):
            raise UnexpectedContentError(f"{place} holds something unexpected under {name!r}: {_REMEDY}.")
    if record.get("sha256") != sealed(record)["sha256"]:
        raise DamagedArtifactError(f"{place} was changed after it was written: {_REMEDY}.")
    return Study(folder, record)


def read_record(folder: Path) -> dict[str, Any]:
    """What study.json holds, of whatever schema.

    Raises:
        ArtifactError: it is missing, or holds no JSON object.
    """
    try:
        record = json.loads((folder / STUDY_FILE).read_text())
    except FileNotFoundError:
        raise MissingArtifactError(f"{folder.name}/{STUDY_FILE} is missing: {_REMEDY}.") from None
    except (OSError, ValueError):
        raise DamagedArtifactError(f"{folder.name}/{STUDY_FILE} is damaged: {_REMEDY}.") from None
    if not isinstance(record, dict):
        raise DamagedArtifactError(f"{folder.name}/{STUDY_FILE} is damaged: {_REMEDY}.")
    return record


def read_timings(folder: Path) -> dict[str, Any]:
    """What timings.json holds, of whatever schema; empty where there is none that can be read."""
    try:
        return dict(json.loads((folder / TIMINGS_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def artifacts_root() -> Path:
    """The folder of all studies: what ``KDPIPE_ARTIFACTS`` names, else :data:`ARTIFACTS`."""
    return Path(os.environ.get("KDPIPE_ARTIFACTS") or ARTIFACTS)


def load_study(study: str | Path, root: Path | None = None) -> Study:
    """Open a study by name (``"digits"``) or by the path of its artifact folder.

    Args:
        study: a name is looked up in ``root`` first.
        root: the folder of all studies; by default what ``KDPIPE_ARTIFACTS`` names, or else ``artifacts/`` of the
            checkout, or of the current folder where kdpipe is installed.

    Raises:
        ArtifactError: no such study, or one that cannot be read.

    >>> study = kdpipe.load_study("digits")              # doctest: +SKIP
    >>> study.networks.select("network_id", "test_accuracy")   # doctest: +SKIP
    """
    root = artifacts_root() if root is None else root
    known = study_names(root)
    if study in known:  # a name goes before a folder of that name that happens to lie here
        return open_study(root / study)
    if isinstance(study, str) and not Path(study).is_dir():
        raise ArtifactError(f"there is no study {study!r}; there are: {', '.join(known) or 'none yet'}.")
    return open_study(Path(study))


def study_names(root: Path = ARTIFACTS) -> list[str]:
    """Names of the artifact folders under ``root``, readable or not, in alphabetical order."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def study_hash(resolved: Mapping[str, Any]) -> str:
    """Identity of a resolved study (16 hex digits); stands in the footer of each of its files."""
    return hashlib.sha256(canonical_json(resolved).encode()).hexdigest()[:16]
