"""The tables of probe images and of what networks answer to them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from kdpipe.artifacts.schema import TABLES
from kdpipe.config.study import StudySpec
from kdpipe.engine.cache import Cache
from kdpipe.measures import MEASURES, flips, margins
from kdpipe.pipeline.analysis_plan import Analysis
from kdpipe.pipeline.export.collect import done, logits_of
from kdpipe.pipeline.stages.factors import FACTOR
from kdpipe.pipeline.stages.image_measures import SETTLED
from kdpipe.pipeline.training_plan import Training
from kdpipe.seeds import derive_seed

LOSSLESS_UP_TO = 16  # pixels a side; below it WebP's blocks would be most of the picture


def samples_table(training: Training, analysis: Analysis, class_names: list[str], cache: Cache) -> pl.DataFrame:
    folder = cache.path(training.probe)
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    return pl.DataFrame(
        {
            "sample_id": np.arange(len(labels), dtype=np.int32),
            "label": labels.astype(np.int32),
            "class_name": [class_names[label] for label in labels],
            "display_rank": np.arange(len(labels), dtype=np.int32),
            "image": [_webp(image) for image in images],
            **_factors(analysis, cache),
        }
    )


def _factors(analysis: Analysis, cache: Cache) -> dict[str, Any]:
    """The known factors of the images that the table has a column for; a hue in degrees, or none."""
    done_ones = done(analysis.factors, cache)
    known = [name for name in TABLES["samples"].columns if name in done_ones]
    found = {name: np.load(cache.path(done_ones[name]) / FACTOR) for name in known}
    cosine, sine = found.pop("hue").T
    degrees = np.degrees(np.arctan2(sine, cosine)) % 360
    none = np.hypot(cosine, sine) == 0
    hue = [None if grey else float(value) for value, grey in zip(degrees, none, strict=True)]
    return {**found, "hue": hue}


def _webp(image: np.ndarray) -> bytes:
    """(C, H, W) uint8 as WebP bytes."""
    pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, 2)
    small = max(pixels.shape[:2]) <= LOSSLESS_UP_TO
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(buffer, "WEBP", lossless=small, quality=80, method=6)
    return buffer.getvalue()


def predictions_table(training: Training, analysis: Analysis, cache: Cache) -> pl.DataFrame:
    labels = np.load(cache.path(training.probe) / "labels.npy")
    frames = []
    for network_id, stage in done(analysis.embeddings, cache).items():
        if (logits := logits_of(stage, cache)) is None:
            continue
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        predicted = logits.argmax(axis=1)
        frame = pl.DataFrame(
            {
                "sample_id": np.arange(len(labels), dtype=np.int32),
                "predicted": predicted.astype(np.int32),
                "confidence": (shifted.max(axis=1) / shifted.sum(axis=1)).astype(np.float32),
                "margin": margins(logits, labels).astype(np.float32),
                "correct": predicted == labels,
                "logits": list(logits),
            },
            schema_overrides={"logits": pl.List(pl.Float32)},
        )
        measured = analysis.images[network_id]
        if cache.has(measured):
            settled = pl.read_parquet(cache.path(measured) / SETTLED)
        else:
            settled = frame.select("sample_id", prediction_depth=None, vote_entropy=None)
        frames.append(frame.join(settled, on="sample_id").with_columns(network_id=pl.lit(network_id)))
    return pl.concat(frames, how="vertical_relaxed") if frames else pl.DataFrame()


def answers_table(spec: StudySpec, training: Training, analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Each network's answers beside its teacher's and those of plain of the same seed."""
    labels = np.load(cache.path(training.probe) / "labels.npy")
    embedded = done(analysis.embeddings, cache)
    shuffle = np.random.default_rng(derive_seed("shuffled answers")).permutation(len(labels))
    rows: list[dict[str, Any]] = []
    for one, other in analysis.pairs:
        if one not in embedded or other not in embedded:
            continue
        logits, others = logits_of(embedded[one], cache), logits_of(embedded[other], cache)
        assert logits is not None and others is not None, "raw pixels are compared with nobody"
        said, theirs = logits.argmax(axis=1), others.argmax(axis=1)
        arrays = {"a": said, "b": theirs, "correct_a": said == labels, "correct_b": theirs == labels}
        moved = {**arrays, "b": theirs[shuffle], "correct_b": (theirs == labels)[shuffle]}
        place = {"network_id": one, "other_id": other}
        for measure in (MEASURES[name] for name in spec.measures.names if MEASURES[name].of == "answers"):
            value = measure.function(*(arrays[name] for name in measure.takes))
            chance = measure.known_chance(labels)
            if measure.chance == "shuffled":
                chance = measure.function(*(moved[name] for name in measure.takes))
            rows.append({**place, "measure": measure.name, "value": value, "chance": chance})
        shares = flips(theirs, said, labels).shares
        rows += [{**place, "measure": name, "value": value, "chance": None} for name, value in shares.items()]
    return pl.DataFrame(rows, schema_overrides={"value": pl.Float32, "chance": pl.Float32}, infer_schema_length=None)
