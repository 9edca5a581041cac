"""The stages that lay maps over each other: each on what the networks share at its depth, and how far seeds move it."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.engine.stage import ANY, Context, Task, stage
from kdpipe.errors import MapError
from kdpipe.measures import MEASURES
from kdpipe.pipeline.stages.map_measures import MAP_VALUE, VALUE
from kdpipe.pipeline.stages.maps import LAYOUT
from kdpipe.representation.alignment import align


@stage("alignment", takes=("map",), may_take=("reference",), title="aligning maps")
def make_alignment(task: Task, context: Context) -> None:
    """A map on the axes of its reference; as it is where it has none."""
    layout = np.load(task.inputs["map"] / LAYOUT)
    if "reference" in task.inputs:
        layout = on_reference(layout, np.load(task.inputs["reference"] / LAYOUT))
    np.save(task.folder / LAYOUT, layout)


@stage("seed-drift", version=2, takes=(ANY,), light=True)
def make_seed_drift(task: Task, context: Context) -> None:
    """One measure of an aligned map against those that differ in their seed alone, as a mean over these.

    The params name the order of the inputs. Nothing is written where the measure is not defined on these maps, such
    as one without extent.
    """
    measure = MEASURES[task.stage.params["measure"]]
    first, *others = (np.load(task.inputs[name] / LAYOUT) for name in task.stage.params["maps"])
    with suppress(ValueError):
        value = float(np.mean([measure.function(other, first) for other in others]))
        row = {"measure": measure.name, "value": value, "chance": None}
        pl.DataFrame([row], schema=MAP_VALUE).write_parquet(task.folder / VALUE)


def on_reference(layout: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """The layout (N, 2) on the reference's axes and in its size; as it is where the two cannot be aligned.

    Procrustes' own scale is undone: it shrinks a map the less it resembles the reference, which to
    the eye is compactness, the very thing that these maps are looked at for.
    """
    try:
        turned = align(layout, reference).layout
    except MapError:
        return layout
    centre, size = reference.mean(axis=0), _radius(turned)
    if size == 0:  # nothing of the one is in the other, so no turn is better than any
        return layout
    return np.asarray(centre + (turned - centre) * (_radius(reference) / size))


def _radius(layout: NDArray[np.float32]) -> float:
    """Root mean square distance of the points to their centre."""
    return float(np.sqrt(np.square(layout - layout.mean(axis=0)).sum(axis=1).mean()))
