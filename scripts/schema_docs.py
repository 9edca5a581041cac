#!/usr/bin/env python
"""Write docs/ARTIFACTS.md from the schema module: ``scripts/schema_docs.py [--check]``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kdpipe.artifacts.schema import SCHEMA_VERSION, TABLES, Table

TARGET = ROOT / "docs" / "ARTIFACTS.md"
INTRODUCTION = f"""# Artifacts

Written by `scripts/schema_docs.py` from `kdpipe/schema.py`; schema version {SCHEMA_VERSION}.

A study is a folder `artifacts/<name>/` with the tables below, `study.json` (the resolved study, versions, data hash and
licence, what is missing, sha256 and rows of every file) and `timings.json` (wall times, speed, hardware; outside every
claim of identity). The footer of every Parquet file carries `schema_version`, `study_hash` and `code_version`.
"""


def section(table: Table) -> str:
    """One table as Markdown."""
    key = ", ".join(f"`{name}`" for name in table.key)
    lines = [f"## {table.file}", "", f"One row is {table.row}. Key: {key}.", ""]
    lines += ["| column | type | what it is |", "|---|---|---|"]
    for name, column in table.columns.items():
        about = column.about + ("; may be empty" if column.nullable else "")
        lines.append(f"| `{name}` | {column.dtype} | {about} |")
    return "\n".join(lines)


def main() -> None:
    text = "\n\n".join([INTRODUCTION.strip(), *map(section, TABLES.values())]) + "\n"
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == text else "docs/ARTIFACTS.md is out of date: run scripts/schema_docs.py")
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
