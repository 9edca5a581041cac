"""Whose errors a distilled network makes: its answers against those of its teacher and of its plain companion."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np

from kdpipe.measures.answers import check_answers, mcnemar
from kdpipe.measures.registry import Array

# Whether teacher, plain companion and network itself are right, in this order.
COMBINATIONS = {
    "_".join("right" if right else "wrong" for right in rights): rights for rights in product((True, False), repeat=3)
}
# What became of an image, by whether the plain companion and the network itself are right.
OUTCOMES = {(True, True): "kept", (False, True): "fixed", (True, False): "broken", (False, False): "wrong"}


def flip_ledger(teacher: Array, plain: Array, own: Array, y: Array) -> dict[str, int | float]:
    """What distillation fixed and broke, and which errors it brought from the teacher, in counts of images.

    Returns:
        ``images``: N.
        ``right_right_right`` to ``wrong_wrong_wrong``: how many images teacher, plain and the network itself (in this
        order) answer rightly and wrongly; the eight add up to N.
        ``fixed``: plain wrong, the network right. ``broken``: plain right, the network wrong.
        ``inherited``: the network gives the teacher's wrong answer, and plain did not: it was right or wrong otherwise.
        ``same_error``, ``plain_same_error``: the network, or plain, gives the teacher's wrong answer, whatever the
        other says. The difference of the two is what was inherited less what was shed: networks that never heard of
        each other err alike too, so that a second plain student "inherits" as well.
        ``p_value``: :func:`mcnemar` of ``fixed`` against ``broken``.

    Args:
        teacher, plain, own: (N,) answers of the teacher, of the plain student of the same seed, and of the network.
        y: (N,) labels.

    Raises:
        ValueError: sizes that differ, no images, or answers that are not whole numbers.
    """
    teacher, plain, own, labels = _checked(teacher, plain, own, y)
    rights = [answers == labels for answers in (teacher, plain, own)]
    counted = Counter(zip(*(right.tolist() for right in rights), strict=True))
    _, of_plain, of_own = rights
    return {
        "images": len(labels),
        **{name: counted[combination] for name, combination in COMBINATIONS.items()},
        "fixed": int((~of_plain & of_own).sum()),
        "broken": int((of_plain & ~of_own).sum()),
        "inherited": int(inherited(teacher, plain, own, labels).sum()),
        "same_error": int(_same_error(teacher, own, labels).sum()),
        "plain_same_error": int(_same_error(teacher, plain, labels).sum()),
        "p_value": mcnemar(of_plain, of_own),
    }


def flip_outcomes(plain: Array, own: Array, y: Array) -> list[str]:
    """What became of each image from answers ``plain`` (N,) to ``own`` (N,): kept, fixed, broken, or wrong in both.

    Raises:
        ValueError: as :func:`flip_ledger`.
    """
    first, second = check_answers(plain, own)
    labels, _ = check_answers(y, own)
    return [OUTCOMES[pair] for pair in zip((first == labels).tolist(), (second == labels).tolist(), strict=True)]


def inherited(teacher: Array, plain: Array, own: Array, y: Array) -> Array:
    """Whether (N,) the network gives the teacher's wrong answer where plain gave another, right or wrong.

    Raises:
        ValueError: as :func:`flip_ledger`.
    """
    teacher, plain, own, labels = _checked(teacher, plain, own, y)
    return np.asarray(_same_error(teacher, own, labels) & (plain != teacher))


def _same_error(teacher: Array, answers: Array, labels: Array) -> Array:
    return np.asarray((teacher != labels) & (answers == teacher))


def _checked(*answers: Array) -> list[Array]:
    return [check_answers(one, answers[-1])[0] for one in answers]
