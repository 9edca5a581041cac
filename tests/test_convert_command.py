"""``kdpipe convert``: what it prints and writes, what it proves on images, and which studies name it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from checkpoint_files import (
    ARGUMENTS,
    STUDY,
    SWIN,
    a_resnet,
    an_older_swin,
    checked,
    converted,
    lightning,
    prefixed,
    tried,
)
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import Tensor, nn

from kdpipe.cli.main import kdpipe
from kdpipe.cli.trial import TrialImages, try_on
from kdpipe.data.sources import Split
from kdpipe.errors import NetworkError, StudyError
from kdpipe.models import Scaling, read_network


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return a_resnet()


@pytest.fixture
def state(model) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def typed(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(kdpipe, ["convert", *map(str, words)])


LIKE = (
    "--like",
    "resnet18",
    "--image-size",
    "32",
    "--argument",
    "channels=[8,8,16,16]",
    "--argument",
    "layers=[1,1,1,1]",
)


def test_the_command_prints_lines_that_a_study_takes(tmp_path):
    model = tried(timm.create_model("resnet18", num_classes=10, **ARGUMENTS))
    torch.save(lightning(model.state_dict()), tmp_path / "best.ckpt")
    done = typed(tmp_path / "best.ckpt", *LIKE, "--mean", "0.5,0.4,0.3", "--std", "0.2,0.2,0.1")
    assert done.exit_code == 0, done.output
    assert "weights from 'state_dict.model'" in done.output and "67 of 67 tensors fit" in done.output
    written = tmp_path / "best.safetensors"
    lines = done.output[done.output.index("[teacher]") :]
    assert f'checkpoint = "{written}"' in lines
    checked(lines, tmp_path)
    network = read_network(written)
    assert network.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(network(images).logits, model((images - network.mean) / network.std), atol=1e-5)


def test_the_command_shows_what_does_not_fit_beside_what_it_may_be(state, tmp_path):
    state["layer2.0.convolution1.weight"] = state.pop("layer2.0.conv1.weight")
    torch.save(state, tmp_path / "x.pth")
    done = typed(tmp_path / "x.pth", *LIKE)
    assert isinstance(done.exception, NetworkError) and "does not fit resnet18" in str(done.exception)
    assert "66 of 67 tensors fit, 1 missing, 0 of another shape, 1 left over" in done.output
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.output.splitlines() if "│" in line]
    assert rows == [
        ["missing", "layer2.0.conv1.weight", "(8, 8, 3, 3)", "layer2.0.convolution1.weight (8, 8, 3, 3) in the file"],
        [
            "left over",
            "layer2.0.convolution1.weight",
            "(8, 8, 3, 3)",
            "layer2.0.conv1.weight (8, 8, 3, 3) in the network",
        ],
    ]
    assert list(tmp_path.iterdir()) == [tmp_path / "x.pth"]


def test_no_file_is_written_over_by_chance(state, tmp_path):
    torch.save(state, tmp_path / "x.pth.tar")
    assert typed(tmp_path / "x.pth.tar", *LIKE).exit_code == 0
    before = (tmp_path / "x.safetensors").read_bytes()
    assert "is there already; name the file" in str(typed(tmp_path / "x.pth.tar", *LIKE).exception)
    again = typed(tmp_path / "x.safetensors", *LIKE, "--output", tmp_path / "x.safetensors")
    assert "is the file that is read" in str(again.exception)
    assert "must end in .safetensors" in str(
        typed(tmp_path / "x.pth.tar", *LIKE, "--output", tmp_path / "x.pth").exception
    )
    assert (tmp_path / "x.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stem", "small"), "a small stem has stride 1 or 2, which no tensor tells"),
        (("--mean", "0.5,0.5,0.5"), "--mean and --std belong together"),
        (("--argument", "img_size"), "write it as NAME=VALUE"),
        (("--argument", "pretrained_cfg='x'"), "makes timm load weights by itself"),
    ],
)
def test_options_that_do_not_go_together(words, said, state, tmp_path):
    torch.save(state, tmp_path / "x.pth")
    assert said in str(typed(tmp_path / "x.pth", *LIKE, *words).exception)


def test_the_accuracy_is_that_of_the_scaling_and_a_better_one_is_named(state, tmp_path):
    state["fc.weight"] = 3 * state["fc.weight"] / state["fc.weight"].std()
    torch.save(state, tmp_path / "x.pth")
    known = Scaling((0.0,) * 3, (1.0,) * 3)
    right = converted(tmp_path / "x.pth", scaling=known)
    pictures = np.random.default_rng(0).integers(0, 256, (60, 3, 1, 1)) * np.ones((1, 1, 16, 16))
    pictures = pictures.astype(np.uint8)
    with torch.no_grad():
        labels = right.network(torch.tensor(pictures).float() / 255).logits.argmax(1).numpy()
    assert len(set(labels)) > 1
    images = TrialImages(Split(pictures, labels), ["a", "b", "c", "d", "e"])
    trial = try_on(right, images, "cpu")
    assert trial.top1 == 1.0 and trial.better is None and str(trial) == "top-1 accuracy: 100.00 % of 60 test images."
    wrong = converted(tmp_path / "x.pth", scaling=Scaling((0.9,) * 3, (0.01,) * 3))
    trial = try_on(wrong, images, "cpu")
    assert trial.top1 < 0.95 and trial.better is not None and trial.better[0].mean == known.mean
    assert "with --mean 0,0,0 --std 1,1,1 (none at all) 100.0 % of some of them" in str(trial)
    assert wrong.network.mean.flatten().tolist() == pytest.approx([0.9] * 3)  # what is written is what was asked for
    with pytest.raises(NetworkError, match="tells 5 classes apart and the images have 2"):
        try_on(right, TrialImages(images.split, ["a", "b"]), "cpu")
    with pytest.raises(NetworkError, match="the images have 1 channels and the network takes 3"):
        try_on(right, TrialImages(Split(pictures[:, :1], labels), images.class_names), "cpu")


def test_a_study_that_waits_for_the_file_lends_its_test_images(tmp_path):
    model = tried(timm.create_model("resnet18", num_classes=10, **ARGUMENTS))
    torch.save(model.state_dict(), tmp_path / "x.pth")
    (tmp_path / "tiny.toml").write_text(STUDY % f'[teacher]\ncheckpoint = "{tmp_path / "x.safetensors"}"')
    done = typed(tmp_path / "x.pth", *LIKE, "--data", tmp_path / "tiny.toml")
    assert done.exit_code == 0, done.output
    assert "of 539 test images" in done.output and "images of 32 x 32" in done.output


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_a_study_that_names_a_wrapped_file_is_told_the_command(prefix, state, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(prefixed(prefix, state), path)
    lines = (
        f'[teacher]\narch = "resnet18"\narguments = {json.dumps(ARGUMENTS).replace(":", " =")}\ncheckpoint = "{path}"'
    )
    with pytest.raises(StudyError) as error:
        checked(lines.replace('"channels"', "channels").replace('"layers"', "layers"), tmp_path)
    said = (
        f"all its names begin with {prefix!r}, which `kdpipe convert {path} --like resnet18 --output FILE` takes off."
    )
    assert said in str(error.value)


def test_a_study_that_names_an_older_file_is_told_the_command(tmp_path):
    save_file(an_older_swin()[1], tmp_path / "old.safetensors")
    arguments = ", ".join(f"{name} = {json.dumps(value)}" for name, value in SWIN.items())
    with pytest.raises(StudyError, match=r"names of another program `kdpipe convert .*old\.safetensors --like swin"):
        checked(
            f'[teacher]\narch = "swin_tiny_patch4_window7_224"\narguments = {{ {arguments} }}\n'
            f'checkpoint = "{tmp_path / "old.safetensors"}"',
            tmp_path,
        )
