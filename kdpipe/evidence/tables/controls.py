"""Which controls could explain the gain of a comparison, and why others cannot be asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from kdpipe.evidence.tables.groups import Group, NamedControl
from kdpipe.methods import METHODS
from kdpipe.vocabulary import CONTROL, DISTILLED, TEACHER, TEACHER_ARCHITECTURE, Kind


@dataclass(frozen=True)
class Explanation:
    """How a control can explain a gain.

    Attributes:
        of: the one method whose gain it can explain; None if any.
        method: the control of the registry that it is, or that it is for another method.
    """

    kind: Kind
    of: str | None
    method: str


# Who may stand in for a teacher: what kind of control that makes of a method, and which control of KD it is like.
STAND_INS: Mapping[str, tuple[Kind, str]] = {
    "untrained": ("instead", "random-teacher"),
    "self": ("instead", "self-distillation"),
    "own-budget": ("without", "own-budget-teacher"),
}


def controls_of(
    records: Mapping[str, Mapping[str, Any]],
    trained: pl.DataFrame,
    groups: Sequence[Group],
    cell: Group,
    plain: Group,
    seeds: Sequence[int],
) -> Iterator[NamedControl]:
    """Controls that could explain this cell's gain: those that ran, and why others could not be held against it."""
    labels = dict(trained.select("network_id", "labelled_images").iter_rows())
    own = max(labels[name] for name in plain.ids.values())
    yield from _not_run(records, groups, cell, trained)
    for group in groups:
        found = explanation_of(group, records, trained) if group.role == CONTROL else None
        if found is None or found.of not in (None, cell.method) or (found.of and group.unlabelled != cell.unlabelled):
            continue
        if max(labels[name] for name in group.ids.values()) > own and not cell.unlabelled:
            continue  # it saw labels that the distilled student's images did not have: an upper bound, no explanation
        lacking = sorted(set(seeds) - group.ids.keys())
        why_not = f"it is missing at seed {lacking[0]}" if lacking else None
        yield NamedControl(group.label, found.kind, found.method, {} if lacking else group.ids, why_not)


def _not_run(
    records: Mapping[str, Mapping[str, Any]], groups: Sequence[Group], cell: Group, trained: pl.DataFrame
) -> Iterator[NamedControl]:
    """Controls that could explain this cell's gain and that the study does not have.

    Of a method with controls of its own these are asked; of others, the method itself with stand-ins for its
    teacher. A plug-in's controls are known from the study's own table, so that verdicts are the same without it.
    """
    own = {name: record for name, record in METHODS.items() if METHODS.plugin_of(name) is None}
    varied = {record.control_of for record in own.values()} | {row.get("control_of") for row in records.values()}
    had = {group.method for group in groups if group.role == CONTROL}
    why_not = "it is not in the study"
    of_its_own = cell.method in varied and not cell.unlabelled
    for name, record in own.items():
        fits = record.control_of is None or (record.control_of == cell.method and of_its_own)
        if record.explains and fits and name not in had and (cell.unlabelled or not record.reveals_labels):
            yield NamedControl(name, record.explains, name, why_not=why_not)
    mine = [g for g in groups if (g.role, g.method, g.unlabelled) == (CONTROL, cell.method, cell.unlabelled)]
    stand_ins = {_stand_in(group, trained) for group in mine}
    for teacher, (kind, method) in STAND_INS.items():
        if not of_its_own and teacher not in stand_ins:
            name = f"{cell.method}-{teacher}-teacher" + "-unlabelled" * cell.unlabelled
            yield NamedControl(name, kind, method, why_not=why_not)


def explanation_of(group: Group, records: Mapping[str, Mapping[str, Any]], trained: pl.DataFrame) -> Explanation | None:
    """What a control can explain; None where no rule is made for it.

    A distillation with a stand-in for its teacher is a control of its own method: without the labels that its
    teacher brought, if the stand-in had the student's own budget; else something in the comparison of a teacher.
    """
    record = records.get(group.method, {})
    if record.get("role") != DISTILLED:
        kind = record.get("explains")
        return None if kind is None else Explanation(kind, record.get("control_of"), group.method)
    stand_in = _stand_in(group, trained)
    if stand_in is None:  # it differs in its batches or steps
        return None
    kind, method = STAND_INS[stand_in]
    return Explanation(kind, group.method, method)


def _stand_in(group: Group, trained: pl.DataFrame) -> str | None:
    """Who taught a control in the comparison of the study's teacher, in the words of a study file."""
    first = trained.filter(pl.col("network_id") == next(iter(group.ids.values()))).row(0, named=True)
    teacher = trained.filter(pl.col("network_id") == (first["teacher_id"] or ""))
    if teacher.is_empty() or teacher["role"][0] == TEACHER:
        return None
    if teacher["student"][0] != TEACHER_ARCHITECTURE:
        return "self"
    return "own-budget" if teacher["label_fraction"][0] > 0 else "untrained"
