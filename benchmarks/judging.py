#!/usr/bin/env python
"""How long it takes to judge a large study again from its tables, beside one silhouette of one of its layers.

``benchmarks/judging.py [--write]``. 40 networks (8 seeds of plain, two methods, a second start and a control) of 8
layers in two views, with made-up values of 2,000 images. ``--write`` puts the numbers into docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measures import layer, replace

from kdpipe.config.sections import EvidenceSpec
from kdpipe.engine.hardware import describe_hardware
from kdpipe.evidence.tables.judge_study import judge_study
from kdpipe.measures import layer_pass

SEEDS, LAYERS, IMAGES, CLASSES = 8, 8, 2000, 10
# label, registry entry, role, how far its curves run ahead of plain's
KINDS = (
    ("plain", "plain", 0.0),
    ("kd", "distilled", 0.03),
    ("fitnet", "distilled", 0.02),
    ("second-seed", "control", 0.0),
    ("label-smoothing", "control", 0.01),
)


def frames() -> dict[str, pl.DataFrame]:
    """The tables that evidence is computed from."""
    random = np.random.default_rng(0)
    networks, layers, samples, answers = [], [], [], []
    for label, role, ahead in KINDS:
        for seed in range(SEEDS):
            name = f"small-{label}-l0.1-s{seed}"
            networks.append(
                {
                    "network_id": name, "role": role, "student": "small", "method": label, "method_label": label,
                    "method_parameters": "{}", "training": "{}", "teacher_id": None, "label_fraction": 0.1,
                    "budget_id": "0.1", "checkpoint_of": None,
                    "labelled_images": 100, "unlabelled": False, "seed": seed, "checkpoint_step": 100,
                    "status": "trained", "test_accuracy": 0.7 + ahead,
                }
            )  # fmt: skip
            right = random.random(IMAGES) < 0.7 + ahead
            answers.append(pl.DataFrame({"sample_id": np.arange(IMAGES), "correct": right}).with_columns(
                network_id=pl.lit(name), prediction_depth=pl.lit(2)
            ))  # fmt: skip
            for order in range(LAYERS):
                for view in ("gap", "projection"):
                    comparison = {"network_id": name, "layer": f"layer{order}", "view": view}
                    layers.append(comparison | {"order": order, "relative_depth": order / (LAYERS - 1)})
                    height = 0.1 + 0.06 * order + ahead
                    values, votes = height + 0.2 * random.normal(size=IMAGES), random.random(IMAGES) < height
                    columns = {
                        "sample_id": np.arange(IMAGES), "silhouette": values, "silhouette_standardised": values,
                        "knn_correct": votes, "knn_correct_second": votes, "knn_correct_standardised": votes,
                    }  # fmt: skip
                    samples.append(
                        pl.DataFrame(columns).with_columns(pl.lit(v).alias(k) for k, v in comparison.items())
                    )
    methods = [{"method": m, "role": r, "explains": "instead" if "smooth" in m else None} for m, r, _ in KINDS]
    return {
        "networks": pl.DataFrame(networks, infer_schema_length=None),
        "layers": pl.DataFrame(layers),
        "samples": pl.DataFrame({"sample_id": np.arange(IMAGES), "label": np.arange(IMAGES) % CLASSES}),
        "sample_measures": pl.concat(samples),
        "predictions": pl.concat(answers),
        "methods": pl.DataFrame(methods).with_columns(
            control_of=pl.lit(None, pl.String), null=pl.col("method") == "second-seed"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    tables, evidence = frames(), EvidenceSpec().model_dump(mode="json")
    headline = {"student": "small", "method": "kd", "label_fraction": 0.1}
    record = {"study": {"evidence": evidence, "measures": {"k": 20, "second_k": 5}}, "headline": headline}
    X, y = layer(IMAGES, 512)
    layer_pass(X, y, 50, "cpu")
    started = time.perf_counter()
    layer_pass(X, y, 50, "cpu")
    one = time.perf_counter() - started
    started = time.perf_counter()
    found = judge_study(tables, record)
    seconds = time.perf_counter() - started
    measured = len(KINDS) * SEEDS * LAYERS * 2
    hardware = describe_hardware("cpu")
    text = (
        f"One run of `benchmarks/judging.py` on {hardware['threads']} threads of {hardware['processor']}, "
        f"torch {torch.__version__}: {len(KINDS) * SEEDS} networks, {LAYERS} layers, two views, {IMAGES:,} images, "
        f"{found['comparisons'].height} comparisons and {found['specification'].height} specifications are judged in "
        f"{seconds:.0f} s. That is {seconds / one:.0f} times one pass over one layer (d = 512), of which measuring the "
        f"study takes {measured}.\n"
    )
    print(text)
    if chosen.write:
        replace("judging", text)


if __name__ == "__main__":
    main()
