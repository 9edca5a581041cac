"""Arithmetic that losses share: precision, and vectors at unit length."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")


def full_precision(loss: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """A loss outside of autocast, which would take its matrix products to half precision."""

    @wraps(loss)
    def outside(*tensors: Arguments.args, **parameters: Arguments.kwargs) -> Tensor:
        example: Any = tensors[0] if tensors else next(iter(parameters.values()))
        while not isinstance(example, Tensor):
            example = example[0]
        with torch.autocast(example.device.type, enabled=False):
            return loss(*tensors, **parameters)

    return outside


def wide(tensor: Tensor) -> Tensor:
    """A tensor of any shape in at least float32: half precision goes up, float64 stays."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def unit(vectors: Tensor) -> Tensor:
    """Vectors (..., D) at Euclidean length 1; one of no length stays zero and gives no gradient.

    Dividing by a length that is clamped from below gives the zero vector a slope of 1 / clamp instead.
    """
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    none = length <= 1e-12
    return (vectors / length.masked_fill(none, 1.0)).masked_fill(none, 0.0)


# A vector is constant, up to float32's rounding, whose deviations are shorter than this share of itself
_CONSTANT = 1e-6
# or than this length, whose square float32 hardly holds.
_NOTHING = 1e-15


def unit_deviation(tensor: Tensor, dim: int) -> Tensor:
    """Deviations from the mean along ``dim``, at unit length; zero, without a gradient, where there are none.

    Two such vectors multiply to Pearson's correlation; times sqrt(n - 1) they are z-scores. A small number
    added to the length would leave constant vectors, such as a zero-initialised classifier's logits, with
    a gradient of 1 over that number.
    """
    deviation = tensor - tensor.mean(dim, keepdim=True)
    length = deviation.norm(dim=dim, keepdim=True)
    varies = length > (_CONSTANT * tensor.norm(dim=dim, keepdim=True)).clamp_min(_NOTHING)
    return deviation / torch.where(varies, length, torch.inf)
