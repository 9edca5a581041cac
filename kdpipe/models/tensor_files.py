"""Files of tensors, whoever wrote them: torch's checkpoints, safetensors and Hugging Face's shards, as named tensors.

A pickled file can run code when it is loaded. Only torch's unpickler for weights alone reads it here, and what else
training scripts save (command-line options, numpy's numbers, paths) becomes an inert :class:`_StandIn`: nothing that
the file names is imported or called.
"""

from __future__ import annotations

import argparse
import json
import re
import tarfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PosixPath, PurePosixPath
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kdpipe.errors import NetworkError

NESTING = 8  # tables within tables that are followed


class _StandIn:
    """Stands for an object that is no tensor: takes any arguments and any state, and does nothing."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# Beside weights, training scripts save their options, numbers and paths under these names.
_NOT_READ = (
    f"{argparse.Namespace.__module__}.{argparse.Namespace.__qualname__}",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
    *(f"pathlib.{kind.__qualname__}" for kind in (Path, PosixPath, PurePosixPath)),
    *(f"pathlib._local.{kind.__qualname__}" for kind in (Path, PosixPath, PurePosixPath)),
)

# How files begin that people take for checkpoints, and what to do.
_OTHER_KINDS = {
    b"version https://git-lfs": "is a Git LFS pointer and not the file that it points to; fetch that (git lfs pull)",
    b"<": "is a web page or XML, as failed downloads leave behind; download the file again",
    b"\x1f\x8b": "is compressed (gzip); unpack it first",
    b"\x89HDF": "is an HDF5 file (Keras); kdpipe reads weights of torch and safetensors alone",
    b"{": "is JSON and holds no weights; name the file of weights beside it",
}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a weights file, under dotted names that say where in it they lie.

    ``{"model": {"conv1.weight": w}, "epoch": 3}`` gives ``{"model.conv1.weight": w}``. Tables with keys that are no
    text, such as an optimizer's state, are left out.

    Args:
        path: a file of ``torch.save``, safetensors, or the index of shards (``*.safetensors.index.json``).

    Raises:
        NetworkError: no such file, none of these, damaged, or one that asks for more than tensors.
    """
    try:
        tensors = dict(_named(_read(path)))
    except FileNotFoundError:
        raise NetworkError(f"{path}: there is no such file.") from None
    except IsADirectoryError:
        raise NetworkError(f"{path} is a folder; name the file of weights in it.") from None
    except OSError as error:
        raise NetworkError(f"{path} cannot be read ({error.strerror or error}).") from None
    for name, tensor in tensors.items():
        if problem := _unusable(tensor):
            raise NetworkError(f"{path}: {name} {problem}; have it saved anew as a plain state dict.")
    return tensors


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(64)
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    if not head.strip(b"\0"):
        raise NetworkError(f"{path} is empty; download or save it again.")
    if head[8:9] == b"{" or path.suffix == ".safetensors":  # the length of a header, and the header, which is JSON
        return _read_safetensors(path)
    for start, said in _OTHER_KINDS.items():
        if head.lstrip().startswith(start):
            raise NetworkError(f"{path} {said}.")
    _refuse_archives(path, head)
    return _unpickle(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise NetworkError(f"{path} is damaged or no safetensors file ({error}); download or save it again.") from None


def _read_shards(path: Path) -> dict[str, Tensor]:
    """The tensors of every shard that an index names; shards lie beside it."""
    try:
        shards = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        names = [Path(shard) for shard in shards]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NetworkError(f"{path} is no index of shards ({error}); name the file of weights.") from None
    tensors: dict[str, Tensor] = {}
    for name in names:
        if len(name.parts) != 1 or name.name.endswith(".index.json"):
            raise NetworkError(f"{path}: the shard {str(name)!r} does not lie beside its index; put all in one folder.")
        shard = path.with_name(name.name)
        if not shard.is_file():
            raise NetworkError(f"{path}: its shard {name} is missing; put all {len(names)} beside the index.")
        tensors |= read_tensors(shard)
    return tensors


def _refuse_archives(path: Path, head: bytes) -> None:
    """Raise NetworkError for zip and tar files that are no checkpoint, or not one of tensors alone."""
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except zipfile.BadZipFile:
            raise NetworkError(f"{path} is damaged or cut short; download or save it again.") from None
        names = {PurePosixPath(member.filename).name for member in members}
        if "constants.pkl" in names:
            raise NetworkError(
                f"{path} is a TorchScript program, not a file of weights; where you trust it, save "
                "torch.jit.load(file).state_dict() with torch.save and convert that."
            )
        if "data.pkl" not in names:
            raise NetworkError(
                f"{path} is a zip archive without a checkpoint of torch; unpack it and name the weights."
            )
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise NetworkError(
                f"{path} has compressed parts, which torch never writes; have it saved anew by torch.save."
            )
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            old = {"storages", "tensors", "pickle"} <= set(archive.getnames())
        if old:
            raise NetworkError(
                f"{path} was written by torch before 0.1.10, whose files are not read as tensors alone; have its owner "
                "load it and save the state dict with today's torch."
            )
        raise NetworkError(
            f"{path} is a tar archive and no checkpoint of torch; unpack it and name the file of weights."
        )


def _unpickle(path: Path) -> Any:
    """What a file of torch.save holds: tensors, plain values and containers of them, and stand-ins."""
    try:
        with warnings.catch_warnings(action="ignore"), _stand_ins_alone():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except UnpicklingError as error:
        raise NetworkError(f"{path} {_refusal(str(error))}") from None
    except Exception as error:  # torch fails in any way at bytes that are no checkpoint
        raise NetworkError(f"{path} {_damage(str(error) or type(error).__name__)}") from None


@contextmanager
def _stand_ins_alone() -> Iterator[None]:
    """Let torch's unpickler take what it always takes, and stand-ins; what others allowed it waits outside."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        torch.serialization.add_safe_globals([(_StandIn, name) for name in _NOT_READ])
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _refusal(said: str) -> str:
    """What torch's refusal comes to, as the end of a sentence."""
    remedy = (
        "have its owner load it where it was made and save torch.save(model.state_dict(), ...), or give safetensors."
    )
    if found := re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", said):
        return f"needs {found[1]} to be loaded, which could run code, so it was not read; {remedy}"
    reason = said.rpartition("WeightsUnpickler error: ")[2]
    if "Unsupported operand" in reason:  # of another program's pickles, or of noise
        return _damage(reason)
    return f"holds more than tensors and plain values ({_first_line(reason)}), so it was not read; {remedy}"


def _damage(said: str) -> str:
    """What a failure to read comes to, as the end of a sentence."""
    return f"is damaged or was not written by torch.save ({_first_line(said)}); download or save it again."


def _first_line(said: str) -> str:
    return said.strip().partition("\n")[0][:200]


def _named(value: Any) -> Iterator[tuple[str, Tensor]]:
    """Tensors within tables and lists, each container looked into once."""
    seen: set[int] = set()

    def walk(part: Any, name: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        if isinstance(part, Tensor):
            yield name, part.detach()
            return
        if depth > NESTING or id(part) in seen or not isinstance(part, Mapping | list | tuple):
            return
        seen.add(id(part))
        for key, inner in part.items() if isinstance(part, Mapping) else enumerate(part):
            if isinstance(key, str) or not isinstance(part, Mapping):
                yield from walk(inner, f"{name}.{key}" if name else str(key), depth + 1)

    return walk(value, "", 0)


def _unusable(tensor: Tensor) -> str | None:
    """Why a tensor holds no plain numbers, as a clause."""
    if tensor.is_meta:
        return "has a shape and no numbers"
    if tensor.layout is not torch.strided or tensor.is_nested:
        return f"is a tensor of layout {tensor.layout}"
    if tensor.is_quantized or tensor.is_complex():
        return f"holds numbers of {tensor.dtype}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"has shape {tuple(tensor.shape)} and fewer numbers than that"
    return None
