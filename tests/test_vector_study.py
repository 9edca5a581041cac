"""A study of vectors alone: measured as they are, judged, shown on every page, and honest about what they lack."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from app_pages import ROOT, show
from click.testing import CliRunner

import kdpipe
from kdpipe.app.shared import catalog
from kdpipe.app.shell.images import data_uri, strip
from kdpipe.app.study import provenance
from kdpipe.cli.main import kdpipe as command_line
from kdpipe.measures import silhouette_samples
from kdpipe.vectors.store import open_vectors

N, CLASSES, SEEDS = 80, 3, (0, 1)
IDS = [f"text-{i:02d}" for i in range(N)]
LABELS = np.arange(N) % CLASSES
GAPS = {"plain": 0.5, "kd-distilled": 2.0}
NETWORKS = {"teacher": 3.0, **{f"{role}-s{seed}": gap for seed in SEEDS for role, gap in GAPS.items()}}
SHORT = (
    'measures.names=["silhouette","knn_accuracy","cka","linear_probe","dark_knowledge","ece"]', "measures.k=5",
    "measures.second_k=3", 'maps.projectors=["pca"]', "evidence.resamples=200",
)  # fmt: skip


def layers(name: str, gap: float, logits: bool) -> dict[str, np.ndarray]:
    """Three layers whose classes lie further apart the deeper they are, by up to ``gap``."""
    draws = np.random.default_rng(sum(map(ord, name)))
    centres = draws.normal(size=(CLASSES, 8))
    made = {f"layer{i}": draws.normal(size=(N, 8)) + gap * i / 3 * centres[LABELS] for i in (1, 2, 3)}
    return made | ({"logits": draws.normal(size=(N, CLASSES)) + gap * np.eye(CLASSES)[LABELS]} if logits else {})


def typed(folder: Path, *words: str) -> SimpleNamespace:
    places = [part for name in ("cache", "artifacts", "weights") for part in (f"--{name}", str(folder / name))]
    return CliRunner().invoke(command_line, [*words, *places], catch_exceptions=False)


def look(folder: Path) -> SimpleNamespace:
    return typed(folder, "run", str(folder / "words.toml"), *SHORT, "--data-root", str(folder), "--device", "cpu")


def made(folder: Path, *, logits: bool, **more) -> Path:
    """A study of these networks, by the real command line; its folder."""
    given = {name: layers(name, gap, logits) for name, gap in NETWORKS.items()}
    kdpipe.write_vectors(folder / "given", given, labels=LABELS, ids=IDS, **more)
    done = typed(folder, "import", str(folder / "given.vectors"), "--name", "words", "--to", str(folder), "--no-run")
    assert done.exit_code == 0, done.output
    done = look(folder)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors with labels and texts, and nothing else."""
    return made(tmp_path_factory.mktemp("bare"), logits=False, texts=[f"what {one} says" for one in IDS])


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors with logits, images and samples to fit probes on."""
    images = np.random.default_rng(0).integers(0, 255, (N, 8, 8, 3), dtype=np.uint8)
    split = ["reference" if i % 4 == 3 else "probe" for i in range(N)]
    return made(tmp_path_factory.mktemp("rich"), logits=True, images=images, split=split)


def test_a_layer_s_measure_is_that_of_the_vectors_that_were_given(bare):
    study = kdpipe.load_study("words", bare / "artifacts")
    row = study.frame("layer_measures", network_id="student-kd-l1-s1", layer="layer2", view="gap", measure="silhouette")
    X = layers("kd-distilled-s1", 2.0, False)["layer2"].astype(np.float16).astype(np.float64)
    of_class = [silhouette_samples(X, LABELS)[label == LABELS].mean() for label in range(CLASSES)]
    assert row["value"].item() == pytest.approx(np.mean(of_class), abs=1e-5)


def test_samples_keep_their_ids_texts_and_labels(bare):
    samples = kdpipe.load_study("words", bare / "artifacts").samples
    said = [image.decode().split("\n") for image in samples["image"]]
    assert sorted(name for name, _ in said) == sorted(IDS)
    assert all(text == f"what {name} says" for name, text in said)
    labels = dict(zip(IDS, LABELS.tolist(), strict=True))
    assert [labels[name] for name, _ in said] == samples["label"].to_list()


def test_what_is_lacking_is_said_and_nothing_is_made_of_it(bare, rich):
    study = kdpipe.load_study("words", bare / "artifacts")
    assert set(study.record["lacking"]) == {"images", "networks", "reference", "logits"}
    assert study.record["missing"] == {}
    assert study.predictions.is_empty() and study.flips.is_empty() and study.factors.is_empty()
    assert set(study.layer_measures["measure"]) == {"silhouette", "knn_accuracy"}
    assert study.samples["brightness"].null_count() == N
    study = kdpipe.load_study("words", rich / "artifacts")
    assert set(study.record["lacking"]) == {"networks"} and study.record["missing"] == {}
    assert set(study.layer_measures["measure"]) == {"silhouette", "knn_accuracy", "linear_probe", "dark_knowledge"}
    assert "pixels" in study.networks["network_id"] and study.samples.height == 60
    assert set(study.predictions["network_id"]) == set(study.networks["network_id"]) - {"pixels"}


def test_a_study_without_answers_is_judged_by_its_layers_alone(bare, rich):
    def claims(folder):
        return set(kdpipe.load_study("words", folder / "artifacts").verdicts["claim"])

    assert {"compact", "earlier"} <= claims(bare) and "accurate" not in claims(bare)
    assert {"compact", "earlier", "accurate"} <= claims(rich)


def test_accuracy_is_that_of_the_logits(rich):
    networks = kdpipe.load_study("words", rich / "artifacts").networks
    rows = np.arange(N) % 4 != 3
    right = layers("kd-distilled-s0", 2.0, True)["logits"].astype(np.float32).argmax(1) == LABELS
    found = networks.filter(pl.col("network_id") == "student-kd-l1-s0")["test_accuracy"].item()
    assert found == pytest.approx(right[rows].mean())


def test_vectors_that_change_are_measured_anew_and_no_others(bare, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(bare, folder)
    given = {name: layers(name, gap, False) for name, gap in NETWORKS.items()}
    given["plain-s1"]["layer1"] = given["plain-s1"]["layer1"] + 1.0
    texts = [f"what {one} says" for one in IDS]
    kdpipe.write_vectors(folder / "words", given, labels=LABELS, ids=IDS, texts=texts)
    before = {path.name for path in (folder / "cache").rglob("embedding/*")}
    done = look(folder)
    assert done.exit_code == 0, done.output
    after = {path.name for path in (folder / "cache").rglob("embedding/*")}
    assert len(before) == len(NETWORKS) and len(after - before) == 1


def test_a_network_that_the_folder_lacks_is_named_with_its_place(bare, tmp_path):
    shutil.copytree(bare / "words.vectors", tmp_path / "words.vectors")
    text = (bare / "words.toml").read_text().replace('vectors = "plain-s1"', 'vectors = "plain-s2"')
    (tmp_path / "words.toml").write_text(text)
    done = CliRunner().invoke(command_line, ["validate", str(tmp_path / "words.toml"), "--data-root", str(tmp_path)])
    assert "there is no network 'plain-s2'" in str(done.exception) and "networks.3.vectors" in str(done.exception)


@pytest.mark.parametrize("page", ["Home.py", *sorted(f"pages/{path.name}" for path in (ROOT / "pages").glob("*.py"))])
@pytest.mark.parametrize("which", ["bare", "rich"])
def test_every_page_opens_and_says_what_is_lacking(page, which, request, monkeypatch, fresh_cache):
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(request.getfixturevalue(which) / "artifacts"))
    app = show(page, study="words")
    assert not app.error, [error.value for error in app.error]
    said = " ".join(info.value for info in app.sidebar.info)
    assert "A study of vectors" in said and ("No logits" in said) == (which == "bare")


@pytest.mark.parametrize("page", ["pages/4_Methods.py", "pages/8_Sample.py"])
def test_without_logits_no_answer_is_spoken_of(bare, page, monkeypatch, fresh_cache):
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(bare / "artifacts"))
    app = show(page, study="words")
    said = [element.value for kind in (app.caption, app.text, app.info) for element in kind]
    assert sum("No logits of any network" in words for words in said) >= 2
    assert not [words for words in said if "Test accuracy at the last step" in words or "0 of 0 networks" in words]
    assert not [words for words in said if "no student here has a plain one" in words]


def test_parameters_that_nobody_knows_are_not_0(bare):
    networks = catalog.networks(kdpipe.load_study(bare / "artifacts" / "words"))
    assert provenance.by_role(networks)["parameters"].null_count() == 3


def test_networks_before_the_first_step_are_called_so(tmp_path):
    given = {name: layers(name, 1.0, False) for name in ("teacher", "plain-step0", "plain", "kd-distilled")}
    kdpipe.write_vectors(tmp_path / "words", given, labels=LABELS, ids=IDS)
    words = ("import", str(tmp_path / "words.vectors"), "--name", "words", "--to", str(tmp_path), "--no-run")
    assert typed(tmp_path, *words).exit_code == 0
    assert "plain at step 0" in look(tmp_path).output


def test_a_text_is_shown_as_letters_and_never_as_markup():
    html = strip([(b"id-1\n<script>alert(1)</script>", "caption", "#fff")])
    assert html.startswith('<div class="kd-strip"><figure><img src="data:image/svg+xml;base64,')
    assert "<script" not in html and 'title="id-1: &lt;script&gt;' in html
    svg = base64.b64decode(data_uri(b"id-1\n<script>alert(1)</script>").partition(",")[2]).decode()
    assert "<script" not in svg and "&lt;script" in svg
    for strange in (b"", b"\x89PNG\r\n", b"\xff\xfe", b"\x00"):
        assert data_uri(strange).startswith("data:image/gif")


def test_a_study_s_file_names_all_networks_of_its_folder(bare):
    store = open_vectors(bare / "words.vectors")
    text = (bare / "words.toml").read_text()
    assert all(f'vectors = "{network.record.name}"' in text for network in store.networks)
    assert json.loads((bare / "artifacts" / "words" / "study.json").read_text())["data"]["image_shape"] == []


def test_an_import_that_keeps_a_study_s_file_says_which_networks_it_leaves_out(tmp_path):
    def imported(*names: str) -> str:
        given = {name: layers(name, 1.0, False) for name in ("teacher", *names)}
        kdpipe.write_vectors(tmp_path / "words", given, labels=LABELS, ids=IDS)
        words = ("import", str(tmp_path / "words.vectors"), "--name", "words", "--to", str(tmp_path), "--no-run")
        return " ".join(typed(tmp_path, *words).output.split())

    assert "already" not in imported("plain-s0")
    again = imported("plain-s0")
    assert "is kept as it is." in again and "does not look at" not in again
    more = imported("plain-s0", "plain-s1", "kd-distilled-s1")
    assert "does not look at kd-distilled-s1, plain-s1: add a [[networks]] section" in more
    (tmp_path / "words.toml").write_text("not = = TOML")
    assert "does not look at kd-distilled-s1, plain-s0, plain-s1, teacher:" in imported(
        "plain-s0", "plain-s1", "kd-distilled-s1"
    )


def test_what_an_import_understood_is_told_in_whole_words_on_a_narrow_screen(tmp_path):
    given = {name: layers(name, 1.0, True) for name in ("teacher", "plain-s0", "kd-distilled-s0")}
    kdpipe.write_vectors(tmp_path / "words", given, labels=LABELS, ids=IDS)
    words = ("import", str(tmp_path / "words.vectors"), "--name", "words", "--to", str(tmp_path), "--no-run")
    said = typed(tmp_path, *words).output
    assert "…" not in said and "kd-distilled-s0" in said and "step" not in said
    assert said.count("layer1, layer2,") == said.count("│ logits ") == len(given)
