"""A fault of kdpipe on a page: logged with its traceback, and shown as a short report that a visitor can copy."""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from urllib.parse import urlencode

import streamlit as st

from kdpipe.app.shell.software import package
from kdpipe.artifacts.store import Study
from kdpipe.source import commit

_LOG = logging.getLogger(__name__)
_PAGE = "page_shown"
_ROOT = Path(__file__).resolve().parents[3]  # the checkout, or what the package is installed in
_OWN = ("kdpipe", "pages", "Home.py")  # below the root of the sources; an environment may lie there too


def remember_page(title: str, study: Study) -> None:
    """Keep what a report says of this page; parts that rerun alone do not open the page again."""
    schema = study.record.get("schema_version")
    _page_shown().update(page=title, study=f"{study.name}, artifact schema {schema}")


def show(what: str, error: Exception) -> None:
    """Log ``error`` and say in its place that this part of the page failed, with a report to copy."""
    _LOG.error("%s failed", what, exc_info=error)
    tracker = package()["issues"] or package()["url"]
    where = f"at {tracker} " if tracker else "to whoever gave you kdpipe, "
    st.error(
        "This part of the page failed: it is a fault of kdpipe, not of your study. "
        f"Please report it {where}with this text:",
        icon=":material/bug_report:",
    )
    st.code(report(what, error), language=None, wrap_lines=True)


def report(what: str, error: BaseException) -> str:
    """What a developer needs to find the fault, without paths of this machine and without values out of files.

    The message of ``error`` may hold either, so the report has its type and the place alone.
    """
    versions = f"kdpipe {package()['version']}" + (f", commit {commit()}" if commit() else "")
    shown = _page_shown()
    lines = {
        "software": f"{versions}, Python {sys.version.split()[0]}, streamlit {st.__version__}",
        "study": shown.get("study", "unknown"),
        "page": f"{shown.get('page', 'unknown')}, part: {what}",
        "link": _link(),
        "fault": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
        "at": " ← ".join(_places(error)),
    }
    return "\n".join(f"{name}: {text}" for name, text in lines.items() if text)


def _page_shown() -> dict[str, str]:
    shown: dict[str, str] = st.session_state.setdefault(_PAGE, {})
    return shown


def _link() -> str:
    asked = {name: st.query_params.get_all(name) for name in sorted(st.query_params)}
    return f"{st.context.url or ''}?{urlencode(asked, doseq=True)}"


def _places(error: BaseException) -> list[str]:
    """The frame that raised and, where that is of a library, the last one of kdpipe before it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(Path(frame.filename))]
    last = [*frames[-1:], *(own[-1:] if own[-1:] != frames[-1:] else [])]
    return [f"{_short(frame.filename)}:{frame.lineno} in {frame.name}" for frame in last]


def _is_own(path: Path) -> bool:
    return path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in _OWN


def _short(filename: str) -> str:
    """A file by its place in the sources or in its package, as what lies above is nobody's business."""
    path = Path(filename)
    if "site-packages" in path.parts:
        return str(Path(*path.parts[path.parts.index("site-packages") + 1 :]))
    return str(path.relative_to(_ROOT)) if path.is_relative_to(_ROOT) else path.name
