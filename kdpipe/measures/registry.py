"""What a measure is, and how the measures of this folder find each other.

Each module of :mod:`kdpipe.measures` lists its own measures in ``MEASURES``; :func:`collect` finds them all.
A new measure is therefore one record next to its function, and one test.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Chance = Callable[[Array, int], float]
Kind = Literal["layer", "map", "pair", "network", "answers"]
Invariance = Literal["rotation", "translation", "scale", "permutation of features", "permutation of images"]

TEACHER_PROBABILITIES = "teacher_probabilities"
# Names of the arrays that a measure of each kind may take.
ARRAYS: dict[Kind, tuple[str, ...]] = {
    "layer": ("X", "y", "X_train", "y_train", TEACHER_PROBABILITIES),
    "pair": ("X", "Y"),
    "map": ("X", "layout", "other"),
    "network": ("logits", "y", "final", "votes", "relative_depth"),
    "answers": ("a", "b", "correct_a", "correct_b"),
}
# The shape of a point cloud is what is left of it whatever its place, size and pose: Kendall (1984).
OF_SHAPE: frozenset[Invariance] = frozenset(
    {"rotation", "translation", "scale", "permutation of features", "permutation of images"}
)
OF_IMAGES: frozenset[Invariance] = frozenset({"permutation of images"})


@dataclass(frozen=True)
class Measure:
    """One measure: how to compute it and how to read it.

    Attributes:
        name: the value of every ``measure`` column.
        of: what it is a measure of: a ``layer``, a ``map`` (X, layout), a ``pair`` of layers (X, Y), a
            ``network``, or of two networks' ``answers``.
        takes: names of the arrays that ``function`` wants, in order, such as ``("X", "y")``: those of its kind in
            ``ARRAYS``.
        direction: which end means better separated, better kept or more alike; ``neither`` where no end does.
        low, high: the ends of its range, where it has them.
        chance: its value where nothing is to be found: a number, a function of the labels and k,
            ``"shuffled"`` where it is measured on the same data with what carries the structure shuffled
            (labels; the rows of one layer of a pair; each column on its own), or None if there is no such value.
        k: neighbours it looks at, if it does.
        k_of_study: whether it looks at ``measures.k`` of the study instead.
        of_pass: the same value from the pass over all pairs of images that the study makes anyway, and k: for a
            layer a :class:`~kdpipe.measures.LayerPass`, for a map a :class:`~kdpipe.measures.MapPass`.
        per_image: for a layer whose value is a mean over images, the values (N,) of the images from its
            :class:`~kdpipe.measures.LayerPass` and k. Class means and an interval over images come from them.
        class_balanced: whether that mean is one of class means.
        all_layers: of a pair: whether every layer of one network is compared with every one of the other, not only
            those at the same depth.
        takes_prepared: of a pair: whether ``function`` takes :class:`~kdpipe.measures.PreparedLayer` too, which
            spares it work.
        interval: its 95 % interval over images from the same arrays and a seed, where it is not a mean over images.
        cost: how its time grows with the number of images N, the width d and the number of classes K.
        invariant_to: what may be done to the images' vectors without a change of the value: to one of two layers
            or one side of a map alone, but a permutation of images to all arrays alike.
        version: raised when it would give another value from the same arrays; only its own values are made again.
    """

    name: str
    of: Kind
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
    k_of_study: bool = False
    of_pass: Callable[[Any, int], float] | None = None
    per_image: Callable[[Any, int], Array] | None = None
    class_balanced: bool = False
    all_layers: bool = False
    takes_prepared: bool = False
    interval: Callable[..., tuple[float, float] | None] | None = None
    invariant_to: frozenset[Invariance] = frozenset()
    version: int = 1

    def __post_init__(self) -> None:
        """Refuse at once what no study could compute.

        Raises:
            ValueError: an array that its kind does not have, or a chance level that cannot be measured.
        """
        if unknown := [name for name in self.takes if name not in ARRAYS[self.of]]:
            raise ValueError(
                f"Measure {self.name!r}: there is no array {unknown[0]!r} of a {self.of}; "
                f"it may take {', '.join(ARRAYS[self.of])}."
            )
        shuffled = {"layer": not self.needs_teacher, "pair": True, "answers": True, "network": "y" in self.takes}
        if self.chance == "shuffled" and not shuffled.get(self.of, False):
            raise ValueError(
                f"Measure {self.name!r}: its chance level cannot be measured by shuffling; "
                "give a number, a function of labels and k, or None."
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether it holds a layer against what the study's teacher answers."""
        return TEACHER_PROBABILITIES in self.takes

    @property
    def needs_pass(self) -> bool:
        """Whether it is read off the pass over all pairs of images."""
        return self.of_pass is not None or self.per_image is not None

    def neighbours(self, of_study: int) -> int | None:
        """How many neighbours it looks at in a study with ``measures.k = of_study``; None if at none."""
        return of_study if self.k_of_study else self.k

    def known_chance(self, y: Array, k: int | None = None) -> float | None:
        """The chance level on images with labels ``y`` (N,), where it is not to be measured.

        Args:
            k: where another than the default was used.
        """
        if callable(self.chance):
            return float(self.chance(np.asarray(y), k or self.k or 0))
        return None if self.chance == "shuffled" else self.chance


def collect(package: str, path: list[str]) -> Iterator[Measure]:
    """Every record of every module's ``MEASURES`` in ``package``."""
    for module in sorted(info.name for info in pkgutil.iter_modules(path)):
        yield from getattr(import_module(f"{package}.{module}"), "MEASURES", ())
