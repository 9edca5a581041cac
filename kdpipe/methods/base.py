"""What a distillation method is: one pure loss, and one small record that says what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from kdpipe.networks import Outputs, Tap

Terms = dict[str, Tensor]


class Parameters(BaseModel):
    """A method's parameters with their published defaults; unknown ones are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True)
class Pair:
    """A student and its teacher as shapes: what extras are built from and refusals rest on."""

    student: list[Tap]
    teacher: list[Tap]
    classes: int


@dataclass(frozen=True)
class Step:
    """All a loss may look at in one training step.

    Attributes:
        student, teacher: outputs on one and the same views; the teacher's carry no gradient.
        target: labels (L,) of the first L rows; the rest of the batch has none.
        extras: the method's own trainable modules, if it has any.
    """

    student: Outputs
    teacher: Outputs | None
    target: Tensor
    parameters: Any
    extras: nn.Module | None

    @property
    def of_teacher(self) -> Outputs:
        assert self.teacher is not None, "the registry says that this method needs no teacher"
        return self.teacher


def _no_extras(pair: Pair, parameters: Any) -> nn.Module | None:
    return None


def _fits(pair: Pair, parameters: Any) -> str | None:
    return None


@dataclass(frozen=True)
class Method:
    """A way to train a student.

    Attributes:
        role: what its networks are in a study.
        terms: weighted, named terms of the loss, whose sum is minimised and which reach the history.
        extras: builds trainable modules from shapes; they are dropped after training.
        refuse: says why a pair cannot be served, or None.
        own_initialisation: the student starts from other weights than its companions of the seed.
    """

    name: str
    title: str
    role: Literal["plain", "distilled", "control"]
    terms: Callable[[Step], Terms]
    needs_teacher: bool
    formula: str
    summary: str
    citation: str
    parameters: type[Parameters] = Parameters
    extras: Callable[[Pair, Any], nn.Module | None] = _no_extras
    refuse: Callable[[Pair, Any], str | None] = _fits
    own_initialisation: bool = False
    version: int = 1

    def resolved(self, parameters: Mapping[str, Any]) -> Parameters:
        """Typed parameters, the defaults filled in."""
        return self.parameters.model_validate(dict(parameters))
