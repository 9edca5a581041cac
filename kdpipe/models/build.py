"""Building the network of a section: a timm model, a factory's module, or a classifier of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from kdpipe.errors import NetworkError
from kdpipe.models import factories, huggingface
from kdpipe.models.arrangement import arrangement_of
from kdpipe.models.hooked import Arrangement, HookedNetwork
from kdpipe.models.limits import TooLargeError, limited, refuse_arguments, refuse_size
from kdpipe.models.network import Architecture, Network
from kdpipe.models.timm_models import reason, seeded, timm_model
from kdpipe.models.weights import load_weights, read_header

Shape = tuple[int, int, int]


def build(
    spec: Architecture,
    *,
    image_shape: Shape,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    weights: bool = True,
) -> Network:
    """Make the network of a teacher, student or network section.

    Args:
        mean, std: of the dataset's channels. What the section says comes first, then what pretrained weights, a
            folder of transformers or a network of another study bring along; these are for what neither says.
        seed: of the initial weights. The global random state is left as it was.
        weights: False skips ``pretrained``, ``checkpoint`` and a folder's weights, for those who want shapes alone.

    Raises:
        NetworkError: an unknown name, unfit arguments, too large, no taps, unreadable weights.
    """
    folder = None if spec.folder is None else huggingface.read_folder(Path(spec.folder).expanduser())
    brought: Mapping[str, Any] = {} if folder is None else folder.input
    if weights and spec.checkpoint is not None:
        with suppress(OSError, SafetensorError, KeyError, ValueError):  # a plain state dict says nothing of it
            brought = read_header(Path(spec.checkpoint).expanduser())
    side = spec.image_size or brought.get("image_size")
    shape = image_shape if side is None else (image_shape[0], side, side)
    if spec.arch is not None:
        model, indices, names = timm_model(spec, shape, classes, seed, weights=weights)
        if spec.pretrained and spec.checkpoint is None:
            brought = getattr(model, "pretrained_cfg", {})
        network = Network(model, indices, names, *_scaling(spec, brought, image_shape[0], mean, std), side)
    else:
        kind = "factory" if spec.factory is not None else "folder"
        with seeded(seed), limited():
            made = _module(spec, folder if weights else None, shape, classes, head=spec.as_it_comes)
            arrangement = _arranged(made, spec, shape, classes, kind)
        network = HookedNetwork(made, arrangement, *_scaling(spec, brought, image_shape[0], mean, std), side, kind)
    if weights and spec.checkpoint is not None:
        load_weights(network, Path(spec.checkpoint).expanduser(), head=spec.as_it_comes)
    _try(network.eval(), spec, image_shape)
    return network


def _module(
    spec: Architecture, folder: huggingface.Folder | None, shape: Shape, classes: int, *, head: bool
) -> nn.Module:
    """The module of a factory, of a folder with its weights, or of transformers' description with new ones."""
    if spec.factory is not None:
        refuse_arguments(spec.arguments, loading=True)
        model = factories.make(spec.factory, spec.arguments, classes)
    elif folder is not None:
        _refuse_large_description(folder.config, shape, classes)
        model = huggingface.load(folder, classes, head=head)
    else:
        config = huggingface.description(spec)
        _refuse_large_description(config, shape, classes)
        model = huggingface.model_of(config, classes)
    return model.to("cpu", torch.float32).eval()


def _refuse_large_description(config: dict[str, Any], shape: Shape, classes: int) -> None:
    try:
        refuse_size(lambda: huggingface.model_of(config, classes), shape)
    except TooLargeError as error:
        raise NetworkError(f"folder: its network {error}") from None


def _arranged(model: nn.Module, spec: Architecture, shape: Shape, classes: int, kind: str) -> Arrangement:
    try:
        return arrangement_of(model, shape, classes, spec.layers, kind)
    except TooLargeError as error:
        raise NetworkError(f"{kind}: the network {error}") from None
    except NetworkError:
        raise
    except Exception as error:  # people's modules fail in any way at images that do not fit them
        raise NetworkError(
            f"{kind}: the network cannot take images of shape {shape}: {reason(error)}. Its image_size, or "
            "data.channels, may have to be set."
        ) from None


def _scaling(
    spec: Architecture, brought: Mapping[str, Any], channels: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std: the section's own, or what weights bring along, or the dataset's."""
    if spec.mean is not None and spec.std is not None:
        if len(spec.mean) != channels:
            raise NetworkError(
                f"mean: it has {len(spec.mean)} numbers and the images {channels} channels; give one for each channel."
            )
        return spec.mean, spec.std
    if len(brought.get("mean", ())) == channels:
        return brought["mean"], brought["std"]
    return mean, std


def _try(network: Network, spec: Architecture, image_shape: Shape) -> None:
    """Take two images through a network, of people's own modules twice."""
    try:
        images = torch.zeros(2, *image_shape)
        with torch.no_grad():
            once = network(images).logits
            again = network(images).logits if isinstance(network, HookedNetwork) else once
    except NetworkError:
        raise
    except Exception as error:  # timm's models fail in any way at images or arguments that do not fit them
        raise NetworkError(
            f"arch: {spec.arch!r} cannot take images of shape {image_shape}: {reason(error)}. Transformers want "
            "arguments such as img_size and patch_size."
        ) from None
    if not torch.equal(once.nan_to_num(), again.nan_to_num()):
        raise NetworkError(
            f"{network.origin}: the network gives another answer to the same images each time, in eval mode; switch "
            "off what is random in it."
        )
