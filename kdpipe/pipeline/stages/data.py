"""The stages from a dataset on disk to splits and probe images."""

from __future__ import annotations

import numpy as np

from kdpipe.config.sections import DataSpec
from kdpipe.data.copies import copies_in_words
from kdpipe.data.dataset import Dataset, probe_set, reference_set, split_dataset
from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import digests, no_tick
from kdpipe.engine.stage import Context, Task, stage


@stage("data")
def make_data(task: Task, context: Context) -> None:
    """Decode, split and store a dataset."""
    spec = DataSpec.model_validate({**task.stage.params["data"], "path": task.stage.runtime.get("path")})
    source = SOURCES[spec.dataset]
    if source.peek is None:  # a look would cost as much as the reading
        context.reporter.say(f"reading {source.title}")
        raw = source.load(spec, context.data_root, no_tick)
    else:
        seen = source.peek(spec, context.data_root)
        with context.reporter.track(f"decoding {source.title}", seen.train + (seen.test or 0)) as bar:
            raw = source.load(spec, context.data_root, bar.advance)
    dataset = split_dataset(
        raw,
        validation_fraction=spec.validation_fraction,
        test_fraction=spec.test_fraction,
        split_seed=spec.split_seed,
    )
    for note in raw.notes:
        context.reporter.say(note)
    others = {name: digests(getattr(dataset, name).images) for name in ("test", "validation")}
    for warning in copies_in_words(digests(dataset.train.images), dataset.train.labels, others):
        context.reporter.warn(warning)
    dataset.write(task.folder)


@stage("probe", version=2, takes=("data",))
def make_probe(task: Task, context: Context) -> None:
    """Choose the probe images, and training images to fit probes on; keep them with their labels."""
    params, dataset = task.stage.params, Dataset.read(task.inputs["data"])
    chosen = probe_set(dataset, params["size"], params["seed"])
    fitted = reference_set(dataset, params["reference"], params["seed"])
    images = dataset.test.images[chosen]
    np.save(task.folder / "images.npy", images)
    np.save(task.folder / "labels.npy", dataset.test.labels[chosen])
    np.save(task.folder / "reference_images.npy", dataset.train.images[fitted])
    np.save(task.folder / "reference_labels.npy", dataset.train.labels[fitted])
