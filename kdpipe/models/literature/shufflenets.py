"""ShuffleNet V1 and V2 for CIFAR: a 1x1 stem of stride 1, three stages on maps of 16, 8 and 4.

Zhang et al., "ShuffleNet", 2018, table 1 with 3 groups; Ma et al., "ShuffleNet V2", 2018, table 5 at width 1. The
literature's V1 shuffles before the depthwise convolution, follows that with a ReLU, and both do without the 3x3 stem.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdpipe.models.literature.base import CifarNetwork, convolution, shuffle

STEM = 24


class GroupedBlock(nn.Module):
    """V1: 1x1 in groups, a shuffle, 3x3 by channel, 1x1 in groups.

    A block that halves the side is joined with its pooled input, and so makes so many channels fewer; others are added.

    Args:
        width: of the block's output.
        groups: of the last convolution, and of the first but after the stem, which has too few channels.
    """

    def __init__(self, channels: int, width: int, stride: int, groups: int) -> None:
        super().__init__()
        own = width - channels if stride == 2 else width
        inner = own // 4
        self.groups = 1 if channels == STEM else groups
        self.conv1, self.bn1 = convolution(channels, inner, 1, groups=self.groups), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = convolution(inner, inner, 3, stride, groups=inner), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = convolution(inner, own, 1, groups=groups), nn.BatchNorm2d(own)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the block's own channels and size."""
        inner = shuffle(self.bn1(self.conv1(maps)).relu(), self.groups)
        inner = self.bn3(self.conv3(self.bn2(self.conv2(inner)).relu()))
        return (inner + maps if self.pool is None else torch.cat([inner, self.pool(maps)], 1)).relu()


class SplitBlock(nn.Module):
    """V2: half of the channels pass, the others are convolved; then both are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.conv1, self.bn1 = convolution(half, half, 1), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = convolution(half, half, 3, groups=half), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = convolution(half, half, 1), nn.BatchNorm2d(half)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the block's own channels and size."""
        passed, inner = maps.chunk(2, 1)
        inner = self.bn2(self.conv2(self.bn1(self.conv1(inner)).relu()))
        return shuffle(torch.cat([passed, self.bn3(self.conv3(inner)).relu()], 1), 2)


class HalvingBlock(nn.Module):
    """V2 where the side halves: both branches convolve all channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        half = width // 2
        self.conv1, self.bn1 = convolution(channels, channels, 3, 2, groups=channels), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = convolution(channels, half, 1), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = convolution(channels, half, 1), nn.BatchNorm2d(half)
        self.conv4, self.bn4 = convolution(half, half, 3, 2, groups=half), nn.BatchNorm2d(half)
        self.conv5, self.bn5 = convolution(half, half, 1), nn.BatchNorm2d(half)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the block's own channels and size."""
        left = self.bn2(self.conv2(self.bn1(self.conv1(maps)))).relu()
        right = self.bn4(self.conv4(self.bn3(self.conv3(maps)).relu()))
        return shuffle(torch.cat([left, self.bn5(self.conv5(right)).relu()], 1), 2)


class CifarShuffleNet(CifarNetwork):
    """What both versions share: the stem, and torch's own initial weights, as published."""

    CLASSIFIER = "linear"

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = convolution(in_chans, STEM, 1), nn.BatchNorm2d(STEM), nn.ReLU()

    def initialise(self) -> None:
        """Torch's own initial weights stay."""


class CifarShuffleNetV1(CifarShuffleNet):
    """Version 1 with 240, 480 and 960 channels in 4, 8 and 4 blocks, 3 groups."""

    STRETCHES = (("conv1", "bn1", "act1"), ("layer1",), ("layer2",), ("layer3",))

    def __init__(
        self, num_classes: int = 100, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__(in_chans)
        widths, groups = (STEM, 240, 480, 960), 3
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                GroupedBlock(came, goes, 2, groups), *(GroupedBlock(goes, goes, 1, groups) for _ in range(blocks - 1))
            )
            for came, goes, blocks in zip(widths, widths[1:], (4, 8, 4), strict=False)
        )
        self.num_features = widths[-1]
        self.complete(widths, (1, 2, 4, 8), num_classes, global_pool, drop_rate)


class CifarShuffleNetV2(CifarShuffleNet):
    """Version 2 with 116, 232 and 464 channels in 4, 8 and 4 blocks, then a 1x1 convolution to 1024."""

    STRETCHES = (("conv1", "bn1", "act1"), ("layer1",), ("layer2",), ("layer3",))
    END = ("conv2", "bn2", "act2")

    def __init__(
        self, num_classes: int = 100, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__(in_chans)
        widths, self.num_features = (STEM, 116, 232, 464), 1024
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(HalvingBlock(came, goes), *(SplitBlock(goes) for _ in range(blocks - 1)))
            for came, goes, blocks in zip(widths, widths[1:], (4, 8, 4), strict=False)
        )
        self.conv2 = convolution(widths[-1], self.num_features, 1)
        self.bn2, self.act2 = nn.BatchNorm2d(self.num_features), nn.ReLU()
        self.complete(widths, (1, 2, 4, 8), num_classes, global_pool, drop_rate)
