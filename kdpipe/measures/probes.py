"""Simple classifiers fitted to a layer of the training images and scored on other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdpipe.measures.distances import check_labels, points, row_slices
from kdpipe.measures.registry import OF_SHAPE, Array, Measure
from kdpipe.measures.ridge import Decomposition, centred
from kdpipe.measures.separation import class_scatter

ALPHAS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge regression: ((X - mean) / scale) @ coefficients + intercept.

    Attributes:
        mean, scale: (d,) mean and standard deviation of the columns it was fitted on.
        coefficients: (d, m); 0 for a constant column, whose ``scale`` means nothing.
        intercept: (m,).
        alpha: the penalty that was chosen.
    """

    mean: Array
    scale: Array
    coefficients: Array
    intercept: Array
    alpha: float

    def predict(self, X: Array) -> Array:
        """Predictions (N, m) for ``X`` (N, d).

        Raises:
            ValueError: another number of columns than it was fitted on, NaN or infinity.
        """
        of = points(X)
        d, m = self.coefficients.shape
        _check_width(of.rows.shape[1], d)
        predicted = np.empty((len(of), m))
        for part in row_slices(len(of), d):
            rows = of.rows[part].astype(np.float64) * of.scale
            predicted[part] = (rows - self.mean) / self.scale @ self.coefficients + self.intercept
        return predicted


def fit_ridge(X: Array, Y: Array, alphas: Sequence[float] = ALPHAS) -> Ridge:
    """Ridge regression of ``Y`` (N, m) on standardised ``X`` (N, d), its penalty chosen by leave-one-out.

    Minimises |Y - XB - b|² / N + alpha |B|², so that alpha means the same for any N; the intercept b is not
    penalised. One eigendecomposition of the smaller of X'X and XX' gives every alpha's fit and its exact
    leave-one-out residuals: Rifkin and Lippert (2007), Notes on regularized least squares (the scale of X
    is not taken again without the image left out, mean and intercept are). One alpha for all columns of
    Y, which are weighed by their units; ties go to the largest. Needs a float64 copy of X and min(N, d)²
    values.

    Raises:
        ValueError: fewer than two rows, different numbers of rows, alphas that are not positive, NaN or infinity.
    """
    of, targets = points(X, least=2), points(np.asarray(Y, np.float64))
    if len(of) != len(targets):
        raise ValueError(f"Ridge needs a row of Y for each row of X: X has {len(of)} rows, Y has {len(targets)}.")
    penalties = np.asarray(alphas, np.float64).ravel()
    if len(penalties) == 0 or not (penalties > 0).all() or not np.isfinite(penalties).all():
        raise ValueError(f"alphas must be one or more positive numbers, not {tuple(alphas)}.")
    columns, mean, scale = _standardised(of.rows)
    differences, intercept = centred(targets.rows)
    coefficients, chosen = Decomposition.of(columns).fit(differences, len(of) * penalties)
    return Ridge(
        mean=mean * of.scale,
        scale=scale * of.scale,
        coefficients=coefficients * targets.scale,
        intercept=intercept * targets.scale,
        alpha=float(penalties[chosen[0]]),
    )


def linear_probe_predictions(X: Array, X_train: Array, y_train: Array) -> Array:
    """The label (N,) of each row of ``X`` (N, d) by ridge regression on the labels of ``X_train`` (M, d).

    One 0/1 column a label; the largest prediction wins, ties go to the smallest label. See :func:`fit_ridge`.

    Raises:
        ValueError: fewer than two classes in training, different widths, NaN or infinity.
    """
    labels, index = np.unique(check_labels(y_train, len(X_train)), return_inverse=True)
    if len(labels) < 2:
        raise ValueError("A probe needs training images of at least two classes.")
    probe = fit_ridge(X_train, np.eye(len(labels))[index])
    return np.asarray(labels[probe.predict(X).argmax(axis=1)])


def linear_probe(X: Array, y: Array, X_train: Array, y_train: Array) -> float:
    """Share of the images ``X`` (N, d) that a linear classifier fitted to ``X_train`` (M, d) labels ``y``.

    Alain and Bengio (2017), Understanding intermediate layers using linear classifier probes; here by ridge
    regression in closed form, its penalty chosen on training images alone. A class that lies between others
    on a line is never the largest prediction of a regression on labels (Hastie et al. 2009, section 4.2),
    so in few dimensions ``ncc_accuracy`` may be higher. A layer that is constant in training scores the share of
    the most frequent training label. A label without training images is always missed.

    Raises:
        ValueError: as :func:`linear_probe_predictions`.
    """
    labels = check_labels(y, len(X))
    return float((linear_probe_predictions(X, X_train, y_train) == labels).mean())


def ncc_predictions(X: Array, X_train: Array, y_train: Array) -> Array:
    """The label (N,) whose mean over ``X_train`` (M, d) is nearest to each row of ``X`` (N, d).

    Euclidean; ties go to the smallest label.

    Raises:
        ValueError: fewer than two classes in training, different widths, NaN or infinity.
    """
    of, train = points(X), class_scatter(X_train, y_train)
    _check_width(of.rows.shape[1], train.means.shape[1])
    middle = train.means.mean(axis=0)
    centres = train.means - middle
    norms = np.einsum("kd,kd->k", centres, centres)
    # The two may differ so much in size that neither's unit suits the other.
    unit = max(of.scale, train.of.scale)
    ours, theirs = of.scale / unit, train.of.scale / unit
    origin = theirs * (train.of.rows[0] + middle)
    predicted = np.empty(len(of), train.labels.dtype)
    for part in row_slices(len(of), max(centres.shape)):
        rows = ours * of.rows[part].astype(np.float64) - origin
        predicted[part] = train.labels[(theirs * norms - 2 * rows @ centres.T).argmin(axis=1)]
    return predicted


def ncc_accuracy(X: Array, y: Array, X_train: Array, y_train: Array) -> float:
    """Share of the images ``X`` (N, d) nearest to the centre of their class ``y`` among ``X_train`` (M, d).

    Papyan, Han and Donoho (2020), Prevalence of neural collapse, NC4; Mensink et al. (2013), Distance-based
    image classification. Where all centres coincide, every image gets the smallest label. A label without training
    images is always missed.

    Raises:
        ValueError: as :func:`ncc_predictions`.
    """
    labels = check_labels(y, len(X))
    return float((ncc_predictions(X, X_train, y_train) == labels).mean())


def _check_width(width: int, trained: int) -> None:
    if width != trained:
        raise ValueError(f"X has {width} columns where the training images have {trained}.")


def _standardised(rows: Array) -> tuple[Array, Array, Array]:
    """Rows with mean 0 and variance 1 in each column, their mean and scale; 0 in a constant column.

    A column that only differs by rounding is constant: standardised, it would be pure noise.
    """
    columns, mean = centred(rows)
    scale = np.sqrt(np.einsum("nd,nd->d", columns, columns) / len(rows))
    constant = scale <= np.finfo(rows.dtype).eps * np.abs(rows).max(axis=0)
    scale[constant] = 1
    columns /= scale
    columns[:, constant] = 0
    return columns, mean, scale


MEASURES = (
    Measure(
        name="ncc_accuracy",
        of="layer",
        title="Nearest class centre accuracy",
        summary="Share of images whose nearest class centre, taken from training images, is that of their class.",
        citation="Papyan, Han and Donoho (2020), Prevalence of neural collapse during the terminal phase of deep "
        "learning training, NC4; Mensink et al. (2013), Distance-based image classification",
        direction="higher",
        function=ncc_accuracy,
        takes=("X", "y", "X_train", "y_train"),
        chance="shuffled",
        cost="N K d",
        low=0.0,
        high=1.0,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="linear_probe",
        of="layer",
        title="Linear probe accuracy",
        summary="Share of images that a linear classifier, fitted to the layer of training images, labels correctly.",
        citation="Alain and Bengio (2017), Understanding intermediate layers using linear classifier probes; ridge "
        "regression after Rifkin and Lippert (2007), Notes on regularized least squares",
        direction="higher",
        function=linear_probe,
        takes=("X", "y", "X_train", "y_train"),
        chance="shuffled",
        cost="N d min(N, d)",
        low=0.0,
        high=1.0,
        invariant_to=OF_SHAPE - {"rotation"},
    ),
)
