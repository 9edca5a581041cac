"""The text of a study file that a command writes: what so few samples allow, and TOML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LEAST_FOR_MAPS = 50
ENOUGH = 100  # samples for all defaults: neighbours, perplexity


def allowed_by(probe: int, projectors: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """The sections on maps and measures of a study of so many samples; nothing where its defaults do.

    Args:
        probe: samples that are looked at.
        projectors: how maps are drawn, where there are enough samples for maps; the study's default for None.
    """
    maps: dict[str, Any] = {} if projectors is None else {"projectors": list(projectors)}
    if probe < LEAST_FOR_MAPS:
        maps = {"projectors": []}
    elif probe < ENOUGH:
        maps["perplexity"] = float((probe - 1) // 4)
    few = {"k": max(probe // 6, 2), "second_k": 1}
    return {name: part for name, part in (("maps", maps), ("measures", few if probe < ENOUGH else {})) if part}


def toml_of(study: Mapping[str, Any]) -> str:
    """A study as the text of a study file; values are text, numbers, truth, and lists of them."""
    lines = [f"{key} = {_value(value)}" for key, value in study.items() if not _is_table(value)]
    for key, value in study.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{key}]", *_fields(value)]
        elif _is_table(value):
            for entry in value:
                lines += ["", f"[[{key}]]", *_fields(entry)]
    return "\n".join(lines) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _fields(table: Mapping[str, Any]) -> Iterable[str]:
    return (f"{key} = {_value(value)}" for key, value in table.items())


def _value(value: Any) -> str:
    """JSON, which TOML reads the same for these, but for the one control character that JSON leaves as it is."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(part)}" for key, part in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
