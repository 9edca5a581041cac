"""The area before the last layer, in every way in which it could have been measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from kdpipe.evidence import contrast, early_abc
from kdpipe.evidence.tables.comparisons import Comparison
from kdpipe.evidence.tables.contrasts import Draws, against_columns, arms_of, cell_columns, pair_of
from kdpipe.evidence.tables.groups import NamedControl
from kdpipe.evidence.tables.values import Values
from kdpipe.vocabulary import CONTROL, ENDPOINTS, PLAIN, VIEWS, EndpointName

# Ways to measure the same thing: column, what was done to the layer, neighbours (of the study, or a second k).
VARIANTS: tuple[tuple[EndpointName, str, bool, str | None], ...] = (
    ("silhouette", "silhouette", False, None),
    ("silhouette", "silhouette_standardised", True, None),
    ("knn_accuracy", "knn_correct", False, "k"),
    ("knn_accuracy", "knn_correct_second", False, "second_k"),
    ("knn_accuracy", "knn_correct_standardised", True, "k"),
)


def specification_rows(
    comparison: Comparison, values: Values, draws: Draws, ks: Mapping[str, int | None]
) -> Iterator[dict[str, Any]]:
    """The early area in every way it could have been measured, against plain and against every control."""
    resamples = draws.of(values.labels, len(comparison.seeds))
    held = [control for control in comparison.controls if control.why_not is None]
    for measure, column, standardised, k in VARIANTS:
        endpoint = ENDPOINTS[measure]
        for view in VIEWS:
            arms = arms_of(comparison, values, view, column, held, "not here")
            if arms is None:
                continue
            depth = values.depth(comparison.ids(comparison.plain.ids)[0], view)
            if len(depth) < 3:
                continue
            tell = partial(
                contrast, resamples=resamples, statistic=partial(early_abc, depth), balanced=endpoint.balanced
            )
            null = None if arms.second_seed is None else (arms.second_seed, arms.plain)
            asked: list[NamedControl | None] = [None, *(one for one in held if one.name in arms.controls)]
            for control in asked:
                if control is None:
                    found = tell(arms.distilled, arms.plain, null=null)
                else:
                    found = tell(*pair_of(control.kind, arms, arms.controls[control.name]))
                yield {
                    **cell_columns(comparison),
                    **against_columns(PLAIN if control is None else CONTROL, control),
                    "measure": measure,
                    "view": view,
                    "standardised": standardised,
                    "k": None if k is None else ks[k],
                    "fixed_in_advance": view == endpoint.view and column == endpoint.column,
                    "seeds": len(comparison.seeds),
                    "estimate": found.estimate,
                    "low": found.low,
                    "high": found.high,
                    "p": found.p,
                    "null_ratio": found.null_ratio,
                }
