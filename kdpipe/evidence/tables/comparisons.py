"""Which students stand side by side in a study: each distilled one, its plain companion, its null and its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from kdpipe.evidence.tables.controls import controls_of, explanation_of
from kdpipe.evidence.tables.groups import Frames, Group, NamedControl
from kdpipe.vocabulary import CONTROL, DISTILLED, PLAIN, STUDENT_ROLES, budget_id

Records = Mapping[str, Mapping[str, Any]]  # rows of methods.parquet by their method


@dataclass(frozen=True)
class Comparison:
    """Where a cell stands in its study, and who belongs to it.

    Attributes:
        seeds: those of which both the plain and the distilled student were trained to the end.
        null: plain from other initial weights, at the same seeds; where the study has none, plain of the next seed.
        fair_teacher: it is no distillation of the study's own but a control whose teacher had the student's labels and
            no more: whether it outperforms that teacher is all that is asked of it.
    """

    student: str
    method_label: str
    budget_id: str
    label_fraction: float
    seeds: tuple[int, ...]
    distilled: Group
    plain: Group
    null: Mapping[int, str] | None
    controls: tuple[NamedControl, ...]
    primary: bool = False
    fair_teacher: bool = False

    def ids(self, group: Mapping[int, str]) -> list[str]:
        return [group[seed] for seed in self.seeds]


def comparisons_of(frames: Frames, headline: Mapping[str, Any]) -> list[Comparison]:
    """All cells of a study in its order: every distilled student with a plain companion, at each budget.

    Args:
        headline: student, method (as labelled) and label_fraction of the primary cell.
    """
    trained = frames["networks"].filter(pl.col("status") == "trained")
    whole = pl.col("network_id").is_in(measured(frames))
    students = trained.filter(whole & pl.col("role").is_in(STUDENT_ROLES))
    records = {row["method"]: row for row in frames["methods"].iter_rows(named=True)}
    keys = ["student", "budget_id"]
    found = []
    for (student, budget), part in students.partition_by(keys, as_dict=True, maintain_order=True).items():
        groups = _groups(part)
        plain = next((group for group in groups if group.role == PLAIN), None)
        if plain is None:
            continue
        fair = [group for group in groups if _is_fair(group, records, trained)]
        for group in [*(group for group in groups if group.role == DISTILLED), *fair]:
            seeds = tuple(sorted(plain.ids.keys() & group.ids.keys()))
            if not seeds:
                continue
            wanted = (headline["student"], headline["method"], budget_id(headline["label_fraction"]))
            found.append(
                Comparison(
                    str(student),
                    group.label,
                    str(budget),
                    float(part["label_fraction"][0]),
                    seeds,
                    group,
                    plain,
                    _null(groups, records, plain, seeds),
                    () if group in fair else tuple(controls_of(records, trained, groups, group, plain, seeds)),
                    (student, group.label, budget) == wanted,
                    fair_teacher=group in fair,
                )
            )
    return found


def measured(frames: Frames) -> list[str]:
    """Networks with answers and with finite values of both endpoints on every one of their layers.

    What a failed stage left without them takes part in nothing; its seed is then named as missing. Where no student
    answers, as in a study of vectors alone, answers are asked of none.
    """
    images, on = frames["samples"].height, ["network_id", "layer", "view"]
    finite = pl.col("silhouette").is_finite() & pl.col("knn_correct").is_not_null()
    rows = frames["sample_measures"].filter(finite).group_by(on).len().filter(pl.col("len") == images)
    layers = frames["layers"].group_by("network_id").len(name="layers")
    found = rows.group_by("network_id").len(name="found").join(layers, "network_id")
    whole = found.filter(pl.col("found") == pl.col("layers"))["network_id"].to_list()
    answered = set(frames["predictions"]["network_id"].unique())
    students = frames["networks"].filter(pl.col("role").is_in(STUDENT_ROLES))["network_id"]
    return [name for name in whole if name in answered] if answered & set(students) else whole


def _groups(students: pl.DataFrame) -> list[Group]:
    parts = students.partition_by("method_label", maintain_order=True)
    return [
        Group(
            label=part["method_label"][0],
            method=part["method"][0],
            role=part["role"][0],
            unlabelled=part["unlabelled"][0],
            ids=dict(part.select("seed", "network_id").rows()),
        )
        for part in parts
    ]


def _is_fair(group: Group, records: Records, trained: pl.DataFrame) -> bool:
    """Whether it is a control whose teacher had no more labels than its student."""
    found = explanation_of(group, records, trained) if group.role == CONTROL else None
    return found is not None and found.kind == "without"


def _null(groups: Sequence[Group], records: Records, plain: Group, seeds: Sequence[int]) -> Mapping[int, str] | None:
    """What stands against plain where nothing but chance differs."""
    second = next((group for group in groups if records.get(group.method, {}).get("null")), None)
    if second is not None and set(seeds) <= second.ids.keys():
        return second.ids
    if len(seeds) < 2:
        return None
    return {seed: plain.ids[after] for seed, after in zip(seeds, [*seeds[1:], seeds[0]], strict=True)}
