"""Both students at the accuracy at which the less accurate one ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from kdpipe.evidence.tables.comparisons import Comparison, measured
from kdpipe.evidence.tables.groups import Frames
from kdpipe.evidence.tables.values import Array


@dataclass(frozen=True)
class Stop:
    """A student at an accuracy on its way: between two of its checkpoints, ``share`` of the way to the later one."""

    before: str
    after: str
    share: float

    def of(self, values: Callable[[str], Array]) -> Array:
        if self.before == self.after:
            return values(self.before)
        return (1 - self.share) * values(self.before) + self.share * values(self.after)


@dataclass(frozen=True)
class Matched:
    """For each seed, the distilled and the plain student where both are as accurate as the worse of them ends."""

    pairs: tuple[tuple[Stop, Stop], ...]

    def arm(self, values: Callable[[str], Array], plain: Array) -> Array:
        """What stands for the control (S, ...): plain's values, plus what distilled is ahead at equal accuracy.

        So this control minus plain, as of all controls that withhold something, is the gain that is left.
        """
        left = np.stack([distilled.of(values) - other.of(values) for distilled, other in self.pairs])
        return np.asarray(plain + left)

    @property
    def ids(self) -> list[str]:
        return [name for pair in self.pairs for stop in pair for name in (stop.before, stop.after)]


def matched_accuracy(frames: Frames, comparison: Comparison) -> Matched | str:
    """Both arms at the accuracy at which the less accurate one ends, seed by seed, or why that cannot be had."""
    whole = frames["networks"].filter(pl.col("network_id").is_in(measured(frames)))
    networks = {row["network_id"]: row for row in whole.iter_rows(named=True)}
    pairs = []
    for seed in comparison.seeds:
        ends = [networks[group.ids[seed]] for group in (comparison.distilled, comparison.plain)]
        if any(end["test_accuracy"] is None for end in ends):
            return f"the accuracies at seed {seed} are not known"
        goal = min(end["test_accuracy"] for end in ends)
        stops = []
        for end in ends:
            found = _stop(_on_its_way(whole, end), end, goal)
            if found is None:
                return f"no checkpoints of {end['method_label']} lie around its accuracy at seed {seed}"
            stops.append(found)
        pairs.append((stops[0], stops[1]))
    return Matched(tuple(pairs))


def _on_its_way(networks: pl.DataFrame, end: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(network_id, test accuracy) of a student's checkpoints and its end, in the order of steps."""
    way = (pl.col("checkpoint_of") == end["network_id"]) | (pl.col("network_id") == end["network_id"])
    mine = networks.filter(way, pl.col("test_accuracy").is_not_null())
    return list(mine.sort("checkpoint_step").select("network_id", "test_accuracy").iter_rows())


def _stop(way: Sequence[tuple[str, float]], end: Mapping[str, Any], goal: float) -> Stop | None:
    """Where a student first crosses an accuracy; its end, if that is where it ends."""
    if end["test_accuracy"] == goal:
        return Stop(end["network_id"], end["network_id"], 1.0)
    for (one, low), (two, high) in pairwise(way):
        if min(low, high) <= goal <= max(low, high):
            return Stop(one, two, 1.0 if low == high else (goal - low) / (high - low))
    return None
