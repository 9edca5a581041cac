"""The network of a finished study that is to leave it: its row, its weights, and images to check it on."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from kdpipe.artifacts.store import Study
from kdpipe.config.sections import VECTORS
from kdpipe.errors import NetworkError, StudyError
from kdpipe.models.network import Network
from kdpipe.models.saved import read_network
from kdpipe.models.weights import read_header
from kdpipe.names import closest
from kdpipe.vocabulary import PIXELS

CHECKED = 64  # images that an exported network must answer as torch's does


@dataclass(frozen=True)
class Chosen:
    """A trained network with what its file says of it.

    Attributes:
        row: of the table networks.
        header: of its safetensors file: how it is built, the images it takes and how it scales them.
    """

    network_id: str
    row: Mapping[str, Any]
    network: Network
    header: Mapping[str, Any]
    class_names: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it takes."""
        channels, height, width = self.header["image_shape"]
        return channels, height, width


def network_row(study: Study, network_id: str | None) -> dict[str, Any]:
    """The row of a network in the table networks.

    Raises:
        StudyError: none was named, there is none of that name, or the study has vectors alone.
    """
    if study.record["study"]["data"]["dataset"] == VECTORS:
        raise StudyError(f"{study.name}: it is made of vectors, so it has no network to write; --vectors writes these.")
    known = [name for name in study.networks["network_id"] if name != PIXELS]
    if network_id not in known:
        said = "which network?" if network_id is None else f"there is no network {network_id!r}"
        near = "" if network_id is None else closest(network_id, known) or "."
        raise StudyError(f"{study.name}: {said}{near} Networks: {', '.join(known)}.")
    return study.networks.row(by_predicate=pl.col("network_id") == network_id, named=True)


def choose(study: Study, network_id: str | None, weights: Path) -> Chosen:
    """A network of a study with its weights.

    Args:
        weights: the folder of all studies' weights.

    Raises:
        StudyError: as :func:`network_row`.
        NetworkError: its weights are not there or cannot be read.
    """
    row = network_row(study, network_id)
    path = weights / study.name / f"{row['network_id']}.safetensors"
    if not path.is_file():
        raise NetworkError(
            f"{path}: the weights of {row['network_id']} are not there; run the study here, or name their folder with "
            "--weights."
        )
    network = read_network(path)
    try:
        header = read_header(path)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise NetworkError(f"{path}: not a network that kdpipe wrote ({error}).") from None
    names = tuple(study.record["data"]["class_names"])
    if len(names) != header["classes"]:
        raise NetworkError(
            f"{path}: it tells {header['classes']} classes apart and the study has {len(names)}: it belongs to another."
        )
    return Chosen(row["network_id"], row, network.eval(), header, names)


def images_to_check(study: Study, shape: tuple[int, int, int]) -> tuple[Tensor, str]:
    """uint8 images (N, C, H, W) that an export is checked on, and what they are.

    They are the first probe images as the artifacts keep them; seeded random ones where these have another shape.
    """
    kept = study.frame("samples", columns=["sample_id", "image"]).sort("sample_id")["image"].head(CHECKED)
    try:
        images = np.stack([_decoded(content, shape[0]) for content in kept])
    except (OSError, ValueError):  # samples that are no images
        images = np.zeros((0, 0, 0, 0), np.uint8)
    if images.shape[1:] == shape:
        return torch.from_numpy(images), "probe images"
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (CHECKED, *shape), generator=generator, dtype=torch.uint8), "random images"


def _decoded(content: bytes, channels: int) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
