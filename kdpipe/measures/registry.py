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
TEACHER_PROBABILITIES = "teacher_probabilities"


@dataclass(frozen=True)
class Measure:
    """One measure: how to compute it and how to read it.

    Attributes:
        name: the value of every ``measure`` column.
        of: what it is a measure of: a ``layer``, a ``map`` (X, layout), a ``pair`` of layers (X, Y), a
            ``network``, of two networks' ``answers``, or of a known ``factor`` in a layer.
        takes: names of the arrays that ``function`` wants, in order, such as ``("X", "y")``; the names are listed
            in CONTRIBUTING.md.
        direction: which end means better separated, better kept or more alike; ``neither`` where no end does.
        low, high: the ends of its range, where it has them.
        chance: its value where nothing is to be found: a number, a function of the labels and k,
            ``"shuffled"`` where it is measured on the same data with what carries the structure shuffled
            (labels; the rows of one layer of a pair; each column on its own), or None if there is no such value.
        k: neighbours it looks at, if it does.
        interval: its 95 % interval over images from the same arrays, where it is not a mean over images.
        cost: how its time grows with the number of images N, the width d and the number of classes K.
    """

    name: str
    of: Literal["layer", "map", "pair", "network", "answers", "factor"]
    title: str
    summary: str
    citation: str
    direction: Literal["higher", "lower", "neither"]
    function: Callable[..., float]
    chance: float | Chance | Literal["shuffled"] | None
    takes: tuple[str, ...]
    cost: str
    low: float | None = None
    high: float | None = None
    k: int | None = None
    interval: Callable[..., tuple[float, float] | None] | None = None

    @property
    def needs_teacher(self) -> bool:
        """Whether it holds a layer against what the study's teacher answers."""
        return TEACHER_PROBABILITIES in self.takes

    def known_chance(self, y: Array, k: int | None = None) -> float | None:
        """The chance level on images with labels ``y`` (N,), where it is not to be measured.

        Args:
            k: where another than the default was used.
        """
        if callable(self.chance):
            return float(self.chance(np.asarray(y), k or self.k or 0))
        return None if self.chance == "shuffled" else self.chance


def collect(package: str, path: list[str]) -> dict[str, Measure]:
    """Every record of every module's ``MEASURES`` in ``package``, by name; ValueError if two have one name."""
    found: dict[str, Measure] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(path)):
        for measure in getattr(import_module(f"{package}.{module}"), "MEASURES", ()):
            if measure.name in found:
                raise ValueError(f"Two measures are called {measure.name!r}.")
            found[measure.name] = measure
    return found
