"""Euclidean distances, a block of rows at a time, and exact where it matters.

|x - y|^2 = |x|^2 + |y|^2 - 2 x.y is one matrix product, many times faster than differences, but it
cancels: in float32 the distance of two near points far from the mean is mostly rounding. So X is
centred, identical rows are exactly 0 apart, and whoever needs the order of near points asks
:func:`exact_squared` for differences. Memory is bounded by ``BLOCK_VALUES``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from kdpipe.measures.registry import Array

BLOCK_VALUES = 2_000_000
# Up to this many dimensions the product is not the bottleneck, so float64 costs nothing.
FLOAT64_UP_TO = 64


@dataclass(frozen=True)
class Points:
    """A checked X (N, d), divided by a power of two (which is exact) so that no square overflows."""

    rows: Array
    scale: float

    def __len__(self) -> int:
        """N."""
        return len(self.rows)

    @cached_property
    def centred(self) -> Array:
        """Rows (N, d) minus their mean, in a precision that costs little."""
        return self.in_precision(np.float64 if self.rows.shape[1] <= FLOAT64_UP_TO else np.float32)

    def in_precision(self, dtype: type) -> Array:
        """Rows minus their mean (N, d), rounded once."""
        mean = self.rows.mean(axis=0, dtype=np.float64)
        if self.rows.dtype == np.float32 and dtype == np.float32:
            return np.ascontiguousarray(self.rows - mean.astype(np.float32))
        return np.subtract(self.rows, mean, dtype=np.float64).astype(dtype, order="C")

    @cached_property
    def norms(self) -> Array:
        """Squared length (N,) of the centred rows."""
        return np.asarray(np.einsum("nd,nd->n", self.centred, self.centred))

    @cached_property
    def first(self) -> Array:
        """For each row (N,) the index of the first row identical to it; dead ReLUs give many such rows."""
        seen: dict[bytes, int] = {}
        positive_zero = self.rows + self.rows.dtype.type(0)
        return np.array([seen.setdefault(row.tobytes(), i) for i, row in enumerate(positive_zero)])

    @cached_property
    def has_duplicates(self) -> bool:
        """Whether any two rows are identical."""
        return bool((self.first != np.arange(len(self))).any())


def points(X: Array, least: int = 1) -> Points:
    """Check ``X`` (N, d) and make it ready.

    Raises:
        ValueError: not two-dimensional, fewer than ``least`` rows, no columns, or NaN or infinity.
    """
    rows = np.asarray(X)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"X must be a table of N rows and d columns, not of shape {rows.shape}.")
    if len(rows) < least:
        raise ValueError(f"X must have at least {least} rows, not {len(rows)}.")
    rows = rows if rows.dtype == np.float64 else rows.astype(np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("X holds NaN or infinity.")
    exponent = int(np.frexp(np.abs(rows).max())[1])
    return Points(np.ldexp(rows, -exponent), float(np.ldexp(1.0, exponent)))


def standardise(X: Array) -> Array:
    """``X`` (N, d) with each column at mean 0 and standard deviation 1 (of the N rows); constant columns at 0.

    A column counts as constant where all its values are the same, not where they are nearly so. Each is first
    put on [0, 1], so that none is lost next to a column a million times as wide. Identical rows stay identical.

    Returns:
        float64 for a float64 X, else float32.

    Raises:
        ValueError: as :func:`points`.
    """
    rows = points(X).rows
    low = rows.min(axis=0)
    spread = np.subtract(rows.max(axis=0), low, dtype=np.float64)
    varies = spread > 0
    unit = np.subtract(rows, low, dtype=np.float64) / np.where(varies, spread, 1)
    unit -= unit.mean(axis=0)
    unit /= np.where(varies, unit.std(axis=0), 1)
    return unit.astype(rows.dtype)


def check_labels(y: Array, n: int) -> Array:
    """``y`` as an array (n,) of whole numbers, or ValueError."""
    labels = np.asarray(y)
    if labels.shape != (n,):
        raise ValueError(f"y must hold one label for each of the {n} rows of X, not have shape {labels.shape}.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"y must hold whole numbers, not {labels.dtype}.")
    return labels


def row_slices(n: int, width: int) -> list[slice]:
    """Slices of ``n`` rows, each of about ``BLOCK_VALUES`` values where a row has ``width`` of them."""
    height = max(1, BLOCK_VALUES // width)
    return [slice(start, min(start + height, n)) for start in range(0, n, height)]


def squared_blocks(of: Points) -> Iterator[tuple[Array, Array]]:
    """Yield the indices of a block of rows (B,) and their squared distances (B, N) to all rows.

    Divided by ``scale`` squared, never negative, exactly 0 to itself and to identical rows; elsewhere to
    within rounding. The caller may overwrite the block.
    """
    n = len(of)
    for part in row_slices(n, n):
        rows = np.arange(part.start, part.stop)
        squared = of.centred[rows] @ of.centred.T
        squared *= -2
        squared += of.norms[rows, None]
        squared += of.norms
        np.maximum(squared, 0, out=squared)
        squared[np.arange(len(rows)), rows] = 0
        if of.has_duplicates:
            squared[of.first[rows, None] == of.first] = 0
        yield rows, squared


def exact_squared(of: Points, rows: Array, columns: Array) -> Array:
    """Squared distances (B, m) of ``rows`` (B,) to ``columns`` (B, m) from differences, added up in float64."""
    every = torch.from_numpy(of.rows)
    one = torch.from_numpy(np.repeat(rows, columns.shape[1]).astype(np.int64))
    other = torch.from_numpy(columns.reshape(-1).astype(np.int64))
    result = torch.empty(len(one), dtype=torch.float64)
    for part in row_slices(len(one), every.shape[1]):
        difference = every.index_select(0, one[part]).sub_(every.index_select(0, other[part]))
        torch.sum(difference.square_(), 1, dtype=torch.float64, out=result[part])
    return result.numpy().reshape(columns.shape)
