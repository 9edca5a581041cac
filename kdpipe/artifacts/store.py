"""A study's artifacts on disk: written whole and checked, read checked.

A study is a folder with ``study.json`` (the resolved study, versions, a catalog of files with their
sha256) and one Parquet file a table of :mod:`kdpipe.artifacts.schema`. Everything here needs polars alone, so
that the app and a notebook read the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from kdpipe.artifacts.schema import SCHEMA_VERSION, TABLES, Table, disagreement
from kdpipe.errors import ArtifactError
from kdpipe.files import canonical_json, new_folder, sha256_of, write_atomic
from kdpipe.source import HERE

ARTIFACTS = HERE / "artifacts"
STUDY_FILE, TIMINGS_FILE = "study.json", "timings.json"
_REMEDY = "run scripts/precompute.py on its study file again, or restore the folder from version control"


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
    for name, column in table.columns.items():
        if not column.nullable and frame[name].null_count():
            return f"column {name!r} has empty values"
        if column.dtype.is_float() and frame[name].is_nan().any():
            return f"column {name!r} holds NaN"
    if frame.select(table.key).is_duplicated().any():
        return f"two rows share the key {', '.join(table.key)}"
    return None


def write_study(
    folder: Path,
    study: Mapping[str, Any],
    frames: Mapping[str, pl.DataFrame],
    timings: Mapping[str, Any],
) -> None:
    """Write all artifacts of a study, replacing ``folder`` whole or leaving it as it was.

    Args:
        folder: ``artifacts/<name>``.
        study: what ``study.json`` says beside the catalog; must hold ``name``, ``study_hash`` and
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
class Study:
    """The artifacts of one study, read on demand: ``study.networks``, ``study.frame("maps", …)``.

    Every table is a polars frame under its name in :data:`kdpipe.artifacts.schema.TABLES`. A file's sha256 is
    verified the first time that this object reads it, because flipped bytes in Parquet mostly read
    without complaint.
    """

    folder: Path
    record: Mapping[str, Any]
    _verified: set[str] = field(default_factory=set, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.record["name"]

    @property
    def title(self) -> str:
        return self.record["title"]

    @property
    def hash(self) -> str:
        return self.record["study_hash"]

    @cached_property
    def timings(self) -> dict[str, Any]:
        """Wall times and hardware; empty if the file is missing, as nothing else rests on it."""
        try:
            return json.loads((self.folder / TIMINGS_FILE).read_text())
        except (OSError, ValueError):
            return {}

    def scan(self, name: str) -> pl.LazyFrame:
        """A lazy frame over table ``name``, checked against the schema and the catalog."""
        if name not in TABLES:
            raise ArtifactError(f"there is no table {name!r}; the tables are {', '.join(TABLES)}.")
        table = TABLES[name]
        path = self.folder / table.file
        if name not in self._verified:
            self._verify(table, path)
            self._verified.add(name)
        return pl.scan_parquet(path)

    def frame(self, name: str, **equals: Any) -> pl.DataFrame:
        """Table ``name``, only the rows where each named column equals a value or is in a list of them."""
        wanted = self.scan(name)
        for column, value in equals.items():
            allowed = list(value) if isinstance(value, (list, tuple, set, frozenset, pl.Series)) else [value]
            wanted = wanted.filter(pl.col(column).is_in(allowed))
        return wanted.collect()

    def __getattr__(self, name: str) -> pl.DataFrame:
        if name in TABLES:
            return self.frame(name)
        raise AttributeError(f"a study has no table or attribute {name!r}")

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *TABLES]

    def _verify(self, table: Table, path: Path) -> None:
        place = f"{self.folder.name}/{table.file}"
        entry = self.record["files"].get(table.file)
        if entry is None:
            raise ArtifactError(f"{place} is not in the study's catalog: {_REMEDY}.")
        if not path.is_file():
            raise ArtifactError(f"{place} is missing: {_REMEDY}.")
        if path.stat().st_size != entry["bytes"] or sha256_of(path) != entry["sha256"]:
            raise ArtifactError(f"{place} is damaged (its content is not what the study's catalog says): {_REMEDY}.")
        try:
            footer = pl.read_parquet_metadata(path)
            schema = pl.read_parquet_schema(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ArtifactError(f"{place} cannot be read as Parquet: {_REMEDY}.") from error
        if footer.get("schema_version") != str(SCHEMA_VERSION):
            raise ArtifactError(_other_version(place, footer.get("schema_version")))
        if footer.get("study_hash") != self.hash:
            raise ArtifactError(f"{place} belongs to another run of the study: {_REMEDY}.")
        if problem := disagreement(table, schema):
            raise ArtifactError(f"{place} does not follow the schema: {problem}; {_REMEDY}.")


def _other_version(place: str, found: Any) -> str:
    return (
        f"{place} was written with artifact schema {found}, this kdpipe reads schema {SCHEMA_VERSION}: "
        "run scripts/precompute.py on its study file again."
    )


def open_study(folder: Path) -> Study:
    """Open the artifacts in ``folder``; tables are read and checked when they are first asked for.

    Raises:
        ArtifactError: no readable ``study.json`` of this schema version.
    """
    path = folder / STUDY_FILE
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{folder.name}/{STUDY_FILE} is missing: {_REMEDY}.") from None
    except (OSError, ValueError):
        raise ArtifactError(f"{folder.name}/{STUDY_FILE} is damaged: {_REMEDY}.") from None
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        found = record.get("schema_version") if isinstance(record, dict) else None
        raise ArtifactError(_other_version(f"{folder.name}/{STUDY_FILE}", found))
    if lacking := {"name", "title", "study_hash", "files", "study"} - record.keys():
        raise ArtifactError(f"{folder.name}/{STUDY_FILE} lacks {sorted(lacking)[0]!r}: {_REMEDY}.")
    if record.get("sha256") != sealed(record)["sha256"]:
        raise ArtifactError(f"{folder.name}/{STUDY_FILE} was changed after it was written: {_REMEDY}.")
    return Study(folder, record)


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
