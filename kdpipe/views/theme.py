"""Colours, one meaning each, on every page."""

from __future__ import annotations

from collections.abc import Sequence

# Petroff 2021 (arXiv:2107.02270): ten colours that stay apart under common colour blindness.
PETROFF = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
GREY = "#9aa0a6"
MARKED = "#e6007e"  # not in the palette, and seen on both backgrounds
RIGHT, WRONG = "#94a4a2", "#bd1f01"
OTHER = "other classes"
COLOURED_CLASSES = 8

_ROLE_COLOURS = {"teacher": "#717581", "plain": "#3f90da", "control": "#92dadd"}
_METHOD_COLOURS = ("#e76300", "#832db6", "#b9ac70", "#bd1f01", "#a96b59", "#ffa90e", "#94a4a2")


def series_colours(series: Sequence[tuple[str, str]]) -> dict[str, str]:
    """A colour for each (role, method label); distilled methods take theirs in alphabetical order."""
    colours: dict[str, str] = {}
    distilled = sorted({label for role, label in series if role not in _ROLE_COLOURS})
    controls = sorted({label for role, label in series if role == "control"})
    for role, label in series:
        if role == "control":
            colours[label] = _ROLE_COLOURS["control"] if label == controls[0] else GREY
        elif role in _ROLE_COLOURS:
            colours[label] = _ROLE_COLOURS[role]
        else:
            colours[label] = _METHOD_COLOURS[distilled.index(label) % len(_METHOD_COLOURS)]
    return colours


def class_colours(class_names: Sequence[str], chosen: Sequence[str] = ()) -> dict[str, str]:
    """Up to ten classes have a colour each; of more, only the chosen ones, the others are grey."""
    if len(class_names) <= len(PETROFF):
        return dict(zip(class_names, PETROFF, strict=False))
    return {**dict(zip(chosen[:COLOURED_CLASSES], PETROFF, strict=False)), OTHER: GREY}
