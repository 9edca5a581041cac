"""What networks answer: how sure and how right, which answers a method fixes or breaks, and how far two agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax
from scipy.stats import binomtest

from kdpipe.measures.registry import OF_IMAGES, Array, Measure

ECE_BINS = 15


@dataclass(frozen=True)
class Flips:
    """How many images went from right to wrong and back between two networks; the four add up to N.

    Attributes:
        fixed: wrong before, right after.
        broken: right before, wrong after.
        inherited: wrong before and after, with the same wrong answer or another.
        kept: right before and after.
    """

    fixed: int
    broken: int
    inherited: int
    kept: int

    @property
    def shares(self) -> dict[str, float]:
        """The four as shares of all images; ``fixed`` minus ``broken`` is the gain in accuracy."""
        counts = vars(self)
        return {name: count / sum(counts.values()) for name, count in counts.items()}


def margins(logits: Array, y: Array) -> Array:
    """Logit of the true class minus the largest other one (N,), from ``logits`` (N, K) and labels ``y`` (N,).

    Positive where the answer is right, negative where it is wrong, 0 where the true class ties for the largest.

    Raises:
        ValueError: fewer than two classes, labels outside 0 ... K - 1, sizes that differ, NaN or infinity.
    """
    scores, labels = _check_logits(logits, y)
    rows = np.arange(len(labels))
    true = scores[rows, labels]
    others = scores.copy()
    others[rows, labels] = -np.inf
    return np.asarray(true - others.max(axis=1))


def ece(logits: Array, y: Array, bins: int = ECE_BINS) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over ``bins`` bins of equal width.

    sum over bins of |B| / N |accuracy(B) - confidence(B)|, confidence being the largest softmax probability
    and a bin open below and closed above. Guo et al. (2017), eq. 3, with 15 bins as there. Biased upwards: a
    perfectly calibrated network scores above 0 on few images. Equal logits are answered with the smallest label.

    Raises:
        ValueError: fewer than one bin, or as :func:`margins`.
    """
    if bins < 1:
        raise ValueError(f"ece needs at least one bin, not {bins}.")
    scores, labels = _check_logits(logits, y)
    confidence = softmax(scores, axis=1).max(axis=1)
    gap = (scores.argmax(axis=1) == labels) - confidence
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    return float(np.abs(np.bincount(place, weights=gap, minlength=bins)).sum() / len(gap))


def flips(before: Array, after: Array, y: Array) -> Flips:
    """Which images two networks' answers ``before`` and ``after`` (N,) fix, break, inherit and keep, given ``y`` (N,).

    Raises:
        ValueError: sizes that differ, no images, or answers that are not whole numbers.
    """
    first, second = check_answers(before, after)
    labels, _ = check_answers(y, after)
    was, now = first == labels, second == labels
    return Flips(
        fixed=int((~was & now).sum()),
        broken=int((was & ~now).sum()),
        inherited=int((~was & ~now).sum()),
        kept=int((was & now).sum()),
    )


def churn(a: Array, b: Array) -> float:
    """Share of images that two networks' answers ``a`` and ``b`` (N,) differ on. Milani Fard et al. (2016).

    Raises:
        ValueError: sizes that differ, no images, or answers that are not whole numbers.
    """
    first, second = check_answers(a, b)
    return float((first != second).mean())


def kappa(a: Array, b: Array) -> float:
    """Cohen's kappa of answers ``a`` and ``b`` (N,): agreement beyond that of the same answers in random order.

    (p - e) / (1 - e), p the share answered alike and e = sum_c share of c in a * share of c in b. Cohen
    (1960), eq. 1. 0 where both always give the same one answer: shuffled, they would agree as much; scikit-learn's
    ``cohen_kappa_score`` has NaN there.

    Raises:
        ValueError: as :func:`churn`.
    """
    first, second = check_answers(a, b)
    n = len(first)
    answers, index = np.unique(np.concatenate([first, second]), return_inverse=True)
    counts_a, counts_b = (np.bincount(part, minlength=len(answers)) for part in (index[:n], index[n:]))
    by_chance = int(counts_a @ counts_b)
    if by_chance == n * n:
        return 0.0
    return float((n * int((first == second).sum()) - by_chance) / (n * n - by_chance))


def mcnemar(correct_a: Array, correct_b: Array) -> float:
    """Exact two-sided p-value for one network being right more often than another on the same images.

    Of the images that only one of the two answers rightly, each is a fair coin if both are equally good:
    McNemar (1947), with the binomial distribution in place of the chi-squared. 1 where there is no such image.
    It knows of one training run of each: another seed may decide otherwise.

    Args:
        correct_a, correct_b: (N,) whether each image is answered rightly, as booleans or 0 and 1.

    Raises:
        ValueError: sizes that differ, no images, or values other than 0 and 1.
    """
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    _check_sizes(a, b)
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("mcnemar takes whether each answer is right, as booleans or 0 and 1.")
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def _check_logits(logits: Array, y: Array) -> tuple[Array, Array]:
    scores, labels = np.asarray(logits, dtype=np.float64), np.asarray(y)
    if scores.ndim != 2 or len(scores) == 0 or scores.shape[1] < 2:
        raise ValueError(f"Logits must be of shape (N, K) with at least two classes, not {scores.shape}.")
    if not np.isfinite(scores).all():
        raise ValueError("The logits hold NaN or infinity.")
    if labels.shape != (len(scores),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"y must hold one whole number for each of the {len(scores)} rows of logits.")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"Labels must lie between 0 and K - 1 = {scores.shape[1] - 1}.")
    return scores, labels


def check_answers(a: Array, b: Array) -> tuple[Array, Array]:
    """Two networks' answers as whole numbers (N,) for the same images, or ValueError."""
    first, second = np.asarray(a), np.asarray(b)
    _check_sizes(first, second)
    if not (np.issubdtype(first.dtype, np.integer) and np.issubdtype(second.dtype, np.integer)):
        raise ValueError(f"Answers must be whole numbers, not {first.dtype} and {second.dtype}.")
    return first, second


def _check_sizes(a: Array, b: Array) -> None:
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise ValueError(f"Answers must be two rows for the same images, not of shapes {a.shape} and {b.shape}.")


MEASURES = (
    Measure(
        name="ece",
        of="network",
        title="Calibration error",
        summary="How far the network's confidence is from its accuracy, on average over levels of confidence.",
        citation="Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks",
        direction="lower",
        function=ece,
        takes=("logits", "y"),
        chance=None,
        cost="N K",
        low=0.0,
        high=1.0,
        invariant_to=OF_IMAGES,
    ),
    Measure(
        name="churn",
        of="answers",
        title="Churn",
        summary="Share of images that the two networks answer differently, right or wrong.",
        citation="Milani Fard, Cormier, Canini and Gupta (2016), Launch and iterate: reducing prediction churn",
        direction="lower",
        function=churn,
        takes=("a", "b"),
        chance="shuffled",
        cost="N",
        low=0.0,
        high=1.0,
        invariant_to=OF_IMAGES,
    ),
    Measure(
        name="kappa",
        of="answers",
        title="Cohen's kappa",
        summary="How often the two networks answer alike, beyond what the frequencies of their answers would bring.",
        citation="Cohen (1960), A coefficient of agreement for nominal scales",
        direction="higher",
        function=kappa,
        takes=("a", "b"),
        chance=0.0,
        cost="N log N",
        low=-1.0,
        high=1.0,
        invariant_to=OF_IMAGES,
    ),
    Measure(
        name="mcnemar",
        of="answers",
        title="McNemar's p-value",
        summary="How surprising the difference in accuracy would be if both networks were equally good.",
        citation="McNemar (1947), Note on the sampling error of the difference between correlated proportions or "
        "percentages; exact form",
        direction="neither",
        function=mcnemar,
        takes=("correct_a", "correct_b"),
        chance=None,
        cost="N",
        low=0.0,
        high=1.0,
        invariant_to=OF_IMAGES,
    ),
)
