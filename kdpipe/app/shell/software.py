"""kdpipe itself as it runs here: name, version, licence, and where its faults are reported."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata

from kdpipe import __version__
from kdpipe.source import CHECKOUT


@cache
def package() -> Mapping[str, str]:
    """Name, version, summary, licence, author, url and issues of kdpipe; what is not known is an empty string.

    A checkout tells of itself: what is installed from it may be older.
    """
    told = {"name": "kdpipe", "version": __version__}
    told |= dict.fromkeys(("summary", "licence", "author", "url", "issues"), "")
    found = _from_sources() if CHECKOUT is not None else _from_installation()
    return told | {what: text for what, text in found.items() if text}


def _from_sources() -> dict[str, str]:
    assert CHECKOUT is not None
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    authors = ", ".join(author["name"] for author in project["authors"])
    said = {"summary": project["description"], "licence": project["license"], "author": authors}
    return said | _addresses(project["urls"].items())


def _from_installation() -> dict[str, str]:
    try:
        installed = metadata.metadata("kdpipe")
    except metadata.PackageNotFoundError:
        return {}
    fields = {"summary": "Summary", "licence": "License-Expression", "author": "Author"}
    pairs = (line.split(", ", 1) for line in installed.get_all("Project-URL") or [])
    return {ours: installed[theirs] for ours, theirs in fields.items()} | _addresses(pairs)


def _addresses(labelled: Iterable[Iterable[str]]) -> dict[str, str]:
    by_label = {label.lower(): address for label, address in labelled}
    return {"url": by_label.get("homepage", ""), "issues": by_label.get("issues", "")}


def year() -> str:
    """The year of the copyright, as the licence says; empty where it cannot be read."""
    if CHECKOUT is not None:
        licence = (CHECKOUT / "LICENSE").read_text()
    else:
        try:
            licence = metadata.distribution("kdpipe").read_text("licenses/LICENSE") or ""
        except metadata.PackageNotFoundError:
            licence = ""
    found = re.search(r"Copyright \(c\) (\d{4})", licence)
    return found[1] if found else ""
