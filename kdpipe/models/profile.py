"""Profile: what a network is made of, read off one forward pass.

Everything that plans, refusals and trainable extras of a method rest on is probed here from the
network itself, and nothing of it is configured.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdpipe.errors import NetworkError
from kdpipe.models.network import Network, Outputs
from kdpipe.models.timm_models import reason
from kdpipe.relative_depth import nearest_place

MORE_IMAGES = 16


@dataclass(frozen=True)
class Tap:
    """A layer that is looked at.

    Attributes:
        layer: its module's name.
        order: position among the taps, from 0.
        relative_depth: order / (taps - 1), in [0, 1].
        mac_share: share of the network's MACs spent up to and including it; None where unknown.
        shape: (C, H, W) of its map.
    """

    layer: str
    order: int
    relative_depth: float
    mac_share: float | None
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Profile:
    """A network as shapes and counts.

    Attributes:
        taps: the layers that are looked at, in order.
        macs: multiply-accumulates of one image.
        params: parameters that a forward pass uses.
        pooled: D of the vector that the classifier takes.
        final: (C, H, W) of what the head takes before it pools.
        linear_head: the logits are one linear layer on the mean of ``final``, so class-activation maps exist.
        spatial_head: every position of ``final`` reaches the logits, so Grad-CAM exists.
        linear_classifier: the logits are one linear layer on the pooled vector.
        two_heads: a second head answers beside the first, as in distilled transformers; both can be had apart.
        has_preactivations: maps can be read before the activations that end their layers.
    """

    taps: list[Tap]
    macs: int
    params: int
    pooled: int
    final: tuple[int, int, int]
    linear_head: bool
    spatial_head: bool
    linear_classifier: bool = False
    two_heads: bool = False
    has_preactivations: bool = True


def profile_of(network: Network, image_shape: tuple[int, int, int]) -> Profile:
    """The profile of a network for images of a shape (C, H, W).

    MACs are half of the FLOPs that ``torch.utils.flop_counter`` counts (convolutions and matrix
    products; norms and activations are free there).

    Raises:
        NetworkError: a network whose layers or head are not arranged as timm's usually are.
    """
    try:
        return _profile_of(network, image_shape)
    except Exception as error:  # timm's models fail in any way where they are not arranged as usual
        raise NetworkError(f"{network.origin}: this model's layers cannot be looked at: {reason(error)}.") from None


def _profile_of(network: Network, image_shape: tuple[int, int, int]) -> Profile:
    taps, macs = _taps(network.eval(), image_shape)
    images = _images(network, 2, image_shape)
    with torch.no_grad():
        outputs = network(images)
    final = network.as_map(outputs.final, outputs.maps[-1]).float()
    return Profile(
        taps=taps,
        macs=macs,
        params=_used_parameters(network, images),
        pooled=outputs.pooled.shape[1],
        final=(final.shape[1], final.shape[2], final.shape[3]),
        linear_head=isinstance(network.classifier, nn.Linear) and _is_mean(outputs.pooled, final),
        spatial_head=_reaches_logits(network, outputs, image_shape),
        linear_classifier=isinstance(network.classifier, nn.Linear),
        two_heads=network.two_heads,
        has_preactivations=network.has_preactivations,
    )


def _is_mean(pooled: torch.Tensor, final: torch.Tensor) -> bool:
    mean = final.mean((2, 3))
    return mean.shape == pooled.shape and torch.allclose(mean, pooled, rtol=1e-3, atol=1e-5)


def _used_parameters(network: Network, images: torch.Tensor) -> int:
    """Parameters that a forward pass uses, frozen ones too; a replaced head leaves others behind."""
    parameters = list(network.parameters())
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    network.requires_grad_(True)
    with torch.enable_grad():
        used = torch.autograd.grad(network(images).logits.sum(), parameters, allow_unused=True)
    for parameter in frozen:
        parameter.requires_grad_(False)
    return sum(p.numel() for p, gradient in zip(parameters, used, strict=True) if gradient is not None)


def _reaches_logits(network: Network, outputs: Outputs, image_shape: tuple[int, int, int]) -> bool:
    """Whether every position of the final map reaches what the classifier takes (which may start at zero)."""
    if network.head is not None:
        return True
    reached = _reached(network, outputs)
    if reached.any() and not reached.all():  # max-pooling lets through other positions of other images
        with torch.no_grad():
            outputs = network(_images(network, MORE_IMAGES, image_shape))
        reached |= _reached(network, outputs)
    return bool(reached.all())


def _reached(network: Network, outputs: Outputs) -> torch.Tensor:
    """(H, W) whether a position reaches what the classifier takes, on any of the images."""
    with torch.enable_grad():
        final = outputs.final.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(network.classify(final, outputs.shown)[0].square().sum(), final)
    return (network.as_map(gradient, outputs.maps[-1]).abs() > 0).any(1).any(0)


def _images(network: Network, count: int, image_shape: tuple[int, int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, *image_shape, generator=generator).to(network.mean.device)


def _taps(network: Network, image_shape: tuple[int, int, int]) -> tuple[list[Tap], int]:
    """The taps with their shapes and cumulative MAC shares, and the MACs of one image."""
    spent: dict[str, int] = {}
    hooks = []
    # Attention in its plain form: the counter does not see into the CPU's fused kernel.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for name in network.names:

            def record(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                spent[name] = counter.get_total_flops()

            with suppress(AttributeError):  # some models report layers that are no module; their share is unknown
                hooks.append(network.model.get_submodule(name).register_forward_hook(record))
        device = network.mean.device
        outputs = network.eval()(torch.zeros(1, *image_shape, device=device))
        total = counter.get_total_flops()
    for hook in hooks:
        hook.remove()
    last = max(len(network.names) - 1, 1)
    taps = [
        Tap(
            layer=name,
            order=order,
            relative_depth=order / last,
            mac_share=spent[name] / total if name in spent and total else None,
            shape=(int(part.shape[1]), int(part.shape[2]), int(part.shape[3])),
        )
        for order, (name, part) in enumerate(zip(network.names, outputs.maps, strict=True))
    ]
    return taps, total // 2


def pair_by_depth(student: Sequence[Tap], teacher: Sequence[Tap]) -> list[int]:
    """For each student tap, the index of the teacher tap nearest in relative depth (earlier on ties)."""
    return [nearest_place(tap.order, len(student), len(teacher)) for tap in student]
