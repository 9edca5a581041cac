"""What the code of the app may not do, read from its sources: each of these once stopped or broke a server."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [ROOT / "Home.py", *sorted((ROOT / "pages").glob("*.py")), *sorted((ROOT / "kdpipe" / "app").rglob("*.py"))]
# A Python function in a thread of polars needs the interpreter's lock; a conversion to pandas holds it while it waits
# for the threads of polars. Two visitors are enough for both to wait for ever.
PYTHON_IN_POLARS = {
    "map_elements", "map_batches", "map_groups", "map_rows", "map_columns", "rolling_map", "apply", "fold", "reduce",
    "cum_fold", "cum_reduce", "inspect", "register_io_source",
}  # fmt: skip
TO_PANDAS = {"to_pandas", "data_editor"}


def attributes(source: str) -> Iterator[tuple[int, str]]:
    """Every attribute that is taken in a source, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            yield node.lineno, node.attr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_python_function_runs_inside_polars_and_nothing_becomes_pandas(path: Path) -> None:
    forbidden = PYTHON_IN_POLARS | TO_PANDAS
    assert [(line, name) for line, name in attributes(path.read_text()) if name in forbidden] == []


def test_tables_reach_streamlit_in_one_place_as_arrow() -> None:
    places = [path.name for path in SOURCES for _, name in attributes(path.read_text()) if name == "dataframe"]
    assert (
        places == ["page.py"]
        and "st.dataframe(frame.to_arrow()" in SOURCES[0].parent.joinpath("kdpipe/app/shell/page.py").read_text()
    )


def test_the_check_sees_what_it_forbids() -> None:
    found = {name: line for line, name in attributes("frame.select(\n    pl.col('a').map_elements(len))")}
    assert found["map_elements"] == 2


def test_tables_are_read_through_the_study():
    """A file that fails while it is read is then an ArtifactError, which a page can tell from a fault of its own."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "collect":
                assert ast.unparse(node.func.value) == "study", f"{path.name}:{node.lineno} collects by itself"
