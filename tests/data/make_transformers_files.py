"""Write the files of transformers that tests convert: ``python tests/data/make_transformers_files.py``.

Needs ``pip install transformers``; 5.24.0 wrote those that are committed. Small networks are kept whole, with images
and the logits that transformers gives for them, and of large ones the names and shapes.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).resolve().parent / "transformers"
TOKENS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TOKENS |= {"image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-6}
TIMM_TOKENS = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def main() -> None:
    """Write all."""
    torch.manual_seed(0)
    HERE.mkdir(exist_ok=True)
    stages: dict[str, Any] = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
    basic = hf.ResNetConfig(embedding_size=64, layer_type="basic", num_labels=5, **stages)
    keep(
        "resnet",
        hf.ResNetForImageClassification(basic),
        "resnet18",
        {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]},
    )
    keep("vit", hf.ViTForImageClassification(hf.ViTConfig(num_labels=5, **TOKENS)), "vit_tiny_patch16_224", TIMM_TOKENS)
    two = hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(num_labels=5, **TOKENS))
    keep("deit", two, "deit_tiny_distilled_patch16_224", TIMM_TOKENS)
    convnext = hf.ConvNextForImageClassification(hf.ConvNextConfig(num_labels=5, layer_norm_eps=1e-6, **stages))
    keep("convnext", convnext, "convnext_tiny", {"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]})
    windows: dict[str, Any] = {
        "patch_size": 2,
        "embed_dim": 16,
        "depths": [2, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    }
    swin = hf.SwinForImageClassification(hf.SwinConfig(image_size=32, num_labels=5, **windows))
    keep("swin", swin, "swin_tiny_patch4_window7_224", {"img_size": 32, **windows})
    names = {
        "mobilenetv2_100": hf.MobileNetV2ForImageClassification(hf.MobileNetV2Config()),
        "tf_efficientnet_b0": hf.EfficientNetForImageClassification(
            hf.EfficientNetConfig(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280)
        ),
        "regnety_004": hf.RegNetForImageClassification(
            hf.RegNetConfig(embedding_size=32, hidden_sizes=[48, 104, 208, 440], depths=[1, 3, 6, 6], groups_width=8)
        ),
    }
    shapes = {arch: {name: list(t.shape) for name, t in saved(model).items()} for arch, model in names.items()}
    (HERE / "shapes.json").write_text(json.dumps(shapes))


def keep(name: str, model: nn.Module, arch: str, arguments: dict[str, Any]) -> None:
    """Keep a network with images and logits."""
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn(parameter.shape))  # no bias or scale stays what it begins as
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits = model.eval()(pixel_values=images).logits
    state = saved(model)
    header = {"arch": arch, "arguments": json.dumps(arguments)}
    save_file({**state, "try.images": images, "try.logits": logits}, HERE / f"{name}.safetensors", header)


def saved(model: Any) -> dict[str, torch.Tensor]:
    """The tensors of a model as its library writes them into a file."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(Path(folder) / "model.safetensors", framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


if __name__ == "__main__":
    main()
