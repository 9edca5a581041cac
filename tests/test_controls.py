"""Controls, through the real command line: who learns from whom, on which images, for how many steps."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from conftest import TINY, CommandLine

from kdpipe.config.preflight import run_preflight
from kdpipe.config.sections import MethodSpec
from kdpipe.config.study_file import read_study
from kdpipe.data.dataset import Dataset
from kdpipe.data.splits import label_budget
from kdpipe.models.saved import read_network
from kdpipe.pipeline.networks_plan import plan_networks
from kdpipe.training.evaluation import accuracy

METHODS_LINE = 'methods = ["plain", "kd", "fitnet", "second-seed"]'
CONTROLS = """
checkpoints = [0.25, 0.5]
methods = [
    "plain", "kd", "plain-long", "label-smoothing", "random-teacher", "shuffled-teacher", "own-budget-teacher",
    "self-distillation", "supervised-on-the-same-images", "simkd", "crd", "funmatch",
    { method = "kd", unlabelled = true },
    { method = "fitnet", teacher = "own-budget" },
    { method = "plain", label = "plain-slow", training = { lr = 0.01 } },
]
"""


def study_text(**changes: str) -> str:
    text = TINY.replace(METHODS_LINE, CONTROLS).replace("steps = 30", "steps = 12").replace('"tsne", ', "")
    assert CONTROLS in text
    return text


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    made = CommandLine(tmp_path_factory.mktemp("controls"))
    made.study.write_text(study_text())
    made.result = made()
    assert made.result.code == 0, made.result.err + made.result.out
    return made


@pytest.fixture(scope="module")
def networks(line):
    return pl.read_parquet(line.artifacts / "tiny" / "networks.parquet")


def row(networks: pl.DataFrame, label: str, seed: int = 0) -> dict:
    return networks.filter(pl.col("checkpoint_of").is_null(), method_label=label, seed=seed).row(0, named=True)


def test_every_student_names_its_teacher(networks):
    teachers = {
        r["method_label"]: r["teacher_id"] for r in networks.filter(seed=1, student="small").iter_rows(named=True)
    }
    assert {label for label, teacher in teachers.items() if teacher is None} == {
        "plain", "plain-long", "label-smoothing", "supervised-on-the-same-images", "plain-slow",
    }  # fmt: skip
    assert teachers["kd"] == teachers["shuffled-teacher"] == teachers["kd-unlabelled"] == "teacher"
    assert teachers["random-teacher"] == "teacher-untrained"
    assert teachers["own-budget-teacher"] == teachers["fitnet-own-budget-teacher"] == "teacher-l0.2-s1"
    assert teachers["self-distillation"] == "small-plain-l0.2-s1"
    assert set(filter(None, teachers.values())) <= set(networks["network_id"])


def test_what_a_teacher_knew_is_recorded(networks):
    known = {r["teacher_id"]: r["teacher_label_fraction"] for r in networks.iter_rows(named=True)}
    assert known["teacher"] == 1.0 and known["teacher-untrained"] == 0.0
    assert known["teacher-l0.2-s0"] == known["small-plain-l0.2-s0"] == pytest.approx(0.2)
    assert networks.filter(role="teacher").height == 1  # the teachers of controls have a role of their own
    untrained = networks.filter(network_id="teacher-untrained").row(0, named=True)
    assert untrained["labelled_images"] == 0 and untrained["method"] == "untrained"


def test_roles(networks):
    finished = networks.filter(pl.col("checkpoint_of").is_null())
    roles = dict(finished.select("method_label", "role").iter_rows())
    assert roles["plain"] == "plain" and roles["kd"] == roles["simkd"] == roles["kd-unlabelled"] == "distilled"
    assert roles["fitnet-own-budget-teacher"] == roles["plain-slow"] == roles["plain-long"] == "control"
    teachers = dict(networks.filter(student="teacher").select("network_id", "role").iter_rows())
    assert teachers == {"teacher": "teacher"} | dict.fromkeys(
        ("teacher-untrained", "teacher-l0.2-s0", "teacher-l0.2-s1"), "control-teacher"
    )


def test_a_checkpoint_names_the_student_that_it_became(networks):
    """Of plain and of the headline's method, which is kd; its label is that of its student."""
    on_its_way = networks.filter(role="checkpoint")
    joined = on_its_way.join(networks, left_on="checkpoint_of", right_on="network_id", suffix="_end")
    assert joined.height == on_its_way.height == 2 * 2 * 2  # methods, steps, seeds
    assert set(joined["method_label"]) == {"plain", "kd"} and set(joined["checkpoint_step"]) == {3, 6}
    for name in ("method_label", "student", "seed", "budget_id", "method_parameters"):
        assert joined[name].equals(joined[f"{name}_end"]), name
    assert (joined["checkpoint_step"] < joined["checkpoint_step_end"]).all()


def test_steps_are_equal_but_for_the_student_that_trains_longer(line, networks):
    study = read_study(line.study)
    preflight = run_preflight(study, line.root)
    longer = 1 + preflight.shapes["teacher"].macs / preflight.shapes["small"].macs / 3
    for r in networks.filter(student="small").iter_rows(named=True):
        steps = {"plain-long": round(12 * longer), "untrained": 0}
        if r["role"] != "checkpoint":
            assert r["checkpoint_step"] == steps.get(r["method_label"], 12), r["method_label"]
    history = pl.read_parquet(line.artifacts / "tiny" / "history.parquet")
    assert history.filter(network_id="small-plain-long-l0.2-s0")["step"].max() == round(12 * longer)


def test_supervised_on_the_same_images_had_all_labels_and_the_others_their_budget(networks, line):
    (data,) = line.stages("data")
    dataset = Dataset.read(line.cache / "stages" / "data" / data)
    count = len(label_budget(dataset.train.labels, 0.2, 0))
    images = dict(networks.filter(student="small", seed=0).select("method_label", "labelled_images").iter_rows())
    assert images.pop("supervised-on-the-same-images") == len(dataset.train.labels)
    assert images.pop("untrained") == 0
    assert set(images.values()) == {count}


def test_the_own_budget_teacher_learned_from_the_students_own_images(line):
    """Same images, same number of steps: its plan says so, and its budget is drawn by the student's seed."""
    study = read_study(line.study)
    plan = plan_networks(study.spec, run_preflight(study, line.root), line.root)
    for teacher in plan.others:
        if teacher.network_id == "teacher-untrained":
            continue
        params = teacher.stage.params["network"]
        students = [s for s in plan.students if s.teacher is teacher]
        assert {s.method for s in students} == {"own-budget-teacher", "fitnet-own-budget-teacher"}
        for student in students:
            assert (params["label_fraction"], params["seed"]) == (
                student.stage.params["label_fraction"],
                student.stage.params["label_seed"],
            )
            assert params["training"] == student.stage.params["training"]


def test_weights_are_those_that_the_row_speaks_of(line, networks):
    """Checkpoints, the reused head of SimKD, teachers of controls: the file scores what the table says."""
    (data,) = line.stages("data")
    dataset = Dataset.read(line.cache / "stages" / "data" / data)
    for name in ("small-plain-l0.2-s0", "small-plain-l0.2-s0-at3", "small-simkd-l0.2-s1", "teacher-l0.2-s1"):
        network = read_network(line.weights / "tiny" / f"{name}.safetensors")
        known = networks.filter(network_id=name)["test_accuracy"][0]
        assert accuracy(network, dataset.test) == pytest.approx(known, abs=1e-6), name


def test_simkd_is_charged_for_its_projector(networks):
    plain, simkd = row(networks, "plain"), row(networks, "simkd")
    assert simkd["macs"] > plain["macs"] and simkd["params"] > plain["params"]


def test_every_network_is_embedded_and_measured(line, networks):
    measured = set(pl.read_parquet(line.artifacts / "tiny" / "layer_measures.parquet")["network_id"])
    assert measured == set(networks["network_id"])


def test_every_student_but_plain_has_a_ledger_beside_its_own_teacher(line, networks):
    """The study's teacher where it had none; no ledger for checkpoints, teachers and what nobody trained."""
    flips = pl.read_parquet(line.artifacts / "tiny" / "flips.parquet").filter(pl.col("label").is_null())
    students = networks.filter(pl.col("role").is_in(["distilled", "control"]) & (pl.col("student") == "small"))
    expected = students.select("network_id", pl.col("teacher_id").fill_null("teacher")).sort("network_id")
    assert flips.select("network_id", "teacher_id").sort("network_id").equals(expected)
    assert {"teacher", "teacher-untrained", "small-plain-l0.2-s0"} < set(flips["teacher_id"])
    alike = flips.filter(pl.col("teacher_id") == pl.col("plain_id"))  # self-distillation
    assert (alike["wrong_right_wrong"] + alike["right_wrong_right"]).sum() == 0


def test_named_terms_and_shares_of_time_are_kept(line):
    history = pl.read_parquet(line.artifacts / "tiny" / "history.parquet")
    quantities = set(history.filter(network_id="small-crd-l0.2-s0")["quantity"])
    assert {"loss", "loss/ce", "loss/crd", "lr", "val_accuracy", "train_accuracy"} <= quantities
    assert "train_accuracy" not in set(history.filter(network_id="small-funmatch-l0.2-s0")["quantity"])
    timings = json.loads((line.artifacts / "tiny" / "timings.json").read_text())
    speed = timings["training"]["small-kd-l0.2-s0"]
    assert set(speed["shares"]) == {"data", "teacher", "student", "loss"}
    assert sum(speed["shares"].values()) == pytest.approx(1.0, abs=1e-3)
    assert speed["steps_per_second"] > 0 and speed["images_per_second"] > 0
    manifests = [json.loads(path.read_text()) for path in line.cache.glob("stages/student/*/manifest.json")]
    once = sum(one["seconds"] for one in manifests)
    assert timings["stages"]["student"] == pytest.approx(once, abs=0.01), (
        "a student's checkpoints take no time of their own"
    )


def test_adding_a_method_trains_nothing_else(line):
    """Not even where it changes who trains beside whom."""
    before = line.stages("student")
    line.study.write_text(study_text().replace('"simkd", ', '"simkd", "dkd", '))
    assert line("--only", "student").code == 0
    assert len(line.stages("student") - before) == 2  # one a seed


def test_the_labelled_images_of_two_seeds_differ_but_not_within_one():
    labels = np.repeat(np.arange(5), 40)
    assert not np.array_equal(label_budget(labels, 0.2, 0), label_budget(labels, 0.2, 1))
    assert np.array_equal(label_budget(labels, 0.2, 1), label_budget(labels, 0.2, 1))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('{ method = "dkd", unlabelled = true }', "needs labels"),
        ('{ method = "plain", teacher = "self" }', "no teacher"),
        ('{ method = "kd", teacher = "myself" }', "teacher"),
        ('{ method = "kd", training = { stepps = 3 } }', "training.stepps"),
        ('{ method = "kd", training = { lr = -1.0 } }', "training.lr"),
        ('{ method = "plain", label = "again" }', "once more"),
        ('{ method = "at", parameters = { pairs = [["layer9", "layer1"]] } }', "layer9"),
        ('{ method = "kd", parameters = { temperature = inf } }', "temperature"),
    ],
)
def test_what_cannot_be_is_one_sentence(command_line, entry, said):
    command_line.study.write_text(TINY.replace('"second-seed"', entry))
    found = command_line.here(command="validate")
    assert found.code == 2 and said in found.err and "Traceback" not in found.err
    assert "line 6" in found.err or "methods" in found.err


def test_a_cache_that_would_not_pay_is_refused(command_line):
    said = command_line.here("training.teacher_cache=true", "label_fractions=[1.0]", command="validate")
    assert said.code == 2 and "teacher_cache" in said.err and "more than it saves" in said.err
    assert command_line.here("training.teacher_cache=true", "data.augmentation=none", command="validate").code == 0


def run(command_line, methods: str, *more: str, **changes: str):
    text = TINY.replace(METHODS_LINE, methods).replace("steps = 30", "steps = 8").replace('"tsne", ', "")
    for old, new in changes.items():
        text = text.replace(old, new)
    command_line.study.write_text(text)
    return command_line(*more)


def test_configurations_that_come_to_the_same_are_networks_of_their_own(command_line):
    """A sweep may hit the default; every network has its rows, and its maps where it should have some."""
    same = '{ method = "kd", label = "kd-t4", parameters = { temperature = 4.0 } }'
    slow = '{ method = "plain", label = "plain-again", training = { lr = 0.1 } }'
    found = run(command_line, f'methods = ["plain", "kd", {same}, {slow}]', "seeds=[0]")
    assert found.code == 0, found.err
    folder = command_line.artifacts / "tiny"
    networks = pl.read_parquet(folder / "networks.parquet")
    mapped = set(networks.filter("mapped")["network_id"])
    assert mapped == {"teacher", "small-plain-l0.2-s0", "small-kd-l0.2-s0", "small-kd-t4-l0.2-s0"}
    assert set(pl.read_parquet(folder / "maps.parquet")["network_id"]) == mapped
    accuracies = networks.filter(pl.col("method") == "kd")["test_accuracy"]
    assert accuracies[0] == accuracies[1]


def test_a_diverged_stand_in_teacher_costs_its_students_alone(command_line):
    """The networks that came out whole are all there; who had nobody to learn from is named."""
    text = 'methods = ["plain", "kd", "self-distillation", { method = "own-budget-teacher", training = { lr = 1e30 } }]'
    found = run(command_line, text, "seeds=[0]")
    assert found.code == 0, found.err
    assert "teacher-l0.2-s0-for-own-budget-teacher diverged" in found.err + found.out
    networks = pl.read_parquet(command_line.artifacts / "tiny" / "networks.parquet")
    status = dict(networks.select("network_id", "status").iter_rows())
    assert status["teacher-l0.2-s0-for-own-budget-teacher"] == "diverged"
    assert status["small-own-budget-teacher-l0.2-s0"] == "untaught"
    assert status["small-kd-l0.2-s0"] == status["small-self-distillation-l0.2-s0"] == "trained"
    assert networks.filter(status="untaught")["test_accuracy"].null_count() == 1


def test_a_diverged_plain_student_teaches_nobody(command_line):
    found = run(
        command_line, 'methods = ["plain", "self-distillation", "label-smoothing"]', "seeds=[0]", "training.lr=1e30"
    )
    assert "last.safetensors" not in found.err + found.out
    networks = pl.read_parquet(command_line.artifacts / "tiny" / "networks.parquet")
    trained = networks.filter(pl.col("role") != "untrained", student="small")
    assert set(trained["status"]) == {"diverged", "untaught"}


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ('["plain", { method = "kd", training = { steps = 0 } }]', "at least one step"),
        ('["plain", { method = "kd", training = { lr = inf } }]', "lr"),
        ('["plain", { method = "kd", label = "supervised" }]', "another label"),
        ('["plain", { method = "at", parameters = { pairs = [] } }]', "needs at least 1, not 0"),
        (
            '["plain", { method = "at", parameters = { pairs = [["layer1", "layer1"], ["layer1", "layer1"]] } }]',
            "twice",
        ),
        ('["plain", { method = "at", parameters = { pairs = [["layer1", "layr3"]] } }]', "did you mean 'layer3'"),
        ('["plain", 3]', "must be a table"),
    ],
)
def test_mistakes_in_methods_are_sentences(command_line, methods, said):
    command_line.study.write_text(TINY.replace(METHODS_LINE, f"methods = {methods}"))
    found = command_line.here(command="validate")
    assert found.code == 2 and said in found.err and "Traceback" not in found.err


def test_a_student_is_not_called_teacher(command_line):
    found = command_line.here("students.0.name=teacher", command="validate")
    assert found.code == 2 and "teacher's own name" in found.err


def test_other_batches_than_plain_make_a_control():
    """Steps are what is held equal; a learning rate of one's own is a configuration."""
    assert MethodSpec(method="kd", training={"lr": 0.01}).role == "distilled"
    assert MethodSpec(method="kd", training={"steps": 40}).role == "control"
    assert MethodSpec(method="kd", training={"batch_size": 64}).role == "control"


@pytest.mark.parametrize("arch", ["hrnet_w18_small", "mvitv2_tiny", "cait_xxs24_224", "crossvit_tiny_240", "tresnet_m"])
def test_models_that_are_built_otherwise_are_served_or_refused_in_a_sentence(command_line, arch):
    found = command_line.here(f"students.0.arch={arch}", "students.0.arguments={}", "students.0.stem=default",
                              "students.0.layers=stages", "data.image_size=64", command="validate")  # fmt: skip
    assert "Traceback" not in found.err and found.code in (0, 2)
    if found.code == 2:
        assert "arch" in found.err
