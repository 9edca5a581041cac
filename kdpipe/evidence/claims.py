"""The claims of Lee & Wallraven (2021), one by one, as data: what each says, and by what it is judged.

The paper's abstract says in one sentence that distillation guides a network to a more compact representation for
higher accuracy, already in earlier layers, that with few labels a student can outperform its teacher, and that this
holds for several architectures and methods. Each part can be true or false by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Judged = Literal["areas", "contrast", "across"]


@dataclass(frozen=True)
class Claim:
    """One claim that can fail.

    Attributes:
        name: the value of the ``claim`` columns.
        title: the claim in a sentence.
        measured_by: endpoints and their statistic, for people.
        rule: when it is supported, for people.
        judged: ``areas``: by the full grammar of :mod:`kdpipe.evidence.judge`; ``contrast``: by one contrast and its
            interval; ``across``: by the verdicts on another claim.
        over: for ``across``: the column of the cells that must differ.
    """

    name: str
    title: str
    measured_by: str
    rule: str
    judged: Judged
    over: Literal["student", "method_label"] | None = None


BEATS_TEACHER = "beats-teacher"
CLAIMS = (
    Claim(
        name="compact",
        title="Distillation makes the layers of a student more compact.",
        measured_by="area between the silhouette curves of the distilled and the plain student over all layers "
        "(class-balanced, projected maps)",
        rule="interval above 0, corrected p below .05, and no control gains as much",
        judged="contrast",
    ),
    Claim(
        name="accurate",
        title="The distilled student is more accurate than the plain one.",
        measured_by="share of probe images answered rightly",
        rule="interval above 0, corrected p below .05, and no control gains as much",
        judged="contrast",
    ),
    Claim(
        name="earlier",
        title="The distilled student is more compact already in earlier layers.",
        measured_by="area between the curves without the last layer: silhouette (class-balanced, projected maps), and "
        "kNN accuracy (channel means) to bear it out",
        rule="interval above 0 and corrected p below .05 for both, the shape of the curves moved too, and no control "
        "gains as much",
        judged="areas",
    ),
    Claim(
        name=BEATS_TEACHER,
        title="The distilled student outperforms its teacher (the paper: with few labels).",
        measured_by="share of probe images answered rightly, against the network it learned from; fair with "
        "own-budget-teacher, whose teacher had the same few labels",
        rule="interval above 0 and corrected p below .05",
        judged="contrast",
    ),
    Claim(
        name="across-architectures",
        title="Being compact earlier holds across architectures of students.",
        measured_by="the verdicts on being compact earlier, of one method and budget",
        rule="supported for each of at least two architectures",
        judged="across",
        over="student",
    ),
    Claim(
        name="across-methods",
        title="Being compact earlier holds across methods of distillation.",
        measured_by="the verdicts on being compact earlier, of one architecture and budget",
        rule="supported for each of at least two methods",
        judged="across",
        over="method_label",
    ),
)
