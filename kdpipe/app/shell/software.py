"""kdpipe itself as it runs here: name, version, commit, licence, and where its faults are reported."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from kdpipe import __version__

ROOT = Path(__file__).resolve().parents[3]  # of the sources, where kdpipe runs from a checkout
_TRACKERS = ("issues", "bug tracker", "tracker")
_HOMES = ("homepage", "repository", "source", "source code")


@cache
def package() -> Mapping[str, str]:
    """Name, summary, version, licence, url, issues and author, from where kdpipe is installed or from its sources.

    What neither of the two says is an empty string.
    """
    told = dict.fromkeys(("name", "summary", "version", "licence", "url", "issues", "author"), "")
    told |= {"name": "kdpipe", "version": __version__}
    return told | _from_sources() | _from_installation()


def _from_installation() -> dict[str, str]:
    try:
        installed = metadata.metadata("kdpipe")
    except metadata.PackageNotFoundError:
        return {}
    fields = {"summary": "Summary", "licence": "License-Expression", "author": "Author"}
    said = {ours: installed[theirs] for ours, theirs in fields.items() if installed[theirs]}
    pairs = (line.split(", ", 1) for line in installed.get_all("Project-URL") or [])
    return said | _addresses(pairs)


def _from_sources() -> dict[str, str]:
    try:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return {}
    said = {"summary": project.get("description"), "licence": project.get("license")}
    return {ours: text for ours, text in said.items() if text} | _addresses(project.get("urls", {}).items())


def _addresses(labelled: Iterable[Iterable[str]]) -> dict[str, str]:
    by_label = {label.lower(): address for label, address in labelled}
    found = {}
    for ours, labels in (("url", _HOMES), ("issues", _TRACKERS)):
        if address := next((by_label[label] for label in labels if label in by_label), None):
            found[ours] = address
    return found


@cache
def commit() -> str:
    """The commit of the checkout that kdpipe runs from, shortened; empty where it is none."""
    if not (ROOT / ".git").exists():
        return ""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
