"""Checkpoints of other programs: found in their files, renamed for timm, refused where they could run code or do not fit."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import convnext, densenet, mobilenet, regnet, resnet, swin_transformer, vision_transformer

from kdpipe.cli.main import kdpipe
from kdpipe.cli.trial import TrialImages, try_on
from kdpipe.config.preflight import run_preflight
from kdpipe.config.study_file import read_study
from kdpipe.data.sources import Split
from kdpipe.errors import NetworkError, StudyError
from kdpipe.models import Scaling, convert, read_network
from kdpipe.models.conventions import translations
from kdpipe.models.fit import compare
from kdpipe.models.tensor_files import read_tensors

ARGUMENTS = {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}
PLAIN = Scaling((0.0,) * 3, (1.0,) * 3)
TRANSFORMERS = Path(__file__).resolve().parent / "data" / "transformers"


def tried(model: nn.Module) -> nn.Module:
    """In eval mode, with no scale, bias or statistic at the value that it begins as."""
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1, generator=generator)
        if name.endswith("running_var"):
            buffer.uniform_(0.01, 0.1, generator=generator)  # small, so that another epsilon shows
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return tried(timm.create_model("resnet18", num_classes=5, **ARGUMENTS))


@pytest.fixture
def state(model) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def same_logits(model: nn.Module, conversion, side: int = 32, tolerance: float = 1e-5) -> bool:
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, found = model(images), conversion.network(images).logits
    assert expected.std() > 1e-4
    return bool((found - expected).abs().max() < tolerance * expected.abs().max().clamp(min=1))


# ---------------------------------------------------------------------------------- where a network lies


def lightning(state):
    """As Lightning's ModelCheckpoint writes it."""
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.2.0",
        "state_dict": prefixed("model.", state),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(8, 3, 7, 7)}}, "param_groups": [{"lr": 0.1}]}],
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "hyper_parameters": {"name": "resnet18"},
    }


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
    "thop": (lambda s: s | {"total_ops": torch.zeros(1).double(), "layer1.0.total_params": torch.zeros(1).double()}, ""),
    "beside a loss": (lambda s: prefixed("net.", s) | {"criterion.centres": torch.ones(5, 16)}, "net"),
    "parameters": (lambda s: {n: nn.Parameter(t) if t.is_floating_point() else t for n, t in s.items()}, ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_the_network_is_found_in_what_programs_save(kind, zipped, model, state, tmp_path):
    make, key = KINDS[kind]
    torch.save(make(state), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, scaling=PLAIN)
    assert (found.problem, found.reading.key, found.classes) == (None, key, 5)
    assert found.fit.whole and same_logits(model, found)


def test_an_optimizer_with_names_for_keys_is_no_network(model, state, tmp_path):
    moments = {name: {"exp_avg": tensor + 1} for name, tensor in state.items()}
    torch.save({"optimizer": {"state": moments}, "model": state}, tmp_path / "x.pth")
    assert same_logits(model, convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, scaling=PLAIN))


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
    found = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, scaling=PLAIN)
    assert found.network.model.conv1.weight.dtype == torch.float32
    assert same_logits(model, found, tolerance=1e-5 if kind == torch.float64 else 0.05)


def test_counters_of_batches_may_be_missing(model, state, tmp_path):
    torch.save({name: t for name, t in state.items() if "num_batches_tracked" not in name}, tmp_path / "x.pth")
    found = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, scaling=PLAIN)
    assert found.problem is None and same_logits(model, found)


def test_raw_weights_go_before_averaged_ones_unless_asked(state, tmp_path):
    ema = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"state_dict_ema": ema, "state_dict": state}, tmp_path / "x.pth")
    raw = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS)
    assert (raw.reading.key, raw.reading.averaged, raw.others) == ("state_dict", False, ("state_dict_ema",))
    averaged = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, ema=True)
    assert (averaged.reading.key, averaged.others) == ("state_dict_ema", ("state_dict",))
    assert torch.equal(averaged.network.model.conv1.weight, raw.network.model.conv1.weight + 1)
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(NetworkError, match=r"holds no averaged weights, by their names; it has 'state_dict'\."):
        convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, ema=True)


def test_of_several_networks_one_is_named(state, tmp_path):
    other = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"state_dict": prefixed("student.", state) | prefixed("teacher.", other)}, tmp_path / "x.pth")
    with pytest.raises(NetworkError, match="2 networks that fit alike.*'state_dict.student', 'state_dict.teacher'"):
        convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS)
    found = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, key="state_dict.teacher")
    assert torch.equal(found.network.model.conv1.weight, state["conv1.weight"] + 1)
    with pytest.raises(NetworkError, match="holds nothing under 'nobody'; its names begin with 'state_dict'"):
        convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, key="nobody")


# ------------------------------------------------------------------------------------------ whose names


def vit_of_torchvision() -> nn.Module:
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 64}
    return vision_transformer.VisionTransformer(32, 8, **sizes, num_classes=5)


def convnext_of_torchvision() -> nn.Module:
    blocks = [convnext.CNBlockConfig(8, 8, 1), convnext.CNBlockConfig(8, 16, 2), convnext.CNBlockConfig(16, None, 1)]
    return convnext.ConvNeXt([*blocks], layer_scale=0.1, num_classes=5)


def swin_of_torchvision() -> nn.Module:
    return swin_transformer.SwinTransformer([2, 2], 16, [2, 2], [2, 2], [4, 4], num_classes=5)


def densenet_of_torchvision() -> nn.Module:
    return densenet.DenseNet(8, (1, 2, 1, 1), 16, num_classes=5)


LIBRARIES = {
    "ResNet": (lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=5), "resnet18", {"layers": [1, 1, 1, 1]}, {}),
    "MobileNetV2": (lambda: mobilenet.mobilenet_v2(width_mult=0.35, num_classes=5), "mobilenetv2_035", {}, {}),
    "MobileNetV3": (lambda: mobilenet.mobilenet_v3_small(num_classes=5), "mobilenetv3_small_100", {}, {"bn_eps": 1e-3}),
    "EfficientNet": (
        lambda: torchvision.models.efficientnet_b0(num_classes=5), "efficientnet_b0", {}, {},
    ),
    "EfficientNet as TensorFlow's": (
        lambda: torchvision.models.efficientnet_b0(num_classes=5), "tf_efficientnet_b0", {}, {"pad_type": "", "bn_eps": 1e-5},
    ),
    "RegNet": (lambda: regnet.regnet_y_400mf(num_classes=5), "regnety_004", {}, {}),
    "ViT": (
        vit_of_torchvision, "vit_tiny_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}, {},
    ),
    "ConvNeXt": (convnext_of_torchvision, "convnext_tiny", {"dims": [8, 8, 16], "depths": [1, 2, 1]}, {}),
    "Swin": (
        swin_of_torchvision, "swin_tiny_patch4_window7_224",
        {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2]}, {},
    ),
    "DenseNet": (
        densenet_of_torchvision, "densenet121", {"growth_rate": 8, "block_config": [1, 2, 1, 1]}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", LIBRARIES)
def test_torchvisions_networks_give_their_logits(family, tmp_path):
    make, arch, arguments, added = LIBRARIES[family]
    torch.manual_seed(0)
    model = tried(make())
    torch.save({"model": prefixed("module.", model.state_dict())}, tmp_path / "x.pth")
    found = convert(tmp_path / "x.pth", arch, arguments=arguments, scaling=PLAIN)
    assert found.problem is None and found.spec.arguments == added | arguments
    assert same_logits(model, found)


def test_the_largest_networks_of_torchvision_by_their_names():
    """VGG, and EfficientNets with another epsilon: too large to be run here, so without their numbers."""
    for name, arch, epsilon in (
        ("vgg11_bn", "vgg11_bn", {}),
        ("efficientnet_b5", "efficientnet_b5", {"bn_eps": 1e-3}),
        ("efficientnet_v2_s", "efficientnetv2_s", {"bn_eps": 1e-3}),
    ):
        with torch.device("meta"):
            theirs, own = getattr(torchvision.models, name)(), timm.create_model(arch)
        found = [
            (convention.arguments(arch), compare(renamed, own.state_dict()).whole)
            for convention, renamed in translations(theirs.state_dict(), own, arch)
        ]
        assert (epsilon, True) in found, name


def test_a_densenet_of_torch_0_4_has_points_in_its_names(tmp_path):
    model = tried(densenet_of_torchvision())
    old = {
        name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): t for name, t in model.state_dict().items()
    }
    old = {n.replace(".norm2.", ".norm.2.").replace(".conv1.", ".conv.1."): t for n, t in old.items()}
    torch.save(old, tmp_path / "x.pth")
    arguments = {"growth_rate": 8, "block_config": [1, 2, 1, 1]}
    assert same_logits(model, convert(tmp_path / "x.pth", "densenet121", arguments=arguments, scaling=PLAIN))


@pytest.mark.parametrize("family", ["resnet", "vit", "deit", "convnext", "swin"])
def test_networks_of_transformers_give_the_logits_that_it_gave(family):
    """Files and logits are those that transformers wrote: tests/data/make_transformers_files.py."""
    path = TRANSFORMERS / f"{family}.safetensors"
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    arguments = json.loads(header["arguments"])
    found = convert(path, header["arch"], arguments=arguments, scaling=PLAIN, allow_extra=["try"])
    assert found.problem is None and (found.reading.convention or "").startswith("transformers'")
    with torch.no_grad():
        assert (found.network(tensors["try.images"]).logits - tensors["try.logits"]).abs().max() < 1e-5


@pytest.mark.parametrize("arch", ["mobilenetv2_100", "tf_efficientnet_b0", "regnety_004"])
def test_large_networks_of_transformers_by_their_names(arch):
    shapes = json.loads((TRANSFORMERS / "shapes.json").read_text())[arch]
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with torch.device("meta"):
        own = timm.create_model(arch, num_classes=2)
    whole = [c for c, renamed in translations(state, own, arch) if compare(renamed, own.state_dict()).whole]
    assert [convention.title.startswith("transformers'") for convention in whole] == [True]
    assert arch.startswith(("tf_", "regnet")) or whole[0].arguments(arch) == {"pad_type": "same", "bn_eps": 1e-3}


SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]}


def an_older_swin() -> tuple[nn.Module, dict[str, Tensor]]:
    """As timm saved it before 0.9: with buffers that are made anew today, and the classifier elsewhere."""
    model = tried(timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **SWIN))
    buffers = {n: b.clone() for n, b in model.named_buffers() if n.endswith("relative_position_index")}
    old = {name.replace("head.fc.", "head."): tensor for name, tensor in model.state_dict().items()}
    return model, {n.replace("layers.1.downsample", "layers.0.downsample"): t for n, t in old.items()} | buffers


def test_older_timm_is_left_to_timms_own_filter(tmp_path):
    model, old = an_older_swin()
    torch.save(old, tmp_path / "x.pth")
    found = convert(tmp_path / "x.pth", "swin_tiny_patch4_window7_224", arguments=SWIN, scaling=PLAIN)
    assert found.problem is None and same_logits(model, found)


# ------------------------------------------------------------------------------------------ what is refused


class Trap:
    """Writes a file if it is ever unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def zip_of(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def tar_of(path: Path, names: list[str]) -> None:
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))


def saved(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def compressed(path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(saved({"w": torch.zeros(9, 9)}))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    zip_of(path, members, zipfile.ZIP_DEFLATED)


def scripted(path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))


NOT_READ = {
    "nothing": (lambda p: None, "there is no such file."),
    "a folder": (lambda p: p.mkdir(), "is a folder; name the file"),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "zeros": (lambda p: p.write_bytes(bytes(1000)), "is empty"),
    "noise": (lambda p: p.write_bytes(bytes(range(1, 256)) * 9), "is damaged or was not written by torch.save"),
    "a web page": (lambda p: p.write_text("\n<!DOCTYPE html>"), "is a web page"),
    "a pointer": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1"), "Git LFS pointer"),
    "JSON": (lambda p: p.write_text('{"weights": "none"}'), "is JSON and holds no weights"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"x")), "is compressed (gzip)"),
    "HDF5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)), "is an HDF5 file"),
    "a zip of images": (lambda p: zip_of(p, {"a/1.png": b"x"}), "is a zip archive without a checkpoint"),
    "compressed parts": (compressed, "has compressed parts, which torch never writes"),
    "a cut zip": (lambda p: p.write_bytes(saved({"w": torch.zeros(99, 99)})[:-99]), "is damaged or cut short"),
    "TorchScript": (scripted, "is a TorchScript program"),
    "an old tar": (lambda p: tar_of(p, ["storages", "tensors", "pickle"]), "was written by torch before 0.1.10"),
    "a tar": (lambda p: tar_of(p, ["a.png"]), "is a tar archive and no checkpoint"),
    "a plain pickle": (lambda p: p.write_bytes(pickle.dumps({"w": 1})), "is damaged or was not written by torch.save"),
    "a module": (lambda p: torch.save(nn.Linear(2, 2), p), "needs torch.nn.modules.linear.Linear to be loaded"),
    "sparse": (lambda p: torch.save({"w": torch.eye(3).to_sparse()}, p), "w is a tensor of layout torch.sparse_coo"),
    "no numbers": (lambda p: torch.save({"w": torch.empty(3, 3, device="meta")}, p), "w has a shape and no numbers"),
    "stretched": (lambda p: torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, p), "and fewer numbers than that"),
    "complex": (lambda p: torch.save({"w": torch.zeros(2, 2, dtype=torch.complex64)}, p), "holds numbers of torch.complex64"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_READ)
@pytest.mark.filterwarnings("ignore")
def test_what_holds_no_weights_is_named_in_one_sentence(kind, tmp_path):
    make, said = NOT_READ[kind]
    path = tmp_path / "x.pth"
    make(path)
    with pytest.raises(NetworkError) as error:
        read_tensors(path)
    assert said in str(error.value) and str(path) in str(error.value)
    assert str(error.value).endswith(".") and "\n" not in str(error.value) and "weights_only" not in str(error.value)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle", "beside weights", "as numpy", "os"])
def test_code_in_a_checkpoint_is_named_and_not_run(how, state, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "x.pth"
    trap = Trap(canary)
    if how == "pickle":
        path.write_bytes(pickle.dumps(trap, protocol=2))
    elif how == "os":
        path.write_bytes(saved({"model": state}))
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        shell = f"cposix\nsystem\n(S'touch {canary}'\ntR.".encode()
        zip_of(path, {name: shell if name.endswith("data.pkl") else content for name, content in members.items()})
    else:
        value = {"beside weights": {"model": state, "extra": trap}, "as numpy": {"rng": np.array([trap])}}.get(
            how, trap
        )
        torch.save(value, path, _use_new_zipfile_serialization=how != "legacy")
    try:
        read_tensors(path)
    except NetworkError as error:
        assert "could run code, so it was not read" in str(error) and ("open" in str(error) or "posix" in str(error))
        assert "weights_only" not in str(error) and "add_safe_globals" not in str(error)
    else:
        pytest.fail("it was read")
    assert not canary.exists()
    assert torch.serialization.get_safe_globals() == []


WHOLE = saved({"model": {"a.weight": torch.ones(4, 4), "b": torch.zeros(3)}, "opt": argparse.Namespace(x=1)})


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, len(WHOLE)),
    places=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4),
)
def test_a_damaged_file_is_read_or_refused_in_a_sentence(tmp_path, cut, places):
    content = bytearray(WHOLE)
    for place, byte in places:
        content[place] = byte
    (tmp_path / "x.pth").write_bytes(bytes(content[: cut or None]))
    try:
        assert all(isinstance(tensor, Tensor) for tensor in read_tensors(tmp_path / "x.pth").values())
    except NetworkError as error:
        assert str(error).endswith(".") and "\n" not in str(error)


# ------------------------------------------------------------------------------------------ what does not fit


def test_nothing_is_written_where_something_that_matters_is_missing(state, tmp_path):
    del state["layer2.0.conv1.weight"]
    state["layer2.0.convolution1.weight"] = torch.zeros(8, 8, 3, 3)
    torch.save(state, tmp_path / "x.pth")
    found = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS)
    assert found.problem == (
        f"{tmp_path / 'x.pth'} does not fit resnet18: 1 of 67 tensors are missing (layer2.0.conv1.weight), 1 are left "
        "over (layer2.0.convolution1.weight); name the architecture and the arguments that it was trained with."
    )
    with pytest.raises(NetworkError, match="does not fit resnet18"):
        found.write(tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_tensors_that_the_network_has_no_place_for_matter(state, tmp_path):
    state["layer1.0.se.weight"] = torch.ones(8, 8)
    torch.save(state, tmp_path / "x.pth")
    found = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS)
    assert "1 are left over (layer1.0.se.weight); name the architecture that has them" in str(found.problem)
    assert convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, allow_extra=["layer1.0.se"]).problem is None
    assert convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, allow_extra=["layer1.0.s"]).problem is not None


def test_integers_are_no_weights_and_nan_is_none(state, tmp_path):
    torch.save(state | {"conv1.weight": torch.ones(64, 3, 7, 7, dtype=torch.int8)}, tmp_path / "x.pth")
    found = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS)
    assert "1 have another shape (conv1.weight: int8, not float32)" in str(found.problem)
    state["layer1.0.bn1.bias"][2] = torch.nan
    torch.save(state, tmp_path / "x.pth")
    found = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS)
    assert "holds NaN or infinity in layer1.0.bn1.bias" in str(found.problem)


def test_a_stem_for_small_images_is_recognised(tmp_path):
    model = tried(timm.create_model("resnet18", num_classes=5, **ARGUMENTS))
    model.conv1, model.maxpool = tried(nn.Conv2d(3, 64, 3, padding=1, bias=False)), nn.Identity()
    torch.save(model.state_dict(), tmp_path / "x.pth")
    assert "add --stem small and its --stem-stride" in str(
        convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS).problem
    )
    one = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, stem="small", stem_stride=1, scaling=PLAIN)
    two = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, stem="small", stem_stride=2, scaling=PLAIN)
    assert same_logits(model, one) and not same_logits(model, two)


def test_grey_images_are_seen_in_the_file_and_need_a_scaling(tmp_path):
    model = tried(timm.create_model("resnet18", num_classes=5, in_chans=1, **ARGUMENTS))
    torch.save(model.state_dict(), tmp_path / "x.pth")
    found = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, scaling=Scaling((0.5,), (0.5,)), image_size=28)
    assert found.image_shape == (1, 28, 28)
    with pytest.raises(NetworkError, match="takes images of 1 channels, for which timm names no scaling"):
        convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS)
    with pytest.raises(NetworkError, match="3 and 3 numbers are given, and the network's images have 1 channels"):
        convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, scaling=PLAIN)


STUDY = """
name = "tiny"
title = "Tiny"
methods = ["plain", "kd"]
data = { dataset = "digits", probe_size = 60, channels = 3, image_size = 32 }
maps = { perplexity = 5.0 }

%s

[[students]]
name = "small"
arch = "resnet18"
arguments = { channels = [8, 8, 8, 8], layers = [1, 1, 1, 1] }
"""


def checked(lines: str, folder: Path) -> None:
    (folder / "tiny.toml").write_text(STUDY % lines)
    run_preflight(read_study(folder / "tiny.toml"), folder)


def test_a_new_classifier_must_be_trained(state, tmp_path):
    torch.save(state, tmp_path / "x.pth")
    other = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, classes=10)
    assert "ask for a new classifier: --allow-missing fc" in str(other.problem)
    found = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, classes=10, allow_missing=["fc"])
    assert found.untrained == ("fc.weight", "fc.bias")
    found.write(tmp_path / "x.safetensors")
    lines = f'[teacher]\ncheckpoint = "{tmp_path / "x.safetensors"}"\n'
    checked(f"{lines}training = {{ steps = 1 }}", tmp_path)
    with pytest.raises(StudyError, match=r"lacks fc.weight, so the classifier would be new and untrained"):
        checked(f"{lines}training = {{ steps = 0 }}", tmp_path)


# ------------------------------------------------------------------------------------------ the command


def typed(*words: object) -> Result:
    return CliRunner().invoke(kdpipe, ["convert", *map(str, words)])


LIKE = ("--like", "resnet18", "--argument", "channels=[8,8,16,16]", "--argument", "layers=[1,1,1,1]")


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
    assert done.output.count("layer2.0.conv1.weight") >= 1 and "in the file" in " ".join(done.output.split())
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


# ------------------------------------------------------------------------------------------ the proof


def test_the_accuracy_is_that_of_the_scaling_and_a_better_one_is_named(state, tmp_path):
    state["fc.weight"] = 3 * state["fc.weight"] / state["fc.weight"].std()
    torch.save(state, tmp_path / "x.pth")
    known = Scaling((0.0,) * 3, (1.0,) * 3)
    right = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, scaling=known)
    pictures = np.random.default_rng(0).integers(0, 256, (60, 3, 1, 1)) * np.ones((1, 1, 16, 16))
    pictures = pictures.astype(np.uint8)
    with torch.no_grad():
        labels = right.network(torch.tensor(pictures).float() / 255).logits.argmax(1).numpy()
    assert len(set(labels)) > 1
    images = TrialImages(Split(pictures, labels), ["a", "b", "c", "d", "e"])
    trial = try_on(right, images, "cpu")
    assert trial.top1 == 1.0 and trial.better is None and str(trial) == "top-1 accuracy: 100.00 % of 60 test images."
    wrong = convert(tmp_path / "x.pth", "resnet18", arguments=ARGUMENTS, scaling=Scaling((0.9,) * 3, (0.01,) * 3))
    trial = try_on(wrong, images, "cpu")
    assert trial.top1 < 0.9 and trial.better is not None and trial.better[0].mean == known.mean
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


# ------------------------------------------------------------------------------------------ studies


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
    with pytest.raises(StudyError, match="names of another program `kdpipe convert .*old.safetensors --like swin_tiny"):
        checked(
            f'[teacher]\narch = "swin_tiny_patch4_window7_224"\narguments = {{ {arguments} }}\n'
            f'checkpoint = "{tmp_path / "old.safetensors"}"',
            tmp_path,
        )
