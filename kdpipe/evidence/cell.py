"""What a claim is judged on: two endpoints, the arms of a comparison, and the rules that are fixed before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdpipe.relative_depth import FALL_TOLERANCE, Array
from kdpipe.vocabulary import ALPHA, ENDPOINTS, LEAST_SEEDS, LEVEL, EndpointName, Kind


@dataclass(frozen=True)
class Rules:
    """What is settled before the data is seen.

    Attributes:
        alpha: a corrected p below it is significant.
        least_seeds: with fewer there are estimates and no p values.
        level: of all intervals.
        fall_tolerance: as in :func:`kdpipe.relative_depth.why_not_computable`.

    Raises:
        ValueError: a share outside (0, 1), a negative tolerance, or fewer than 2 seeds, which have no sign-flip test.
    """

    alpha: float = ALPHA
    least_seeds: int = LEAST_SEEDS
    level: float = LEVEL
    fall_tolerance: float = FALL_TOLERANCE

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 < self.level < 1 and self.fall_tolerance >= 0 and self.least_seeds >= 2):
            raise ValueError(f"These rules cannot be: {self}.")


@dataclass(frozen=True)
class Arms:
    """Per-image values (S, L, N) of one endpoint, paired: row s of every arm shares its labels and batches.

    NaN in ``distilled`` or ``plain`` is a missing curve and makes the endpoint not computable.

    Attributes:
        second_seed: the plain student from other initial weights; with ``plain`` it makes the null contrast.
        controls: by name.
    """

    distilled: NDArray[Any]
    plain: NDArray[Any]
    second_seed: NDArray[Any] | None = None
    controls: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def seeds(self) -> int:
        return len(self.plain)

    @property
    def missing(self) -> bool:
        return not (np.isfinite(self.distilled).all() and np.isfinite(self.plain).all())

    def named(self) -> Mapping[str, NDArray[Any]]:
        """All arms by name."""
        null = {} if self.second_seed is None else {"second_seed": self.second_seed}
        return {"distilled": self.distilled, "plain": self.plain, **null, **self.controls}


@dataclass(frozen=True)
class Cell:
    """One comparison of distilled with plain students: an architecture, a method, a budget of labels.

    A control is of one of two kinds. ``instead`` puts something else in distillation's place (label smoothing,
    more steps, the labels of the same images, a teacher that knows nothing, plain students of the same
    accuracy): it explains the gain if distillation is not better than it. ``without`` distils, but takes an
    ingredient away (the extra labels that a teacher brings: a teacher on the student's own budget): what was
    taken away explains the gain if nothing is left of it, the control being no better than plain.

    Attributes:
        depth: (L,) of the layers, rising; raw pixels are no layer.
        labels: (N,) class of each image.
        silhouette, knn_accuracy: the two endpoints; None if it was not measured.
        epsilon: for each endpoint the difference that would not matter, in the unit of its area.
        kinds: of each control.

    Raises:
        ValueError: arms whose shapes do not fit, a control without a kind or without values or with an arm's name,
            a second seed or a control with missing values, or no epsilon for an endpoint.
    """

    depth: Array
    labels: NDArray[Any]
    silhouette: Arms | None
    knn_accuracy: Arms | None
    epsilon: Mapping[EndpointName, float]
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    rules: Rules = Rules()

    def __post_init__(self) -> None:
        depths = np.asarray(self.depth, np.float64)
        if depths.ndim != 1 or len(depths) == 0 or not np.isfinite(depths).all() or (np.diff(depths) <= 0).any():
            raise ValueError("depth must hold the finite, rising depths of the layers.")
        if np.ndim(self.labels) != 1 or len(self.labels) == 0:
            raise ValueError("labels must hold one label for each of at least one image.")
        for name in ENDPOINTS:
            if not 0 <= self.epsilon.get(name, np.nan) < np.inf:
                raise ValueError(f"epsilon needs a finite number, not below 0, for {name}.")
            arms = self.arms(name)
            if arms is not None:
                self._check(name, arms)
        if len({arms.seeds for arms in map(self.arms, ENDPOINTS) if arms is not None}) > 1:
            raise ValueError("The two endpoints must be of the same seeds.")

    def arms(self, endpoint: EndpointName) -> Arms | None:
        """The arms of an endpoint by its name."""
        return {"silhouette": self.silhouette, "knn_accuracy": self.knn_accuracy}[endpoint]

    @property
    def seeds(self) -> int:
        """Number of paired seeds; 0 where nothing was measured."""
        return next((arms.seeds for arms in map(self.arms, ENDPOINTS) if arms is not None), 0)

    def _check(self, name: str, arms: Arms) -> None:
        if taken := {"distilled", "plain", "second_seed"} & set(arms.controls):
            raise ValueError(f"A control cannot be called {sorted(taken)[0]}.")
        if set(arms.controls) != set(self.kinds):
            raise ValueError(
                f"Controls of {name} are {sorted(arms.controls)}, kinds are given for {sorted(self.kinds)}."
            )
        wanted = len(self.depth), len(self.labels)
        for arm, values in arms.named().items():
            if np.ndim(values) != 3 or np.shape(values)[1:] != wanted or len(values) != arms.seeds or not arms.seeds:
                raise ValueError(
                    f"{name} of {arm} must be of shape ({arms.seeds or 'S'} seeds, {wanted[0]} layers, "
                    f"{wanted[1]} images), not {np.shape(values)}."
                )
            if arm not in ("distilled", "plain") and not np.isfinite(values).all():
                raise ValueError(f"{name} of {arm} holds NaN or infinity; leave the arm out.")
