"""The stage that takes in a network that was trained elsewhere."""

from __future__ import annotations

import json

import polars as pl
import torch

from kdpipe.config.sections import NetworkSpec
from kdpipe.data.dataset import Dataset
from kdpipe.engine.stage import Context, Task, stage
from kdpipe.files import write_atomic
from kdpipe.models.build import build
from kdpipe.models.origins import restored
from kdpipe.models.profile import profile_of
from kdpipe.models.saved import write_network
from kdpipe.pipeline.stages.outputs import HISTORY, HISTORY_SCHEMA, LAST, RESULT
from kdpipe.training.evaluation import accuracy
from kdpipe.vocabulary import TEACHER

NEAR_CHANCE = 1.5  # times what guessing gives


@stage("network", takes=("data",), title="reading finished networks")
def make_finished(task: Task, context: Context) -> None:
    """Build a finished network, ask it the validation and test images, and keep it with its weights."""
    given = {**task.stage.params["network"], "role": TEACHER, **restored(task.stage.params, task.stage.runtime)}
    spec = NetworkSpec.model_validate(given)
    dataset = Dataset.read(task.inputs["data"])
    shape, classes = dataset.image_shape, len(dataset.class_names)
    network = build(spec, image_shape=shape, classes=classes, mean=dataset.mean, std=dataset.std, seed=0)
    network.to(torch.device(context.device))
    profile = profile_of(network, shape)
    right = accuracy(network, dataset.test)
    result = {
        "status": "trained",
        "diverged_step": None,
        "params": profile.params,
        "macs": profile.macs,
        "labelled_images": round(spec.label_fraction * len(dataset.train.labels)),
        "taps": [tap.__dict__ for tap in profile.taps],
        "val_accuracy": accuracy(network, dataset.validation),
        "test_accuracy": right,
    }
    if right < NEAR_CHANCE / classes:
        order = ", ".join(dataset.class_names[:3])
        context.reporter.warn(
            f"{task.stage.name} answers {right:.1%} of the test images rightly, near the {1 / classes:.1%} of chance: "
            f"are classes in the order of its training ({order}, …), and images normalised as there (mean, std)?"
        )
    write_network(task.folder / LAST, network, spec, shape, classes)
    pl.DataFrame(schema=HISTORY_SCHEMA).write_parquet(task.folder / HISTORY)
    write_atomic(task.folder / "speed.json", "{}")
    write_atomic(task.folder / RESULT, json.dumps(result))
