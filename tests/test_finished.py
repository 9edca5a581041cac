"""Networks that are there already: the numbers of where they were trained, on all pages, by a file or by a line."""

from __future__ import annotations

import tomllib

import numpy as np
import polars as pl
import pytest
import torch
from app_pages import ROOT, show
from conftest import CommandLine
from polars.testing import assert_frame_equal
from sklearn.datasets import load_digits
from torch import nn

import kdpipe
from kdpipe.artifacts.store import load_study
from kdpipe.config.brought import dataset_at, origin_of
from kdpipe.config.preflight import run_preflight
from kdpipe.config.study import FinishedStudy
from kdpipe.config.study_file import read_study
from kdpipe.config.study_text import allowed_by, toml_of
from kdpipe.errors import DataError, NetworkError, StudyError

STUDY = """
name = "tiny"
title = "Brought along"

[data]
dataset = "digits"
probe_size = 60

[measures]
k = 5
second_k = 3

[maps]
projectors = ["pca"]
plain_seeds = 1
"""
# What the networks of the tiny study are called where they were trained, and where they are brought along.
SAME = {
    "teacher": "teacher",
    **{f"small-{method}-l0.2-s{seed}": f"small-{method}-l0.2-s{seed}" for method in ("plain", "kd") for seed in (0, 1)},
}


def network(role: str, weights, **fields: object) -> str:
    return toml_of({"networks": [{"role": role, "checkpoint": str(weights), **fields}]})


@pytest.fixture(scope="module")
def brought(finished, tmp_path_factory):
    """The teacher, plain and kd of both seeds of the tiny study, with the untrained student as its first checkpoint."""
    weights = finished.weights / "tiny"
    line = CommandLine(tmp_path_factory.mktemp("brought"))
    own = {"student": "small", "label_fraction": 0.2}
    sections = [network("teacher", weights / "teacher.safetensors")]
    for seed in (0, 1):
        sections.append(network("plain", weights / f"small-plain-l0.2-s{seed}.safetensors", seed=seed, **own))
        sections.append(
            network("distilled", weights / f"small-kd-l0.2-s{seed}.safetensors", method="kd", seed=seed, **own)
        )
    sections.append(network("plain", weights / "small-untrained.safetensors", step=0, **own))
    line.study.write_text(STUDY + "".join(sections))
    done = line.here()
    assert done.code == 0, done.out + done.err
    return line


@pytest.mark.parametrize(
    "table", ["layer_measures", "network_measures", "predictions", "similarity", "neighbours", "flips"]
)
def test_a_network_that_is_brought_along_gives_the_numbers_of_its_training_study(finished, brought, table):
    trained, here = (load_study(line.artifacts / "tiny") for line in (finished, brought))
    keys = [c for c in trained.frame(table).columns if c.endswith("_id") and c != "sample_id"]
    rows = [
        study.frame(table).filter(*(pl.col(key).is_in(list(SAME)) for key in keys)).sort(pl.all().exclude(pl.List))
        for study in (trained, here)
    ]
    assert len(rows[0]) and set(rows[0]["network_id"]) >= {"small-kd-l0.2-s0"}
    assert_frame_equal(*rows, rel_tol=1e-5, abs_tol=1e-6)


def test_roles_checkpoints_and_accuracies_stand_in_the_table_of_networks(finished, brought):
    trained, here = (load_study(line.artifacts / "tiny").networks for line in (finished, brought))
    both = trained.join(here, on="network_id", suffix="_here")
    assert set(SAME) < set(both["network_id"])
    assert_frame_equal(both.select("test_accuracy"), both.select(test_accuracy="test_accuracy_here"))
    assert both["params"].to_list() == both["params_here"].to_list()
    (checkpoint,) = here.filter(role="checkpoint").iter_rows(named=True)
    assert (checkpoint["network_id"], checkpoint["checkpoint_of"]) == ("small-plain-l0.2-s0-at0", "small-plain-l0.2-s0")
    assert here.filter(network_id="small-kd-l0.2-s0")["teacher_id"].to_list() == ["teacher"]


def test_too_few_seeds_give_estimates_and_say_how_many_are_missing(brought):
    verdicts = load_study(brought.artifacts / "tiny").verdicts
    assert set(verdicts["verdict"]) <= {"estimate only", "not computable"}
    assert verdicts.filter(verdict="estimate only").height


@pytest.mark.parametrize("page", ["Home.py", *sorted(f"pages/{path.name}" for path in (ROOT / "pages").glob("*.py"))])
def test_every_page_shows_networks_that_were_brought_along(brought, page, monkeypatch, fresh_cache):
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(brought.artifacts))
    app = show(page, study="tiny")
    assert not app.error, [element.value for element in app.error]


def test_the_training_page_says_that_training_was_elsewhere(brought, monkeypatch, fresh_cache):
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(brought.artifacts))
    said = [element.value for element in show("pages/10_Training.py", study="tiny").info]
    assert sum("trained elsewhere" in one for one in said) >= 4 and not any("kdpipe run" in one for one in said), said


def test_nothing_is_read_again_when_a_role_or_seed_changes(brought):
    brought.study.write_text(brought.study.read_text().replace('method = "kd"', 'method = "fitnet"'))
    done = brought.here()
    assert done.code == 0 and "reading finished networks" not in done.out, done.out


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ('role = "teacher"', 'role = "plain"\nseed = 7'),
            "is to have the role 'teacher', and none has it",
        ),
        (("seed = 1\n", "seed = 0\n"), "networks.3: it would be called 'small-plain-l0.2-s0', as networks.1 is"),
        (('method = "kd"', 'method = "plain"'), "'plain' stands for networks of the roles distilled and plain"),
        (('method = "kd"', 'method = "label-smoothing"'), "makes a network of role 'control', not 'distilled'"),
        (('method = "kd"', 'method = "distilled"'), "'distilled' is a word of the tables"),
        (('role = "distilled"', 'role = "destilled"'), "'destilled', did you mean 'distilled'?"),
        (('role = "teacher"', 'role = "teacher"\nmethod = "kd"'), "method: a teacher has none"),
    ],
)
def test_a_role_that_cannot_be_is_refused(finished, tmp_path, change, said):
    path, weights = tmp_path / "study.toml", finished.weights / "tiny"
    sections = [network("teacher", weights / "teacher.safetensors")]
    for seed in (0, 1):
        for role, method in (("plain", "plain"), ("distilled", "kd")):
            own = {"student": "small", "method": method, "label_fraction": 0.2, "seed": seed}
            sections.append(network(role, weights / f"small-{method}-l0.2-s{seed}.safetensors", **own))
    text = STUDY + "".join(sections)
    assert isinstance(read_study(written(path, text)).spec, FinishedStudy)
    with pytest.raises(StudyError) as error:
        read_study(written(path, text.replace(*change)))
    assert said in str(error.value)


def test_students_of_one_name_have_the_same_layers(finished, tmp_path):
    weights = finished.weights / "tiny"
    sections = [network("teacher", weights / "teacher.safetensors"), network("plain", weights / "teacher.safetensors")]
    sections.append(network("distilled", weights / "small-kd-l0.2-s0.safetensors", layers=["layer2", "layer3"]))
    study = read_study(written(tmp_path / "study.toml", STUDY + "".join(sections)))
    with pytest.raises(StudyError, match="has the layers layer2, layer3 here, and layer1, layer3 in networks"):
        run_preflight(study, tmp_path)


def test_a_network_without_weights_is_not_finished(finished, tmp_path):
    plain = network("plain", finished.weights / "tiny" / "small-plain-l0.2-s0.safetensors")
    bare = toml_of({"networks": [{"role": "teacher", "arch": "resnet18"}]})
    with pytest.raises(StudyError, match="'resnet18' alone is a network that nobody trained; name its weights"):
        read_study(written(tmp_path / "study.toml", STUDY + bare + plain))


def written(path, text):
    path.write_text(text)
    return path


def test_commands_that_train_refuse_a_study_that_does_not(brought):
    with pytest.raises(StudyError, match="of finished networks and trains none"):
        _ = read_study(brought.study).that_trains


# --------------------------------------------------------------------------------------- by one line


def test_where_a_network_comes_from_is_said_in_a_word(tmp_path):
    weights, models = written(tmp_path / "w.safetensors", ""), written(tmp_path / "models.py", "")
    (tmp_path / "vit").mkdir()
    assert origin_of(str(weights)) == {"checkpoint": str(weights)}
    assert origin_of(f"resnet18@{weights}") == {"arch": "resnet18", "checkpoint": str(weights)}
    assert origin_of(f"{models}:build@{weights}") == {"factory": f"{models}:build", "checkpoint": str(weights)}
    assert origin_of(f"{models}:build") == {"factory": f"{models}:build"}
    assert origin_of(str(tmp_path / "vit")) == {"folder": str(tmp_path / "vit")}
    for wrong in ("no.safetensors", "resnet18@no.safetensors", "no.py:build", f"{weights}@{weights}"):
        with pytest.raises(NetworkError, match="a network is a"):
            origin_of(wrong)


def test_what_images_come_in_is_told_by_their_files(tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="the folder is empty"):
        dataset_at(tmp_path / "photos")
    written(tmp_path / "photos" / "cat" / "1.png", "")
    assert dataset_at(tmp_path / "photos") == "folder"
    assert dataset_at(written(tmp_path / "one.parquet", "")) == "parquet"
    assert dataset_at(written(tmp_path / "one.npz", "")) == "arrays"
    with pytest.raises(DataError, match="it holds arrays and parquet; name one"):
        dataset_at(tmp_path)
    with pytest.raises(DataError, match="images come as a folder"):
        dataset_at(written(tmp_path / "one.csv", ""))
    with pytest.raises(DataError, match="there is no such file"):
        dataset_at(tmp_path / "nowhere")


def test_a_study_of_any_words_is_read_back_as_it_was():
    odd = "\"quotes\" \\ back\nline \x7f \t 日本 😀 'x'"
    study = {
        "name": odd, "n": 3, "half": 0.5, "yes": True,
        "data": {"path": odd, "sizes": [1, 2], "nested": {"a": [odd]}},
        "networks": [{"role": odd}, {"role": "b"}],
    }  # fmt: skip
    assert tomllib.loads(toml_of(study)) == study


def test_live_modules_and_arrays_are_a_study_in_one_call(tmp_path):
    digits = load_digits()
    torch.manual_seed(0)
    widths = [(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 10)) for _ in range(3)]
    nets = {r: nn.Sequential(nn.Flatten(), *w) for r, w in zip(("teacher", "plain", "distilled"), widths, strict=True)}
    pixels = np.round(digits.images[:300] * 255 / 16).astype(np.uint8)
    places = {"artifacts": tmp_path / "artifacts", "cache": tmp_path / "cache", "projectors": ["pca"], "device": "cpu"}
    study = kdpipe.study_of(nets, (pixels[..., None], digits.target[:300]), progress=False, **places)
    assert set(study.networks["role"]) == {"teacher", "plain", "distilled", "untrained"}
    assert study.layers.filter(network_id="teacher", view="gap")["dim"].to_list() == [32, 24]
    assert study.frame("predictions", network_id="teacher").height == study.samples.height == 180
    with pytest.raises(StudyError, match="300 images have 299 labels"):
        kdpipe.study_of(nets, (pixels[..., None], digits.target[:299]), progress=False, **places)
    with pytest.raises(StudyError, match="a int is no network"):
        kdpipe.study_of({**nets, "plain": 3}, "digits", progress=False, **places)


@pytest.mark.parametrize("probe", [20, 49, 50, 61, 90, 91, 99, 100, 2000])
def test_a_study_that_a_command_writes_fits_its_number_of_samples(finished, tmp_path, probe):
    weights = finished.weights / "tiny"
    networks = [
        {"role": role, "checkpoint": str(weights / f"{name}.safetensors")}
        for role, name in (("teacher", "teacher"), ("plain", "small-plain-l0.2-s0"))
    ]
    data = {"dataset": "digits", "probe_size": min(probe, 539)}
    study = {"name": "few", "title": "few", "data": data, **allowed_by(probe, ["tsne", "pca"]), "networks": networks}
    spec = read_study(written(tmp_path / "study.toml", toml_of(study)))
    run_preflight(spec, tmp_path)
    assert spec.spec.maps.projectors == ([] if probe < 50 else ["tsne", "pca"])


def test_one_line_looks_at_networks(finished, tmp_path):
    weights = finished.weights / "tiny"
    line = CommandLine(tmp_path)
    words = ["look", "--teacher", f"{weights}/teacher.safetensors", "--data", "digits", "--dataset", "digits"]
    for role, method in (("plain", "plain"), ("distilled", "kd")):
        words += [
            part for seed in (0, 1) for part in (f"--{role}", f"{weights}/small-{method}-l0.2-s{seed}.safetensors")
        ]
    words += ["--control", f"second-seed={weights}/small-second-seed-l0.2-s0.safetensors", "--projector", "pca"]
    places = ["--cache", str(line.cache), "--artifacts", str(line.artifacts), "--threads", "1", "--device", "cpu"]
    done = line.words(*words, *places)
    assert done.code == 0 and "kdpipe app --artifacts" in done.out, done.out + done.err
    study = load_study(line.artifacts / "look")
    assert study.networks["role"].to_list().count("plain") == 2 and "second-seed" in study.networks["method"].to_list()
    wrong = line.words(*words, *places, "--distilled", "nothing.safetensors")
    assert wrong.code == 2 and "there is no file" in wrong.err
