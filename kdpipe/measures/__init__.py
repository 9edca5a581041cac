"""Measures of layers, maps and layer pairs: pure functions over NumPy arrays.

``MEASURES`` holds a record for each one that is published, by the name in the ``measure`` columns.
"""

from kdpipe.measures.class_structure import (
    LayerPass,
    class_balanced_mean,
    class_distances,
    class_means,
    intra_inter,
    layer_pass,
    silhouette,
    silhouette_samples,
)
from kdpipe.measures.intervals import bootstrap_mean
from kdpipe.measures.map_quality import (
    MapPass,
    continuity,
    knn_recall,
    map_pass,
    misplacement,
    random_rank_agreement,
    random_recall,
    trustworthiness,
)
from kdpipe.measures.neighbourhood import knn_accuracy, knn_vote, largest_class_share, nearest_neighbours
from kdpipe.measures.registry import Measure, collect
from kdpipe.measures.similarity import cka

MEASURES = collect(__name__, __path__)

__all__ = [
    "MEASURES",
    "LayerPass",
    "MapPass",
    "Measure",
    "bootstrap_mean",
    "cka",
    "class_balanced_mean",
    "class_distances",
    "class_means",
    "continuity",
    "intra_inter",
    "knn_accuracy",
    "knn_recall",
    "knn_vote",
    "largest_class_share",
    "layer_pass",
    "map_pass",
    "misplacement",
    "nearest_neighbours",
    "random_rank_agreement",
    "random_recall",
    "silhouette",
    "silhouette_samples",
    "trustworthiness",
]
