#!/usr/bin/env python
"""Write the rooms of docs/ARCHITECTURE.md from the code: ``scripts/architecture_docs.py [--check]``.

The floors are those of .importlinter, which a test holds against the real imports; what a room is for is the first
sentence of its docstring; which rooms it uses is read off its imports.
"""

import ast
import configparser
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "ARCHITECTURE.md"
BEGIN, END = "<!-- rooms: scripts/architecture_docs.py -->\n", "<!-- end of rooms -->\n"


def floors() -> list[list[str]]:
    """Rooms from the top floor down."""
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    lines = config["importlinter:contract:floors"]["layers"].split("\n")
    return [[room.strip() for room in line.split("|")] for line in lines if line.strip()]


def files_of(room: str) -> list[Path]:
    place = ROOT / "kdpipe" / room
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


def purpose(room: str) -> str:
    """The first sentence of a room's docstring."""
    place = ROOT / "kdpipe" / room
    source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def uses(room: str) -> list[str]:
    """Other rooms that a room imports."""
    found = set()
    for path in files_of(room):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kdpipe."):
                found.add(node.module.split(".")[1])
    return sorted(found - {room})


def picture() -> str:
    """The rooms as a graph. An arrow that others imply, or that leads to a leaf, is in the table alone."""
    rooms = {room: set(uses(room)) for floor in floors() for room in floor}
    leaves = {room for room, below in rooms.items() if not below or room in {"files", "names", "seeds"}}
    lines = ["```mermaid", "flowchart TD"]
    for room, below in rooms.items():
        if room in leaves and room != "measures":
            continue
        implied = set().union(*(reachable(other, rooms) for other in below))
        shown = sorted(below - implied - (leaves - {"measures"}))
        lines += [f"  {room} --> {other}" for other in shown] or [f"  {room}"]
    return "\n".join([*lines, "```"]) + "\n"


def reachable(room: str, rooms: dict[str, set[str]]) -> set[str]:
    """Every room that a room uses, itself or through others."""
    below = rooms.get(room, set())
    return below.union(*(reachable(other, rooms) for other in below))


def table() -> str:
    """The floors from the top down: a room imports rooms of lower floors alone."""
    lines = ["| floor | room | what it is for | uses |", "|--:|---|---|---|"]
    stack = floors()
    for height, rooms in zip(range(len(stack) - 1, -1, -1), stack, strict=True):
        lines += [f"| {height} | `{room}` | {purpose(room)} | {', '.join(uses(room)) or '–'} |" for room in rooms]
    return "\n".join(lines) + "\n"


def main() -> None:
    text = TARGET.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    written = before + BEGIN + "\n" + picture() + "\n" + table() + "\n" + END + after
    if "--check" in sys.argv:
        sys.exit(0 if text == written else "docs/ARCHITECTURE.md is out of date: run scripts/architecture_docs.py")
    TARGET.write_text(written)


if __name__ == "__main__":
    main()
