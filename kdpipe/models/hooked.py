"""Networks that are any module: their layers are read by hooks, and their heads run by running all of them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdpipe.errors import NetworkError
from kdpipe.models.layouts import Layout
from kdpipe.models.network import Network, Outputs
from kdpipe.models.structures import answer_of, first_tensor, with_first


@dataclass(frozen=True)
class HookedLayer:
    """A layer that is read by a hook.

    Attributes:
        name: the path of its module.
        calls: how often a pass calls it; its last call is what counts.
        layout: how its output is read as a map.
    """

    name: str
    calls: int
    layout: Layout


@dataclass(frozen=True)
class Arrangement:
    """How a module is arranged, as a pass through it shows.

    Attributes:
        layers: those that are looked at, in the order in which their last calls end.
        final: which of them stands for what the head takes: the last one with places that reach the logits.
        classifier: path of the linear layer that gives the logits; None where there is none.
        classes: logits.
    """

    layers: list[HookedLayer]
    final: int
    classifier: str | None
    classes: int


class HookedNetwork(Network):
    """Any module as a network.

    A pass sets its hooks and takes them away again, so that nothing of it stays behind. Layers are copied as they
    leave their module: what works on them in place afterwards does not change what is read.
    """

    has_preactivations = False
    two_heads = False

    def __init__(
        self,
        model: nn.Module,
        arrangement: Arrangement,
        mean: Sequence[float],
        std: Sequence[float],
        image_size: int | None = None,
        origin: str = "factory",
    ) -> None:
        self.arrangement, self.origin = arrangement, origin
        layers = arrangement.layers
        super().__init__(model, list(range(len(layers))), [layer.name for layer in layers], mean, std, image_size)

    @property
    def classifier(self) -> nn.Module | None:
        """The linear layer that gives the logits, if there is one."""
        name = self.arrangement.classifier
        return None if name is None else self.model.get_submodule(name)

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Path of the linear layer that gives the logits."""
        return () if self.arrangement.classifier is None else (self.arrangement.classifier,)

    def drop_classifier(self) -> None:
        """Remove the linear layer that gives the logits, if there is one."""
        for name in self.classifier_names:
            self.model.set_submodule(name, nn.Identity())

    def forward(self, images: Tensor) -> Outputs:
        """Logits, tapped maps and what the head takes, for images (B, C, H, W) in [0, 1]."""
        shown = self.shown(images)
        layers, pooled, logits = self._run(shown)
        parts = zip(self.arrangement.layers, layers, strict=True)
        maps = [layer.layout.as_map(part).float() for layer, part in parts]
        final = layers[self.arrangement.final]
        if self.head is not None:
            final = self.head.project(self._as_map(final, maps[-1]))
            pooled, logits = self.head.classify(final)
            return Outputs(logits.float(), maps, pooled.float(), final)
        return Outputs(logits.float(), maps, pooled.float(), final, shown)

    def classify(self, final: Tensor, shown: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the classifier takes, (B, D), and the logits (B, K): the pass of ``shown``, with ``final`` in its place.

        Where there is no linear classifier, what it takes is the mean of the final map over its places.

        Raises:
            ValueError: ``shown`` is missing.
        """
        if self.head is not None:
            return self.head.classify(final)
        if shown is None:
            raise ValueError("the head of this network runs on what went into it alone; give Outputs.shown")
        return self._run(shown, final)[1:]

    def _as_map(self, final: Tensor, last: Tensor) -> Tensor:
        return self.arrangement.layers[self.arrangement.final].layout.as_map(final)

    def _run(self, shown: Tensor, given: Tensor | None = None) -> tuple[list[Tensor], Tensor, Tensor]:
        """The layers as they are returned, what the classifier takes, and the logits.

        Args:
            given: what the final layer is to have returned.
        """
        kept: dict[int, Tensor] = {}
        self._seen_by_classifier.clear()
        handles = [self._tap(order, kept, given) for order in range(len(self.arrangement.layers))]
        try:
            with without_fast_path():
                logits = answer_of(self.model(shown), self.arrangement.classes)
        finally:
            for handle in handles:
                handle.remove()
        seen = [self._seen_by_classifier.pop() for _ in range(len(self._seen_by_classifier))]
        if len(kept) < len(self.arrangement.layers) or (logits is None and self.head is None):
            raise NetworkError(f"{self.origin}: this pass took another way through the network than the one before.")
        final = kept[self.arrangement.final]
        pooled = seen[0].flatten(1) if seen else self._as_map(final, final).mean((2, 3))
        return [kept[order] for order in sorted(kept)], pooled, pooled if logits is None else logits

    def _tap(self, order: int, kept: dict[int, Tensor], given: Tensor | None) -> Any:
        """Keep what a layer returns at its last call; the final one goes on with a copy of what was kept or given."""
        layer, is_final, calls = self.arrangement.layers[order], order == self.arrangement.final, 0

        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls != layer.calls:
                return None
            tensor = first_tensor(output)
            assert tensor is not None, "the pass that arranged the network found one"
            if not is_final:
                kept[order] = tensor.clone()
                return None
            kept[order] = tensor if given is None else given
            return with_first(output, kept[order].clone())

        return self.model.get_submodule(layer.name).register_forward_hook(hook)


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Attention in its plain form: torch's fused kernel of inference rounds otherwise, and hides its operations."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
