"""From compared cells to verdicts: every claim for every cell, in numbers, in one word and in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdpipe.evidence import Contrast, Judgement, Rules, decide
from kdpipe.evidence.claims import BEATS_TEACHER, CLAIMS, Claim
from kdpipe.evidence.tables.comparisons import Comparison
from kdpipe.evidence.tables.contrasts import ContrastRow, JudgedComparison, Limits, cell_columns
from kdpipe.evidence.tables.held import HeldControl, held_controls
from kdpipe.vocabulary import (
    ACCURACY,
    ENDPOINTS,
    EXPLAINS,
    LEAST_SEEDS,
    NOT_ASKED,
    PLAIN,
    REMAINS,
    budget_id,
    full_title,
)


def cell_verdicts(cell: JudgedComparison, limits: Limits) -> Iterator[dict[str, Any]]:
    """A row of verdicts.parquet for each claim that a cell is judged by."""
    for claim in CLAIMS:
        if claim.judged == "areas" and not cell.comparison.fair_teacher:
            yield _of_areas(claim, cell)
        elif is_judged(claim, cell):
            yield _of_contrast(claim, cell, limits)


def cell_controls(cell: JudgedComparison) -> Iterator[dict[str, Any]]:
    """A row of verdict_controls.parquet for each claim, endpoint and control of a cell."""
    for claim in (claim for claim in CLAIMS if is_judged(claim, cell)):
        yield from (held.row(claim.name, cell.comparison) for held in held_controls(claim, cell))


def is_judged(claim: Claim, cell: JudgedComparison) -> bool:
    """Whether a claim is judged by this cell alone; of a fair teacher it is asked only whether it is outperformed."""
    if cell.comparison.fair_teacher and claim.name != BEATS_TEACHER:
        return False
    return claim.judged == "areas" or claim.name in cell.single


def cell_findings(cell: JudgedComparison) -> Iterator[dict[str, Any]]:
    """A row of findings.parquet for each endpoint of a cell: what it says of being compact earlier."""
    if cell.comparison.fair_teacher:
        return
    judgement = _judgement(cell)
    for estimates in (cell.estimates.silhouette, cell.estimates.knn_accuracy):
        endpoint = estimates.endpoint
        yield {
            **cell_columns(cell.comparison),
            "measure": endpoint.name,
            "view": endpoint.view,
            "balanced": endpoint.balanced,
            "seeds": estimates.seeds,
            "epsilon": estimates.epsilon,
            "finding": judgement.findings[endpoint.name],
            "not_computable": estimates.not_computable,
        }


def _early(cell: JudgedComparison) -> list[ContrastRow]:
    return [row for row in cell.rows if row.quantity == "early_abc" and row.against == PLAIN]


def _judgement(cell: JudgedComparison) -> Judgement:
    early = _early(cell)
    corrected = {name: next((r.corrected for r in early if r.measure == name), None) for name in ENDPOINTS}
    return decide(cell.estimates, corrected, "holm" if cell.comparison.primary else "benjamini-hochberg")


def _of_areas(claim: Claim, cell: JudgedComparison) -> dict[str, Any]:
    judgement = _judgement(cell)
    main = next((row for row in _early(cell) if row.measure == "silhouette"), None)
    return _verdict(claim, cell, judgement.verdict, judgement.title, main, judgement)


def _of_contrast(claim: Claim, cell: JudgedComparison, limits: Limits) -> dict[str, Any]:
    """A claim that one contrast decides, by the same rules in the same order."""
    main, _ = cell.single[claim.name]
    epsilon = limits.silhouette if main.measure == "silhouette" else limits.accuracy
    failed = [held.control.name for held in held_controls(claim, cell) if held.outcome == EXPLAINS]
    verdict = single_verdict(main.found, main.corrected, epsilon, bool(failed), len(cell.comparison.seeds))
    title = {
        "explained": f"explained by {' and '.join(failed)}",
        "no difference": f"no difference larger than {epsilon:.3g}",
    }.get(verdict, verdict)
    return _verdict(claim, cell, verdict, title, main, None)


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


UNITS = {"silhouette": "silhouette", ACCURACY: "points of accuracy"}
# In words, where the effect is not below 0 and where it is.
EFFECTS = {
    "compact": ("makes the layers of {student} more compact", "makes the layers of {student} less compact"),
    "accurate": ("makes {student} more accurate", "makes {student} less accurate"),
    "earlier": (
        "makes {student} more compact before its last layer", "makes {student} less compact before its last layer",
    ),
    BEATS_TEACHER: ("takes {student} past its teacher", "leaves {student} behind its teacher"),
}  # fmt: skip


def _verdict(
    claim: Claim,
    cell: JudgedComparison,
    verdict: str,
    title: str,
    main: ContrastRow | None,
    judgement: Judgement | None,
) -> dict[str, Any]:
    comparison = cell.comparison
    found = None if main is None else main.found
    held = _of_main(claim, cell)
    counts = {outcome: sum(one.outcome == outcome for one in held) for outcome in (REMAINS, EXPLAINS, NOT_ASKED)}
    said = full_title(verdict, title, counts[NOT_ASKED])
    return {
        "claim": claim.name,
        **cell_columns(comparison),
        "method": comparison.distilled.method,
        "primary": comparison.primary and claim.name == "earlier",
        "verdict": verdict,
        "title": title,
        "sentence": _sentence(claim, cell, said, main, held),
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
        "controls_remaining": counts[REMAINS],
        "controls_explaining": counts[EXPLAINS],
        "controls_not_asked": counts[NOT_ASKED],
    }


def _of_main(claim: Claim, cell: JudgedComparison) -> list[HeldControl]:
    """The controls at the endpoint that leads; the second endpoint's stand in verdict_controls.parquet alone."""
    held = held_controls(claim, cell)
    return [one for one in held if claim.judged != "areas" or one.measure == "silhouette"]


def _specified(cell: JudgedComparison) -> dict[str, int]:
    """In how many of the ways to measure the area before the last layer its interval against plain lies above 0."""
    lows = [row["low"] for row in cell.specifications if row["against"] == PLAIN]
    return {"specifications": len(lows), "specifications_above": sum(low > 0 for low in lows)}


def _sentence(
    claim: Claim,
    cell: JudgedComparison,
    title: str,
    main: ContrastRow | None,
    controls: Sequence[HeldControl],
) -> str:
    comparison = cell.comparison
    budget = _budget(comparison.label_fraction)
    if main is None:
        return f"With {budget}, {comparison.method_label} on {comparison.student}. Verdict: {title}."
    found, factor = main.found, 100 if main.measure == ACCURACY else 1
    form = "{:+.1f}" if factor == 100 else "{:+.4f}"
    low, high = (form.format(factor * value) for value in (found.low, found.high))
    size = f"{form.format(factor * found.estimate)} {UNITS[main.measure]} ({low} to {high})"
    effect = EFFECTS[claim.name][found.estimate < 0].format(student=comparison.student)
    tested = "" if main.corrected is None else f", p = {main.corrected:.3g} ({main.correction})"
    passed = [one for one in controls if one.outcome == REMAINS]
    failed = [one for one in controls if one.outcome == EXPLAINS]
    held = f"; it remains after {_listed(passed)}{_closest(passed, form, factor)}" if passed else ""
    lost = f"; it does not remain after {_listed(failed)}" if failed else ""
    seeds = f"{len(comparison.seeds)} seed{'s' * (len(comparison.seeds) != 1)}"
    ways = _specified(cell) if claim.judged == "areas" else {"specifications": 0}
    above = ""
    if ways["specifications"]:
        above = f"; above 0 in {ways['specifications_above']} of {ways['specifications']} ways to measure it"
    if not found.low > 0:  # there is no gain that anything could explain
        held = lost = above = ""
    said = f"{effect}: {size}, {seeds}{tested}{held}{lost}{above}"
    return f"With {budget}, {comparison.method_label} {said}. Verdict: {title}."


def _budget(label_fraction: float) -> str:
    whole = budget_id(label_fraction) == "1"
    return "all labels" if whole else f"{100 * label_fraction:.3g} % of the labels"


def _closest(passed: Sequence[HeldControl], form: str, factor: int) -> str:
    """After which control the least is left, and how much."""
    left = {one.control.name: one.left.estimate for one in passed if one.left is not None}
    name = min(left, key=lambda name: left[name])
    return f" (the least is left with {name}: {form.format(factor * left[name])})"


def _listed(controls: Sequence[HeldControl]) -> str:
    names = [one.control.name for one in controls]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _takes(verdict: str, comparison: Comparison, judgement: Judgement | None) -> str | None:
    """What a decision would take, where there is none."""
    if verdict == "estimate only":
        more = LEAST_SEEDS - len(comparison.seeds)
        return f"{more} more seed{'s' * (more > 1)}: {LEAST_SEEDS} in all"
    if verdict == "inconclusive":
        return "more seeds or more probe images: see the power table in docs/BENCHMARKS.md"
    if verdict == "not computable" and judgement is not None:
        return f"another architecture or more layers: {judgement.because}"
    return None


def across(verdicts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Claims about claims: whether being compact earlier holds for all architectures, or all methods."""
    early = [row for row in verdicts if row["claim"] == "earlier"]
    rows = []
    for claim in (claim for claim in CLAIMS if claim.judged == "across"):
        assert claim.over is not None
        fixed = "method_label" if claim.over == "student" else "student"
        groups: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
        for row in early:
            groups.setdefault((row[fixed], row["budget_id"]), []).append(row)
        rows += [_across_one(claim, fixed, str(kept), members) for (kept, _), members in groups.items()]
    return rows


def _across_one(claim: Claim, fixed: str, kept: str, members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    assert claim.over is not None
    over_student = claim.over == "student"
    counts: dict[str, int] = {}
    for row in members:
        counts[row["verdict"]] = counts.get(row["verdict"], 0) + 1
    kinds = {row["student"] if claim.over == "student" else row["method"] for row in members}
    verdict = _common(counts, len(members)) if len(kinds) > 1 else "not computable"
    titles = [full_title(row["verdict"], row["title"], row["controls_not_asked"]) for row in members]
    listed = "; ".join(f"{row[claim.over]}: {title}" for row, title in zip(members, titles, strict=True))
    fraction = members[0]["label_fraction"]
    comparison = {"student": "", "method_label": "", fixed: kept}
    return {
        "claim": claim.name,
        **comparison,
        "budget_id": members[0]["budget_id"],
        "label_fraction": fraction,
        "primary": False,
        "verdict": verdict,
        "title": verdict,
        "sentence": f"{kept}, {100 * fraction:.3g} % of the labels: {listed}.",
        "because": None if len(kinds) > 1 else f"the study has one {'architecture' if over_student else 'method'} only",
        "takes": None if len(kinds) > 1 else f"a second {'architecture' if over_student else 'method'} in the study",
        "seeds": min(row["seeds"] for row in members),
        "controls_remaining": 0,
        "controls_explaining": 0,
        "controls_not_asked": 0,
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
