"""How alike two layers are, whatever their widths.

Every measure is 1 for two layers that differ by rotation, translation and isotropic scale only, and takes
layers as arrays or as :class:`PreparedLayer`, which keeps what a second comparison would work out again.
A layer that tells no images apart is like no other: it scores 0, even compared with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from kdpipe.measures.hsic import hsic, normalised, unbiased_hsic
from kdpipe.measures.map_quality import random_recall
from kdpipe.measures.neighbourhood import check_k
from kdpipe.measures.prepared_layer import Layer, PreparedLayer, prepare_layer, same_images
from kdpipe.measures.registry import OF_SHAPE, Array, Measure
from kdpipe.measures.tiles import Tiles

MUTUAL_K = 10


def similarity_table(
    measure: Callable[[PreparedLayer, PreparedLayer], float], layers: Sequence[Layer], others: Sequence[Layer]
) -> Array:
    """``measure`` (L, M) of every one of ``layers`` with every one of ``others``, each prepared once."""
    rows, columns = [prepare_layer(layer) for layer in layers], [prepare_layer(layer) for layer in others]
    return np.array([[measure(a, b) for b in columns] for a in rows]).reshape(len(rows), len(columns))


def cka(X: Layer, Y: Layer) -> float:
    """Debiased linear CKA of two layers ``X`` (N, p) and ``Y`` (N, q) on the same images, in [-1, 1].

    HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)), Kornblith et al. (2019), section 3, with the unbiased HSIC of
    Song et al. (2012), section 2, as written in Nguyen, Raghu and Kornblith (2021), eq. 3. The biased estimator reads
    .89 for independent X and Y of width 512 on 64 images; this one reads about 0. Unchanged by rotation,
    translation and isotropic scale of either layer. A layer that tells no images apart scores 0.

    Raises:
        ValueError: fewer than 4 images, a different number of rows, NaN or infinity.
    """
    a, b = same_images(X, Y)
    return normalised(hsic(a.centred, b.centred), a.self_hsic, b.self_hsic)


def cka_rbf(X: Layer, Y: Layer) -> float:
    """Debiased CKA of ``X`` (N, p) and ``Y`` (N, q) with kernels exp(-|x - y|^2 / 2s^2), in [-1, 1].

    s is 0.4 of the layer's own median distance between different images (of all of them, or of a fixed 2,000):
    Kornblith et al. (2019), section 3, who tried 0.2, 0.4 and 0.8. Local structure weighs more than in :func:`cka`.
    The same unbiased HSIC: its traces and the kernels' row sums come from one pass over blocks of both kernels.

    Raises:
        ValueError: fewer than 4 images, a different number of rows, NaN or infinity.
    """
    return float(cka_rbf_table([X], [Y])[0, 0])


def cka_rbf_table(layers: Sequence[Layer], others: Sequence[Layer]) -> Array:
    """:func:`cka_rbf` (L, M) of every one of ``layers`` with every one of ``others``.

    Each layer's kernel is worked out once, a tile at a time; one tile for each layer is in memory.
    """
    every = [prepare_layer(layer) for layer in (*layers, *others)]
    rows, columns = every[: len(layers)], every[len(layers) :]
    for layer in every[1:]:
        same_images(every[0], layer)
    totals = np.zeros((len(every), len(every[0])))
    own, cross = np.zeros(len(every)), np.zeros((len(rows), len(columns)))
    for parts in zip(*(Tiles.of_points(layer.of) for layer in every), strict=True):
        here, there, _ = parts[0]
        kernels = [_rbf(layer, *part) for layer, part in zip(every, parts, strict=True)]
        totals[:, here] += [kernel.sum(1, dtype=torch.float64).numpy() for kernel in kernels]
        if here != there:  # a tile off the diagonal stands for its mirror image too
            totals[:, there] += [kernel.sum(0, dtype=torch.float64).numpy() for kernel in kernels]
        times = 1 if here == there else 2
        own += [times * _dot(kernel, kernel) for kernel in kernels]
        cross += [[times * _dot(a, b) for b in kernels[len(rows) :]] for a in kernels[: len(rows)]]
    selves = [unbiased_hsic(float(trace), sums, sums) for trace, sums in zip(own, totals, strict=True)]
    table = np.zeros_like(cross)
    for i, j in np.ndindex(table.shape):
        value = unbiased_hsic(float(cross[i, j]), totals[i], totals[len(rows) + j])
        table[i, j] = normalised(value, selves[i], selves[len(rows) + j])
    return table


def rsa(X: Layer, Y: Layer) -> float:
    """Spearman correlation of the distances between images in ``X`` (N, p) with those in ``Y`` (N, q), in [-1, 1].

    Kriegeskorte, Mur and Bandettini (2008), Representational similarity analysis. Euclidean distances, since the
    correlation distance used there changes with a translation. All pairs up to N = 2,000; beyond it those of
    2,000 images, drawn once with a fixed seed. 0 where a layer has all images equally far apart.

    Raises:
        ValueError: fewer than 4 images, a different number of rows, NaN or infinity.
    """
    a, b = same_images(X, Y)
    return float(np.clip(a.distance_ranks @ b.distance_ranks, -1, 1))


def procrustes(X: Layer, Y: Layer) -> float:
    """How much of ``Y`` (N, q) the best rotation of ``X`` (N, p) reaches, both centred and of length 1; in [0, 1].

    The nuclear norm of X'Y, which is 1 - D/2 for the D of Ding, Denain and Steinhardt (2021), section 2, and the
    cosine of the angular distance of Williams et al. (2021), eq. 5. Not debiased: with widths near N it is high for
    unrelated layers too, so read it with its value for shuffled images.

    Raises:
        ValueError: fewer than 4 images, a different number of rows, NaN or infinity.
    """
    a, b = same_images(X, Y)
    return float(np.clip(np.linalg.svd(a.centred.T @ b.centred, compute_uv=False).sum(), 0, 1))


def mutual_knn(X: Layer, Y: Layer, k: int = MUTUAL_K) -> float:
    """Mean share of an image's ``k`` nearest in ``X`` (N, p) that are among its k nearest in ``Y`` (N, q), in [0, 1].

    Huh et al. (2024), The platonic representation hypothesis, appendix A, with Euclidean distances in place of inner
    products, which change with a translation. k / (N - 1) for unrelated layers. Equal distances go to the smaller
    index in both, so copies that both layers make of the same images are shared neighbours.

    Raises:
        ValueError: ``k`` is not between 1 and N - 1, fewer than 4 images, a different number of rows, NaN or infinity.
    """
    a, b = same_images(X, Y)
    check_k(k, len(a))
    if not (a.tells_apart and b.tells_apart):
        return 0.0
    both = np.sort(np.hstack([a.neighbours(k), b.neighbours(k)]), axis=1)
    return float((both[:, 1:] == both[:, :-1]).sum() / (len(a) * k))


def svcca(X: Layer, Y: Layer) -> float:
    """Mean canonical correlation of the directions that hold 99 % of the variance of ``X`` (N, p) and ``Y`` (N, q).

    Raghu et al. (2017), SVCCA, section 2.1; over as many as the smaller of the two keeps. In [0, 1], and not debiased:
    it nears 1 for unrelated layers when the directions kept are as many as the images.

    Raises:
        ValueError: fewer than 4 images, a different number of rows, NaN or infinity.
    """
    a, b = same_images(X, Y)
    kept = min(a.basis.shape[1], b.basis.shape[1])
    if kept == 0:
        return 0.0
    return float(np.clip(np.linalg.svd(a.basis.T @ b.basis, compute_uv=False), 0, 1).mean())


def _rbf(layer: PreparedLayer, here: slice, there: slice, squared: torch.Tensor) -> torch.Tensor:
    """The kernel's tile, without the diagonal of the whole."""
    kernel = squared.mul_(-0.5 / layer.bandwidth**2).exp_()
    return kernel.fill_diagonal_(0) if here == there else kernel


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))


def _chance_of_mutual_knn(y: Array, k: int) -> float:
    return random_recall(len(y), k)


MEASURES = (
    Measure(
        name="cka",
        of="pair",
        title="CKA",
        summary="How alike two layers arrange the images: 1 up to rotation and scale, about 0 if unrelated.",
        citation="Kornblith et al. (2019), Similarity of neural network representations revisited; debiased as "
        "Nguyen, Raghu and Kornblith (2021), Do wide and deep networks learn the same things?",
        direction="higher",
        function=cka,
        takes=("X", "Y"),
        chance=0.0,
        cost="N d²",
        low=-1.0,
        high=1.0,
        all_layers=True,
        takes_prepared=True,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="cka_rbf",
        of="pair",
        title="CKA (local)",
        summary="As CKA, with a kernel that lets near images weigh more.",
        citation="Kornblith et al. (2019), Similarity of neural network representations revisited; debiased as "
        "Nguyen, Raghu and Kornblith (2021), Do wide and deep networks learn the same things?",
        direction="higher",
        function=cka_rbf,
        takes=("X", "Y"),
        chance=0.0,
        cost="N² d",
        low=-1.0,
        high=1.0,
        takes_prepared=True,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="rsa",
        of="pair",
        title="Representational similarity",
        summary="Whether images far apart in one layer are far apart in the other, by rank.",
        citation="Kriegeskorte, Mur and Bandettini (2008), Representational similarity analysis",
        direction="higher",
        function=rsa,
        takes=("X", "Y"),
        chance=0.0,
        cost="N² d",
        low=-1.0,
        high=1.0,
        takes_prepared=True,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="procrustes",
        of="pair",
        title="Procrustes similarity",
        summary="How much of one layer the best rotation of the other reaches.",
        citation="Ding, Denain and Steinhardt (2021), Grounding representation similarity through statistical testing; "
        "Williams et al. (2021), Generalized shape metrics on neural representations",
        direction="higher",
        function=procrustes,
        takes=("X", "Y"),
        chance="shuffled",
        cost="N d² + d³",
        low=0.0,
        high=1.0,
        takes_prepared=True,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="mutual_knn",
        of="pair",
        title="Shared neighbours",
        summary="Share of an image's nearest others that two layers agree on.",
        citation="Huh et al. (2024), The platonic representation hypothesis",
        direction="higher",
        function=mutual_knn,
        takes=("X", "Y"),
        chance=_chance_of_mutual_knn,
        cost="N² d",
        low=0.0,
        high=1.0,
        k=MUTUAL_K,
        takes_prepared=True,
        invariant_to=OF_SHAPE,
    ),
    Measure(
        name="svcca",
        of="pair",
        title="SVCCA",
        summary="How well the main directions of one layer predict those of the other, each counted alike.",
        citation="Raghu et al. (2017), SVCCA: singular vector canonical correlation analysis for deep learning",
        direction="higher",
        function=svcca,
        takes=("X", "Y"),
        chance="shuffled",
        cost="N d² + d³",
        low=0.0,
        high=1.0,
        takes_prepared=True,
        invariant_to=OF_SHAPE,
    ),
)
