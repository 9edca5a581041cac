"""Teachers from outside: a file that says what network it holds, a study that leaves that out, and what contradicts."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from kdpipe.config.preflight import run_preflight
from kdpipe.config.study_file import load_spec, read_study
from kdpipe.errors import StudyError
from kdpipe.models.build import build
from kdpipe.models.checkpoints import complete
from kdpipe.models.network import ReusedHead
from kdpipe.models.saved import SavedArchitecture, read_network, write_network
from kdpipe.models.weights import give_head

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
    assert run_preflight(read_study(study(teacher, student=f'checkpoint = "{teacher}"')), Path())


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
        run_preflight(read_study(path), root)
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
    assert run_preflight(read_study(study(path, body)), Path()).shapes["teacher"].pooled == 16


def test_files_that_are_none(teacher):
    missing = teacher.with_name("none.safetensors")
    assert complaint(study(missing)).startswith(f"teacher.checkpoint: there is no file {missing}; ")
    assert "teacher.checkpoint: there is no file" in complaint(study(missing, 'arch = "resnet18"'))
    path = teacher.with_name("cut.safetensors")
    path.write_bytes(teacher.read_bytes()[:-10])
    assert f"teacher.checkpoint: {path} is damaged or no safetensors file" in complaint(study(path))
    path = teacher.with_name("weights.pth")
    path.write_bytes(pickle.dumps({}))
    for written in ("", 'arch = "resnet18"'):
        said = complaint(study(path, written))
        assert "pickled checkpoints can run code" in said
        assert f"`kdpipe convert {path} --like ARCH` (timm's name, or my_models.py:build) makes it one" in said
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
        "untrained; take data of the classes that it tells apart, train it (training.steps) or name another checkpoint."
    )
    headless = load_file(path)
    bare = tmp_path / "bare.safetensors"
    save_file({name: tensor for name, tensor in headless.items() if not name.startswith("fc.")}, bare)
    written = 'arch = "resnet18"\narguments = { channels = [8, 8, 16, 16], layers = [1, 1, 1, 1] }\nstem = "small"'
    assert "lacks fc.weight, so the classifier would be new" in complaint(study(bare, f"{written}\ntraining.steps = 0"))
    for trained in (study(path, "training = { steps = 1 }"), study(bare, written)):
        assert run_preflight(read_study(trained), Path()).shapes["teacher"].pooled == 16
    student = study(a_network(tmp_path / "ten.safetensors"), "training.steps = 0", f'checkpoint = "{path}"')
    assert run_preflight(read_study(student), Path())  # students always train


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
