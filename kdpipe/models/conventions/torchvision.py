"""Names of torchvision's networks. Its ResNets, ResNeXts and DenseNets have timm's; timm itself knows its VGGs."""

from __future__ import annotations

import re

from torch import nn

from kdpipe.models.conventions.convention import Convention, Renames, State, renaming

_VIT: Renames = (
    (r"class_token", "cls_token"),
    (r"conv_proj\.(\w+)", r"patch_embed.proj.\1"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.ln\.(\w+)", r"norm.\1"),
    (r"heads\.head\.(\w+)", r"head.\1"),
)


def _stage(text: str) -> int:
    """Even places of ``features`` lead to a stage, odd ones are one."""
    return (int(text) - 1) // 2


_CONVNEXT_LAYERS = {"0": "conv_dw", "2": "norm", "3": "mlp.fc1", "5": "mlp.fc2"}
_CONVNEXT: Renames = (
    (r"features\.0\.([01])\.(\w+)", r"stem.\1.\2"),
    (r"features\.(\d+)\.(\d+)\.layer_scale", lambda m: f"stages.{_stage(m[1])}.blocks.{m[2]}.gamma"),
    (
        r"features\.(\d+)\.(\d+)\.block\.([0235])\.(\w+)",
        lambda m: f"stages.{_stage(m[1])}.blocks.{m[2]}.{_CONVNEXT_LAYERS[m[3]]}.{m[4]}",
    ),
    (r"features\.(\d*[2468])\.([01])\.(\w+)", lambda m: f"stages.{int(m[1]) // 2}.downsample.{m[2]}.{m[3]}"),
    (r"classifier\.0\.(\w+)", r"head.norm.\1"),
    (r"classifier\.2\.(\w+)", r"head.fc.\1"),
)


def _convnext(state: State, model: nn.Module, arch: str) -> State:
    renamed = renaming(_CONVNEXT)(state, model, arch)
    return {name: tensor.flatten() if name.endswith(".gamma") else tensor for name, tensor in renamed.items()}


_SWIN_LAYERS = {"mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2"}
_SWIN: Renames = (
    (r"features\.0\.0\.(\w+)", r"patch_embed.proj.\1"),
    (r"features\.0\.2\.(\w+)", r"patch_embed.norm.\1"),
    (
        r"features\.(\d+)\.(\d+)\.(mlp\.[03])\.(\w+)",
        lambda m: f"layers.{_stage(m[1])}.blocks.{m[2]}.{_SWIN_LAYERS[m[3]]}.{m[4]}",
    ),
    (r"features\.(\d+)\.(\d+)\.((?:attn|norm).*)", lambda m: f"layers.{_stage(m[1])}.blocks.{m[2]}.{m[3]}"),
    (r"features\.(\d+)\.(reduction|norm)\.(\w+)", lambda m: f"layers.{int(m[1]) // 2}.downsample.{m[2]}.{m[3]}"),
    (r"head\.(\w+)", r"head.fc.\1"),
)

_REGNET_LAYERS = {"0": "conv", "1": "bn"}


def _regnet_layer(match: re.Match[str]) -> str:
    place, part = f"s{match[1]}.b{int(match[2]) + 1}", _REGNET_LAYERS[match[4]]
    layer = "downsample" if match[3] == "proj" else f"conv{'abc'.index(match[3][-1]) + 1}"
    return f"{place}.{layer}.{part}.{match[5]}"


_REGNET: Renames = (
    (r"stem\.([01])\.(\w+)", lambda m: f"stem.{_REGNET_LAYERS[m[1]]}.{m[2]}"),
    (r"trunk_output\.block\d+\.block(\d+)-(\d+)\.(proj|f\.[abc])\.([01])\.(\w+)", _regnet_layer),
    (
        r"trunk_output\.block\d+\.block(\d+)-(\d+)\.f\.se\.(fc[12]\.\w+)",
        lambda m: f"s{m[1]}.b{int(m[2]) + 1}.se.{m[3]}",
    ),
    (r"fc\.(\w+)", r"head.fc.\1"),
)

# In torch before 0.4.1 a DenseNet's layers were numbered behind a point: norm.1.weight.
_DENSENET: Renames = ((r"(features\.denseblock\d+\.denselayer\d+\.(?:norm|conv))\.([12]\.\w+)", r"\1\2"),)

TORCHVISION = (
    Convention("torchvision's ViT", r"encoder\.layers\.encoder_layer_0\.ln_1\.weight", renaming(_VIT)),
    Convention("torchvision's ConvNeXt", r"features\.1\.0\.layer_scale", _convnext),
    Convention("torchvision's Swin", r"features\.1\.0\.attn\.qkv\.weight", renaming(_SWIN)),
    Convention("torchvision's RegNet", r"trunk_output\.block1\.block1-0\.f\.a\.0\.weight", renaming(_REGNET)),
    Convention(
        "an older torchvision's DenseNet", r"features\.denseblock1\.denselayer1\.norm\.1\.weight", renaming(_DENSENET)
    ),
)
