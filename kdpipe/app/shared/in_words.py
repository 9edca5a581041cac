"""Quantities in words: counts with three digits, and the machines that networks were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def short(count: float) -> str:
    """A count with three digits: ``574 k``, ``6.41 M``."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"


def hardware_in_words(timed: Sequence[Mapping[str, Any]]) -> str:
    """The machines that networks were trained on, the most used first; empty if none is known."""
    counts: dict[str, int] = {}
    for speed in timed:
        if not speed.get("steps"):
            continue  # never trained
        what = speed.get("accelerator") or speed.get("processor") or speed.get("cpu")
        cores, threads = speed.get("cores"), speed.get("threads")
        said = f"{what or 'a processor that was not recorded'}"
        if not speed.get("accelerator") and threads:
            said += f", {threads} thread{'s' * (threads != 1)}" + (f" of {cores} cores" if cores else "")
        if speed.get("half"):
            said += ", half precision"
        counts[said] = counts.get(said, 0) + 1
    ranked = sorted(counts.items(), key=lambda entry: -entry[1])
    if len(ranked) == 1:
        return ranked[0][0]
    return "; ".join(f"{said} ({count} network{'s' * (count != 1)})" for said, count in ranked)
