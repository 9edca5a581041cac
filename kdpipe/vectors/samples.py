"""Samples that are known to be whole, from ids, labels and what else there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdpipe.errors import DataError
from kdpipe.vectors.checks import as_array, class_labels, in_reference, pictures, sayings
from kdpipe.vectors.content import NetworkVectors, Rows, Samples


def described_samples(
    ids: list[str],
    labels: Any,
    *,
    class_names: Sequence[str] | None = None,
    split: Any = None,
    images: Any = None,
    said: Any = None,
    logits_of: Sequence[NetworkVectors] = (),
    places: Mapping[str, str] | None = None,
) -> Samples:
    """Samples, checked; without ``class_names`` classes are what labels say, or the columns of logits.

    Args:
        places: for errors, where labels, split, images and texts come from.

    Raises:
        DataError: as :mod:`kdpipe.vectors.checks`; labels that are text beside logits, whose columns nobody named.
    """
    place = {name: name for name in ("labels", "split", "images", "texts")} | dict(places or {})
    array = as_array(labels, place["labels"])
    if len(array) != len(ids):
        raise DataError(f"{place['labels']}: {len(array)} labels, and {len(ids)} ids.")
    scored = next((network.logits for network in logits_of if network.logits is not None), None)
    if class_names is None and scored is not None:
        class_names = _columns_of(scored, array)
    numbers, names = class_labels(array, class_names, place["labels"])
    return Samples(
        ids=ids,
        labels=numbers,
        class_names=names,
        reference=np.zeros(len(ids), bool) if split is None else in_reference(split, len(ids), place["split"]),
        texts=None if said is None else sayings(said, len(ids), place["texts"]),
        images=None if images is None else pictures(images, len(ids), place["images"]),
    )


def _columns_of(logits: Rows, labels: Any) -> list[str]:
    """Names for the columns of logits whose labels are their numbers."""
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{logits.place}: labels are text, so nobody knows which column of the logits is which; give class_names "
            "in the columns' order."
        )
    columns = as_array(logits.load(), logits.place)
    return [str(number) for number in range(columns.shape[1])] if columns.ndim == 2 else []
