"""Noisy stripes in four directions: a data set in one file."""

from pathlib import Path

import numpy as np

from kdpipe.data.sources.base import RawData, Request, Source, Split, Tick
from kdpipe.data.sources.images import converted


def load_stripes(request: Request, root: Path, tick: Tick) -> RawData:
    draw, labels = np.random.default_rng(0), np.arange(800) % 4
    down, across = np.mgrid[:16, :16]
    angle, phase = labels[:, None, None] * np.pi / 4, draw.uniform(0, 2 * np.pi, (800, 1, 1))
    waves = np.sin(across * np.cos(angle) + down * np.sin(angle) + phase) + draw.normal(0, 0.5, (800, 16, 16))
    images = np.clip(128 + 50 * waves, 0, 255).astype(np.uint8)[:, None]  # (N, C, H, W)
    tick(len(images))
    return RawData(converted(Split(images, labels), request), None, ["|", "/", "-", "\\"])


STRIPES = Source(
    "stripes", "Stripes", lambda request, root: [], load_stripes, "none", licence="CC0", note="Drawn, not taken."
)
