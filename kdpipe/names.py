"""Names that people type: refused with the closest one that there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, value: str, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is allowed; otherwise raise a ValueError with the closest match."""
    names = list(allowed)
    if value in names:
        return value
    raise ValueError(f"there is no {kind} {value!r}{closest(value, names)}; allowed: {', '.join(names)}")


def closest(value: str, names: Iterable[str]) -> str:
    """A clause with the nearest name, or nothing if none is near."""
    near = difflib.get_close_matches(value, list(names), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""
