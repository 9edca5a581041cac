"""Networks of a study, and how they were trained."""

from __future__ import annotations

import polars as pl

from kdpipe.artifacts.schema.table import (
    BOOL,
    BUDGET,
    COUNT,
    NETWORK,
    REAL,
    TEXT,
    Column,
    Table,
)
from kdpipe.vocabulary import ROLES, STATUSES

TABLES = (
    Table(
        "networks",
        "a network",
        ("network_id",),
        {
            "network_id": Column(TEXT, "readable and unique within the study"),
            "role": Column(TEXT, "; ".join(f"{role}: {about}" for role, about in ROLES.items()), allowed=tuple(ROLES)),
            "student": Column(
                TEXT, "name of the architecture in the study file; teacher for every teacher, pixels for raw images"
            ),
            "arch": Column(TEXT, "timm model name"),
            "arch_arguments": Column(TEXT, "keyword arguments and stem, as JSON", json=True),
            "method": Column(
                TEXT, "as in methods.parquet; supervised for teachers, untrained or pixels without training"
            ),
            "method_label": Column(
                TEXT, "the method's name in this study, unique per configuration; of a checkpoint that of its student"
            ),
            "method_parameters": Column(TEXT, "resolved parameters, as JSON", json=True),
            "training": Column(TEXT, "fields of its training that differ from the study's, as JSON", json=True),
            "teacher_id": Column(TEXT, "whose outputs the loss used", nullable=True),
            "teacher_label_fraction": Column(REAL, "labels the teacher had", nullable=True, low=0, high=1),
            "budget_id": BUDGET,
            "label_fraction": Column(REAL, "share of the training labels this network had", low=0, high=1),
            "labelled_images": Column(COUNT, "how many labelled training images that is"),
            "unlabelled": Column(BOOL, "whether the teacher's term also saw unlabelled images"),
            "seed": Column(COUNT, "the study's seed this network belongs to"),
            "init_seed": Column(COUNT, "seed of the initial weights"),
            "data_seed": Column(COUNT, "seed of batch order and augmentation"),
            "label_seed": Column(COUNT, "seed of the labelled subset"),
            "checkpoint_of": Column(TEXT, "the finished student that a checkpoint became", nullable=True),
            "checkpoint_step": Column(COUNT, "training step of the weights that are embedded"),
            "params": Column(pl.Int64(), "parameters that a forward pass uses"),
            "macs": Column(pl.Int64(), "multiply-accumulates of one forward pass of one image"),
            "mapped": Column(BOOL, "whether maps.parquet has this network"),
            "status": Column(TEXT, "trained, diverged, or untaught (its teacher diverged)", allowed=STATUSES),
            "diverged_step": Column(COUNT, "first step with a loss that is not finite", nullable=True),
            "val_accuracy": Column(REAL, "validation accuracy at the last step", nullable=True, low=0, high=1),
            "test_accuracy": Column(
                REAL, "accuracy on the whole test set at the last step", nullable=True, low=0, high=1
            ),
            "selected_step": Column(COUNT, "step with the best validation accuracy", nullable=True),
            "selected_val_accuracy": Column(REAL, "validation accuracy at that step", nullable=True, low=0, high=1),
            "selected_test_accuracy": Column(REAL, "test accuracy at that step", nullable=True, low=0, high=1),
        },
        small=True,
    ),
    Table(
        "history",
        "one quantity of a network at a training step",
        ("network_id", "step", "quantity"),
        {
            "network_id": NETWORK,
            "step": Column(COUNT, "steps done"),
            "quantity": Column(
                TEXT, "loss, loss/<term> (weighted, mean since the last row), lr, train_accuracy, val_accuracy"
            ),
            "value": Column(REAL, "its value"),
        },
    ),
)
