"""Vectors from a notebook to a folder that ``kdpipe import`` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdpipe.errors import DataError
from kdpipe.names import closest
from kdpipe.vectors.checks import sample_ids
from kdpipe.vectors.content import IDS, LOGITS, NetworkRecord, NetworkVectors, Rows
from kdpipe.vectors.roles import record_of
from kdpipe.vectors.samples import described_samples
from kdpipe.vectors.store import SUFFIX, write_store

_FIELDS = ("role", "student", "method", "seed", "label_fraction", "step", "origin")


def write_vectors(
    folder: str | Path,
    networks: Mapping[str, Any],
    *,
    labels: Any,
    ids: Any,
    class_names: Sequence[str] | None = None,
    split: Any = None,
    images: Any = None,
    texts: Any = None,
    about: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write vectors of networks, checked, into a folder for ``kdpipe import``.

    >>> kdpipe.write_vectors(
    ...     "texts.vectors",
    ...     networks={"teacher": {"layer 6": A, "layer 12": B}, "plain": {"last": C}, "distilled": {"last": D}},
    ...     labels=labels, ids=ids, texts=sentences,
    ... )  # doctest: +SKIP

    Args:
        folder: ends in ``.vectors``, which is added where it is missing. What is there is replaced.
        networks: by name, each a mapping from a layer's name to its array, from input to output, or a polars frame
            with a column a layer. Arrays are (N, d), or maps (N, C, H, W), of NumPy, torch or polars. The key
            ``logits`` (N, K) holds answers; ``ids`` which sample each row is of, where their order is another
            than that of ``ids`` below. A name such as ``distilled-s1`` says role and seed.
        labels: N texts or whole numbers; with logits the number of a column.
        ids: N texts or whole numbers, each once.
        class_names: in the order of the labels' numbers, and of the logits' columns.
        split: N words: ``probe`` for samples that are looked at, ``reference`` for those that probes are fitted on.
        images: (N, H, W, 3), (N, H, W) or (N, C, H, W) uint8.
        texts: N texts, shown where there is no image.
        about: by network, what its name does not say: role, student, method, seed, label_fraction, step, origin.

    Returns:
        The folder.

    Raises:
        DataError: what cannot be used, in one sentence.
    """
    found = sample_ids(ids, "ids")
    sources = [_network(name, entries, found, about or {}) for name, entries in networks.items()]
    if strange := set(about or {}) - set(networks):
        one = min(strange)
        raise DataError(f"about: there is no network {one!r}{closest(one, networks)}")
    samples = described_samples(
        found, labels, class_names=class_names, split=split, images=images, said=texts, logits_of=sources
    )
    place = Path(folder)
    place = place if place.name.endswith(SUFFIX) else place.with_name(place.name + SUFFIX)
    return write_store(place, samples, sources).folder


def _network(name: str, entries: Any, ids: list[str], about: Mapping[str, Mapping[str, Any]]) -> NetworkVectors:
    if not isinstance(name, str):
        raise DataError(f"networks: {name!r} is no name.")
    entries = entries if isinstance(entries, Mapping) else _columns(name, entries)
    own = sample_ids(entries[IDS], f"network {name!r}, ids") if IDS in entries else ids
    layers = {str(key): _rows(name, str(key), value, own) for key, value in entries.items() if key != IDS}
    logits = layers.pop(LOGITS, None)
    return NetworkVectors(_record(name, about.get(name, {})), layers, logits)


def _columns(name: str, frame: Any) -> Mapping[str, Any]:
    """A data frame as a mapping from its columns' names."""
    names = getattr(frame, "columns", None)
    if names is None:
        raise DataError(
            f"network {name!r}: write it as a mapping from layers to arrays, not as {type(frame).__name__}."
        )
    return {str(column): frame[column] for column in names}


def _rows(name: str, layer: str, value: Any, ids: list[str]) -> Rows:
    def load(array: Any = value) -> Any:
        return array

    loader: Callable[[], Any] = load
    return Rows(ids, loader, f"network {name!r}, {layer!r}")


def _record(name: str, said: Mapping[str, Any]) -> NetworkRecord:
    if strange := set(said) - set(_FIELDS):
        one = min(strange)
        raise DataError(
            f"about, network {name!r}: there is no {one!r}{closest(one, _FIELDS)}; allowed: {', '.join(_FIELDS)}."
        )
    return record_of(name, said)
