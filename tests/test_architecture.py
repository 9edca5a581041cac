"""Arrows point one way: rooms import what lies below them, pages never reach training."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "Home.py", *sorted((ROOT / "pages").glob("*.py"))]
# What a page may import of the package: the app, the artifacts and the errors they raise.
FOR_PAGES = ("kdpipe.app", "kdpipe.artifacts", "kdpipe.errors", "kdpipe.vocabulary")
LIGHT = {"altair", "numpy", "polars", "streamlit", *sys.stdlib_module_names}


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def test_rooms_import_what_lies_below_them():
    """The contracts of .importlinter, on the real graph of imports."""
    command = [Path(sys.executable).with_name("lint-imports"), "--config", ".importlinter", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_reaches_the_app_and_the_artifacts_alone(page):
    for module in imports(page):
        if module.split(".")[0] == "kdpipe":
            assert module.startswith(FOR_PAGES), f"{page.name} imports {module}"
        else:
            assert module.split(".")[0] in LIGHT, f"{page.name} imports {module}"


def test_every_room_says_what_it_is_for():
    for package in sorted((ROOT / "kdpipe").rglob("__init__.py")):
        assert ast.get_docstring(ast.parse(package.read_text())), f"{package.relative_to(ROOT)} has no docstring"
