"""Pre-activations: what enters the activation that ends a layer, where timm's own taps come after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Preactivations:
    """Keeps the pre-activations of some maps in every forward pass of a model.

    Args:
        model: any module.
        activations: for each map the name of the module that made it, None for a map that no activation ends.
    """

    def __init__(self, model: nn.Module, activations: Sequence[str | None]) -> None:
        self.activations = tuple(activations)
        self._kept: dict[str, Tensor] = {}
        for name in {name for name in activations if name is not None}:
            model.get_submodule(name).register_forward_pre_hook(self._keeper(name))

    def _keeper(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._kept[name] = inputs[0].clone()  # an activation in place would overwrite it

        return keep

    def take(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Of the pass that just ended, float32 and in the order of ``maps``; a map without an activation is its own."""
        kept = [part if name is None else self._kept[name] for name, part in zip(self.activations, maps, strict=True)]
        self._kept.clear()
        return [part.float() for part in kept]


def ending_activations(model: nn.Module, indices: Sequence[int], images: Tensor) -> list[str | None]:
    """Names of the activation modules whose output the maps of a timm model are; None where none is.

    Found by comparing outputs in one pass, so that no architecture need be known. An activation that is called in
    several places is taken by its last call, and the last of several with one output counts: a block that starts as
    the identity repeats what it was given.

    Args:
        indices: of the maps, for ``forward_intermediates``.
        images: (B, C, H, W), normalised.
    """
    outputs: dict[str, Tensor] = {}

    def recorder(name: str) -> Any:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs.pop(name, None)  # to the end, as the last call
            if isinstance(output, Tensor):
                outputs[name] = output

        return record

    # torch and timm keep theirs in modules of that name.
    found = [(name, part) for name, part in model.named_modules() if "activation" in type(part).__module__]
    hooks = [part.register_forward_hook(recorder(name)) for name, part in found]
    mode = model.training
    with torch.no_grad():
        _, maps = model.eval().forward_intermediates(images, indices=list(indices))  # type: ignore[operator]
    model.train(mode)
    for hook in hooks:
        hook.remove()
    return [next((name for name in reversed(outputs) if torch.equal(outputs[name], part)), None) for part in maps]
