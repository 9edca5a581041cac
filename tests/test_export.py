"""``kdpipe export`` as a user types it, on a study that really ran: what comes out answers as the network does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from kdpipe.artifacts.store import load_study
from kdpipe.config.vector_sheet import read_sheet, sources_of
from kdpipe.errors import NetworkError
from kdpipe.models import read_network
from kdpipe.models.network import Network, ReusedHead
from kdpipe.models.saved import SavedArchitecture, write_network
from kdpipe.models.timm_models import timm_model
from kdpipe.models.weights import give_head, read_header
from kdpipe.pipeline.delivery.chosen import Chosen
from kdpipe.pipeline.delivery.onnx_file import Deployed, agreement, make_onnx
from kdpipe.pipeline.delivery.state_dict import by_timm, loading_lines, write_state
from kdpipe.vectors.gather import gather
from kdpipe.vectors.store import open_vectors, write_store

onnxruntime = pytest.importorskip("onnxruntime")
KD = "small-kd-l0.2-s0"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def export(finished):
    def typed(*words: object) -> SimpleNamespace:
        places = ["--cache", finished.cache, "--artifacts", finished.artifacts, "--weights", finished.weights]
        return finished.words("export", *map(str, [*words, *places]))

    return typed


@pytest.fixture(scope="module")
def study(finished):
    return load_study("tiny", finished.artifacts)


def saved(tmp_path, *, image_size=None, head=False, stem="small", arguments=None):
    """A small untrained network, written and read as a study's are."""
    spec = SavedArchitecture(
        "resnet18", arguments or {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}, stem, 1, "all"
    )
    model, indices, names = timm_model(spec, (3, 16, 16), 5, 0, weights=False)
    for module in model.modules():  # new batch norms do nothing, and could be lost unseen
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    network = Network(model, indices, names, [0.4, 0.5, 0.6], [0.2, 0.3, 0.25], image_size)
    if head:
        give_head(network, ReusedHead(8, (2, 2), 12, 5))
    path = tmp_path / "network.safetensors"
    write_network(path, network.eval(), spec, (3, 16, 16), 5)
    return Chosen("one", {}, read_network(path), read_header(path), tuple("abcde"))


IMAGES = torch.randint(0, 256, (7, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def logits_of(network, images):
    with torch.no_grad():
        return network(images.float() / 255).logits.numpy()


# ------------------------------------------------------------------------------- ONNX


def test_onnx_answers_as_torch_from_floats_in_batches_of_any_size(export, finished, tmp_path):
    done = export("tiny", KD, "--onnx", tmp_path / "student.onnx")
    assert done.code == 0, done.err
    assert "opset 18" in done.out and "differ from torch's by" in done.out
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx")
    network = read_network(finished.weights / "tiny" / f"{KD}.safetensors")
    for size in (1, 3, 8):
        images = torch.rand(size, 1, 8, 8, generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            expected = network(images).logits.numpy()
        (answers,) = session.run(["logits"], {"images": images.numpy()})
        np.testing.assert_allclose(answers, expected, atol=1e-4)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["class_names"]) == list("0123456789") and said["network_id"] == KD


@pytest.mark.parametrize("head", [False, True], ids=["own head", "reused head"])
def test_onnx_takes_bytes_and_resizes_as_the_network_does(tmp_path, head):
    chosen = saved(tmp_path, image_size=24, head=head)
    made = make_onnx(chosen, IMAGES, {}, "uint8")
    session = onnxruntime.InferenceSession(made.content)
    assert session.get_inputs()[0].type == "tensor(uint8)"
    (answers,) = session.run(["logits"], {"images": IMAGES.numpy()})
    np.testing.assert_allclose(answers, logits_of(chosen.network, IMAGES), atol=1e-4)
    assert made.difference < 1e-4 and made.norms == 0


@pytest.mark.parametrize("side", [8, 16, 23, 40])
def test_resizing_by_two_products_is_torchs_own(tmp_path, side):
    chosen = saved(tmp_path, image_size=side)
    deployed = Deployed(chosen.network, (3, 16, 16), "float")
    images = IMAGES.float() / 255
    expected = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    assert torch.allclose(deployed.rows @ images @ deployed.columns.T, expected, atol=1e-5)


def test_an_export_that_answers_differently_is_refused():
    expected = np.array([[2.0, 1.0], [0.0, 3.0]], np.float32)
    assert agreement(expected + 1e-4, expected, "one") == pytest.approx(1e-4, rel=0.01)
    for wrong in (expected[:, ::-1], expected * 1.1, expected * np.nan):
        with pytest.raises(NetworkError, match="nothing was written"):
            agreement(wrong, expected, "one")


# ------------------------------------------------------------------------------- safetensors


@pytest.mark.parametrize("stem", ["small", "default"])
@pytest.mark.parametrize("image_size", [None, 24])
def test_the_lines_load_the_weights_with_timm_alone(tmp_path, monkeypatch, stem, image_size):
    chosen = saved(tmp_path, stem=stem, image_size=image_size)
    write_state(tmp_path / "out.safetensors", chosen, IMAGES, {})
    assert by_timm(chosen)
    lines = loading_lines(chosen, "out.safetensors")
    assert not any("kdpipe" in line for line in lines)
    monkeypatch.chdir(tmp_path)
    names = {"images": IMAGES.float() / 255}
    with torch.no_grad():
        exec("\n".join(lines), names)  # what a reader of the card would type
    np.testing.assert_allclose(names["logits"].numpy(), logits_of(chosen.network, IMAGES), atol=1e-5)


def test_a_student_with_its_teachers_classifier_loads_without_its_teacher(tmp_path, monkeypatch):
    chosen = saved(tmp_path, head=True)
    write_state(tmp_path / "out.safetensors", chosen, IMAGES, {"study": "s"})
    monkeypatch.chdir(tmp_path)
    names = {"images": IMAGES.float() / 255}
    with torch.no_grad():
        exec("\n".join(loading_lines(chosen, "out.safetensors")), names)
    assert (names["logits"].numpy() == logits_of(chosen.network, IMAGES)).all()
    assert not by_timm(chosen) and any(name.startswith("reused_head.") for name in load_file("out.safetensors"))


# ------------------------------------------------------------------------------- the card


def test_the_cards_numbers_are_the_studys(export, study, tmp_path):
    done = export("tiny", KD, "--card", tmp_path / "README.md", "--safetensors", tmp_path / "s.safetensors")
    assert done.code == 0, done.err
    card = (tmp_path / "README.md").read_text()
    head = dict(line.split(": ", 1) for line in card.split("---")[1].strip().splitlines())
    row = study.networks.row(by_predicate=pl.col("network_id") == KD, named=True)
    (result,) = json.loads(head["model-index"])[0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(row["test_accuracy"], abs=1e-6)
    ece = study.frame("network_measures", network_id=KD, measure="ece")["value"].item()
    assert f"| **this network** | {ece:.3f} |" in card
    assert f"| **this network** | {100 * row['test_accuracy']:.4g} % |" in card
    lost = study.frame("slices", student="small", method_label="kd", seed=0, marked=True)
    lost = lost.filter(pl.col("difference") < 0, pl.col("kind") != "all")
    shown = re.findall(r"^\| .* \| \d+ \| [\d.]+ % \| [\d.]+ % \| ", card, re.MULTILINE)
    assert len(shown) == sum(min(8, n) for n in lost.group_by("replaces").len()["len"])
    for said in ("Optical digits", "CC BY 4.0", f"{row['params']:,} parameters", "Hinton", study.hash, "226 labelled"):
        assert said in card


def test_every_network_has_a_card(export, study, tmp_path):
    for name in study.networks.filter(pl.col("network_id") != "pixels")["network_id"]:
        done = export("tiny", name, "--card", tmp_path / f"{name}.md")
        assert done.code == 0, done.err
        text = (tmp_path / f"{name}.md").read_text()
        assert f"# {name}\n" in text and "None" not in text and "nan" not in text


# ------------------------------------------------------------------------------- vectors and maps


def test_vectors_go_out_and_come_in_again(export, finished, study, tmp_path):
    done = export(finished.study, "--vectors", tmp_path / "out")
    assert done.code == 0, done.err
    sheet = read_sheet(tmp_path / "out" / "projection.toml")
    samples, networks = gather([], sources=sources_of(sheet, tmp_path / "out"), class_names=sheet.class_names)
    store = write_store(tmp_path / "again.vectors", samples, networks)
    labels = study.frame("samples").sort("sample_id")["label"].to_list()
    assert store.samples.labels[: len(labels)].tolist() == labels and not store.samples.reference[: len(labels)].any()
    assert store.samples.reference[len(labels) :].all() and list(store.class_names) == list("0123456789")
    found = next(network for network in store.networks if network.record.name == KD)
    assert (found.record.role, found.record.method, found.layers) == ("distilled", "kd", ("layer1", "layer3"))
    logits = study.frame("predictions", network_id=KD).sort("sample_id")["logits"].to_list()
    answers = store.logits(found)
    np.testing.assert_array_equal(answers[: len(labels)], np.array(logits, np.float32))
    assert np.isnan(answers[len(labels) :]).all()
    wide = pl.read_parquet(tmp_path / "out" / "projection" / f"{KD}.parquet")
    np.testing.assert_array_equal(store.vectors(found, 1), np.array(wide["layer3"].to_list(), np.float32))
    twice = write_store(tmp_path / "twice.vectors", *gather([tmp_path / "again.vectors"]))  # a store is taken in too
    np.testing.assert_array_equal(twice.logits(open_vectors(twice.folder).networks[found.index]), answers)


def test_maps_go_out_with_labels(export, finished, study, tmp_path):
    assert export(finished.study, "--vectors", tmp_path / "out").code == 0
    maps = pl.read_parquet(tmp_path / "out" / "maps.parquet")
    assert maps.height == study.frame("maps").height and maps["class_name"].null_count() == 0
    assert (maps["class_name"] == maps["label"].cast(pl.String)).all()


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny", "small-kd-l0.2-s9", "--card", "c.md"], "did you mean 'small-kd-l0.2-s1'"),
        (["tiny", "--card", "c.md"], "which network"),
        (["tinny", KD, "--card", "c.md"], "did you mean 'tiny'"),
        (["tiny", KD], "Say what to write"),
        (["tiny", KD, "--onnx", "c.md"], "must end in .onnx"),
        (["tiny", "--vectors", "new"], "needs the study file"),
        (["tiny", "pixels", "--card", "c.md"], "there is no network 'pixels'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence_and_nothing_is_written(export, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    done = export(*words)
    assert done.code and said in done.err and done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_there_are_named_and_no_card_is_written(finished, tmp_path):
    words = ["export", "tiny", KD, "--safetensors", tmp_path / "s.safetensors", "--card", tmp_path / "c.md"]
    done = finished.words(*map(str, [*words, "--artifacts", finished.artifacts, "--weights", tmp_path / "none"]))
    assert done.code == 2 and f"the weights of {KD} are not there" in done.err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(export, finished, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = export(finished.study, "--vectors", tmp_path)
    assert done.code and "is not empty" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_export_is_a_command_of_the_real_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "kdpipe", "export", "--help"], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 0 and "--safetensors" in done.stdout
