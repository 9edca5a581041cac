"""Layers of networks: their shapes, their neighbours, and what known factors explain of them."""

from __future__ import annotations

import polars as pl

from kdpipe.artifacts.schema.table import (
    COUNT,
    LAYER,
    MEASURE,
    NETWORK,
    ON_LAYER,
    REAL,
    SAMPLE,
    TEXT,
    VIEW,
    Column,
    Table,
)

_CREDIT = {
    "kept": "the teacher's neighbours that both plain and this network have",
    "gained": "the teacher's neighbours that this network has and plain has not",
    "lost": "the teacher's neighbours that plain has and this network has not",
    "invented": "its neighbours that neither the teacher nor plain has",
}

TABLES = (
    Table(
        "layers",
        "a layer of a network in one view",
        ("network_id", "layer", "view"),
        {
            **ON_LAYER,
            "order": Column(COUNT, "0 is the first tap"),
            "relative_depth": Column(REAL, "order / (taps - 1)", low=0, high=1),
            "mac_share": Column(REAL, "share of MACs spent up to this tap", nullable=True),
            "shape": Column(pl.List(pl.Int32()), "channels, height, width of the map"),
            "dim": Column(COUNT, "length of the vector in this view"),
        },
        small=True,
    ),
    Table(
        "neighbours",
        "a probe image at a layer of a mapped network",
        ("network_id", "layer", "view", "sample_id"),
        {
            **ON_LAYER,
            "sample_id": SAMPLE,
            "ids": Column(pl.List(pl.UInt16()), "nearest probe images in the view's own space, nearest first"),
        },
    ),
    Table(
        "neighbour_credit",
        "a probe image at a layer of a distilled network, against its plain companion and its teacher",
        ("network_id", "layer", "view", "sample_id"),
        {
            **ON_LAYER,
            "plain_id": Column(TEXT, "the plain student of the same seed"),
            "sample_id": SAMPLE,
            **{
                f"{kind}_{whose}": Column(pl.UInt8(), f"{about}, of {words}")
                for kind, about in _CREDIT.items()
                for whose, words in (("same", "the image's class"), ("other", "another class"))
            },
        },
    ),
    Table(
        "factors",
        "a known factor at a layer in a view",
        ("network_id", "layer", "view", "factor"),
        {
            **ON_LAYER,
            "factor": Column(TEXT, "as a column of samples.parquet, or all for all of them together"),
            "explained": Column(REAL, "cross-validated R² of the factor from the layer", nullable=True),
            "residual": Column(
                REAL, "the same by fresh probes, once all factors are taken out of the layer", nullable=True
            ),
            "chance": Column(REAL, "the same with the factor shuffled over the images", nullable=True),
            "share_of_layer": Column(
                REAL, "for all: share of the layer's variance that the factors explain", nullable=True
            ),
            "knn_explained": Column(
                REAL, "for all: kNN accuracy on the part of the layer that the factors explain", nullable=True
            ),
            "knn_residual": Column(REAL, "for all: kNN accuracy on the rest", nullable=True),
            "knn_whole": Column(REAL, "for all: kNN accuracy on the layer", nullable=True),
        },
    ),
    Table(
        "similarity",
        "a pair of layers of two networks",
        ("network_id", "layer", "other_id", "other_layer", "view", "measure"),
        {
            "network_id": NETWORK,
            "layer": LAYER,
            "other_id": Column(TEXT, "the other network"),
            "other_layer": Column(TEXT, "its layer"),
            "view": VIEW,
            "measure": MEASURE,
            "value": Column(REAL, "its value"),
            "chance": Column(REAL, "value for unrelated layers"),
        },
    ),
)
