"""The samples that a recorder looks at, in batches that the network takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdpipe.errors import DataError
from kdpipe.vectors.checks import as_array, sample_ids
from kdpipe.vectors.content import Samples
from kdpipe.vectors.samples import described_samples


@dataclass(frozen=True)
class Probe:
    """Batches of inputs, and the samples that they are of, in the same order.

    Attributes:
        batches: each what the network is called with: a tensor, a tuple of arguments, or a mapping of named ones.
        image: (H, W), where the inputs are images (B, C, H, W).
    """

    batches: Sequence[Any]
    samples: Samples
    image: tuple[int, int] | None

    def sizes(self) -> list[int]:
        """Samples of each batch."""
        return [_length(batch) for batch in self.batches]

    def run(self, model: nn.Module) -> Iterator[Any]:
        """What the network answers to each batch, on its device."""
        device = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
        for batch in self.batches:
            moved = _moved(batch, device)
            if isinstance(moved, Mapping):
                yield model(**moved)
            elif isinstance(moved, tuple):
                yield model(*moved)
            else:
                yield model(moved)


def probe_of(inputs: Any, labels: Any, ids: Any, batch_size: int, **about: Any) -> Probe:
    """A probe from a tensor or array of all inputs, a mapping of such, or a list of batches.

    Args:
        about: class_names, split, texts and images, as of :func:`kdpipe.write_vectors`.

    Raises:
        DataError: inputs, labels and ids that do not belong together.
    """
    batches = list(inputs) if isinstance(inputs, list | tuple) else _batches(inputs, batch_size)
    if not batches:
        raise DataError("probe: there is no batch in it.")
    found = sample_ids(ids, "probe, ids")
    given = sum(_length(batch) for batch in batches)
    if given != len(found):
        raise DataError(f"probe: {given} inputs, and {len(found)} ids.")
    labels = as_array(labels, "probe, labels")
    places = {"labels": "probe, labels"}
    samples = described_samples(found, labels, said=about.pop("texts", None), places=places, **about)
    first = _first(batches[0])
    shown = first if first.is_floating_point() and first.ndim == 4 else None
    return Probe(batches, samples, None if shown is None else (shown.shape[2], shown.shape[3]))


def _batches(inputs: Any, size: int) -> list[Any]:
    if isinstance(inputs, Mapping):
        columns = {str(name): torch.as_tensor(value) for name, value in inputs.items()}
        rows = {len(column) for column in columns.values()}
        if len(rows) != 1:
            raise DataError(f"probe: its inputs have different lengths ({', '.join(map(str, sorted(rows)))}).")
        starts = range(0, rows.pop(), size)
        return [{name: column[start : start + size] for name, column in columns.items()} for start in starts]
    tensor = torch.as_tensor(np.asarray(inputs) if not isinstance(inputs, Tensor) else inputs)
    return list(tensor.split(size))


def _first(batch: Any) -> Tensor:
    """The tensor that says how many samples a batch has."""
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple) else (batch,)
    found = next((part for part in parts if isinstance(part, Tensor) and part.ndim), None)
    if found is None:
        raise DataError(
            "probe: a batch is a tensor, a tuple of arguments or a mapping of named ones, with the samples along the "
            f"first axis; this one is {type(batch).__name__}."
        )
    return found


def _length(batch: Any) -> int:
    return len(_first(batch))


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: _moved(part, device) for name, part in batch.items()}
    return tuple(_moved(part, device) for part in batch) if isinstance(batch, tuple) else batch
