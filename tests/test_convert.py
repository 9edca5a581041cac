"""Checkpoints of other programs: the network is found in their files, and what does not fit it is named."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from checkpoint_files import (
    ARGUMENTS,
    PLAIN,
    a_resnet,
    checked,
    converted,
    lightning,
    prefixed,
    same_logits,
    tried,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from kdpipe.errors import NetworkError, StudyError
from kdpipe.models import Scaling, convert
from kdpipe.models.tensor_files import read_tensors


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return a_resnet()


@pytest.fixture
def state(model) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def with_options(state):
    """As RepDistiller's teachers are written: options, and numpy's numbers."""
    options = argparse.Namespace(lr=0.1, decay=[150, 180], best=np.float64(0.7))
    return {
        "epoch": 240,
        "model": state,
        "best_acc": np.float32(71.5),
        "opt": options,
        "path": Path("x"),
        "rng": np.ones(3),
    }


KINDS = {
    "plain": (lambda s: s, ""),
    "model": (lambda s: {"model": s, "epoch": 2}, "model"),
    "DataParallel": (lambda s: {"state_dict": prefixed("module.", s), "arch": "resnet18"}, "state_dict.module"),
    "torch.compile": (lambda s: {"net": prefixed("_orig_mod.", s)}, "net._orig_mod"),
    "both": (lambda s: {"network": {"weights": prefixed("module._orig_mod.", s)}}, "network.weights.module._orig_mod"),
    "Lightning": (lightning, "state_dict.model"),
    "options": (with_options, "model"),
    "tuple": (lambda s: (s, {"param_groups": [{"lr": 0.1}]}), "0"),
    "averaged": (lambda s: prefixed("module.", s) | {"n_averaged": torch.tensor(7)}, "module"),
    "thop": (lambda s: s | {"total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)}, ""),
    "beside a loss": (lambda s: prefixed("net.", s) | {"criterion.centres": torch.ones(5, 16)}, "net"),
    "parameters": (lambda s: {n: nn.Parameter(t) if t.is_floating_point() else t for n, t in s.items()}, ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_found_in_what_programs_save(kind, model, state, tmp_path):
    make, key = KINDS[kind]
    torch.save(make(state), tmp_path / "x.pth")
    found = converted(tmp_path / "x.pth")
    assert (found.problem, found.reading.key, found.classes) == (None, key, 5)
    assert found.fit.whole and same_logits(model, found)


def test_files_of_torch_before_1_6_are_no_zip(model, state, tmp_path):
    torch.save(with_options(state), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(tmp_path / "x.pth")
    assert same_logits(model, converted(tmp_path / "x.pth"))


def test_an_optimizer_with_names_for_keys_is_no_network(model, state, tmp_path):
    moments = {name: {"exp_avg": tensor + 1} for name, tensor in state.items()}
    torch.save({"optimizer": {"state": moments}, "model": state}, tmp_path / "x.pth")
    assert same_logits(model, converted(tmp_path / "x.pth"))


def test_safetensors_and_shards(model, state, tmp_path):
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    assert same_logits(model, convert(tmp_path / "model.safetensors", "resnet18", arguments=ARGUMENTS, scaling=PLAIN))
    names = sorted(state)
    halves = {"a.safetensors": names[:40], "b.safetensors": names[40:]}
    for file, part in halves.items():
        save_file({name: state[name] for name in part}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, part in halves.items() for name in part}}))
    assert same_logits(model, convert(index, "resnet18", arguments=ARGUMENTS, scaling=PLAIN))
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(NetworkError, match=r"its shard b.safetensors is missing"):
        read_tensors(index)
    for outside in ("../secret.bin", "/etc/passwd", "model.safetensors.index.json"):
        index.write_text(json.dumps({"weight_map": {"x": outside}}))
        with pytest.raises(NetworkError, match="does not lie beside its index"):
            read_tensors(index)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_brought_to_single(kind, model, state, tmp_path):
    torch.save({n: t.to(kind) if t.is_floating_point() else t for n, t in state.items()}, tmp_path / "x.pth")
    found = converted(tmp_path / "x.pth")
    assert found.network.model.conv1.weight.dtype == torch.float32
    assert same_logits(model, found, tolerance=1e-5 if kind == torch.float64 else 0.05)


def test_counters_of_batches_may_be_missing(model, state, tmp_path):
    torch.save({name: t for name, t in state.items() if "num_batches_tracked" not in name}, tmp_path / "x.pth")
    found = converted(tmp_path / "x.pth")
    assert found.problem is None and same_logits(model, found)


def test_raw_weights_go_before_averaged_ones_unless_asked(state, tmp_path):
    ema = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"state_dict_ema": ema, "state_dict": state}, tmp_path / "x.pth")
    raw = converted(tmp_path / "x.pth")
    assert (raw.reading.key, raw.reading.averaged, raw.others) == ("state_dict", False, ("state_dict_ema",))
    averaged = converted(tmp_path / "x.pth", ema=True)
    assert (averaged.reading.key, averaged.others) == ("state_dict_ema", ("state_dict",))
    assert torch.equal(averaged.network.model.conv1.weight, raw.network.model.conv1.weight + 1)
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(NetworkError, match=r"holds no averaged weights, by their names; it has 'state_dict'\."):
        converted(tmp_path / "x.pth", ema=True)


def test_of_several_networks_one_is_named(state, tmp_path):
    other = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"state_dict": prefixed("student.", state) | prefixed("teacher.", other)}, tmp_path / "x.pth")
    with pytest.raises(NetworkError, match=r"2 networks that fit alike.*'state_dict.student', 'state_dict.teacher'"):
        converted(tmp_path / "x.pth")
    found = converted(tmp_path / "x.pth", key="state_dict.teacher")
    assert torch.equal(found.network.model.conv1.weight, state["conv1.weight"] + 1)
    with pytest.raises(NetworkError, match="holds nothing under 'nobody'; its names begin with 'state_dict'"):
        converted(tmp_path / "x.pth", key="nobody")


def test_nothing_is_written_where_something_that_matters_is_missing(state, tmp_path):
    del state["layer2.0.conv1.weight"]
    state["layer2.0.convolution1.weight"] = torch.zeros(8, 8, 3, 3)
    torch.save(state, tmp_path / "x.pth")
    found = converted(tmp_path / "x.pth")
    assert found.problem == (
        f"{tmp_path / 'x.pth'} does not fit resnet18: 1 of 67 tensors missing (layer2.0.conv1.weight), 1 left "
        "over (layer2.0.convolution1.weight); name the architecture and the arguments that it was trained with."
    )
    with pytest.raises(NetworkError, match="does not fit resnet18"):
        found.write(tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_tensors_that_the_network_has_no_place_for_matter(state, tmp_path):
    state["layer1.0.se.weight"] = torch.ones(8, 8)
    torch.save(state, tmp_path / "x.pth")
    found = converted(tmp_path / "x.pth")
    assert "1 left over (layer1.0.se.weight); name the architecture that has them" in str(found.problem)
    assert converted(tmp_path / "x.pth", allow_extra=["layer1.0.se"]).problem is None
    assert converted(tmp_path / "x.pth", allow_extra=["layer1.0.s"]).problem is not None


def test_integers_are_no_weights_and_nan_is_none(state, tmp_path):
    torch.save(state | {"conv1.weight": torch.ones(64, 3, 7, 7, dtype=torch.int8)}, tmp_path / "x.pth")
    found = converted(tmp_path / "x.pth")
    assert "1 of another shape (conv1.weight: int8, not float32)" in str(found.problem)
    state["layer1.0.bn1.bias"][2] = torch.nan
    torch.save(state, tmp_path / "x.pth")
    found = converted(tmp_path / "x.pth")
    assert "holds NaN or infinity in layer1.0.bn1.bias" in str(found.problem)


def test_a_stem_for_small_images_is_recognised(tmp_path):
    model = tried(timm.create_model("resnet18", num_classes=5, **ARGUMENTS))
    model.conv1, model.maxpool = tried(nn.Conv2d(3, 64, 3, padding=1, bias=False)), nn.Identity()
    torch.save(model.state_dict(), tmp_path / "x.pth")
    assert "add --stem small and its --stem-stride" in str(converted(tmp_path / "x.pth").problem)
    one = converted(tmp_path / "x.pth", stem="small", stem_stride=1, scaling=PLAIN)
    two = converted(tmp_path / "x.pth", stem="small", stem_stride=2, scaling=PLAIN)
    assert same_logits(model, one) and not same_logits(model, two)


def test_grey_images_are_seen_in_the_file_and_need_a_scaling(tmp_path):
    model = tried(timm.create_model("resnet18", num_classes=5, in_chans=1, **ARGUMENTS))
    torch.save(model.state_dict(), tmp_path / "x.pth")
    found = converted(tmp_path / "x.pth", scaling=Scaling((0.5,), (0.5,)), image_size=28)
    assert found.image_shape == (1, 28, 28)
    with pytest.raises(NetworkError, match="takes images of 1 channels, for which timm names no scaling"):
        converted(tmp_path / "x.pth", scaling=None)
    with pytest.raises(NetworkError, match="3 and 3 numbers are given, and the network's images have 1 channels"):
        converted(tmp_path / "x.pth")


def test_a_new_classifier_must_be_trained(state, tmp_path):
    torch.save(state, tmp_path / "x.pth")
    other = converted(tmp_path / "x.pth", classes=10)
    assert "ask for a new classifier: --allow-missing fc" in str(other.problem)
    found = converted(tmp_path / "x.pth", classes=10, allow_missing=["fc"])
    assert found.untrained == ("fc.weight", "fc.bias")
    found.write(tmp_path / "x.safetensors")
    lines = f'[teacher]\ncheckpoint = "{tmp_path / "x.safetensors"}"\n'
    checked(f"{lines}training = {{ steps = 1 }}", tmp_path)
    with pytest.raises(StudyError, match=r"lacks fc.weight, so the classifier would be new and untrained"):
        checked(f"{lines}training = {{ steps = 0 }}", tmp_path)
