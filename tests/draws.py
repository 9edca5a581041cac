"""Tensors drawn from a seed, and whether two sets of weights are the same."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lattice(*shape: int, phase: float = 0.0) -> Tensor:
    """Sines of whole numbers, which any other program draws alike: what golden values are worked out on."""
    return (torch.arange(math.prod(shape), dtype=torch.float64) + phase).sin().view(shape)
