"""Plug-ins: records from files that a study names, and from installed distributions, put into their registries.

A plug-in file is Python. Each record that it binds to a name, alone or in a tuple or list, is registered; names that
begin with ``_`` and records that were there before are not. A distribution names its records as entry points.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.metadata
import logging
import sys
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from kdpipe.config.diagnostics import explain
from kdpipe.data.sources import SOURCES, Source
from kdpipe.errors import KdpipeError, StudyError
from kdpipe.measures import FACTORS, MEASURES, Factor, Measure
from kdpipe.methods import METHODS, Method
from kdpipe.registry import Plugin, Registry
from kdpipe.representation.projectors import PROJECTORS, Projector
from kdpipe.user_code import execute, in_one_line, line_of

REGISTRIES: dict[type, Registry[Any]] = {
    Method: METHODS,
    Measure: MEASURES,
    Source: SOURCES,
    Projector: PROJECTORS,
    Factor: FACTORS,
}
GROUPS: dict[str, type] = {
    "kdpipe.methods": Method,
    "kdpipe.measures": Measure,
    "kdpipe.datasets": Source,
    "kdpipe.projectors": Projector,
    "kdpipe.factors": Factor,
}


def load_plugins(files: Iterable[Path] = ()) -> None:
    """Register what installed plug-ins and ``files`` bring, in the place of what an earlier study's brought.

    Raises:
        StudyError: a plug-in that cannot be read or executed, that has no record, or one that is wrong or whose name
            is taken. Then no plug-in is registered.
    """
    withdraw_plugins()
    try:
        for group, kind in GROUPS.items():
            entries = importlib.metadata.entry_points(group=group)
            for entry in sorted(entries, key=lambda entry: (_distribution(entry).name, entry.name)):
                _load_entry(entry, kind)
        for path in {path.expanduser().resolve(): path for path in files}.values():
            _load_file(path.expanduser())
    except StudyError:
        withdraw_plugins()
        raise


def withdraw_plugins() -> None:
    """Take the records of all plug-ins out of their registries."""
    for registry in REGISTRIES.values():
        registry.withdraw_plugins()


def _load_file(path: Path) -> None:
    try:
        code = path.read_bytes()
    except FileNotFoundError:
        raise StudyError(
            f"{path}: there is no such plug-in file; those that a study names start from the study file's folder."
        ) from None
    except OSError as error:
        raise StudyError(f"{path}: the plug-in file cannot be read ({error.strerror}).") from None
    digest = hashlib.sha256(code).hexdigest()
    plugin = Plugin(path.name, f"sha256:{digest}")
    with _registering_nothing(path):
        namespace = execute(path, code, f"kdpipe_plugin_{digest[:16]}")
    lines = _lines(code)
    found = list(_new_records(namespace))
    if not found:
        kinds = ", ".join(kind.__name__ for kind in REGISTRIES)
        raise StudyError(
            f"{path}: no record is in this plug-in; bind one ({kinds}) to a name that does not begin with '_'."
        )
    for name, record in found:
        _register(record, plugin, path, f"{path}, line {lines[name]}" if name in lines else str(path))


@contextmanager
def _registering_nothing(path: Path) -> Iterator[None]:
    """Refuse a file that registers records itself: nobody would know that they came from it."""
    before = {kind: set(registry) for kind, registry in REGISTRIES.items()}
    added: list[str] = []
    try:
        yield
    finally:
        for kind, registry in REGISTRIES.items():
            for name in set(registry) - before[kind]:
                added.append(f"{registry.kind} {registry.unregister(name).name!r}")
    if added:
        raise StudyError(f"{path}: it registers {added[0]} itself; bind the record to a name instead, that is enough.")


def _new_records(namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Records that are not registered yet, each once, with the name that they are bound to."""
    known = {id(record) for registry in REGISTRIES.values() for record in registry.values()}
    for name, value in namespace.items():
        for record in value if isinstance(value, list | tuple) else (value,):
            if not name.startswith("_") and isinstance(record, tuple(REGISTRIES)) and id(record) not in known:
                known.add(id(record))
                yield name, record


def _lines(code: bytes) -> dict[str, int]:
    """The line on which each name is last bound."""
    nodes = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name))
    return {node.id: node.lineno for node in nodes if isinstance(node.ctx, ast.Store)}


def _load_entry(entry: importlib.metadata.EntryPoint, kind: type) -> None:
    distribution = _distribution(entry)
    identity = f"{distribution.name} {distribution.version}"
    place = f"plug-in {identity}, entry point {entry.name!r} of {entry.group}"
    try:
        value = entry.load()
        records = [value] if isinstance(value, kind) else list(value)
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise StudyError(f"{place}: {in_one_line(error)} ({last.filename}, line {last.lineno}).") from None
    file = Path(sys.modules[entry.module].__file__ or entry.module)
    for record in records:
        if not isinstance(record, kind):
            raise StudyError(f"{place}: {record!r} stands where a {kind.__name__} belongs.")
        _register(record, Plugin(distribution.name, identity), file, place)


def _distribution(entry: importlib.metadata.EntryPoint) -> importlib.metadata.Distribution:
    assert entry.dist is not None, "entry points that were found belong to a distribution"
    return entry.dist


def _register(record: Any, plugin: Plugin, file: Path, place: str) -> None:
    kind = next(kind for kind in REGISTRIES if isinstance(record, kind))
    form = _form(kind)
    try:
        form.model_validate({name: getattr(record, name) for name in form.model_fields})
        REGISTRIES[kind].register(_watched(record, kind, file), plugin)
    except ValidationError as error:
        wrong = explain(error, form, lambda where: f"{place}: {where[0]} of {kind.__name__} {record.name!r}")
        raise StudyError(wrong.splitlines()[0]) from None
    except ValueError as error:
        raise StudyError(f"{place}: {error}") from None


@cache
def _form(kind: type) -> type[BaseModel]:
    """The fields of a record with their types, which a dataclass does not hold its authors to."""
    hints = typing.get_type_hints(kind)
    fields: dict[str, Any] = {field.name: (hints[field.name], ...) for field in dataclasses.fields(kind)}
    return create_model(kind.__name__, __config__=ConfigDict(arbitrary_types_allowed=True, strict=True), **fields)


def _watched(record: Any, kind: type, file: Path) -> Any:
    """The record, with functions whose errors become one sentence that names the plug-in.

    A ValueError of a measure, a factor or a projector stays what it is: it says that there is no value.
    """
    meant = (KdpipeError,) if kind in (Method, Source) else (KdpipeError, ValueError)
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(kind)}
    functions = {name: value for name, value in values.items() if callable(value) and not isinstance(value, type)}
    whose = f"of {REGISTRIES[kind].kind} {record.name!r}"
    return dataclasses.replace(
        record, **{name: _told(value, f"{name} {whose}", file, meant) for name, value in functions.items()}
    )


def _told(
    function: Callable[..., Any], what: str, file: Path, meant: tuple[type[Exception], ...]
) -> Callable[..., Any]:
    @wraps(function)
    def told(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except meant:
            raise
        except Exception as error:
            logging.getLogger("kdpipe").info("%s: %s", file, what, exc_info=error)
            # The name alone: the sentence reaches the study's record, and where the file lies is nobody's business.
            raise StudyError(f"{file.name}{line_of(error, file)}: {what}: {in_one_line(error)}") from None

    return told
