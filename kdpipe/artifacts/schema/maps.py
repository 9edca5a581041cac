"""Two-dimensional maps of layers."""

from __future__ import annotations

from kdpipe.artifacts.schema.table import (
    COUNT,
    MEASURE,
    ON_LAYER,
    REAL,
    SAMPLE,
    TEXT,
    Column,
    Table,
)
from kdpipe.vocabulary import LAYOUTS

_MAP = {
    **ON_LAYER,
    "projector": Column(TEXT, "tsne, ivis or pca"),
    "layout": Column(
        TEXT,
        "; ".join(f"{layout}: {about}" for layout, about in LAYOUTS.items()) + "; both turned like the reference",
        allowed=tuple(LAYOUTS),
    ),
    "perplexity": Column(REAL, "t-SNE's perplexity; empty for other projectors", nullable=True),
    "map_seed": Column(COUNT, "seed of the projector"),
}

TABLES = (
    Table(
        "maps",
        "a probe image on a map",
        ("network_id", "layer", "view", "projector", "layout", "perplexity", "map_seed", "sample_id"),
        {
            **_MAP,
            "sample_id": SAMPLE,
            "x": Column(REAL, "after alignment to the reference map of its column"),
            "y": Column(REAL, "as x"),
            "misplacement": Column(REAL, "share of the 15 true neighbours that the map does not keep"),
            "false_neighbours": Column(REAL, "how far off the images are that the map shows near, from 0 to 1"),
            "missing_neighbours": Column(REAL, "how far off the map shows true neighbours, from 0 to 1"),
        },
    ),
    Table(
        "map_measures",
        "a measure of a map",
        ("network_id", "layer", "view", "projector", "layout", "perplexity", "map_seed", "measure"),
        {
            **_MAP,
            "measure": MEASURE,
            "value": Column(REAL, "its value"),
            "chance": Column(REAL, "what a random layout scores", nullable=True),
        },
    ),
)
