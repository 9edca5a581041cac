"""Where in a file's tensors a network lies, and in whose words: under a key, behind a prefix, by a convention."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kdpipe.errors import NetworkError
from kdpipe.models.conventions import translations
from kdpipe.models.fit import Fit, compare

_AVERAGED = re.compile(r"(^|[._])(ema|averaged|swa)([._]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """A state dict found in a file, under the names of a network.

    Attributes:
        place: what its names begin with in the file, ``""`` or ``"state_dict.model."``.
        convention: whose names they are; None for the network's own.
        arguments: what timm's model must be made with to compute the same.
        state: its tensors, under timm's names where the convention knows them.
        fit: how they lie in the network.
    """

    place: str
    convention: str | None
    arguments: dict[str, Any]
    state: Mapping[str, Tensor]
    fit: Fit

    @property
    def averaged(self) -> bool:
        """Whether it is an average of weights over training (EMA, SWA), by the names in the file."""
        return _AVERAGED.search(self.place) is not None

    @property
    def key(self) -> str:
        """Its place as people write it."""
        return self.place.rstrip(".")

    @property
    def quality(self) -> tuple[int, int, int, bool, int]:
        """The larger, the better it fits; of equal ones timm's own names and the shortest place count."""
        misfit = len(self.fit.missing) + len(self.fit.misfits)
        return len(self.fit.fitting), -misfit, -len(self.fit.left_over), self.convention is None, -len(self.place)


def read_network_of(tensors: Mapping[str, Tensor], model: nn.Module, arch: str | None) -> list[Reading]:
    """Every place where a file may hold the network, each in the words that fit it best; the best place first.

    Args:
        tensors: of a file, named as :func:`kdpipe.models.tensor_files.read_tensors` does.
        model: of the architecture; its weights do not matter.
        arch: its name in timm; None for a network that timm does not have, whose names are its own alone.
    """
    own = model.state_dict()
    readings: list[Reading] = []
    for place in _places(tensors, own):
        state = {name.removeprefix(place): tensor for name, tensor in tensors.items() if name.startswith(place)}
        readings.append(max(_readings(place, state, own, model, arch), key=lambda reading: reading.quality))
    best = sorted(readings, key=lambda reading: reading.quality, reverse=True)
    kept: list[Reading] = []
    for reading in best:  # a place within another, or around it, holds the same tensors
        if not any(reading.place.startswith(one.place) or one.place.startswith(reading.place) for one in kept):
            kept.append(reading)
    return kept


def _readings(
    place: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor], model: nn.Module, arch: str | None
) -> Iterator[Reading]:
    plain = Reading(place, None, {}, state, compare(state, own))
    yield plain
    if arch is not None and not plain.fit.whole:
        for convention, renamed in translations(state, model, arch):
            yield Reading(place, convention.title, convention.arguments(arch), renamed, compare(renamed, own))


def _places(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Prefixes of names that stand before enough matrices for the network, or for the largest that is there."""
    counts: Counter[str] = Counter()
    for name, tensor in tensors.items():
        if tensor.ndim >= 2:
            parts = name.split(".")
            counts.update(".".join([*parts[:depth], ""]) if depth else "" for depth in range(len(parts)))
    wanted = min(sum(tensor.ndim >= 2 for tensor in own.values()), counts[""])
    return [place for place, count in counts.items() if 2 * count >= wanted]


def choose(readings: Sequence[Reading], *, averaged: bool) -> Reading:
    """The reading that fits best; of equal ones raw weights, or averaged ones if asked for.

    Raises:
        NetworkError: there is none, or several fit alike and nothing tells which is meant; a sentence without its
            subject, the file.
    """
    if not readings:
        raise NetworkError("holds no weights: none of its tensors is a matrix or a kernel; name another file.")
    best = [one for one in readings if fits_alike(one, readings[0])]
    if averaged:
        pool = [one for one in readings if one.averaged]
        if not pool:
            raise NetworkError(f"holds no averaged weights, by their names; it has {listed(one.key for one in best)}.")
        pool = [one for one in pool if fits_alike(one, pool[0])]
    else:
        pool = [one for one in best if not one.averaged] or best
    if len(pool) > 1:
        raise NetworkError(
            f"holds {len(pool)} networks that fit alike; choose one with --key: {listed(one.key for one in pool)}."
        )
    return pool[0]


def fits_alike(one: Reading, other: Reading) -> bool:
    """Whether as many tensors of one place fit as of the other."""
    return len(one.fit.fitting) == len(other.fit.fitting)


def listed(keys: Iterable[str]) -> str:
    """Keys for people."""
    return ", ".join(repr(key) if key else "the file itself" for key in keys)
