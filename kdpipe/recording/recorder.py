"""The recorder: a training loop's network at chosen steps, as checkpoints of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from kdpipe.errors import DataError, NetworkError
from kdpipe.names import closest
from kdpipe.recording.probe import probe_of
from kdpipe.recording.taps import POOLS, Found, look, refuse_unknown, unwrapped
from kdpipe.recording.undisturbed import undisturbed
from kdpipe.vectors.content import NetworkRecord, NetworkVectors, ReducedRows, Rows
from kdpipe.vectors.store import SUFFIX, write_store


class Recorder:
    """Looks at a network every so many steps of a training loop, and leaves the training as it was, to the bit.

    >>> recorder = kdpipe.Recorder(model, ["layer1", "layer2"], (images, labels, ids), role="plain", seed=0)
    ... for step, batch in enumerate(batches):
    ...     train_on(batch)
    ...     if step % 100 == 0:
    ...         recorder.record(step)
    ... recorder.save("plain-s0.vectors")  # doctest: +SKIP

    Then ``kdpipe import teacher.vectors plain-s0.vectors distilled-s0.vectors --name my``.

    Args:
        model: any module; layers are read by hooks that a look sets and takes away.
        layers: paths of modules, from input to output.
        probe: the same samples for every network of the study: inputs, labels (N,) and ids (N,). Inputs are a tensor or
            array of all samples, a mapping of such (named arguments), or a list of batches. They come as the network
            wants them, normalised and without augmentation.
        role: teacher, plain, distilled or control.
        student: name of the architecture; networks of one name are compared with each other.
        method: how it is trained; by default its role.
        label_fraction: share of the training labels that it has.
        pool: what makes vectors (B, d) of outputs with three or four axes: "mean" or "first" over the second axis, as
            of tokens (B, T, d), or a function. Images need none: their maps are kept as a study keeps them, as
            channel means and as a projection of the whole map.
        batch_size: samples of a pass, where the inputs are no batches yet.
        about: class_names, split, texts and images, as of :func:`kdpipe.write_vectors`.

    Raises:
        DataError: a probe or a role that cannot be.
        NetworkError: layers that there are not.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        probe: tuple[Any, Any, Any],
        *,
        role: str,
        seed: int = 0,
        student: str = "",
        method: str = "",
        label_fraction: float = 1.0,
        pool: str | Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 256,
        **about: Any,
    ) -> None:
        if isinstance(layers, str):
            raise NetworkError(f"layers: give a list of modules, [{layers!r}], not the text {layers!r}.")
        self.model, self.layers = unwrapped(model), list(layers)
        refuse_unknown(self.model, self.layers)
        if isinstance(pool, str) and pool not in POOLS:
            raise DataError(f"pool: there is no {pool!r}{closest(pool, POOLS)}; write 'mean', 'first' or a function.")
        self.pool = pool
        self.probe = probe_of(*_three(probe), batch_size, **about)
        name = "-".join(part for part in (student, method, role, f"s{seed}") if part)
        self.network = NetworkRecord(name, role, student, method, seed, label_fraction, origin="recorded in training")
        self.found: dict[int, Found] = {}

    def record(self, step: int) -> None:
        """Look at the network as it is after ``step`` steps.

        Raises:
            DataError: a step that is no later than the one before.
            NetworkError: a layer that is not called, or cannot be made vectors.
        """
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise DataError(f"record: a step is a whole number from 0 on, not {step!r}.")
        if self.found and step <= max(self.found):
            raise DataError(f"record: step {step} is no later than step {max(self.found)}, which was recorded before.")
        with undisturbed(self.model):
            self.found[step] = look(self.model, self.layers, self.probe, self.pool)

    def save(self, folder: str | Path) -> Path:
        """Write what was recorded so far. The last step is the finished network, the others are its checkpoints.

        Args:
            folder: ends in ``.vectors``, which is added where it is missing. What is there is replaced.

        Returns:
            The folder.

        Raises:
            DataError: nothing was recorded, or a layer gave NaN or infinity.
        """
        if not self.found:
            raise DataError("save: nothing was recorded; call record(step) in the training loop, and after its end.")
        place = Path(folder)
        place = place if place.name.endswith(SUFFIX) else place.with_name(place.name + SUFFIX)
        networks = [self._network(step, found) for step, found in self.found.items()]
        return write_store(place, self.probe.samples, networks).folder

    def _network(self, step: int, found: Found) -> NetworkVectors:
        name = f"{self.network.name}-step{step}"
        layers = {
            layer: ReducedRows(
                shape, {view: self._rows(name, layer, rows) for view, rows in found.views[layer].items()}
            )
            for layer, shape in found.shapes.items()
        }
        logits = None if found.logits is None else self._rows(name, "logits", found.logits)
        return NetworkVectors(replace(self.network, name=name, step=step), layers, logits)

    def _rows(self, network: str, layer: str, array: NDArray[Any]) -> Rows:
        return Rows(self.probe.samples.ids, partial(np.asarray, array), f"{network}, {layer!r}")


def _three(probe: Any) -> tuple[Any, Any, Any]:
    if not isinstance(probe, tuple | list) or len(probe) != 3:
        found = f"{len(probe)} of them" if isinstance(probe, tuple | list) else type(probe).__name__
        raise DataError(f"probe: give (inputs, labels, ids), with an id of its own for each sample, not {found}.")
    inputs, labels, ids = probe
    return inputs, labels, ids
