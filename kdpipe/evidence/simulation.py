"""Layers whose truth is known, to try the instrument on.

Two worlds. In the first, layers are Gaussian classes and the per-image values come from the real measures. In
the second, cheap enough for power, the per-image values themselves are drawn from variance components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdpipe.evidence.bootstrap import Resamples
from kdpipe.evidence.cell import Arms, Cell, Rules
from kdpipe.evidence.statistics import Components
from kdpipe.measures.class_structure import layer_pass, silhouette
from kdpipe.relative_depth import Array, early_abc
from kdpipe.vocabulary import ENDPOINTS, EndpointName, Kind

NEIGHBOURS = 20


@dataclass(frozen=True)
class World:
    """How layers are made.

    Attributes:
        rising: silhouette that a plain student's layers are aimed at, one a layer.
        shared: standard deviation, in silhouette, of what a seed does to all arms alike (its labels, its batches).
        own: the same for what it does to one arm and layer.
        persistence: share of an image's deviation from its class that is the same in all networks and layers: some
            images are difficult for everybody, which is what makes the design crossed.
    """

    seeds: int = 8
    images: int = 200
    classes: int = 5
    width: int = 12
    rising: tuple[float, ...] = (0.0, 0.04, 0.08, 0.12, 0.16)
    shared: float = 0.006
    own: float = 0.004
    persistence: float = 0.5

    @property
    def depth(self) -> Array:
        return np.linspace(0.0, 1.0, len(self.rising))

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.arange(self.images) % self.classes

    @property
    def advanced(self) -> tuple[float, ...]:
        """The plain students' curve, one layer earlier; the last layer as it was."""
        return (*self.rising[1:], self.rising[-1])


EPSILON: Mapping[EndpointName, float] = {"silhouette": 0.002, "knn_accuracy": 0.005}


def simulate(world: World, aims: Mapping[str, ArrayLike], seed: int, kinds: Mapping[str, Kind] | None = None) -> Cell:
    """A cell with measured silhouettes and kNN votes of Gaussian layers.

    Both endpoints see the same layers, so that they agree as two views of one layer do.

    Args:
        aims: the silhouette that each layer of each arm is aimed at, (L,); ``distilled``, ``plain``, perhaps
            ``second_seed``; any other name is a control.
        kinds: of the controls; ``instead`` unless said.
    """
    random = np.random.default_rng(seed)
    difficulty = random.normal(size=(world.images, world.width))
    of_seed = world.shared * random.normal(size=(world.seeds, 1))
    measured = {
        name: _arm(world, np.asarray(aim, np.float64) + of_seed, difficulty, random) for name, aim in aims.items()
    }
    controls = [name for name in aims if name not in ("distilled", "plain", "second_seed")]
    silhouettes, correct = (
        Arms(
            distilled=measured["distilled"][at],
            plain=measured["plain"][at],
            second_seed=measured["second_seed"][at] if "second_seed" in measured else None,
            controls={name: measured[name][at] for name in controls},
        )
        for at in (0, 1)
    )
    chosen = {name: (kinds or {}).get(name, "instead") for name in controls}
    return Cell(world.depth, world.labels, silhouettes, correct, EPSILON, chosen)


def identical(seed: int, world: World | None = None, null: bool = False) -> Cell:
    """Distilled and plain students from the same distribution; with ``null`` a second seed too."""
    of = world or World()
    second = {"second_seed": of.rising} if null else {}
    return simulate(of, {"distilled": of.rising, "plain": of.rising, **second}, seed)


def advanced(seed: int, world: World | None = None) -> Cell:
    """Distilled students one layer ahead, and two controls that are not."""
    of = world or World()
    aims = {"distilled": of.advanced, "plain": of.rising, "second_seed": of.rising}
    kinds: dict[str, Kind] = {"label-smoothing": "instead", "own-budget-teacher": "without"}
    return simulate(of, {**aims, "label-smoothing": of.rising, "own-budget-teacher": of.advanced}, seed, kinds)


def better_everywhere(seed: int, world: World | None = None, shift: float = 0.03, factor: float = 1.0) -> Cell:
    """Distilled students better at every layer: a curve stretched by ``factor`` and raised by ``shift``, one shape."""
    of = world or World()
    low = min(of.rising)
    distilled = low + shift + factor * (np.asarray(of.rising) - low)
    return simulate(of, {"distilled": distilled, "plain": of.rising, "second_seed": of.rising}, seed)


def data_effect(seed: int, world: World | None = None) -> Cell:
    """Students one layer ahead, distilled or supervised on the same images: it was the images."""
    of = world or World()
    aims = {"distilled": of.advanced, "plain": of.rising, "second_seed": of.rising}
    controls = {"supervised-on-the-same-images": of.advanced, "label-smoothing": of.rising}
    return simulate(of, {**aims, **controls}, seed)


def crossed_values(components: Components, seeds: int, images: int, random: np.random.Generator) -> Array:
    """Normal values (S, N) with mean 0: a seed's effect, an image's effect, and one of both."""
    return np.asarray(
        components.seed * random.normal(size=(seeds, 1))
        + components.image * random.normal(size=(1, images))
        + components.both * random.normal(size=(seeds, images))
    )


def least_significant_shift(differences: ArrayLike, alpha: float) -> float:
    """The least number that, added to ``differences`` (S,), brings their sign-flip p to ``alpha`` or below.

    Infinite where S seeds cannot reach ``alpha``. Flipping the seeds of a set A leaves the mean as large as it
    was if the mean over A is not above 0, so p is twice the share of sets, the empty one included, whose mean
    is at most 0. Hartigan (1969), Using subsample values as typical values.
    """
    values = np.asarray(differences, np.float64)
    sums, sizes = np.zeros(1), np.zeros(1, np.int64)
    for value in values:
        sums, sizes = np.append(sums, sums + value), np.append(sizes, sizes + 1)
    # So many sets, apart from the empty one, may have a mean at most 0.
    allowed = int(np.floor(alpha * len(sums) / 2 + 1e-9)) - 1
    if allowed < 0:
        return np.inf
    means = sums[1:] / sizes[1:]
    return float(np.nextafter(-np.partition(means, allowed)[allowed], np.inf))


def detectable_area(
    components: Components,
    seeds: int,
    images: int,
    power: float = 0.8,
    simulations: int = 300,
    seed: int = 0,
    rules: Rules | None = None,
) -> float:
    """The least true early area that is found significant with chance ``power``; infinite if none is.

    Found means as the verdict asks: interval above 0, and p below alpha after Holm's first step, the harder of the
    two. An area adds the same to all values, to the interval and to each seed's difference, so every simulation
    has a least area of its own, and ``power`` is their quantile.
    """
    of, random = rules or Rules(), np.random.default_rng(seed)
    drawn = Resamples.draw(np.zeros(images, np.int64), seeds, seed=seed)
    least = np.empty(simulations)
    # In parts, as drawn means of all simulations at once would fill gigabytes.
    for part in np.array_split(np.arange(simulations), max(1, simulations // 50)):
        values = np.stack([crossed_values(components, seeds, images, random) for _ in part], axis=1)
        means = drawn.means(values, balanced=False)
        for at, place in enumerate(part):
            shift = least_significant_shift(values[:, at].mean(axis=1), of.alpha / len(ENDPOINTS))
            least[place] = max(shift, -drawn.interval(means[:, :, at], of.level)[0])
    return float(np.quantile(least, power, method="higher"))


def advance_of(depth: ArrayLike, plain: ArrayLike, area: float) -> float:
    """By how much depth a curve (L,) must be moved earlier to gain the early ``area``; infinite if it cannot.

    A moved curve stays at its final value once it is there.
    """
    depths, curve = np.asarray(depth, np.float64), np.asarray(plain, np.float64)
    steps = np.linspace(0.0, depths[-1] - depths[0], 2001)
    moved = np.interp(depths + steps[:, None], depths, curve)
    gained = np.maximum.accumulate(early_abc(depths, moved, curve))
    return float(np.interp(area, gained, steps)) if area <= gained[-1] else np.inf


def _arm(world: World, aims: Array, difficulty: Array, random: np.random.Generator) -> tuple[Array, Array]:
    """Silhouettes and correct votes, each (S, L, N), of one arm's networks."""
    reached = aims + world.own * random.normal(size=aims.shape)
    separations = np.interp(reached, *_calibration(world))
    kept, fresh = np.sqrt(world.persistence), np.sqrt(1 - world.persistence)
    silhouettes = np.empty((*aims.shape, world.images))
    correct = np.empty_like(silhouettes)
    for place in np.ndindex(*aims.shape):
        spread = kept * difficulty + fresh * random.normal(size=difficulty.shape)
        layer = layer_pass(_layer(world, float(separations[place]), spread), world.labels, NEIGHBOURS)
        silhouettes[place], correct[place] = layer.silhouette_samples, layer.knn_correct
    return silhouettes, correct


def _layer(world: World, separation: float, spread: Array) -> Array:
    """Classes around the corners of a simplex, ``separation`` from the origin before it is centred."""
    return separation * np.eye(world.classes, world.width)[world.labels] + spread


@lru_cache(maxsize=8)
def _calibration(world: World) -> tuple[Array, Array]:
    """Silhouette, rising, by separation of the classes."""
    random = np.random.default_rng(0)
    separations = np.linspace(0.0, 6.0, 25)
    spreads = random.normal(size=(24, world.images, world.width))
    found = [np.mean([silhouette(_layer(world, at, s), world.labels) for s in spreads]) for at in separations]
    return np.asarray(found), separations
