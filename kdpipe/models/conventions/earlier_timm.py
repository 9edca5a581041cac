"""Names of older timm and of authors' own repositories, which timm itself translates, family by family."""

from __future__ import annotations

import inspect
import sys

from timm.models import model_entrypoint
from torch import Tensor, nn

from kdpipe.models.conventions.convention import Convention, State

_FILTERS = ("checkpoint_filter_fn", "_filter_fn")  # what timm's modules call them


def _by_timm(state: State, model: nn.Module, arch: str) -> State | None:
    """What timm's own filter of the architecture makes of a state dict; None where there is none or it fails."""
    for module in (model_entrypoint(arch).__module__, type(model).__module__):
        for name in _FILTERS:
            if function := getattr(sys.modules[module], name, None):
                arguments = (dict(state), model)[: 1 if len(inspect.signature(function).parameters) == 1 else 2]
                try:
                    found = function(*arguments)
                except Exception:  # written for the files of its family, it fails in any way at others
                    return None
                return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    return None


EARLIER_TIMM = Convention("names that timm itself translates", r".*", _by_timm)
