"""Answers and accuracy of a network on a split."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kdpipe.config.training import TrainingSpec
from kdpipe.data.batches import as_input
from kdpipe.data.sources.base import Split
from kdpipe.models.network import Network

EVALUATION_BATCH = 500


def use_half(recipe: TrainingSpec, device: torch.device) -> bool:
    """Whether matrix products run in bfloat16: on request, or by default on CUDA."""
    return recipe.precision == "bfloat16" or (recipe.precision == "auto" and device.type == "cuda")


@torch.no_grad()
def predict(network: Network, images: np.ndarray, half: bool = False) -> Tensor:
    """Logits (N, K) float32 on the CPU for uint8 images (N, C, H, W), in eval mode."""
    network.eval()
    device = network.mean.device
    parts = []
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = as_input(images[start : start + EVALUATION_BATCH], device)
            parts.append(network(batch.to(memory_format=torch.channels_last)).logits.cpu())
    return torch.cat(parts)


def accuracy(network: Network, split: Split, half: bool = False) -> float:
    """Share of a split that the network gets right."""
    predicted = predict(network, split.images, half).argmax(1).numpy()
    return float((predicted == split.labels).mean())
