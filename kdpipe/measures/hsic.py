"""The Hilbert-Schmidt independence criterion, unbiased: how far two kernels agree on which images are alike.

Nguyen, Raghu and Kornblith (2021), Do wide and deep networks learn the same things?, eq. 3, after Song et al. (2012).
"""

from __future__ import annotations

import numpy as np

from kdpipe.measures.distances import row_slices
from kdpipe.measures.registry import Array


def hsic(a: Array, b: Array) -> float:
    """Unbiased HSIC of centred ``a`` (N, p), ``b`` (N, q) with linear kernels, times N(N - 3).

    Nguyen et al. (2021), eq. 3, reads tr(KL) + 1'K1 1'L1 / ((N-1)(N-2)) - 2 1'KL1 / (N-2) for kernels
    without their diagonals. With centred features the full kernels' rows add up to 0, so only the squared
    lengths u, v of the rows are added to tr(KL): tr(KL) - N/(N-2) u.v + sum(u) sum(v) / ((N-1)(N-2)).
    """
    n = len(a)
    u, v = np.einsum("nd,nd->n", a, a), np.einsum("nd,nd->n", b, b)
    trace = kernel_product(a, b)
    value = trace - n / (n - 2) * float(u @ v) + float(u.sum() * v.sum()) / ((n - 1) * (n - 2))
    return value if abs(value) > 1e-12 * trace else 0.0


def unbiased_hsic(trace: float, row_sums: Array, other_sums: Array) -> float:
    """Nguyen et al. (2021), eq. 3, times N(N - 3), from tr(KL) and the row sums (N,) of K and L without diagonals."""
    n = len(row_sums)
    correction = row_sums.sum() * other_sums.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (row_sums @ other_sums)
    value = float(trace + correction)
    return value if abs(value) > 1e-12 * trace else 0.0


def normalised(value: float, own: float, other: float) -> float:
    """HSIC of two layers over the root of their HSICs with themselves, or 0 where either of those is."""
    return float(np.clip(value / np.sqrt(own * other), -1, 1)) if own > 0 and other > 0 else 0.0


def kernel_product(a: Array, b: Array) -> float:
    """tr(aa'bb'): through the p x q cross-product, or through blocks of the N x N kernels if that is less."""
    n, p, q = len(a), a.shape[1], b.shape[1]
    if p * q <= n * (p + q):
        return float(np.square(a.T @ b).sum())
    return float(sum(((a[part] @ a.T) * (b[part] @ b.T)).sum() for part in row_slices(n, n)))
