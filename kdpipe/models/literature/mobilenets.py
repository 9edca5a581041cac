"""MobileNetV2 for CIFAR: inverted residual blocks of half the width.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, table 2, with stride 1 in place of 2 in
the second stage of blocks. The literature's network is half as wide and expands six-fold.
"""

from __future__ import annotations

from torch import Tensor, nn

from kdpipe.models.literature.base import CifarNetwork, convolution, small_linear

# Expansion, channels at full width, blocks and stride of each stage.
STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
LAST = 1280


def _rectified(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [convolution(channels, width, kernel, stride, groups), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


class InvertedResidual(nn.Module):
    """1x1 up, 3x3 by channel, 1x1 down without a ReLU; a shortcut where the shape stays."""

    def __init__(self, channels: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide, self.residual = channels * expansion, stride == 1 and channels == width
        self.conv = nn.Sequential(
            *_rectified(channels, wide, 1),
            *_rectified(wide, wide, 3, stride, groups=wide),
            convolution(wide, width, 1),
            nn.BatchNorm2d(width),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the block's own channels and size."""
        return maps + self.conv(maps) if self.residual else self.conv(maps)


class CifarMobileNetV2(CifarNetwork):
    """A 3x3 stem of stride 2, seven stages of blocks on maps of 16 down to 2, and a 1x1 convolution to 1280 channels.

    Taps are where maps are about to shrink. They come without a ReLU: the bottlenecks are linear.

    Args:
        width: of all but the last convolution, next to the paper's.
    """

    STRETCHES = (
        ("conv1",), ("blocks.0", "blocks.1"), ("blocks.2",), ("blocks.3", "blocks.4"), ("blocks.5", "blocks.6"),
    )  # fmt: skip
    END = ("conv2",)
    CLASSIFIER = "classifier.0"

    def __init__(
        self,
        width: float = 0.5,
        num_classes: int = 100,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        channels = [int(32 * width), *(int(base * width) for _, base, _, _ in STAGES)]
        self.conv1 = nn.Sequential(*_rectified(in_chans, channels[0], 3, stride=2))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                InvertedResidual(came, goes, stride, expansion),
                *(InvertedResidual(goes, goes, 1, expansion) for _ in range(blocks - 1)),
            )
            for came, goes, (expansion, _, blocks, stride) in zip(channels, channels[1:], STAGES, strict=False)
        )
        self.conv2 = nn.Sequential(*_rectified(channels[-1], LAST, 1))
        self.classifier = nn.Sequential(nn.Identity())
        self.num_features = LAST
        tapped = [channels[place] for place in (0, 2, 3, 5, 7)]
        self.complete(tapped, (2, 2, 4, 8, 16), num_classes, global_pool, drop_rate)

    def initialise(self) -> None:
        """As all, but the classifier starts near zero."""
        super().initialise()
        small_linear(self)
