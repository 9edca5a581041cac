"""How a module is arranged: its layers, their axes, its classifier, found by sending images through it once."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor, nn

from kdpipe.errors import NetworkError
from kdpipe.models.hooked import Arrangement, HookedLayer, without_fast_path
from kdpipe.models.layer_search import find_layers
from kdpipe.models.layouts import Hints, Layout, layouts_of
from kdpipe.models.passage import Passage, Visit, passage_of
from kdpipe.models.structures import shapes
from kdpipe.names import closest

_CHANNELS_FIRST = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d)  # torch says so
PROBED = 2  # images that a module is tried with


def arrangement_of(
    model: nn.Module, shape: tuple[int, int, int], classes: int, layers: str | list[str], origin: str
) -> Arrangement:
    """Find out how a module in eval mode is arranged, from images of a shape (C, H, W).

    Args:
        layers: paths of modules, or "stages" or "all" (:func:`~kdpipe.models.layer_search.find_layers`).
        origin: the field of a study that says what the module is, for errors.

    Raises:
        NetworkError: it is scripted or compiled, gives no such logits, or a layer is not there or cannot be read.
    """
    _refuse_scripted(model, origin)
    images = torch.rand(PROBED, *shape, generator=torch.Generator().manual_seed(0))
    with without_fast_path():
        record = passage_of(model, images, classes)
    if record.answer is None or len(record.answer) != PROBED:
        raise NetworkError(
            f"{origin}: for {PROBED} images the network returns {shapes(record.returned)}, and the data has {classes} "
            f"classes: it is to return logits of shape ({PROBED}, {classes}), alone, first, or named 'logits'."
        )
    chosen = _chosen(record, layers, origin)
    for visit in chosen:
        _refuse_unreadable(visit)
    hints = _hints(model, record, shape)
    outputs = [(visit.shape, _channels(visit.module)) for visit in chosen]
    hooked = []
    for visit, told in zip(chosen, layouts_of(outputs, hints), strict=True):
        layout = Layout("BCHW") if isinstance(visit.module, _CHANNELS_FIRST) and len(visit.shape) == 4 else told
        if layout is None:
            raise NetworkError(
                f"layers: nothing tells which axis of layer {visit.name!r}, which returns {visit.shape}, is that of "
                "its channels; set output_fmt = 'NCHW' or 'NHWC' on the network, or leave the layer out."
            )
        hooked.append(HookedLayer(visit.name, visit.calls, layout))
    classifier = _classifier(record, classes)
    return Arrangement(
        hooked, _final(record, chosen, hooked, classifier), classifier.name if classifier else None, classes
    )


def _refuse_scripted(model: nn.Module, origin: str) -> None:
    for name, module in model.named_modules():
        whose = f"its module {name!r}" if name else "the network"
        if isinstance(module, torch.jit.ScriptModule):
            raise NetworkError(f"{origin}: {whose} is TorchScript, whose layers cannot be read; give Python's module.")
        if hasattr(module, "_orig_mod"):
            raise NetworkError(f"{origin}: {whose} is compiled, so its layers cannot be read; give what was compiled.")


def _chosen(record: Passage, layers: str | list[str], origin: str) -> list[Visit]:
    """The layers that a study names, or those that are found."""
    if isinstance(layers, str):
        found = find_layers(record, layers)
        if len(found) < 2:
            raise NetworkError(
                f"layers: {'one layer' if found else 'no layer'} of this network was found that everything passes "
                f"through, and two are needed; name some of its modules: {_listed(list(record.visits))}."
            )
        return [record.visits[name] for name in found]
    known = list(filter(None, record.visits))
    for name in layers:
        if name not in known:
            raise NetworkError(
                f"layers: a pass through the network calls no module {name!r}{closest(name, known)}; it calls "
                f"{_listed(known)}."
            )
    return sorted((record.visits[name] for name in set(layers)), key=lambda visit: visit.order)


def _listed(names: list[str], most: int = 40) -> str:
    names = [name for name in names if name]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _refuse_unreadable(visit: Visit) -> None:
    output = visit.output
    problem = None
    if output is None:
        problem = "returns no tensor"
    elif not output.is_floating_point():
        problem = f"returns {output.dtype}, not real numbers"
    elif len(output) != PROBED if output.ndim else True:
        problem = f"returns {visit.shape} for {PROBED} images: the images must be the first axis"
    elif not 2 <= output.ndim <= 4:
        problem = f"returns {output.ndim} axes {visit.shape}; two to four can be read"
    if problem:
        raise NetworkError(f"layers: layer {visit.name!r} {problem}; name another.")


_WIDTHS = ("out_channels", "out_features", "num_features", "num_channels", "embed_dim")


def _channels(module: nn.Module) -> int | None:
    """Channels that a module's last weights give; None where none of them says so."""
    for part in reversed(list(module.modules())):
        widths = [getattr(part, name) for name in _WIDTHS if isinstance(getattr(part, name, None), int)]
        if isinstance(part, nn.LayerNorm):
            widths = [part.normalized_shape[-1]]
        if (widths and part is not module) or (widths and not any(True for _ in part.children())):
            return int(widths[0])
    return None


def _hints(model: nn.Module, record: Passage, shape: tuple[int, int, int]) -> Hints:
    prefix = getattr(model, "num_prefix_tokens", None)
    return Hints(
        image=(shape[1], shape[2]),
        format=str(getattr(model, "output_fmt", "")) or None,
        prefix=prefix if isinstance(prefix, int) else None,
        patches=next((_sides(visit) for visit in record.visits.values() if _embeds_patches(visit)), None),
    )


def _embeds_patches(visit: Visit) -> bool:
    module = visit.module
    return isinstance(module, nn.Conv2d) and module.kernel_size == module.stride != (1, 1)


def _sides(visit: Visit) -> tuple[int, int]:
    return visit.shape[2], visit.shape[3]


def _classifier(record: Passage, classes: int) -> Visit | None:
    """The last linear layer of vectors that everything passes through, if it gives the logits."""
    linear = [v for v in record.visits.values() if isinstance(v.module, nn.Linear) and record.is_passed(v)]
    return linear[-1] if linear and linear[-1].shape == (PROBED, classes) else None


def _final(record: Passage, chosen: list[Visit], layers: list[HookedLayer], classifier: Visit | None) -> int:
    """Which layer stands for what the head takes: the last map of which some places reach the logits.

    A plain layer of one place is no map: what it takes was pooled.
    """
    slopes = _slopes(record, chosen, classifier)
    for order in reversed(range(len(chosen))):
        slope = slopes[order]
        if slope is None:
            continue
        reached = layers[order].layout.as_map(slope).abs().sum((0, 1))
        pooled = reached.numel() == 1 and not any(True for _ in chosen[order].module.children())
        if layers[order].layout.kind != "BC" and not pooled and reached.any():
            return order
    return len(chosen) - 1


def _slopes(record: Passage, chosen: list[Visit], classifier: Visit | None) -> list[Tensor | None]:
    """How what the classifier takes (which may start at zero) changes with each layer; None where it does not."""
    answer = record.answer if classifier is None else classifier.given
    outputs = [visit.output for visit in chosen if visit.output is not None and visit.output.requires_grad]
    if answer is None or not answer.requires_grad or not outputs:
        return [None] * len(chosen)
    slopes: dict[int, Tensor | None] = {}
    with suppress(RuntimeError):  # a network that overwrites what its gradient needs; it still answers
        found = torch.autograd.grad(answer.square().sum(), outputs, allow_unused=True)
        slopes = {id(output): slope for output, slope in zip(outputs, found, strict=True)}
    return [slopes.get(id(visit.output)) for visit in chosen]
