"""Networks as files: weights with everything that is needed to build the network again."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from kdpipe.errors import NetworkError
from kdpipe.models.build import build
from kdpipe.models.limits import limited
from kdpipe.models.network import Architecture, Network, ReusedHead
from kdpipe.models.weights import give_head, load_weights, own_state, read_header


@dataclass(frozen=True)
class SavedArchitecture:
    """An :class:`Architecture` as it stands in the header of a safetensors file."""

    arch: str
    arguments: dict[str, Any]
    stem: str
    stem_stride: int
    layers: str | list[str]
    pretrained: bool = False
    checkpoint: str | None = None


def write_network(
    path: Path,
    network: Network,
    spec: Architecture,
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    without: Collection[str] = (),
) -> None:
    """Write a network as safetensors; its header says how to build it, so that it loads from the file alone.

    Args:
        without: names of tensors that are left out; such a file starts a training and is no whole network.

    Raises:
        OSError: the disk does not take it.
    """
    header = {
        "arch": spec.arch,
        "arguments": spec.arguments,
        "stem": spec.stem,
        "stem_stride": spec.stem_stride,
        "layers": spec.layers,
        "image_shape": list(image_shape),
        "classes": classes,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        **({} if network.head is None else {"head": network.head.config}),
    }
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in own_state(network).items() if name not in without
    }
    try:
        save_file(state, path, {"kdpipe": json.dumps(header)})
    except SafetensorError as error:  # a full disk, in the library's own words
        raise OSError(f"{path}: {error}") from None


def read_network(path: str | Path) -> Network:
    """A trained network of a study, in eval mode; it takes images in [0, 1] and returns :class:`Outputs`.

    Raises:
        NetworkError: not a safetensors file that kdpipe wrote.
    """
    try:
        header = read_header(path)
        shape, classes = tuple(header.pop("image_shape")), header.pop("classes")
        mean, std = header.pop("mean"), header.pop("std")
        head = header.pop("head", None)
        spec = SavedArchitecture(**header)
        _refuse_shape(shape, classes)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise NetworkError(f"{path}: not a network that kdpipe wrote ({error}).") from None
    network = build(spec, image_shape=shape, classes=classes, mean=mean, std=std, seed=0, weights=False)
    if head is not None:
        try:
            with limited():
                reused = ReusedHead(head["channels"], tuple(head["size"]), head["width"], head["classes"])
        except (KeyError, TypeError, ValueError, RuntimeError, NetworkError) as error:
            raise NetworkError(f"{path}: no head can be built from its header ({error}).") from None
        give_head(network, reused)
    load_weights(network, Path(path), head=True)
    return network.eval()


def _refuse_shape(image_shape: tuple[Any, ...], classes: Any) -> None:
    counts = (*image_shape, classes)
    if len(image_shape) != 3 or not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(f"images of shape {image_shape} in {classes} classes")
