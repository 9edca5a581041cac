"""A network's weights as safetensors for others to load, and the lines of Python that load them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from kdpipe.errors import NetworkError
from kdpipe.files import scratch_folder, write_atomic
from kdpipe.models.literature import LITERATURE
from kdpipe.models.saved import read_network
from kdpipe.models.timm_models import STEM_POOLS
from kdpipe.models.weights import own_state
from kdpipe.pipeline.delivery.chosen import Chosen


def write_state(path: Path, chosen: Chosen, images: Tensor, metadata: Mapping[str, Any]) -> None:
    """Write a network's state dict: the names of its own module, with a header by which kdpipe builds it.

    Args:
        images: (N, C, H, W) uint8; the file is read again, and must answer them with the very same logits.
        metadata: kept in the header, as JSON.

    Raises:
        NetworkError: what was written is not what was read.
        OSError: the disk does not take it.
    """
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in own_state(chosen.network).items()}
    said = {"class_names": list(chosen.class_names), **metadata}
    header = {"format": "pt", "kdpipe": json.dumps(chosen.header)} | {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(path.parent, f".{path.name}.new-") as folder:
        written = folder / "network.safetensors"
        try:
            save_file(state, written, header)
        except SafetensorError as error:  # a full disk, in the library's own words
            raise OSError(f"{path}: {error}") from None
        _check(written, chosen, images)
        write_atomic(path, written.read_bytes())


def _check(path: Path, chosen: Chosen, images: Tensor) -> None:
    scaled = images.float() / 255.0
    with torch.no_grad():
        same = torch.equal(read_network(path)(scaled).logits, chosen.network(scaled).logits)
    if not same:
        raise NetworkError(f"{chosen.network_id}: read again, its weights answer differently; nothing was written.")


def loading_lines(chosen: Chosen, file: str) -> list[str]:
    """Python that loads a written state dict and gives ``logits`` for ``images`` (B, C, H, W) in [0, 1]."""
    if chosen.header.get("arch") is None or chosen.network.head is not None:
        return _by_kdpipe(chosen, file)
    return _by_timm(chosen, file)


def by_timm(chosen: Chosen) -> bool:
    """Whether timm alone loads the weights."""
    return chosen.header.get("arch") is not None and chosen.network.head is None


def _by_kdpipe(chosen: Chosen, file: str) -> list[str]:
    lines = ["from kdpipe.models import name_factory, read_network" if _is_factory(chosen) else _READ]
    if _is_factory(chosen):
        function = str(chosen.header["factory"]).rpartition(":")[2]
        lines.append(f'name_factory("FILE.py:{function}")  # the file that makes the network')
    return [*lines, f"network = read_network({file!r})", "logits = network(images).logits"]


_READ = "from kdpipe.models import read_network"


def _is_factory(chosen: Chosen) -> bool:
    return chosen.header.get("factory") is not None


def _by_timm(chosen: Chosen, file: str) -> list[str]:
    header, (channels, *_) = chosen.header, chosen.image_shape
    classes = header["classes"]
    arguments = "".join(f", {name}={value!r}" for name, value in header["arguments"].items())
    stem = _stem_lines(chosen)
    mean, std = (_numbers(values) for values in (header["mean"], header["std"]))
    side = header.get("image_size")
    resize = f"images = torch.nn.functional.interpolate(images, ({side}, {side}), mode='bilinear', antialias=True)"
    return [
        *(["import kdpipe.models  # tells timm of this architecture"] if header["arch"] in LITERATURE else []),
        "import timm, torch",
        "from safetensors.torch import load_file",
        "",
        f"model = timm.create_model({header['arch']!r}, num_classes={classes}, in_chans={channels}{arguments})",
        *stem,
        f"model.load_state_dict(load_file({file!r}))",
        "model.eval()",
        *([resize] if side is not None else []),
        f"logits = model((images - torch.tensor({mean}).view(1, -1, 1, 1)) / torch.tensor({std}).view(1, -1, 1, 1))",
    ]


def _stem_lines(chosen: Chosen) -> list[str]:
    """What makes timm's stem the small one."""
    if chosen.header["stem"] != "small":
        return []
    model = chosen.network.model
    name = str(getattr(model, "pretrained_cfg", {}).get("first_conv"))
    conv = model.get_submodule(name)
    assert isinstance(conv, nn.Conv2d), "a small stem was put in the place of one"
    modules = dict(model.named_modules())
    bias = conv.bias is not None
    made = (
        f"torch.nn.Conv2d({conv.in_channels}, {conv.out_channels}, 3, stride={conv.stride[0]}, padding=1, bias={bias})"
    )
    pools = [pool for pool in STEM_POOLS if pool in modules]
    return [
        f"model.set_submodule({name!r}, {made})",
        *(f"model.set_submodule({pool!r}, torch.nn.Identity())" for pool in pools),
    ]


def _numbers(values: list[float]) -> list[float]:
    return [float(f"{value:.9g}") for value in values]  # all digits of float32
