"""Factories: functions of users' own files that build networks, and modules that live in this process.

A factory is written ``file.py:function``. What counts is the file's content: a saved network names its factory as
``sha256:<hex>:function``, and is built again only where somebody named that very file in this process. A module that
Python code holds is registered by :func:`register_module`, and named by its content as well, ``module:<hex>``.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdpipe.errors import NetworkError, StudyError
from kdpipe.names import closest
from kdpipe.user_code import execute, in_one_line, line_of


@dataclass(frozen=True)
class _File:
    path: Path
    code: bytes


# What was named in this process, by content.
_files: dict[str, _File] = {}
_modules: dict[str, nn.Module] = {}
_namespaces: dict[str, dict[str, Any]] = {}

_OF_FILE = re.compile(r"sha256:([0-9a-f]{64}):([A-Za-z_]\w*)")
_OF_MODULE = re.compile(r"module:[0-9a-f]{64}")


def is_identity(reference: str) -> bool:
    """Whether a reference names content, and no place."""
    return bool(_OF_FILE.fullmatch(reference) or _OF_MODULE.fullmatch(reference))


def name_factory(reference: str, folder: Path = Path()) -> str:
    """Let a factory be used in this process, because a user named it.

    Args:
        reference: ``file.py:function``, or the name of a registered module.
        folder: where a relative path starts.

    Returns:
        The reference with its whole path.

    Raises:
        NetworkError: it is written otherwise, or the file cannot be read.
    """
    if is_identity(reference):
        return reference
    path, function = _split(reference)
    path = (folder / path).absolute()
    _read(path)
    return f"{path}:{function}"


def register_module(module: nn.Module) -> str:
    """Let a copy of a module, as it is now, be built in this process; the reference to give as ``factory``.

    Raises:
        NetworkError: the module cannot be copied.
    """
    reference = f"module:{content_of(module)}"
    try:
        _modules[reference] = copy.deepcopy(module)
    except Exception as error:  # what deepcopy raises depends on what the module holds
        raise NetworkError(
            f"factory: {type(module).__name__} cannot be copied ({in_one_line(error)}); write a function that makes it."
        ) from None
    return reference


def identity(reference: str) -> str:
    """A factory by its content: ``sha256:<hex>:function`` or ``module:<hex>``.

    Raises:
        NetworkError: the file cannot be read.
    """
    if is_identity(reference):
        return reference
    path, function = _split(reference)
    return f"sha256:{_read(path)}:{function}"


def title(reference: str) -> str:
    """What people call it: the file's name with the function, or the module's class."""
    if found := _OF_FILE.fullmatch(reference):
        digest, function = found.groups()
        return f"{_files[digest].path.name}:{function}" if digest in _files else function
    if _OF_MODULE.fullmatch(reference):
        return type(_modules[reference]).__name__ if reference in _modules else "module"
    path, function = _split(reference)
    return f"{path.name}:{function}"


def make(reference: str, arguments: Mapping[str, Any], classes: int) -> nn.Module:
    """A new network of a factory, or a copy of a registered module.

    Args:
        arguments: of the function; it gets ``num_classes`` as well if it takes that.

    Raises:
        NetworkError: nobody named it in this process, it is not in its file, it fails, or it gives no module.
    """
    own = identity(reference)
    if _OF_MODULE.fullmatch(own):
        if own not in _modules:
            raise NetworkError(
                "factory: this network came from a module of a Python program, which is not there any more; give it "
                "again (kdpipe.models.register_module), or write its class into a file and name that as a factory."
            )
        if arguments:
            raise NetworkError("arguments: a module that is there already takes none.")
        return copy.deepcopy(_modules[own])
    found = _OF_FILE.fullmatch(own)
    assert found is not None, "an identity has one of two forms"
    digest, function = found.groups()
    if digest not in _files:
        raise NetworkError(
            f"factory: this network is built by {function!r} of a Python file (sha256 {digest[:8]}…) that nobody named "
            f'here, so it is not executed; if you trust it, name it: factory = "file.py:{function}".'
        )
    return _called(_files[digest].path, function, _namespace(digest), arguments, classes)


def _split(reference: str) -> tuple[Path, str]:
    name, colon, function = reference.rpartition(":")
    if not colon or not name.endswith(".py") or not function.isidentifier():
        raise NetworkError(f"factory: {reference!r} names no function of a file; write it as my_models.py:build.")
    try:
        return Path(name).expanduser(), function
    except RuntimeError:
        raise NetworkError(f"factory: {name} starts in the home of a user that this machine does not have.") from None


def _read(path: Path) -> str:
    """The sha256 of a file that a user named, kept with its content."""
    try:
        code = path.read_bytes()
    except FileNotFoundError:
        raise NetworkError(f"factory: there is no file {path}; relative paths start from the study file.") from None
    except OSError as error:
        raise NetworkError(f"factory: {path} cannot be read ({error.strerror}).") from None
    digest = hashlib.sha256(code).hexdigest()
    _files.setdefault(digest, _File(path, code))
    return digest


def _namespace(digest: str) -> dict[str, Any]:
    """What a file binds, executed once in a process; its own random numbers are the same every time."""
    if digest not in _namespaces:
        file = _files[digest]
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                _namespaces[digest] = execute(file.path, file.code, f"kdpipe_factory_{digest[:16]}")
        except StudyError as error:
            raise NetworkError(f"factory: {error}") from None
    return _namespaces[digest]


def _called(
    path: Path, function: str, namespace: Mapping[str, Any], arguments: Mapping[str, Any], classes: int
) -> nn.Module:
    build = namespace.get(function)
    if not callable(build) or isinstance(build, nn.Module):
        offered = [name for name, value in namespace.items() if callable(value) and not name.startswith("_")]
        raise NetworkError(f"factory: {path.name} has no function {function!r}{closest(function, offered)}.")
    takes: Collection[str] = ()
    with suppress(TypeError, ValueError):  # a callable that does not tell
        takes = inspect.signature(build).parameters
    given = {"num_classes": classes} | dict(arguments) if "num_classes" in takes else dict(arguments)
    try:
        model = build(**given)
    except NetworkError:  # a limit of what is built
        raise
    except (Exception, SystemExit) as error:
        raise NetworkError(f"factory: {path.name}{line_of(error, path)}: {in_one_line(error)}") from None
    if not isinstance(model, nn.Module):
        raise NetworkError(f"factory: {function!r} of {path.name} returns a {type(model).__name__}, no nn.Module.")
    return model


# ---------------------------------------------------------------------------------------- content


def content_of(module: nn.Module) -> str:
    """Hex sha256 of a module: its weights, its classes with their code, and the plain settings of its parts."""
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        digest.update(f"{name}={type(part).__module__}.{type(part).__qualname__}".encode())
        digest.update(_source(type(part)).encode())
        for setting, value in sorted(vars(part).items()):
            if not setting.startswith("_") and setting != "training" and _is_plain(value):
                digest.update(f"{setting}={value!r}".encode())
    for name, tensor in _numbers(module):
        if is_lazy(tensor):  # it has no numbers before its first images
            continue
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _numbers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, also those that no state dict holds."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _source(kind: type) -> str:
    """The code of a class; torch's own goes with its version."""
    if kind.__module__.split(".")[0] == "torch":
        return torch.__version__
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # of a notebook's cell that is gone, say
        return ""


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str | None)
