"""From a study's tables to its verdicts: comparisons, the specification curve, and every claim for every cell.

Everything is computed from stored per-image values, so a study is judged again in seconds and without a network.
What a verdict is, and by which rules, stands in :mod:`kdpipe.evidence`; here it meets the study.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from kdpipe.cells import MATCHED, Array, Frames, Matched, Named, Place, Values, matched_accuracy, places
from kdpipe.claims import BEATS_TEACHER, CLAIMS, Claim
from kdpipe.errors import ArtifactError
from kdpipe.evidence import (
    ENDPOINTS,
    Arms,
    Cell,
    Contrast,
    Estimates,
    Judgement,
    Resamples,
    Rules,
    abc,
    benjamini_hochberg,
    contrast,
    correct_primary,
    decide,
    early_abc,
    estimate,
)
from kdpipe.schema import TABLES
from kdpipe.store import Study, open_study, write_study

COLUMNS = {"silhouette": "silhouette", "knn_accuracy": "knn_correct"}
# Ways to measure the same thing: column, what was done to the layer, neighbours (of the study, or a second k).
VARIANTS = (
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
class _Compared:
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
class _Judged:
    """All that is known of one cell."""

    place: Place
    estimates: Estimates
    rows: list[_Compared]
    controls: list[Named]
    # Contrasts that claims are judged by alone, with those against controls.
    single: dict[str, tuple[_Compared, list[_Compared]]] = field(default_factory=dict)


def judge_study(frames: Frames, record: Mapping[str, Any]) -> dict[str, pl.DataFrame]:
    """The tables of evidence of a study: comparisons, specification, claims and verdicts.

    Args:
        frames: networks, layers, samples, sample_measures, predictions and methods, as in the schema.
        record: what study.json says of the study, with its sections ``evidence`` and ``measures``, and its headline.
    """
    study = record["study"]
    limits, measures = _limits(study["evidence"]), study["measures"]
    values, draws = Values(frames), _Draws(limits)
    cells = places(frames, study["evidence"]["primary"] or record["headline"])
    judged = [_judge_cell(place, values, frames, limits, draws) for place in cells]
    _correct(judged)
    verdicts = [row for cell in judged for row in _cell_verdicts(cell, limits)]
    ks = {"k": measures["k"], "second_k": measures["second_k"]}
    rows: dict[str, list[dict[str, Any]]] = {
        "comparisons": [_comparison(row) for cell in judged for row in cell.rows],
        "specification": [
            row for place in cells if not place.fair_teacher for row in _specification(place, values, draws, ks)
        ],
        "claims": [_claim(claim) for claim in CLAIMS],
        "verdicts": verdicts + _across(verdicts),
    }
    return {name: _typed(name, found) for name, found in rows.items()}


def judge_again(folder: Path) -> Study:
    """Judge a stored study anew, by the rules as they are now, and replace its tables of evidence.

    Raises:
        ArtifactError: artifacts that cannot be read, or that were written before evidence was asked for.
    """
    study = open_study(folder)
    if "evidence" not in study.record["study"]:
        raise ArtifactError(f"{folder.name} says nothing of how it is to be judged: run its study file again.")
    frames = {name: study.frame(name) for name in TABLES}
    record = {name: value for name, value in study.record.items() if name not in ("files", "sha256", "schema_version")}
    write_study(folder, record, frames | judge_study(frames, record), study.timings)
    return open_study(folder)


def _limits(evidence: Mapping[str, Any]) -> Limits:
    return Limits(**evidence["epsilon"], resamples=evidence["resamples"], seed=evidence["seed"])


def _typed(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    schema = TABLES[name].schema
    return pl.DataFrame([{column: row.get(column) for column in schema} for row in rows], schema=schema)


class _Draws:
    """Resamples of seeds and images, drawn once for each number of seeds."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._drawn: dict[int, Resamples] = {}

    def of(self, labels: Array, seeds: int) -> Resamples:
        if seeds not in self._drawn:
            self._drawn[seeds] = Resamples.draw(labels, seeds, self.limits.resamples, self.limits.seed)
        return self._drawn[seeds]


# ------------------------------------------------------------------------------------------- a cell


def _judge_cell(place: Place, values: Values, frames: Frames, limits: Limits, draws: _Draws) -> _Judged:
    resamples = draws.of(values.labels, len(place.seeds))
    matched = matched_accuracy(frames, place)
    controls = list(place.controls)
    if isinstance(matched, str):
        controls.append(Named(MATCHED, "without", why_not=matched))
    else:
        controls.append(Named(MATCHED, "without" if matched.arm == "distilled" else "instead"))
    cell = _cell(place, values, limits, controls, matched)
    found = estimate(cell, resamples)
    judged = _Judged(place, found, _area_rows(place, found), controls)
    tell = partial(contrast, resamples=resamples, rules=cell.rules)
    for name, single in _singles(place, values, controls, matched, cell, tell).items():
        judged.single[name] = single
        judged.rows += [single[0], *single[1]]
    settled = _settled(place, values, tell)
    judged.rows.append(_Compared(place, "plain", "prediction_depth", None, "difference", settled))
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


def _arms(place: Place, values: Values, endpoint: str, held: Sequence[Named], matched: Matched | str) -> Arms | None:
    """Per-image values of every arm at one endpoint; None where it was not measured."""
    view, column = ENDPOINTS[endpoint].view, COLUMNS[endpoint]  # type: ignore[index]
    return _arms_of(place, values, view, column, held, matched)


def _arms_of(
    place: Place, values: Values, view: str, column: str, held: Sequence[Named], matched: Matched | str
) -> Arms | None:
    wanted = [*place.ids(place.plain.ids), *place.ids(place.distilled.ids)]
    if not values.has(wanted, view, column):
        return None
    of = partial(values.of_layers, view=view, column=column)
    controls = {control.name: of(place.ids(control.ids)) for control in held if control.name != MATCHED}
    if isinstance(matched, Matched) and MATCHED in {control.name for control in held}:
        controls[MATCHED] = matched.mixed({name: of([name])[0] for name in matched.ids})
    null = None if place.null is None else of(place.ids(place.null))
    return Arms(of(place.ids(place.distilled.ids)), of(place.ids(place.plain.ids)), null, controls)


def _area_rows(place: Place, found: Estimates) -> list[_Compared]:
    rows = []
    for estimates in (found.silhouette, found.knn_accuracy):
        measure, view = estimates.endpoint.name, estimates.endpoint.view
        row = partial(_Compared, place, "plain", measure, view)
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
            rows.append(_Compared(place, _against(control.name, control.kind), measure, view, "early_abc", left))
    return rows


def _against(control: str, kind: str) -> str:
    """``label-smoothing`` where distilled is held against it; ``own-budget-teacher - plain`` where plain is."""
    return control if kind == "instead" else f"{control} - plain"


def _singles(
    place: Place, values: Values, controls: Sequence[Named], matched: Matched | str, cell: Cell, tell: Any
) -> dict[str, tuple[_Compared, list[_Compared]]]:
    """Contrasts that a claim is judged by alone: area over all layers, accuracy, accuracy beside the teacher."""
    found: dict[str, tuple[_Compared, list[_Compared]]] = {}
    if cell.silhouette is not None and len(cell.depth) > 1:
        arms, area = cell.silhouette, partial(abc, cell.depth)
        null = None if arms.second_seed is None else (arms.second_seed, arms.plain)
        row = partial(_Compared, place, measure="silhouette", view="projection", quantity="abc")
        main = row("plain", found=tell(arms.distilled, arms.plain, statistic=area, null=null))
        others = [
            row(_against(name, cell.kinds[name]), found=tell(*_pair(cell.kinds[name], arms, mine), statistic=area))
            for name, mine in arms.controls.items()
        ]
        found["compact"] = (main, others)
    right = {name: values.correct(place.ids(group.ids)) for name, group in _both(place)}
    arms = Arms(right["distilled"], right["plain"])
    null = None if place.null is None else (values.correct(place.ids(place.null)), right["plain"])
    row = partial(_Compared, place, measure="accuracy", view=None, quantity="difference")
    main = row("plain", found=tell(arms.distilled, arms.plain, null=null, balanced=False))
    held = [control for control in controls if control.why_not is None and control.name != MATCHED]
    others = [
        row(
            _against(c.name, c.kind),
            found=tell(*_pair(c.kind, arms, values.correct(place.ids(c.ids))), balanced=False),
        )
        for c in held
    ]
    found["accurate"] = (main, others)
    teachers = _teachers(place, values)
    if teachers:
        beside = row("teacher", found=tell(arms.distilled, values.correct(teachers), balanced=False))
        found[BEATS_TEACHER] = (beside, [])
    return found


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


def _correct(cells: Sequence[_Judged]) -> None:
    """Holm over the two endpoints of the primary cell; Benjamini-Hochberg over every other p value of the study."""
    rest: list[_Compared] = []
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


# ------------------------------------------------------------------------------------------ verdicts


def _cell_verdicts(cell: _Judged, limits: Limits) -> Iterator[dict[str, Any]]:
    for claim in CLAIMS:
        if cell.place.fair_teacher and claim.name != BEATS_TEACHER:
            continue
        if claim.judged == "areas":
            yield _of_areas(claim, cell)
        elif claim.name in cell.single:
            yield _of_contrast(claim, cell, limits)


def _of_areas(claim: Claim, cell: _Judged) -> dict[str, Any]:
    early = [row for row in cell.rows if row.quantity == "early_abc" and row.against == "plain"]
    corrected = {name: next((r.corrected for r in early if r.measure == name), None) for name in ENDPOINTS}
    judgement = decide(cell.estimates, corrected, "holm" if cell.place.primary else "benjamini-hochberg")
    leading = cell.estimates.silhouette
    passed = [control.name for control in leading.controls if control.survived]
    failed = [control.name for control in leading.controls if not control.survived]
    main = next((row for row in early if row.measure == "silhouette"), None)
    return _verdict(claim, cell, judgement.verdict, judgement.title, main, passed, failed, judgement)


def _of_contrast(claim: Claim, cell: _Judged, limits: Limits) -> dict[str, Any]:
    """A claim that one contrast decides, by the same rules in the same order."""
    main, others = cell.single[claim.name]
    epsilon = limits.silhouette if main.measure == "silhouette" else limits.accuracy
    names = {row.against: row.against.removesuffix(" - plain") for row in others}
    passed = [names[row.against] for row in others if row.found.low > 0]
    failed = [names[row.against] for row in others if not row.found.low > 0]
    verdict = single_verdict(main.found, main.corrected, epsilon, bool(failed), len(cell.place.seeds))
    title = {
        "explained": f"explained by {' and '.join(failed)}",
        "no difference": f"no difference larger than {epsilon:.3g}",
    }.get(verdict, verdict)
    return _verdict(claim, cell, verdict, title, main, passed, failed, None)


def single_verdict(found: Contrast, p_corrected: float | None, epsilon: float, explained: bool, seeds: int) -> str:
    """The verdict on one contrast, tried in the order of :func:`kdpipe.evidence.finding`."""
    rules = Rules()
    if seeds < rules.least_seeds:
        return "estimate only"
    if max(-found.low, found.high) <= epsilon:
        return "no difference"
    if found.high < 0:
        return "reversed"
    if found.low > 0 and p_corrected is not None and p_corrected < rules.alpha:
        return "explained" if explained else "supported"
    return "inconclusive"


UNITS = {"silhouette": "silhouette", "accuracy": "points of accuracy"}
EFFECTS = {
    "compact": "{name} makes the layers of {student} more compact by {size}, as an area over depth",
    "accurate": "{name} gains {student} {size}",
    "earlier": "before its last layer {name} makes {student} more compact by {size}, as an area over depth",
    BEATS_TEACHER: "taught by {name}, {student} is {size} ahead of its teacher",
}


def _verdict(
    claim: Claim,
    cell: _Judged,
    verdict: str,
    title: str,
    main: _Compared | None,
    passed: Sequence[str],
    failed: Sequence[str],
    judgement: Judgement | None,
) -> dict[str, Any]:
    place = cell.place
    missing = {control.name: control.why_not for control in cell.controls if control.why_not is not None}
    if claim.name == BEATS_TEACHER:
        missing = {}
    found = None if main is None else main.found
    return {
        "claim": claim.name,
        "student": place.student,
        "method_label": place.method,
        "label_fraction": place.label_fraction,
        "primary": place.primary and claim.name == "earlier",
        "verdict": verdict,
        "title": title,
        "sentence": _sentence(claim, cell, title, main, passed, failed),
        "because": None if judgement is None else judgement.because,
        "takes": _takes(verdict, place, judgement),
        "seeds": len(place.seeds),
        "estimate": None if found is None else found.estimate,
        "low": None if found is None else found.low,
        "high": None if found is None else found.high,
        "p": None if found is None else found.p,
        "p_corrected": None if main is None else main.corrected,
        "correction": None if main is None else main.correction,
        "d_z": None if found is None else found.d_z,
        "null_ratio": None if found is None else found.null_ratio,
        "controls_passed": list(passed),
        "controls_failed": list(failed),
        "controls_missing": [f"{name}: {why}" for name, why in missing.items()],
        "rests_on": _rests_on(judgement),
    }


def _sentence(
    claim: Claim, cell: _Judged, title: str, main: _Compared | None, passed: Sequence[str], failed: Sequence[str]
) -> str:
    place = cell.place
    budget = "all labels" if place.label_fraction > 0.9999 else f"{100 * place.label_fraction:.3g} % of the labels"
    if main is None:
        return f"With {budget}, {place.method} on {place.student}: {title}."
    found, factor = main.found, 100 if main.measure == "accuracy" else 1
    form = "{:+.1f}" if factor == 100 else "{:+.4f}"
    low, high = (form.format(factor * value) for value in (found.low, found.high))
    size = f"{form.format(factor * found.estimate)} {UNITS[main.measure]} ({low} to {high})"
    effect = EFFECTS[claim.name].format(name=place.method, student=place.student, size=size)
    tested = "" if main.corrected is None else f", p = {main.corrected:.3g} ({main.correction})"
    held = "" if not passed else f"; it outlasts {_listed(passed)}"
    lost = "" if not failed else f"; it does not outlast {_listed(failed)}"
    seeds = f"{len(place.seeds)} seed{'s' * (len(place.seeds) != 1)}"
    return f"With {budget}, {effect}, {seeds}{tested}{held}{lost}: {title}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _takes(verdict: str, place: Place, judgement: Judgement | None) -> str | None:
    """What a decision would take, where there is none."""
    if verdict == "estimate only":
        least = Rules().least_seeds
        return f"{least - len(place.seeds)} more seeds: {least} in all"
    if verdict == "inconclusive":
        return "more seeds or more probe images: see the power table in docs/BENCHMARKS.md"
    if verdict == "not computable" and judgement is not None:
        return f"another architecture or more layers: {judgement.because}"
    return None


def _rests_on(judgement: Judgement | None) -> str:
    """Every number of a verdict by areas, as JSON; NaN and infinity as text."""
    if judgement is None:
        return "{}"
    described = {"findings": dict(judgement.findings), "p_corrected": dict(judgement.p_corrected)}
    for estimates in (judgement.estimates.silhouette, judgement.estimates.knn_accuracy):
        described[estimates.endpoint.name] = asdict(estimates)
    return json.dumps(_plain(described), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else str(float(value))
    return value


def _across(verdicts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Claims about claims: whether being compact earlier holds for all architectures, or all methods."""
    early = [row for row in verdicts if row["claim"] == "earlier"]
    rows = []
    for claim in (claim for claim in CLAIMS if claim.judged == "across"):
        assert claim.over is not None
        fixed = "method_label" if claim.over == "student" else "student"
        groups: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
        for row in early:
            groups.setdefault((row[fixed], row["label_fraction"]), []).append(row)
        for (kept, fraction), members in groups.items():
            rows.append(_across_one(claim, fixed, str(kept), fraction, members))
    return rows


def _across_one(
    claim: Claim, fixed: str, kept: str, fraction: float, members: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    assert claim.over is not None
    counts: dict[str, int] = {}
    for row in members:
        counts[row["verdict"]] = counts.get(row["verdict"], 0) + 1
    verdict = _common(counts, len(members))
    listed = "; ".join(f"{row[claim.over]}: {row['title']}" for row in members)
    place = {"student": "", "method_label": "", fixed: kept}
    return {
        "claim": claim.name,
        **place,
        "label_fraction": fraction,
        "primary": False,
        "verdict": verdict,
        "title": verdict,
        "sentence": f"{kept}, {100 * fraction:.3g} % of the labels: {listed}.",
        "takes": "a second one in the study" if len(members) < 2 else None,
        "seeds": min(row["seeds"] for row in members),
        "controls_passed": [],
        "controls_failed": [],
        "controls_missing": [],
        "rests_on": json.dumps({row[claim.over]: row["verdict"] for row in members}, sort_keys=True),
    }


def _common(counts: Mapping[str, int], members: int) -> str:
    """One verdict for several: supported if all are; estimates and gaps keep it open; else it is not."""
    if members < 2:
        return "not computable"
    if counts.get("supported", 0) == members:
        return "supported"
    if counts.get("estimate only", 0) == members:
        return "estimate only"
    undecided = sum(counts.get(name, 0) for name in ("estimate only", "inconclusive", "not computable"))
    return "inconclusive" if undecided + counts.get("supported", 0) == members else "not supported by all"


# ------------------------------------------------------------------------------------ specifications


def _specification(
    place: Place, values: Values, draws: _Draws, ks: Mapping[str, int | None]
) -> Iterator[dict[str, Any]]:
    """The early area in every way it could have been measured, against plain and against every control."""
    resamples = draws.of(values.labels, len(place.seeds))
    held = [control for control in place.controls if control.why_not is None]
    for measure, column, standardised, k in VARIANTS:
        balanced = next(endpoint for name, endpoint in ENDPOINTS.items() if name == measure).balanced
        for view in VIEWS:
            arms = _arms_of(place, values, view, column, held, "not here")
            if arms is None:
                continue
            depth = values.depth(place.ids(place.plain.ids)[0], view)
            if len(depth) < 3:
                continue
            tell = partial(contrast, resamples=resamples, statistic=partial(early_abc, depth), balanced=balanced)
            null = None if arms.second_seed is None else (arms.second_seed, arms.plain)
            pairs = {"plain": ((arms.distilled, arms.plain), null)}
            for control in held:
                against = _against(control.name, control.kind)
                pairs[against] = (_pair(control.kind, arms, arms.controls[control.name]), None)
            for against, (pair, beside) in pairs.items():
                found = tell(*pair, null=beside)
                yield {
                    **_cell_columns(place),
                    "against": against,
                    "measure": measure,
                    "view": view,
                    "standardised": standardised,
                    "k": None if k is None else ks[k],
                    "fixed_in_advance": (view, standardised, k == "second_k")
                    == (ENDPOINTS[measure].view, False, False),  # type: ignore[index]
                    "seeds": len(place.seeds),
                    "estimate": found.estimate,
                    "low": found.low,
                    "high": found.high,
                    "p": found.p,
                    "null_ratio": found.null_ratio,
                }


def _cell_columns(place: Place) -> dict[str, Any]:
    return {
        "student": place.student,
        "method_label": place.method,
        "label_fraction": place.label_fraction,
        "primary": place.primary,
    }


def _comparison(row: _Compared) -> dict[str, Any]:
    found = row.found
    bounds = {"low": found.low, "high": found.high}
    return {
        **_cell_columns(row.place),
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


def _claim(claim: Claim) -> dict[str, Any]:
    return {"claim": claim.name, "title": claim.title, "measured_by": claim.measured_by, "rule": claim.rule}
