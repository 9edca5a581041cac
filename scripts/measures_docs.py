#!/usr/bin/env python
"""Write docs/MEASURES.md from the registry: ``scripts/measures_docs.py [--check]``."""

import sys
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kdpipe.measures import FACTORS, MEASURES
from kdpipe.measures.registry import OF_SHAPE, Invariance, Measure

TARGET = ROOT / "docs" / "MEASURES.md"
KINDS = {
    "layer": "Of a layer",
    "pair": "Of two layers",
    "map": "Of a map",
    "network": "Of a network",
    "answers": "Of two networks' answers",
}
INTRODUCTION = """# Measures

Written by `scripts/measures_docs.py` from the registry in `kdpipe/measures/`; nothing here was typed in.

Each measure is a pure function over NumPy arrays and is imported from `kdpipe.measures`, most under the name that
they have in the artifacts: `from kdpipe.measures import silhouette, nc1, cka`.

*Chance* is the value where nothing is to be found; it is stored beside each value and drawn in each chart. Where it
is *shuffled*, it is measured on the very same data with what carries the structure shuffled over the images: the
labels; for measures that take no labels, each column of the layer on its own; for pairs, the rows of one layer.
*Invariant to* says what may be done to the images' vectors without a change of the value: to one layer of a pair,
or to one side of a map, alone; *shape* is short for rotation, translation, scale, and the orders of features and
images together. `tests/test_invariances.py` holds each measure to it, and to nothing more.
N is the number of images, d the width of a layer, K the number of classes, L the number of layers. A measure that is
not defined on a layer, or has no bound there, is empty in the artifacts.
"""
FACTORS_INTRODUCTION = """## Known factors of an image

How much of a factor a layer holds is the cross-validated R² of ridge regression (`explained_share`; Hoerl and Kennard
1970, Alain and Bengio 2016): at most 1, below 0 where the mean would do better, and beside it the same for the factor
shuffled over the images. A layer is then split into the part that a linear model of all factors explains, fitted on
other images, and the rest (`split`; van Eck et al. 2025); fresh probes look for each factor in the rest
(`residual_share`).
"""


def row(measure: Measure) -> str:
    """One measure as a row of a table."""
    low, high = (f"{end:g}" if end is not None else sign for end, sign in ((measure.low, "−∞"), (measure.high, "∞")))
    what = f"**{measure.title}.** {measure.summary} *{measure.citation}*"
    ends = f"{low} to {high}"
    cells = (f"`{measure.name}`", what, measure.direction, ends, chance(measure), invariances(measure), measure.cost)
    return f"| {' | '.join(cells)} |"


def invariances(measure: Measure) -> str:
    """What the measure ignores, in the order of the type."""
    if measure.invariant_to == OF_SHAPE:
        return "shape"
    if len(lacking := OF_SHAPE - measure.invariant_to) == 1:
        return f"shape but for {next(iter(lacking))}"
    return ", ".join(one for one in get_args(Invariance) if one in measure.invariant_to) or "nothing"


def chance(measure: Measure) -> str:
    if isinstance(measure.chance, int | float):
        return f"{measure.chance:g}"
    return "none" if measure.chance is None else "shuffled" if measure.chance == "shuffled" else "exact, by N and k"


def main() -> None:
    parts = [INTRODUCTION]
    for kind, title in KINDS.items():
        rows = [row(measure) for measure in MEASURES.values() if measure.of == kind]
        head = ["| measure | what | better | range | chance | invariant to | time |", "|---|---|---|---|---|---|---|"]
        parts.append("\n".join([f"## {title}\n", *head, *rows, ""]))
    factors = [f"| `{f.name}` | **{f.title}.** {f.summary} *{f.citation}* |" for f in FACTORS.values()]
    parts.append("\n".join([FACTORS_INTRODUCTION, "| factor | what |", "|---|---|", *factors, ""]))
    text = "\n".join(parts)
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == text else "docs/MEASURES.md is out of date: run scripts/measures_docs.py")
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
