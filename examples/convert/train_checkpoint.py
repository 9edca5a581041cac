"""Train a torchvision network as people do, and save it as they do: weights beside options, under a prefix.

``python examples/convert/train_checkpoint.py [best.pth]`` takes half a minute on one core. How the file becomes a
teacher is written at the top of ``digits.toml``.
"""

import argparse
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet

from kdpipe.config.sections import DataSpec
from kdpipe.data.dataset import split_dataset
from kdpipe.data.sources import SOURCES, data_root, no_tick

MEAN, STD = 0.3, 0.375


def network() -> ResNet:
    """A ResNet for small grey images: four blocks, a 3x3 stem of stride 2, no pooling after it."""
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    model.conv1 = nn.Conv2d(1, 64, 3, stride=2, padding=1, bias=False)
    model.maxpool = nn.Identity()  # type: ignore[assignment]
    return model


def images() -> tuple[Tensor, Tensor]:
    """The digits that a study with this data trains on, scaled, and their labels."""
    spec = DataSpec(dataset="digits")
    raw = SOURCES[spec.dataset].load(spec, data_root(None), no_tick)
    fractions = {"validation_fraction": spec.validation_fraction, "test_fraction": spec.test_fraction}
    train = split_dataset(raw, **fractions, split_seed=spec.split_seed).train
    return (torch.tensor(train.images) / 255 - MEAN) / STD, torch.tensor(train.labels)


def main(target: str, epochs: int = 3) -> None:
    """Train and save."""
    torch.manual_seed(0)
    wrapped, (x, y) = nn.DataParallel(network()), images()
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(wrapped(x[batch]), y[batch]).backward()
            optimizer.step()
    options = argparse.Namespace(lr=0.05, epochs=epochs)
    torch.save(
        {"model": wrapped.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epochs, "opt": options}, target
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "best.pth")
