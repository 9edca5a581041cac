"""A network: a timm model with its input normalisation, taps on its layers, and perhaps another's classifier.

Layers are read through timm's ``forward_intermediates``. The taps' order is timm's own; the first
tap of a convolutional network is its stem and is left out of ``layers = "stages"``. Any other module is a
:class:`~kdpipe.models.hooked.HookedNetwork`, which others need not tell from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdpipe.errors import NetworkError
from kdpipe.models.preactivations import Preactivations, ending_activations

HEAD = "reused_head."


class Architecture(Protocol):
    """What a network needs to know of a study's teacher, student or network section.

    One of ``arch`` (a timm name), ``factory`` (see :mod:`kdpipe.models.factories`), ``folder`` (of transformers) and
    ``config`` (transformers' description, as it stands in a saved network) says what the network is.
    """

    @property
    def arch(self) -> str | None: ...
    @property
    def factory(self) -> str | None: ...
    @property
    def folder(self) -> str | None: ...
    @property
    def arguments(self) -> dict[str, Any]: ...
    @property
    def stem(self) -> str: ...
    @property
    def stem_stride(self) -> int: ...
    @property
    def pretrained(self) -> bool: ...
    @property
    def checkpoint(self) -> str | None: ...
    @property
    def layers(self) -> str | list[str]: ...
    @property
    def image_size(self) -> int | None: ...
    @property
    def mean(self) -> list[float] | None: ...
    @property
    def std(self) -> list[float] | None: ...
    @property
    def as_it_comes(self) -> bool: ...


@dataclass(frozen=True)
class Outputs:
    """One forward pass of a batch.

    Attributes:
        logits: (B, K) float32.
        maps: the tapped maps, each (B, C, H, W) float32.
        pooled: (B, D) float32, what the classifier takes.
        final: what the head takes before it pools, in the model's own layout and precision.
        shown: (B, C, H, W) what went into the model, of networks whose head cannot run alone.
        preactivations: the tapped maps before the activations that end their layers, for those who asked to keep them.
    """

    logits: Tensor
    maps: list[Tensor]
    pooled: Tensor
    final: Tensor
    shown: Tensor | None = None
    preactivations: list[Tensor] = field(default_factory=list)

    def joined(self, more: Outputs) -> Outputs:
        """This batch and another of the same network, one after the other."""
        maps = [torch.cat(parts) for parts in zip(self.maps, more.maps, strict=True)]
        shown = None if self.shown is None or more.shown is None else torch.cat([self.shown, more.shown])
        before = [torch.cat(parts) for parts in zip(self.preactivations, more.preactivations, strict=True)]
        return Outputs(
            torch.cat([self.logits, more.logits]),
            maps,
            torch.cat([self.pooled, more.pooled]),
            torch.cat([self.final, more.final]),
            shown=shown,
            preactivations=before,
        )

    def logits_alone(self) -> Outputs:
        """For those who read nothing else."""
        return Outputs(self.logits, [], self.logits[:, :0], self.logits[:, :0])


class Network(nn.Module):
    """A timm model with its own input normalisation and its taps.

    ``forward`` takes images in [0, 1], so that networks with different normalisations can share a
    batch, and always goes the way of ``forward_intermediates``, so that a network gives the same
    bits whether or not somebody reads its maps.

    Args:
        image_size: side that images are resized to (bilinear, antialiased) before they are normalised; None for as
            they come.
    """

    origin = "arch"  # the field of a section that says what it is, for errors
    has_preactivations = True  # maps can be read before the activations that end their layers
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        indices: list[int],
        names: list[str],
        mean: Sequence[float],
        std: Sequence[float],
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.indices, self.names, self.image_size = model, indices, names, image_size
        self.head: ReusedHead | None = None
        self.preactivations: Preactivations | None = None
        self._seen_by_classifier: list[Tensor] = []
        if isinstance(classifier := self.classifier, nn.Module):
            classifier.register_forward_pre_hook(self._keep)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    @property
    def classifier(self) -> nn.Module | None:
        """The last linear layer; None for models with several (distilled transformers)."""
        found = self.model.get_classifier()  # type: ignore[operator]
        return found if isinstance(found, nn.Module) and not isinstance(found, nn.ModuleList) else None

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Paths of the modules that give the logits, which a network for other classes has anew."""
        named = getattr(self.model, "pretrained_cfg", {}).get("classifier") or ()
        return (named,) if isinstance(named, str) else tuple(named)

    def drop_classifier(self) -> None:
        """Remove the model's own classifier, as another's takes its place."""
        self.model.reset_classifier(0)  # type: ignore[operator]

    @property
    def two_heads(self) -> bool:
        """Whether there is a second head, which a distilled transformer learns from its teacher."""
        found = self.model.get_classifier()  # type: ignore[operator]
        return isinstance(found, tuple) and all(isinstance(part, nn.Module) for part in found)

    def heads_apart(self, final: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of the first and of the second head, of which :meth:`forward` gives the mean.

        Only in training mode, from what the head takes; for networks that have :attr:`two_heads`.
        """
        self.model.set_distilled_training(True)  # type: ignore[operator]
        try:
            first, second = self.model.forward_head(final)  # type: ignore[operator]
        finally:
            self.model.set_distilled_training(False)  # type: ignore[operator]
        return first, second

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen_by_classifier.append(inputs[0])

    def shown(self, images: Tensor) -> Tensor:
        """What goes into the model, for images (B, C, H, W) in [0, 1]: at its size, normalised its way."""
        if self.image_size is not None and images.shape[2:] != (self.image_size, self.image_size):
            images = F.interpolate(images, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Outputs:
        """Logits, tapped maps and what the head takes, for images (B, C, H, W) in [0, 1]."""
        shown = self.shown(images)
        final, maps = self.model.forward_intermediates(shown, indices=self.indices)  # type: ignore[operator]
        _refuse_lists(final, maps)
        maps = [part.float() for part in maps]
        if self.head is not None:
            final = self.head.project(self._as_map(final, maps[-1]))
        before = [] if self.preactivations is None else self.preactivations.take(maps)
        pooled, logits = self.classify(final)
        return Outputs(logits.float(), maps, pooled.float(), final, preactivations=before)

    def keep_preactivations(self, image_shape: tuple[int, int, int]) -> None:
        """From now on, give :attr:`Outputs.preactivations` too, for images of a shape (C, H, W)."""
        if self.preactivations is None:
            generator = torch.Generator().manual_seed(0)
            images = torch.rand(2, *image_shape, generator=generator).to(self.mean.device)
            activations = ending_activations(self.model, self.indices, self.shown(images))
            self.preactivations = Preactivations(self.model, activations)

    def classify(self, final: Tensor, shown: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the classifier takes, (B, D), and the logits (B, K), from what the head takes.

        Args:
            shown: ``Outputs.shown`` of the pass that ``final`` is of.
        """
        if self.head is not None:
            return self.head.classify(final)
        self._seen_by_classifier.clear()
        logits = self.model.forward_head(final)  # type: ignore[operator]
        seen = self._seen_by_classifier
        pooled = seen.pop().flatten(1) if seen else final.flatten(2).mean(2) if final.ndim == 4 else final.mean(1)
        return pooled, logits

    def as_map(self, final: Tensor, last: Tensor) -> Tensor:
        """What the head takes as (B, C, H, W): tokens are laid out like the last tapped map, prefix tokens dropped."""
        return final if self.head is not None else self._as_map(final, last)

    def _as_map(self, final: Tensor, last: Tensor) -> Tensor:
        if final.ndim == 4:
            nhwc = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            return final.permute(0, 3, 1, 2) if nhwc else final
        tokens = final[:, getattr(self.model, "num_prefix_tokens", 0) :]
        return tokens.transpose(1, 2).unflatten(2, last.shape[2:])


def _refuse_lists(final: Any, maps: Sequence[Any]) -> None:
    """Refuse models of several branches, each with a map of its own."""
    if not all(isinstance(part, Tensor) for part in (final, *maps)):
        raise NetworkError(
            "arch: its layers come as lists of several maps or token sequences, which kdpipe does not read; choose "
            "another model."
        )


Forward = Callable[[Network, Tensor], Outputs]


def forward(network: Network, images: Tensor) -> Outputs:
    """A network's pass as a function, which :func:`compiled_forward` compiles."""
    return network(images)


@lru_cache
def compiled_forward() -> Forward:
    """A compiled forward pass; networks of one architecture share one compilation, whatever their weights."""
    return torch.compile(forward, dynamic=False)


class ReusedHead(nn.Module):
    """A projector onto another network's last map, and that network's frozen classifier on its mean.

    The projector is SimKD's (Chen et al., 2022): 1x1, 3x3 and 1x1 convolutions, half as wide in between.

    Args:
        channels: of the map that comes in.
        size: (H, W) that maps are pooled to where they are larger.
        width: channels of the other network's last map.
        classes: logits.
    """

    def __init__(self, channels: int, size: tuple[int, int], width: int, classes: int) -> None:
        super().__init__()
        self.config = {"channels": channels, "size": list(size), "width": width, "classes": classes}
        self.size, between = size, width // 2
        self.projector = nn.Sequential(
            *_convolution(channels, between, 1),
            *_convolution(between, between, 3),
            *_convolution(between, width, 1),
        )
        self.classifier = nn.Linear(width, classes).requires_grad_(False)

    def project(self, final: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, width, at most size)."""
        height, width = (min(own, wanted) for own, wanted in zip(final.shape[2:], self.size, strict=True))
        return self.projector(nn.functional.adaptive_avg_pool2d(final, (height, width)))

    def classify(self, final: Tensor) -> tuple[Tensor, Tensor]:
        """The mean over positions (B, width) of a projected map, and its logits (B, K)."""
        pooled = final.mean((2, 3))
        return pooled, self.classifier(pooled)


def _convolution(channels: int, width: int, kernel: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
