"""Per-image values of a study's networks, looked up by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.evidence.tables.groups import Frames

Array = NDArray[Any]


class Values:
    """Per-image values of a study's networks, looked up by name."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.labels = frames["samples"].sort("sample_id")["label"].to_numpy()

    @cached_property
    def _layers(self) -> dict[tuple[str, str], pl.DataFrame]:
        keys = ["network_id", "view"]
        parts = self.frames["layers"].sort("order").partition_by(keys, as_dict=True)
        return {(str(name), str(view)): part for (name, view), part in parts.items()}

    @cached_property
    def _samples(self) -> dict[tuple[str, str], pl.DataFrame]:
        """Sample measures of a network in a view, sorted by layer and image."""
        order = self.frames["layers"].select("network_id", "view", "layer", "order")
        joined = self.frames["sample_measures"].join(order, ["network_id", "view", "layer"])
        parts = joined.sort("order", "sample_id").partition_by("network_id", "view", as_dict=True)
        return {(str(name), str(view)): part for (name, view), part in parts.items()}

    @cached_property
    def _answers(self) -> dict[str, pl.DataFrame]:
        parts = self.frames["predictions"].sort("sample_id").partition_by("network_id", as_dict=True)
        return {str(name): part for (name,), part in parts.items()}

    def depth(self, network_id: str, view: str) -> Array:
        """Relative depth (L,) of a network's layers."""
        return self._layers[network_id, view]["relative_depth"].to_numpy().astype(np.float64)

    def has(self, network_ids: Sequence[str], view: str, column: str) -> bool:
        """Whether ``column`` was measured on every layer of all these networks in ``view``."""
        found = [self._samples.get((name, view)) for name in network_ids]
        return all(part is not None and not part[column].null_count() for part in found)

    def of_layers(self, network_ids: Sequence[str], view: str, column: str) -> Array:
        """(S, L, N) of a column of sample_measures."""
        return np.stack([self._of_layers(name, view, column) for name in network_ids])

    def _of_layers(self, network_id: str, view: str, column: str) -> Array:
        values = self._samples[network_id, view][column].cast(pl.Float64).to_numpy()
        return np.asarray(values.reshape(-1, len(self.labels)))

    def answer(self, network_ids: Sequence[str]) -> bool:
        """Whether the answers of all these networks are known."""
        return all(name in self._answers for name in network_ids)

    def correct(self, network_ids: Sequence[str]) -> Array:
        """(S, N) 1 where a network's answer is right."""
        return np.stack([self._answers[name]["correct"].cast(pl.Float64).to_numpy() for name in network_ids])

    def prediction_depth(self, network_ids: Sequence[str]) -> Array:
        """(S, N) relative depth at which an image is settled; one step beyond the last layer if it never is."""
        return np.stack([self._settled(name) for name in network_ids])

    def _settled(self, network_id: str) -> Array:
        view = "gap" if (network_id, "gap") in self._layers else "projection"
        depth = self.depth(network_id, view)
        beyond = 2 * depth[-1] - depth[-2] if len(depth) > 1 else depth[-1]
        order = self._answers[network_id]["prediction_depth"].fill_null(len(depth)).to_numpy()
        return np.asarray(np.append(depth, beyond)[order])
