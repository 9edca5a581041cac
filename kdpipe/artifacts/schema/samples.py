"""Probe images, and what networks answer to them."""

from __future__ import annotations

from itertools import product

import polars as pl

from kdpipe.artifacts.schema.table import (
    BOOL,
    COUNT,
    MEASURE,
    NETWORK,
    REAL,
    SAMPLE,
    TEXT,
    Column,
    Table,
)
from kdpipe.vocabulary import FACTORS

_TRIO = {
    "network_id": NETWORK,
    "plain_id": Column(TEXT, "the plain student of the same seed"),
    "teacher_id": Column(TEXT, "its teacher, or the study's where it learned from none"),
}
_COMBINATIONS = ("_".join(rights) for rights in product(("right", "wrong"), repeat=3))

TABLES = (
    Table(
        "samples",
        "a probe image",
        ("sample_id",),
        {
            "sample_id": SAMPLE,
            "label": Column(COUNT, "index of the class"),
            "class_name": Column(TEXT, "name of the class"),
            "display_rank": Column(COUNT, "any prefix in this order is stratified by class"),
            "image": Column(
                pl.Binary(), "the image as WebP bytes; of a sample that is none its id and text as UTF-8, in two lines"
            ),
            **{name: Column(REAL, about, nullable=True) for name, about in FACTORS.items()},
        },
    ),
    Table(
        "predictions",
        "a network's answer to a probe image",
        ("network_id", "sample_id"),
        {
            "network_id": NETWORK,
            "sample_id": SAMPLE,
            "predicted": Column(COUNT, "class with the largest logit"),
            "confidence": Column(REAL, "softmax probability of that class"),
            "margin": Column(REAL, "logit of the true class minus the largest other"),
            "correct": Column(BOOL, "predicted equals label"),
            "prediction_depth": Column(
                COUNT, "order of the first layer from which all votes equal predicted; empty if none", nullable=True
            ),
            "vote_entropy": Column(REAL, "entropy of the votes of all layers, in nats", nullable=True),
            "logits": Column(pl.List(pl.Float32()), "one per class"),
        },
    ),
    Table(
        "answers",
        "a measure of two networks' answers to the probe images",
        ("network_id", "other_id", "measure"),
        {
            "network_id": NETWORK,
            "other_id": Column(TEXT, "the network it is compared with: its teacher, or plain of the same seed"),
            "measure": MEASURE,
            "value": Column(REAL, "its value"),
            "chance": Column(REAL, "value where nothing is to be found", nullable=True),
        },
    ),
    Table(
        "flips",
        "what a student fixed, broke and inherited, over all probe images or those of a class",
        ("network_id", "label"),
        {
            **_TRIO,
            "label": Column(COUNT, "index of the class; empty for all classes together", nullable=True),
            "images": Column(COUNT, "how many images that is"),
            **{
                name: Column(COUNT, "of these, {} by teacher, plain and this network".format(name.replace("_", ", ")))
                for name in _COMBINATIONS
            },
            "fixed": Column(COUNT, "of these, wrong by plain and right by this network"),
            "broken": Column(COUNT, "of these, right by plain and wrong by this network"),
            "inherited": Column(
                COUNT, "of these, given the teacher's wrong answer by this network and another answer by plain"
            ),
            "same_error": Column(COUNT, "of these, given the teacher's wrong answer by this network"),
            "plain_same_error": Column(COUNT, "of these, given the teacher's wrong answer by plain"),
            "p_value": Column(
                REAL,
                "exact McNemar p of fixed against broken; of one training run each, not corrected over classes",
            ),
        },
    ),
    Table(
        "sample_flips",
        "what became of a probe image from plain to a student",
        ("network_id", "sample_id"),
        {
            **_TRIO,
            "sample_id": SAMPLE,
            "outcome": Column(
                TEXT,
                "by plain and this network: kept (right, right), fixed (wrong, right), broken (right, wrong) "
                "or wrong (wrong, wrong)",
            ),
            "teacher_correct": Column(BOOL, "whether the teacher is right"),
            "inherited": Column(BOOL, "as in flips.parquet: the teacher's wrong answer, which plain did not give"),
        },
    ),
    Table(
        "explanations",
        "where a network looks in a probe image",
        ("network_id", "sample_id"),
        {
            "network_id": NETWORK,
            "sample_id": SAMPLE,
            "class_index": Column(COUNT, "the class that is explained: the teacher's answer"),
            "cosine": Column(
                REAL, "cosine of its Grad-CAM with the teacher's; empty where one is blank", nullable=True
            ),
            "side": Column(COUNT, "rows of the heat-map; it has as many columns where images are square"),
            "heatmap": Column(pl.Binary(), "a byte a place, row by row, 255 at the map's own maximum"),
        },
    ),
)
