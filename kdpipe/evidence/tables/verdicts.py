"""From compared cells to verdicts: every claim for every cell, in numbers, in one word and in a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from kdpipe.evidence import ENDPOINTS, Contrast, Judgement, Rules, decide
from kdpipe.evidence.claims import BEATS_TEACHER, CLAIMS, Claim
from kdpipe.evidence.tables.comparisons import Comparison
from kdpipe.evidence.tables.contrasts import ContrastRow, JudgedComparison, Limits


def cell_verdicts(cell: JudgedComparison, limits: Limits) -> Iterator[dict[str, Any]]:
    for claim in CLAIMS:
        if cell.comparison.fair_teacher and claim.name != BEATS_TEACHER:
            continue
        if claim.judged == "areas":
            yield _of_areas(claim, cell)
        elif claim.name in cell.single:
            yield _of_contrast(claim, cell, limits)


def _of_areas(claim: Claim, cell: JudgedComparison) -> dict[str, Any]:
    early = [row for row in cell.rows if row.quantity == "early_abc" and row.against == "plain"]
    corrected = {name: next((r.corrected for r in early if r.measure == name), None) for name in ENDPOINTS}
    judgement = decide(cell.estimates, corrected, "holm" if cell.comparison.primary else "benjamini-hochberg")
    leading = cell.estimates.silhouette
    passed = [control.name for control in leading.controls if control.survived]
    failed = [control.name for control in leading.controls if not control.survived]
    main = next((row for row in early if row.measure == "silhouette"), None)
    return _verdict(claim, cell, judgement.verdict, judgement.title, main, passed, failed, judgement)


def _of_contrast(claim: Claim, cell: JudgedComparison, limits: Limits) -> dict[str, Any]:
    """A claim that one contrast decides, by the same rules in the same order."""
    main, others = cell.single[claim.name]
    epsilon = limits.silhouette if main.measure == "silhouette" else limits.accuracy
    names = {row.against: row.against.removesuffix(" - plain") for row in others}
    passed = [names[row.against] for row in others if row.found.low > 0]
    failed = [names[row.against] for row in others if not row.found.low > 0]
    verdict = single_verdict(main.found, main.corrected, epsilon, bool(failed), len(cell.comparison.seeds))
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
# In words, where the effect is not below 0 and where it is.
EFFECTS = {
    "compact": ("makes the layers of {student} more compact", "makes the layers of {student} less compact"),
    "accurate": ("makes {student} more accurate", "makes {student} less accurate"),
    "earlier": (
        "makes {student} more compact before its last layer", "makes {student} less compact before its last layer",
    ),
    BEATS_TEACHER: ("takes {student} past its teacher", "leaves {student} behind its teacher"),
}  # fmt: skip
POSITIVE = {"supported", "supported for compactness only", "better but not earlier"}


def _verdict(
    claim: Claim,
    cell: JudgedComparison,
    verdict: str,
    title: str,
    main: ContrastRow | None,
    passed: Sequence[str],
    failed: Sequence[str],
    judgement: Judgement | None,
) -> dict[str, Any]:
    comparison = cell.comparison
    missing = {control.name: control.why_not for control in cell.controls if control.why_not is not None}
    if claim.name == BEATS_TEACHER:
        missing = {}
    if missing and verdict in POSITIVE:
        title += f", {len(missing)} control{'s' * (len(missing) > 1)} not asked"
    found = None if main is None else main.found
    return {
        "claim": claim.name,
        "student": comparison.student,
        "method": comparison.distilled.method,
        "method_label": comparison.method_label,
        "label_fraction": comparison.label_fraction,
        "primary": comparison.primary and claim.name == "earlier",
        "verdict": verdict,
        "title": title,
        "sentence": _sentence(claim, cell, title, main, passed, failed),
        "because": None if judgement is None else judgement.because,
        "takes": _takes(verdict, comparison, judgement),
        "seeds": len(comparison.seeds),
        **(_specified(cell) if claim.judged == "areas" else {}),
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


def _specified(cell: JudgedComparison) -> dict[str, int]:
    """In how many of the ways to measure the area before the last layer its interval against plain lies above 0."""
    lows = [row["low"] for row in cell.specifications if row["against"] == "plain"]
    return {"specifications": len(lows), "specifications_above": sum(low > 0 for low in lows)}


def _sentence(
    claim: Claim,
    cell: JudgedComparison,
    title: str,
    main: ContrastRow | None,
    passed: Sequence[str],
    failed: Sequence[str],
) -> str:
    comparison = cell.comparison
    budget = (
        "all labels" if comparison.label_fraction > 0.9999 else f"{100 * comparison.label_fraction:.3g} % of the labels"
    )
    if main is None:
        return f"With {budget}, {comparison.method_label} on {comparison.student}. Verdict: {title}."
    found, factor = main.found, 100 if main.measure == "accuracy" else 1
    form = "{:+.1f}" if factor == 100 else "{:+.4f}"
    low, high = (form.format(factor * value) for value in (found.low, found.high))
    size = f"{form.format(factor * found.estimate)} {UNITS[main.measure]} ({low} to {high})"
    effect = EFFECTS[claim.name][found.estimate < 0].format(student=comparison.student)
    tested = "" if main.corrected is None else f", p = {main.corrected:.3g} ({main.correction})"
    held = f"; it outlasts {_listed(passed)}{_closest(claim, cell, passed, form, factor)}" if passed else ""
    lost = f"; it does not outlast {_listed(failed)}" if failed else ""
    seeds = f"{len(comparison.seeds)} seed{'s' * (len(comparison.seeds) != 1)}"
    ways = _specified(cell) if claim.judged == "areas" else {"specifications": 0}
    above = ""
    if ways["specifications"]:
        above = f"; above 0 in {ways['specifications_above']} of {ways['specifications']} ways to measure it"
    if not found.low > 0:  # there is no gain that anything could explain
        held = lost = above = ""
    said = f"{effect}: {size}, {seeds}{tested}{held}{lost}{above}"
    return f"With {budget}, {comparison.method_label} {said}. Verdict: {title}."


def _closest(claim: Claim, cell: JudgedComparison, passed: Sequence[str], form: str, factor: int) -> str:
    """Against which control the least is left, and how much."""
    rows = cell.single[claim.name][1] if claim.name in cell.single else _early_controls(cell)
    left = {row.against.removesuffix(" - plain"): row.found.estimate for row in rows}
    name = min((name for name in passed if name in left), key=lambda name: left[name], default=None)
    return "" if name is None else f" (the least is left with {name}: {form.format(factor * left[name])})"


def _early_controls(cell: JudgedComparison) -> list[ContrastRow]:
    early = [row for row in cell.rows if (row.measure, row.quantity) == ("silhouette", "early_abc")]
    return [row for row in early if row.against != "plain"]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _takes(verdict: str, comparison: Comparison, judgement: Judgement | None) -> str | None:
    """What a decision would take, where there is none."""
    if verdict == "estimate only":
        least = Rules().least_seeds
        more = least - len(comparison.seeds)
        return f"{more} more seed{'s' * (more > 1)}: {least} in all"
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


def across(verdicts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
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
    over_student = claim.over == "student"
    counts: dict[str, int] = {}
    for row in members:
        counts[row["verdict"]] = counts.get(row["verdict"], 0) + 1
    kinds = {row["student"] if claim.over == "student" else row["method"] for row in members}
    verdict = _common(counts, len(members)) if len(kinds) > 1 else "not computable"
    listed = "; ".join(f"{row[claim.over]}: {row['title']}" for row in members)
    comparison = {"student": "", "method_label": "", fixed: kept}
    return {
        "claim": claim.name,
        **comparison,
        "label_fraction": fraction,
        "primary": False,
        "verdict": verdict,
        "title": verdict,
        "sentence": f"{kept}, {100 * fraction:.3g} % of the labels: {listed}.",
        "because": None if len(kinds) > 1 else f"the study has one {'architecture' if over_student else 'method'} only",
        "takes": None if len(kinds) > 1 else f"a second {'architecture' if over_student else 'method'} in the study",
        "seeds": min(row["seeds"] for row in members),
        "controls_passed": [],
        "controls_failed": [],
        "controls_missing": [],
        "rests_on": json.dumps({row[claim.over]: row["verdict"] for row in members}, sort_keys=True),
    }


def _common(counts: Mapping[str, int], members: int) -> str:
    """One verdict for several: supported if all are; estimates and gaps keep it open; else it is not."""
    if counts.get("supported", 0) == members:
        return "supported"
    undecided = sum(counts.get(name, 0) for name in ("estimate only", "inconclusive", "not computable"))
    if counts.get("estimate only", 0) and undecided == members:
        return "estimate only"
    return "inconclusive" if undecided + counts.get("supported", 0) == members else "not supported by all"


def claim_row(claim: Claim) -> dict[str, Any]:
    return {"claim": claim.name, "title": claim.title, "measured_by": claim.measured_by, "rule": claim.rule}
