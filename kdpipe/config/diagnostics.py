"""From a pydantic error to sentences a person can act on: place, what is wrong, what is allowed."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from kdpipe.names import closest

Where = tuple[int | str, ...]


def explain(error: ValidationError, model: type[BaseModel], place: Callable[[Where], str]) -> str:
    """One line for each wrong field of ``model``; ``place`` turns a location into file, line and field."""
    lines: list[str] = []
    for item in error.errors(include_url=False):
        where = tuple(part for part in item["loc"] if not _is_branch(part))
        line = f"{place(where)}: {_sentence(item, model, where)}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


def _is_branch(part: int | str) -> bool:
    """Pydantic puts the tried alternative of a union into the location; it is no field."""
    return isinstance(part, str) and (part.startswith(("list[", "literal[", "constrained-")) or part in {"str", "int"})


def _sentence(item: Any, model: type[BaseModel], where: Where) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        names = _field_names(model, where[:-1])
        others = f"; allowed: {', '.join(names)}" if names else ""
        return f"there is no field {str(where[-1])!r}{closest(str(where[-1]), names)}{others}"
    if kind == "missing":
        return "this field is required"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        return f"must be {context['expected']}, not {item['input']!r}{closest(str(item['input']), allowed)}"
    if kind == "string_pattern_mismatch":
        return f"{item['input']!r} does not fit the pattern {context['pattern']} (lower-case letters, digits, '-')"
    if kind == "too_short":
        return f"needs at least {context['min_length']}, not {context['actual_length']}"
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return f"must be a table, not {item['input']!r}"
    message = item["msg"].removeprefix("Input ").removeprefix("should ")
    message = message.replace("a valid integer", "an integer").replace("valid ", "")
    return f"must {message}, not {item['input']!r}"


def _field_names(model: Any, where: Where) -> list[str]:
    """Field names of the model that stands at ``where`` under ``model``."""
    for part in where:
        found = _models(model)
        if not found:
            return []
        if isinstance(part, int):
            continue
        fields = found[0].model_fields
        if part not in fields:
            return []
        model = fields[part].annotation
    found = _models(model)
    return list(found[0].model_fields) if found else []


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models an annotation mentions, lists, unions and Annotated unwrapped."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def place_of(path: Path, text: str, overrides: Iterable[str], where: Where) -> str:
    """``file, line N: field`` for a location, or the override that set it."""
    dotted = ".".join(str(part) for part in where)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if f"{dotted}.".startswith(f"{key}."):
            return f"override {override!r}: {dotted}"
    line = _line_of(text, where)
    place = f"{path}, line {line}" if line else str(path)
    return f"{place}: {dotted}" if dotted else place


def _line_of(text: str, where: Where) -> int | None:
    """The line that sets ``where``, or else the nearest table above it that the file has.

    tomllib keeps no lines, so headers and keys are followed here; values over several lines and
    dotted keys are left to the table's own line.
    """
    best: tuple[int, int] | None = None
    table: Where = ()
    counts: dict[Where, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if header := re.match(r"^(\[\[?)\s*([^\]]+?)\s*\]", stripped):
            names: Where = tuple(header.group(2).strip().strip('"').split("."))
            if header.group(1) == "[[":
                counts[names] = counts.get(names, -1) + 1
                names = (*names, counts[names])
            table = names
            candidate = table
        elif key := re.match(r"^([A-Za-z0-9_-]+)\s*=", stripped):
            candidate = (*table, key.group(1))
        else:
            continue
        depth = len(candidate)
        if where[:depth] == candidate and (best is None or depth > best[0]):
            best = (depth, number)
    return best[1] if best else None
