"""The folder of vectors of a study: where it lies, what is asked of it, and what it looks like."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdpipe.config.sections import VectorsSpec
from kdpipe.config.study import VectorStudy
from kdpipe.data.sources.base import Peek
from kdpipe.errors import DataError
from kdpipe.models.profile import Profile, Tap
from kdpipe.vectors.store import StoredNetwork, VectorStore, open_vectors


def store_of(spec: VectorStudy, root: Path) -> VectorStore:
    """The opened folder that ``data.path`` names.

    Raises:
        DataError: it names none, or one that cannot be read.
    """
    if not spec.data.path:
        raise DataError("data.path: vectors need the folder that kdpipe import or kdpipe.write_vectors made.")
    place = Path(spec.data.path).expanduser()
    return open_vectors(place if place.is_absolute() else root / place)


def stored(store: VectorStore, network: VectorsSpec) -> StoredNetwork:
    """The network of the folder that a section names.

    Raises:
        DataError: there is none of that name.
    """
    return store.network(network.vectors)


def seen_in(store: VectorStore) -> Peek:
    """The samples, as a look at images tells of those: the reference stands for training images, the probe for test."""
    samples = store.samples
    shape = (0, 0, 0) if samples.images is None else samples.images.shape[1:]
    labels, fitted = samples.labels, samples.reference
    return Peek((shape[0], shape[1], shape[2]), list(samples.class_names), labels[fitted], labels[~fitted])


def taps_of(network: StoredNetwork) -> list[Tap]:
    """A network's layers, at even steps of depth; a single one is the last."""
    last = len(network.layers) - 1
    shapes = ((*shape, 1, 1) if len(shape) == 1 else shape for shape in network.shapes)
    return [
        Tap(layer, order, order / last if last else 1.0, None, (shape[0], shape[1], shape[2]))
        for order, (layer, shape) in enumerate(zip(network.layers, shapes, strict=True))
    ]


def shape_of(network: StoredNetwork) -> Profile:
    """What is known of a network whose vectors alone are there: its layers."""
    taps = taps_of(network)
    final = taps[-1].shape
    return Profile(taps, 0, 0, final[0], final, linear_head=False, spatial_head=False)


def has_reference(store: VectorStore) -> bool:
    """Whether there are samples to fit probes on, of more than one class."""
    samples = store.samples
    return len(np.unique(samples.labels[samples.reference])) > 1
