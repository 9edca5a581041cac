"""What a dot on a map can be coloured by: each quantity once, with where it comes from and how it becomes colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from kdpipe.app.shell import theme
from kdpipe.artifacts.store import Study

FACTORS = {
    "brightness": ("brightness", "mean luma, from 0 (black) to 1 (white)", ".2f"),
    "contrast": ("contrast", "standard deviation of luma", ".2f"),
    "hue": ("hue", "dominant hue in degrees, 0 is red; grey where the image has no colour", ".0f"),
    "colourfulness": ("colourfulness", "Hasler and Süsstrunk's index, 0 for grey images", ".0f"),
    "edge_density": ("edge density", "mean length of the luma's gradient", ".3f"),
    "teacher_entropy": ("teacher's entropy", "entropy of the teacher's probabilities, in bits", ".2f"),
}
# Greys stay as they were; of those that changed, blue is for the better and orange for the worse.
OUTCOME_COLOURS = {"kept": theme.RIGHT, "fixed": "#3f90da", "broken": "#e76300", "wrong": "#717581"}
OUTCOME_ORDER = {name: str(at) for at, name in enumerate(OUTCOME_COLOURS)}
VERDICT_COLOURS = {"right": theme.RIGHT, "wrong": theme.WRONG}


@dataclass(frozen=True)
class Colouring:
    """Something a dot can be coloured by.

    Args:
        title: what it is called, in the picker and the address.
        column: of :func:`facts`; with ``_0`` or ``_1`` behind it where each map has its own values.
        own: whether each map has its own values.
        look: how it becomes colour.
        unit: title of the legend.
        about: what it is, in a sentence.
        table: without rows in it the study has no such values.
        lacking: why a network may have none.
        limits: fixed ends of the colour scale; from the values where there are none.
    """

    title: str
    column: str
    own: bool
    look: Literal["class", "verdict", "outcome", "sequential", "diverging", "cyclic"]
    unit: str
    about: str
    table: str = "predictions"
    lacking: str = ""
    limits: tuple[float, float] | None = None
    format: str = ".2f"

    def field(self, at: int) -> str:
        """The column of map ``at`` that is coloured by."""
        return f"{self.column}_{at}" if self.own else self.column

    @property
    def in_words(self) -> bool:
        """Whether its values are words, which have a legend, and no numbers, which have a scale."""
        return self.look in ("class", "verdict", "outcome")


_PAIRED = "only of students that have a plain one of the same seed and a teacher"
QUANTITIES = (
    Colouring("class", "class_name", False, "class", "true class", "The image's true class.", "samples"),
    Colouring("prediction", "answer", True, "class", "answer", "The class that each map's network answers."),
    Colouring("correctness", "verdict", True, "verdict", "answer", "Whether each map's network answers rightly."),
    Colouring(
        "what distillation did", "outcome", True, "outcome", "from plain to the student",
        "From plain to the student of the same seed: kept (both right), fixed (wrong, then right), broken (right, then "
        "wrong) or wrong (both).", "sample_flips", _PAIRED,
    ),
    Colouring("confidence", "confidence", True, "sequential", "softmax probability of the answer",
             "The softmax probability of the answer, which is not how often such answers are right.",
             limits=(0.0, 1.0), format=".0%"),
    Colouring("prediction depth", "depth", True, "sequential", "relative depth from which all layers agree",
             "The depth (0 % first layer, 100 % last) from which the nearest neighbours of every layer vote for the "
             "network's answer; grey where even the last layer's do not.",
             lacking="the study did not measure its layers", limits=(0.0, 1.0), format=".0%"),
    Colouring("neighbour credit", "credit", True, "diverging", "teacher's neighbours gained − lost, of 15",
             "Of the teacher's 15 nearest neighbours, those that this layer has and plain's has not, less those that "
             "plain's has and this one has not.", "neighbour_credit", _PAIRED, format="+.0f"),
    Colouring("neighbours lost by the map", "misplacement", True, "sequential", "share of 15 true neighbours lost",
             "Misplacement: the share of the image's 15 nearest neighbours in the layer's own space that are not among "
             "its 15 nearest on the map.", "maps", limits=(0.0, 1.0), format=".0%"),
    Colouring("false neighbours on the map", "false_neighbours", True, "sequential", "how false its neighbours are",
             "How far off in the layer's own space those images are that the map shows near, from 0 to 1.", "maps"),
    Colouring("missing neighbours on the map", "missing_neighbours", True, "sequential", "how far its neighbours are",
             "How far off the map shows the image's true neighbours, from 0 to 1.", "maps"),
)  # fmt: skip


def quantities_of(study: Study) -> list[Colouring]:
    """Everything that colour can mean in this study."""
    rows = study.record["files"]
    held = [q for q in QUANTITIES if rows.get(f"{q.table}.parquet", {}).get("rows")]
    known = study.frame("samples", columns=list(FACTORS)).select(pl.all().is_not_null().any()).row(0, named=True)
    for column, (title, about, digits) in FACTORS.items():
        if known[column]:
            cyclic = column == "hue"
            held.append(
                Colouring(title, column, False, "cyclic" if cyclic else "sequential", about.split(";")[0],
                         f"{about[:1].upper()}{about[1:]}.", "samples", format=digits,
                         limits=(0.0, 360.0) if cyclic else None)
            )  # fmt: skip
    return held


def colours_of(quantity: Colouring, names: Sequence[str], focus: Sequence[str]) -> dict[str, str]:
    """The colour of each word that ``quantity`` can be; nothing for numbers."""
    kinds = {"verdict": VERDICT_COLOURS, "outcome": OUTCOME_COLOURS, "class": theme.class_colours(names, focus)}
    return dict(kinds.get(quantity.look, {}))
