"""Measures of layers, maps, layer pairs, networks and their answers: pure functions over NumPy arrays.

``MEASURES`` holds a record for each one that is published, by the name in the ``measure`` columns, and ``FACTORS``
one for each known factor of images. ``register`` adds a record of your own to either.
"""

from dataclasses import fields

from kdpipe.measures.answers import Flips, churn, ece, flips, kappa, margins, mcnemar
from kdpipe.measures.class_structure import (
    LayerPass,
    class_balanced_mean,
    class_distances,
    class_means,
    intra_inter,
    layer_pass,
    layer_passes,
    silhouette,
    silhouette_samples,
    soft_nn,
)
from kdpipe.measures.collapse import cdnv, nc1, nc2
from kdpipe.measures.credit import neighbour_credit
from kdpipe.measures.dark_knowledge import dark_knowledge, dark_knowledge_interval, soft_labels
from kdpipe.measures.depth import (
    mean_prediction_depth,
    mean_vote_entropy,
    prediction_depth,
    relative_prediction_depth,
    vote_entropy,
)
from kdpipe.measures.dimension import mle_dimension, mle_dimension_of, twonn, twonn_of
from kdpipe.measures.distances import standardise
from kdpipe.measures.factors import (
    FACTORS,
    Factor,
    explained_share,
    explained_shares,
    residual_share,
    split,
    teacher_entropy,
)
from kdpipe.measures.intervals import bootstrap_mean, jackknife_interval
from kdpipe.measures.ledger import flip_ledger, flip_outcomes, inherited
from kdpipe.measures.map_quality import (
    MapPass,
    continuity,
    displacement,
    false_neighbours,
    knn_recall,
    map_pass,
    misplacement,
    missing_neighbours,
    random_rank_agreement,
    random_recall,
    shepard,
    triplet_accuracy,
    trustworthiness,
)
from kdpipe.measures.neighbourhood import knn_accuracy, knn_vote, largest_class_share, nearest_neighbours
from kdpipe.measures.prepared_layer import PreparedLayer, prepare_layer
from kdpipe.measures.probes import Ridge, fit_ridge, linear_probe, ncc_accuracy
from kdpipe.measures.registry import Measure, collect
from kdpipe.measures.separation import davies_bouldin, fisher, silhouette_sq, silhouette_sq_samples
from kdpipe.measures.similarity import (
    cka,
    cka_rbf,
    mutual_knn,
    procrustes,
    rsa,
    similarity_table,
    svcca,
)
from kdpipe.measures.spectrum import (
    anisotropy,
    anisotropy_centred,
    effective_rank,
    participation_ratio,
    rankme,
    uniformity,
)
from kdpipe.registry import Registry

MEASURES: Registry[Measure] = Registry(
    "measure",
    collect(__name__, __path__),
    reserved=[field.name for field in fields(Flips)],  # rows of answers.parquet that are no measures
)

__all__ = [
    "FACTORS",
    "MEASURES",
    "Factor",
    "Flips",
    "LayerPass",
    "MapPass",
    "Measure",
    "PreparedLayer",
    "Ridge",
    "anisotropy",
    "anisotropy_centred",
    "bootstrap_mean",
    "cdnv",
    "churn",
    "cka",
    "cka_rbf",
    "class_balanced_mean",
    "class_distances",
    "class_means",
    "continuity",
    "dark_knowledge",
    "dark_knowledge_interval",
    "davies_bouldin",
    "displacement",
    "ece",
    "effective_rank",
    "explained_share",
    "explained_shares",
    "false_neighbours",
    "fisher",
    "fit_ridge",
    "flip_ledger",
    "flip_outcomes",
    "flips",
    "inherited",
    "intra_inter",
    "jackknife_interval",
    "kappa",
    "knn_accuracy",
    "knn_recall",
    "knn_vote",
    "largest_class_share",
    "layer_pass",
    "layer_passes",
    "linear_probe",
    "map_pass",
    "margins",
    "mcnemar",
    "mean_prediction_depth",
    "mean_vote_entropy",
    "misplacement",
    "missing_neighbours",
    "mle_dimension",
    "mle_dimension_of",
    "mutual_knn",
    "nc1",
    "nc2",
    "ncc_accuracy",
    "nearest_neighbours",
    "neighbour_credit",
    "participation_ratio",
    "prediction_depth",
    "prepare_layer",
    "procrustes",
    "random_rank_agreement",
    "random_recall",
    "rankme",
    "relative_prediction_depth",
    "residual_share",
    "rsa",
    "shepard",
    "silhouette",
    "silhouette_samples",
    "silhouette_sq",
    "silhouette_sq_samples",
    "similarity_table",
    "soft_labels",
    "soft_nn",
    "split",
    "standardise",
    "svcca",
    "teacher_entropy",
    "triplet_accuracy",
    "trustworthiness",
    "twonn",
    "twonn_of",
    "uniformity",
    "vote_entropy",
]
