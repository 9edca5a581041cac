"""Fit: how a state dict lies in a network: what fits, what is missing, what has another shape, what is left over."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]

# Buffers that follow from the architecture, and counters (BatchNorm's, which torch before 0.4.1 lacked, and tools').
# What they hold is computed anew or not needed.
_DERIVED = re.compile(
    r"(.*\.)?(attn_mask|relative_position_index|relative_coords_table|num_batches_tracked|n_averaged|total_ops|"
    r"total_params)"
)


@dataclass(frozen=True)
class Misfit:
    """A tensor that is there and does not fit: shapes, or kinds of numbers."""

    name: str
    theirs: str
    own: str


@dataclass(frozen=True)
class Fit:
    """What :func:`compare` found; names in the network's order, those left over in the file's."""

    fitting: tuple[str, ...]
    missing: dict[str, Shape]
    misfits: tuple[Misfit, ...]
    left_over: dict[str, Shape]

    @property
    def tensors(self) -> int:
        """How many tensors the network has, those that follow from the architecture left out."""
        return len(self.fitting) + len(self.missing) + len(self.misfits)

    @property
    def whole(self) -> bool:
        """Whether every tensor has its place and every place its tensor."""
        return not (self.missing or self.misfits or self.left_over)


def compare(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Fit:
    """Hold a state dict against a network's own.

    Counters, and buffers that follow from the architecture, may be missing and may be left over.
    """
    fitting, misfits, missing = [], [], {}
    for name, tensor in own.items():
        if _DERIVED.fullmatch(name):
            continue
        if name not in state:
            missing[name] = tuple(tensor.shape)
        elif state[name].shape == tensor.shape and state[name].is_floating_point() == tensor.is_floating_point():
            fitting.append(name)
        else:
            misfits.append(Misfit(name, *_described(state[name], tensor)))
    left_over = {
        name: tuple(tensor.shape) for name, tensor in state.items() if name not in own and not _DERIVED.fullmatch(name)
    }
    return Fit(tuple(fitting), missing, tuple(misfits), left_over)


def _described(theirs: Tensor, own: Tensor) -> tuple[str, str]:
    """Their shapes; kinds of numbers where it is those that differ."""
    if theirs.shape != own.shape:
        return str(tuple(theirs.shape)), str(tuple(own.shape))
    return str(theirs.dtype).removeprefix("torch."), str(own.dtype).removeprefix("torch.")


def nearest(name: str, shape: Shape, others: Mapping[str, Shape]) -> str | None:
    """The most similar of other names, one with the same shape before any other."""
    same = [other for other, its in others.items() if its == shape]
    for names in (same, list(others)):
        if near := difflib.get_close_matches(name, names[:500], n=1, cutoff=0.5):
            return near[0]
    return None


def covered(name: str, allowed: Collection[str]) -> bool:
    """Whether a tensor's name, or a module that it lies in, is among those allowed."""
    return any(name == each or name.startswith(f"{each}.") for each in allowed)


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """Name of a tensor with NaN or infinity: no answer could come out of it."""
    return next((name for name, tensor in state.items() if not torch.isfinite(tensor).all()), None)
