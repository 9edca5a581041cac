"""Known factors of an image, how much of each a layer holds linearly, and the layer with them taken out.

After the split of van Eck et al. (2025), PLM-eXplain: a part that known factors explain, and a residual part.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy.ndimage import correlate1d
from scipy.special import softmax
from scipy.stats import entropy

from kdpipe.measures.distances import points, row_slices
from kdpipe.measures.registry import Array
from kdpipe.measures.ridge import Decomposition, centred
from kdpipe.registry import Registry

Key = TypeVar("Key", bound=Hashable)

FOLDS = 5
# Ridge penalties, as multiples of the largest eigenvalue of X'X: from next to none to nothing left.
PENALTIES = np.logspace(-8, 2, 21)
_LUMA = np.array([299.0, 587.0, 114.0])
_LUMA_WHITE = 255_000.0
_FOLD_SEED = 0


@dataclass(frozen=True)
class Factor:
    """One known factor of images.

    Attributes:
        function: gives (N,), or (N, m) for a factor of several columns: a circular one has a cosine and a sine.
        takes: what it is worked out from: ``images`` (N, C, H, W) uint8, or the ``logits`` (N, K) that the study's
            teacher gives them.
        version: raised when it would give other values; only what rests on them is made again.
    """

    name: str
    title: str
    summary: str
    citation: str
    function: Callable[[Array], Array]
    takes: Literal["images", "logits"] = "images"
    version: int = 1


def brightness(images: Array) -> Array:
    """Mean luma (N,) in [0, 1] of ``images`` (N, C, H, W) uint8, C = 3 (red, green, blue) or 1 (grey).

    Luma is .299 R + .587 G + .114 B of the stored values, ITU-R BT.601; a grey image's luma is its value.

    Raises:
        ValueError: another type or shape, or no images.
    """
    return np.concatenate([luma.mean(axis=(1, 2)) for luma in map(_luma, _colours(images))]) / _LUMA_WHITE


def contrast(images: Array) -> Array:
    """Standard deviation (N,) of the luma in [0, 1], at most .5. Peli (1990), root-mean-square contrast.

    Raises:
        ValueError: as :func:`brightness`.
    """
    return np.concatenate([luma.std(axis=(1, 2)) for luma in map(_luma, _colours(images))]) / _LUMA_WHITE


def hue(images: Array) -> Array:
    """Dominant hue (N, 2) as cosine and sine, times how far the image's pixels agree on it.

    The sum of the pixels' chroma vectors over the sum of their lengths: Hanbury (2003), the mean hue
    weighted by colour, with its length. Red is (1, 0), green at 120 and blue at 240 degrees. Length 1: one hue
    throughout; (0, 0): hues that cancel, and a grey image, which has none.

    A hue just above 0 degrees and one just below 360 are alike, so the angle itself may not enter a
    regression: its cosine and sine do, as two columns predicted together. :func:`explained_share` adds up
    their squared errors, so that it does not matter where on the circle 0 degrees lies.

    Raises:
        ValueError: as :func:`brightness`.
    """
    found = []
    for red, green, blue in map(_channels, _colours(images)):
        across, up = red - (green + blue) / 2, np.sqrt(0.75) * (green - blue)
        chroma = np.hypot(across, up).sum(axis=(1, 2))
        total = np.stack([across.sum(axis=(1, 2)), up.sum(axis=(1, 2))], axis=1)
        found.append(total / np.where(chroma > 0, chroma, 1)[:, None])
    return np.concatenate(found)


def colourfulness(images: Array) -> Array:
    """Colourfulness (N,) of Hasler and Süsstrunk (2003): 0 for grey, about 109 for extremely colourful.

    With rg = R - G and yb = (R + G) / 2 - B of the stored values 0 ... 255, the length of their standard
    deviations plus .3 times that of their means.

    Raises:
        ValueError: as :func:`brightness`.
    """
    found = []
    for red, green, blue in map(_channels, _colours(images)):
        rg, yb = red - green, (red + green) / 2 - blue
        spread = np.hypot(rg.std(axis=(1, 2)), yb.std(axis=(1, 2)))
        found.append(spread + 0.3 * np.hypot(rg.mean(axis=(1, 2)), yb.mean(axis=(1, 2))))
    return np.concatenate(found)


def edge_density(images: Array) -> Array:
    """Mean length (N,) of the Sobel gradient of the luma, in units of a straight edge from black to white.

    Sobel and Feldman (1968); the image is mirrored at its border, which is therefore no edge.

    Raises:
        ValueError: as :func:`brightness`.
    """
    found = []
    for luma in map(_luma, _colours(images)):
        across, down = _sobel(luma, along=2, across=1), _sobel(luma, along=1, across=2)
        found.append(np.hypot(across, down).mean(axis=(1, 2)))
    return np.concatenate(found) / (4 * _LUMA_WHITE)


def teacher_entropy(logits: Array) -> Array:
    """Entropy (N,) in bits of the softmax of ``logits`` (N, K). Shannon (1948)."""
    return np.asarray(entropy(softmax(logits.astype(np.float64), axis=1), base=2, axis=1))


FACTORS = Registry(
    "factor",
    (
        Factor(
            name="brightness",
            title="Brightness",
            summary="How light the image is on average.",
            citation="Luma of ITU-R BT.601",
            function=brightness,
        ),
        Factor(
            name="contrast",
            title="Contrast",
            summary="How much light and dark differ within the image.",
            citation="Peli (1990), Contrast in complex images",
            function=contrast,
        ),
        Factor(
            name="hue",
            title="Hue",
            summary="The dominant hue, as a point in the colour circle; none for a grey image.",
            citation="Hanbury (2003), Circular statistics applied to colour images",
            function=hue,
        ),
        Factor(
            name="colourfulness",
            title="Colourfulness",
            summary="How strong and how varied the image's colours are.",
            citation="Hasler and Süsstrunk (2003), Measuring colourfulness in natural images",
            function=colourfulness,
        ),
        Factor(
            name="edge_density",
            title="Edges",
            summary="How much of the image is edges and texture.",
            citation="Sobel and Feldman (1968), A 3x3 isotropic gradient operator for image processing",
            function=edge_density,
        ),
        Factor(
            name="teacher_entropy",
            title="Teacher's doubt",
            summary="Entropy of the probabilities that the study's teacher gives the image, in bits.",
            citation="Shannon (1948), A mathematical theory of communication",
            function=teacher_entropy,
            takes="logits",
        ),
    ),
    reserved=(
        "all",
        "sample_id",
        "label",
        "class_name",
        "display_rank",
        "image",
    ),  # columns of samples, and all together
)


def explained_share(X: Array, f: Array) -> float:
    """Share of a factor ``f`` (N,) or (N, m) that a linear probe on the layer ``X`` (N, d) predicts on new images.

    R² of ridge regression over 5 fixed folds: 1 minus the squared errors over those of guessing the mean of the
    training part, added up over images and columns. Each fold's penalty is chosen on its training part alone, by
    leave-one-out error. Columns of different units should be put on one scale first.

    At most 1. Not clipped: below 0 the probe does worse than the mean, as it does by a little where there is
    nothing to find. 0 where the factor is constant, and where the layer tells no images apart. Unchanged by
    rotation, translation and isotropic scale of X; not by stretching one of its columns.

    Raises:
        ValueError: fewer than 10 images, sizes that differ, NaN or infinity.
    """
    return explained_shares(X, {"f": f})["f"]


def explained_shares(X: Array, factors: Mapping[Key, Array]) -> dict[Key, float]:
    """:func:`explained_share` of several factors (N,) or (N, m) in ``X`` (N, d), which is decomposed once for all."""
    rows = points(X, least=2 * FOLDS).rows.astype(np.float64)
    columns = [_check_factors(f, len(rows)) for f in factors.values()]
    targets = np.hstack(columns)
    stops = np.cumsum([part.shape[1] for part in columns])
    groups = [slice(stop - part.shape[1], stop) for part, stop in zip(columns, stops, strict=True)]
    left, total = np.zeros(targets.shape[1]), np.zeros(targets.shape[1])
    folds = folds_of(len(rows))
    for fold in range(FOLDS):
        train, test = folds != fold, folds == fold
        layer, centre = centred(rows[train])
        fitted = Decomposition.of(layer)
        mean = targets[train].mean(axis=0)
        slopes, _ = fitted.fit(targets[train] - mean, PENALTIES * fitted.values.max(initial=0), groups)
        truth = targets[test] - mean
        left += np.square(truth - (rows[test] - centre) @ slopes).sum(axis=0)
        total += np.square(truth).sum(axis=0)
    shares = {}
    for name, group in zip(factors, groups, strict=True):
        whole = float(total[group].sum())
        shares[name] = 1 - float(left[group].sum()) / whole if whole > 0 else 0.0
    return shares


def split(X: Array, F: Array) -> tuple[Array, Array]:
    """The part of ``X`` (N, d) that the factors ``F`` (N, m) explain linearly, and the residual part, both (N, d).

    X = mean + explained + residual, the mean over all images. Least squares of X on the factors, each put to
    mean 0 and standard deviation 1, with an intercept; an image's slopes are fitted on the other four fifths of
    the images. The mean is shared by all images and moves no distance. A constant factor explains nothing,
    a repeated one no more than once.

    Slopes from so many images are estimates: carried over to images outside these N they would leave a factor
    readable, to at most about d' / N of its variance with d' the layer's effective dimension.

    Raises:
        ValueError: fewer than 10 images or than 2 (m + 1), sizes that differ, NaN or infinity.
    """
    of = points(X, least=2 * FOLDS)
    factors = _check_factors(F, len(of))
    if len(of) < 2 * (factors.shape[1] + 1):
        raise ValueError(f"{factors.shape[1]} factors need at least {2 * factors.shape[1] + 2} images, not {len(of)}.")
    rows = of.rows.astype(np.float64)
    rows -= rows.mean(axis=0)
    factors = _standardised(factors)
    explained = np.empty_like(rows)
    folds = folds_of(len(rows))
    for fold in range(FOLDS):
        train, test = folds != fold, folds == fold
        centred = factors[train] - factors[train].mean(axis=0)
        slopes = np.linalg.pinv(centred, rcond=1e-10) @ (rows[train] - rows[train].mean(axis=0))
        explained[test] = factors[test] @ slopes
    return explained * of.scale, (rows - explained) * of.scale


def residual_share(X: Array, F: Array, f: Array) -> float:
    """:func:`explained_share` of ``f`` (N,) or (N, m) by the residual of ``X`` (N, d) after taking ``F`` out.

    Fresh probes, not those that were taken out: about 0 or below where nothing linear is left.

    Raises:
        ValueError: as :func:`split` and :func:`explained_share`.
    """
    return explained_share(split(X, F)[1], f)


def folds_of(n: int) -> Array:
    """Which of the five folds (N,) each of ``n`` images is scored in: at random, but the same for all layers."""
    return np.random.default_rng(_FOLD_SEED).permutation(np.arange(n) % FOLDS)


def _check_factors(f: Array, n: int) -> Array:
    """``f`` (N,) or (N, m) as (N, m) float64, divided by a power of two so that no square overflows."""
    factors = np.asarray(f, dtype=np.float64)
    factors = factors[:, None] if factors.ndim == 1 else factors
    if factors.ndim != 2 or factors.shape[0] != n or factors.shape[1] == 0:
        raise ValueError(f"A factor must hold a row for each of the {n} images, not be of shape {np.shape(f)}.")
    if not np.isfinite(factors).all():
        raise ValueError("A factor holds NaN or infinity.")
    return np.asarray(np.ldexp(factors, -int(np.frexp(np.abs(factors).max())[1])))


def _standardised(factors: Array) -> Array:
    """Columns of mean 0 and standard deviation 1; constant ones become 0."""
    constant = (factors == factors[0]).all(axis=0)
    spread = np.where(constant, 1, factors.std(axis=0))
    return np.where(constant, 0, (factors - factors.mean(axis=0)) / spread)


def _colours(images: Array) -> Iterator[Array]:
    """Blocks (B, 3, H, W) of checked images, in float64; grey ones as three equal channels."""
    pixels = np.asarray(images)
    if pixels.ndim != 4 or pixels.size == 0 or pixels.shape[1] not in (1, 3) or pixels.dtype != np.uint8:
        raise ValueError(f"Images must be uint8 (N, 1 or 3, H, W), not {pixels.dtype} {pixels.shape}.")
    for part in row_slices(len(pixels), 3 * pixels[0, 0].size):
        block = pixels[part].astype(np.float64)
        yield np.broadcast_to(block, (len(block), 3, *block.shape[2:]))


def _channels(colours: Array) -> tuple[Array, Array, Array]:
    return colours[:, 0], colours[:, 1], colours[:, 2]


def _luma(colours: Array) -> Array:
    """Luma (B, H, W) in thousandths of a stored value: whole numbers, so that even images come out exactly even."""
    return np.asarray(np.einsum("c,bchw->bhw", _LUMA, colours))


def _sobel(luma: Array, along: int, across: int) -> Array:
    """Difference over two pixels ``along`` one axis, smoothed (1, 2, 1) along the other, ``across``.

    scipy.ndimage.sobel would smooth over the third axis too, that is over neighbouring images.
    """
    return np.asarray(correlate1d(correlate1d(luma, [-1, 0, 1], along), [1, 2, 1], across))
