"""The verdict on "distilled students are more compact, already in earlier layers"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdpipe.evidence.bootstrap import Resamples
from kdpipe.evidence.cell import Cell
from kdpipe.evidence.estimates import Contrast, EndpointEstimates, Estimates, estimate
from kdpipe.evidence.statistics import benjamini_hochberg, holm
from kdpipe.vocabulary import Correction, EndpointName, Finding, Verdict

Corrected = Mapping[EndpointName, float | None]


@dataclass(frozen=True)
class Judgement:
    """A verdict and all that it rests on.

    Attributes:
        because: the reason, as a clause.
        explained_by: names of the controls that account for the silhouette's gain.
        findings: what each endpoint says by itself; ``higher`` is a significant gain that no control explains.
        p_corrected: the p of each endpoint's early area after ``correction``.
    """

    verdict: Verdict
    because: str
    explained_by: tuple[str, ...]
    findings: Mapping[EndpointName, Finding]
    p_corrected: Corrected
    correction: Correction
    estimates: Estimates

    @property
    def title(self) -> str:
        """The verdict with the control or the number that it is about."""
        full = {
            "explained": f"explained by {' and '.join(self.explained_by)}",
            "no difference": f"no difference larger than {self.estimates.silhouette.epsilon:.3g}",
        }
        return full.get(self.verdict, self.verdict)


def judge(cell: Cell, resamples: Resamples | None = None) -> Judgement:
    """The verdict on a study's one primary cell: Holm over the p values of its two endpoints.

    The family is fixed beforehand: an endpoint without a p value counts as p = 1, not as one test fewer.
    """
    found = estimate(cell, resamples)
    return decide(found, correct_primary(found), "holm")


def judge_grid(cells: Sequence[Estimates]) -> list[Judgement]:
    """Verdicts on exploratory cells: Benjamini-Hochberg over all p values of all of them."""
    places = [(at, name) for at, cell in enumerate(cells) for name, p in cell.p_values.items() if p is not None]
    values = [p for cell in cells for p in cell.p_values.values() if p is not None]
    corrected: list[dict[EndpointName, float | None]] = [dict.fromkeys(cell.p_values) for cell in cells]
    for (at, name), p in zip(places, benjamini_hochberg(values) if values else (), strict=True):
        corrected[at][name] = float(p)
    return [decide(cell, ps, "benjamini-hochberg") for cell, ps in zip(cells, corrected, strict=True)]


def correct_primary(found: Estimates) -> Corrected:
    """Holm's p values of the two endpoints; None stays None."""
    raw = found.p_values
    corrected = holm([1.0 if p is None else p for p in raw.values()])
    return {name: None if p is None else float(new) for (name, p), new in zip(raw.items(), corrected, strict=True)}


def decide(found: Estimates, p_corrected: Corrected, correction: Correction) -> Judgement:
    """The verdict, by rules alone, from estimates and p values that were corrected elsewhere.

    Each endpoint is first judged by itself (:func:`finding`). The claim is about compactness, so the silhouette
    leads: whatever keeps it from being ``higher`` is the verdict. Where it is higher, the shape of its curves
    decides between better and earlier, and kNN accuracy whether neighbours bear it out. Any finding there other
    than ``higher`` does not, be it that its curves are flat at their ceiling. A gain in kNN accuracy alone does
    not change the verdict; it stands in ``findings``.
    """
    leading, second = found.silhouette, found.knn_accuracy
    findings: dict[EndpointName, Finding] = {
        estimates.endpoint.name: finding(estimates, p_corrected[estimates.endpoint.name], found)
        for estimates in (leading, second)
    }
    verdict, because = _verdict(leading, second, findings, p_corrected)
    explained_by = _explaining(leading) if verdict == "explained" else ()
    return Judgement(verdict, because, explained_by, findings, p_corrected, correction, found)


def finding(estimates: EndpointEstimates, p: float | None, within: Estimates) -> Finding:
    """What one endpoint says about its early area; the rules are tried in this order.

    1. ``not computable`` where curves are missing or leave no early area, whatever the number of seeds: there
       is no estimate. ``estimate only`` with fewer seeds than the rules ask for. ``not computable`` where a
       mean curve is flat or not monotone.
    2. ``no difference`` if the interval is inside +-epsilon, ``reversed`` if it is below 0.
    3. With an interval above 0 and a corrected ``p`` below alpha: ``explained`` if nothing is left of it against
       some control, else ``higher``.
    4. ``inconclusive``.
    """
    rules, early = within.rules, estimates.early_abc
    if early is None:
        return "not computable"
    if estimates.seeds < rules.least_seeds:
        return "estimate only"
    if estimates.not_computable:
        return "not computable"
    if max(-early.low, early.high) <= estimates.epsilon:
        return "no difference"
    if early.high < 0:
        return "reversed"
    if early.low > 0 and p is not None and p < rules.alpha:
        return "explained" if _explaining(estimates) else "higher"
    return "inconclusive"


def _explaining(estimates: EndpointEstimates) -> tuple[str, ...]:
    return tuple(control.name for control in estimates.controls if not control.survived)


def _verdict(
    leading: EndpointEstimates,
    second: EndpointEstimates,
    findings: Mapping[EndpointName, Finding],
    p_corrected: Corrected,
) -> tuple[Verdict, str]:
    first = findings["silhouette"]
    if first != "higher":
        return first, _because(leading, first, p_corrected["silhouette"])
    shape = leading.shape_abc
    assert shape is not None, "a computable endpoint has a shape"
    if shape.low <= 0:
        return "better but not earlier", f"the area of the rescaled curves is {_interval(shape)}"
    if findings["knn_accuracy"] != "higher":
        reason = _because(second, findings["knn_accuracy"], p_corrected["knn_accuracy"])
        return "supported for compactness only", f"kNN accuracy is {findings['knn_accuracy']}: {reason}"
    return "supported", f"the early area is {_interval(leading.early_abc)}, that of kNN {_interval(second.early_abc)}"


def _because(estimates: EndpointEstimates, found: Finding, p: float | None) -> str:
    if found == "not computable":
        return str(estimates.not_computable)
    area = f"the early area is {_interval(estimates.early_abc)}"
    reasons = {
        "estimate only": f"{estimates.seeds} seeds; {area}",
        "no difference": f"{area}, epsilon {estimates.epsilon:.3g}",
        "explained": f"{area}, but not against {' and '.join(_explaining(estimates))}",
        "inconclusive": f"{area}, corrected p {'none' if p is None else f'{p:.3g}'}",
    }
    return reasons.get(found, area)


def _interval(contrast: Contrast | None) -> str:
    assert contrast is not None
    return f"{contrast.estimate:.3g} ({contrast.low:.3g} to {contrast.high:.3g})"
