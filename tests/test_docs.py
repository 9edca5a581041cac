"""Docs that are written by scripts say what the code and the artifacts say now."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "script",
    [
        "schema_docs.py", "report.py", "methods_docs.py", "measures_docs.py", "evidence_docs.py",
        "architecture_docs.py", "literature_docs.py", "ledger.py",
    ],
)  # fmt: skip
def test_generated_docs_are_current(script: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
# A file or folder of the repository in backticks: with a slash, or by a suffix that only files have.
NAMED = re.compile(r"`((?:[\w.-]+/)+[\w.*<>-]*|[\w-]+\.(?:py|toml|md|yaml|cff))(?:::?[\w.]+)?`")
ROOMS = ("", "kdpipe", "kdpipe/app", "docs", "scripts", "tests", "studies")
# What a run writes, and what stands for a name that a reader chooses.
MADE = ("artifacts/", "cache/", "weights/", "site/", "wheels/")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_documents_name_are_there(document: Path) -> None:
    """Of a path relative to a folder that the sentence names, the last part must be in the repository."""
    if document.name == "CHANGELOG.md":  # tells of what was
        return
    known = {path.name for path in ROOT.rglob("*") if ".venv" not in path.parts and ".git" not in path.parts}
    for name in NAMED.findall(document.read_text()):
        if name.startswith(MADE) or "<" in name or "*" in name:
            continue
        found = any((ROOT / room / name).exists() for room in ROOMS)
        assert found or ("/" not in name and name in known), f"{document.name} names {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]+)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"
