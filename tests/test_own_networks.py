"""Networks of users' own files, folders and programs: built, saved, and read back only where somebody named them."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kdpipe.config.sections import ArchSpec, NetworkSpec, StudentSpec, TeacherSpec
from kdpipe.config.study_file import read_study
from kdpipe.errors import NetworkError, StudyError
from kdpipe.models.build import build
from kdpipe.models.factories import identity, make, register_module, title
from kdpipe.models.origins import contents, origin_of, places
from kdpipe.models.saved import read_network, write_network

SHAPE = {"image_shape": (3, 16, 16), "classes": 5, "mean": [0.5] * 3, "std": [0.5] * 3}
CODE = """
from pathlib import Path
from torch import nn

(Path(__file__).parent / "executed").touch()


class Net(nn.Module):
    def __init__(self, width, num_classes):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, width, 4, 4), nn.LazyConv2d(width, 1)
        self.norm, self.fc = nn.BatchNorm2d(width), nn.Linear(width, num_classes)
        self.second.weight  # lazy: its shape comes with the first images

    def forward(self, x):
        return self.fc(self.norm(self.second(self.first(x))).mean((2, 3)))


def build(num_classes, width=6):
    return Net(width, num_classes)


def broken():
    return 1 / 0


number = 3


def no_network():
    return "net"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_models.py"
    path.write_text(CODE)
    return path


def own(file, seed=0, **more):
    return build(ArchSpec(factory=f"{file}:build", **more), **SHAPE, seed=seed)


def images(count=3):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def same(one, other):
    with torch.no_grad():
        a, b = one(images()), other(images())
    return torch.equal(a.logits, b.logits) and all(torch.equal(x, y) for x, y in zip(a.maps, b.maps, strict=True))


# ---------------------------------------------------------------------------------------- factories


def test_a_seed_is_a_network_of_a_factory_and_its_arguments_count(file):
    assert same(own(file, seed=1), own(file, seed=1)) and not same(own(file, seed=1), own(file, seed=2))
    assert own(file, arguments={"width": 9})(images()).maps[0].shape[1] == 9
    assert own(file).names == ["first", "norm"]


def test_a_factory_is_its_content_and_not_its_place(file, tmp_path):
    moved = tmp_path / "elsewhere.py"
    shutil.copy(file, moved)
    first, second = f"{file}:build", f"{moved}:build"
    assert identity(first) == identity(second) != identity(f"{file}:broken")
    assert (title(first), title(second)) == ("my_models.py:build", "elsewhere.py:build")
    moved.write_text(CODE + "\n")
    assert identity(first) != identity(second)


@pytest.mark.parametrize(
    ("reference", "arguments", "said"),
    [
        ("my_models.py:biuld", {}, "my_models.py has no function 'biuld', did you mean 'build'"),
        ("my_models.py:number", {}, "my_models.py has no function 'number'"),
        ("my_models.py:broken", {}, r"my_models.py, line 24: ZeroDivisionError: division by zero"),
        ("my_models.py:no_network", {}, "'no_network' of my_models.py returns a str, no nn.Module"),
        (
            "my_models.py:build",
            {"depth": 3},
            "my_models.py: TypeError: build.. got an unexpected keyword",
        ),
        ("nowhere.py:build", {}, "there is no file .*nowhere.py; relative paths start from the study file"),
        ("my_models.py", {}, "'.*my_models.py' names no function of a file; write it as my_models.py:build"),
        ("my_models:build", {}, "'.*my_models:build' names no function of a file"),
    ],
)
def test_a_factory_that_cannot_be_used_is_one_sentence(file, reference, arguments, said):
    with pytest.raises(NetworkError, match=f"factory: {said}") as error:
        make(f"{file.parent}/{reference}", arguments, 5)
    assert len(str(error.value).splitlines()) == 1


def test_a_file_with_a_mistake_is_named_with_its_line(file):
    file.write_text("def build(:\n")
    with pytest.raises(NetworkError, match=r"factory: .*my_models.py, line 1: not valid Python"):
        own(file)


# -------------------------------------------------------------------------------------- live modules


def test_a_module_of_a_program_is_known_by_all_that_it_answers_by():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU())
    strided = nn.Sequential(nn.Conv2d(3, 4, 3, stride=1), nn.ReLU())
    strided.load_state_dict(first.state_dict())
    other = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.GELU())
    other.load_state_dict(first.state_dict())
    again = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU())
    again.load_state_dict(first.state_dict())
    names = [register_module(module) for module in (first, strided, other, again)]
    assert names[0] == names[3] and len(set(names)) == 3
    with torch.no_grad():
        first[0].bias[0] += 1e-6
    assert register_module(first) != names[0] and register_module(first.eval()) == register_module(first.train())


def test_a_registered_module_is_a_copy_that_training_leaves_alone():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Conv2d(4, 4, 2), nn.Flatten(), nn.Linear(36, 5))
    spec = ArchSpec(factory=register_module(module))
    one, two = (build(spec, **SHAPE, seed=seed) for seed in (0, 1))
    assert same(one, two)
    with torch.no_grad():
        module[0].weight.zero_()
        two.model[0].weight.zero_()
    assert same(one, build(spec, **SHAPE, seed=0)) and not same(one, two)


# -------------------------------------------------------------------------------------------- saved


def test_a_factory_s_network_comes_back_bit_for_bit(file, tmp_path):
    spec = ArchSpec(factory=f"{file}:build", arguments={"width": 7}, mean=[0.1] * 3, std=[0.4] * 3, image_size=24)
    network = build(spec, **SHAPE, seed=4)
    network.train()(images())  # BatchNorm's statistics move
    write_network(tmp_path / "n.safetensors", network.eval(), spec, (3, 16, 16), 5)
    back = read_network(tmp_path / "n.safetensors")
    assert same(network, back) and back.names == network.names and back.image_size == 24
    assert str(tmp_path).encode() not in (tmp_path / "n.safetensors").read_bytes()
    again = build(
        ArchSpec(factory=f"{file}:build", arguments={"width": 7}, checkpoint=f"{tmp_path}/n.safetensors"),
        **SHAPE,
        seed=9,
    )
    assert same(network, again)


@pytest.mark.parametrize("place", ["sha256", "path"])
def test_no_code_runs_that_nobody_named(file, tmp_path, place):
    """Not even if a weights file says where it lies."""
    file.write_text(f"# {tmp_path}\n{CODE}")  # a file of which nobody spoke
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    factory = f"sha256:{digest}:build" if place == "sha256" else f"{file}:build"
    header = {"factory": factory, "arguments": {}, "stem": "default", "stem_stride": 2, "layers": ["first", "norm"]}
    header |= {"image_shape": [3, 16, 16], "classes": 5, "mean": [0.5] * 3, "std": [0.5] * 3}
    save_file({"x": torch.zeros(1)}, tmp_path / "n.safetensors", {"kdpipe": json.dumps(header)})
    said = "that nobody named here, so it is not executed" if place == "sha256" else "not a network that kdpipe wrote"
    with pytest.raises(NetworkError, match=said) as error:
        read_network(tmp_path / "n.safetensors")
    assert len(str(error.value).splitlines()) == 1 and not (tmp_path / "executed").exists()


def test_tied_weights_and_buffers_that_are_no_floats_are_saved(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 5, 4, 4)
            self.second.weight = self.first.weight
            self.register_buffer("order", torch.tensor([2, 0, 1]))
            self.register_buffer("mask", torch.tensor([True, False, True]))

        def forward(self, x):
            return self.third(self.second(self.first(x)[:, self.order]) * self.mask[:, None, None]).mean((2, 3))

    torch.manual_seed(0)
    spec = ArchSpec(factory=register_module(Tied()), layers=["first", "second"])
    network = build(spec, **SHAPE, seed=0)
    write_network(tmp_path / "n.safetensors", network, spec, (3, 16, 16), 5)
    assert same(network, read_network(tmp_path / "n.safetensors"))


def test_weights_under_other_names_are_refused_with_the_closest(file, tmp_path):
    state = {name.replace("first", "frist"): tensor for name, tensor in own(file).model.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(NetworkError, match=r"lacks first.weight and has frist.weight"):
        own(file, checkpoint=f"{tmp_path}/w.safetensors")


# ------------------------------------------------------------------------------------------ studies

STUDY = """
name = "own"
title = "own"
[[networks]]
role = "teacher"
factory = "{place}:build"
[[networks]]
role = "plain"
arch = "resnet18"
pretrained = true
[[networks]]
role = "distilled"
arch = "resnet18"
checkpoint = "{checkpoint}"
"""


def test_a_study_names_factories_from_its_own_folder(file, tmp_path):
    (tmp_path / "study.toml").write_text(STUDY.format(place="my_models.py", checkpoint="w.safetensors"))
    teacher = read_study(tmp_path / "study.toml").spec.networks[0]
    assert teacher.factory == f"{file}:build" and not (tmp_path / "executed").exists()
    assert contents(teacher) == {"factory": identity(f"{file}:build")} and places(teacher) == {
        "factory": f"{file}:build"
    }
    assert origin_of(teacher) == "my_models.py:build"
    (tmp_path / "study.toml").write_text(STUDY.format(place="nowhere.py", checkpoint="w.safetensors"))
    with pytest.raises(StudyError, match=r"study.toml, line 6: networks.0.factory: there is no file .*nowhere.py"):
        read_study(tmp_path / "study.toml")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "arch: this field is required, unless factory, folder or a checkpoint of kdpipe"),
        (
            {"arch": "resnet18", "factory": "a.py:b"},
            "a network is one of arch, factory and folder, not arch and",
        ),
        ({"factory": "a.py:b", "pretrained": True}, "pretrained: only a timm model"),
        ({"folder": "vit", "stem": "small"}, "stem: only a timm model"),
        ({"folder": "vit", "arguments": {"x": 1}}, "arguments: a folder of transformers brings its own"),
        ({"arch": "resnet18", "mean": [0.5]}, "mean and std go together"),
        ({"arch": "resnet18", "mean": [0.5], "std": [0.5, 0.5]}, "mean and std go together"),
    ],
)
def test_a_section_says_once_what_its_network_is(fields, said):
    with pytest.raises(ValueError, match=said):
        ArchSpec(**fields)


def test_keys_of_networks_that_name_none_of_it_are_what_they_were():
    fields = {"arch", "arguments", "stem", "stem_stride", "pretrained", "checkpoint", "layers"}
    assert set(ArchSpec(arch="resnet18").keyed()) == fields
    assert set(StudentSpec(arch="resnet18", name="s").keyed()) == fields | {"name"}
    assert set(TeacherSpec(arch="resnet18").keyed()) == fields | {"label_fraction", "seed", "training"}
    named = NetworkSpec(role="teacher", arch="resnet18", pretrained=True, image_size=32, mean=[0.5], std=[0.5]).keyed()
    assert named["image_size"] == 32 and named["mean"] == [0.5]


# ------------------------------------------------------------------------------------- transformers


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vit")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=5)
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(folder)
    scaling = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}, **scaling).save_pretrained(folder)
    return folder, model


def test_a_folder_of_transformers_is_read_with_its_size_and_scaling(vit, tmp_path):
    folder, model = vit
    spec = NetworkSpec(role="teacher", folder=str(folder))
    network = build(spec, **SHAPE, seed=0)
    with torch.no_grad():
        outputs = network(images())
        shown = torch.nn.functional.interpolate(images(), (32, 32), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values)[:, None, None] for values in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
        wanted = model((shown - mean) / std, output_hidden_states=True)
    torch.testing.assert_close(outputs.logits, wanted.logits, rtol=0, atol=1e-6)
    tokens = wanted.hidden_states[1][:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(outputs.maps[0], tokens, rtol=0, atol=1e-6)
    write_network(tmp_path / "n.safetensors", network, spec, (3, 16, 16), 5)
    moved = folder.rename(folder.with_name("moved"))
    try:
        assert same(network, read_network(tmp_path / "n.safetensors"))
    finally:
        moved.rename(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"auto_map": {"AutoConfig": "evil.Config"}}, "brings code of its own .auto_map., which is not run"),
        ({"model_type": "bert"}, "describes a 'bert', of which the installed transformers has no image classifier"),
        ({"quantization_config": {"bits": 4}}, "has quantization_config, which is not supported"),
        ({"id2label": {str(i): str(i) for i in range(7)}}, "tells 7 classes apart, the data has 5"),
        ({"hidden_size": 24}, "lack .*, or have it in another shape"),
        ({"hidden_size": "wide"}, "cannot be"),
    ],
)
def test_a_folder_that_cannot_be_taken_is_one_sentence(vit, tmp_path, change, said):
    folder = tmp_path / "changed"
    shutil.copytree(vit[0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(NetworkError, match=f"folder: .*{said}") as error:
        build(NetworkSpec(role="teacher", folder=str(folder)), **SHAPE, seed=0)
    assert len(str(error.value).splitlines()) == 1


def test_a_folder_without_safetensors_or_without_a_classifier_is_refused(vit, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(vit[0], folder)
    vit[1].vit.save_pretrained(folder)
    with pytest.raises(NetworkError, match=r"the weights of .* lack classifier"):
        build(NetworkSpec(role="teacher", folder=str(folder)), **SHAPE, seed=0)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(NetworkError, match=r"holds no .safetensors file; pickled weights can run code"):
        build(NetworkSpec(role="teacher", folder=str(folder)), **SHAPE, seed=0)
    with pytest.raises(NetworkError, match=r"there is no folder .*; nothing is fetched"):
        build(NetworkSpec(role="teacher", folder=str(tmp_path / "none")), **SHAPE, seed=0)


def test_pixels_that_a_description_scales_otherwise_are_scaled_so(vit, tmp_path):
    """(255 x / 127.5 - 1) / 1, as of networks that want pixels in [-1, 1], is (x - 0.5) / 0.5."""
    folder = tmp_path / "scaled"
    shutil.copytree(vit[0], folder)
    processing = {"do_rescale": True, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps({**processing, "do_normalize": True}))
    network = build(NetworkSpec(role="teacher", folder=str(folder)), **SHAPE, seed=0)
    torch.testing.assert_close(network.mean.flatten(), torch.full((3,), 0.5))
    torch.testing.assert_close(network.std.flatten(), torch.full((3,), 0.5))
    assert network.image_size == 32  # from the description of the network, as the processing says no size
