"""scikit-learn's optical digits: in the package, so always there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdpipe.data.sources.base import RawData, Request, Source, Tick
from kdpipe.data.sources.images import checked, converted


def _digits_files(request: Request, root: Path) -> list[Path]:
    import sklearn.datasets

    return [Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"]


def _load_digits(request: Request, root: Path, tick: Tick) -> RawData:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255.0 / 16.0)).astype(np.uint8)[:, None]
    split = converted(checked(images, digits.target, 10, "digits"), request)
    return RawData(split, None, [str(name) for name in digits.target_names])


SOURCES = (
    Source("digits", "Optical digits, 8x8 (scikit-learn)", _digits_files, _load_digits, "none", "CC BY 4.0 (UCI)"),
)
