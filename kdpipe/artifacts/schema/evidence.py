"""What the study says of the claims."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from kdpipe.artifacts.schema.table import (
    BOOL,
    COUNT,
    REAL,
    TEXT,
    VIEW,
    Column,
    Table,
)

_CELL = {
    "student": Column(TEXT, "name of the architecture; empty for a claim across architectures"),
    "method_label": Column(TEXT, "the method's name in this study; empty for a claim across methods"),
    "label_fraction": Column(REAL, "share of the training labels"),
    "primary": Column(BOOL, "whether this is the study's one cell that is not exploratory"),
}
_CONTRAST = {
    "seeds": Column(COUNT, "paired seeds"),
    "estimate": Column(REAL, "mean over seeds"),
    "low": Column(REAL, "lower end of the 95 % interval over seeds and images", nullable=True),
    "high": Column(REAL, "upper end of the 95 % interval over seeds and images", nullable=True),
    "p": Column(REAL, "exact sign-flip over seeds, two-sided; empty below 8 seeds", nullable=True),
    "null_ratio": Column(REAL, "estimate over the spread that another initialisation makes", nullable=True),
}

TABLES = (
    Table(
        "comparisons",
        "two kinds of student side by side in one quantity",
        ("student", "method_label", "label_fraction", "against", "measure", "view", "quantity"),
        {
            **_CELL,
            "against": Column(
                TEXT,
                "plain, teacher or the control it is held against; 'X - plain' where control X itself is held "
                "against plain",
            ),
            "measure": Column(TEXT, "silhouette, knn_accuracy, prediction_depth or accuracy"),
            "view": Column(TEXT, "view of the layers; empty for measures of answers"),
            "quantity": Column(
                TEXT,
                "abc, early_abc, shape_abc, advance (all in favour of distillation where positive) or difference",
            ),
            **_CONTRAST,
            "p_corrected": Column(REAL, "p after correction", nullable=True),
            "correction": Column(
                TEXT,
                "holm over the primary cell's two endpoints, benjamini-hochberg over all others of the study",
                nullable=True,
            ),
            "d_z": Column(REAL, "effect size over paired seeds, corrected after Hedges", nullable=True),
            "null_estimate": Column(REAL, "the same of plain from other initial weights against plain", nullable=True),
            "never_reached": Column(
                COUNT, "advance: seeds at which plain's final value is never reached", nullable=True
            ),
            "per_seed": Column(pl.List(pl.Float32()), "one a seed, in the order of seeds"),
        },
    ),
    Table(
        "specification",
        "the area before the last layer, measured in one of several ways",
        ("student", "method_label", "label_fraction", "against", "measure", "view", "standardised", "k"),
        {
            **_CELL,
            "against": Column(TEXT, "as in comparisons.parquet"),
            "measure": Column(TEXT, "silhouette or knn_accuracy"),
            "view": VIEW,
            "standardised": Column(BOOL, "whether each column of the layer was brought to deviation 1"),
            "k": Column(COUNT, "neighbours that vote; empty for the silhouette", nullable=True),
            "fixed_in_advance": Column(BOOL, "whether this is the way that verdicts rest on"),
            **_CONTRAST,
        },
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
    ),
    Table(
        "verdicts",
        "a claim judged for a student, a method and a budget",
        ("claim", "student", "method_label", "label_fraction"),
        {
            "claim": Column(TEXT, "as in claims.parquet"),
            **_CELL,
            "verdict": Column(TEXT, "one of the verdicts of docs/EVIDENCE.md"),
            "title": Column(TEXT, "the verdict with the control or number that it is about"),
            "sentence": Column(TEXT, "the whole in a sentence for people"),
            "because": Column(TEXT, "the reason, as a clause", nullable=True),
            "takes": Column(TEXT, "what a decision would take, where there is none", nullable=True),
            "seeds": Column(COUNT, "paired seeds"),
            **{name: replace(column, nullable=True) for name, column in _CONTRAST.items() if name != "seeds"},
            "p_corrected": Column(REAL, "p after correction", nullable=True),
            "correction": Column(TEXT, "as in comparisons.parquet", nullable=True),
            "d_z": Column(REAL, "effect size over paired seeds, corrected after Hedges", nullable=True),
            "specifications": Column(COUNT, "earlier: ways to measure the area against plain", nullable=True),
            "specifications_above": Column(COUNT, "earlier: of these, with an interval above 0", nullable=True),
            "controls_passed": Column(pl.List(pl.String()), "controls that do not account for the effect"),
            "controls_failed": Column(pl.List(pl.String()), "controls that do"),
            "controls_missing": Column(pl.List(pl.String()), "controls that could not be asked, and why"),
            "rests_on": Column(TEXT, "every number that the verdict rests on, as JSON"),
        },
    ),
)
