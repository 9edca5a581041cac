"""From many files to the samples and networks of one study: names tell what is what, and ids which row is which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdpipe.errors import DataError
from kdpipe.names import closest
from kdpipe.vectors.checks import as_array
from kdpipe.vectors.content import LOGITS, NetworkRecord, NetworkVectors, ReducedRows, Rows, Samples
from kdpipe.vectors.facts import DISPLAYED, IMAGES, LABELS, SPLIT, TEXTS, Facts, joined_samples
from kdpipe.vectors.readers import CLASS_NAMES, Loader, Part, files_of, read_csv, read_ids, read_parts
from kdpipe.vectors.roles import record_of
from kdpipe.vectors.store import HEAD, StoredNetwork, VectorStore, open_vectors

_WITHOUT_IDS = (
    "which sample is each row of? Add ids to it, give them by --ids FILE, or say --ids-are-row-numbers, if all files "
    "have the same samples in the same order."
)


@dataclass
class Gathered:
    """What files hold so far: networks with their layers, and facts about samples."""

    layers: dict[str, dict[str, Rows | ReducedRows]] = field(default_factory=dict)
    records: dict[str, NetworkRecord] = field(default_factory=dict)
    facts: list[Facts] = field(default_factory=list)

    def add(self, network: str, layer: str, rows: Rows | ReducedRows, place: str) -> None:
        """One more layer, or the logits.

        Raises:
            DataError: the network has a layer of that name.
        """
        layers = self.layers.setdefault(network, {})
        if layer in layers:
            raise DataError(f"{place}: network {network!r} has a layer {layer!r} already, from a file before.")
        layers[layer] = rows

    def networks(self, said: Mapping[str, Mapping[str, Any]]) -> list[NetworkVectors]:
        """Every network, with what names, files and ``said`` tell of it.

        Raises:
            DataError: something is said of a network that there is not, or a role is not known.
        """
        if strange := sorted(set(said) - set(self.layers)):
            near = closest(strange[0], self.layers) or "."
            raise DataError(f"there is no network {strange[0]!r}{near} There are {', '.join(self.layers) or 'none'}.")
        found = []
        for name, arrays in self.layers.items():
            layers = {layer: rows for layer, rows in arrays.items() if layer != LOGITS}
            known = self.records.get(name)
            fields = said.get(name, {})
            record = record_of(name, fields) if known is None else replace(known, **fields)
            logits = arrays.get(LOGITS)
            found.append(NetworkVectors(record, layers, logits if isinstance(logits, Rows) else None))
        return found


@dataclass(frozen=True)
class NetworkSource:
    """Where a network's arrays lie, where names do not say it.

    Attributes:
        said: role and so on, as ``about`` of :func:`~kdpipe.vectors.write.write_vectors`.
        file: the file of its arrays; None where each array has a file of its own.
        layers: keys of the file, or files, from input to output; None for all arrays of the file.
        logits: a key of the file, or a file.
    """

    name: str
    said: Mapping[str, Any]
    file: Path | None = None
    layers: Sequence[str] | None = None
    logits: str | None = None


@dataclass(frozen=True)
class RowIds:
    """Which sample each row is of, for arrays whose files do not say it.

    Attributes:
        file: with one id a row.
        are_numbers: take the rows for the same samples in the same order, as the user said.
    """

    file: Path | None = None
    are_numbers: bool = False

    def of(self, part: Part, load: Loader) -> Sequence[str]:
        """The ids of an array's rows.

        Raises:
            DataError: nobody knows them.
        """
        if part.ids is not None:
            return part.ids
        if self.file is not None:
            return read_ids(self.file)
        if self.are_numbers:
            return [str(row) for row in range(len(as_array(load(), part.place)))]
        raise DataError(f"{part.place}: {_WITHOUT_IDS}")

    def facts(self, part: Part) -> Facts:
        """What a part says of samples."""
        rows = next((load for name, load in part.sample_fields.items() if name != CLASS_NAMES), None)
        return Facts(part.place, [] if rows is None else self.of(part, rows), part.sample_fields)


def gather(
    paths: Sequence[Path],
    *,
    said: Mapping[str, Mapping[str, Any]] | None = None,
    sources: Sequence[NetworkSource] = (),
    row_ids: RowIds = RowIds(),
    samples: Path | None = None,
    class_names: Sequence[str] | None = None,
    image_size: int = DISPLAYED,
) -> tuple[Samples, list[NetworkVectors]]:
    """Samples and networks of files and folders, by the names that they use.

    Args:
        said: by network, what names do not tell, as ``about`` of :func:`~kdpipe.vectors.write.write_vectors`.
        sources: networks that are described, beside those that names tell.
        samples: a file with a row a sample: its id, label, and perhaps text, image and split.

    Raises:
        DataError: what is missing, or does not fit together.
    """
    gathered = Gathered()
    if samples is not None:
        _add_samples(gathered, samples, row_ids)
    for path in files_of(paths):
        if (path / HEAD).is_file():
            add_store(gathered, open_vectors(path))
        else:
            _add_file(gathered, path, row_ids)
    for source in sources:
        _add_source(gathered, source, row_ids)
    networks = gathered.networks({**{source.name: source.said for source in sources}, **(said or {})})
    return joined_samples(gathered.facts, networks, class_names, image_size), networks


def add_store(gathered: Gathered, store: VectorStore) -> None:
    """All networks of a folder of vectors; their records stand in it."""
    samples = store.samples
    ids, names = list(samples.ids), list(samples.class_names)
    for network in store.networks:
        name = network.record.name
        if name in gathered.records:
            raise DataError(f"{store.folder}: another folder has a network {name!r} too; give each a name of its own.")
        gathered.records[name] = network.record
        for order, layer in enumerate(network.layers):
            place = f"{store.folder}, {name!r}, {layer!r}"
            views = {
                view: Rows(ids, partial(store.vectors, network, order, view), place) for view in network.views[order]
            }
            whole = Rows(ids, partial(store.vectors, network, order), place)
            gathered.add(name, layer, ReducedRows(network.shapes[order], views) if views else whole, place)
        if network.has_logits:
            place = f"{store.folder}, {name!r}, logits"
            gathered.add(name, LOGITS, _known_answers(store, network, place), place)
    fields: dict[str, Any] = {
        LABELS: np.array(names)[samples.labels],
        SPLIT: np.where(samples.reference, "reference", "probe"),
        CLASS_NAMES: names,
        TEXTS: samples.texts,
        IMAGES: samples.images,
    }
    known = {name: partial(_itself, value) for name, value in fields.items() if value is not None}
    gathered.facts.append(Facts(str(store.folder), ids, known))


def _known_answers(store: VectorStore, network: StoredNetwork, place: str) -> Rows:
    """A stored network's logits; of samples that probes are fitted on they need not be known."""
    ids, known = store.samples.ids, ~np.isnan(store.logits(network)[:, 0])
    if known.all():
        return Rows(ids, partial(store.logits, network), place)
    return Rows(
        [one for one, there in zip(ids, known, strict=True) if there], lambda: store.logits(network)[known], place
    )


def _add_file(gathered: Gathered, path: Path, row_ids: RowIds) -> None:
    """All arrays of a file, and what it says of samples."""
    for part in read_parts(path):
        for name, load in part.arrays.items():
            network, slash, layer = name.partition("/")
            network, layer = (network, layer) if slash else (part.network, name)
            place = f"{part.place}, {name!r}"
            gathered.add(network, layer, Rows(row_ids.of(part, load), load, place), place)
        if part.sample_fields:
            gathered.facts.append(row_ids.facts(part))


def _add_samples(gathered: Gathered, path: Path, row_ids: RowIds) -> None:
    for part in [read_csv(path)] if path.suffix.lower() == ".csv" else read_parts(path):
        gathered.facts.append(row_ids.facts(part))


def _add_source(gathered: Gathered, source: NetworkSource, row_ids: RowIds) -> None:
    """The arrays of a network that is described."""
    if source.file is None:
        wanted = {Path(path).stem: Path(path) for path in source.layers or ()}
        if source.logits is not None:
            wanted[LOGITS] = Path(source.logits)
        for layer, path in wanted.items():
            rows, facts = _arrays(path, row_ids)
            if len(rows) != 1:
                raise DataError(f"{path}: network {source.name!r} wants one array of it, and it has {', '.join(rows)}.")
            gathered.add(source.name, layer, next(iter(rows.values())), str(path))
            gathered.facts += facts
        return
    rows, facts = _arrays(source.file, row_ids)
    gathered.facts += facts
    keys = source.layers if source.layers is not None else [key for key in rows if key not in (source.logits, LOGITS)]
    logits = source.logits or (LOGITS if LOGITS in rows else None)
    for layer, key in [*((key, key) for key in keys), *([(LOGITS, logits)] if logits else [])]:
        if key not in rows:
            raise DataError(
                f"{source.file}: network {source.name!r} wants {key!r}, which is not in it{closest(key, rows)}; it has "
                f"{', '.join(rows)}."
            )
        gathered.add(source.name, layer, rows[key], str(source.file))


def _arrays(path: Path, row_ids: RowIds) -> tuple[dict[str, Rows], list[Facts]]:
    parts = read_parts(path)
    rows = {
        name: Rows(row_ids.of(part, load), load, f"{part.place}, {name!r}")
        for part in parts
        for name, load in part.arrays.items()
    }
    return rows, [row_ids.facts(part) for part in parts if part.sample_fields]


def _itself(value: Any) -> Any:
    return value
