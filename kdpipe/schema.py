"""What every artifact holds: the tables of a study, declared once.

Writers and readers both check against these declarations, so a column that is not here does not
exist. Light on purpose (polars only): the app imports it.

``SCHEMA_VERSION`` rises whenever a reader of the old files would misread the new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

SCHEMA_VERSION = 2

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
    "layout": Column(TEXT, "independent: optimised alone, then turned and sized like the reference"),
    "perplexity": Column(REAL, "t-SNE's perplexity; empty for other projectors", nullable=True),
    "map_seed": Column(COUNT, "seed of the projector"),
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
                "role": Column(TEXT, "teacher, plain, distilled, control or checkpoint (a plain student on its way)"),
                "student": Column(TEXT, "name of the architecture in the study file; teacher for every teacher"),
                "arch": Column(TEXT, "timm model name"),
                "arch_arguments": Column(TEXT, "keyword arguments and stem, as JSON"),
                "method": Column(TEXT, "as in methods.parquet; supervised or untrained for teachers"),
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
                "floor": Column(REAL, "what a random layout scores"),
            },
        ),
        Table(
            "layer_measures",
            "a measure of a layer in a view",
            ("network_id", "layer", "view", "measure"),
            {
                **_ON_LAYER,
                "measure": _MEASURE,
                "value": Column(REAL, "its value"),
                "low": Column(REAL, "lower end of the 95 % interval", nullable=True),
                "high": Column(REAL, "upper end of the 95 % interval", nullable=True),
                "interval_over": Column(TEXT, "what was resampled for the interval", nullable=True),
                "chance": Column(REAL, "value where nothing is to be found", nullable=True),
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
            },
        ),
        Table(
            "measures",
            "a measure of layers, maps or layer pairs",
            ("measure",),
            {
                "measure": Column(TEXT, "registry name, the value of every measure column"),
                "of": Column(TEXT, "layer, map or pair"),
                "title": Column(TEXT, "name for people"),
                "summary": Column(TEXT, "one line for people"),
                "citation": Column(TEXT, "paper"),
                "direction": Column(TEXT, "higher or lower: which end means better separated or better kept"),
                "low": Column(REAL, "least possible value", nullable=True),
                "high": Column(REAL, "greatest possible value", nullable=True),
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
