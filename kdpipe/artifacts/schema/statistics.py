"""Statistics of a whole study, for pages that compute none: gains, ranks, slices, calibration, and a null of credit."""

from __future__ import annotations

from itertools import product

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
from kdpipe.vocabulary import CALIBRATED, REPLACES

_KIND = {
    "student": Column(TEXT, "name of the architecture"),
    "method_label": Column(TEXT, "the method's name in this study"),
    "budget_id": BUDGET,
    "label_fraction": Column(REAL, "share of the training labels"),
}
_SEED = Column(COUNT, "the one seed that it is of; empty for all seeds of the method together", nullable=True)
_GROUP = ("student", "method_label", "budget_id")
_SEEDS = Column(pl.List(pl.Int32()), "of which seeds, in order; empty where that is not known", nullable=True)
_CREDIT = {
    "kept": "of the teacher's that both plain students have",
    "gained": "of the teacher's that this network has and the other plain student has not",
    "lost": "of the teacher's that the other plain student has and this network has not",
    "invented": "that neither the teacher nor the other plain student has",
}

TABLES = (
    Table(
        "gains",
        "what a kind of student gains over plain in one quantity",
        (*_GROUP, "measure", "quantity"),
        {
            **_KIND,
            "measure": Column(TEXT, "silhouette or knn_accuracy, in the view of comparisons.parquet"),
            "quantity": Column(
                TEXT,
                "early_abc or advance, as in comparisons.parquet; of a control, what a method gains over plain less "
                "what it gains over the control, as areas subtract",
            ),
            "seeds": _SEEDS,
            "per_seed": Column(
                pl.List(pl.Float32()),
                "one a seed, in the order of seeds; an advance is empty where plain's value is never reached",
            ),
        },
    ),
    Table(
        "method_ranks",
        "a kind of student ranked against all others of its architecture and budget, within each seed",
        ("student", "budget_id", "measure", "quantity", "with_controls", "method_label"),
        {
            **_KIND,
            "measure": Column(TEXT, "what is ranked by: test_accuracy, silhouette or knn_accuracy"),
            "quantity": Column(TEXT, "level of the accuracy, or early_abc over plain (plain's own is 0)"),
            "with_controls": Column(
                BOOL, "whether controls were ranked too; plain from other initial weights always is"
            ),
            "rank": Column(
                REAL,
                "mean over seeds, 1 is the highest value; empty where it lacks seeds that others have",
                nullable=True,
            ),
            "low": Column(
                REAL,
                "lower end of the 95 % bootstrap interval over seeds, all kinds in the same draws; empty below 8 seeds",
                nullable=True,
            ),
            "high": Column(REAL, "upper end of it", nullable=True),
            "best": Column(REAL, "rank at its best seed", nullable=True),
            "worst": Column(REAL, "rank at its worst seed", nullable=True),
            "mean": Column(REAL, "of the quantity over the seeds, accuracy in %", nullable=True),
            "seeds": Column(COUNT, "how many seeds all that are ranked have"),
        },
    ),
    Table(
        "slices",
        "a slice of the probe images on which a student is held against the network that it would replace",
        (*_GROUP, "seed", "replaces", "kind", "part"),
        {
            **_KIND,
            "seed": _SEED,
            "replaces": Column(TEXT, "teacher (its own), or plain (of the same seed)", allowed=REPLACES),
            "kind": Column(TEXT, "all (every image), class, or the known factor whose quarters are slices"),
            "part": Column(COUNT, "index of the class; 0 for the lowest quarter to 3; empty for all", nullable=True),
            "above": Column(REAL, "of a quarter: the factor lies above this; empty for the lowest", nullable=True),
            "up_to": Column(REAL, "of a quarter: the factor reaches up to this; empty for the highest", nullable=True),
            "images": Column(COUNT, "how many images that is"),
            "base_accuracy": Column(REAL, "accuracy in % of the network that would be replaced, mean over seeds"),
            "accuracy": Column(REAL, "accuracy in % of the student, mean over seeds"),
            "difference": Column(REAL, "accuracy less base_accuracy, in points"),
            "low": Column(REAL, "lower end of its 95 % interval over images: Agresti and Min (2005)"),
            "high": Column(REAL, "upper end of it"),
            "lowest": Column(REAL, "the difference at its lowest seed"),
            "highest": Column(REAL, "the difference at its highest seed"),
            "p": Column(REAL, "two-sided, of the same statistic as the interval"),
            "p_corrected": Column(REAL, "p after Benjamini and Hochberg over all slices; empty for all", nullable=True),
            "excess": Column(
                REAL, "the difference less that on all other images, in points; empty for all", nullable=True
            ),
            "p_excess": Column(REAL, "two-sided, of two unpaired groups of images", nullable=True),
            "p_excess_corrected": Column(REAL, "p_excess after Benjamini and Hochberg over all slices", nullable=True),
            "marked": Column(BOOL, "p_corrected below .05, and the difference of one sign at every seed"),
            "worst": Column(BOOL, "marked and lost, and excess below 0 with p_excess_corrected below .05"),
        },
    ),
    Table(
        "calibration",
        "a bin of confidence of a student, or of the networks that it is compared with",
        (*_GROUP, "seed", "who", "bin"),
        {
            **_KIND,
            "seed": _SEED,
            "who": Column(
                TEXT,
                "student, plain (of the same seeds), teacher (its own), or second start (of plain)",
                allowed=CALIBRATED,
            ),
            "bin": Column(COUNT, "0 to 9: confidence above bin / 10, up to (bin + 1) / 10; only bins with images"),
            "confidence": Column(REAL, "mean over the bin's images and seeds"),
            "accuracy": Column(REAL, "share of them that is right"),
            "low": Column(REAL, "lower end of Wilson's 95 % interval for as many images as one seed has there"),
            "high": Column(REAL, "upper end of it"),
            "images": Column(REAL, "how many images, mean over seeds"),
            "share": Column(REAL, "of all images"),
            "seeds": Column(COUNT, "how many networks that is of"),
        },
    ),
    Table(
        "seed_credit",
        "a layer of a plain student against plain of another seed: a null of neighbour credit",
        ("network_id", "layer", "view"),
        {
            "network_id": Column(TEXT, "the plain student, as in networks.parquet"),
            "plain_id": Column(TEXT, "plain of another seed: labels, batches and initial weights differ"),
            "layer": Column(TEXT, "the tap's module name in the timm model"),
            "view": VIEW,
            **{
                f"{kind}_{whose}": Column(REAL, f"mean neighbours an image {about}, of {words}")
                for (kind, about), (whose, words) in product(
                    _CREDIT.items(), (("same", "the image's class"), ("other", "another class"))
                )
            },
        },
    ),
)
