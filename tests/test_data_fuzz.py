"""Odd datasets: each is read rightly and whole, or refused in sentences; KDPIPE_FUZZ=2000 tries more of them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from random import Random
from types import SimpleNamespace

import odd_data
import pytest

from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import RawData, Split, fingerprint, no_tick, peek
from kdpipe.errors import DataError

TRIALS = int(os.environ.get("KDPIPE_FUZZ", "60"))
TOLERANCE = 4  # of a shade, as JPEG moves it


@pytest.mark.parametrize("seed", range(TRIALS))
def test_an_odd_dataset_is_read_rightly_or_refused_in_sentences(tmp_path, seed):
    rng = Random(seed)
    make = odd_data.MAKERS[seed % len(odd_data.MAKERS)]
    root = tmp_path / "data"
    root.mkdir()
    truth = make(root, rng)
    fields = dict.fromkeys(("image_column", "label_column", "channel_axis"))
    request = SimpleNamespace(path=str(root / truth.path), image_size=4, channels=1, **fields)
    source = SOURCES[truth.source]
    try:
        data = source.load(request, Path(), no_tick)
    except DataError as error:
        said(str(error), tmp_path)
        assert truth.doubtful, str(error)
        return
    whole(data, truth)
    seen = peek(source, request, Path())
    assert (seen.class_names, seen.train_labels.tolist()) == (data.class_names, data.train.labels.tolist())
    assert len(fingerprint(source, request, Path())) == 64


def said(message: str, root: Path) -> None:
    """A refusal is sentences that a screen can print, each of which says where."""
    for line in message.encode().decode().splitlines():
        assert line.endswith("."), line
        assert str(root) in line or line.startswith("and "), line


def whole(data: RawData, truth: odd_data.Truth) -> None:
    """Every image is there, under the class of its shade."""
    if truth.doubtful:  # what could be refused and was read may lack what its notes name
        return
    assert shades(data.train, data) == truth.train
    assert (data.test is None) == (truth.test is None)
    if data.test is not None:
        assert shades(data.test, data) == truth.test
    if truth.spare:
        assert any("left out" in note for note in data.notes)


def shades(split: Split, data: RawData) -> dict[int, int]:
    """Images of each shade; one class has one shade, and no two have the same."""
    found: dict[int, int] = {}
    of_class: dict[int, int] = {}
    for image, label in zip(split.images, split.labels, strict=True):
        shade = min(odd_data.SHADES, key=lambda one: abs(one - float(image.mean())))
        assert abs(shade - float(image.mean())) <= TOLERANCE
        assert of_class.setdefault(int(label), shade) == shade, data.class_names[label]
        found[shade] = found.get(shade, 0) + 1
    assert max(Counter(of_class.values()).values()) == 1
    return found
