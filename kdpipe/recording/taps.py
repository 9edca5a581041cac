"""Layers of any module, read by hooks: what each makes of a probe, as vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from kdpipe.errors import NetworkError
from kdpipe.models.layouts import Hints, Layout, layouts_of
from kdpipe.models.structures import answer_of, first_tensor
from kdpipe.names import closest
from kdpipe.recording.probe import Probe
from kdpipe.representation.embed import VIEWS

Pool = Callable[[Tensor], Tensor]
POOLS: Mapping[str, Pool] = {"first": lambda tokens: tokens[:, 0], "mean": lambda tokens: tokens.mean(1)}
EXACT_IN_HALF = 32_768.0  # up to it an embedding is stored as float16 without a scale


@dataclass(frozen=True)
class Found:
    """What one pass of the probe through a network gave.

    Attributes:
        shapes: of each layer, (C, H, W); vectors are (d, 1, 1).
        views: of each layer, (N, d) by the view's name.
        logits: (N, K); None where the network gives none.
    """

    shapes: dict[str, tuple[int, ...]]
    views: dict[str, dict[str, NDArray[Any]]]
    logits: NDArray[np.float32] | None


def unwrapped(model: nn.Module) -> nn.Module:
    """The module within those that compile or distribute it, whose layers have the names that a user knows."""
    while isinstance(inner := getattr(model, "_orig_mod", getattr(model, "module", None)), nn.Module):
        wraps = hasattr(model, "_orig_mod") or isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
        if not wraps:
            break
        model = inner
    return model


def refuse_unknown(model: nn.Module, layers: Sequence[str]) -> None:
    """Raise NetworkError where a layer is no module of the model, or stands there twice."""
    known = [name for name, _ in model.named_modules() if name]
    for name in layers:
        if name not in known:
            some = ", ".join(known[:40]) + (f" and {len(known) - 40} more" if len(known) > 40 else "")
            raise NetworkError(f"layers: there is no module {name!r}{closest(name, known)}; there are {some}.")
        if list(layers).count(name) > 1:
            raise NetworkError(f"layers: {name!r} stands there twice.")
    if not layers:
        raise NetworkError("layers: name one module at least.")


def look(model: nn.Module, layers: Sequence[str], probe: Probe, pool: str | Pool | None) -> Found:
    """Send the probe through a model, as it is, and keep every view of the layers' outputs and the logits.

    A module that is called several times in a pass counts as it was called last.

    Raises:
        NetworkError: a layer that is not called, or whose output is no vector, map or tokens.
    """
    kept: dict[str, Tensor] = {}
    classes = len(probe.samples.class_names)
    logits: list[Tensor | None] = []
    shapes: dict[str, tuple[int, ...]] = {}
    views: dict[str, dict[str, list[NDArray[Any]]]] = {layer: {view: [] for view in VIEWS} for layer in layers}
    with ExitStack() as stack:
        for layer in layers:
            handle = model.get_submodule(layer).register_forward_hook(_keeper(layer, kept))
            stack.callback(handle.remove)
        for answer, size in zip(probe.run(model), probe.sizes(), strict=True):
            outputs = _outputs(layers, kept, size)
            for layer, layout in zip(layers, _layouts(outputs, model, probe, pool), strict=True):
                maps = layout(outputs[layer]).float()
                shapes[layer] = tuple(maps.shape[1:])
                for view, function in VIEWS.items():
                    views[layer][view].append(function(maps).cpu().numpy())
            logits.append(answer_of(answer, classes))
            kept.clear()
    answers = [part.float().cpu().numpy() for part in logits if part is not None]
    return Found(
        shapes,
        {layer: {view: _joined(parts) for view, parts in of.items()} for layer, of in views.items()},
        np.concatenate(answers) if len(answers) == len(logits) else None,
    )


def _keeper(layer: str, kept: dict[str, Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None:
            kept[layer] = tensor.detach().clone()  # what works on it in place afterwards is not this layer's

    return hook


def _outputs(layers: Sequence[str], kept: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    for layer in layers:
        if layer not in kept:
            raise NetworkError(f"layers: {layer!r} is not called in a pass, or returns no tensor; name another.")
        output = kept[layer]
        if not output.is_floating_point() or output.ndim not in (2, 3, 4) or len(output) != size:
            raise NetworkError(
                f"layers: {layer!r} returns {output.dtype} {tuple(output.shape)} for {size} samples, and must return "
                "real numbers with the samples along the first of two to four axes; name another."
            )
    return {layer: kept[layer] for layer in layers}


def _layouts(outputs: Mapping[str, Tensor], model: nn.Module, probe: Probe, pool: str | Pool | None) -> list[Pool]:
    """For each layer the function from its output to a map (B, C, H, W)."""
    if pool is not None:
        function = POOLS[pool] if isinstance(pool, str) else pool
        return [_pooled(function) if output.ndim > 2 else Layout("BC").as_map for output in outputs.values()]
    if probe.image is None:
        for layer, output in outputs.items():
            if output.ndim > 2:
                raise NetworkError(
                    f"layers: {layer!r} returns {tuple(output.shape)}, and the inputs are no images, so nobody knows "
                    f"how it becomes a vector; set pool to {', '.join(map(repr, POOLS))} or a function to (B, d)."
                )
        return [Layout("BC").as_map for _ in outputs]
    hints = Hints(probe.image, format=str(getattr(model, "output_fmt", "")) or None)
    found = layouts_of([(tuple(output.shape), None) for output in outputs.values()], hints)
    if any(isinstance(part, nn.Conv2d) for part in model.modules()):  # of (B, 8, 8, 8) the shape says nothing
        found = [layout or Layout("BCHW") for layout in found]
    for layer, layout in zip(outputs, found, strict=True):
        if layout is None:
            raise NetworkError(
                f"layers: nothing tells which axis of {layer!r}, which returns {tuple(outputs[layer].shape)}, is that "
                "of its channels; set pool to a function to (B, d), or leave the layer out."
            )
    return [layout.as_map for layout in found if layout is not None]


def _pooled(function: Pool) -> Pool:
    def as_map(output: Tensor) -> Tensor:
        pooled = function(output)
        if pooled.ndim != 2 or len(pooled) != len(output):
            raise NetworkError(
                f"pool: it made {tuple(pooled.shape)} of {tuple(output.shape)}, and is to make (samples, features)."
            )
        return pooled[:, :, None, None]

    return as_map


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """(N, d), in half precision where a study would keep it so as it is."""
    whole = np.concatenate(parts)
    return whole.astype(np.float16) if np.abs(whole).max(initial=0.0) <= EXACT_IN_HALF else whole
