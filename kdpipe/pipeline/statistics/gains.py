"""What every kind of student gains over plain, seed by seed: as compared, and of controls as areas subtract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from kdpipe.pipeline.statistics.groups import CELL, TRAINED, Frames, placed, typed
from kdpipe.vocabulary import CONTROL, PLAIN

QUANTITIES = ("early_abc", "advance")
Kind = tuple[str, str, str]  # student, budget_id, method_label
Values = list[float | None]  # an advance is None where plain's final value is never reached


def gains_table(frames: Frames) -> pl.DataFrame:
    """Early area and advance of every method and control over plain of the same seed.

    A control's area is worked out where a method was held against it: method less plain, less (method less control),
    which is exact, as areas subtract.
    """
    seeds, rows = _paired_seeds(frames["networks"]), list[dict[str, Any]]()
    fractions = dict(frames["networks"].select("budget_id", "label_fraction").iter_rows())
    compared = frames["comparisons"].filter(pl.col("quantity").is_in(QUANTITIES))
    for (measure, quantity), part in compared.group_by(["measure", "quantity"], maintain_order=True):
        for kind, values in _over_plain(part).items():
            if kind not in seeds:
                continue  # such as plain of matched accuracy, which is no network of its own
            known = seeds[kind] if len(seeds[kind]) == len(values) else None
            student, budget, label = kind
            of = {"measure": measure, "quantity": quantity, "seeds": known, "per_seed": values}
            rows.append({**placed(student, label, budget, fractions[budget]), **of})
    return typed("gains", rows)


def _over_plain(compared: pl.DataFrame) -> dict[Kind, Values]:
    """Values of one quantity, a seed each, by kind: methods as compared, then controls."""
    own = {
        (row["student"], row["budget_id"], row["method_label"]): row["per_seed"]
        for row in compared.filter(against=PLAIN).iter_rows(named=True)
    }
    found = dict(own)
    for kind, control, withheld, values in _held_against(compared):
        method, place = own.get(kind), (kind[0], kind[1], control)
        if place in found or method is None or len(method) != len(values):
            continue
        found[place] = values if withheld else _less(method, values)
    return found


def _less(values: Values, others: Values) -> Values:
    pairs = zip(values, others, strict=True)
    return [None if one is None or other is None else one - other for one, other in pairs]


def _held_against(compared: pl.DataFrame) -> Iterator[tuple[Kind, str, bool, Values]]:
    """A method held against a control: the method's kind, the control, whether it is control less plain, values."""
    for row in compared.filter(against=CONTROL).iter_rows(named=True):
        kind = (row["student"], row["budget_id"], row["method_label"])
        yield kind, row["control"], row["control_kind"] == "without", row["per_seed"]


def _paired_seeds(networks: pl.DataFrame) -> dict[Kind, list[int]]:
    """Seeds of which both plain and the kind were trained to the end, in order: what ``per_seed`` is of."""
    students = networks.filter(TRAINED)
    plain = students.filter(pl.col("role") == "plain").select(*CELL, "seed").unique()
    both = students.join(plain, on=[*CELL, "seed"], how="semi")
    grouped = both.group_by(*CELL, "method_label", maintain_order=True).agg(pl.col("seed").unique().sort())
    return {(student, budget, label): list(seeds) for student, budget, label, seeds in grouped.rows()}
