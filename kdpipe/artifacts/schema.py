"""What every artifact holds: the tables of a study, declared once.

Writers and readers both check against these declarations, so a column that is not here does not
exist. Light on purpose (polars only): the app imports it.

``SCHEMA_VERSION`` rises whenever a reader of the old files would misread the new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import polars as pl

SCHEMA_VERSION = 4

TEXT, BOOL, COUNT, REAL = pl.String(), pl.Boolean(), pl.Int32(), pl.Float32()


@dataclass(frozen=True)
class Column:
    """One column: its type, what it means, and whether it may be empty."""

    dtype: pl.DataType
    about: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One Parquet file: what a row is, which columns identify it, and every column in order."""

    name: str
    row: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]

    @property
    def file(self) -> str:
        return f"{self.name}.parquet"

    @property
    def schema(self) -> pl.Schema:
        return pl.Schema({name: column.dtype for name, column in self.columns.items()})


_NETWORK = Column(TEXT, "the network, as in networks.parquet")
_LAYER = Column(TEXT, "the tap's module name in the timm model")
_VIEW = Column(TEXT, "how the layer's map became a vector: gap or projection")
_SAMPLE = Column(COUNT, "the probe image, as in samples.parquet")
_MEASURE = Column(TEXT, "the measure, as in measures.parquet")
_ON_LAYER = {"network_id": _NETWORK, "layer": _LAYER, "view": _VIEW}
_MAP = {
    **_ON_LAYER,
    "projector": Column(TEXT, "tsne, ivis or pca"),
    "layout": Column(
        TEXT,
        "consensus: started from the map that the networks at this depth share; independent: optimised alone; both "
        "turned like the reference",
    ),
    "perplexity": Column(REAL, "t-SNE's perplexity; empty for other projectors", nullable=True),
    "map_seed": Column(COUNT, "seed of the projector"),
}

_FACTORS = {
    "brightness": "mean luma, 0 to 1",
    "contrast": "standard deviation of luma",
    "hue": "dominant hue in degrees, 0 is red; empty where the image has no colour",
    "colourfulness": "Hasler and Süsstrunk's index; 0 for grey images",
    "edge_density": "mean length of the luma's gradient (Sobel)",
    "teacher_entropy": "entropy of the teacher's probabilities, in bits",
}
_CREDIT = {
    "kept": "the teacher's neighbours that both plain and this network have",
    "gained": "the teacher's neighbours that this network has and plain has not",
    "lost": "the teacher's neighbours that plain has and this network has not",
    "invented": "its neighbours that neither the teacher nor plain has",
}

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
_TRIO = {
    "network_id": _NETWORK,
    "plain_id": Column(TEXT, "the plain student of the same seed"),
    "teacher_id": Column(TEXT, "its teacher, or the study's where it learned from none"),
}
_COMBINATIONS = ("_".join(rights) for rights in product(("right", "wrong"), repeat=3))

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

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "networks",
            "a network",
            ("network_id",),
            {
                "network_id": Column(TEXT, "readable and unique within the study"),
                "role": Column(
                    TEXT,
                    "teacher, plain, distilled, control, checkpoint (a student on its way) or baseline (not trained)",
                ),
                "student": Column(
                    TEXT, "name of the architecture in the study file; teacher for every teacher, pixels for raw images"
                ),
                "arch": Column(TEXT, "timm model name"),
                "arch_arguments": Column(TEXT, "keyword arguments and stem, as JSON"),
                "method": Column(
                    TEXT, "as in methods.parquet; supervised for teachers, untrained or pixels without training"
                ),
                "method_label": Column(TEXT, "the method's name in this study, unique per configuration"),
                "method_parameters": Column(TEXT, "resolved parameters, as JSON"),
                "training": Column(TEXT, "fields of its training that differ from the study's, as JSON"),
                "teacher_id": Column(TEXT, "whose outputs the loss used", nullable=True),
                "teacher_label_fraction": Column(REAL, "labels the teacher had", nullable=True),
                "label_fraction": Column(REAL, "share of the training labels this network had"),
                "labelled_images": Column(COUNT, "how many labelled training images that is"),
                "unlabelled": Column(BOOL, "whether the teacher's term also saw unlabelled images"),
                "seed": Column(COUNT, "the study's seed this network belongs to"),
                "init_seed": Column(COUNT, "seed of the initial weights"),
                "data_seed": Column(COUNT, "seed of batch order and augmentation"),
                "label_seed": Column(COUNT, "seed of the labelled subset"),
                "checkpoint_step": Column(COUNT, "training step of the weights that are embedded"),
                "params": Column(pl.Int64(), "parameters that a forward pass uses"),
                "macs": Column(pl.Int64(), "multiply-accumulates of one forward pass of one image"),
                "mapped": Column(BOOL, "whether maps.parquet has this network"),
                "status": Column(TEXT, "trained, diverged, or untaught (its teacher diverged)"),
                "diverged_step": Column(COUNT, "first step with a loss that is not finite", nullable=True),
                "val_accuracy": Column(REAL, "validation accuracy at the last step", nullable=True),
                "test_accuracy": Column(REAL, "accuracy on the whole test set at the last step", nullable=True),
                "selected_step": Column(COUNT, "step with the best validation accuracy", nullable=True),
                "selected_val_accuracy": Column(REAL, "validation accuracy at that step", nullable=True),
                "selected_test_accuracy": Column(REAL, "test accuracy at that step", nullable=True),
            },
        ),
        Table(
            "layers",
            "a layer of a network in one view",
            ("network_id", "layer", "view"),
            {
                **_ON_LAYER,
                "order": Column(COUNT, "0 is the first tap"),
                "relative_depth": Column(REAL, "order / (taps - 1)"),
                "mac_share": Column(REAL, "share of MACs spent up to this tap", nullable=True),
                "shape": Column(pl.List(pl.Int32()), "channels, height, width of the map"),
                "dim": Column(COUNT, "length of the vector in this view"),
            },
        ),
        Table(
            "samples",
            "a probe image",
            ("sample_id",),
            {
                "sample_id": _SAMPLE,
                "label": Column(COUNT, "index of the class"),
                "class_name": Column(TEXT, "name of the class"),
                "display_rank": Column(COUNT, "any prefix in this order is stratified by class"),
                "image": Column(pl.Binary(), "the image as WebP bytes"),
                **{name: Column(REAL, about, nullable=True) for name, about in _FACTORS.items()},
            },
        ),
        Table(
            "predictions",
            "a network's answer to a probe image",
            ("network_id", "sample_id"),
            {
                "network_id": _NETWORK,
                "sample_id": _SAMPLE,
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
            "history",
            "one quantity of a network at a training step",
            ("network_id", "step", "quantity"),
            {
                "network_id": _NETWORK,
                "step": Column(COUNT, "steps done"),
                "quantity": Column(
                    TEXT, "loss, loss/<term> (weighted, mean since the last row), lr, train_accuracy, val_accuracy"
                ),
                "value": Column(REAL, "its value"),
            },
        ),
        Table(
            "neighbours",
            "a probe image at a layer of a mapped network",
            ("network_id", "layer", "view", "sample_id"),
            {
                **_ON_LAYER,
                "sample_id": _SAMPLE,
                "ids": Column(pl.List(pl.UInt16()), "nearest probe images in the view's own space, nearest first"),
            },
        ),
        Table(
            "maps",
            "a probe image on a map",
            ("network_id", "layer", "view", "projector", "layout", "perplexity", "map_seed", "sample_id"),
            {
                **_MAP,
                "sample_id": _SAMPLE,
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
                "measure": _MEASURE,
                "value": Column(REAL, "its value"),
                "chance": Column(REAL, "what a random layout scores", nullable=True),
            },
        ),
        Table(
            "layer_measures",
            "a measure of a layer in a view",
            ("network_id", "layer", "view", "measure"),
            {
                **_ON_LAYER,
                "measure": _MEASURE,
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
                **_ON_LAYER,
                "measure": _MEASURE,
                "label": Column(COUNT, "index of the class"),
                "value": Column(REAL, "mean over the class's probe images"),
            },
        ),
        Table(
            "sample_measures",
            "a probe image at a layer in a view",
            ("network_id", "layer", "view", "sample_id"),
            {
                **_ON_LAYER,
                "sample_id": _SAMPLE,
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
                "network_id": _NETWORK,
                "measure": _MEASURE,
                "value": Column(REAL, "its value"),
                "chance": Column(REAL, "value where nothing is to be found", nullable=True),
            },
        ),
        Table(
            "answers",
            "a measure of two networks' answers to the probe images",
            ("network_id", "other_id", "measure"),
            {
                "network_id": _NETWORK,
                "other_id": Column(TEXT, "the network it is compared with: its teacher, or plain of the same seed"),
                "measure": _MEASURE,
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
                    name: Column(
                        COUNT, "of these, {} by teacher, plain and this network".format(name.replace("_", ", "))
                    )
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
                "sample_id": _SAMPLE,
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
            "factors",
            "a known factor at a layer in a view",
            ("network_id", "layer", "view", "factor"),
            {
                **_ON_LAYER,
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
            "neighbour_credit",
            "a probe image at a layer of a distilled network beside its plain companion and its teacher",
            ("network_id", "layer", "view", "sample_id"),
            {
                **_ON_LAYER,
                "plain_id": Column(TEXT, "the plain student of the same seed"),
                "sample_id": _SAMPLE,
                **{
                    f"{kind}_{whose}": Column(pl.UInt8(), f"{about}, of {words}")
                    for kind, about in _CREDIT.items()
                    for whose, words in (("same", "the image's class"), ("other", "another class"))
                },
            },
        ),
        Table(
            "explanations",
            "where a network looks in a probe image",
            ("network_id", "sample_id"),
            {
                "network_id": _NETWORK,
                "sample_id": _SAMPLE,
                "class_index": Column(COUNT, "the class that is explained: the teacher's answer"),
                "cosine": Column(
                    REAL, "cosine of its Grad-CAM with the teacher's; empty where one is blank", nullable=True
                ),
                "side": Column(COUNT, "height and width of the heat-map"),
                "heatmap": Column(pl.Binary(), "side² bytes, row by row, 255 at the map's own maximum"),
            },
        ),
        Table(
            "similarity",
            "a pair of layers of two networks",
            ("network_id", "layer", "other_id", "other_layer", "view", "measure"),
            {
                "network_id": _NETWORK,
                "layer": _LAYER,
                "other_id": Column(TEXT, "the other network"),
                "other_layer": Column(TEXT, "its layer"),
                "view": _VIEW,
                "measure": _MEASURE,
                "value": Column(REAL, "its value"),
                "chance": Column(REAL, "value for unrelated layers"),
            },
        ),
        Table(
            "methods",
            "a method used in the study",
            ("method",),
            {
                "method": Column(TEXT, "registry name"),
                "title": Column(TEXT, "name for people"),
                "formula": Column(TEXT, "loss, in plain text"),
                "summary": Column(TEXT, "one line for people"),
                "citation": Column(TEXT, "paper"),
                "defaults": Column(TEXT, "default parameters, as JSON"),
                "role": Column(TEXT, "plain, distilled or control"),
                "explains": Column(
                    TEXT,
                    "how this control can explain a gain away: instead (if it gains as much) or without (if nothing is "
                    "gained with what it withholds gone)",
                    nullable=True,
                ),
                "control_of": Column(TEXT, "the method that it varies in one thing; empty for any", nullable=True),
            },
        ),
        Table(
            "measures",
            "a measure of layers, maps or layer pairs",
            ("measure",),
            {
                "measure": Column(TEXT, "registry name, the value of every measure column"),
                "of": Column(TEXT, "layer, map, pair (of layers), network or answers (of two networks)"),
                "title": Column(TEXT, "name for people"),
                "summary": Column(TEXT, "one line for people"),
                "citation": Column(TEXT, "paper"),
                "direction": Column(TEXT, "which end means better: higher, lower or neither"),
                "low": Column(REAL, "least possible value", nullable=True),
                "high": Column(REAL, "greatest possible value", nullable=True),
                "chance": Column(TEXT, "where its chance level comes from: known, shuffled or none"),
                "cost": Column(TEXT, "how its time grows with images N, width d and classes K"),
            },
        ),
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
                "null_estimate": Column(
                    REAL, "the same of plain from other initial weights against plain", nullable=True
                ),
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
                "view": _VIEW,
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
}


def disagreement(table: Table, schema: Mapping[str, pl.DataType]) -> str | None:
    """Say in one clause how ``schema`` differs from what ``table`` declares; None if it does not."""
    declared = table.schema
    if missing := [name for name in declared if name not in schema]:
        return f"column {missing[0]!r} is missing"
    if unknown := [name for name in schema if name not in declared]:
        return f"column {unknown[0]!r} is not part of the schema"
    for name, dtype in declared.items():
        if schema[name] != dtype:
            return f"column {name!r} holds {schema[name]}, not {dtype}"
    if list(schema) != list(declared):
        return "its columns stand in another order"
    return None
