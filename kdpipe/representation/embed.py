"""Embeddings: each tapped map of the probe images as a vector, in two views.

A layer's measures depend on how its map becomes a vector, so there are two ways, never mixed:
``gap`` is the mean over positions, ``projection`` one fixed random projection of the flattened map.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdpipe.data.batches import as_input
from kdpipe.errors import ArtifactError
from kdpipe.models.network import Network
from kdpipe.seeds import derive_seed

PROJECTION_DIM, BATCH, ROWS_AT_ONCE = 512, 250, 4096
Floats = NDArray[np.float32]


def gap(maps: Tensor) -> Tensor:
    """Global average pool: (B, C, H, W) to (B, C). For a transformer, the mean of its patch tokens."""
    return maps.float().mean(dim=(2, 3))


def projection(maps: Tensor) -> Tensor:
    """(B, C, H, W) to (B, min(C*H*W, 512)) by one seeded Gaussian matrix for each shape (C, H, W).

    The same shape has the same matrix in every network and study; distances are kept in expectation
    (Johnson & Lindenstrauss, 1984). A flattened map of at most 512 numbers is left as it is.
    """
    flat = maps.float().flatten(1)
    if flat.shape[1] <= PROJECTION_DIM:
        return flat
    shape = tuple(int(size) for size in maps.shape[1:])
    out = torch.zeros(len(flat), PROJECTION_DIM, device=flat.device)
    for start in range(0, flat.shape[1], ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, flat.shape[1])
        out += flat[:, start:stop] @ _gaussian(shape, start, stop).to(flat.device)
    return out / PROJECTION_DIM**0.5


@lru_cache(maxsize=16)
def _gaussian(shape: tuple[int, ...], start: int, stop: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed("projection", *shape, start))
    return torch.randn(stop - start, PROJECTION_DIM, generator=generator)


VIEWS = {"gap": gap, "projection": projection}


@torch.no_grad()
def embed(
    network: Network, images: NDArray[np.uint8], views: Sequence[str]
) -> tuple[Floats, dict[tuple[int, str], Floats]]:
    """Logits (N, K) and, for each tap and view, vectors (N, d) of uint8 images, in eval mode and float32."""
    network.eval()
    logits: list[Floats] = []
    vectors: dict[tuple[int, str], list[Floats]] = {}
    for start in range(0, len(images), BATCH):
        batch = as_input(images[start : start + BATCH], network.mean.device)
        outputs = network(batch)
        logits.append(outputs.logits.cpu().numpy())
        for order, part in enumerate(outputs.maps):
            for view in views:
                vectors.setdefault((order, view), []).append(VIEWS[view](part).cpu().numpy())
    return np.concatenate(logits), {key: np.concatenate(parts) for key, parts in vectors.items()}


def write_embedding(path: Path, vectors: Floats, sample_id: NDArray[np.int32]) -> None:
    """One embedding as Parquet: fixed-size lists of float16, byte-stream-split, zstd.

    Values are divided by a power of two where float16 (65,504 at most) would not hold them; the
    file's metadata has that ``scale``, and :func:`read_embedding` puts it back.

    Raises:
        ArtifactError: values that are not finite.
    """
    if not np.isfinite(vectors).all():
        raise ArtifactError(
            f"{path.name}: the layer has values that are not finite; "
            "the network has most likely diverged: lower its learning rate."
        )
    scale = 2.0 ** max(np.ceil(np.log2(np.abs(vectors).max(initial=1.0))) - 15, 0)
    flat = pa.array((vectors / np.float32(scale)).astype(np.float16).ravel(), type=pa.float16())
    table = pa.table(
        {"sample_id": pa.array(sample_id), "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
    ).replace_schema_metadata({"scale": str(scale)})
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        use_byte_stream_split=["vector.list.element"],
    )


def read_embedding(path: Path) -> Floats:
    """Vectors (N, d) float32 of an embedding file."""
    table = pq.read_table(path, columns=["vector"])
    column = table["vector"].combine_chunks()
    scale = np.float32(float(table.schema.metadata[b"scale"]))
    return column.values.to_numpy().astype(np.float32).reshape(len(column), -1) * scale
