"""The standard pairs as studies, their recipe, and the ledger that holds what came of them against the papers."""

from __future__ import annotations

import copy
import csv
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from conftest import CommandLine

from kdpipe.artifacts.store import load_study
from kdpipe.config.sections import StudentSpec
from kdpipe.config.study import StudySpec
from kdpipe.config.study_file import load_spec
from kdpipe.methods import METHODS, Pair
from kdpipe.models import LITERATURE
from kdpipe.models.build import build
from kdpipe.models.profile import Profile, profile_of
from kdpipe.training.schedules import learning_rate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import ledger

FILES = sorted(ledger.STUDIES.glob("*.toml"))
EPOCH = 185_520 // 240


def pair(path: Path) -> StudySpec:
    return load_spec(path)


@lru_cache
def profile(arch: str) -> Profile:
    spec = StudentSpec(name="x", arch=arch)
    return profile_of(
        build(spec, image_shape=(3, 32, 32), classes=100, mean=[0.5] * 3, std=[0.3] * 3, seed=0), (3, 32, 32)
    )


def published() -> list[dict[str, str]]:
    with ledger.PUBLISHED.open() as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------------------------- studies


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_pair_has_the_published_recipe(path):
    spec = pair(path)
    assert spec.name == f"cifar100-{path.stem}" and len(spec.students) == 1 and len(spec.seeds) == 3
    assert {spec.teacher.arch, spec.students[0].arch} <= set(LITERATURE)
    assert spec.students[0].name == path.stem.rpartition("-")[2].replace("_", "-")
    light = any(kind in path.stem for kind in ("mobilenet", "shufflenet"))
    assert (spec.teacher.training.lr, spec.training.lr) == (0.05, 0.01 if light else 0.05)
    assert spec.teacher.training.model_copy(update={"lr": 1.0}) == spec.training.model_copy(update={"lr": 1.0})
    rates = [
        learning_rate(spec.training, epoch * EPOCH) / spec.training.lr for epoch in (0, 149, 150, 180, 209, 210, 239)
    ]
    assert rates == pytest.approx([1, 1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert learning_rate(spec.training, 150 * EPOCH - 1) == spec.training.lr
    assert (spec.training.batch_size, spec.training.evaluations) == (64, 240)
    assert spec.training.steps // spec.training.evaluations == EPOCH == (50_000 - 500) // 64


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_method_of_a_pair_serves_it(path):
    spec = pair(path)
    shapes = Pair(profile(spec.students[0].arch), profile(spec.teacher.arch), 100, tuple(range(100)))
    for method in spec.methods:
        record = METHODS[method.method]
        assert not record.needs_teacher or record.refuse(shapes, record.resolved(method.parameters)) is None, (
            method.name
        )


def test_every_published_number_has_a_study_that_asks_for_it_and_the_other_way_round():
    asked = {(spec.name, method.name) for spec in map(pair, FILES) for method in spec.methods}
    asked |= {(spec.name, "teacher") for spec in map(pair, FILES)}
    found = [(row["study"], row["method"]) for row in published()]
    assert len(FILES) == 13 and len(found) == len(set(found))
    assert set(found) == asked
    for row in published():
        assert 55 < float(row["accuracy"]) < 80 and row["paper"] and row["read_at"].startswith("https://")


def test_published_numbers_as_two_tables_have_them():
    found = {(row["study"], row["method"]): float(row["accuracy"]) for row in published()}
    same, other = "cifar100-resnet32x4-resnet8x4", "cifar100-resnet56-resnet20"
    methods = ("teacher", "plain", "kd", "crd", "dkd", "dist", "reviewkd", "lskd")
    assert [found[same, method] for method in methods] == [79.42, 72.50, 73.33, 75.51, 76.32, 76.31, 75.63, 76.62]
    assert [found[other, method] for method in methods] == [72.34, 69.06, 70.66, 71.16, 71.97, 71.75, 71.89, 71.43]
    assert found["cifar100-vgg13-mobilenetv2", "plain"] == found["cifar100-resnet50-mobilenetv2", "plain"] == 64.60


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wrn40_2-wrn16_2", "vgg13-mobilenetv2"])
def test_a_pair_trains(name, tmp_path):
    """The real files on small digits: a teacher, and plain, KD and FitNet with its layers."""
    line = CommandLine(tmp_path)
    line.study = ledger.STUDIES / f"{name}.toml"
    hint = next(method for method in load_spec(line.study).methods if method.method == "fitnet")
    parameters = "" if hint.parameters == {} else f", parameters = {{ pairs = {hint.parameters['pairs']} }}"
    methods = f'methods=["plain", "kd", {{ method = "fitnet"{parameters} }}]'
    small = [f"{place}.{field}" for place in ("training", "teacher.training") for field in
             ("steps=3", "batch_size=8", "evaluations=1")]  # fmt: skip
    data = ["data.dataset=digits", "data.image_size=16", "data.validation_fraction=0.1", "data.probe_size=50"]
    done = line(methods, *small, *data, "seeds=[0]", "second_seed=false", "--only", "teacher", "--only", "student")
    assert done.code == 0, done.err + done.out
    # The fourth is the student before its first step, which every study looks at too.
    assert len(line.stages("teacher")) == 1 and len(line.stages("student")) == 4


# ----------------------------------------------------------------------------------------- ledger


@pytest.fixture(scope="module")
def tiny(finished):
    return load_study(finished.artifacts / "tiny")


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ][1:]


def test_what_was_not_run_is_a_dash():
    found = rows(ledger.ledger({}))
    assert len(found) == len(published())
    assert all(row[3:7] == ["–"] * 4 for row in found)
    assert found[0][:3] == ["resnet32x4 to resnet8x4", "teacher", "79.42"]


def test_a_finished_study_fills_its_rows_and_its_other_recipe_is_named(tiny):
    """Any study stands in for the pair here: nothing of it is the published recipe, and the ledger says so."""
    text = ledger.ledger({"cifar100-resnet56-resnet20": tiny})
    mine = {row[1]: row for row in rows(text) if row[0].startswith("resnet56 to resnet20")}
    assert all(row[0].endswith("\\*") for row in mine.values())
    accuracies = tiny.networks.filter(method_label="kd", role="distilled")
    assert mine["kd"][3] == f"{100 * accuracies['test_accuracy'].mean():.2f}"
    assert mine["kd"][5] == f"{100 * accuracies['selected_test_accuracy'].mean():.2f}" and mine["kd"][6] == "2"
    assert mine["teacher"][4] == "–" and mine["teacher"][6] == "1" and mine["crd"][3:7] == ["–"] * 4
    assert "another recipe than the published one" in text and "`data.dataset = digits`" in text
    assert all(row[3] == "–" for row in rows(text) if not row[0].startswith("resnet56 to resnet20"))


def test_the_published_recipe_has_no_departures(tiny):
    """Fewer methods or other seeds are no other recipe; another weight of a loss is."""
    path = ledger.STUDIES / "vgg13-vgg8.toml"
    resolved = load_spec(path, ['methods=["plain", "kd"]', "seeds=[7, 8]", "title=x"]).model_dump(mode="json")
    study = copy.copy(tiny)
    object.__setattr__(study, "record", {**tiny.record, "study": resolved})
    assert ledger.departures(study, "cifar100-vgg13-vgg8") == []
    resolved["methods"][1]["parameters"] = {"temperature": 2.0}
    resolved["training"]["steps"] = 20
    assert ledger.departures(study, "cifar100-vgg13-vgg8") == [
        "`methods.kd.parameters.temperature = 2.0`", "`training.steps = 20`",
    ]  # fmt: skip


def test_means_and_intervals_by_hand():
    """Of 0.70, 0.71 and 0.72: mean 71, deviation 1, t with two degrees of freedom 4.303, so 71 ± 4.303 / √3."""
    networks = [{"test_accuracy": value, "selected_test_accuracy": value - 0.01} for value in (0.70, 0.71, 0.72)]
    assert ledger.cells(networks) == ("71.00", "68.52 to 73.48", "70.00", "3")
    assert ledger.cells(networks[:1]) == ("70.00", "–", "69.00", "1")
    networks[0]["selected_test_accuracy"] = None
    assert ledger.cells(networks)[2] == "–"


def test_studies_of_other_names_are_no_part_of_the_ledger(finished):
    assert ledger.finished([finished.artifacts, finished.artifacts / "missing"]) == {}
