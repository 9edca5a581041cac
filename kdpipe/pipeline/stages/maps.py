"""The stages from vectors to maps: what the networks share at a depth, and each layer's own map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdpipe.engine.stage import ANY, Context, Task, batch_stage, stage
from kdpipe.errors import MapError
from kdpipe.measures import nearest_neighbours
from kdpipe.pipeline.stages.embeddings import read_vectors
from kdpipe.representation.map_jobs import MapJob, Neighbours, TsneOptions, principal_components
from kdpipe.representation.projectors import PROJECTORS
from kdpipe.representation.tsne import consensus

LAYOUT = "layout.npy"


@stage("consensus", takes=(ANY,), title="maps that networks share")
def make_consensus(task: Task, context: Context) -> None:
    """One t-SNE a depth, of what the networks' layers there have in common; an input a network and layer."""
    params = task.stage.params
    options = TsneOptions(**params["options"])
    jobs = []
    for name, order in sorted(params["orders"].items()):
        points = principal_components(read_vectors(task.inputs[name], order, params["view"]))
        jobs.append(MapJob(points, options, _neighbours(points, params["neighbours"])))
    np.save(task.folder / LAYOUT, consensus(jobs))


@batch_stage("map", version=3, takes=("embedding",), may_take=("consensus",))
def make_maps(tasks: Sequence[Task], context: Context) -> None:
    """Maps of many layers by one projector."""
    projector = PROJECTORS[tasks[0].stage.params["projector"]]
    by_name = {task.stage.name: task for task in tasks}
    jobs: dict[str, MapJob] = {}
    with context.reporter.track(f"{projector.title} maps", len(tasks)) as bar:

        def publish(name: str, layout: NDArray[Any] | MapError) -> None:
            if isinstance(layout, MapError):
                by_name[name].fail(str(layout))
            else:
                np.save(by_name[name].folder / LAYOUT, layout.astype(np.float32))
                by_name[name].finish()
            bar.advance(1, name)

        for name, task in by_name.items():
            with task.alone():
                jobs[name] = _map_job(task)
        context.scratch.mkdir(parents=True, exist_ok=True)
        projector.layouts(jobs, context.scratch, publish)


def _map_job(task: Task) -> MapJob:
    """The layer's first 50 principal components and their exact neighbours (``space=pca50``)."""
    params = task.stage.params
    points = principal_components(read_vectors(task.inputs["embedding"], params["order"], params["view"]))
    start = np.load(task.inputs["consensus"] / LAYOUT) if "consensus" in task.inputs else None
    options = PROJECTORS[params["projector"]].options(**params["options"])
    return MapJob(points, options, _neighbours(points, params["neighbours"]), start)


def _neighbours(points: NDArray[Any], wanted: int) -> Neighbours:
    return Neighbours(*nearest_neighbours(points, min(wanted, len(points) - 1)))
