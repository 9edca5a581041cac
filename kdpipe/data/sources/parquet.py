"""Hugging-Face-style Parquet: an image column (a struct with ``bytes``) and an integer label column."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kdpipe.data.sources.base import Peek, RawData, Request, Source, Split, Tick, folder_of
from kdpipe.data.sources.images import checked, decode, stack
from kdpipe.errors import DataError


def _parquet_files(request: Request, root: Path) -> list[Path]:
    place = folder_of(request, root)
    if not (train := sorted(place.rglob("train*.parquet"))):
        raise DataError(f"{place}: no train*.parquet there; Hugging Face names files train-00000-of-00001.parquet.")
    return train + _parquet_test(place)


def _parquet_test(place: Path) -> list[Path]:
    for pattern in ("test*.parquet", "validation*.parquet", "valid*.parquet"):
        if found := sorted(place.rglob(pattern)):
            return found
    return []


def _load_parquet(request: Request, root: Path, tick: Tick) -> RawData:
    place = folder_of(request, root)
    files = _parquet_files(request, root)
    test_files = _parquet_test(place)
    names = _parquet_names(files)

    def split(paths: list[Path]) -> Split:
        items: list[tuple[bytes | Path, str]] = []
        labels: list[int] = []
        for path in paths:
            rows, numbers = _parquet_rows(path)
            items += [(data, f"{path}, row {row}") for row, data in enumerate(rows)]
            labels += numbers
        if not items:
            raise DataError(f"{paths[0]}: it holds no images.")
        return checked(stack(items, request, tick), np.array(labels), len(names), str(paths[0]))

    train = split([path for path in files if path not in test_files])
    return RawData(train, split(test_files) if test_files else None, names)


def _peek_parquet(request: Request, root: Path) -> Peek:
    files = _parquet_files(request, root)
    tests = _parquet_test(folder_of(request, root))
    # All files are looked at, so that all are known to be readable.
    columns = {path: _parquet_columns(path) for path in files}
    counts = {path: pq.read_metadata(path).num_rows for path in files}
    try:
        row = next(pq.ParquetFile(files[0]).iter_batches(batch_size=1, columns=[columns[files[0]][0]]), None)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{files[0]}: damaged Parquet file ({error}); fetch it again.") from None
    entry = row.column(0)[0].as_py() if row is not None and row.num_rows else None
    if not entry or entry["bytes"] is None:
        raise DataError(f"{files[0]}: its first row has no image.")
    first = decode(entry["bytes"], f"{files[0]}, row 0", request)
    shape = (first.shape[0], first.shape[1], first.shape[2])
    train = sum(rows for path, rows in counts.items() if path not in tests)
    return Peek(shape, _parquet_names(files), train, sum(counts[path] for path in tests) if tests else None)


def _parquet_columns(path: Path) -> tuple[str, str, dict[bytes, bytes]]:
    """Names of the image and label column, and the schema's metadata."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}); fetch it again.") from None
    images = [f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    labels = [f.name for f in schema if pa.types.is_integer(f.type)]
    preferred = [name for name in ("label", "labels", "fine_label") if name in labels]
    preferred = preferred or (labels if len(labels) == 1 else [])
    if not images or not preferred:
        raise DataError(
            f"{path}: needs an image column (a struct with 'bytes') and an integer column called label; "
            f"it has {', '.join(schema.names)}."
        )
    return images[0], preferred[0], schema.metadata or {}


def _parquet_rows(path: Path) -> tuple[list[bytes], list[int]]:
    image, label, _ = _parquet_columns(path)
    try:
        table = pq.read_table(path, columns=[image, label])
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: damaged Parquet file ({error}); fetch it again.") from None
    rows = [entry["bytes"] if entry else None for entry in table[image].to_pylist()]
    labels = table[label].to_pylist()
    for row, (data, number) in enumerate(zip(rows, labels, strict=True)):
        if data is None or number is None:
            raise DataError(f"{path}, row {row}: the {'image' if data is None else 'label'} is empty; remove the row.")
    return [bytes(data) for data in rows if data is not None], labels


def _parquet_names(files: list[Path]) -> list[str]:
    """Class names from the schema's metadata, or the labels themselves as names."""
    _, label, metadata = _parquet_columns(files[0])
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        highest = max(max(_parquet_rows(path)[1], default=0) for path in files)
        return [str(number) for number in range(highest + 1)]


SOURCES = (
    Source(
        "parquet",
        "Hugging-Face-style Parquet",
        _parquet_files,
        _load_parquet,
        "flip-shift4",
        "that of the images",
        needs_path=True,
        peek=_peek_parquet,
    ),
)
