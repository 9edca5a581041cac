"""Checkpoints to convert, and what a conversion of a tiny ResNet is held against."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kdpipe.config.preflight import run_preflight
from kdpipe.config.study_file import read_study
from kdpipe.models import Conversion, Scaling, convert

ARGUMENTS = {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}
PLAIN = Scaling((0.0,) * 3, (1.0,) * 3)


def a_resnet(classes: int = 5) -> nn.Module:
    """A tiny timm ResNet, the same at every call."""
    torch.manual_seed(0)
    return tried(timm.create_model("resnet18", num_classes=classes, **ARGUMENTS))


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


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors behind a prefix."""
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def saved(value: Any) -> bytes:
    """What ``torch.save`` writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def converted(path: Path, arch: str = "resnet18", **asked: Any) -> Conversion:
    """A file held against the tiny ResNet, or another network, for small images that are not scaled."""
    return convert(path, arch, **{"arguments": ARGUMENTS, "scaling": PLAIN, "image_size": 32, **asked})


def same_logits(model: nn.Module, conversion: Conversion, tolerance: float = 1e-5) -> bool:
    """Whether a model and what was converted of it answer alike, up to a share of the largest logit."""
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, found = model(images), conversion.network(images).logits
    assert expected.std() > 1e-4
    return bool((found - expected).abs().max() < tolerance * expected.abs().max().clamp(min=1))


SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]}


def an_older_swin() -> tuple[nn.Module, dict[str, Tensor]]:
    """As timm saved it before 0.9: with buffers that are made anew today, and the classifier elsewhere."""
    model = tried(timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **SWIN))
    buffers = {n: b.clone() for n, b in model.named_buffers() if n.endswith("relative_position_index")}
    old = {name.replace("head.fc.", "head."): tensor for name, tensor in model.state_dict().items()}
    return model, {n.replace("layers.1.downsample", "layers.0.downsample"): t for n, t in old.items()} | buffers


def lightning(state: dict[str, Tensor]) -> dict[str, Any]:
    """As Lightning's ModelCheckpoint writes it."""
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.2.0",
        "state_dict": prefixed("model.", state),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(8, 3, 7, 7)}}, "param_groups": [{"lr": 0.1}]}],
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "hyper_parameters": {"name": "resnet18"},
    }


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
    """Look at a study with these lines as a run would."""
    (folder / "tiny.toml").write_text(STUDY % lines)
    run_preflight(read_study(folder / "tiny.toml"), folder)
