"""Small memories of contrastive distillation, and vectors to hold against them."""

from __future__ import annotations

import torch
from draws import normal

from kdpipe.methods.contrastive import ContrastiveMemory

LABELS = tuple(i % 3 for i in range(12))


def vectors(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return normal(count, width, seed=seed, dtype=torch.float32)


def memory(labels=LABELS, width=4, negatives=5, momentum=0.5) -> ContrastiveMemory:
    torch.manual_seed(0)
    return ContrastiveMemory(labels, width, negatives, momentum)
