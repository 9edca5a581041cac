"""Wide residual networks: blocks that normalise and rectify before they convolve.

Zagoruyko & Komodakis, "Wide Residual Networks", 2016, table 1. WRN-d-k has depth d = 6n + 4 and is k times as wide.
"""

from __future__ import annotations

from torch import Tensor, nn

from kdpipe.models.literature.base import CifarNetwork, convolution


class WideBlock(nn.Module):
    """Norm, ReLU and a 3x3 convolution, twice, beside a shortcut.

    Where the shape changes, the shortcut's 1x1 convolution takes what was already normalised and rectified.
    """

    def __init__(self, channels: int, width: int, stride: int, drop_rate: float) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), convolution(channels, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), convolution(width, width, 3)
        self.drop = nn.Dropout(drop_rate)
        self.convShortcut = None if channels == width else convolution(channels, width, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the block's own channels and size."""
        ready = self.bn1(maps).relu()
        inner = self.conv2(self.drop(self.bn2(self.conv1(ready)).relu()))
        return inner + (maps if self.convShortcut is None else self.convShortcut(ready))


class WideStage(nn.Module):
    """Blocks in a row, under the name that published weights have for them."""

    def __init__(self, blocks: int, channels: int, width: int, stride: int, drop_rate: float) -> None:
        super().__init__()
        first = WideBlock(channels, width, stride, drop_rate)
        self.layer = nn.Sequential(first, *(WideBlock(width, width, 1, drop_rate) for _ in range(blocks - 1)))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the block's own channels and size."""
        return self.layer(maps)


class CifarWideResNet(CifarNetwork):
    """A 3x3 stem, then three stages of n blocks on maps of 32, 16 and 8, then one more norm and ReLU.

    Args:
        depth: 6n + 4.
        widening: of the stages, next to 16, 32 and 64 channels.
        drop_rate: within the blocks, where the paper has it.
    """

    STRETCHES = (("conv1",), ("block1",), ("block2",), ("block3",))
    END = ("bn1", "relu")
    CLASSIFIER = "fc"

    def __init__(
        self,
        depth: int,
        widening: int,
        num_classes: int = 100,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        widths, blocks = (16, 16 * widening, 32 * widening, 64 * widening), (depth - 4) // 6
        self.conv1 = convolution(in_chans, widths[0], 3)
        self.block1 = WideStage(blocks, widths[0], widths[1], 1, drop_rate)
        self.block2 = WideStage(blocks, widths[1], widths[2], 2, drop_rate)
        self.block3 = WideStage(blocks, widths[2], widths[3], 2, drop_rate)
        self.bn1, self.relu = nn.BatchNorm2d(widths[3]), nn.ReLU()
        self.num_features = widths[3]
        self.complete(widths, (1, 1, 2, 4), num_classes, global_pool, 0.0)

    def initialise(self) -> None:
        """As all, but the classifier's bias starts at zero."""
        super().initialise()
        if isinstance(classifier := self.get_classifier(), nn.Linear):
            nn.init.zeros_(classifier.bias)
