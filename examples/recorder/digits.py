"""A plain PyTorch loop with a recorder: a teacher, plain and distilled students on digits, under a minute.

Run it, then look at it:

    python examples/recorder/digits.py
    kdpipe import digits-runs/*.vectors --name recorded
    kdpipe app
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import kdpipe
from kdpipe.methods import kd_loss

FOLDER = Path("digits-runs")
STEPS, LOOKS = 300, (10, 30, 60, 100, 150, 220)

digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
labels = torch.tensor(digits.target)
seen, probed = slice(0, 1400), slice(1400, 1650)  # to train on, to look at
PROBE = (images[probed], labels[probed].tolist(), [f"digit-{row}" for row in range(1400, 1650)])
PICTURES = np.asarray(digits.images[probed] * 15, np.uint8)


def network(width: int) -> nn.Module:
    """Three blocks and a classifier."""
    layers: list[nn.Module] = []
    for place, (given, made) in enumerate([(1, width), (width, width), (width, 2 * width)]):
        stride = 1 if place == 0 else 2
        layers.append(nn.Sequential(nn.Conv2d(given, made, 3, stride, 1), nn.BatchNorm2d(made), nn.ReLU()))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))


def train(model: nn.Module, loss: Callable[[Tensor, Tensor, Tensor], Tensor], role: str, seed: int) -> None:
    """Train on batches that the seed draws, and record a few steps on the way."""
    recorder = kdpipe.Recorder(model, ["0", "1", "2"], PROBE, role=role, seed=seed, images=PICTURES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    batches = torch.Generator().manual_seed(seed)
    for step in range(1, STEPS + 1):
        model.train()
        chosen = torch.randint(1400, (64,), generator=batches)
        shown = images[seen][chosen]
        optimizer.zero_grad()
        loss(model(shown), labels[seen][chosen], shown).backward()
        optimizer.step()
        if step in LOOKS:
            recorder.record(step)
    recorder.record(STEPS)
    print(recorder.save(FOLDER / f"{role}-s{seed}"))


def main() -> None:
    torch.manual_seed(100)
    teacher = network(32)
    train(teacher, lambda said, right, shown: nn.functional.cross_entropy(said, right), "teacher", 0)
    teacher.eval()

    def distil(said: Tensor, right: Tensor, shown: Tensor) -> Tensor:
        with torch.no_grad():
            taught = teacher(shown)
        return nn.functional.cross_entropy(said, right) + kd_loss(said, taught, temperature=4.0)

    for seed in (0, 1):
        for role, loss in (
            ("plain", lambda said, right, shown: nn.functional.cross_entropy(said, right)),
            ("distilled", distil),
        ):
            torch.manual_seed(seed)
            train(network(8), loss, role, seed)


if __name__ == "__main__":
    main()
