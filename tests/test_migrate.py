"""From artifact schema 4 to 5: nothing is lost, every number stays, and what cannot be migrated is refused."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from synthetic import Recipe, write_toy_study

from kdpipe.artifacts.schema import SCHEMA_VERSION, TABLES
from kdpipe.artifacts.store import open_study, sealed
from kdpipe.cli.migrate import migrate_named
from kdpipe.errors import ArtifactError, StudyError
from kdpipe.files import sha256_of
from kdpipe.pipeline.migrate import migrate_study

RECIPE = Recipe(
    samples=40,
    seeds=tuple(range(8)),
    fractions=(0.1, 1.0),
    methods=("kd",),
    controls={"second-seed": "second-seed", "label-smoothing": "label-smoothing", "own": "own-budget-teacher"},
    checkpoints=(20, 100),
    other_teachers=True,
    maps=False,
    views=("gap", "projection"),
)


def as_schema_4(folder: Path) -> dict[str, pl.DataFrame]:
    """Rewrite a study as schema 4 had it, its evidence in the old form; what it was before, as frames."""
    new = {name: pl.read_parquet(folder / table.file) for name, table in TABLES.items()}
    against = (
        pl.when(pl.col("control_kind") == "without")
        .then(pl.concat_str("control", pl.lit(" - plain")))
        .otherwise(pl.coalesce("control", "against"))
    )
    at = pl.concat_str(pl.lit("-at"), "checkpoint_step")
    step = pl.when(pl.col("role") == "checkpoint").then(at).otherwise(pl.lit(""))
    role = pl.col("role").replace({"untrained": "baseline", "control-teacher": "control"})
    old = {
        **{name: frame for name, frame in new.items() if name not in ("findings", "verdict_controls")},
        "networks": new["networks"]
        .with_columns(method_label=pl.concat_str("method_label", step))
        .with_columns(role=role)
        .drop("budget_id", "checkpoint_of"),
        "methods": new["methods"].drop("null"),
        **{
            name: new[name].with_columns(against=against).drop("control", "control_kind", "budget_id")
            for name in ("comparisons", "specification")
        },
        "verdicts": new["verdicts"].drop(
            "budget_id", "controls_remaining", "controls_explaining", "controls_not_asked"
        ),
    }
    record = json.loads((folder / "study.json").read_text())
    footer = {"schema_version": "4", "study_hash": record["study_hash"], "code_version": "0"}
    files = {}
    for table in TABLES.values():
        path = folder / table.file
        path.unlink()
        if table.name in old:
            old[table.name].write_parquet(path, metadata=footer)
            files[table.file] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    (folder / "study.json").write_text(json.dumps(sealed({**record, "schema_version": 4, "files": files})))
    return new


@pytest.fixture
def old(tmp_path):
    return write_toy_study(tmp_path, RECIPE)


def test_a_study_comes_out_as_if_it_were_written_today(old):
    before, record = as_schema_4(old), json.loads((old / "study.json").read_text())
    with pytest.raises(ArtifactError, match=f"reads schema {SCHEMA_VERSION}: run kdpipe migrate toy"):
        open_study(old)
    done = migrate_study(old)
    assert done.changed_verdicts == 0
    for name, frame in before.items():
        assert done.study.frame(name).equals(frame), name
    assert done.study.hash == record["study_hash"] and done.study.timings["hardware"] == {"cpu": "made up"}
    roles = set(done.study.networks["role"])
    assert {"untrained", "control-teacher", "checkpoint"} <= roles and "baseline" not in roles
    kinds = set(done.study.comparisons.filter(against="control")["control_kind"])
    assert kinds == {"instead"} and done.study.verdict_controls.filter(outcome="remains").height


def test_a_verdict_that_the_rules_now_give_otherwise_is_counted(old):
    as_schema_4(old)
    path = old / "verdicts.parquet"
    pl.read_parquet(path).with_columns(verdict=pl.lit("reversed")).write_parquet(path)
    record = json.loads((old / "study.json").read_text())
    record["files"][path.name] |= {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    (old / "study.json").write_text(json.dumps(sealed(record)))
    done = migrate_study(old)
    assert done.changed_verdicts == done.study.verdicts.filter(pl.col("verdict") != "reversed").height > 0


def test_what_is_damaged_is_refused_and_stays_as_it_was(old):
    as_schema_4(old)
    path = old / "sample_measures.parquet"
    path.write_bytes(path.read_bytes()[:-4])
    before = {one.name: one.read_bytes() for one in old.iterdir()}
    with pytest.raises(ArtifactError, match=r"toy/sample_measures\.parquet is damaged"):
        migrate_study(old)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"toy/sample_measures\.parquet is missing"):
        migrate_study(old)
    assert {one.name: one.read_bytes() for one in old.iterdir()} == {k: v for k, v in before.items() if k != path.name}


def test_only_schema_4_is_migrated(old):
    with pytest.raises(ArtifactError, match=f"toy has artifact schema {SCHEMA_VERSION}: only schema 4"):
        migrate_study(old)
    as_schema_4(old)
    record = json.loads((old / "study.json").read_text())
    (old / "study.json").write_text(json.dumps({**record, "title": "another"}))
    with pytest.raises(ArtifactError, match="changed after it was written"):
        migrate_study(old)


def test_the_command_takes_a_name_or_a_folder(old, tmp_path):
    as_schema_4(old)
    assert f"artifact schema {SCHEMA_VERSION}; none of" in migrate_named("toy", tmp_path)
    as_schema_4(old)
    assert "verdicts changed" in migrate_named(str(old), tmp_path / "elsewhere")


def test_a_path_is_the_folder_that_it_names_and_a_study_of_today_is_left_alone(tmp_path):
    for place in ("here", "there"):
        write_toy_study(tmp_path / place, Recipe(samples=20, seeds=(0, 1), fractions=(0.1,)))
    said = migrate_named(str(tmp_path / "there" / "toy"), tmp_path / "here")
    assert said == f"{tmp_path / 'there' / 'toy'} has artifact schema {SCHEMA_VERSION} already."
    with pytest.raises(StudyError, match=r"'toyy': no study of that name lies in .*did you mean 'toy'"):
        migrate_named("toyy", tmp_path / "here")
