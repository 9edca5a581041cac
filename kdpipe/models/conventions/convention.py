"""A convention: a library's names for tensors, and how to say them in timm's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]
Renames = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]


def as_timms(arch: str) -> dict[str, Any]:
    """No arguments: timm's model computes the same as the library's."""
    return {}


@dataclass(frozen=True)
class Convention:
    """How one library calls the tensors of one family of networks.

    Attributes:
        title: whose names, in which family.
        mark: a regular expression that one of its names, and none of timm's, matches.
        translate: (state, model, arch) to the state under timm's names; None where it cannot be. What it does not know
            stays as it is.
        arguments: what timm's model of an architecture must be made with to compute the same: another epsilon, say.
    """

    title: str
    mark: str
    translate: Callable[[State, nn.Module, str], State | None]
    arguments: Callable[[str], dict[str, Any]] = as_timms

    def applies(self, state: State) -> bool:
        """Whether a state dict may follow it."""
        return any(re.fullmatch(self.mark, name) for name in state)


def renaming(renames: Renames) -> Callable[[State, nn.Module, str], State]:
    """A translation that renames by regular expressions; of those that match a whole name, the first counts."""
    compiled = [(re.compile(pattern), new) for pattern, new in renames]

    def rename(name: str) -> str:
        for pattern, new in compiled:
            if match := pattern.fullmatch(name):
                return new(match) if callable(new) else match.expand(new)
        return name

    return lambda state, model, arch: joined({rename(name): tensor for name, tensor in state.items()})


def joined(state: State) -> dict[str, Tensor]:
    """Queries, keys and values of their own (``….attn.q.weight``) as timm's one tensor of all three."""
    whole: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(.*\.attn\.)([qkv])\.(weight|bias)", name)
        parts = [f"{match[1]}{part}.{match[3]}" for part in "qkv"] if match else []
        if match is None or not all(part in state for part in parts):
            whole[name] = tensor
        elif match[2] == "q":
            whole[f"{match[1]}qkv.{match[3]}"] = torch.cat([state[part] for part in parts])
    return whole
