"""MobileNets and EfficientNets of other libraries: the same modules in the same order, counted in another way.

timm counts blocks by stage, others count them through; what a block holds is called otherwise everywhere, and computed
in one order. So modules are paired block by block, in that order, and shapes say whether the pairs are true.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from torch import Tensor, nn

from kdpipe.models.conventions.convention import Convention, State

Place = tuple[tuple[int, ...], int]  # of a module: its block's place, and its own within the block
LAST = 1000

_TENSORFLOW = {"pad_type": "same", "bn_eps": 1e-3}


def _in_order(place: Callable[[str], Place | None]) -> Callable[[State, nn.Module, str], State | None]:
    """A translation from each module's place."""

    def translate(state: State, model: nn.Module, arch: str) -> State | None:
        own = _own_blocks(model)
        places: dict[tuple[int, ...], list[tuple[int, str]]] = {}
        for module in dict.fromkeys(name.rpartition(".")[0] for name in state):
            if found := place(module):
                places.setdefault(found[0], []).append((found[1], module))
        theirs = [[module for _, module in sorted(places[block])] for block in sorted(places)]
        if [len(block) for block in theirs] != [len(block) for block in own]:
            return None
        names = dict(zip(chain(*theirs), chain(*own), strict=True))
        convolutions = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
        return dict(_renamed(name, tensor, names, convolutions) for name, tensor in state.items())

    return translate


def _renamed(name: str, tensor: Tensor, names: dict[str, str], convolutions: set[str]) -> tuple[str, Tensor]:
    module, _, kind = name.rpartition(".")
    new = names.get(module)
    if new is None:
        return name, tensor
    if new in convolutions and kind == "weight" and tensor.ndim == 2:  # a linear layer on pooled maps
        tensor = tensor[:, :, None, None]
    return f"{new}.{kind}", tensor


def _own_blocks(model: nn.Module) -> list[list[str]]:
    """Modules with tensors of timm's EfficientNet or MobileNetV3: the stem, each block, the head, the classifier."""
    stages = getattr(model, "blocks", None)
    if not hasattr(model, "conv_stem") or not isinstance(stages, nn.Sequential):
        return []
    blocks = [
        [f"blocks.{stage}.{i}.{name}" for name, module in block.named_modules() if _has_tensors(module)]
        for stage, part in enumerate(stages)
        for i, block in enumerate(part.children())
    ]
    head = ["conv_head", "bn2"] if _has_tensors(getattr(model, "bn2", None)) else ["conv_head"]
    return [["conv_stem", "bn1"], *blocks, head, ["classifier"]]


def _has_tensors(module: nn.Module | None) -> bool:
    return module is not None and next(module.parameters(recurse=False), None) is not None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _torchvision(module: str) -> Place | None:
    if match := re.fullmatch(r"features\.(\d+(?:\.\d+(?=\.block))?)\.((?:conv|block)\..+|[01])", module):
        inner = _numbers(match[2])  # block.2.fc1, block.1.0, block.1.1
        return _numbers(match[1]), 10 * inner[0] + (inner[1] if len(inner) > 1 else 0)
    if match := re.fullmatch(r"classifier\.(\d)", module):
        return (LAST, int(match[1])), 0
    return None


def _torchvision_arguments(arch: str) -> dict[str, Any]:
    """Its epsilon, where it is not timm's: in MobileNetV3, and in EfficientNets B5 to B7 and V2."""
    wide = "mobilenetv3" in arch or re.search(r"efficientnet(_b[567]|v2)", arch) is not None
    epsilon = {"bn_eps": 1e-3} if wide else {}
    return {"pad_type": "", "bn_eps": 1e-5, **epsilon} if arch.startswith("tf_") else epsilon


def _tensorflow_arguments(arch: str) -> dict[str, Any]:
    """Padding and epsilon of TensorFlow, from which the weights were carried over."""
    return {} if arch.startswith("tf_") else _TENSORFLOW


def _named(stem: Sequence[str], block: str, within: Sequence[str], head: Sequence[str], classifier: str) -> Any:
    """Places of modules that have names of their own."""
    fixed: dict[str, Place] = {
        name: ((part,), i) for part, names in ((-1, stem), (LAST, head)) for i, name in enumerate(names)
    }
    fixed[classifier] = ((LAST, 1), 0)

    def place(module: str) -> Place | None:
        match = re.fullmatch(block, module)
        return fixed.get(module) or (
            ((int(match[1]),), within.index(match[2])) if match and match[2] in within else None
        )

    return place


_PYTORCH = _named(
    ("_conv_stem", "_bn0"),
    r"_blocks\.(\d+)\.(\w+)",
    ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_se_reduce", "_se_expand", "_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
    "_fc",
)
_HUGGING_FACE = _named(
    ("efficientnet.embeddings.convolution", "efficientnet.embeddings.batchnorm"),
    r"efficientnet\.encoder\.blocks\.(\d+)\.([\w.]+)",
    (
        "expansion.expand_conv",
        "expansion.expand_bn",
        "depthwise_conv.depthwise_conv",
        "depthwise_conv.depthwise_norm",
        "squeeze_excite.reduce",
        "squeeze_excite.expand",
        "projection.project_conv",
        "projection.project_bn",
    ),
    ("efficientnet.encoder.top_conv", "efficientnet.encoder.top_bn"),
    "classifier",
)
_MOBILE = [
    f"{layer}.{part}" for layer in ("expand_1x1", "conv_3x3", "reduce_1x1") for part in ("convolution", "normalization")
]
_MOBILENET_OUTSIDE = _named(
    ("mobilenet_v2.conv_stem.first_conv.convolution", "mobilenet_v2.conv_stem.first_conv.normalization"),
    r"mobilenet_v2\.layer\.(\d+)\.([\w.]+)",
    _MOBILE,
    ("mobilenet_v2.conv_1x1.convolution", "mobilenet_v2.conv_1x1.normalization"),
    "classifier",
)


def _mobilenet_v2(module: str) -> Place | None:
    """The first block stands in its ``conv_stem``, which expands nothing."""
    first = re.fullmatch(r"mobilenet_v2\.conv_stem\.((?:conv_3x3|reduce_1x1)\.\w+)", module)
    return ((-1, 0), _MOBILE.index(first[1])) if first else _MOBILENET_OUTSIDE(module)


INVERTED_RESIDUALS = (
    Convention(
        "torchvision's MobileNet or EfficientNet",
        r"features\.1\.(\d\.)?(conv|block)\.0\.0\.weight",
        _in_order(_torchvision),
        _torchvision_arguments,
    ),
    Convention(
        "efficientnet_pytorch", r"_blocks\.0\._depthwise_conv\.weight", _in_order(_PYTORCH), _tensorflow_arguments
    ),
    Convention(
        "transformers' EfficientNet",
        r"efficientnet\.embeddings\.convolution\.weight",
        _in_order(_HUGGING_FACE),
        _tensorflow_arguments,
    ),
    Convention(
        "transformers' MobileNetV2",
        r"mobilenet_v2\.conv_stem\.first_conv\.convolution\.weight",
        _in_order(_mobilenet_v2),
        _tensorflow_arguments,
    ),
)
