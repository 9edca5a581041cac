"""Networks as files: weights with everything that is needed to build the network again."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from kdpipe.errors import NetworkError
from kdpipe.models.build import build
from kdpipe.models.factories import identity
from kdpipe.models.huggingface import description
from kdpipe.models.limits import ACTIVATIONS, limited
from kdpipe.models.network import Architecture, Network, ReusedHead
from kdpipe.models.weights import give_head, load_weights, own_state, read_header


@dataclass(frozen=True)
class SavedArchitecture:
    """An :class:`Architecture` as it stands in the header of a safetensors file.

    A factory stands there by its content, a network of transformers by its description: the file needs no folder.
    """

    arch: str | None
    arguments: dict[str, Any]
    stem: str
    stem_stride: int
    layers: str | list[str]
    pretrained: bool = False
    checkpoint: str | None = None
    factory: str | None = None
    config: dict[str, Any] | None = None
    image_size: int | None = None
    folder: None = None
    mean: None = None  # what images are scaled by is asked of whoever builds
    std: None = None
    as_it_comes: bool = False

    def __post_init__(self) -> None:
        if sum(origin is not None for origin in (self.arch, self.factory, self.config)) != 1:
            raise ValueError("it does not say what the network is")


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
        NetworkError: its state is not made of plain tensors.
        OSError: the disk does not take it.
    """
    header = {
        **_origin(spec),
        "arguments": spec.arguments,
        "stem": spec.stem,
        "stem_stride": spec.stem_stride,
        "layers": spec.layers if spec.arch is not None else network.names,
        "image_shape": list(image_shape),
        "classes": classes,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        **({} if network.image_size is None else {"image_size": network.image_size}),
        **({} if network.head is None else {"head": network.head.config}),
    }
    state = {name: tensor for name, tensor in own_state(network).items() if name not in without}
    try:
        save_file(_unshared(state), path, {"kdpipe": json.dumps(header)})
    except SafetensorError as error:  # a full disk, in the library's own words
        raise OSError(f"{path}: {error}") from None


def _origin(spec: Architecture) -> dict[str, Any]:
    """What the network is: a timm name, a factory's content, or transformers' description."""
    if spec.arch is not None:
        return {"arch": spec.arch}
    if spec.factory is not None:
        return {"factory": identity(spec.factory)}
    return {"config": description(spec)}


def _unshared(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors that own their memory, as safetensors asks; tied weights are written as often as they are named."""
    written: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_complex():
            raise NetworkError(f"factory: the state of the network holds {name}, which is no plain tensor of numbers.")
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        written[name] = plain.clone() if place in places else plain
        places.add(place)
    return written


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
        spec = SavedArchitecture(**{"arch": None, **header})
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
    possible = all(type(count) is int and count > 0 for count in counts)
    if len(image_shape) != 3 or not possible or math.prod(image_shape) > ACTIVATIONS:
        raise ValueError(f"images of shape {image_shape} in {classes} classes")
