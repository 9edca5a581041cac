"""Which of the teacher's neighbours a network owes to distillation, in the layers' own spaces."""

from __future__ import annotations

import numpy as np

from kdpipe.measures.distances import check_labels
from kdpipe.measures.registry import Array


def neighbour_credit(own: Array, plain: Array, teacher: Array, y: Array) -> dict[str, Array]:
    """Counts (N,) of neighbours by where else they are neighbours, and whether they share the image's class.

    ``kept``: neighbours in all three networks. ``gained``: in the distilled network and the teacher, not in the
    plain one. ``lost``: in the plain one and the teacher, not in the distilled one. ``invented``: in the distilled
    one alone. Each is told apart by class: ``kept_same``, ``kept_other`` and so on.

    Args:
        own, plain, teacher: (N, k) neighbours of each image in the distilled network, its plain companion
            and its teacher, as :func:`nearest_neighbours` gives them.
        y: (N,) labels.

    Raises:
        ValueError: shapes that differ, or a neighbour that is not among the images.
    """
    own, plain, teacher = (np.asarray(ids) for ids in (own, plain, teacher))
    if own.ndim != 2 or not own.shape == plain.shape == teacher.shape:
        raise ValueError(
            f"Neighbours of the three networks must be of one shape (N, k), not {own.shape}, {plain.shape}, "
            f"{teacher.shape}."
        )
    labels = check_labels(y, len(own))
    if max(ids.max(initial=0) for ids in (own, plain, teacher)) >= len(labels):
        raise ValueError(f"A neighbour is not among the {len(labels)} images.")
    in_plain, in_teacher = _among(own, plain), _among(own, teacher)
    found = {
        "kept": (own, in_plain & in_teacher),
        "gained": (own, in_teacher & ~in_plain),
        "lost": (teacher, _among(teacher, plain) & ~_among(teacher, own)),
        "invented": (own, ~in_teacher & ~in_plain),
    }
    counts = {}
    for kind, (ids, chosen) in found.items():
        same = labels[ids] == labels[:, None]
        counts[f"{kind}_same"] = (chosen & same).sum(axis=1)
        counts[f"{kind}_other"] = (chosen & ~same).sum(axis=1)
    return counts


def _among(ids: Array, others: Array) -> Array:
    """Whether each of ``ids`` (N, k) is in the same row of ``others`` (N, k)."""
    return np.asarray((ids[:, :, None] == others[:, None, :]).any(axis=2))
