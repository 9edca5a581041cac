"""Stratified orders of images, and label budgets of which each smaller one is part of each larger one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdpipe.errors import DataError
from kdpipe.seeds import derive_seed

Indices = NDArray[np.int64]


def stratified_order(labels: NDArray[np.int64], seed: int) -> Indices:
    """A random order of which *every prefix* is stratified.

    The i-th image of a class with n stands at i/n, so a prefix holds each class in proportion, and
    the first K images are one of each of K classes. Prefixes are nested, which is what label
    budgets, probe sets and display limits want.
    """
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = np.arange(len(members)) / len(members)
    tie = rng.permutation(len(labels))
    return np.lexsort((tie, place)).astype(np.int64)


def label_budget(labels: NDArray[np.int64], fraction: float, seed: int) -> Indices:
    """Positions of the labelled images of a budget: stratified, seeded, nested in larger budgets.

    Raises:
        DataError: the budget does not reach one image a class.
    """
    classes = len(np.unique(labels))
    count = round(fraction * len(labels))
    if count < classes:
        raise DataError(
            f"label_fractions: {fraction:g} of {len(labels)} training images are {count} labels for {classes} "
            f"classes; take at least {classes / len(labels):.4g}."
        )
    return np.sort(stratified_order(labels, derive_seed("labels", seed))[:count])
