"""The stages that lay maps over each other: each on what the networks share at its depth, and how far seeds move it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdpipe.engine.stage import ANY, Context, Task, stage
from kdpipe.errors import MapError
from kdpipe.files import write_atomic
from kdpipe.measures import displacement
from kdpipe.pipeline.stages.maps import LAYOUT
from kdpipe.representation.alignment import align

DRIFT = "drift.json"


@stage("alignment", takes=("map",), may_take=("reference",), title="aligning maps")
def make_alignment(task: Task, context: Context) -> None:
    """A map on the axes of its reference; as it is where it has none."""
    layout = np.load(task.inputs["map"] / LAYOUT)
    if "reference" in task.inputs:
        layout = on_reference(layout, np.load(task.inputs["reference"] / LAYOUT))
    np.save(task.folder / LAYOUT, layout)


@stage("seed-drift", takes=(ANY,))
def make_seed_drift(task: Task, context: Context) -> None:
    """How far an aligned map moves when nothing but its seed changes; the params name the order of the inputs."""
    first, *others = (np.load(task.inputs[name] / LAYOUT) for name in task.stage.params["maps"])
    write_atomic(task.folder / DRIFT, json.dumps({"seed_drift": seed_drift(first, others)}))


def seed_drift(first: NDArray[np.float32], others: Sequence[NDArray[np.float32]]) -> float | None:
    """Mean displacement of the other maps (N, 2) from the first, in RMS radii; None where one has no extent."""
    try:
        return float(np.mean([displacement(other, first) for other in others]))
    except ValueError:
        return None


def on_reference(layout: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """The layout (N, 2) on the reference's axes and in its size; as it is where the two cannot be aligned.

    Procrustes' own scale is undone: it shrinks a map the less it resembles the reference, which to
    the eye is compactness, the very thing that these maps are looked at for.
    """
    try:
        turned = align(layout, reference).layout
    except MapError:
        return layout
    centre = reference.mean(axis=0)
    return np.asarray(centre + (turned - centre) * (_radius(reference) / _radius(turned)))


def _radius(layout: NDArray[np.float32]) -> float:
    """Root mean square distance of the points to their centre."""
    return float(np.sqrt(np.square(layout - layout.mean(axis=0)).sum(axis=1).mean()))
