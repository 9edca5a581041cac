"""What is public says what it is for, and names nothing that is not there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kdpipe"
ROOMS = ("config", "data", "engine", "measures", "methods", "models", "representation", "training")
MODULES = sorted(path for room in ROOMS for path in (PACKAGE / room).rglob("*.py")) + sorted(PACKAGE.glob("*.py"))
Described = ast.FunctionDef | ast.ClassDef


def public(node: ast.Module | ast.ClassDef) -> Iterator[Described]:
    """Public functions and classes, and those within them; what a protocol asks for is said once, of the protocol."""
    for inner in node.body:
        if isinstance(inner, Described) and not inner.name.startswith("_"):
            yield inner
            if isinstance(inner, ast.ClassDef) and not any(ast.unparse(base) == "Protocol" for base in inner.bases):
                yield from public(inner)


def section(docstring: str, title: str) -> list[str]:
    """Names that a section of a docstring describes, such as ``low, high: its ends``."""
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", docstring, re.MULTILINE)
    lines = re.findall(r"^    (\w[\w, ]*):", found.group(1), re.MULTILINE) if found else []
    return [name.strip() for line in lines for name in line.split(",")]


def known(node: Described) -> set[str]:
    """Parameters of a function; attributes of a class, those it inherits left aside, and what makes it."""
    if isinstance(node, ast.FunctionDef):
        given = node.args
        return {
            argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.kwarg) if argument
        }
    fields = {n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    makers = [n for n in node.body if isinstance(n, ast.FunctionDef)]
    return fields.union(*(known(n) for n in makers if n.name == "__init__"), (n.name for n in makers))


def raised(node: Described) -> set[str]:
    """Errors that a public function raises itself."""
    if isinstance(node, ast.ClassDef):
        return set()
    calls = (inner.exc for inner in ast.walk(node) if isinstance(inner, ast.Raise))
    return {ast.unparse(call.func) for call in calls if isinstance(call, ast.Call)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_name_has_a_docstring_that_fits_it(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module has no docstring"
    for node in public(tree):
        docstring = ast.get_docstring(node)
        assert docstring, f"line {node.lineno}: {node.name} has no docstring"
        for title in ("Args", "Attributes"):
            unknown = set(section(docstring + "\n", title)) - known(node)
            assert not unknown, f"line {node.lineno}: {node.name} has no {', '.join(sorted(unknown))}"
        unsaid = [name for name in raised(node) if name not in docstring]
        assert not unsaid, f"line {node.lineno}: {node.name} does not say when it raises {', '.join(unsaid)}"


def test_a_described_name_that_is_not_there_is_noticed():
    node = ast.parse(
        'def f(a, *, b):\n    """F.\n\n    Args:\n        a, c: two.\n            b: more of it.\n    """'
    ).body[0]
    assert section(ast.get_docstring(node), "Args") == ["a", "c"]
    assert known(node) == {"a", "b"}


def test_an_error_that_a_function_raises_is_noticed():
    node = ast.parse("def f(a):\n    if a:\n        raise ValueError('no')\n    raise").body[0]
    assert raised(node) == {"ValueError"}
