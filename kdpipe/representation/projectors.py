"""Two-dimensional maps of a layer: PCA, t-SNE and ivis, all of the same prepared points.

:func:`principal_components` once, then any of ``PROJECTORS``; :func:`align` puts a map on the axes of another. Every
projector draws many maps in one call, because ivis must: it needs TensorFlow, which cannot share a
process with torch, so all ivis maps go to one ``python -m kdpipe.representation.ivis_worker``. Nothing here imports
TensorFlow, and openTSNE only when a t-SNE is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdpipe.registry import Registry
from kdpipe.representation.ivis import ivis_layouts
from kdpipe.representation.ivis_worker import IvisOptions
from kdpipe.representation.map_jobs import (
    Array,
    Layouts,
    MapJob,
    OnDone,
    PcaOptions,
    TsneOptions,
    in_turn,
    principal_components,
    two_columns,
)
from kdpipe.representation.tsne import tsne


@dataclass(frozen=True)
class Projector:
    """One way to draw maps.

    Attributes:
        options: a dataclass. Of its fields the study sets ``seed`` and ``perplexity``, where it has them.
        layouts: draws many maps; one that fails comes back as its MapError.
        can_start_from_map: whether it goes on from :attr:`MapJob.start`, so that networks can share a start.
        seconds: for one of 1,000 images on one core, roughly; what ``plan`` estimates with.
        version: raised when it would draw another map of the same points; only its own maps are drawn again.
    """

    name: str
    title: str
    summary: str
    citation: str
    options: type[Any]
    layouts: Callable[[Mapping[str, MapJob], Path, OnDone | None], Layouts]
    can_start_from_map: bool = False
    seconds: float = 1.0
    version: int = 1

    def __post_init__(self) -> None:
        """Refuse at once what no study could draw.

        Raises:
            ValueError: options that are no dataclass.
        """
        if not is_dataclass(self.options):
            raise ValueError(f"Projector {self.name!r}: its options must be a dataclass, not {self.options!r}.")

    def takes(self, option: str) -> bool:
        """Whether it has an option of this name."""
        return option in {field.name for field in fields(self.options)}


def pca(job: MapJob) -> Array:
    """The first two principal components (N, 2) of the points; a second one of zeros if there is only one."""
    return np.asarray(two_columns(principal_components(job.X, 2)))


PROJECTORS: Registry[Projector] = Registry(
    "projector",
    (
        Projector(
            name="tsne",
            title="t-SNE",
            summary="Keeps each image next to its nearest neighbours; distances between groups say little.",
            citation="van der Maaten and Hinton (2008), Visualizing data using t-SNE; openTSNE, Poličar et al. (2019)",
            options=TsneOptions,
            layouts=in_turn("t-SNE", tsne),
            can_start_from_map=True,
            seconds=4.0,
        ),
        Projector(
            name="ivis",
            title="ivis",
            summary="A small network trained to keep neighbours together; keeps more of the coarse arrangement.",
            citation="Szubert, Cole, Monaco and Drozdov (2019), Structure-preserving visualisation of high "
            "dimensional single-cell datasets",
            options=IvisOptions,
            layouts=ivis_layouts,
            seconds=6.0,
        ),
        Projector(
            name="pca",
            title="PCA",
            summary="The two directions in which the images differ most; linear, nothing is pulled apart.",
            citation="Pearson (1901), On lines and planes of closest fit; Hotelling (1933)",
            options=PcaOptions,
            layouts=in_turn("PCA", pca),
            seconds=0.3,
        ),
    ),
)
