"""How large a network may be, and what its arguments may hold: asked before it is built.

A study file, or the header of a weights file, may ask for a network that no machine holds. So it is built once without
its numbers (torch's meta device), and the building is broken off as soon as it grows beyond a limit. The limits lie
above all that a study on one accelerator could train: ViT-H/14 at 224 pixels has 0.63e9 parameters and 167e9 MACs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from kdpipe.errors import NetworkError

PARAMETERS = 1_000_000_000  # buffers counted in
MODULES = 10_000
ACTIVATIONS = 1_000_000_000  # numbers that the operations of one image's forward pass give, in all
MACS = 200_000_000_000  # of one image
INTEGER = 100_000
LENGTH = 100  # of a list or table
NESTING = 4

# What makes timm read files or ask a hub on its own, and what a study file says in fields of its own.
_LOADING = ("checkpoint_path", "cache_dir")


class TooLargeError(NetworkError):
    """A network beyond a limit of this module."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"would have more than {limit}, which kdpipe does not build; make it or its images smaller.")


def refuse_arguments(arguments: Mapping[str, Any], *, loading: bool = False) -> None:
    """Raise NetworkError where arguments are no small plain values, or make a timm model load something.

    Args:
        loading: whether they may say what to load, as those of people's own functions.
    """
    for name, value in arguments.items():
        if not loading and (name in _LOADING or name.startswith("pretrained")):
            raise NetworkError(
                f"arguments: {name} makes timm load weights by itself; use the fields checkpoint or pretrained."
            )
        if problem := _problem(value, NESTING):
            raise NetworkError(f"arguments: {name} {problem}.")


def _problem(value: Any, nesting: int) -> str | None:
    """What is wrong with an argument, as a clause."""
    if isinstance(value, dict | list):
        if not nesting:
            return f"is nested deeper than {NESTING} lists or tables"
        if len(value) > LENGTH:
            return f"has {len(value)} entries, more than {LENGTH}"
        parts = value.values() if isinstance(value, dict) else value
        return next(filter(None, (_problem(part, nesting - 1) for part in parts)), None)
    if isinstance(value, bool | str | None):
        return None
    if not isinstance(value, int | float):
        return f"holds {value!r}, which is no number, text, list or table"
    if not math.isfinite(value) or abs(value) > INTEGER:
        return f"holds {value}, which is beyond {INTEGER:,}"
    return None


def refuse_size(make: Callable[[], nn.Module], image_shape: tuple[int, int, int]) -> None:
    """Build a model, and take one image through it, as shapes alone.

    What else is wrong with the model is left to its real building, which has words for it.

    Raises:
        TooLargeError: it is larger than the limits of this module.
    """
    try:
        with limited(), torch.device("meta"):
            model = make().eval()
        image = torch.zeros(1, *image_shape, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter, _Activations(counter):
            model(image)
    except NetworkError:
        raise
    except Exception:  # models that need numbers to be built, and all mistakes
        return


@contextmanager
def limited() -> Iterator[None]:
    """Break off the building of modules with a TooLargeError when they are too many or too large."""
    modules = numbers = 0

    def count_module(parent: nn.Module, name: str, child: nn.Module | None) -> None:
        nonlocal modules
        modules += 1
        if modules > MODULES:
            raise TooLargeError(f"{MODULES:,} modules")

    def count_numbers(parent: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal numbers
        numbers += 0 if tensor is None or is_lazy(tensor) else tensor.numel()
        if numbers > PARAMETERS:
            raise TooLargeError(f"{PARAMETERS:,} parameters")

    handles = [
        hooks.register_module_module_registration_hook(count_module),
        hooks.register_module_parameter_registration_hook(count_numbers),
        hooks.register_module_buffer_registration_hook(count_numbers),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Activations(TorchDispatchMode):
    """Break off a forward pass with a TooLargeError when its operations give, or cost, too much."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers, self.counter = 0, counter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.numbers += sum(part.numel() for part in _tensors(result))
        if self.numbers > ACTIVATIONS:
            raise TooLargeError(f"{ACTIVATIONS:,} activations of one image")
        if self.counter.get_total_flops() > 2 * MACS:
            raise TooLargeError(f"{MACS:,} MACs for one image")
        return result


def _tensors(result: Any) -> Iterator[Tensor]:
    for part in result if isinstance(result, tuple | list) else (result,):
        if isinstance(part, Tensor):
            yield part
