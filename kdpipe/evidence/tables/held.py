"""What is left of an effect when a control is held against it, claim by claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdpipe.evidence import Contrast
from kdpipe.evidence.claims import BEATS_TEACHER, Claim
from kdpipe.evidence.tables.comparisons import Comparison
from kdpipe.evidence.tables.contrasts import ContrastRow, JudgedComparison
from kdpipe.evidence.tables.groups import NamedControl
from kdpipe.vocabulary import CONTROL, ENDPOINTS, EXPLAINS, NOT_ASKED, REMAINS


@dataclass(frozen=True)
class HeldControl:
    """A control at one endpoint.

    Attributes:
        left: distilled less the control (``instead``) or the control less plain (``without``); None if not asked.
    """

    control: NamedControl
    measure: str
    quantity: str
    left: Contrast | None

    @property
    def outcome(self) -> str:
        """Whether the effect remains: the interval of what is left lies above 0."""
        if self.left is None:
            return NOT_ASKED
        return REMAINS if self.left.low > 0 else EXPLAINS

    def row(self, claim: str, comparison: Comparison) -> dict[str, Any]:
        """Its row of verdict_controls.parquet."""
        left = self.left
        return {
            "claim": claim,
            "student": comparison.student,
            "method_label": comparison.method_label,
            "budget_id": comparison.budget_id,
            "measure": self.measure,
            "quantity": self.quantity,
            "control": self.control.name,
            "control_kind": self.control.kind,
            "control_method": self.control.method,
            "outcome": self.outcome,
            "estimate": None if left is None else left.estimate,
            "low": None if left is None else left.low,
            "high": None if left is None else left.high,
            "why_not": self.control.why_not,
        }


def held_controls(claim: Claim, cell: JudgedComparison) -> list[HeldControl]:
    """Every control of a claim, those that could not be asked last; none of whether a teacher is outperformed."""
    if claim.name == BEATS_TEACHER:
        return []
    rows = _early(cell) if claim.judged == "areas" else cell.single[claim.name][1]
    places: list[tuple[str, str]] = [(name, "early_abc") for name in ENDPOINTS]
    if claim.judged != "areas":
        main = cell.single[claim.name][0]
        places = [(main.measure, main.quantity)]
    asked = [HeldControl(row.control, row.measure, row.quantity, row.found) for row in rows if row.control is not None]
    missing = [control for control in cell.controls if control.why_not is not None]
    return asked + [HeldControl(one, measure, quantity, None) for measure, quantity in places for one in missing]


def _early(cell: JudgedComparison) -> list[ContrastRow]:
    return [row for row in cell.rows if row.quantity == "early_abc" and row.against == CONTROL]
