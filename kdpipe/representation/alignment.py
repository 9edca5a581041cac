"""Putting a map on the axes of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import orthogonal_procrustes

from kdpipe.errors import MapError
from kdpipe.representation.map_jobs import Array


@dataclass(frozen=True)
class Aligned:
    """A layout on the axes of a reference.

    Attributes:
        layout: (N, 2) float32, in the units of the reference.
        moved: (N,) how far each point still is from its place in the reference, in RMS radii of the
            reference (root mean square distance to its centre).
    """

    layout: Array
    moved: Array


def align(layout: Array, reference: Array) -> Aligned:
    """Lay ``layout`` (N, 2) over ``reference`` (N, 2) by translation, rotation, reflection and one scale.

    Orthogonal Procrustes, Schönemann (1966); the scale of Schönemann and Carroll (1970). None of these
    changes who is near whom, so maps of one kind can share axes.

    Raises:
        MapError: shapes that differ, NaN or infinity, or all points of one of them in one place.
    """
    moving, fixed = np.asarray(layout, np.float64), np.asarray(reference, np.float64)
    if moving.shape != fixed.shape or moving.ndim != 2:
        raise MapError(f"Maps to be aligned must show the same points; they have shapes {moving.shape}, {fixed.shape}.")
    if not (np.isfinite(moving).all() and np.isfinite(fixed).all()):
        raise MapError("A map to be aligned holds NaN or infinity.")
    centre = fixed.mean(axis=0)
    moving, fixed = moving - moving.mean(axis=0), fixed - centre
    size, radius = (float(np.square(moving).sum()), float(np.sqrt(np.square(fixed).sum(axis=1).mean())))
    if not (size > 0 and radius > 0):
        raise MapError("A map whose points are all in one place cannot be aligned.")
    rotation, agreement = orthogonal_procrustes(moving, fixed)
    turned = moving @ rotation * (agreement / size)
    moved = np.linalg.norm(turned - fixed, axis=1) / radius
    return Aligned(layout=(turned + centre).astype(np.float32), moved=moved)
