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
SAME = "#3f90da"
HEAT = "#e6007e"
RIGHT, WRONG = "#94a4a2", "#bd1f01"
OTHER = "other classes"
COLOURED_CLASSES = 8

_ROLE_COLOURS = {"teacher": "#717581", "plain": "#3f90da", "control": "#92dadd"}
_METHOD_COLOURS = ("#e76300", "#832db6", "#b9ac70", "#bd1f01", "#a96b59", "#ffa90e")  # none of them grey
COLOURED_METHODS = len(_METHOD_COLOURS)


def series_colours(base: Sequence[tuple[str, str]], kept: Sequence[str], chosen: Sequence[str]) -> dict[str, str]:
    """The colours of the few series that have one; all others are grey.

    Args:
        base: (role, series) of teacher, plain and the control, which always have theirs.
        kept: methods whose colour never goes to another, at most :data:`COLOURED_METHODS`.
        chosen: methods in colour, at most as many.
    """
    own = dict(zip(kept, _METHOD_COLOURS, strict=False))
    spare = [colour for colour in _METHOD_COLOURS if colour not in own.values()]
    spare += [colour for label, colour in own.items() if label not in chosen]
    colours = {label: _ROLE_COLOURS[role] for role, label in base}
    return colours | {label: own.get(label) or spare.pop(0) for label in chosen}


def class_colours(class_names: Sequence[str], chosen: Sequence[str] = ()) -> dict[str, str]:
    """Up to ten classes have a colour each; of more, only the chosen ones, the others are grey."""
    if len(class_names) <= len(PETROFF):
        return dict(zip(class_names, PETROFF, strict=False))
    return {**dict(zip(chosen[:COLOURED_CLASSES], PETROFF, strict=False)), OTHER: GREY}
