"""From what people have to arrays and names that are known to be whole; what is not is refused in one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdpipe.errors import DataError
from kdpipe.vectors.content import PROBE, REFERENCE, SPLITS, Array

SHOWN = 3  # examples in a sentence


def examples(values: Iterable[object], count: int) -> str:
    """``'a', 'b', 'c', …``: the first few of ``count`` values."""
    first = [repr(value) for value, _ in zip(values, range(SHOWN), strict=False)]
    return ", ".join([*first, *(["…"] if count > len(first) else [])])


def as_array(value: Any, place: str) -> Array:
    """A NumPy array of what NumPy, torch, polars, pyarrow or lists hold; nothing is unpickled.

    Raises:
        DataError: rows of different lengths, empty entries, or objects.
    """
    if hasattr(value, "detach"):  # a tensor of torch, which is not imported for this; NumPy has no bfloat16
        tensor = value.detach().cpu()
        value = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    elif hasattr(value, "to_arrow"):  # a column of polars
        value = value.to_arrow()
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return _of_arrow(value, place)
    try:
        array = np.asarray(value)
    except ValueError:
        raise DataError(f"{place}: its rows have different lengths.") from None
    if array.dtype.kind == "O":
        return _of_objects(array, place)
    return array


def _of_objects(array: Array, place: str) -> Array:
    """Texts and whole numbers that NumPy keeps as objects, as data frames do; anything else is refused."""
    kinds = {type(value) for value in array.ravel().tolist()}
    if array.ndim == 1 and kinds and (kinds <= {str} or kinds <= {int}):
        return np.asarray(array.tolist())
    if array.ndim == 1 and kinds & {list, np.ndarray}:
        return as_array(array.tolist(), place) if kinds == {list} else _stacked(array, place)
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise DataError(f"{place}: it holds objects ({names}), where numbers or texts are wanted.")


def _stacked(array: Array, place: str) -> Array:
    try:
        return np.stack(array.tolist())
    except (ValueError, TypeError):
        raise DataError(f"{place}: its rows have different lengths.") from None


def _of_arrow(column: pa.Array | pa.ChunkedArray, place: str) -> Array:
    if column.null_count:
        raise DataError(f"{place}: {column.null_count} of {len(column)} rows are empty; remove them or fill them.")
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        parts = [chunk.to_numpy_ndarray() for chunk in chunks]
    elif pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        parts = [_matrix(chunk, place) for chunk in chunks if len(chunk)]
        if len({part.shape[1:] for part in parts}) > 1:
            raise DataError(f"{place}: its rows have different lengths.")
    else:
        return np.asarray(column.to_pylist())
    if not parts:
        raise DataError(f"{place}: it has no rows.")
    return np.concatenate(parts)


def _matrix(chunk: Any, place: str) -> Array:
    """Lists of one length as (N, d), lists of lists as (N, a, b)."""
    values = chunk.flatten()
    if values.null_count:
        raise DataError(f"{place}: {values.null_count} of its values are empty.")
    if len(values) % len(chunk) or (
        not pa.types.is_fixed_size_list(chunk.type) and len(set(np.diff(np.asarray(chunk.offsets)).tolist())) > 1
    ):
        raise DataError(f"{place}: its rows have different lengths.")
    inner = values.to_numpy(zero_copy_only=False) if not pa.types.is_nested(values.type) else _matrix(values, place)
    return inner.reshape(len(chunk), len(values) // len(chunk), *inner.shape[1:])


def sample_ids(value: Any, place: str) -> list[str]:
    """Ids as text, each once: 12 and ``"12"`` are one id.

    Raises:
        DataError: ids that are neither text nor whole numbers, are empty, or stand there twice.
    """
    array = as_array(value, place)
    if array.ndim != 1 or array.dtype.kind not in "iuUS" or len(array) == 0:
        raise DataError(f"{place}: ids are one text or whole number a sample, and these are {_described(array)}.")
    ids = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in array.tolist()]
    if "" in ids:
        raise DataError(f"{place}: {ids.count('')} ids are empty.")
    if repeated := [found for found, times in Counter(ids).items() if times > 1]:
        raise DataError(
            f"{place}: {len(repeated)} ids stand there more than once ({examples(repeated, len(repeated))}); each "
            "sample needs an id of its own."
        )
    return ids


def rows_in_order(ids: Sequence[str], wanted: Sequence[str], place: str, wanted_place: str) -> NDArray[np.int64] | None:
    """For each wanted id its row; None where the rows have that order already.

    Raises:
        DataError: other ids than those that are wanted.
    """
    if list(ids) == list(wanted):
        return None
    row = {found: i for i, found in enumerate(ids)}
    missing = [one for one in wanted if one not in row]
    known = set(wanted)
    foreign = [one for one in ids if one not in known]
    if missing or foreign:
        parts = [
            f"{len(some)} {said} ({examples(some, len(some))})"
            for some, said in ((missing, "are missing"), (foreign, "are not among them"))
            if some
        ]
        raise DataError(
            f"{place}: its ids are not those of {wanted_place} ({len(wanted)} samples): {' and '.join(parts)}. "
            "Every network needs vectors of the same samples."
        )
    return np.array([row[one] for one in wanted], np.int64)


def vectors(value: Any, rows: int, place: str) -> Array:
    """(N, d) or (N, C, H, W), float16 or float32, finite.

    Raises:
        DataError: another shape, another number of rows, no numbers, or NaN and infinity.
    """
    array = as_array(value, place)
    if array.ndim not in (2, 4) or 0 in array.shape:
        more = "; of tokens (N, T, d) take one, or their mean" if array.ndim == 3 else ""
        raise DataError(
            f"{place}: a layer is (samples, features) or (samples, channels, height, width), and this is "
            f"{_described(array)}{more}."
        )
    return _numbers(array, rows, place)


def class_scores(value: Any, rows: int, classes: int, place: str) -> NDArray[np.float32]:
    """Logits (N, K) float32.

    Raises:
        DataError: as :func:`vectors`, or another number of classes.
    """
    array = as_array(value, place)
    if array.ndim != 2 or array.shape[1] != classes:
        raise DataError(
            f"{place}: logits are (samples, {classes}), one column a class, and these are {_described(array)}; "
            "class_names says which classes there are."
        )
    return _numbers(array, rows, place).astype(np.float32, copy=False)


def _numbers(array: Array, rows: int, place: str) -> Array:
    if array.shape[0] != rows:
        raise DataError(f"{place}: {array.shape[0]} rows, and {rows} ids.")
    if array.dtype.kind not in "fiu":
        raise DataError(f"{place}: it must hold numbers, and holds {array.dtype}.")
    kept = array if array.dtype in (np.float16, np.float32) else _in_single_precision(array)
    if bad := rows - int(np.isfinite(kept).all(axis=tuple(range(1, kept.ndim))).sum()):
        raise DataError(f"{place}: {bad} of {rows} rows hold NaN or infinity.")
    return kept


def _in_single_precision(array: Array) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return array.astype(np.float32)


def class_labels(value: Any, class_names: Sequence[str] | None, place: str) -> tuple[NDArray[np.int64], list[str]]:
    """Labels as positions (N,) among the names of classes, and these names.

    Without ``class_names`` the classes are the labels that there are, in their order.

    Raises:
        DataError: labels that are neither text nor whole numbers, a class that has no name, names that stand there
            twice, or a single class.
    """
    array = as_array(value, place)
    if array.dtype.kind == "b":
        array = array.astype(str)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise DataError(f"{place}: labels are one text or whole number a sample, and these are {_described(array)}.")
    used = np.unique(array)
    if len(used) < 2:
        raise DataError(f"{place}: all samples have the label {used[0]!s}; there must be two classes at least.")
    if class_names is None:
        return np.searchsorted(used, array).astype(np.int64), [str(one) for one in used]
    names = [str(name) for name in class_names]
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError(f"class_names: {repeated[0]!r} stands there twice; give each class a name of its own.")
    if array.dtype.kind == "U":
        if strange := sorted(set(used.tolist()) - set(names)):
            raise DataError(f"{place}: {examples(strange, len(strange))} stands among the labels, not in class_names.")
        number = {name: i for i, name in enumerate(names)}
        return np.array([number[label] for label in array.tolist()], np.int64), names
    if used[0] < 0 or used[-1] >= len(names):
        raise DataError(
            f"{place}: labels run from {used[0]} to {used[-1]}, and the {len(names)} classes (class_names, or columns "
            "of the logits) are counted from 0."
        )
    return array.astype(np.int64), names


def in_reference(value: Any, rows: int, place: str) -> NDArray[np.bool_]:
    """Whether each sample is one to fit probes on, from the words of :data:`~kdpipe.vectors.content.SPLITS`."""
    array = as_array(value, place)
    found = [str(one) for one in array.tolist()]
    if strange := sorted(set(found) - set(SPLITS)):
        raise DataError(
            f"{place}: there is no split {strange[0]!r}; write {PROBE!r} (or 'test') for samples that are looked at, "
            f"{REFERENCE!r} (or 'train') for those that probes are fitted on."
        )
    if len(found) != rows:
        raise DataError(f"{place}: {len(found)} rows, and {rows} ids.")
    reference = np.array([SPLITS[one] == REFERENCE for one in found], bool)
    if reference.all():
        raise DataError(f"{place}: all samples are {REFERENCE!r}, and none is left to look at.")
    return reference


def sayings(value: Any, rows: int, place: str) -> list[str]:
    """One text a sample."""
    array = as_array(value, place)
    if array.ndim != 1 or array.dtype.kind != "U" or len(array) != rows:
        raise DataError(f"{place}: one text for each of {rows} samples is wanted, and these are {_described(array)}.")
    return [str(one) for one in array]


def pictures(value: Any, rows: int, place: str) -> NDArray[np.uint8]:
    """(N, C, H, W) uint8 from (N, H, W), (N, H, W, C) or (N, C, H, W), with 1 or 3 channels.

    Raises:
        DataError: texts (addresses are never fetched), other shapes, or no uint8.
    """
    array = as_array(value, place)
    if array.dtype.kind in "US":
        raise DataError(f"{place}: these are texts, such as addresses or paths, which are not followed; give pixels.")
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[0] != rows:
        raise DataError(
            f"{place}: images are uint8 (samples, height, width, 3) or so, and these are {_described(array)}."
        )
    if array.ndim == 3:
        return array[:, None]
    first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
    if first == last:
        said = "either the second or the fourth number could be" if first else "none of them is"
        raise DataError(f"{place}: images are {_described(array)}, and {said} the channels (1 or 3).")
    return array if first else np.ascontiguousarray(np.moveaxis(array, 3, 1))


def _described(array: Array) -> str:
    return f"{array.dtype} {tuple(array.shape)}"
