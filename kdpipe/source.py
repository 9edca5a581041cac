"""Where this code comes from: a checkout or an installed package, and of which commit.

Standard library alone, and no import of kdpipe: the build of the package runs this file too.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

COMMIT_FILE = "commit.txt"  # next to this file in a built package
_PACKAGE = Path(__file__).resolve().parent


def _checkout(root: Path) -> Path | None:
    return root if (root / "pyproject.toml").is_file() and (root / "Home.py").is_file() else None


CHECKOUT = _checkout(_PACKAGE.parent)
"""The folder of the repository, if this code runs from one; None in an installed package."""

PAGES = CHECKOUT or _PACKAGE / "app" / "site"
"""The folder of ``Home.py`` and ``pages/``: the build of the package copies them to ``site``, and Streamlit's theme."""

HERE = CHECKOUT or Path()
"""Where artifacts, cache and weights lie unless told otherwise: the checkout, else the current folder."""


@functools.cache
def commit() -> str | None:
    """The commit of this code, 40 hex digits, with ``+dirty`` if ``kdpipe/`` was changed since; None if not known."""
    if CHECKOUT is not None and (found := commit_of(CHECKOUT)):
        return found
    try:
        return (_PACKAGE / COMMIT_FILE).read_text().strip() or None
    except OSError:
        return None


def commit_of(root: Path) -> str | None:
    """The commit checked out in ``root``, as :func:`commit` gives it; None if ``root`` is no git repository."""
    found = _git(root, "rev-parse", "--show-toplevel", "HEAD")
    if found is None:
        return None
    top, head = found.split("\n")[:2]
    if Path(top).resolve() != root.resolve():  # unpacked within somebody else's repository
        return None
    # Artifacts and notes change as one works; only the package makes numbers.
    changed = _git(root, "status", "--porcelain", "--", "kdpipe")
    return f"{head}+dirty" if changed else head


def _git(root: Path, *words: str) -> str | None:
    # Within a git hook these variables name the repository of the hook.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, env=environment, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
