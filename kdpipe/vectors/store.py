"""A folder of vectors on disk: written whole, read checked and memory-mapped.

``vectors.json`` says what there is, with the sha256 of every other file; ``samples.parquet`` has a row a sample, and
``images.npy`` their pixels, if there are any; ``<network>/<layer>.npy`` a layer's vectors or maps, both counted from
0, their rows in the samples' order, or ``<network>/<layer>.<view>.npy`` of maps that were made vectors already;
``<network>/logits.npy`` the logits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kdpipe.errors import DataError
from kdpipe.files import canonical_json, new_folder, sha256_of
from kdpipe.vectors.checks import class_scores, rows_in_order, vectors
from kdpipe.vectors.content import Array, NetworkRecord, NetworkVectors, ReducedRows, Rows, Samples

FORMAT, VERSION = "kdpipe-vectors", 1
HEAD, SAMPLES, IMAGES = "vectors.json", "samples.parquet", "images.npy"
SUFFIX = ".vectors"


def layer_file(network: int, order: int, view: str | None = None) -> str:
    return f"{network:03d}/{order:03d}.npy" if view is None else f"{network:03d}/{order:03d}.{view}.npy"


def logits_file(network: int) -> str:
    return f"{network:03d}/logits.npy"


@dataclass(frozen=True)
class StoredNetwork:
    """A network of a folder.

    Attributes:
        index: which of the folder's networks it is.
        layers: names, from input to output.
        shapes: of one sample at each layer: (d,) or (C, H, W).
        views: of each layer, those that it is kept in; none where it is kept as it is.
        has_logits: whether its answers are known.
    """

    index: int
    record: NetworkRecord
    layers: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    views: tuple[tuple[str, ...], ...]
    has_logits: bool

    @property
    def files(self) -> list[str]:
        """All files of the network."""
        layers = [layer_file(self.index, i, view) for i, views in enumerate(self.views) for view in views or (None,)]
        return [*layers, *([logits_file(self.index)] if self.has_logits else [])]


@dataclass(frozen=True)
class VectorStore:
    """An opened folder of vectors. Arrays are memory-mapped; each file's sha256 is checked when it is first read."""

    folder: Path
    networks: tuple[StoredNetwork, ...]
    class_names: tuple[str, ...]
    sums: Mapping[str, str]
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)

    @cached_property
    def samples(self) -> Samples:
        """What the networks saw, in the order of all rows."""
        table = pq.read_table(self._file(SAMPLES))
        return Samples(
            ids=table["id"].to_pylist(),
            labels=table["label"].to_numpy().astype(np.int64),
            class_names=list(self.class_names),
            reference=table["reference"].to_numpy(zero_copy_only=False),
            texts=table["text"].to_pylist() if "text" in table.column_names else None,
            images=self._array(IMAGES) if IMAGES in self.sums else None,
        )

    def network(self, name: str) -> StoredNetwork:
        """The network of that name.

        Raises:
            DataError: there is none.
        """
        for network in self.networks:
            if network.record.name == name:
                return network
        names = ", ".join(network.record.name for network in self.networks)
        raise DataError(f"{self.folder}: there is no network {name!r}; it has {names}.")

    def vectors(self, network: StoredNetwork, order: int, view: str | None = None) -> Array:
        """(N, d) or (N, C, H, W) of a layer, float16 or float32; (N, d) of one of its views, if it is kept in views."""
        return self._array(layer_file(network.index, order, view))

    def logits(self, network: StoredNetwork) -> NDArray[np.float32]:
        """(N, K) of a network that has logits."""
        return self._array(logits_file(network.index))

    def samples_key(self) -> str:
        """What the samples are, as a hash: their ids, labels, split, texts, images and the names of classes."""
        return _hash([list(self.class_names), {name: self.sums.get(name) for name in (SAMPLES, IMAGES)}])

    def network_key(self, network: StoredNetwork) -> str:
        """What a network's vectors are, as a hash: of which layers and which samples."""
        return _hash([self.samples_key(), list(network.layers), [self.sums[name] for name in network.files]])

    def _array(self, name: str) -> Array:
        try:
            return np.load(self._file(name), mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise DataError(f"{self.folder / name}: it is no array ({error}); import the vectors again.") from None

    def _file(self, name: str) -> Path:
        path = self.folder / name
        if name not in self._checked:
            if not path.is_file():
                raise DataError(f"{path}: the file is not there; import the vectors again.")
            if sha256_of(path) != self.sums.get(name):
                raise DataError(f"{path}: the file is not what was written; import the vectors again.")
            self._checked.add(name)
        return path


def _hash(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def open_vectors(folder: Path) -> VectorStore:
    """Open a folder that :func:`write_store` left.

    Raises:
        DataError: no such folder, or one of another kind or version.
    """
    try:
        head = json.loads((folder / HEAD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: there is no folder of vectors; kdpipe import makes one.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / HEAD}: it cannot be read ({error}); import the vectors again.") from None
    if not isinstance(head, dict) or head.get("format") != FORMAT or head.get("version") != VERSION:
        raise DataError(f"{folder / HEAD}: no vectors of version {VERSION}; import them again with this kdpipe.")
    try:
        networks = tuple(_stored(index, entry) for index, entry in enumerate(head["networks"]))
        return VectorStore(folder, networks, tuple(head["class_names"]), dict(head["files"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / HEAD}: it is damaged ({error!r}); import the vectors again.") from None


def _stored(index: int, entry: Mapping[str, Any]) -> StoredNetwork:
    layers = entry["layers"]
    return StoredNetwork(
        index,
        NetworkRecord(**entry["record"]),
        tuple(layer["layer"] for layer in layers),
        tuple(tuple(layer["shape"]) for layer in layers),
        tuple(tuple(layer.get("views", ())) for layer in layers),
        entry["logits"],
    )


def write_store(folder: Path, samples: Samples, networks: Iterable[NetworkVectors]) -> VectorStore:
    """Check and write samples and networks, one layer at a time; the folder is whole or as it was.

    Rows are put into the samples' order by their ids.

    Raises:
        DataError: what cannot be used, as :mod:`kdpipe.vectors.checks` says; two networks of one name or place.
        FileExistsError: ``folder`` is a file.
    """
    given = list(networks)
    _refuse_twins([network.record for network in given])
    with new_folder(folder) as building:
        _write_samples(building, samples)
        entries = [_write_network(building, index, network, samples) for index, network in enumerate(given)]
        files = sorted(path.relative_to(building).as_posix() for path in building.rglob("*") if path.is_file())
        head = {
            "format": FORMAT,
            "version": VERSION,
            "class_names": list(samples.class_names),
            "samples": len(samples),
            "reference": int(samples.reference.sum()),
            "networks": entries,
            "files": {name: sha256_of(building / name) for name in files},
        }
        (building / HEAD).write_text(json.dumps(head, indent=1), encoding="utf-8")
    return open_vectors(folder)


def _refuse_twins(records: Sequence[NetworkRecord]) -> None:
    if not records:
        raise DataError("There is no network; give vectors of a teacher, of plain and of distilled students.")
    names: dict[object, NetworkRecord] = {}
    for record in records:
        if record.name in names:
            raise DataError(f"Two networks are called {record.name!r}; give each a name of its own.")
        if record.place in names:
            step = "" if record.step is None else f", step {record.step}"
            raise DataError(
                f"{names[record.place].name!r} and {record.name!r} are both {record.role}, student {record.student!r}, "
                f"method {record.method!r}, seed {record.seed}, {record.label_fraction:g} of the labels{step}; say in "
                "which of these they differ."
            )
        names[record.name] = names[record.place] = record


def _write_samples(building: Path, samples: Samples) -> None:
    columns = {
        "id": pa.array(samples.ids, pa.string()),
        "label": pa.array(samples.labels.astype(np.int32)),
        "reference": pa.array(samples.reference),
    }
    if samples.texts is not None:
        columns["text"] = pa.array(samples.texts, pa.string())
    pq.write_table(pa.table(columns), building / SAMPLES, compression="zstd")
    if samples.images is not None:
        np.save(building / IMAGES, samples.images, allow_pickle=False)


def _write_network(building: Path, index: int, network: NetworkVectors, samples: Samples) -> dict[str, Any]:
    """Write a network's arrays; its entry in the head."""
    if not network.layers:
        raise DataError(f"network {network.record.name!r}: it has no layer.")
    (building / layer_file(index, 0)).parent.mkdir()
    layers = []
    for order, (layer, given) in enumerate(network.layers.items()):
        views: dict[str | None, Rows] = {None: given} if isinstance(given, Rows) else dict(given.views.items())
        shape: tuple[int, ...] = ()
        for view, rows in views.items():
            array = vectors(rows.load(), len(rows.ids), rows.place)
            np.save(building / layer_file(index, order, view), _in_order(array, rows, samples), allow_pickle=False)
            shape = array.shape[1:]
        entry = {"layer": layer, "shape": list(shape)}
        if isinstance(given, ReducedRows):
            entry |= {"shape": list(given.shape), "views": list(given.views)}
        layers.append(entry)
    if network.logits is not None:
        np.save(building / logits_file(index), _answers(network.logits, samples), allow_pickle=False)
    return {"record": asdict(network.record), "layers": layers, "logits": network.logits is not None}


def _answers(rows: Rows, samples: Samples) -> Array:
    """Logits in the samples' order; NaN where probes are fitted on a sample whose answer is not known."""
    given, ids = rows.load(), list(rows.ids)
    if isinstance(given, pa.ChunkedArray) and given.null_count:
        ids = [one for one, known in zip(ids, given.is_valid().to_pylist(), strict=False) if known]
        given = given.drop_null()
    scores = class_scores(given, len(ids), len(samples.class_names), rows.place)
    known = set(ids)
    asked = np.array([one in known for one in samples.ids]) | ~samples.reference
    wanted = [one for one, needed in zip(samples.ids, asked, strict=True) if needed]
    order = rows_in_order(ids, wanted, rows.place, "the samples")
    answers = np.full((len(samples), scores.shape[1]), np.nan, np.float32)
    answers[asked] = scores if order is None else scores[order]
    return answers


def _in_order(array: Array, rows: Rows, samples: Samples) -> Array:
    order = rows_in_order(rows.ids, samples.ids, rows.place, "the samples")
    return array if order is None else array[order]
