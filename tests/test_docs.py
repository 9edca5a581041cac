"""Docs that are written by scripts say what the code and the artifacts say now."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "script", ["schema_docs.py", "report.py", "methods_docs.py", "measures_docs.py", "evidence_docs.py"]
)
def test_generated_docs_are_current(script: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
