"""The store: what is written whole, what is refused, and what a damaged file says."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from kdpipe.artifacts.schema import SCHEMA_VERSION, TABLES
from kdpipe.artifacts.store import (
    Study,
    load_study,
    open_study,
    sealed,
    study_hash,
    study_names,
    write_study,
    write_table,
)
from kdpipe.artifacts.tables import StudyTables
from kdpipe.errors import (
    ArtifactError,
    DamagedArtifactError,
    MissingArtifactError,
    OtherSchemaError,
    UnexpectedContentError,
)
from kdpipe.files import new_folder, recover_folder, write_atomic

SAMPLES = {pl.String(): "x", pl.Boolean(): True, pl.Float32(): 0.5, pl.Binary(): b"x"}
SAMPLES |= dict.fromkeys((pl.UInt8(), pl.Int32(), pl.Int64()), 1)


def frame(name: str, rows: int = 3) -> pl.DataFrame:
    """A frame that the schema allows: the first key column tells rows apart."""
    table = TABLES[name]
    columns = {}
    for column, declared in table.columns.items():
        inner = declared.dtype.inner if isinstance(declared.dtype, pl.List) else None
        cell = SAMPLES[declared.dtype] if inner is None else ["x"] if inner == pl.String() else [1, 2]
        if declared.allowed or declared.json:
            cell = declared.allowed[0] if declared.allowed else "{}"
        columns[column] = pl.Series([cell] * rows, dtype=declared.dtype)
    key = table.key[0]
    numbers = [f"n{i}" for i in range(rows)] if table.columns[key].dtype == pl.String else range(rows)
    columns[key] = pl.Series(numbers, dtype=table.columns[key].dtype)
    return pl.DataFrame(columns, schema=table.schema)


def record(**more) -> dict:
    return {"name": "s", "title": "S", "study": {}, "study_hash": "abc", "versions": {"kdpipe": "0"}, **more}


@pytest.fixture
def folder(tmp_path):
    write_study(tmp_path / "s", record(), {name: frame(name) for name in TABLES}, {"seconds": 1})
    return tmp_path / "s"


def refused(folder: Path, table: str, *said: str) -> None:
    with pytest.raises(ArtifactError) as error:
        open_study(folder).frame(table)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    for part in said:
        assert part in message


# ------------------------------------------------------------------------------------- round trips


def test_every_table_comes_back_as_it_was_written(folder):
    study = open_study(folder)
    for name in TABLES:
        assert study.frame(name).equals(frame(name)) and getattr(study, name).equals(frame(name)), name
    assert (study.name, study.title, study.hash, study.timings) == ("s", "S", "abc", {"seconds": 1})
    assert study.networks.equals(study.frame("networks"))
    assert set(TABLES) <= set(dir(study))
    with pytest.raises(AttributeError):
        _ = study.no_such_table  # type: ignore[attr-defined]


def test_small_tables_are_read_once_and_large_ones_are_not_kept(folder):
    study = open_study(folder)
    assert study.networks is study.networks is study.frame("networks")
    assert study.maps is not study.maps
    assert {name for name, table in TABLES.items() if table.small} >= {"layers", "methods", "measures", "verdicts"}
    assert not {name for name, table in TABLES.items() if table.small} & {"maps", "predictions", "sample_measures"}


def test_a_study_may_be_read_by_several_threads_at_once(folder):
    study, names = open_study(folder), [*TABLES] * 8
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(study.frame, names))
    assert all(one.equals(frame(name)) for one, name in zip(found, names, strict=True))


def test_every_table_is_a_property_that_a_type_checker_knows():
    properties = {name for name, value in vars(StudyTables).items() if isinstance(value, property)}
    assert properties == set(TABLES) and not hasattr(Study, "__getattr__")


def test_empty_tables_are_tables_too(tmp_path):
    write_study(tmp_path / "s", record(), {name: frame(name, 0) for name in TABLES}, {})
    assert all(open_study(tmp_path / "s").frame(name).schema == TABLES[name].schema for name in TABLES)


def test_rows_are_chosen_by_value_and_by_list(folder):
    study = open_study(folder)
    assert study.frame("maps", network_id="n1").height == 1
    assert study.frame("maps", network_id=["n1", "n2"], projector="x").height == 2
    assert study.frame("maps", network_id="n1", projector="none").height == 0
    assert study.frame("maps", pl.col("network_id") != "n1", columns=["x"]).shape == (2, 1)
    assert study.frame("networks", pl.col("network_id") != "n1", columns=["seed"]).shape == (2, 1)
    with pytest.raises(ArtifactError, match=r"maps\.parquet has no column 'network'; it has network_id, layer"):
        study.frame("maps", network="n1")


def test_footers_say_to_which_study_and_schema_a_file_belongs(folder):
    for table in TABLES.values():
        footer = pl.read_parquet_metadata(folder / table.file)
        assert footer["schema_version"] == str(SCHEMA_VERSION)
        assert footer["study_hash"] == "abc" and footer["code_version"] == "0"


@pytest.mark.parametrize(("commit", "said"), [("0a1b+dirty", "0 0a1b+dirty"), (None, "0")])
def test_footers_name_the_commit_where_it_is_known(tmp_path, commit, said):
    write_study(tmp_path / "s", record(commit=commit), {name: frame(name) for name in TABLES}, {})
    assert {pl.read_parquet_metadata(path)["code_version"] for path in (tmp_path / "s").glob("*.parquet")} == {said}
    assert open_study(tmp_path / "s").record["commit"] == commit


def test_the_same_frames_make_the_same_bytes(folder, tmp_path):
    write_study(tmp_path / "again", record(), {name: frame(name) for name in TABLES}, {"seconds": 2})
    for path in folder.iterdir():
        if path.name != "timings.json":
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_study_hash_is_of_content_not_of_order():
    assert study_hash({"a": 1, "b": [1, 2]}) == study_hash({"b": [1, 2], "a": 1})
    assert study_hash({"a": 1}) != study_hash({"a": 2})


def test_a_study_is_found_by_name_and_by_folder(folder, tmp_path, monkeypatch):
    assert load_study("s", tmp_path).name == load_study(folder).name == load_study(str(folder)).name == "s"
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "file").touch()
    assert study_names(tmp_path) == ["s"] and study_names(tmp_path / "nowhere") == []
    with pytest.raises(ArtifactError, match="there is no study 't'; there are: s"):
        load_study("t", tmp_path)
    with pytest.raises(ArtifactError, match="none yet"):
        load_study("t", tmp_path / "nowhere")


def test_the_environment_names_the_folder_of_all_studies(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(tmp_path))
    assert load_study("s").folder == folder
    with pytest.raises(ArtifactError, match="there is no study 's'"):
        load_study("s", tmp_path / "nowhere")


def test_a_folder_that_happens_to_have_a_studys_name_does_not_hide_it(folder, tmp_path, monkeypatch):
    (tmp_path / "work" / "s").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert load_study("s", tmp_path).title == "S"


@pytest.mark.parametrize("name", ["../s", "*", "", "/"])
def test_names_are_no_paths(folder, tmp_path, name):
    (tmp_path / "root").mkdir()
    with pytest.raises(ArtifactError):
        load_study(name, tmp_path / "root")


# ------------------------------------------------------------------------------- refused to write


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop("value"), "column 'value' is missing"),
        (lambda f: f.with_columns(extra=1), "column 'extra' is not part of the schema"),
        (lambda f: f.with_columns(pl.col("value").cast(pl.Float64)), "column 'value' holds Float64, not Float32"),
        (lambda f: f.with_columns(measure=pl.lit(None, pl.String)), "column 'measure' has empty values"),
        (lambda f: f.with_columns(value=pl.lit(float("nan"), pl.Float32)), "column 'value' holds NaN"),
        (lambda f: f.with_columns(low=pl.lit(float("nan"), pl.Float32)), "column 'low' holds NaN"),
        (lambda f: pl.concat([f, f[:1]]), "two rows share the key network_id, layer, view, measure"),
        (lambda f: f.select(reversed(f.columns)), "its columns stand in another order"),
    ],
)
def test_what_the_schema_does_not_allow_is_not_written(tmp_path, change, said):
    with pytest.raises(ArtifactError, match=r"layer_measures\.parquet cannot be written: ") as error:
        write_table(tmp_path, "layer_measures", change(frame("layer_measures")), "h", "0")
    assert said in str(error.value)
    assert not list(tmp_path.iterdir())


def test_empty_values_are_allowed_where_the_schema_says_so(tmp_path):
    write_table(
        tmp_path, "layer_measures", frame("layer_measures").with_columns(low=pl.lit(None, pl.Float32)), "h", "0"
    )


def test_a_failed_write_leaves_the_old_study_whole(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    frames = {name: frame(name) for name in TABLES}
    frames["measures"] = frames["measures"].drop("title")  # the last table: most is written already
    with pytest.raises(ArtifactError, match=r"measures\.parquet"):
        write_study(folder, record(study_hash="new"), frames, {})
    del frames["measures"]
    with pytest.raises(ArtifactError, match="every table; measures is missing"):
        write_study(folder, record(study_hash="new"), frames, {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["s"]


def test_a_new_study_replaces_the_old_one_whole(folder):
    (folder / "stale.parquet").touch()
    write_study(folder, record(study_hash="new"), {name: frame(name) for name in TABLES}, {})
    assert open_study(folder).hash == "new" and not (folder / "stale.parquet").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["s"]


def test_a_swap_that_was_killed_half_way_is_undone(folder):
    os.replace(folder, folder.parent / ".s.old")
    recover_folder(folder)
    assert open_study(folder).name == "s"
    recover_folder(folder)  # and nothing happens where nothing is to be done
    assert open_study(folder).name == "s"


def test_a_swap_that_fails_half_way_puts_the_old_folder_back(folder, monkeypatch):
    replace = os.replace

    def failing(source, target):
        if Path(target) == folder and ".new-" in str(source):
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="disk full"), new_folder(folder) as building:
        (building / "x").touch()
    assert open_study(folder).name == "s"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_atomic(tmp_path / "f", "old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


# -------------------------------------------------------------------------------- refused to read


@pytest.mark.parametrize("table", ["networks", "maps", "predictions"])
def test_damaged_tables_say_which_file_and_what_to_do(folder, table):
    path = folder / f"{table}.parquet"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole + b"x"):
        path.write_bytes(damaged)
        refused(folder, table, f"s/{table}.parquet", "damaged", "kdpipe run")
    for place in range(0, len(whole), max(len(whole) // 50, 1)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        refused(folder, table, f"s/{table}.parquet", "damaged")
    path.unlink()
    refused(folder, table, f"s/{table}.parquet", "missing", "kdpipe run")
    assert open_study(folder).frame("samples").height == 3  # the others are as good as before


def test_a_damaged_study_file(folder):
    path = folder / "study.json"
    whole = path.read_text()
    for content, said in (
        (whole[:100], "damaged"),
        ("", "damaged"),
        ("[]", "damaged"),
        ("{}", "artifact schema None"),
        (json.dumps({**json.loads(whole), "schema_version": SCHEMA_VERSION + 1}), f"reads schema {SCHEMA_VERSION}"),
        (json.dumps({k: v for k, v in json.loads(whole).items() if k != "files"}), "lacks 'files'"),
        (json.dumps({**json.loads(whole), "title": "another"}), "was changed after it was written"),
    ):
        path.write_text(content)
        refused(folder, "networks", "s/study.json", said, "kdpipe run")
    path.unlink()
    refused(folder, "networks", "s/study.json", "missing")


def rewritten(folder: Path, table: str, frame: pl.DataFrame, **footer: str) -> None:
    """Replace a table and its entry in the catalog, as an older kdpipe would have written them."""
    from kdpipe.files import sha256_of

    path = folder / f"{table}.parquet"
    frame.write_parquet(path, metadata={"schema_version": str(SCHEMA_VERSION), "study_hash": "abc", **footer})
    content = json.loads((folder / "study.json").read_text())
    content["files"][path.name] = {"rows": frame.height, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
    (folder / "study.json").write_text(json.dumps(sealed(content)))


def test_tables_of_another_schema_or_study_are_refused(folder):
    rewritten(folder, "maps", frame("maps"), schema_version="0")
    refused(folder, "maps", "s/maps.parquet", "artifact schema 0", "again")
    rewritten(folder, "maps", frame("maps"), study_hash="other")
    refused(folder, "maps", "s/maps.parquet", "another run")
    rewritten(folder, "maps", frame("maps").drop("x"))
    refused(folder, "maps", "s/maps.parquet", "column 'x' is missing")
    record = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(sealed({**record, "files": {}})))
    refused(folder, "maps", "s/maps.parquet", "not in the study's catalog")


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        ("verdicts", {"verdict": "probably"}, "column 'verdict' holds 'probably', which is none of supported"),
        ("verdicts", {"p": 1.5}, "column 'p' holds 1.5, the greatest it may is 1"),
        ("verdicts", {"p": -0.5}, "column 'p' holds -0.5, the least it may is 0"),
        ("networks", {"role": "baseline"}, "column 'role' holds 'baseline', which is none of teacher, plain"),
        ("networks", {"method_parameters": "[1"}, "column 'method_parameters' holds something else than an object"),
        ("networks", {"training": "[1]"}, "column 'training' holds something else than an object in JSON"),
        ("networks", {"test_accuracy": float("nan")}, "column 'test_accuracy' holds NaN"),
        ("networks", {"network_id": "n"}, "two rows share the key network_id"),
        ("methods", {"null": None}, "column 'null' has empty values"),
    ],
)
def test_values_that_the_schema_does_not_allow_are_refused_when_read_and_when_written(folder, table, change, said):
    types = TABLES[table].schema
    strange = frame(table).with_columns(**{name: pl.lit(value, types[name]) for name, value in change.items()})
    rewritten(folder, table, strange)
    refused(folder, table, f"s/{table}.parquet holds what the schema does not allow: {said}", "kdpipe run")
    with pytest.raises(ArtifactError, match="cannot be written") as error:
        write_table(folder, table, strange, "abc", "0")
    assert said in str(error.value)


def test_a_file_that_goes_while_it_is_read_is_an_artifact_error(folder):
    study = open_study(folder)
    rows = study.scan("maps")
    (folder / "maps.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"s/maps\.parquet cannot be read as Parquet"):
        study.collect("maps", rows)


def test_every_kind_of_error_is_of_one_family(folder):
    (folder / "maps.parquet").unlink()
    with pytest.raises(MissingArtifactError):
        open_study(folder).frame("maps")
    (folder / "study.json").write_text("{")
    with pytest.raises(DamagedArtifactError):
        open_study(folder)
    (folder / "study.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION - 1}))
    with pytest.raises(OtherSchemaError, match="run kdpipe migrate s"):
        open_study(folder)
    (folder / "study.json").write_text(json.dumps(sealed({**record(), "schema_version": SCHEMA_VERSION, "files": []})))
    with pytest.raises(UnexpectedContentError, match="something unexpected under 'files'"):
        open_study(folder)
    kinds = (MissingArtifactError, DamagedArtifactError, OtherSchemaError, UnexpectedContentError)
    assert all(issubclass(kind, ArtifactError) for kind in kinds)


def test_an_unknown_table_is_named(folder):
    with pytest.raises(ArtifactError, match=r"there is no table '\.\./\.\./etc/passwd'; the tables are networks"):
        open_study(folder).frame("../../etc/passwd")
