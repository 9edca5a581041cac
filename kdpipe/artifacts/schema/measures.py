"""Measures of layers, classes, images and networks."""

from __future__ import annotations

from kdpipe.artifacts.schema.table import (
    BOOL,
    COUNT,
    MEASURE,
    NETWORK,
    ON_LAYER,
    REAL,
    SAMPLE,
    TEXT,
    Column,
    Table,
)

_VARIANTS = {
    "knn_correct_second": Column(
        BOOL,
        "as knn_correct, with measures.second_k neighbours; empty where the study does not ask for it",
        nullable=True,
    ),
    "silhouette_standardised": Column(
        REAL,
        "as silhouette, on the layer with each column at mean 0 and standard deviation 1; empty as above",
        nullable=True,
    ),
    "knn_correct_standardised": Column(
        BOOL,
        "as knn_correct, on the layer with each column at mean 0 and standard deviation 1; empty as above",
        nullable=True,
    ),
}

TABLES = (
    Table(
        "layer_measures",
        "a measure of a layer in a view",
        ("network_id", "layer", "view", "measure"),
        {
            **ON_LAYER,
            "measure": MEASURE,
            "value": Column(REAL, "its value; empty where the measure is not defined on the layer", nullable=True),
            "low": Column(REAL, "lower end of the 95 % interval", nullable=True),
            "high": Column(REAL, "upper end of the 95 % interval", nullable=True),
            "interval_over": Column(TEXT, "what was resampled for the interval", nullable=True),
            "chance": Column(
                REAL,
                "value where nothing is to be found, exact or measured on the same layer with labels (or, for "
                "measures without labels, each column) shuffled",
                nullable=True,
            ),
        },
    ),
    Table(
        "class_measures",
        "a measure of one class at a layer in a view",
        ("network_id", "layer", "view", "measure", "label"),
        {
            **ON_LAYER,
            "measure": MEASURE,
            "label": Column(COUNT, "index of the class"),
            "value": Column(REAL, "mean over the class's probe images"),
        },
    ),
    Table(
        "sample_measures",
        "a probe image at a layer in a view",
        ("network_id", "layer", "view", "sample_id"),
        {
            **ON_LAYER,
            "sample_id": SAMPLE,
            "silhouette": Column(REAL, "silhouette coefficient with the true classes as clusters"),
            "knn_vote": Column(COUNT, "class most frequent among the k nearest other probe images"),
            "knn_correct": Column(BOOL, "knn_vote equals label"),
            **_VARIANTS,
        },
    ),
    Table(
        "network_measures",
        "a measure of a network",
        ("network_id", "measure"),
        {
            "network_id": NETWORK,
            "measure": MEASURE,
            "value": Column(REAL, "its value"),
            "chance": Column(REAL, "value where nothing is to be found", nullable=True),
        },
    ),
)
