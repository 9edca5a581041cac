"""Where a network comes from, for those who plan: by content in a key, by place at run time, by name for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdpipe.errors import NetworkError
from kdpipe.files import sha256_of
from kdpipe.models import factories, huggingface
from kdpipe.models.network import Architecture

# Fields of a section that say where something lies: its content is in keys, and the place is not.
PLACES = ("checkpoint", "factory", "folder")


def contents(spec: Architecture) -> dict[str, str]:
    """The content of the files that a section names, by field, for a stage's key.

    Raises:
        NetworkError: one of them is not there.
    """
    found: dict[str, str] = {}
    if spec.factory is not None:
        found["factory"] = factories.identity(spec.factory)
    if spec.folder is not None:
        path = Path(spec.folder).expanduser()
        if not path.is_dir():
            raise NetworkError(f"folder: there is no folder {path}.")
        found["folder"] = huggingface.content_of(path)
    if spec.checkpoint is not None:
        path = Path(spec.checkpoint).expanduser()
        if not path.is_file():
            raise NetworkError(f"checkpoint: there is no file {path}.")
        found["checkpoint"] = sha256_of(path)
    return found


def places(spec: Architecture) -> dict[str, str]:
    """Where those files lie, by field, for a stage's run."""
    named = {field: getattr(spec, field) for field in PLACES if getattr(spec, field) is not None}
    return {field: str(Path(place).expanduser()) if field != "factory" else place for field, place in named.items()}


def restored(params: Mapping[str, Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a section that a stage has apart from the others: ``params`` by content, ``runtime`` by place.

    A factory is the one that was planned, whatever its file holds by now.
    """
    fields = {field: runtime.get(field) for field in PLACES}
    if fields["factory"] is not None:
        factories.name_factory(fields["factory"])
        fields["factory"] = params["factory"]
    return fields


def origin_of(spec: Architecture) -> str:
    """What people call a network's origin: timm's name, ``file.py:function``, a module's class, a folder's name."""
    if spec.arch is not None:
        return spec.arch
    if spec.factory is not None:
        return factories.title(spec.factory)
    return Path(spec.folder or "").name
