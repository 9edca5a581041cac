"""What the networks of the literature share: the way through them, their taps, and what timm's models offer beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from kdpipe.errors import NetworkError


class CifarNetwork(nn.Module):
    """A network for images of 32 x 32: stretches of modules, a tap at the end of each, then a pooled linear classifier.

    A subclass makes its modules under the names that published weights have, and calls :meth:`complete`.

    Attributes:
        STRETCHES: names of modules, passed in order; the last of a stretch is its tap. The first stretch is the stem.
        END: modules between the last tap and the pooling.
        CLASSIFIER: name of the linear classifier.
        feature_info: of each tap its channels, its reduction and its module, as in timm.
        num_features: D of what the classifier takes.
    """

    STRETCHES: ClassVar[tuple[tuple[str, ...], ...]]
    END: ClassVar[tuple[str, ...]] = ()
    CLASSIFIER: ClassVar[str]

    num_features: int
    num_classes: int
    feature_info: list[dict[str, Any]]

    def complete(
        self, channels: Sequence[int], reductions: Sequence[int], num_classes: int, global_pool: str, drop_rate: float
    ) -> None:
        """Make the head, fill in what is known of the taps, and draw the initial weights.

        Args:
            channels, reductions: of each tap, the side of an image over that of the map.
            global_pool: timm's name of how the last map is pooled.
            drop_rate: dropout before the classifier; none of the published recipes has any.
        """
        taps = [stretch[-1] for stretch in self.STRETCHES]
        self.feature_info = [
            {"num_chs": width, "reduction": reduction, "module": name}
            for width, reduction, name in zip(channels, reductions, taps, strict=True)
        ]
        self.head_hidden_size = self.num_features
        self.global_pool, self.head_drop = (
            SelectAdaptivePool2d(pool_type=global_pool, flatten=True),
            nn.Dropout(drop_rate),
        )
        self._set_classifier(num_classes)
        self.initialise()

    def initialise(self) -> None:
        """Draw the initial weights: He et al. (2015), normal by fan out, for convolutions; torch's own for the rest."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, C, H, W)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """The map (B, num_features, h, w) that the head pools."""
        for stretch in self.STRETCHES:
            images = self._through(stretch, images)
        return self._through(self.END, images)

    def forward_head(self, final: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, K) of the map that the head pools; what the classifier takes, (B, D), with ``pre_logits``."""
        pooled = self.head_drop(self.global_pool(final))
        return pooled if pre_logits else self.get_classifier()(pooled)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The map that the head pools, and those of the taps, as timm's models give them.

        Args:
            indices: which taps, all if None, the last ones if a number.
            norm: for timm's sake; no network here has a norm that suits all of its maps.
            stop_early: go no further than the last tap that is asked for.
            output_fmt: NCHW.
            intermediates_only: leave the first of the two out.

        Raises:
            NetworkError: another ``output_fmt``.
        """
        if output_fmt != "NCHW":
            raise NetworkError(f"output_fmt: the maps of {type(self).__name__} are NCHW, not {output_fmt}.")
        wanted, last = feature_take_indices(len(self.STRETCHES), indices)
        stretches = self.STRETCHES[: last + 1] if stop_early else self.STRETCHES
        maps: list[Tensor] = []
        for place, stretch in enumerate(stretches):
            images = self._through(stretch, images)
            if place in wanted:
                maps.append(images)
        if intermediates_only:
            return maps
        return images if stop_early else self._through(self.END, images), maps

    def _through(self, names: tuple[str, ...], images: Tensor) -> Tensor:
        for name in names:
            images = self.get_submodule(name)(images)
        return images

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what is not needed for some taps, as ``features_only`` of timm does; returns the taps' indices."""
        wanted, last = feature_take_indices(len(self.STRETCHES), indices)
        ended = self.END if prune_norm or last + 1 < len(self.STRETCHES) else ()
        for name in (*(part for stretch in self.STRETCHES[last + 1 :] for part in stretch), *ended):
            self.set_submodule(name, nn.Identity())
        if prune_head:
            self.reset_classifier(0)
        return list(wanted)

    def get_classifier(self) -> nn.Module:
        """The linear classifier, an identity without classes."""
        return self.get_submodule(self.CLASSIFIER)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Another classifier, new and untrained; none for no classes."""
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=True)
        self._set_classifier(num_classes)

    def _set_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        classifier = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        old = next(self.parameters())
        self.set_submodule(self.CLASSIFIER, classifier.to(old.device, old.dtype))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """For timm's sake; networks this small do without.

        Raises:
            NetworkError: it is asked for.
        """
        if enable:
            raise NetworkError(f"{type(self).__name__} has no gradient checkpointing; leave it off.")


def convolution(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the side of a map but for its stride."""
    return nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)


def small_linear(network: nn.Module) -> None:
    """Let the classifier start near zero: weights with a deviation of 0.01, no bias."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def shuffle(maps: Tensor, groups: int) -> Tensor:
    """Channels, numbered (g, C/g), put in the order (C/g, g), so that groups meet (Zhang et al., 2018)."""
    return maps.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
