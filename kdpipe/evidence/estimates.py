"""Every number that a verdict rests on: contrasts of arms, with intervals, tests, sizes and their null."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from kdpipe.evidence.bootstrap import Resamples, Statistic, difference, image_weights
from kdpipe.evidence.cell import Arms, Cell, Rules
from kdpipe.evidence.statistics import hedges_dz, null_ratio, sign_flip
from kdpipe.relative_depth import Array, abc, advance, early_abc, rescaled, shape_abc, why_not_computable
from kdpipe.vocabulary import ENDPOINTS, Endpoint, EndpointName, Kind


@dataclass(frozen=True)
class Contrast:
    """A statistic of two arms, such as an area, in its own unit.

    Attributes:
        estimate: mean over seeds.
        per_seed: (S,) the statistic of each pair.
        low, high: pigeonhole bootstrap interval over seeds and images.
        p: exact sign-flip over seeds, not corrected; None with too few seeds or where no test is to be made.
        d_z: Hedges-corrected effect size of the pairs; None with fewer than three.
        null_estimate: the statistic of second seed against plain; None without a second seed.
        null_ratio: estimate over the spread of the null (:func:`kdpipe.evidence.statistics.null_ratio`).
    """

    estimate: float
    per_seed: tuple[float, ...]
    low: float
    high: float
    p: float | None
    d_z: float | None
    null_estimate: float | None
    null_ratio: float | None


@dataclass(frozen=True)
class ControlContrast:
    """What is left of the early area when a control is held against it.

    Attributes:
        estimate, per_seed, low, high: of the early area of distilled - control (``instead``) or of
            control - plain (``without``), as in :class:`Contrast`.
        survived: whether the interval is above 0; if not, the control explains the gain.
    """

    name: str
    kind: Kind
    estimate: float
    per_seed: tuple[float, ...]
    low: float
    high: float
    survived: bool


@dataclass(frozen=True)
class Advance:
    """How much earlier the distilled student is at the plain one's final value, in the unit of depth.

    Attributes:
        estimate: mean over the seeds that reach it; None if none does.
        per_seed: (S,) None where it is never reached.
        never: number of seeds that never reach it.
    """

    estimate: float | None
    per_seed: tuple[float | None, ...]
    never: int


@dataclass(frozen=True)
class EndpointEstimates:
    """What one endpoint says about a cell.

    Attributes:
        not_computable: a clause that says why "earlier" cannot be judged, or None. Areas are then still
            estimated, as they need no rising curves, but nothing has a p value, and ``shape_abc`` is None.
        abc: area over all layers; None with one layer, or where curves are missing (so are all below).
        early_abc: the same without the last layer: the claim; None with fewer than three layers.
        shape_abc: area of the curves on their own 0-1 scales.
    """

    endpoint: Endpoint
    seeds: int
    epsilon: float
    not_computable: str | None
    abc: Contrast | None = None
    early_abc: Contrast | None = None
    shape_abc: Contrast | None = None
    advance: Advance | None = None
    controls: tuple[ControlContrast, ...] = ()

    @property
    def p(self) -> float | None:
        """Of the early area, not corrected."""
        return None if self.early_abc is None else self.early_abc.p


@dataclass(frozen=True)
class Estimates:
    """What both endpoints say about a cell, before any p value is corrected."""

    silhouette: EndpointEstimates
    knn_accuracy: EndpointEstimates
    rules: Rules

    @property
    def p_values(self) -> Mapping[EndpointName, float | None]:
        """Uncorrected p of each endpoint's early area."""
        return {"silhouette": self.silhouette.p, "knn_accuracy": self.knn_accuracy.p}


def estimate(cell: Cell, resamples: Resamples | None = None) -> Estimates:
    """All contrasts of a cell.

    Args:
        resamples: draws to share between cells with the same images and number of seeds; drawn here if None.

    Raises:
        ValueError: draws for other images or another number of seeds.
    """
    drawn = resamples or Resamples.draw(cell.labels, max(cell.seeds, 1))
    if not np.array_equal(drawn.labels, cell.labels):
        raise ValueError("These resamples were drawn for other labels.")
    of = {name: _of_endpoint(cell, endpoint, drawn) for name, endpoint in ENDPOINTS.items()}
    return Estimates(of["silhouette"], of["knn_accuracy"], cell.rules)


def contrast(
    first: ArrayLike,
    second: ArrayLike,
    resamples: Resamples,
    statistic: Statistic = difference,
    null: tuple[ArrayLike, ArrayLike] | None = None,
    balanced: bool = True,
    rules: Rules | None = None,
) -> Contrast:
    """One contrast of per-image values (S, L, N), or (S, N) such as prediction depths, paired by seed and image.

    Args:
        null: second seed and plain.
        statistic, balanced: as in :func:`kdpipe.evidence.bootstrap.pigeonhole_bootstrap`.

    Raises:
        ValueError: as there.
    """
    arms = {"first": first, "second": second, **({} if null is None else {"null": null[0], "plain": null[1]})}
    curves = {name: _Curves.of(values, resamples, balanced) for name, values in arms.items()}
    pair = (curves["null"], curves["plain"]) if null is not None else None
    return _contrast(curves["first"], curves["second"], statistic, resamples, rules or Rules(), pair)


@dataclass(frozen=True)
class _Curves:
    """An arm's curves: measured (S, ...), and over each draw of images (R, S, ...)."""

    measured: Array
    drawn: Array

    @classmethod
    def of(cls, values: ArrayLike, resamples: Resamples, balanced: bool) -> _Curves:
        drawn = resamples.means(values, balanced)
        return cls(np.asarray(values, np.float64) @ image_weights(resamples.labels, balanced), drawn)


def _of_endpoint(cell: Cell, endpoint: Endpoint, resamples: Resamples) -> EndpointEstimates:
    arms, rules, epsilon = cell.arms(endpoint.name), cell.rules, cell.epsilon[endpoint.name]
    blank = partial(EndpointEstimates, endpoint, cell.seeds, epsilon)
    if arms is None or arms.missing:
        return blank(_what_is_missing(arms))
    curves = {name: _Curves.of(values, resamples, endpoint.balanced) for name, values in arms.named().items()}
    if len(cell.depth) < 2:
        return blank("one layer is no curve")
    refused = _why_refused(curves["distilled"].measured, curves["plain"].measured, epsilon, rules)
    pair = curves["distilled"], curves["plain"]
    null = (curves["second_seed"], curves["plain"]) if "second_seed" in curves else None

    def of(statistic: Statistic) -> Contrast:
        return _contrast(*pair, statistic, resamples, rules, null, tested=refused is None)

    early = partial(early_abc, cell.depth) if len(cell.depth) > 2 else None
    return blank(
        refused,
        abc=of(partial(abc, cell.depth)),
        early_abc=of(early) if early else None,
        shape_abc=of(partial(shape_abc, cell.depth)) if refused is None else None,
        advance=_advance(cell.depth, *pair),
        controls=_controls(curves, cell.kinds, early, resamples, rules) if early else (),
    )


def _what_is_missing(arms: Arms | None) -> str:
    if arms is None:
        return "the endpoint was not measured"
    of = [name for name in ("distilled", "plain") if not np.isfinite(arms.named()[name]).all()]
    return f"the {' and the '.join(of)} curve has missing values"


def _why_refused(distilled: Array, plain: Array, epsilon: float, rules: Rules) -> str | None:
    """Why curves (S, L) cannot tell earlier from later, judged on their means over seeds.

    One seed's curve may dip by its noise; but each must have a range, or it has no 0-1 scale.
    """
    if distilled.shape[1] < 3:
        return "two layers leave no area before the last"
    for name, curves in (("distilled", distilled), ("plain", plain)):
        reason = why_not_computable(curves.mean(axis=0), epsilon, rules.fall_tolerance)
        if reason:
            return f"the {name} curve {reason}"
        flat = int(np.isnan(rescaled(curves)).any(axis=1).sum())
        if flat:
            return f"the {name} curve is flat at {flat} of {len(curves)} seeds"
    return None


def _contrast(
    first: _Curves,
    second: _Curves,
    statistic: Statistic,
    resamples: Resamples,
    rules: Rules,
    null: tuple[_Curves, _Curves] | None,
    tested: bool = True,
) -> Contrast:
    per_seed = statistic(first.measured, second.measured)
    low, high = resamples.interval(statistic(first.drawn, second.drawn), rules.level)
    of_null = _null(statistic, null)
    return Contrast(
        estimate=float(per_seed.mean()),
        per_seed=tuple(map(float, per_seed)),
        low=low,
        high=high,
        p=sign_flip(per_seed) if tested and len(per_seed) >= rules.least_seeds else None,
        d_z=hedges_dz(per_seed) if len(per_seed) > 2 else None,
        null_estimate=None if of_null is None else float(of_null.mean()),
        null_ratio=None if of_null is None else null_ratio(per_seed, of_null),
    )


def _null(statistic: Statistic, null: tuple[_Curves, _Curves] | None) -> Array | None:
    """The statistic (S,) of the null contrast, or None where there is none or it is undefined (a flat curve)."""
    values = None if null is None else statistic(null[0].measured, null[1].measured)
    return values if values is not None and np.isfinite(values).all() else None


def _controls(
    curves: Mapping[str, _Curves],
    kinds: Mapping[str, Kind],
    early: Statistic,
    resamples: Resamples,
    rules: Rules,
) -> tuple[ControlContrast, ...]:
    records = []
    for name, kind in kinds.items():
        pair = {"instead": ("distilled", name), "without": (name, "plain")}[kind]
        first, second = (curves[arm] for arm in pair)
        found = _contrast(first, second, early, resamples, rules, None, tested=False)
        left = found.estimate, found.per_seed, found.low, found.high
        records.append(ControlContrast(name, kind, *left, survived=found.low > 0))
    return tuple(records)


def _advance(depth: Array, distilled: _Curves, plain: _Curves) -> Advance:
    per_seed = advance(depth, distilled.measured, plain.measured)
    reached = per_seed[~np.isnan(per_seed)]
    return Advance(
        estimate=float(reached.mean()) if len(reached) else None,
        per_seed=tuple(None if np.isnan(value) else float(value) for value in per_seed),
        never=len(per_seed) - len(reached),
    )
