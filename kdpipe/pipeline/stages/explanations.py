"""Where networks look: Grad-CAM of the teacher's answer, for the teacher and for every other network."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from kdpipe.data.batches import as_input
from kdpipe.engine.stage import Context, Task, stage
from kdpipe.methods import grad_cam
from kdpipe.models.network import Network
from kdpipe.models.saved import read_network
from kdpipe.representation.embed import BATCH

MAPS, SIDE = "maps.npy", 8


@stage(
    "explanation", version=2, takes=("probe", "network", "answers"), may_take=("teacher",), title="explaining answers"
)
def make_explanations(task: Task, context: Context) -> None:
    """Heat-maps of the probe images, and how far each looks like the teacher's."""
    network = read_network(task.inputs["network"] / task.stage.params["weights"]).to(torch.device(context.device))
    images = np.load(task.inputs["probe"] / "images.npy")
    classes = np.load(task.inputs["answers"] / "logits.npy").argmax(axis=1)
    maps = explain(network, images, classes)
    theirs = np.load(task.inputs["teacher"] / MAPS) if "teacher" in task.inputs else maps
    small = small_maps(maps)
    pl.DataFrame(
        {
            "sample_id": np.arange(len(maps), dtype=np.int32),
            "class_index": classes.astype(np.int32),
            "cosine": map_cosine(maps, theirs).astype(np.float32),
            "side": np.full(len(maps), small.shape[1], np.int32),
            "heatmap": [heat.tobytes() for heat in small],
        }
    ).with_columns(pl.col("cosine").fill_nan(None)).write_parquet(task.folder / "explanations.parquet")
    np.save(task.folder / MAPS, maps)


def explain(network: Network, images: NDArray[np.uint8], classes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Grad-CAM (N, H, W) of one class an image, for uint8 images (N, C, H, W)."""
    network.eval()
    parts = []
    for start in range(0, len(images), BATCH):
        batch = as_input(images[start : start + BATCH], network.mean.device)
        with torch.no_grad():
            outputs = network(batch)
        chosen = torch.from_numpy(classes[start : start + BATCH]).to(network.mean.device)
        parts.append(grad_cam(network, outputs, chosen).float().cpu().numpy())
    return np.concatenate(parts)


def map_cosine(maps: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine (N,) of two heat-maps an image, met at the smaller size; NaN where one of them is blank."""
    height, width = (min(sides) for sides in zip(maps.shape[1:], others.shape[1:], strict=True))
    one, other = (_pooled(part, height, width).reshape(len(part), -1).astype(np.float64) for part in (maps, others))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(lengths > 0, (one * other).sum(axis=1) / np.where(lengths > 0, lengths, 1), np.nan)


def small_maps(maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Heat-maps of at most 8 rows and 8 columns, each from 0 to 255 at its own maximum; blank ones stay 0."""
    small = _pooled(maps, min(SIDE, maps.shape[1]), min(SIDE, maps.shape[2]))
    top = small.max(axis=(1, 2), keepdims=True)
    return np.round(255 * small / np.where(top > 0, top, 1)).astype(np.uint8)


def _pooled(maps: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    return F.adaptive_avg_pool2d(torch.from_numpy(maps)[:, None], (height, width))[:, 0].numpy()
