"""What stands side by side in a study: every contrast of a cell, its correction, and the specification curve.

Each cell is compared with plain in both endpoints, in accuracy and in prediction depth, and with every control that
could explain its gain. Numbers only: what they mean is said in :mod:`kdpipe.verdicts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from kdpipe.cells import MATCHED, Array, Frames, Matched, Named, Place, Values, matched_accuracy
from kdpipe.claims import BEATS_TEACHER
from kdpipe.evidence import (
    ENDPOINTS,
    Arms,
    Cell,
    Contrast,
    EndpointName,
    Estimates,
    Resamples,
    abc,
    benjamini_hochberg,
    contrast,
    correct_primary,
    early_abc,
    estimate,
)

COLUMNS: Mapping[EndpointName, str] = {"silhouette": "silhouette", "knn_accuracy": "knn_correct"}
# Ways to measure the same thing: column, what was done to the layer, neighbours (of the study, or a second k).
VARIANTS: tuple[tuple[EndpointName, str, bool, str | None], ...] = (
    ("silhouette", "silhouette", False, None),
    ("silhouette", "silhouette_standardised", True, None),
    ("knn_accuracy", "knn_correct", False, "k"),
    ("knn_accuracy", "knn_correct_second", False, "second_k"),
    ("knn_accuracy", "knn_correct_standardised", True, "k"),
)
VIEWS = ("gap", "projection")


@dataclass(frozen=True)
class Limits:
    """What a study settles before it runs: differences that would not matter, and how much is drawn."""

    silhouette: float
    knn_accuracy: float
    accuracy: float
    resamples: int = 2000
    seed: int = 0


@dataclass
class Compared:
    """One row of comparisons.parquet on its way; its p value is corrected when all are known."""

    place: Place
    against: str
    measure: str
    view: str | None
    quantity: str
    found: Contrast
    never: int | None = None
    corrected: float | None = None
    correction: str | None = None


@dataclass
class Judged:
    """All that is known of one cell."""

    place: Place
    estimates: Estimates
    rows: list[Compared]
    controls: list[Named]
    # Contrasts that claims are judged by alone, with those against controls.
    single: dict[str, tuple[Compared, list[Compared]]] = field(default_factory=dict)
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


# ------------------------------------------------------------------------------------------- a cell


def compare_cell(place: Place, values: Values, frames: Frames, limits: Limits, draws: Draws) -> Judged:
    """Every contrast of a cell, before any p value is corrected."""
    resamples = draws.of(values.labels, len(place.seeds))
    matched = matched_accuracy(frames, place)
    controls = list(place.controls)
    if isinstance(matched, str):
        controls.append(Named(MATCHED, "without", why_not=matched))
    else:
        controls.append(Named(MATCHED, "without"))
    cell = _cell(place, values, limits, controls, matched)
    found = estimate(cell, resamples)
    judged = Judged(place, found, _area_rows(place, found), controls)
    tell = partial(contrast, resamples=resamples, rules=cell.rules)
    for name, single in _singles(place, values, controls, matched, cell, tell).items():
        judged.single[name] = single
        judged.rows += [single[0], *single[1]]
    settled = _settled(place, values, tell)
    judged.rows.append(Compared(place, "plain", "prediction_depth", None, "difference", settled))
    if place.fair_teacher:  # nothing but its teacher is asked of it
        for row in judged.rows:
            row.found = row.found if row.against == "teacher" else _untested(row.found)
    return judged


def _cell(place: Place, values: Values, limits: Limits, controls: Sequence[Named], matched: Matched | str) -> Cell:
    held = [control for control in controls if control.why_not is None]
    arms = {name: _arms(place, values, name, held, matched) for name in ENDPOINTS}
    view = next((ENDPOINTS[name].view for name in ENDPOINTS if arms[name] is not None), "gap")
    return Cell(
        depth=values.depth(place.ids(place.plain.ids)[0], view),
        labels=values.labels,
        silhouette=arms["silhouette"],
        knn_accuracy=arms["knn_accuracy"],
        epsilon={"silhouette": limits.silhouette, "knn_accuracy": limits.knn_accuracy},
        kinds={control.name: control.kind for control in held},
    )


def _arms(
    place: Place, values: Values, endpoint: EndpointName, held: Sequence[Named], matched: Matched | str
) -> Arms | None:
    """Per-image values of every arm at one endpoint; None where it was not measured."""
    view, column = ENDPOINTS[endpoint].view, COLUMNS[endpoint]
    return _arms_of(place, values, view, column, held, matched)


def _arms_of(
    place: Place, values: Values, view: str, column: str, held: Sequence[Named], matched: Matched | str
) -> Arms | None:
    wanted = [*place.ids(place.plain.ids), *place.ids(place.distilled.ids)]
    if not values.has(wanted, view, column):
        return None
    of = partial(values.of_layers, view=view, column=column)
    named = {control.name: place.ids(control.ids) for control in held if control.name != MATCHED}
    controls = {name: of(ids) for name, ids in named.items() if values.has(ids, view, column)}
    plain = of(place.ids(place.plain.ids))
    if isinstance(matched, Matched) and values.has(matched.ids, view, column):
        controls[MATCHED] = matched.arm(lambda name: of([name])[0], plain)
    beside = None if place.null is None else place.ids(place.null)
    null = of(beside) if beside is not None and values.has(beside, view, column) else None
    return Arms(of(place.ids(place.distilled.ids)), plain, null, controls)


def _area_rows(place: Place, found: Estimates) -> list[Compared]:
    rows = []
    for estimates in (found.silhouette, found.knn_accuracy):
        measure, view = estimates.endpoint.name, estimates.endpoint.view
        row = partial(Compared, place, "plain", measure, view)
        areas = {"early_abc": estimates.early_abc, "shape_abc": estimates.shape_abc}
        if measure != "silhouette":  # whose area over all layers is a claim of its own
            areas["abc"] = estimates.abc
        rows += [row(quantity, area) for quantity, area in areas.items() if area is not None]
        reached = estimates.advance
        if reached is not None and reached.estimate is not None:
            per_seed = tuple(value for value in reached.per_seed if value is not None)
            bare = Contrast(reached.estimate, per_seed, np.nan, np.nan, None, None, None, None)
            rows.append(row("advance", bare, never=reached.never))
        for control in estimates.controls:
            left = Contrast(control.estimate, control.per_seed, control.low, control.high, None, None, None, None)
            rows.append(Compared(place, _against(control.name, control.kind), measure, view, "early_abc", left))
    return rows


def _against(control: str, kind: str) -> str:
    """``label-smoothing`` where distilled is held against it; ``own-budget-teacher - plain`` where plain is."""
    return control if kind == "instead" else f"{control} - plain"


def _singles(
    place: Place, values: Values, controls: Sequence[Named], matched: Matched | str, cell: Cell, tell: Any
) -> dict[str, tuple[Compared, list[Compared]]]:
    """Contrasts that a claim is judged by alone: area over all layers, accuracy, accuracy beside the teacher."""
    found: dict[str, tuple[Compared, list[Compared]]] = {}
    if cell.silhouette is not None and len(cell.depth) > 1:
        arms, area = cell.silhouette, partial(abc, cell.depth)
        null = None if arms.second_seed is None else (arms.second_seed, arms.plain)
        row = partial(Compared, place, measure="silhouette", view="projection", quantity="abc")
        main = row("plain", found=tell(arms.distilled, arms.plain, statistic=area, null=null))
        others = [
            row(
                _against(name, cell.kinds[name]),
                found=_untested(tell(*_pair(cell.kinds[name], arms, mine), statistic=area)),
            )
            for name, mine in arms.controls.items()
        ]
        found["compact"] = (main, others)
    right = {name: values.correct(place.ids(group.ids)) for name, group in _both(place)}
    arms = Arms(right["distilled"], right["plain"])
    null = None if place.null is None else (values.correct(place.ids(place.null)), right["plain"])
    row = partial(Compared, place, measure="accuracy", view=None, quantity="difference")
    main = row("plain", found=tell(arms.distilled, arms.plain, null=null, balanced=False))
    held = [control for control in controls if control.why_not is None and control.name != MATCHED]
    others = [
        row(
            _against(c.name, c.kind),
            found=_untested(tell(*_pair(c.kind, arms, values.correct(place.ids(c.ids))), balanced=False)),
        )
        for c in held
    ]
    found["accurate"] = (main, others)
    teachers = _teachers(place, values)
    if teachers:
        beside = row("teacher", found=tell(arms.distilled, values.correct(teachers), balanced=False))
        found[BEATS_TEACHER] = (beside, [])
    return found


def _untested(found: Contrast) -> Contrast:
    """Against a control the interval decides; a p value would only swell the family that is corrected over."""
    return replace(found, p=None)


def _both(place: Place) -> Iterator[tuple[str, Any]]:
    yield "distilled", place.distilled
    yield "plain", place.plain


def _pair(kind: str, arms: Arms, control: Array) -> tuple[Array, Array]:
    return (arms.distilled, control) if kind == "instead" else (control, arms.plain)


def _teachers(place: Place, values: Values) -> list[str]:
    """The network that each distilled student learned from, where all of them answer."""
    networks = dict(values.frames["networks"].select("network_id", "teacher_id").iter_rows())
    names = [networks[name] for name in place.ids(place.distilled.ids)]
    answered = set(values.frames["predictions"]["network_id"].unique())
    return names if all(name in answered for name in names) else []


def _settled(place: Place, values: Values, tell: Any) -> Contrast:
    """How much earlier an image is settled than in plain, in relative depth."""
    one, two = (values.prediction_depth(place.ids(group.ids)) for _, group in _both(place))
    null = None if place.null is None else (two, values.prediction_depth(place.ids(place.null)))
    return tell(two, one, null=null, balanced=False)


# ----------------------------------------------------------------------------------------- correction


def correct(cells: Sequence[Judged]) -> None:
    """Holm over the two endpoints of the primary cell; Benjamini-Hochberg over every other p value of the study."""
    rest: list[Compared] = []
    for cell in cells:
        primary = correct_primary(cell.estimates) if cell.place.primary else {}
        for row in cell.rows:
            if row.found.p is None:
                continue
            if row.quantity == "early_abc" and row.against == "plain" and cell.place.primary:
                row.corrected, row.correction = primary[row.measure], "holm"  # type: ignore[index]
            else:
                rest.append(row)
    if rest:
        for row, p in zip(rest, benjamini_hochberg([row.found.p or 0.0 for row in rest]), strict=True):
            row.corrected, row.correction = float(p), "benjamini-hochberg"


# ------------------------------------------------------------------------------------ specifications


def specification_rows(
    place: Place, values: Values, draws: Draws, ks: Mapping[str, int | None]
) -> Iterator[dict[str, Any]]:
    """The early area in every way it could have been measured, against plain and against every control."""
    resamples = draws.of(values.labels, len(place.seeds))
    held = [control for control in place.controls if control.why_not is None]
    for measure, column, standardised, k in VARIANTS:
        endpoint = ENDPOINTS[measure]
        for view in VIEWS:
            arms = _arms_of(place, values, view, column, held, "not here")
            if arms is None:
                continue
            depth = values.depth(place.ids(place.plain.ids)[0], view)
            if len(depth) < 3:
                continue
            tell = partial(
                contrast, resamples=resamples, statistic=partial(early_abc, depth), balanced=endpoint.balanced
            )
            null = None if arms.second_seed is None else (arms.second_seed, arms.plain)
            pairs = {"plain": ((arms.distilled, arms.plain), null)}
            for control in (control for control in held if control.name in arms.controls):
                against = _against(control.name, control.kind)
                pairs[against] = (_pair(control.kind, arms, arms.controls[control.name]), None)
            for against, (pair, beside) in pairs.items():
                found = tell(*pair, null=beside)
                yield {
                    **cell_columns(place),
                    "against": against,
                    "measure": measure,
                    "view": view,
                    "standardised": standardised,
                    "k": None if k is None else ks[k],
                    "fixed_in_advance": view == endpoint.view and column == COLUMNS[measure],
                    "seeds": len(place.seeds),
                    "estimate": found.estimate,
                    "low": found.low,
                    "high": found.high,
                    "p": found.p,
                    "null_ratio": found.null_ratio,
                }


def cell_columns(place: Place) -> dict[str, Any]:
    return {
        "student": place.student,
        "method_label": place.method_label,
        "label_fraction": place.label_fraction,
        "primary": place.primary,
    }


def comparison_row(row: Compared) -> dict[str, Any]:
    found = row.found
    bounds = {"low": found.low, "high": found.high}
    return {
        **cell_columns(row.place),
        "against": row.against,
        "measure": row.measure,
        "view": row.view or "",
        "quantity": row.quantity,
        "seeds": len(row.place.seeds),
        "estimate": found.estimate,
        **{name: None if np.isnan(bound) else bound for name, bound in bounds.items()},
        "p": found.p,
        "p_corrected": row.corrected,
        "correction": row.correction,
        "d_z": found.d_z,
        "null_estimate": found.null_estimate,
        "null_ratio": found.null_ratio,
        "never_reached": row.never,
        "per_seed": list(found.per_seed),
    }
