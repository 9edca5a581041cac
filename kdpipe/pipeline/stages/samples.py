"""The stage that makes the probe images ready to be shown: as small pictures, with their known factors."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from kdpipe.engine.stage import ANY, Context, Task, stage
from kdpipe.pipeline.stages.factors import FACTOR, factor_input
from kdpipe.vocabulary import FACTORS

SAMPLES = "samples.parquet"
SHOWN = "shown.json"  # of samples that are no images: what is shown of each, in the probe's order
LOSSLESS_UP_TO = 16  # pixels a side; below it WebP's blocks would be most of the picture


@stage("samples", version=2, takes=(ANY,))
def make_samples(task: Task, context: Context) -> None:
    """The probe images as WebP, their labels and display order, and the known factors of each."""
    probe = task.inputs["probe"]
    factors = {name: np.load(task.inputs[factor_input(name)] / FACTOR) for name in task.stage.params["factors"]}
    labels = np.load(probe / "labels.npy")
    pl.DataFrame(
        {
            "sample_id": np.arange(len(labels), dtype=np.int32),
            "label": labels.astype(np.int32),
            "display_rank": np.arange(len(labels), dtype=np.int32),
            "image": _shown(probe),
            **dict.fromkeys(FACTORS),
            **known_factors(factors),
        },
        schema_overrides={"image": pl.Binary, **dict.fromkeys(FACTORS, pl.Float64)},
    ).write_parquet(task.folder / SAMPLES)


def _shown(probe: Path) -> list[bytes]:
    """The images as WebP; of samples without any, what is said of each."""
    if (probe / "images.npy").is_file():
        return [webp(image) for image in np.load(probe / "images.npy")]
    return [text.encode() for text in json.loads((probe / SHOWN).read_text())]


def known_factors(found: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Factors as one number an image: a hue, stored as cosine and sine, in degrees; None where there is no colour."""
    if "hue" not in found:
        return dict(found)
    cosine, sine = found["hue"].T
    degrees = np.degrees(np.arctan2(sine, cosine)) % 360
    none = np.hypot(cosine, sine) == 0
    hue = [None if grey else float(value) for value, grey in zip(degrees, none, strict=True)]
    return {**found, "hue": hue}


def webp(image: NDArray[np.uint8]) -> bytes:
    """(C, H, W) uint8 as WebP bytes."""
    pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, 2)
    small = max(pixels.shape[:2]) <= LOSSLESS_UP_TO
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(buffer, "WEBP", lossless=small, quality=80, method=6)
    return buffer.getvalue()
