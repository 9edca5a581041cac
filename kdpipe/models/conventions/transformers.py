"""Names of Hugging Face's transformers, in the files of its versions 4 and 5, for networks with a classifier."""

from __future__ import annotations

import re

from kdpipe.models.conventions.convention import Convention, Renames, renaming


def _resnet_layer(match: re.Match[str]) -> str:
    place = f"layer{int(match[1]) + 1}.{match[2]}"
    if match[3] == "shortcut":
        return f"{place}.downsample.{'0' if match[4] == 'convolution' else '1'}.{match[5]}"
    number = int(match[3].rpartition(".")[2]) + 1
    return f"{place}.{'conv' if match[4] == 'convolution' else 'bn'}{number}.{match[5]}"


_LAYER = r"encoder\.stages\.(\d+)\.layers\.(\d+)\."
_RESNET: Renames = (
    (r"resnet\.embedder\.embedder\.convolution\.(\w+)", r"conv1.\1"),
    (r"resnet\.embedder\.embedder\.normalization\.(\w+)", r"bn1.\1"),
    (rf"resnet\.{_LAYER}(shortcut|layer\.\d+)\.(convolution|normalization)\.(\w+)", _resnet_layer),
    (r"classifier\.1\.(\w+)", r"fc.\1"),
)


def _regnet_layer(match: re.Match[str]) -> str:
    place, part = f"s{int(match[1]) + 1}.b{int(match[2]) + 1}", "conv" if match[4] == "convolution" else "bn"
    # With squeeze-and-excitation the third convolution is the layer's fourth part.
    layers = {"shortcut": "downsample", "layer.0": "conv1", "layer.1": "conv2", "layer.2": "conv3", "layer.3": "conv3"}
    return f"{place}.{layers[match[3]]}.{part}.{match[5]}"


_REGNET: Renames = (
    (r"regnet\.embedder\.embedder\.convolution\.(\w+)", r"stem.conv.\1"),
    (r"regnet\.embedder\.embedder\.normalization\.(\w+)", r"stem.bn.\1"),
    (rf"regnet\.{_LAYER}(shortcut|layer\.[0-3])\.(convolution|normalization)\.(\w+)", _regnet_layer),
    (
        rf"regnet\.{_LAYER}layer\.2\.attention\.([02])\.(\w+)",
        lambda m: f"s{int(m[1]) + 1}.b{int(m[2]) + 1}.se.fc{1 if m[3] == '0' else 2}.{m[4]}",
    ),
    (r"classifier\.1\.(\w+)", r"head.fc.\1"),
)

_CONVNEXT_LAYERS = {
    "dwconv": "conv_dw",
    "layernorm": "norm",
    "pwconv1": "mlp.fc1",
    "pwconv2": "mlp.fc2",
    "layer_scale_parameter": "gamma",
}
_CONVNEXT: Renames = (
    (r"convnext\.embeddings\.patch_embeddings\.(\w+)", r"stem.0.\1"),
    (r"convnext\.embeddings\.layernorm\.(\w+)", r"stem.1.\1"),
    (
        r"convnext\.encoder\.stages\.(\d+)\.layers\.(\d+)\.(\w+)(\.\w+)?",
        lambda m: f"stages.{m[1]}.blocks.{m[2]}.{_CONVNEXT_LAYERS.get(m[3], m[3])}{m[4] or ''}",
    ),
    (r"convnext\.encoder\.stages\.(\d+)\.downsampling_layer\.([01])\.(\w+)", r"stages.\1.downsample.\2.\3"),
    (r"convnext\.layernorm\.(\w+)", r"head.norm.\1"),
    (r"classifier\.(\w+)", r"head.fc.\1"),
)

# A layer of ViT, DeiT and Swin, as version 4 and as version 5 calls it.
_PARTS = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "mlp.fc1": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc2": "mlp.fc2",
    **{
        f"attention.{inner}.{word}": f"attn.{word[0]}"
        for inner in ("attention", "self")
        for word in ("query", "key", "value")
    },
    **{f"attention.{letter}_proj": f"attn.{letter}" for letter in "qkv"},
}
_PART = "|".join(re.escape(part) for part in _PARTS)
_VIT: Renames = (
    (r"(?:vit|deit)\.embeddings\.cls_token", "cls_token"),
    (r"(?:vit|deit)\.embeddings\.distillation_token", "dist_token"),
    (r"(?:vit|deit)\.embeddings\.position_embeddings", "pos_embed"),
    (r"(?:vit|deit)\.embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (
        rf"(?:vit|deit)\.(?:encoder\.layer|layers)\.(\d+)\.({_PART})\.(\w+)",
        lambda m: f"blocks.{m[1]}.{_PARTS[m[2]]}.{m[3]}",
    ),
    (r"(?:vit|deit)\.layernorm\.(\w+)", r"norm.\1"),
    (r"(?:cls_)?classifier\.(\w+)", r"head.\1"),
    (r"distillation_classifier\.(\w+)", r"head_dist.\1"),
)


def _downsampling(match: re.Match[str]) -> str:
    return f"layers.{int(match[1]) + 1}.downsample.{match[2]}.{match[3]}"  # timm begins a stage with it


_TABLE = r"(?:self\.|relative_position_bias\.)relative_position_bias_table"
_SWIN: Renames = (
    (r"swin\.embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (r"swin\.embeddings\.norm\.(\w+)", r"patch_embed.norm.\1"),
    (
        rf"swin\.encoder\.layers\.(\d+)\.blocks\.(\d+)\.({_PART})\.(\w+)",
        lambda m: f"layers.{m[1]}.blocks.{m[2]}.{_PARTS[m[3]]}.{m[4]}",
    ),
    (
        rf"swin\.encoder\.layers\.(\d+)\.blocks\.(\d+)\.attention\.{_TABLE}",
        r"layers.\1.blocks.\2.attn.relative_position_bias_table",
    ),
    (r"swin\.encoder\.layers\.(\d+)\.downsample\.(reduction|norm)\.(\w+)", _downsampling),
    (r"swin\.layernorm\.(\w+)", r"norm.\1"),
    (r"classifier\.(\w+)", r"head.fc.\1"),
)

TRANSFORMERS = (
    Convention("transformers' ResNet", r"resnet\.embedder\.embedder\.convolution\.weight", renaming(_RESNET)),
    Convention("transformers' RegNet", r"regnet\.embedder\.embedder\.convolution\.weight", renaming(_REGNET)),
    Convention("transformers' ConvNeXt", r"convnext\.embeddings\.patch_embeddings\.weight", renaming(_CONVNEXT)),
    Convention("transformers' ViT", r"(vit|deit)\.embeddings\.cls_token", renaming(_VIT)),
    Convention("transformers' Swin", r"swin\.embeddings\.patch_embeddings\.projection\.weight", renaming(_SWIN)),
)
