#!/usr/bin/env python
"""Write docs/MEASURES.md from the registry: ``scripts/measures_docs.py [--check]``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kdpipe.measures import FACTORS, MEASURES
from kdpipe.measures.registry import Measure

TARGET = ROOT / "docs" / "MEASURES.md"
KINDS = {
    "layer": "Of a layer",
    "pair": "Of two layers",
    "map": "Of a map",
    "network": "Of a network",
    "answers": "Of two networks' answers",
    "factor": "Of a known factor in a layer",
}
INTRODUCTION = """# Measures

Written by `scripts/measures_docs.py` from the registry in `kdpipe/measures/`; nothing here was typed in.

Each measure is a pure function over NumPy arrays and is imported from `kdpipe.measures`, most under the name that
they have in the artifacts: `from kdpipe.measures import silhouette, nc1, cka`.

*Chance* is the value where nothing is to be found; it is stored beside each value and drawn in each chart. Where it
is *shuffled*, it is measured on the very same data with what carries the structure shuffled over the images: the
labels; for measures that take no labels, each column of the layer on its own; for pairs, the rows of one layer.
N is the number of images, d the width of a layer, K the number of classes, L the number of layers. A measure that is
not defined on a layer, or has no bound there, is empty in the artifacts.
"""
FACTORS_INTRODUCTION = """## Known factors of an image

Beside these, `teacher_entropy` is the entropy of the teacher's probabilities, in bits. A layer is split into the part
that a linear model of all factors explains, fitted on other images, and the rest; fresh probes then look for each
factor in the rest.
"""


def row(measure: Measure) -> str:
    """One measure as a row of a table."""
    low, high = (f"{end:g}" if end is not None else sign for end, sign in ((measure.low, "−∞"), (measure.high, "∞")))
    what = f"**{measure.title}.** {measure.summary} *{measure.citation}*"
    cells = (f"`{measure.name}`", what, measure.direction, f"{low} to {high}", chance(measure), measure.cost)
    return f"| {' | '.join(cells)} |"


def chance(measure: Measure) -> str:
    if isinstance(measure.chance, int | float):
        return f"{measure.chance:g}"
    return "none" if measure.chance is None else "shuffled" if measure.chance == "shuffled" else "exact, by N and k"


def main() -> None:
    parts = [INTRODUCTION]
    for kind, title in KINDS.items():
        rows = [row(measure) for measure in MEASURES.values() if measure.of == kind]
        head = ["| measure | what | better | range | chance | time |", "|---|---|---|---|---|---|"]
        parts.append("\n".join([f"## {title}\n", *head, *rows, ""]))
    factors = [f"| `{f.name}` | **{f.title}.** {f.summary} *{f.citation}* |" for f in FACTORS.values()]
    parts.append("\n".join([FACTORS_INTRODUCTION, "| factor | what |", "|---|---|", *factors, ""]))
    text = "\n".join(parts)
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == text else "docs/MEASURES.md is out of date: run scripts/measures_docs.py")
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
