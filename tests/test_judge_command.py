"""``judge``, ``cache pack`` and ``cache unpack`` as a user types them, on a study that really ran."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from types import SimpleNamespace

import polars as pl
import pytest

import kdpipe
from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import open_study, write_study
from kdpipe.cli.main import main
from kdpipe.source import commit


def typed(*words: object) -> SimpleNamespace:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["precompute.py", *map(str, words)])
        patch.setenv("COLUMNS", "200")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as ended:
                code = ended.code or 0
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


@pytest.fixture
def artifacts(finished, tmp_path):
    shutil.copytree(finished.artifacts, tmp_path / "artifacts")
    return tmp_path / "artifacts"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "timings.json"}


def test_a_study_judged_again_by_the_same_rules_is_the_same_to_the_byte(artifacts):
    before = contents(artifacts / "tiny")
    done = typed("judge", "tiny", "--artifacts", artifacts)
    assert done.code == 0 and "estimate only" in done.out
    assert contents(artifacts / "tiny") == before


def test_a_study_of_another_version_says_with_which_it_was_judged(artifacts):
    folder = artifacts / "tiny"
    study = open_study(folder)
    made = {"versions": {**study.record["versions"], "kdpipe": "0.0.1"}, "commit": "0" * 40}
    record = {name: value for name, value in study.record.items() if name not in ("files", "sha256", "schema_version")}
    write_study(folder, {**record, **made}, {name: study.frame(name) for name in TABLES}, study.timings)
    assert typed("judge", "tiny", "--artifacts", artifacts).code == 0
    judged = open_study(folder).record
    assert {name: judged[name] for name in made} == made
    assert judged["judged_with"] == {"kdpipe": kdpipe.__version__, "commit": commit()}


def test_verdicts_that_are_damaged_or_of_another_form_are_made_anew(artifacts):
    (artifacts / "tiny" / "verdicts.parquet").write_bytes(b"nothing")
    assert typed("judge", "tiny", "--artifacts", artifacts).code == 0
    assert open_study(artifacts / "tiny").verdicts.height


def test_a_name_that_is_no_study_is_one_sentence(artifacts):
    done = typed("judge", "tinny", "--artifacts", artifacts)
    assert done.code == 2 and "did you mean 'tiny'" in done.err and "Traceback" not in done.err


def test_damaged_values_are_named_and_nothing_is_replaced(artifacts):
    path = artifacts / "tiny" / "sample_measures.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    before = contents(artifacts / "tiny")
    done = typed("judge", "tiny", "--artifacts", artifacts)
    assert done.code == 1 and "sample_measures.parquet is damaged" in done.err
    assert contents(artifacts / "tiny") == before


def test_what_one_machine_packed_another_does_not_train(finished, tmp_path):
    part, cache = tmp_path / "part.tar.gz", tmp_path / "cache"
    packed = typed("cache", "pack", finished.study, part, "--cache", finished.cache, "--seed", 0)
    assert packed.code == 0 and part.stat().st_size < 5_000_000
    assert typed("cache", "unpack", part, "--cache", cache).code == 0
    shown = typed("plan", finished.study, "--cache", cache, "--seed", 0, "--device", "cpu")
    students = next(line for line in shown.out.splitlines() if "student" in line)
    assert [cell.strip() for cell in students.split("│")[2:5]] == ["4", "4", "0"]


def test_packing_before_anything_ran_is_one_sentence(finished, tmp_path):
    done = typed("cache", "pack", finished.study, tmp_path / "part.tar.gz", "--cache", tmp_path / "none")
    assert done.code == 1 and "nothing to pack" in done.err


def test_a_file_that_is_no_pack_is_one_sentence(tmp_path):
    (tmp_path / "part.tar.gz").write_text("hello")
    done = typed("cache", "unpack", tmp_path / "part.tar.gz", "--cache", tmp_path / "cache")
    assert done.code == 1 and "no packed stages can be read" in done.err


def test_every_verdict_of_a_real_study_rests_on_its_own_values(finished):
    """The area of the artifacts is that of curves made from its per-image values by hand."""
    study = open_study(finished.artifacts / "tiny")
    row = study.comparisons.filter(method_label="kd", measure="silhouette", quantity="abc", against="plain").row(
        0, named=True
    )
    depth = study.frame("layers", network_id="small-plain-l0.2-s0", view="projection").sort("order")
    labels = study.samples.select("sample_id", "label")
    areas = []
    for seed in (0, 1):
        curves = []
        for method in ("kd", "plain"):
            values = study.frame("sample_measures", network_id=f"small-{method}-l0.2-s{seed}", view="projection")
            of_class = values.join(labels, "sample_id").group_by("layer", "label").agg(pl.col("silhouette").mean())
            curve = of_class.group_by("layer").agg(pl.col("silhouette").mean())
            curves.append(depth.join(curve, "layer").sort("order")["silhouette"].to_numpy())
        gap, at = curves[0] - curves[1], depth["relative_depth"].to_numpy()
        areas.append(float(((gap[1:] + gap[:-1]) / 2 * (at[1:] - at[:-1])).sum()))
    assert row["per_seed"] == pytest.approx(areas, abs=1e-5)
