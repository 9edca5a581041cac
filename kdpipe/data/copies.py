"""Images that stand in a dataset more than once: in training and in test, or in two classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.bytes_]


def copies_in_words(train: Digests, labels: NDArray[np.int64], others: Mapping[str, Digests]) -> Iterator[str]:
    """A sentence on each kind of copies that makes accuracies say less.

    Args:
        train: (N,) of the training images, one hash each, equal where the pixels are.
        labels: (N,) of these.
        others: (M,) of each other split, by its name.
    """
    for name, digests in others.items():
        if copied := int(np.isin(digests, train).sum()):
            yield (
                f"{copied:,} of {len(digests):,} {name} images are training images too, pixel by pixel: accuracy on "
                "them tells little of new images."
            )
    _, image = np.unique(train, return_inverse=True)
    images, classes = np.unique(np.unique(np.stack([image, labels]), axis=1)[0], return_counts=True)
    if (classes > 1).any():
        several = int(np.isin(image, images[classes > 1]).sum())
        yield f"{several:,} of {len(train):,} training images stand in several classes, pixel by pixel."
