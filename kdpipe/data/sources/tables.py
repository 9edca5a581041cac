"""Tables of images: which column holds the images and which the labels, in Parquet and in Arrow files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from kdpipe.data.sources.base import Request, shown
from kdpipe.data.sources.images import Encoded
from kdpipe.data.sources.labels import FileLabels, told_apart
from kdpipe.errors import DataError

IMAGE_NAMES = ("image", "img")
_PATH_NAMES = {*IMAGE_NAMES, "path", "file", "file_name", "filename", "file_path", "filepath", "image_path", "url"}
LABEL_NAMES = ("label", "labels", "fine_label", "class", "class_name", "category", "target")


@dataclass(frozen=True)
class Columns:
    """Where a file has its images and labels, and what it calls the classes (None: it does not say)."""

    image: str
    label: str | None
    names: list[Any] | None


def columns_of(path: Path, request: Request) -> Columns:
    """Find the columns of a file by name and type.

    Raises:
        DataError: no such columns, several that could be meant, or types that hold no images or labels.
    """
    schema = _schema(path)
    image = _image_column(schema, path, request.image_column)
    features = _features(schema)
    label = _label_column(schema, path, request.label_column, image, features)
    named = label is not None and (_is_number(schema.field(label).type) or pa.types.is_null(schema.field(label).type))
    names = features.get(label) if label is not None and named else None
    return Columns(image, label, names or None)


def labels_of(path: Path, request: Request) -> FileLabels:
    """The labels of a file, without its images.

    Raises:
        DataError: as :func:`columns_of`, or a damaged file.
    """
    columns = columns_of(path, request)
    if columns.label is None:
        with _readable(path):
            rows = pq.read_metadata(path).num_rows if _is_parquet(path) else _table(path, []).num_rows
        return FileLabels(path, None, [None] * rows)
    with _readable(path):
        values = _table(path, [columns.label])[columns.label].to_pylist()
    values = [_key(value, f"{shown(path)}, row {row}") for row, value in enumerate(values)]
    if columns.names is None:
        return FileLabels(path, columns.label, values)
    names = told_apart(columns.names)
    return FileLabels(path, columns.label, values, names, twins=names != columns.names)


def _key(value: Any, place: str) -> int | str | None:
    """A label as it is compared: whole numbers as integers, however they are written; NaN is an empty label.

    Raises:
        DataError: a number that is not whole.
    """
    if isinstance(value, bool):
        return str(value)
    if not isinstance(value, float):
        return value  # type: ignore[no-any-return]
    if math.isnan(value):
        return None
    if not value.is_integer():
        raise DataError(f"{place}: the label is {value:g}, and classes are whole numbers or text; set another column.")
    return int(value)


def images_of(path: Path, request: Request, rows: int | None = None) -> list[tuple[Encoded, str]]:
    """What gives the images of a file, or its first ``rows``, each with its place; a row without one gives an error.

    Raises:
        DataError: as :func:`columns_of`, or a damaged file.
    """
    column = columns_of(path, request).image
    with _readable(path):
        if rows is not None and _is_parquet(path):
            batches = pq.ParquetFile(path).iter_batches(batch_size=rows, columns=[column])
            entries: list[Any] = next((batch.column(0).to_pylist() for batch in batches), [])
        else:
            entries = _table(path, [column])[column].slice(0, rows).to_pylist()
    return [
        (_encoded(entry, f"{shown(path)}, row {row}"), f"{shown(path)}, row {row}") for row, entry in enumerate(entries)
    ]


def _encoded(entry: Any, place: str) -> Encoded:
    path = entry.get("path") if isinstance(entry, dict) else None
    data = entry["bytes"] if isinstance(entry, dict) else entry
    if data is not None:
        return bytes(data)

    def refuse() -> NoReturn:
        if path:
            raise DataError(f"{place}: it has the path {shown(path)!r} and no image; write the bytes into the file.")
        raise DataError(f"{place}: the image is empty; remove the row.")

    return refuse


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{shown(path)}: damaged, or no {path.suffix} file ({shown(error)}); fetch it again.") from None


def _arrow(path: Path) -> Any:
    """A reader of Arrow's stream format, in which Hugging Face saves, or of its file format."""
    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        return pa.ipc.open_file(source)


def _table(path: Path, columns: list[str]) -> pa.Table:
    if _is_parquet(path):
        return pq.read_table(path, columns=columns, partitioning=None)
    return _arrow(path).read_all().select(columns)


def _features(schema: pa.Schema) -> dict[str, list[Any]]:
    """Columns that Hugging Face's metadata calls class labels, with the names of their classes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if _is_class_label(feature)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _is_class_label(feature: Any) -> bool:
    return isinstance(feature, dict) and isinstance(feature.get("names"), list)


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and (place := kind.get_field_index("bytes")) >= 0:
        return _is_bytes(kind.field(place).type)
    return _is_bytes(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_label(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return _is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind) or _is_text(kind)


def _schema(path: Path) -> pa.Schema:
    with _readable(path):
        return pq.read_schema(path) if _is_parquet(path) else _arrow(path).schema


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def described_columns(path: Path) -> str:
    """Names and types of a file's columns, for people."""
    return _described(_schema(path))


def _described(schema: pa.Schema) -> str:
    return shown(", ".join(f"{field.name} ({field.type})" for field in schema))


def _image_column(schema: pa.Schema, path: Path, chosen: str | None) -> str:
    images = [field.name for field in schema if _is_image(field.type)]
    if chosen is not None:
        if chosen not in images:
            raise DataError(f"{path}: data.image_column: no images in {chosen!r}; it has {_described(schema)}.")
        return chosen
    if not images:
        _refuse_paths(schema, path)
        raise DataError(
            f"{path}: needs an image column (binary, or a struct with binary 'bytes') and a column called label; "
            f"it has {_described(schema)}."
        )
    if len(images) == 1:
        return images[0]
    if len(usual := [name for name in IMAGE_NAMES if name in images]) == 1:
        return usual[0]
    raise DataError(f"{path}: {' and '.join(images)} hold images; set data.image_column to one of them.")


def _refuse_paths(schema: pa.Schema, path: Path) -> None:
    """Refuse a column that says where images lie, as such a file is no use on another machine."""
    for field in schema:
        name, kind = field.name, field.type
        alone = pa.types.is_struct(kind) and [part.name for part in kind] == ["path"]
        if alone or (_is_text(kind) and name.lower() in _PATH_NAMES):
            raise DataError(
                f"{shown(path)}: column {shown(name)!r} holds paths of images and not images; write their bytes into "
                "the file, or put the images into one folder a class for dataset 'folder'."
            )


def _label_column(
    schema: pa.Schema, path: Path, chosen: str | None, image: str, features: dict[str, list[Any]]
) -> str | None:
    """Name of the label column, or None where there is nothing that could be meant."""
    rest = [name for name in schema.names if name != image]
    if chosen is not None:
        label = chosen if chosen in rest else None
    elif usual := [name for name in LABEL_NAMES if name in rest]:
        label = usual[0]
    elif len(named := [name for name in features if name in rest]) == 1:
        label = named[0]
    else:
        label = rest[0] if len(rest) == 1 and pa.types.is_integer(schema.field(rest[0]).type) else None
    if label is not None and schema.names.count(label) > 1:
        raise DataError(f"{path}: {schema.names.count(label)} columns are called {label!r}; rename one of them.")
    if label is not None and not _is_label(schema.field(label).type):
        raise DataError(f"{path}: {_no_label(label, schema.field(label).type)}; set data.label_column to another.")
    return label


def _no_label(name: str, kind: pa.DataType) -> str:
    """Why a column holds no labels."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    said = f"column {shown(name)!r} is {shown(kind)}"
    if any(test(kind) for test in lists):
        return f"{said}, several values an image, and a label is one integer or text"
    if pa.types.is_struct(kind):
        return f"{said}, and a label is one integer or text: make a column of the field that is meant"
    return f"{said}, and labels are integers or text"
