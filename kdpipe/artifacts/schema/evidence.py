"""What the study says of the claims."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from kdpipe.artifacts.schema.table import (
    BOOL,
    BUDGET,
    COUNT,
    REAL,
    TEXT,
    VIEW,
    Column,
    Table,
)
from kdpipe.vocabulary import (
    COMPARED,
    CONTROL,
    CONTROL_KINDS,
    CORRECTIONS,
    ENDPOINTS,
    FINDINGS,
    LEAST_SEEDS,
    MEANINGS,
    OUTCOMES,
    PLAIN,
    QUANTITIES,
    TEACHER,
    VIEWS,
)

_CELL = {
    "student": Column(TEXT, "name of the architecture; empty for a claim across architectures"),
    "method_label": Column(TEXT, "the method's name in this study; empty for a claim across methods"),
    "budget_id": BUDGET,
    "label_fraction": Column(REAL, "share of the training labels", low=0, high=1),
    "primary": Column(BOOL, "whether this is the study's one cell that is not exploratory"),
}
_AGAINST = {
    "against": Column(TEXT, "what it is held against: plain, teacher or control", allowed=(PLAIN, TEACHER, CONTROL)),
    "control": Column(TEXT, "method_label of the control, where it is held against one", nullable=True),
    "control_kind": Column(
        TEXT,
        "instead: the row is distilled less the control; without: the control less plain",
        nullable=True,
        allowed=tuple(CONTROL_KINDS),
    ),
}
_P = Column(
    REAL,
    f"exact sign-flip over seeds, two-sided; empty below {LEAST_SEEDS} seeds",
    nullable=True,
    low=0,
    high=1,
)
_CONTRAST = {
    "seeds": Column(COUNT, "paired seeds"),
    "estimate": Column(REAL, "mean over seeds"),
    "low": Column(REAL, "lower end of the 95 % interval over seeds and images", nullable=True),
    "high": Column(REAL, "upper end of the 95 % interval over seeds and images", nullable=True),
    "p": _P,
    "null_ratio": Column(REAL, "estimate over the spread that another initialisation makes", nullable=True),
}
_P_CORRECTED = replace(_P, about="p after correction")
_ENDPOINT = Column(TEXT, "silhouette or knn_accuracy", allowed=tuple(ENDPOINTS))
_COMPARED = Column(TEXT, "silhouette, knn_accuracy, prediction_depth or accuracy", allowed=COMPARED)
_QUANTITY = Column(
    TEXT,
    "abc, early_abc, shape_abc, advance (all in favour of distillation where positive) or difference",
    allowed=tuple(QUANTITIES),
)
_CORRECTION = Column(
    TEXT,
    "holm over the primary cell's two endpoints, benjamini-hochberg over all others of the study",
    nullable=True,
    allowed=tuple(CORRECTIONS),
)
_D_Z = Column(REAL, "effect size over paired seeds, corrected after Hedges", nullable=True)

TABLES = (
    Table(
        "comparisons",
        "two kinds of student compared in one quantity",
        ("student", "method_label", "budget_id", "against", "control", "measure", "view", "quantity"),
        {
            **_CELL,
            **_AGAINST,
            "measure": _COMPARED,
            "view": Column(TEXT, "view of the layers; empty for measures of answers", allowed=("", *VIEWS)),
            "quantity": _QUANTITY,
            **_CONTRAST,
            "p_corrected": _P_CORRECTED,
            "correction": _CORRECTION,
            "d_z": _D_Z,
            "null_estimate": Column(REAL, "the same of plain from other initial weights against plain", nullable=True),
            "never_reached": Column(
                COUNT,
                "advance: seeds at which plain's final value is never reached; without a row it is reached at none",
                nullable=True,
            ),
            "per_seed": Column(
                pl.List(pl.Float32()), "one a seed, in the order of seeds; of advance empty where it is never reached"
            ),
        },
        small=True,
    ),
    Table(
        "specification",
        "the area before the last layer, measured in one of several ways",
        ("student", "method_label", "budget_id", "against", "control", "measure", "view", "standardised", "k"),
        {
            **_CELL,
            **_AGAINST,
            "measure": _ENDPOINT,
            "view": VIEW,
            "standardised": Column(BOOL, "whether each column of the layer was brought to deviation 1"),
            "k": Column(COUNT, "neighbours that vote; empty for the silhouette", nullable=True),
            "fixed_in_advance": Column(BOOL, "whether this is the way that verdicts rest on"),
            **_CONTRAST,
        },
        small=True,
    ),
    Table(
        "claims",
        "a claim that can fail",
        ("claim",),
        {
            "claim": Column(TEXT, "registry name"),
            "title": Column(TEXT, "the claim in a sentence"),
            "measured_by": Column(TEXT, "what it is judged by"),
            "rule": Column(TEXT, "when it is supported"),
        },
        small=True,
    ),
    Table(
        "verdicts",
        "a claim judged for a student, a method and a budget",
        ("claim", "student", "method_label", "budget_id"),
        {
            "claim": Column(TEXT, "as in claims.parquet"),
            **_CELL,
            "verdict": Column(TEXT, "one of the verdicts of docs/EVIDENCE.md", allowed=tuple(MEANINGS)),
            "title": Column(TEXT, "the verdict with the control or number that it is about"),
            "sentence": Column(TEXT, "the whole in a sentence for people"),
            "because": Column(TEXT, "the reason, as a clause", nullable=True),
            "takes": Column(TEXT, "what a decision would take, where there is none", nullable=True),
            "seeds": Column(COUNT, "paired seeds"),
            **{name: replace(column, nullable=True) for name, column in _CONTRAST.items() if name != "seeds"},
            "p_corrected": _P_CORRECTED,
            "correction": replace(_CORRECTION, about="as in comparisons.parquet"),
            "d_z": _D_Z,
            "specifications": Column(COUNT, "earlier: ways to measure the area against plain", nullable=True),
            "specifications_above": Column(COUNT, "earlier: of these, with an interval above 0", nullable=True),
            "controls_remaining": Column(COUNT, "controls after which the effect remains, at the leading endpoint"),
            "controls_explaining": Column(COUNT, "controls that can explain the effect, at the leading endpoint"),
            "controls_not_asked": Column(COUNT, "controls that could not be asked"),
        },
        small=True,
    ),
    Table(
        "findings",
        "what one endpoint says by itself of being compact earlier",
        ("student", "method_label", "budget_id", "measure"),
        {
            **_CELL,
            "measure": _ENDPOINT,
            "view": VIEW,
            "balanced": Column(BOOL, "whether its curve is a mean of class means, or of images"),
            "seeds": Column(COUNT, "paired seeds"),
            "epsilon": Column(REAL, "the study's margin: an area within it, to either side, does not matter", low=0),
            "finding": Column(
                TEXT,
                "as the verdicts of docs/EVIDENCE.md; higher is a significant gain that no control explains",
                allowed=FINDINGS,
            ),
            "not_computable": Column(TEXT, "why its curves have no earlier, as a clause", nullable=True),
        },
        small=True,
    ),
    Table(
        "verdict_controls",
        "a control of a claim at one endpoint",
        ("claim", "student", "method_label", "budget_id", "measure", "control"),
        {
            "claim": Column(TEXT, "as in claims.parquet"),
            **{name: column for name, column in _CELL.items() if name in ("student", "method_label", "budget_id")},
            "measure": _COMPARED,
            "quantity": _QUANTITY,
            "control": Column(TEXT, "method_label of the control, or what it would be called"),
            "control_kind": replace(_AGAINST["control_kind"], nullable=False),
            "control_method": Column(
                TEXT,
                "the registry's control that it is, or that it is for another method; empty for matched accuracy",
                nullable=True,
            ),
            "outcome": Column(
                TEXT, "; ".join(f"{name}: {about}" for name, about in OUTCOMES.items()), allowed=tuple(OUTCOMES)
            ),
            **{
                name: replace(_CONTRAST[name], nullable=True, about=about)
                for name, about in (
                    ("estimate", "what is left of the effect, as in comparisons.parquet"),
                    ("low", "lower end of its 95 % interval"),
                    ("high", "upper end of its 95 % interval"),
                )
            },
            "why_not": Column(TEXT, "why it was not asked, as a clause", nullable=True),
        },
        small=True,
    ),
)
