"""Conventions: how other libraries, and older timm, call the tensors of networks that timm has too."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from kdpipe.models.conventions.convention import Convention, State
from kdpipe.models.conventions.earlier_timm import EARLIER_TIMM
from kdpipe.models.conventions.inverted_residuals import INVERTED_RESIDUALS
from kdpipe.models.conventions.torchvision import TORCHVISION
from kdpipe.models.conventions.transformers import TRANSFORMERS

CONVENTIONS = (*TORCHVISION, *TRANSFORMERS, *INVERTED_RESIDUALS, EARLIER_TIMM)

__all__ = ["CONVENTIONS", "Convention", "State", "translations"]


def translations(state: State, model: nn.Module, arch: str) -> Iterator[tuple[Convention, State]]:
    """``state`` under the names of ``model``, by every convention that its names may follow."""
    for convention in CONVENTIONS:
        if convention.applies(state) and (translated := convention.translate(state, model, arch)) is not None:
            yield convention, translated
