#!/usr/bin/env python
"""Write docs/ARTIFACTS.md and kdpipe/artifacts/tables.py from the schema: ``scripts/schema_docs.py [--check]``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kdpipe.artifacts.schema import SCHEMA_VERSION, TABLES, Table

DOCS, TYPED = ROOT / "docs" / "ARTIFACTS.md", ROOT / "kdpipe" / "artifacts" / "tables.py"
INTRODUCTION = f"""# Artifacts

Written by `scripts/schema_docs.py` from `kdpipe/artifacts/schema/`; schema version {SCHEMA_VERSION}.

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


PROPERTIES = '''"""Every table of a study as a typed property. Written by scripts/schema_docs.py; not to be edited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import polars as pl


class StudyTables(ABC):
    """What a study's tables are called; :class:`kdpipe.artifacts.store.Study` reads them."""

    @abstractmethod
    def frame(self, name: str, *where: pl.Expr, **options: Any) -> pl.DataFrame:
        """Rows of table ``name``."""
'''


def typed(table: Table) -> str:
    """One table as a property."""
    row = f"A row is {table.row}."
    return f'''
    @property
    def {table.name}(self) -> pl.DataFrame:
        """{row}"""
        return self.frame("{table.name}")
'''


def main() -> None:
    written = {
        DOCS: "\n\n".join([INTRODUCTION.strip(), *map(section, TABLES.values())]) + "\n",
        TYPED: PROPERTIES + "".join(map(typed, TABLES.values())),
    }
    for target, text in written.items():
        if "--check" not in sys.argv:
            target.write_text(text)
        elif target.read_text() != text:
            sys.exit(f"{target.relative_to(ROOT)} is out of date: run scripts/schema_docs.py")


if __name__ == "__main__":
    main()
