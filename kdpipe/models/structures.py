"""What modules return: a tensor, or tuples, lists, mappings and dataclasses that hold tensors."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

# A mapping's tensors are looked at in its own order, but for these names, which say what they are.
_FIRST = ("logits", "last_hidden_state")


def first_tensor(value: Any) -> Tensor | None:
    """The tensor of what a module returned: the first one, or what is called ``logits`` or ``last_hidden_state``."""
    return next(tensors(value), None)


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of what a module returned, in order, those within parts included."""
    if isinstance(value, Tensor):
        yield value
        return
    for _, part in _parts(value):
        yield from tensors(part)


def with_first(value: Any, tensor: Tensor) -> Any:
    """What a module returned, with ``tensor`` in the place of its first one; ``value`` itself stays as it was."""
    if isinstance(value, Tensor):
        return tensor
    place, part = next((place, part) for place, part in _parts(value) if first_tensor(part) is not None)
    changed = with_first(part, tensor)
    if isinstance(value, tuple):
        items = [changed if index == place else item for index, item in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    copied = copy.copy(value)
    if isinstance(value, Mapping | list):
        copied[place] = changed  # type: ignore[index]
    else:
        object.__setattr__(copied, str(place), changed)
    return copied


def answer_of(value: Any, classes: int) -> Tensor | None:
    """Logits (B, classes) of what a network returned: the first tensor of that shape, ``logits`` before others.

    A trailing (1, 1), as of classifiers that are convolutions, is dropped.
    """
    for tensor in tensors(value):
        if tensor.ndim >= 2 and tensor.shape[1] == classes and tensor[0].numel() == classes:
            return tensor.flatten(1)
    return None


def shapes(value: Any) -> str:
    """Shapes of what a module returned, for a sentence."""
    found = [str(tuple(tensor.shape)) for tensor in tensors(value)]
    return ", ".join(found) if found else f"a {type(value).__name__} without a tensor"


def _parts(value: Any) -> list[tuple[Hashable, Any]]:
    """The parts of a structure with their places, in the order in which they are looked at."""
    if isinstance(value, Mapping):
        return sorted(value.items(), key=lambda item: _FIRST.index(item[0]) if item[0] in _FIRST else len(_FIRST))
    if isinstance(value, tuple | list):
        named = getattr(value, "_fields", ())
        places = sorted(range(len(value)), key=lambda i: not (i < len(named) and named[i] in _FIRST))
        return [(i, value[i]) for i in places]
    if isinstance(value, nn.Module | type) or value is None:
        return []
    if dataclasses.is_dataclass(value):
        own = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    else:
        own = getattr(value, "__dict__", {})
    return sorted(own.items(), key=lambda item: _FIRST.index(item[0]) if item[0] in _FIRST else len(_FIRST))
