"""What files say of samples, joined by ids: labels that must agree, texts, images and the split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from kdpipe.data.sources.images import stack
from kdpipe.errors import DataError
from kdpipe.vectors.checks import as_array, examples, rows_in_order
from kdpipe.vectors.content import NetworkVectors, Rows, Samples
from kdpipe.vectors.readers import CLASS_NAMES, IMAGE_NAMES, LABEL_NAMES, SPLIT_NAMES, TEXT_NAMES, Loader
from kdpipe.vectors.samples import described_samples

LABELS, SPLIT, TEXTS, IMAGES = LABEL_NAMES[0], SPLIT_NAMES[0], TEXT_NAMES[0], IMAGE_NAMES[0]
DISPLAYED = 96  # pixels a side that encoded images are brought to: they are for looking at


@dataclass(frozen=True)
class Facts:
    """What a file says of samples: labels, split, texts, images and class_names, by these names."""

    place: str
    ids: Sequence[str]
    fields: Mapping[str, Loader]


def joined_samples(
    facts: Sequence[Facts], networks: Sequence[NetworkVectors], class_names: Sequence[str] | None, image_size: int
) -> Samples:
    """The samples of the networks' vectors, with all that files say of them, joined by ids.

    Raises:
        DataError: samples without a label, or with two.
    """
    first = next((layer for network in networks for layer in network.layers.values()), None)
    if first is None:
        raise DataError("There are no vectors in these files.")
    rows = first if isinstance(first, Rows) else next(iter(first.views.values()))
    ids = list(rows.ids)
    names = class_names or _agreed_names(facts)
    return described_samples(
        ids,
        _labels(facts, ids),
        class_names=names,
        split=_field(facts, SPLIT, ids, as_array),
        said=_field(facts, TEXTS, ids, as_array),
        images=_field(facts, IMAGES, ids, partial(_pixels, size=image_size)),
        logits_of=networks,
        places={name: _place(facts, name) for name in (LABELS, SPLIT, TEXTS, IMAGES)},
    )


def _place(facts: Iterable[Facts], name: str) -> str:
    return next((f"{fact.place}, {name}" for fact in facts if name in fact.fields), name)


def _agreed_names(facts: Iterable[Facts]) -> list[str] | None:
    found: list[str] | None = None
    for fact in facts:
        if CLASS_NAMES not in fact.fields:
            continue
        names = [str(name) for name in as_array(fact.fields[CLASS_NAMES](), fact.place).tolist()]
        if found is not None and names != found:
            raise DataError(f"{fact.place}: its class_names are others than those of the files before it.")
        found = names
    return found


def _labels(facts: Iterable[Facts], ids: Sequence[str]) -> Any:
    """The label of each sample; files that say one must agree."""
    found: dict[str, Any] = {}
    source: dict[str, str] = {}
    for fact in facts:
        if LABELS not in fact.fields:
            continue
        labels = _named(fact, as_array(fact.fields[LABELS](), fact.place))
        if len(labels) != len(fact.ids):
            raise DataError(f"{fact.place}: {len(labels)} labels, and {len(fact.ids)} ids.")
        own = dict(zip(fact.ids, labels, strict=True))
        if other := [one for one, label in own.items() if one in found and str(found[one]) != str(label)]:
            raise DataError(
                f"{fact.place}: {len(other)} samples have another label than in {source[other[0]]} "
                f"({examples(other, len(other))})."
            )
        source |= {one: fact.place for one in own if one not in found}
        found = own | found
    if lacking := [one for one in ids if one not in found]:
        said = "there are no labels" if not found else f"{len(lacking)} of {len(ids)} samples have no label"
        raise DataError(
            f"{said} ({examples(lacking, len(lacking))}): add an array or column 'labels' to a file, or give "
            "a table with ids and labels by --samples FILE."
        )
    kept = [found[one] for one in ids]
    return np.array([str(label) for label in kept]) if any(isinstance(label, str) for label in kept) else kept


def _named(fact: Facts, labels: Any) -> list[Any]:
    """Labels by their names, where the file that has them names its classes."""
    values: list[Any] = labels.tolist()
    if CLASS_NAMES not in fact.fields or labels.dtype.kind not in "iu":
        return values
    names = as_array(fact.fields[CLASS_NAMES](), fact.place).tolist()
    if min(values) < 0 or max(values) >= len(names):
        raise DataError(
            f"{fact.place}: labels run from {min(values)} to {max(values)}, and there are {len(names)} class_names."
        )
    return [str(names[value]) for value in values]


def _field(facts: Iterable[Facts], name: str, ids: Sequence[str], read: Callable[[Any, str], Any]) -> Any | None:
    """What the first file that says it says of every sample; None where no file does."""
    for fact in facts:
        if name not in fact.fields:
            continue
        value = read(fact.fields[name](), f"{fact.place}, {name}")
        known = set(fact.ids)
        if lacking := [one for one in ids if one not in known]:
            raise DataError(
                f"{fact.place}, {name}: {len(lacking)} of {len(ids)} samples are not in it "
                f"({examples(lacking, len(lacking))})."
            )
        wanted = set(ids)
        kept = [row for row, one in enumerate(fact.ids) if one in wanted]
        value = value if len(kept) == len(fact.ids) else value[kept]
        order = rows_in_order([fact.ids[row] for row in kept], ids, fact.place, "the vectors")
        return value if order is None else value[order]
    return None


def _pixels(value: Any, place: str, size: int) -> Any:
    """Pixels as they are, or of encoded images (PNG, JPEG, … bytes), which are cut to squares of one size."""
    column = value.to_arrow() if hasattr(value, "to_arrow") else value
    if not isinstance(column, pa.Array | pa.ChunkedArray):
        return as_array(column, place)
    entries = [entry.get("bytes") if isinstance(entry, dict) else entry for entry in column.to_pylist()]
    encoded = [(entry, f"{place}, row {row}") for row, entry in enumerate(entries) if isinstance(entry, bytes)]
    if not encoded:
        return as_array(column, place)  # texts are refused there: no address is followed
    if empty := len(entries) - len(encoded):
        raise DataError(f"{place}: {empty} of {len(entries)} images are empty.")
    (images,) = stack([encoded], _Displayed(size))
    return images


@dataclass(frozen=True)
class _Displayed:
    """Encoded images as they are kept: squares of one size, in colour."""

    image_size: int
    path: None = None
    channels: int = 3
    image_column: None = None
    label_column: None = None
    channel_axis: None = None
