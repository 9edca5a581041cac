"""What stands side by side in a study: every contrast of a cell, its correction, and the specification curve.

Each cell is compared with plain in both endpoints, in accuracy and in prediction depth, and with every control that
could explain its gain. Numbers only: what they mean is said in :mod:`kdpipe.evidence.tables.verdicts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from kdpipe.evidence import (
    Advance,
    Arms,
    Cell,
    Contrast,
    Estimates,
    Resamples,
    abc,
    benjamini_hochberg,
    contrast,
    correct_primary,
    estimate,
)
from kdpipe.evidence.claims import BEATS_TEACHER
from kdpipe.evidence.tables.comparisons import Comparison
from kdpipe.evidence.tables.groups import Frames, NamedControl
from kdpipe.evidence.tables.matched_accuracy import Matched, matched_accuracy
from kdpipe.evidence.tables.values import Array, Values
from kdpipe.vocabulary import (
    ACCURACY,
    CONTROL,
    ENDPOINTS,
    MATCHED_ACCURACY,
    PLAIN,
    PREDICTION_DEPTH,
    TEACHER,
    EndpointName,
    Kind,
)


@dataclass(frozen=True)
class Limits:
    """What a study settles before it runs: differences that would not matter, and how much is drawn."""

    silhouette: float
    knn_accuracy: float
    accuracy: float
    resamples: int = 2000
    seed: int = 0


@dataclass
class ContrastRow:
    """One row of comparisons.parquet on its way; its p value is corrected when all are known.

    Attributes:
        against: plain, teacher or control.
        control: the control where it is against one.
        advance: where it is the quantity, with the seeds at which it has no value.
    """

    comparison: Comparison
    against: str
    measure: str
    view: str | None
    quantity: str
    found: Contrast
    control: NamedControl | None = None
    advance: Advance | None = None
    corrected: float | None = None
    correction: str | None = None


@dataclass
class JudgedComparison:
    """All that is known of one cell."""

    comparison: Comparison
    estimates: Estimates
    rows: list[ContrastRow]
    controls: list[NamedControl]
    # Contrasts that claims are judged by alone, with those against controls.
    single: dict[str, tuple[ContrastRow, list[ContrastRow]]] = field(default_factory=dict)
    specifications: list[dict[str, Any]] = field(default_factory=list)


class Draws:
    """Resamples of seeds and images, drawn once for each number of seeds."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._drawn: dict[int, Resamples] = {}

    def of(self, labels: Array, seeds: int) -> Resamples:
        if seeds not in self._drawn:
            self._drawn[seeds] = Resamples.draw(labels, seeds, self.limits.resamples, self.limits.seed)
        return self._drawn[seeds]


def judge_comparison(
    comparison: Comparison, values: Values, frames: Frames, limits: Limits, draws: Draws
) -> JudgedComparison:
    """Every contrast of a cell, before any p value is corrected."""
    resamples = draws.of(values.labels, len(comparison.seeds))
    matched = matched_accuracy(frames, comparison)
    controls = list(comparison.controls)
    if isinstance(matched, str):
        controls.append(NamedControl(MATCHED_ACCURACY, "without", why_not=matched))
    else:
        controls.append(NamedControl(MATCHED_ACCURACY, "without"))
    cell = _cell(comparison, values, limits, controls, matched)
    found = estimate(cell, resamples)
    judged = JudgedComparison(comparison, found, _area_rows(comparison, found, controls), controls)
    tell = partial(contrast, resamples=resamples, rules=cell.rules)
    for name, single in _singles(comparison, values, controls, matched, cell, tell).items():
        judged.single[name] = single
        judged.rows += [single[0], *single[1]]
    if _answered(comparison, values):
        settled = _settled(comparison, values, tell)
        judged.rows.append(ContrastRow(comparison, PLAIN, PREDICTION_DEPTH, None, "difference", settled))
    if comparison.fair_teacher:  # nothing but its teacher is asked of it
        for row in judged.rows:
            row.found = row.found if row.against == TEACHER else _untested(row.found)
    return judged


def _cell(
    comparison: Comparison, values: Values, limits: Limits, controls: Sequence[NamedControl], matched: Matched | str
) -> Cell:
    held = [control for control in controls if control.why_not is None]
    arms = {name: _arms(comparison, values, name, held, matched) for name in ENDPOINTS}
    view = next((ENDPOINTS[name].view for name in ENDPOINTS if arms[name] is not None), "gap")
    return Cell(
        depth=values.depth(comparison.ids(comparison.plain.ids)[0], view),
        labels=values.labels,
        silhouette=arms["silhouette"],
        knn_accuracy=arms["knn_accuracy"],
        epsilon={"silhouette": limits.silhouette, "knn_accuracy": limits.knn_accuracy},
        kinds={control.name: control.kind for control in held},
    )


def _arms(
    comparison: Comparison, values: Values, endpoint: EndpointName, held: Sequence[NamedControl], matched: Matched | str
) -> Arms | None:
    """Per-image values of every arm at one endpoint; None where it was not measured."""
    of = ENDPOINTS[endpoint]
    return arms_of(comparison, values, of.view, of.column, held, matched)


def arms_of(
    comparison: Comparison, values: Values, view: str, column: str, held: Sequence[NamedControl], matched: Matched | str
) -> Arms | None:
    wanted = [*comparison.ids(comparison.plain.ids), *comparison.ids(comparison.distilled.ids)]
    if not values.has(wanted, view, column):
        return None
    of = partial(values.of_layers, view=view, column=column)
    named = {control.name: comparison.ids(control.ids) for control in held if control.name != MATCHED_ACCURACY}
    controls = {name: of(ids) for name, ids in named.items() if values.has(ids, view, column)}
    plain = of(comparison.ids(comparison.plain.ids))
    if isinstance(matched, Matched) and values.has(matched.ids, view, column):
        controls[MATCHED_ACCURACY] = matched.arm(lambda name: of([name])[0], plain)
    again = None if comparison.null is None else comparison.ids(comparison.null)
    null = of(again) if again is not None and values.has(again, view, column) else None
    return Arms(of(comparison.ids(comparison.distilled.ids)), plain, null, controls)


def _area_rows(comparison: Comparison, found: Estimates, controls: Sequence[NamedControl]) -> list[ContrastRow]:
    rows, named = [], {control.name: control for control in controls}
    for estimates in (found.silhouette, found.knn_accuracy):
        measure, view = estimates.endpoint.name, estimates.endpoint.view
        row = partial(ContrastRow, comparison, PLAIN, measure, view)
        areas = {"early_abc": estimates.early_abc, "shape_abc": estimates.shape_abc}
        if measure != "silhouette":  # whose area over all layers is a claim of its own
            areas["abc"] = estimates.abc
        rows += [row(quantity, area) for quantity, area in areas.items() if area is not None]
        reached = estimates.advance
        if reached is not None and reached.estimate is not None:
            per_seed = tuple(value for value in reached.per_seed if value is not None)
            bare = Contrast(reached.estimate, per_seed, np.nan, np.nan, None, None, None, None)
            rows.append(row("advance", bare, advance=reached))
        for control in estimates.controls:
            left = Contrast(control.estimate, control.per_seed, control.low, control.high, None, None, None, None)
            rows.append(ContrastRow(comparison, CONTROL, measure, view, "early_abc", left, named[control.name]))
    return rows


def _singles(
    comparison: Comparison,
    values: Values,
    controls: Sequence[NamedControl],
    matched: Matched | str,
    cell: Cell,
    tell: Any,
) -> dict[str, tuple[ContrastRow, list[ContrastRow]]]:
    """Contrasts that a claim is judged by alone: area over all layers, accuracy, accuracy against the teacher."""
    found: dict[str, tuple[ContrastRow, list[ContrastRow]]] = {}
    if cell.silhouette is not None and len(cell.depth) > 1:
        arms, area = cell.silhouette, partial(abc, cell.depth)
        null = None if arms.second_seed is None else (arms.second_seed, arms.plain)
        leading = ENDPOINTS["silhouette"]
        row = partial(ContrastRow, comparison, measure=leading.name, view=leading.view, quantity="abc")
        main = row(PLAIN, found=tell(arms.distilled, arms.plain, statistic=area, null=null))
        others = [
            row(CONTROL, found=_untested(tell(*pair_of(c.kind, arms, mine), statistic=area)), control=c)
            for c in controls
            if (mine := arms.controls.get(c.name)) is not None
        ]
        found["compact"] = (main, others)
    if not _answered(comparison, values):
        return found
    right = {name: values.correct(comparison.ids(group.ids)) for name, group in _both(comparison)}
    arms = Arms(right["distilled"], right["plain"])
    null = None if comparison.null is None else (values.correct(comparison.ids(comparison.null)), right["plain"])
    row = partial(ContrastRow, comparison, measure=ACCURACY, view=None, quantity="difference")
    main = row(PLAIN, found=tell(arms.distilled, arms.plain, null=null, balanced=False))
    held = [control for control in controls if control.why_not is None and control.name != MATCHED_ACCURACY]
    others = [
        row(
            CONTROL,
            found=_untested(tell(*pair_of(c.kind, arms, values.correct(comparison.ids(c.ids))), balanced=False)),
            control=c,
        )
        for c in held
    ]
    found["accurate"] = (main, others)
    teachers = _teachers(comparison, values)
    if teachers:
        ahead = row(TEACHER, found=tell(arms.distilled, values.correct(teachers), balanced=False))
        found[BEATS_TEACHER] = (ahead, [])
    return found


def _answered(comparison: Comparison, values: Values) -> bool:
    """Whether it is known what the students answer; of vectors that came alone it is not."""
    return values.answer([name for _, group in _both(comparison) for name in comparison.ids(group.ids)])


def _untested(found: Contrast) -> Contrast:
    """Against a control the interval decides; a p value would only swell the family that is corrected over."""
    return replace(found, p=None)


def _both(comparison: Comparison) -> Iterator[tuple[str, Any]]:
    yield "distilled", comparison.distilled
    yield "plain", comparison.plain


def pair_of(kind: Kind, arms: Arms, control: Array) -> tuple[Array, Array]:
    return (arms.distilled, control) if kind == "instead" else (control, arms.plain)


def _teachers(comparison: Comparison, values: Values) -> list[str]:
    """The network that each distilled student learned from, where all of them answer."""
    networks = dict(values.frames["networks"].select("network_id", "teacher_id").iter_rows())
    names = [networks[name] for name in comparison.ids(comparison.distilled.ids)]
    answered = set(values.frames["predictions"]["network_id"].unique())
    return names if all(name in answered for name in names) else []


def _settled(comparison: Comparison, values: Values, tell: Any) -> Contrast:
    """How much earlier an image is settled than in plain, in relative depth."""
    one, two = (values.prediction_depth(comparison.ids(group.ids)) for _, group in _both(comparison))
    null = None if comparison.null is None else (two, values.prediction_depth(comparison.ids(comparison.null)))
    return tell(two, one, null=null, balanced=False)


def correct(cells: Sequence[JudgedComparison]) -> None:
    """Holm over the two endpoints of the primary cell; Benjamini-Hochberg over every other p value of the study."""
    rest: list[ContrastRow] = []
    for cell in cells:
        primary = correct_primary(cell.estimates) if cell.comparison.primary else {}
        for row in cell.rows:
            if row.found.p is None:
                continue
            if row.quantity == "early_abc" and row.against == PLAIN and cell.comparison.primary:
                row.corrected, row.correction = primary[row.measure], "holm"  # type: ignore[index]
            else:
                rest.append(row)
    if rest:
        for row, p in zip(rest, benjamini_hochberg([row.found.p or 0.0 for row in rest]), strict=True):
            row.corrected, row.correction = float(p), "benjamini-hochberg"


def cell_columns(comparison: Comparison) -> dict[str, Any]:
    return {
        "student": comparison.student,
        "method_label": comparison.method_label,
        "budget_id": comparison.budget_id,
        "label_fraction": comparison.label_fraction,
        "primary": comparison.primary,
    }


def against_columns(against: str, control: NamedControl | None) -> dict[str, str | None]:
    """What distilled is held against; for a control, its name and its kind."""
    named = (None, None) if control is None else (control.name, control.kind)
    return {"against": against, "control": named[0], "control_kind": named[1]}


def comparison_row(row: ContrastRow) -> dict[str, Any]:
    found = row.found
    bounds = {"low": found.low, "high": found.high}
    return {
        **cell_columns(row.comparison),
        **against_columns(row.against, row.control),
        "measure": row.measure,
        "view": row.view or "",
        "quantity": row.quantity,
        "seeds": len(row.comparison.seeds),
        "estimate": found.estimate,
        **{name: None if np.isnan(bound) else bound for name, bound in bounds.items()},
        "p": found.p,
        "p_corrected": row.corrected,
        "correction": row.correction,
        "d_z": found.d_z,
        "null_estimate": found.null_estimate,
        "null_ratio": found.null_ratio,
        "never_reached": None if row.advance is None else row.advance.never,
        "per_seed": list(found.per_seed if row.advance is None else row.advance.per_seed),
    }
