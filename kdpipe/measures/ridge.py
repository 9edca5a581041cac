"""Ridge regression, its penalty chosen by exact leave-one-out error: what probes and known factors rest on.

scikit-learn's RidgeCV chooses alike, but decomposes the layer anew for each target, by a slower decomposition; here
one serves all targets and penalties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdpipe.measures.distances import row_slices
from kdpipe.measures.registry import Array
from kdpipe.measures.spectrum import smaller_gram


@dataclass(frozen=True)
class Decomposition:
    """A layer's centred columns by their singular vectors.

    Attributes:
        columns: (N, d) float64, each of mean 0.
        values: (r,) squared singular values above rounding, smallest first.
        directions: (d, r) their right singular vectors.
    """

    columns: Array
    values: Array
    directions: Array

    @classmethod
    def of(cls, columns: Array) -> Decomposition:
        """One eigendecomposition of the smaller of X'X and XX', for ``columns`` X (N, d)."""
        n, d = columns.shape
        values, vectors = np.linalg.eigh(smaller_gram(columns))
        kept = values > max(n, d) * np.finfo(np.float64).eps * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        return cls(columns, values, vectors if d <= n else columns.T @ (vectors / np.sqrt(values)))

    def fit(self, targets: Array, penalties: Array, groups: Sequence[slice] = (slice(None),)) -> tuple[Array, Array]:
        """Coefficients (d, m) of ridge regressions, and for each target (m,) the place of its penalty in ``penalties``.

        Of all penalties the one with the least leave-one-out error is taken, the larger of equals.

        Args:
            targets: (N, m), each of mean 0.
            penalties: (P,), added to the squared singular values.
            groups: columns of ``targets`` that share one penalty; by default all of them.
        """
        order = np.argsort(penalties)[::-1]
        projected = self.directions.T @ (self.columns.T @ targets)
        shrinkage = 1 / (self.values + penalties[order, None])
        errors = self.left_out_errors(targets, projected, shrinkage)
        best = np.empty(targets.shape[1], np.intp)
        for group in groups:
            best[group] = errors[:, group].sum(axis=1).argmin()
        return self.directions @ (shrinkage[best].T * projected), order[best]

    def left_out_errors(self, targets: Array, projected: Array, shrinkage: Array) -> Array:
        """Sum of squared leave-one-out residuals (P, m), for ``shrinkage`` (P, r) of ``projected`` (r, m) targets.

        An image's residual without it is its residual divided by 1 minus its leverage; 1 / N of the leverage is
        the intercept's. Rifkin and Lippert (2007), Notes on regularized least squares.
        """
        errors = np.zeros((len(shrinkage), targets.shape[1]))
        for part in row_slices(len(self.columns), max(self.columns.shape[1], targets.shape[1])):
            scores = self.columns[part] @ self.directions
            leverage = np.square(scores) @ shrinkage.T + 1 / len(self.columns)
            remaining = np.maximum(1 - leverage, np.finfo(np.float64).eps)
            for place, shrink in enumerate(shrinkage):
                residual = targets[part] - scores @ (shrink[:, None] * projected)
                errors[place] += np.square(residual / remaining[:, place, None]).sum(axis=0)
        return errors


def centred(rows: Array) -> tuple[Array, Array]:
    """Rows (N, d) minus their mean, and that mean (d,), in float64; exactly 0 where a column is constant."""
    first = rows[0].astype(np.float64)
    difference = np.subtract(rows, first, dtype=np.float64)
    mean = difference.mean(axis=0)
    difference -= mean
    return difference, first + mean
