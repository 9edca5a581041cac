"""ResNets for CIFAR: three stages of basic blocks, and ResNet-50 with a stem for small images.

He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", 2016: section 4.2 for depths 6n + 2, table 1 for
ResNet-50. The literature's ``x4`` networks are four times as wide from the first stage on, and twice in the stem.
Shortcuts that change a map's shape are 1x1 convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kdpipe.models.literature.base import CifarNetwork, convolution


def _projection(channels: int, width: int, stride: int) -> nn.Sequential | None:
    """A shortcut to another shape; None where the identity fits."""
    if stride == 1 and channels == width:
        return None
    return nn.Sequential(convolution(channels, width, 1, stride), nn.BatchNorm2d(width))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the ReLU stands after the sum."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = convolution(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = _projection(channels, width, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the block's own channels and size."""
        inner = self.bn2(self.conv2(self.bn1(self.conv1(maps)).relu()))
        return (inner + (maps if self.downsample is None else self.downsample(maps))).relu()


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, the last four times as wide; the stride is that of the 3x3."""

    EXPANSION = 4

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        wide = self.EXPANSION * width
        self.conv1, self.bn1 = convolution(channels, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = convolution(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = convolution(width, wide, 1), nn.BatchNorm2d(wide)
        self.shortcut = _projection(channels, wide, stride) or nn.Sequential()

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the block's own channels and size."""
        inner = self.bn2(self.conv2(self.bn1(self.conv1(maps)).relu())).relu()
        return (self.bn3(self.conv3(inner)) + self.shortcut(maps)).relu()


class CifarResNet(CifarNetwork):
    """Depth 6n + 2: a 3x3 stem, then three stages of n basic blocks on maps of 32, 16 and 8.

    Args:
        depth: layers with weights, shortcuts not counted.
        widths: channels of the stem and the three stages.
    """

    STRETCHES = (("conv1", "bn1", "act1"), ("layer1",), ("layer2",), ("layer3",))
    CLASSIFIER = "fc"

    def __init__(
        self,
        depth: int,
        widths: Sequence[int],
        num_classes: int = 100,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = convolution(in_chans, widths[0], 3), nn.BatchNorm2d(widths[0]), nn.ReLU()
        stages = zip(widths, widths[1:], (1, 2, 2), strict=False)
        self.layer1, self.layer2, self.layer3 = (_basic_stage((depth - 2) // 6, *stage) for stage in stages)
        self.num_features = widths[-1]
        self.complete(widths, (1, 1, 2, 4), num_classes, global_pool, drop_rate)


def _basic_stage(blocks: int, channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(channels, width, stride), *(BasicBlock(width, width) for _ in range(blocks - 1)))


class CifarResNet50(CifarNetwork):
    """ResNet-50 with a 3x3 stem of stride 1 and no pooling after it: four stages on maps of 32, 16, 8 and 4."""

    STRETCHES = (("conv1", "bn1", "act1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
    CLASSIFIER = "linear"

    def __init__(
        self, num_classes: int = 100, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = convolution(in_chans, 64, 3), nn.BatchNorm2d(64), nn.ReLU()
        self.layer1, self.layer2 = _bottleneck_stage(3, 64, 64, 1), _bottleneck_stage(4, 256, 128, 2)
        self.layer3, self.layer4 = _bottleneck_stage(6, 512, 256, 2), _bottleneck_stage(3, 1024, 512, 2)
        self.num_features = 2048
        self.complete((64, 256, 512, 1024, 2048), (1, 1, 2, 4, 8), num_classes, global_pool, drop_rate)


def _bottleneck_stage(blocks: int, channels: int, width: int, stride: int) -> nn.Sequential:
    further = (Bottleneck(Bottleneck.EXPANSION * width, width) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(channels, width, stride), *further)
