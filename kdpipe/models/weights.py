"""Loading weights into a network from a safetensors file, with errors that say what does not fit."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from kdpipe.errors import NetworkError
from kdpipe.models.factories import is_identity
from kdpipe.models.network import HEAD, Network, ReusedHead

_KINDS = {
    "arch": str,
    "factory": str,
    "config": dict,
    "arguments": dict,
    "image_size": int,
    "mean": list,
    "std": list,
}


def read_header(path: str | Path) -> dict[str, Any]:
    """What a safetensors file of kdpipe says about its network.

    Raises:
        OSError, SafetensorError: not a safetensors file.
        KeyError: a safetensors file without such a header.
        ValueError: a header that makes no sense.
    """
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {})["kdpipe"]
    try:
        header = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    for field, kind in _KINDS.items():
        if not isinstance(header.get(field, kind()), kind):
            raise ValueError(f"its header's {field} is {header[field]!r}")
    if "factory" in header and not is_identity(header["factory"]):  # a file's place, which a header may not choose
        raise ValueError(f"its header's factory is {header['factory']!r}")
    mean, std = header.get("mean", []), header.get("std", [])
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in [*mean, *std])
    if len(mean) != len(std) or not numbers or any(value <= 0 for value in std):
        raise ValueError(f"its header's mean {mean} and std {std} do not scale images")
    return header


def give_head(network: Network, head: ReusedHead) -> None:
    """Let a network end in another's classifier; its own is removed."""
    network.drop_classifier()
    network.head = head


def own_state(network: Network) -> dict[str, Tensor]:
    """All weights, those of a reused head under a prefix of their own."""
    head = network.head.state_dict() if network.head is not None else {}
    return {**network.model.state_dict(), **{f"{HEAD}{name}": tensor for name, tensor in head.items()}}


def not_safetensors(path: Path) -> str:
    """What to do about a checkpoint in another format, as a sentence."""
    return (
        f"{path} is not a .safetensors file; pickled checkpoints can run code when loaded, so a study takes none: "
        f"`kdpipe convert {path} --like ARCH` (timm's name, or my_models.py:build) makes it one without running any."
    )


def _other_names(network: Network, own: Collection[str], state: Collection[str], path: Path) -> str:
    """What to do about names that a network does not have, as the end of a sentence."""
    arch = getattr(network.model, "pretrained_cfg", {}).get("architecture", "ARCH")
    command = f"`kdpipe convert {path} --like {arch} --output FILE`"
    prefix = next(iter(state), "").partition(".")[0] + "."
    if all(name.startswith(prefix) for name in state) and any(name.removeprefix(prefix) in own for name in state):
        return f"all its names begin with {prefix!r}, which {command} takes off."
    return (
        f"use the architecture and arguments it was saved with; names of another program {command} turns into timm's."
    )


def load_weights(network: Network, path: Path, *, head: bool = False) -> None:
    """Load a state dict from a local safetensors file.

    Args:
        head: whether the classifier must be there and fit, as in a network that is not trained any more;
            otherwise one of another size, or none at all, leaves the network's own.

    Raises:
        NetworkError: not safetensors, missing, or tensors that do not fit.
    """
    if path.suffix != ".safetensors":
        raise NetworkError(f"checkpoint: {not_safetensors(path)}")
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise NetworkError(f"checkpoint: there is no file {path}.") from None
    except (SafetensorError, OSError) as error:
        raise NetworkError(f"checkpoint: {path} is damaged or no safetensors file ({error}).") from None
    own = own_state(network)
    _refuse_other_channels(network, own, state, path)
    classifiers = tuple(f"{name}." for name in network.classifier_names)
    remedy, other_names = (
        "use the architecture and arguments it was saved with.",
        _other_names(network, own, state, path),
    )
    untrained = (
        "so the classifier would be new and untrained; take data of the classes that it tells apart, train it "
        "(training.steps) or name another checkpoint."
    )
    for name in list(state):
        if name not in own or state[name].shape == own[name].shape:
            continue
        if name.startswith(classifiers) and not head:
            del state[name]
            continue
        raise NetworkError(
            f"checkpoint: {path}: {name} has shape {tuple(state[name].shape)}, the network "
            f"{tuple(own[name].shape)}{f', {untrained}' if name.startswith(classifiers) else f'; {remedy}'}"
        )
    missing = [name for name in own if name not in state and (head or not name.startswith(classifiers))]
    if missing:
        alone = all(name in own for name in state)
        why = f", {untrained}" if missing[0].startswith(classifiers) else f"; {remedy if alone else other_names}"
        near = difflib.get_close_matches(missing[0], [name for name in state if name not in own], n=1)
        raise NetworkError(f"checkpoint: {path} lacks {missing[0]}{f' and has {near[0]}' if near else ''}{why}")
    if unknown := [name for name in state if name not in own]:
        raise NetworkError(f"checkpoint: {path} has {unknown[0]}, which the network has not; {other_names}")
    network.model.load_state_dict({n: t for n, t in state.items() if not n.startswith(HEAD)}, strict=False)
    if network.head is not None:
        network.head.load_state_dict({n.removeprefix(HEAD): t for n, t in state.items() if n.startswith(HEAD)})


def _refuse_other_channels(network: Network, own: dict[str, Tensor], state: dict[str, Tensor], path: Path) -> None:
    name = f"{getattr(network.model, 'pretrained_cfg', {}).get('first_conv')}.weight"
    if name in own and name in state and own[name].ndim == state[name].ndim == 4:
        mine, its = own[name].shape, state[name].shape
        if mine[1] != its[1] and (mine[0], *mine[2:]) == (its[0], *its[2:]):
            raise NetworkError(
                f"checkpoint: {path} takes images of {its[1]} channels and the study's have {mine[1]}; "
                f"set data.channels = {its[1]} or name another checkpoint."
            )
