"""Rank correlation, for measures that ask for the order of distances and similarities and not for their size."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from kdpipe.measures.registry import Array


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's rho of two rows of values (N,), equal ones at their mean rank; 0 if all values of one are equal.

    ``scipy.stats.spearmanr`` warns of equal values and gives NaN, and works out a p value that nobody asks for.
    """
    a, b = rankdata(a), rankdata(b)
    a -= a.mean()
    b -= b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(np.clip(a @ b / scale, -1, 1)) if scale > 0 else 0.0
