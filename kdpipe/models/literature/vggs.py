"""VGG for CIFAR: the convolutions of the paper with batch normalisation, one linear layer in the place of three.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015, table 1. VGG-8 is the
literature's own: one convolution a stage.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from kdpipe.models.literature.base import CifarNetwork, small_linear

WIDTHS = (64, 128, 256, 512, 512)


class PoolAboveFour(nn.Module):
    """Max-pooling of maps larger than 4 x 4: with images of 32, the last stage works at 4 x 4 and not at 2 x 2."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to half the height and width, or the maps as they are."""
        return max_pool2d(maps, 2) if min(maps.shape[2:]) > 4 else maps


class CifarVgg(CifarNetwork):
    """Five stages of 3x3 convolutions, each with its norm and ReLU, on maps of 32, 16, 8, 4 and 4.

    The first stage counts as the stem: most published methods compare features from the second stage on.

    Args:
        convolutions: of each stage.
    """

    STRETCHES = (("block0",), ("pool0", "block1"), ("pool1", "block2"), ("pool2", "block3"), ("pool3", "block4"))
    CLASSIFIER = "classifier"

    def __init__(
        self,
        convolutions: Sequence[int],
        num_classes: int = 100,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        stages = zip((in_chans, *WIDTHS), WIDTHS, convolutions, strict=False)
        self.block0, self.block1, self.block2, self.block3, self.block4 = (_stage(*stage) for stage in stages)
        self.pool0, self.pool1, self.pool2, self.pool3 = (*(nn.MaxPool2d(2) for _ in range(3)), PoolAboveFour())
        self.num_features = WIDTHS[-1]
        self.complete(WIDTHS, (1, 2, 4, 8, 8), num_classes, global_pool, drop_rate)

    def initialise(self) -> None:
        """As all, but the classifier starts near zero."""
        super().initialise()
        small_linear(self)


def _stage(channels: int, width: int, count: int) -> nn.Sequential:
    """Published weights number its modules with those that have none: convolution, norm, ReLU."""
    modules: list[nn.Module] = []
    for number in range(count):
        came = channels if number == 0 else width
        modules += [nn.Conv2d(came, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*modules)
