"""From files to their parts: arrays by name, each read when it is wanted, with the sample of each row.

Read are npz, npy, safetensors, Parquet and Arrow; and for ids, labels and texts also CSV and plain text. Nothing is
unpickled and no address is followed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads

from kdpipe.errors import DataError
from kdpipe.vectors.checks import sample_ids
from kdpipe.vectors.store import HEAD, SUFFIX

# What a file may call what is no layer.
ID_NAMES = ("ids", "id", "sample_id", "sample_ids")
LABEL_NAMES, SPLIT_NAMES = ("labels", "label"), ("split", "splits")
TEXT_NAMES, IMAGE_NAMES = ("texts", "text"), ("images", "image")
CLASS_NAMES = "class_names"
SAMPLE_NAMES = (*ID_NAMES, *LABEL_NAMES, *SPLIT_NAMES, *TEXT_NAMES, *IMAGE_NAMES, CLASS_NAMES)
# Columns of a long table: a row a network, layer and sample.
LONG = ("network", "layer", "vector")
ARROW = (".arrow", ".feather", ".ipc")
SUFFIXES = (".npz", ".npy", ".safetensors", ".parquet", *ARROW)

Loader = Callable[[], Any]


@dataclass(frozen=True)
class Part:
    """Arrays of one file that share their rows.

    Attributes:
        place: the file, for errors.
        network: what the file's name calls the network of arrays without a network in their names.
        ids: which sample each row is of; None where the file does not say.
        arrays: each array by name, ``network/layer`` or ``layer``, read when it is called.
        sample_fields: labels, split, texts, images and class_names, by these names.
    """

    place: str
    network: str
    ids: Sequence[str] | None
    arrays: Mapping[str, Loader]
    sample_fields: Mapping[str, Loader]


def natural(text: str) -> list[tuple[int, str]]:
    """Sorts ``layer2`` before ``layer10``."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"([0-9]+)", text)]


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files that paths stand for: of a folder all that can be read, in natural order; a folder of vectors itself.

    Raises:
        DataError: a path that is not there, or a folder without such files.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir() and not (path / HEAD).is_file():
            inside = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES or file.name.endswith(SUFFIX)]
            if not inside:
                raise DataError(f"{path}: there is no file of vectors in it ({', '.join(SUFFIXES)}).")
            found += sorted(inside, key=lambda file: natural(file.name))
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: there is no such file.")
    return found


def read_parts(path: Path) -> list[Part]:
    """The parts of a file: one, but of a long table one a network and layer.

    Raises:
        DataError: a file that cannot be read, of an unknown kind, or that holds pickled objects.
    """
    kind = path.suffix.lower()
    readers: Mapping[str, Callable[[Path], list[Part]]] = {
        ".npz": _read_npz, ".npy": _read_npy, ".safetensors": _read_safetensors, ".parquet": _read_table,
        **dict.fromkeys(ARROW, _read_table),
    }  # fmt: skip
    if kind not in readers:
        advice = "; its objects would have to be executed" if kind in {".pt", ".pth", ".pkl", ".pickle", ".bin"} else ""
        raise DataError(f"{path}: vectors are read from {', '.join(SUFFIXES)}, not from {kind or 'this'}{advice}.")
    with _readable(path):
        return readers[kind](path)


def read_ids(path: Path) -> list[str]:
    """Ids, one a row: of a text file its lines, of another file its ids.

    Raises:
        DataError: a file without ids.
    """
    if path.suffix.lower() == ".txt":
        with _readable(path):
            return sample_ids(path.read_text(encoding="utf-8").splitlines(), str(path))
    if path.suffix.lower() == ".npy":
        with _readable(path):
            return sample_ids(np.load(path, allow_pickle=False), str(path))
    parts = [read_csv(path)] if path.suffix.lower() == ".csv" else read_parts(path)
    if len(parts) != 1 or parts[0].ids is None:
        raise DataError(f"{path}: there are no ids in it; call their column or key {ID_NAMES[0]!r}.")
    return list(parts[0].ids)


def read_csv(path: Path) -> Part:
    """A table with a row a sample: ids as they are written, other columns as texts, and numbers if all are numbers."""
    with _readable(path):
        frame = pl.read_csv(path, infer_schema_length=0)
    columns = {name: frame[name] for name in frame.columns}
    whole = {
        name: column.cast(pl.Int64)
        if name in LABEL_NAMES and column.str.contains(r"^(0|-?[1-9]\d*)$").all()
        else column
        for name, column in columns.items()
    }
    return _part(path, path.stem, {name: partial(_itself, column) for name, column in whole.items()})


def _part(path: Path, network: str, columns: Mapping[str, Loader]) -> Part:
    """A part from all arrays of a file: ids and what is known of samples are told from layers by their names."""
    place = str(path)
    ids = [name for name in columns if name in ID_NAMES]
    if len(ids) > 1:
        raise DataError(f"{place}: {' and '.join(ids)} could both be the ids; keep one of them.")
    fields = _sample_fields(columns, place)
    arrays = {name: load for name, load in columns.items() if name not in SAMPLE_NAMES}
    found = sample_ids(columns[ids[0]](), f"{place}, {ids[0]!r}") if ids else None
    return Part(place, network, found, arrays, fields)


def _sample_fields(columns: Mapping[str, Loader], place: str) -> dict[str, Loader]:
    fields = {}
    for names in (LABEL_NAMES, SPLIT_NAMES, TEXT_NAMES, IMAGE_NAMES, (CLASS_NAMES,)):
        found = [name for name in columns if name in names]
        if len(found) > 1:
            raise DataError(f"{place}: {' and '.join(found)} could both be the {names[0]}; keep one of them.")
        if found:
            fields[names[0]] = columns[found[0]]
    return fields


def _itself(value: Any) -> Any:
    return value


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        EOFError,
        pa.ArrowException,
        pl.exceptions.PolarsError,
        UnicodeDecodeError,
        BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path}: damaged, or no {path.suffix} file ({error}).") from None
    except ValueError as error:
        if "pickle" in str(error) or "Python objects" in str(error):
            raise DataError(
                f"{path}: it holds pickled objects, which are not opened as they can run code; save plain arrays."
            ) from None
        raise DataError(f"{path}: damaged, or no {path.suffix} file ({error}).") from None


def _loaded(path: Path, load: Loader) -> Any:
    with _readable(path):
        return load()


# ------------------------------------------------------------------------------- npz and npy


def _read_npz(path: Path) -> list[Part]:
    archive = np.load(path, allow_pickle=False)
    return [_part(path, path.stem, {key: partial(_loaded, path, partial(archive.__getitem__, key)) for key in archive})]


def _read_npy(path: Path) -> list[Part]:
    """One layer: ``network.layer.npy``, or ``network/layer.npy``. ``ids.npy`` and so on lie beside it."""
    network, dot, layer = path.stem.partition(".")
    if not dot:
        network, layer = path.absolute().parent.name, path.stem
    columns: dict[str, Loader] = {}
    for name in SAMPLE_NAMES:
        beside = path.with_name(f"{name}.npy")
        if beside.is_file():
            columns[name] = partial(_loaded, beside, partial(np.load, beside, allow_pickle=False))
    if path.stem in SAMPLE_NAMES:
        return []
    columns[f"{network}/{layer}"] = partial(_loaded, path, partial(np.load, path, mmap_mode="r", allow_pickle=False))
    return [_part(path, network, columns)]


# ------------------------------------------------------------------------------- safetensors


def _read_safetensors(path: Path) -> list[Part]:
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError:
        raise DataError(
            f"{path}: reading it needs safetensors, which is not installed: pip install safetensors."
        ) from None

    def load(key: str) -> Any:
        try:
            with safe_open(path, "numpy") as file:
                return file.get_tensor(key)
        except (SafetensorError, TypeError, AttributeError) as error:  # bfloat16, which NumPy does not have
            raise DataError(f"{path}, {key!r}: it cannot be read ({error}); save it as float16 or float32.") from None

    try:
        with safe_open(path, "numpy") as file:
            keys = sorted(file.keys(), key=natural)
    except SafetensorError as error:
        raise DataError(f"{path}: damaged, or no .safetensors file ({error}).") from None
    return [_part(path, path.stem, {key: partial(load, key) for key in keys})]


# ------------------------------------------------------------------------------- Parquet and Arrow


def _read_table(path: Path) -> list[Part]:
    data = pads.dataset(path, format="parquet" if path.suffix.lower() == ".parquet" else "arrow")
    if set(LONG) <= set(data.schema.names):
        return _long(path, data)
    return [_part(path, path.stem, {name: _column(path, data, name) for name in data.schema.names})]


def _column(path: Path, data: pads.Dataset, name: str, rows: Any = None) -> Loader:
    def load() -> Any:
        with _readable(path):
            return data.to_table(columns=[name], filter=rows)[name]

    return load


def _long(path: Path, data: pads.Dataset) -> list[Part]:
    """A part a network and layer, in the order in which the table has them."""
    keys = pl.from_arrow(data.to_table(columns=["network", "layer"]))
    assert isinstance(keys, pl.DataFrame)
    parts = []
    others = [name for name in data.schema.names if name not in LONG]
    for network, layer in keys.unique(maintain_order=True).iter_rows():
        rows = (pads.field("network") == network) & (pads.field("layer") == layer)
        columns = {name: _column(path, data, name, rows) for name in others if name in SAMPLE_NAMES}
        columns[f"{network}/{layer}"] = _column(path, data, "vector", rows)
        if "logits" in others and _some_logits(data, rows):
            columns[f"{network}/logits"] = _column(path, data, "logits", rows)
        part = _part(path, str(network), columns)
        parts.append(Part(f"{path}, network {network!r}, layer {layer!r}", *_rest(part)))
    return parts


def _rest(part: Part) -> tuple[str, Sequence[str] | None, Mapping[str, Loader], Mapping[str, Loader]]:
    return part.network, part.ids, part.arrays, part.sample_fields


def _some_logits(data: pads.Dataset, rows: Any) -> bool:
    """A network's logits may stand beside one of its layers alone."""
    column = data.to_table(columns=["logits"], filter=rows)["logits"]
    return column.null_count < len(column)
