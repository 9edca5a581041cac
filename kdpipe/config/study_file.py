"""Reading a study file: TOML, overrides from the command line, and the place of each field for errors."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdpipe.config.diagnostics import Where, explain, place_of
from kdpipe.config.plugins import load_plugins
from kdpipe.config.sections import VECTORS, DataSpec
from kdpipe.config.study import BaseStudy, FinishedStudy, StudySpec, VectorStudy
from kdpipe.errors import StudyError
from kdpipe.models.checkpoints import complete


@dataclass(frozen=True)
class StudyFile:
    """A validated study and the file it came from, so that later complaints can name a place in it."""

    path: Path
    text: str
    overrides: tuple[str, ...]
    spec: BaseStudy

    @property
    def that_trains(self) -> StudySpec:
        """The study, for what makes sense of training alone.

        Raises:
            StudyError: its networks were trained elsewhere.
        """
        if not isinstance(self.spec, StudySpec):
            raise StudyError(f"{self.path}: this study is of finished networks and trains none; name one that trains.")
        return self.spec

    def place(self, *where: int | str) -> str:
        """``file, line N: field`` of a location such as ``("students", 0, "arch")``."""
        return place_of(self.path, self.text, self.overrides, where)


def load_spec(path: Path, overrides: Iterable[str] = ()) -> StudySpec:
    """The study of :func:`read_study` that trains, without its file."""
    return read_study(path, overrides).that_trains


def read_study(path: Path, overrides: Iterable[str] = (), plugins: Iterable[Path] = ()) -> StudyFile:
    """Read and validate a study file, with the plug-ins that it may use.

    Args:
        path: a TOML file.
        overrides: ``key=value`` with dotted keys and TOML values, such as ``training.steps=50`` or
            ``methods.1.parameters.temperature=2.0``.
        plugins: plug-in files beside those that the study names.

    Raises:
        StudyError: the file cannot be read, is not TOML, or does not describe a study; a plug-in is broken.
    """
    text, raw = _parsed(path)
    chosen = tuple(overrides)
    _spell_out_methods(raw)
    for override in chosen:
        _apply(raw, override)
        _spell_out_methods(raw)
    load_plugins([*_named_plugins(raw, path.parent), *plugins])
    if problems := _complete_architectures(raw, path.parent):
        raise StudyError("\n".join(f"{place_of(path, text, chosen, where)}: {said}" for where, said in problems))
    kind = _kind(raw)
    try:
        return StudyFile(path, text, chosen, kind.model_validate(raw))
    except ValidationError as error:
        raise StudyError(explain(error, kind, lambda where: place_of(path, text, chosen, where))) from None


def _kind(raw: Mapping[str, Any]) -> type[BaseStudy]:
    data = raw.get("data")
    if "networks" not in raw:
        return StudySpec
    return VectorStudy if isinstance(data, dict) and data.get("dataset") == VECTORS else FinishedStudy


def read_data(path: Path) -> DataSpec:
    """The data of a study file alone: its networks may not be there yet.

    Raises:
        StudyError: as :func:`read_study`, of its section ``data`` and its plug-ins.
    """
    text, raw = _parsed(path)
    load_plugins(_named_plugins(raw, path.parent))
    try:
        return DataSpec.model_validate(raw.get("data", {}))
    except ValidationError as error:
        raise StudyError(explain(error, DataSpec, lambda where: place_of(path, text, (), ("data", *where)))) from None


def _parsed(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a study file, and what it says as TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"{path}: there is no such study file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: the study file cannot be read ({error}).") from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path}: not valid TOML: {error}.") from None


def _named_plugins(raw: Mapping[str, Any], folder: Path) -> list[Path]:
    """The plug-in files that a study names; relative ones start from its folder."""
    named = raw.get("plugins")
    return [
        folder / Path(name).expanduser() for name in (named if isinstance(named, list) else ()) if isinstance(name, str)
    ]


def _spell_out_methods(raw: dict[str, Any]) -> None:
    """``methods = ["plain", "kd"]`` is short for two tables with defaults."""
    if isinstance(raw.get("methods"), list):
        raw["methods"] = [{"method": entry} if isinstance(entry, str) else entry for entry in raw["methods"]]


def _complete_architectures(raw: dict[str, Any], folder: Path) -> list[tuple[Where, str]]:
    """A checkpoint that kdpipe wrote is short for its whole architecture; what contradicts it is returned."""
    places: list[tuple[Where, Any]] = [(("teacher",), raw.get("teacher"))]
    for several in ("students", "networks"):
        listed = raw.get(several)
        places += [((several, i), entry) for i, entry in enumerate(listed if isinstance(listed, list) else ())]
    sections = [(where, section) for where, section in places if isinstance(section, dict)]
    return [((*where, field), said) for where, section in sections for field, said in complete(section, folder)]


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set one dotted key of the raw study."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise StudyError(f"override {override!r}: write it as key=value, such as training.steps=100.")
    target: Any = raw
    for part in parts[:-1]:
        if isinstance(target, list):
            target = _item(target, part, override)
        elif isinstance(target, dict):
            target = target.setdefault(part, {})
    last = parts[-1]
    if isinstance(target, list):
        _item(target, last, override)
        target[int(last)] = toml_value(text)
    elif isinstance(target, dict):
        target[last] = toml_value(text)
    else:
        raise StudyError(f"override {override!r}: {'.'.join(parts[:-1])} is a single value and has no field {last!r}.")


def _item(items: list[Any], part: str, override: str) -> Any:
    if not re.fullmatch("[0-9]{1,9}", part) or int(part) >= len(items):
        raise StudyError(f"override {override!r}: {part!r} is no position in a list of {len(items)} (counted from 0).")
    return items[int(part)]


def toml_value(text: str) -> Any:
    """A TOML value; a bare word is a string, so that ``data.dataset=digits`` needs no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
