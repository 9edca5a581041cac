"""What a measure is, and how the measures of this folder find each other.

Each module of :mod:`kdpipe.measures` lists its own measures in ``MEASURES``; :func:`collect` puts them
together. A new measure is therefore one record beside its function, and one test.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Chance = Callable[[Array, int], float]


@dataclass(frozen=True)
class Measure:
    """One measure: how to compute it and how to read it.

    Attributes:
        name: the value of every ``measure`` column.
        of: what ``function`` takes: ``layer`` (X, y), ``map`` (X, layout) or ``pair`` (X, Y).
        direction: which end means better separated, better kept or more alike.
        low, high: the ends of its range, where it has them.
        chance: its value where nothing is to be found; a number, or a function of the labels and k.
        k: neighbours it looks at, if it does.
    """

    name: str
    of: Literal["layer", "map", "pair"]
    title: str
    summary: str
    citation: str
    direction: Literal["higher", "lower"]
    function: Callable[..., float]
    chance: float | Chance
    low: float | None = None
    high: float | None = None
    k: int | None = None

    def chance_for(self, y: Array, k: int | None = None) -> float:
        """The chance level on images with labels ``y`` (N,); ``k`` where another than the default was used."""
        if callable(self.chance):
            return float(self.chance(np.asarray(y), k or self.k or 0))
        return self.chance


def collect(package: str, path: list[str]) -> dict[str, Measure]:
    """Every record of every module's ``MEASURES`` in ``package``, by name."""
    found: dict[str, Measure] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(path)):
        for measure in getattr(import_module(f"{package}.{module}"), "MEASURES", ()):
            if measure.name in found:
                raise ValueError(f"Two measures are called {measure.name!r}.")
            found[measure.name] = measure
    return found
