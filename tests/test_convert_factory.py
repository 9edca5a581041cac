"""``kdpipe convert --like my_models.py:build``: checkpoints of networks that timm does not have."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from kdpipe.cli.main import kdpipe
from kdpipe.errors import NetworkError
from kdpipe.models import convert, read_network
from kdpipe.models.checkpoints import complete

MODELS = """
from torch import nn

def build(width=4, num_classes=3):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, num_classes),
    )

def fixed():
    return build(6, 3)
"""
SAID = ("--mean", "0.4", "--std", "0.2", "--classes", "3", "--image-size", "12")


@pytest.fixture
def file(tmp_path):
    (tmp_path / "my models.py").write_text(MODELS)
    return tmp_path / "my models.py"


@pytest.fixture
def module(file) -> nn.Module:
    namespace: dict[str, object] = {}
    exec(MODELS, namespace)
    torch.manual_seed(0)
    return namespace["build"](6, 3)


def typed(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(kdpipe, ["convert", *map(str, words)])


def expected(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return module.eval()((images - 0.4) / 0.2)


@pytest.mark.parametrize(("function", "arguments"), [("build", ("--argument", "width=6")), ("fixed", ())])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_pickled_checkpoint_of_ones_own_network_gives_the_same_logits(
    function, arguments, prefix, file, module, tmp_path
):
    state = {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "best.pth")
    done = typed(tmp_path / "best.pth", "--like", f"{file}:{function}", *arguments, *SAID)
    assert done.exit_code == 0, done.output
    assert "6 of 6 tensors fit" in done.output and f'factory = "{file}:{function}"' in done.output
    assert f"For kdpipe look: {file}:{function}@{tmp_path / 'best.safetensors'}" in done.output
    images = torch.rand(4, 1, 12, 12)
    with torch.no_grad():
        logits = read_network(tmp_path / "best.safetensors")(images).logits
    assert torch.allclose(logits, expected(module, images), atol=1e-6)


def test_a_study_takes_arguments_and_scaling_from_the_file(file, module, tmp_path):
    torch.save(module.state_dict(), tmp_path / "best.pth")
    assert typed(tmp_path / "best.pth", "--like", f"{file}:build", "--argument", "width=6", *SAID).exit_code == 0
    section = {"factory": f"{file}:build", "checkpoint": str(tmp_path / "best.safetensors")}
    assert list(complete(section)) == [] and section["arguments"] == {"width": 6}


def test_what_nobody_else_knows_is_asked_for(file, module, tmp_path):
    torch.save(module.state_dict(), tmp_path / "best.pth")
    done = typed(tmp_path / "best.pth", "--like", f"{file}:build")
    assert done.exit_code == 1 and "give --mean, --std, --classes and --image-size" in str(done.exception)
    with pytest.raises(NetworkError, match="give the number of classes"):
        convert(tmp_path / "best.pth", factory=f"{file}:build")
    with pytest.raises(NetworkError, match="either a timm name"):
        convert(tmp_path / "best.pth", "resnet18", factory=f"{file}:build")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            (":build", "--argument", "width=5"),
            "does not fit my models.py:build: 4 of another shape|does not fit my models.py:build: 5 of another shape",
        ),
        ((":bild",), "bild"),
        ((":build", "--argument", "widht=6"), "widht"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_no_file(words, sentence, file, module, tmp_path):
    torch.save(module.state_dict(), tmp_path / "best.pth")
    function, *rest = words
    done = typed(tmp_path / "best.pth", "--like", f"{file}{function}", *rest, *SAID)
    assert done.exit_code != 0 and isinstance(done.exception, NetworkError)
    assert any(part in str(done.exception) for part in sentence.split("|")), done.exception
    assert not (tmp_path / "best.safetensors").exists()


def test_a_stem_of_timm_and_a_file_without_its_function_are_refused(file, module, tmp_path):
    torch.save(module.state_dict(), tmp_path / "best.pth")
    stem = typed(tmp_path / "best.pth", "--like", f"{file}:build", "--stem", "small", "--stem-stride", "1", *SAID)
    assert stem.exit_code == 1 and "makes its own stem" in str(stem.exception)
    alone = typed(tmp_path / "best.pth", "--like", file, *SAID)
    assert alone.exit_code == 1 and "my_models.py:build" in str(alone.exception)


def test_images_of_several_sizes_ask_for_the_option_that_the_command_has(file, module, tmp_path):
    torch.save(module.state_dict(), tmp_path / "best.pth")
    for name, side in (("a", 12), ("b", 14), ("c", 12)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("L", (side, side)).save(tmp_path / "photos" / name / "1.png")
    words = ("--like", f"{file}:fixed", "--mean", "0.4", "--std", "0.2", "--data", tmp_path / "photos")
    refused = typed(tmp_path / "best.pth", *words)
    assert refused.exit_code == 1 and "--image-size" in str(refused.exception)
    assert "of 3 test images" in typed(tmp_path / "best.pth", *words, "--image-size", "12").output
