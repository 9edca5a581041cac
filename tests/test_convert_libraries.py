"""Checkpoints of other libraries: renamed for timm, they give the logits that they gave there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from checkpoint_files import SWIN, an_older_swin, converted, prefixed, same_logits, tried
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torchvision.models import (
    convnext,
    densenet,
    efficientnet,
    mobilenet,
    regnet,
    resnet,
    swin_transformer,
    vision_transformer,
)

from kdpipe.models.conventions import translations
from kdpipe.models.fit import compare


def vit_of_torchvision() -> nn.Module:
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 64}
    return vision_transformer.VisionTransformer(32, 8, **sizes, num_classes=5)


def convnext_of_torchvision() -> nn.Module:
    widths = [(8, 8, 1), (8, 16, 2), (16, 16, 1), (16, None, 1)]
    return convnext.ConvNeXt([convnext.CNBlockConfig(*width) for width in widths], layer_scale=0.1, num_classes=5)


def swin_of_torchvision() -> nn.Module:
    return swin_transformer.SwinTransformer([2, 2], 16, [2, 2], [2, 2], [4, 4], num_classes=5)


def densenet_of_torchvision() -> nn.Module:
    return densenet.DenseNet(8, (1, 2, 1, 1), 16, num_classes=5)


TRANSFORMERS = Path(__file__).resolve().parent / "data" / "transformers"

LIBRARIES = {
    "ResNet": (
        lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=5), "resnet18", {"layers": [1, 1, 1, 1]}, {},
    ),
    "MobileNetV2": (lambda: mobilenet.mobilenet_v2(width_mult=0.35, num_classes=5), "mobilenetv2_035", {}, {}),
    "MobileNetV3": (lambda: mobilenet.mobilenet_v3_small(num_classes=5), "mobilenetv3_small_100", {}, {"bn_eps": 1e-3}),
    "EfficientNet as TensorFlow's": (
        lambda: efficientnet.efficientnet_b0(num_classes=5), "tf_efficientnet_b0", {}, {"pad_type": "", "bn_eps": 1e-5},
    ),
    "RegNet": (lambda: regnet.regnet_y_400mf(num_classes=5), "regnety_004", {}, {}),
    "ViT": (
        vit_of_torchvision, "vit_tiny_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}, {},
    ),
    "ConvNeXt": (convnext_of_torchvision, "convnext_tiny", {"dims": [8, 8, 16, 16], "depths": [1, 2, 1, 1]}, {}),
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
    found = converted(tmp_path / "x.pth", arch, arguments=arguments)
    assert found.problem is None and found.spec.arguments == added | arguments
    assert same_logits(model, found)


def test_large_networks_of_torchvision_by_their_names():
    """VGG, and EfficientNets, those of another epsilon too: too large to be run here, so without their numbers."""
    for name, arch, epsilon in (
        ("efficientnet_b0", "efficientnet_b0", {}),
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
    assert same_logits(model, converted(tmp_path / "x.pth", "densenet121", arguments=arguments))


@pytest.mark.parametrize("family", ["resnet", "vit", "deit", "convnext", "swin"])
def test_networks_of_transformers_give_the_logits_that_it_gave(family):
    """Files and logits are those that transformers wrote: tests/data/make_transformers_files.py."""
    path = TRANSFORMERS / f"{family}.safetensors"
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    arguments = json.loads(header["arguments"])
    found = converted(path, header["arch"], arguments=arguments, allow_extra=["try"])
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


def test_older_timm_is_left_to_timms_own_filter(tmp_path):
    model, old = an_older_swin()
    torch.save(old, tmp_path / "x.pth")
    found = converted(tmp_path / "x.pth", "swin_tiny_patch4_window7_224", arguments=SWIN)
    assert found.problem is None and same_logits(model, found)
