"""What a folder of vectors holds: samples, and networks with their layers.

An *array* is what NumPy takes: ``(N, d)`` vectors or ``(N, C, H, W)`` maps, float16 or float32 once checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdpipe.errors import DataError
from kdpipe.names import closest
from kdpipe.vocabulary import CONTROL, DISTILLED, PLAIN, TEACHER, TEACHER_ARCHITECTURE

# What a network of vectors may be. A checkpoint has the role of the student that it became, and a step.
VECTOR_ROLES = (TEACHER, PLAIN, DISTILLED, CONTROL)
# Which samples a study looks at, and which it fits probes on.
PROBE, REFERENCE = "probe", "reference"
SPLITS: Mapping[str, str] = {PROBE: PROBE, REFERENCE: REFERENCE, "test": PROBE, "train": REFERENCE}
LOGITS, IDS = "logits", "ids"  # keys of a network that are no layers
STUDENT, DISTILLATION = "student", "distillation"

Array = NDArray[Any]
_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True)
class NetworkRecord:
    """What a network is in its study.

    Attributes:
        name: unique among the networks.
        role: one of :data:`VECTOR_ROLES`.
        student: its architecture's name; students of one name are compared with each other.
        method: how it was trained, as the pages call it; by default "plain" or "distillation".
        label_fraction: share of the training labels it had.
        step: the training step of its vectors; None where nobody knows. Of networks that differ in it alone, the last
            one, or the one without a step, is the network as it is in the end, and the others are its checkpoints.
        origin: where it comes from, for people.

    Raises:
        DataError: a role that there is not, or a name that cannot stand in a table or an address.
    """

    name: str
    role: str
    student: str = ""
    method: str = ""
    seed: int = 0
    label_fraction: float = 1.0
    step: int | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.role, str) or self.role not in VECTOR_ROLES:
            raise DataError(
                f"network {self.name!r}: there is no role {self.role!r}{closest(str(self.role), VECTOR_ROLES)}; "
                f"roles: {', '.join(VECTOR_ROLES)}."
            )
        object.__setattr__(self, "student", self.student or (TEACHER_ARCHITECTURE if self.role == TEACHER else STUDENT))
        object.__setattr__(self, "method", self.method or (DISTILLATION if self.role == DISTILLED else self.role))
        for field in (STUDENT, "method"):
            value = getattr(self, field)
            if not isinstance(value, str) or not _NAME.fullmatch(value):
                raise DataError(
                    f"network {self.name!r}: its {field} is {value!r}, and must be lower-case letters, digits, '.', "
                    "'+' and '-'."
                )
        _whole(self, "seed", self.seed, 0)
        if self.step is not None:
            _whole(self, "step", self.step, 0)
        share = self.label_fraction
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise DataError(f"network {self.name!r}: label_fraction is {share!r}, and must be above 0, at most 1.")

    @property
    def place(self) -> tuple[object, ...]:
        """What no two networks of a study have in common."""
        return (self.role, self.student, self.method, self.seed, self.label_fraction, self.step)


def _whole(record: NetworkRecord, field: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DataError(
            f"network {record.name!r}: its {field} is {value!r}, and must be a whole number from {least} on."
        )


@dataclass(frozen=True)
class Samples:
    """What all networks saw, in the order of every stored array's rows.

    Attributes:
        ids: N of them, each once.
        labels: (N,) int64 positions among ``class_names``.
        reference: (N,) bool; whether probes are fitted on the sample. The others are looked at.
        texts: what a sample says, or is called.
        images: (N, C, H, W) uint8.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    class_names: Sequence[str]
    reference: NDArray[np.bool_]
    texts: Sequence[str] | None = None
    images: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Rows:
    """An array as somebody gives it: with the sample of each row, and not looked at before it is stored.

    Attributes:
        ids: which sample each row is of.
        load: the array.
        place: the file and key, for errors.
    """

    ids: Sequence[str]
    load: Callable[[], Any]
    place: str


@dataclass(frozen=True)
class ReducedRows:
    """A layer whose maps were made vectors already: every view of it, so that large maps need not be kept.

    Attributes:
        shape: (C, H, W) of the maps.
    """

    shape: tuple[int, ...]
    views: Mapping[str, Rows]


@dataclass(frozen=True)
class NetworkVectors:
    """A network's layers from input to output, and its logits (N, K) if they are known."""

    record: NetworkRecord
    layers: Mapping[str, Rows | ReducedRows]
    logits: Rows | None = None
