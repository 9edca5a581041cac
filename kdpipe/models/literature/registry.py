"""The networks of the literature by name, and how timm learns of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from kdpipe.models.literature.mobilenets import CifarMobileNetV2
from kdpipe.models.literature.resnets import CifarResNet, CifarResNet50
from kdpipe.models.literature.shufflenets import CifarShuffleNetV1, CifarShuffleNetV2
from kdpipe.models.literature.vggs import CifarVgg
from kdpipe.models.literature.wide_resnets import CifarWideResNet

# How the published networks see CIFAR-100: means and deviations of its channels, as the published code rounds them.
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


@dataclass(frozen=True)
class LiteratureNetwork:
    """A network that the papers on distillation compare on.

    Attributes:
        name: in timm's registry.
        title: as papers write it.
        published: in RepDistiller and mdistiller.
        make: the module, from ``num_classes``, ``in_chans``, ``global_pool`` and ``drop_rate``.
        first_conv, classifier: names of the modules that see images, and that give logits.
    """

    name: str
    title: str
    published: str
    make: Callable[..., nn.Module]
    first_conv: str
    classifier: str


def _resnet(size: str, depth: int, *widths: int) -> LiteratureNetwork:
    make = partial(CifarResNet, depth, widths)
    return LiteratureNetwork(f"cifar_resnet{size}", f"ResNet-{size}", f"resnet{size}", make, "conv1", "fc")


def _wide_resnet(depth: int, widening: int) -> LiteratureNetwork:
    name, make = f"{depth}_{widening}", partial(CifarWideResNet, depth, widening)
    return LiteratureNetwork(f"cifar_wrn{name}", f"WRN-{depth}-{widening}", f"wrn_{name}", make, "conv1", "fc")


def _vgg(layers: int, *convolutions: int) -> LiteratureNetwork:
    make = partial(CifarVgg, convolutions)
    return LiteratureNetwork(f"cifar_vgg{layers}", f"VGG-{layers}", f"vgg{layers}", make, "block0.0", "classifier")


_ALL = (
    *(_resnet(str(depth), depth, 16, 16, 32, 64) for depth in (8, 14, 20, 32, 44, 56, 110)),
    _resnet("8x4", 8, 32, 64, 128, 256),
    _resnet("32x4", 32, 32, 64, 128, 256),
    LiteratureNetwork("cifar_resnet50", "ResNet-50", "ResNet50", CifarResNet50, "conv1", "linear"),
    *(_wide_resnet(*sizes) for sizes in ((16, 1), (16, 2), (40, 1), (40, 2))),
    _vgg(8, 1, 1, 1, 1, 1),
    _vgg(11, 1, 1, 2, 2, 2),
    _vgg(13, 2, 2, 2, 2, 2),
    _vgg(16, 2, 2, 3, 3, 3),
    _vgg(19, 2, 2, 4, 4, 4),
    LiteratureNetwork(
        "cifar_mobilenetv2", "MobileNetV2 x0.5", "MobileNetV2", CifarMobileNetV2, "conv1.0", "classifier.0"
    ),
    LiteratureNetwork("cifar_shufflenetv1", "ShuffleNetV1", "ShuffleV1", CifarShuffleNetV1, "conv1", "linear"),
    LiteratureNetwork("cifar_shufflenetv2", "ShuffleNetV2", "ShuffleV2", CifarShuffleNetV2, "conv1", "linear"),
)
LITERATURE = {network.name: network for network in _ALL}


def published_as(name: str) -> list[str]:
    """Names in timm's registry of what RepDistiller and mdistiller call so: one or none."""
    return [network.name for network in _ALL if network.published.lower() == name.lower()]


# timm reads a model's configuration off the module of its entry point, under this name.
default_cfgs = generate_default_cfgs(
    {
        network.name: {
            "num_classes": 100,
            "input_size": (3, 32, 32),
            "crop_pct": 1.0,
            "mean": MEAN,
            "std": STD,
            "first_conv": network.first_conv,
            "classifier": network.classifier,
        }
        for network in _ALL
    }
)


def _register(network: LiteratureNetwork) -> None:
    def entry_point(pretrained: bool = False, **arguments: Any) -> nn.Module:
        feature_cfg = {"out_indices": (1, 2, 3), "feature_cls": "getter"}
        return build_model_with_cfg(network.make, network.name, pretrained, feature_cfg=feature_cfg, **arguments)

    entry_point.__name__ = network.name
    register_model(entry_point)


for _network in _ALL:
    _register(_network)
