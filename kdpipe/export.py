"""From the cache to artifacts: the tables of :mod:`kdpipe.schema`, assembled and written as one study."""

from __future__ import annotations

import importlib.metadata
import io
import json
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

import kdpipe
from kdpipe.analysis_planning import Analysis
from kdpipe.checks import Facts
from kdpipe.data import Dataset, derive_seed, describe
from kdpipe.embedding_stages import LAYERS, PIXELS
from kdpipe.engine import Cache, Stage
from kdpipe.files import canonical_json, new_folder
from kdpipe.flip_export import flip_tables
from kdpipe.judging import judge_study
from kdpipe.map_export import map_tables
from kdpipe.map_stages import MAP_NEIGHBOURS
from kdpipe.measure_stages import PUBLISHED_NEIGHBOURS, teacher_entropy
from kdpipe.measures import MEASURES, Measure, flips, margins
from kdpipe.methods import METHODS
from kdpipe.pipeline import Result, finished
from kdpipe.planning import TEACHER, Planned, Training
from kdpipe.schema import TABLES
from kdpipe.sources import SOURCES
from kdpipe.store import study_hash, write_study
from kdpipe.study import StudySpec
from kdpipe.training_stages import HISTORY, RESULT

SUPERVISED, UNTRAINED = "supervised", "untrained"
EXPORT_VERSION = 5  # raised when the same outputs would be assembled differently
PACKAGES = ("torch", "torchvision", "timm", "numpy", "polars", "openTSNE", "ivis", "tensorflow", "scikit-learn")
LOSSLESS_UP_TO = 16  # pixels a side; below it WebP's blocks would be most of the picture


def export(
    spec: StudySpec, facts: Facts, result: Result, cache: Cache, folder: Path, hardware: dict[str, Any]
) -> dict[str, pl.DataFrame]:
    """Assemble all tables of a finished run and write them to ``folder`` (``artifacts/<name>``).

    Returns:
        the frames that were written, by table name.
    """
    assert result.analysis is not None, "artifacts need the whole plan"
    training, analysis = result.training, result.analysis
    alive = finished(training, cache)
    frames = {
        "networks": _networks(spec, training, cache),
        "layers": _layers(analysis, cache),
        "samples": _samples(training, analysis, facts.data.class_names, cache),
        "predictions": _predictions(training, analysis, cache),
        "history": _history(training, cache),
        "neighbours": _neighbours(alive, analysis, cache),
        **map_tables(spec, facts, training, analysis, cache),
        "network_measures": _collected("network.parquet", analysis.measures, cache),
        "answers": _answers(spec, training, analysis, cache),
        **flip_tables(training, analysis, cache),
        "factors": _collected("factors.parquet", analysis.factors, cache),
        "neighbour_credit": _credit(analysis, cache),
        "explanations": _collected("explanations.parquet", analysis.explanations, cache),
        "layer_measures": _layer_measures(analysis, cache),
        "class_measures": _collected("classes.parquet", analysis.measures, cache),
        "sample_measures": _collected("samples.parquet", analysis.measures, cache),
        "similarity": _similarity(analysis, cache),
        "methods": _methods(spec),
        "measures": _measures(spec),
    }
    frames = {name: _as_declared(name, frame) for name, frame in frames.items()}
    record = _record(spec, result, cache)
    frames |= judge_study(frames, record)
    write_study(folder, record, frames, _timings(training, analysis, cache, hardware))
    return frames


def export_weights(training: Training, cache: Cache, folder: Path) -> list[str]:
    """Copy the last-step weights of every trained network, one safetensors file each.

    Returns:
        the networks whose weights are not at hand, as their stage was packed without them.
    """
    lacking = []
    with new_folder(folder) as building:
        for planned in (one for one in finished(training, cache) if one.network_id != PIXELS):
            name = f"{planned.network_id}.safetensors"
            source = cache.path(planned.stage) / planned.weights
            if cache.thinned(planned.stage):
                source = folder / name  # from an earlier run, if there was one
            if source.is_file():
                shutil.copyfile(source, building / name)
            else:
                lacking.append(planned.network_id)
    return lacking


def _as_declared(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Columns in the order of the schema, numbers in its types."""
    schema = TABLES[name].schema
    if not frame.width:
        return pl.DataFrame(schema=schema)
    return frame.select(pl.col(column).cast(dtype) for column, dtype in schema.items())


# ---------------------------------------------------------------------------------- networks, data


def _networks(spec: StudySpec, training: Training, cache: Cache) -> pl.DataFrame:
    rows = []
    for planned in training.networks:
        if not cache.has(planned.stage):
            continue
        result = json.loads((cache.path(planned.stage) / RESULT).read_text())
        numbers = {key: value for key, value in result.items() if key in TABLES["networks"].columns}
        if planned.checkpoint is not None:
            numbers |= {name: None for name in numbers if name.startswith("selected_")}
            numbers |= result.get("kept", {}).get(str(planned.checkpoint), {})
        rows.append({**_identity(spec, planned), **numbers})
    columns = TABLES["networks"].schema
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=columns)


def _identity(spec: StudySpec, planned: Planned) -> dict[str, Any]:
    if planned.network_id == PIXELS:
        return _pixels_identity(planned)
    architecture = planned.student or spec.teacher
    method = planned.method
    record = METHODS[method.method] if method else None
    taught, step = planned.teacher, planned.checkpoint
    supervised = SUPERVISED if planned.label_fraction else UNTRAINED
    return {
        "network_id": planned.network_id,
        "role": planned.role,
        "student": planned.student.name if planned.student else TEACHER,
        "arch": architecture.arch,
        "arch_arguments": canonical_json(
            {"arguments": architecture.arguments, "stem": architecture.stem, "stem_stride": architecture.stem_stride}
        ),
        "method": method.method if method else supervised,
        "method_label": (method.name if method else supervised) + ("" if step is None else f"-at{step}"),
        "method_parameters": canonical_json(
            record.resolved(method.parameters).model_dump(mode="json") if record and method else {}
        ),
        "training": canonical_json(method.training if method else {}),
        "teacher_id": taught.network_id if taught else None,
        "teacher_label_fraction": taught.label_fraction if taught else None,
        "label_fraction": planned.label_fraction,
        "unlabelled": method.unlabelled if method else False,
        "seed": planned.seed,
        "init_seed": planned.init_seed,
        "data_seed": planned.seed,
        "label_seed": planned.seed,
        "checkpoint_step": planned.recipe.steps if step is None else step,
        "mapped": planned.mapped,
    }


def _pixels_identity(planned: Planned) -> dict[str, Any]:
    """The raw images: no architecture, no training, no answers."""
    none = dict.fromkeys(("arch", "student", "method", "method_label", "network_id"), PIXELS)
    nothing = dict.fromkeys(("arch_arguments", "method_parameters", "training"), "{}")
    zero = dict.fromkeys(("label_fraction", "seed", "init_seed", "data_seed", "label_seed", "checkpoint_step"), 0)
    return {**none, **nothing, **zero, "role": planned.role, "unlabelled": False, "mapped": False}


def _samples(training: Training, analysis: Analysis, class_names: list[str], cache: Cache) -> pl.DataFrame:
    folder = cache.path(training.probe)
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    return pl.DataFrame(
        {
            "sample_id": np.arange(len(labels), dtype=np.int32),
            "label": labels.astype(np.int32),
            "class_name": [class_names[label] for label in labels],
            "display_rank": np.arange(len(labels), dtype=np.int32),
            "image": [_webp(image) for image in images],
            **_factors(folder, cache.path(analysis.embeddings[TEACHER])),
        }
    )


def _factors(probe: Path, teacher: Path) -> dict[str, Any]:
    """The known factors of the images; a hue in degrees, or none."""
    found = dict(np.load(probe / "factors.npz"))
    cosine, sine = found.pop("hue").T
    degrees = np.degrees(np.arctan2(sine, cosine)) % 360
    none = np.hypot(cosine, sine) == 0
    hue = [None if grey else float(value) for value, grey in zip(degrees, none, strict=True)]
    return {**found, "hue": hue, "teacher_entropy": teacher_entropy(np.load(teacher / "logits.npy"))}


def _webp(image: np.ndarray) -> bytes:
    """(C, H, W) uint8 as WebP bytes."""
    pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, 2)
    small = max(pixels.shape[:2]) <= LOSSLESS_UP_TO
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(buffer, "WEBP", lossless=small, quality=80, method=6)
    return buffer.getvalue()


def _history(training: Training, cache: Cache) -> pl.DataFrame:
    frames = [
        pl.read_parquet(cache.path(planned.stage) / HISTORY).with_columns(network_id=pl.lit(planned.network_id))
        for planned in training.networks
        if planned.checkpoint is None and cache.has(planned.stage)
    ]
    return pl.concat(frames)


def _predictions(training: Training, analysis: Analysis, cache: Cache) -> pl.DataFrame:
    labels = np.load(cache.path(training.probe) / "labels.npy")
    frames = []
    for network_id, stage in _done(analysis.embeddings, cache).items():
        if (logits := _logits(stage, cache)) is None:
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
        measured = analysis.measures[network_id]
        if cache.has(measured):
            settled = pl.read_parquet(cache.path(measured) / "answers.parquet")
        else:
            settled = frame.select("sample_id", prediction_depth=None, vote_entropy=None)
        frames.append(frame.join(settled, on="sample_id").with_columns(network_id=pl.lit(network_id)))
    return pl.concat(frames, how="vertical_relaxed") if frames else pl.DataFrame()


def _logits(stage: Stage, cache: Cache) -> np.ndarray | None:
    """(N, K) of the probe images; None for raw pixels."""
    path = cache.path(stage) / "logits.npy"
    return np.load(path) if path.is_file() else None


def _answers(spec: StudySpec, training: Training, analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Each network's answers beside its teacher's and those of plain of the same seed."""
    labels = np.load(cache.path(training.probe) / "labels.npy")
    done = _done(analysis.embeddings, cache)
    shuffle = np.random.default_rng(derive_seed("shuffled answers")).permutation(len(labels))
    rows: list[dict[str, Any]] = []
    for one, other in analysis.similarity:
        if one not in done or other not in done:
            continue
        logits, others = _logits(done[one], cache), _logits(done[other], cache)
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


# ------------------------------------------------------------------------------------------ layers


def _layers(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    rows = []
    for network_id, stage in _done(analysis.embeddings, cache).items():
        layers = json.loads((cache.path(stage) / LAYERS).read_text())
        for tap in layers["taps"]:
            for view in layers["views"]:
                dim = layers["dims"][f"{tap['order']:02d}-{view}"]
                rows.append({"network_id": network_id, "view": view, "dim": dim, **tap})
    return pl.DataFrame(rows, infer_schema_length=None)


def _collected(file: str, stages: dict[str, Stage], cache: Cache) -> pl.DataFrame:
    """One file of every stage, with the network it belongs to."""
    frames = [
        pl.read_parquet(cache.path(stage) / file).with_columns(network_id=pl.lit(name))
        for name, stage in _done(stages, cache).items()
    ]
    return pl.concat(frames) if frames else pl.DataFrame()


def _layer_measures(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Those of a layer by itself and those beside the teacher's answers, network by network."""
    stages = (analysis.measures, analysis.teacher_measures)
    frames = [frame for part in stages if (frame := _collected("values.parquet", part, cache)).width]
    if not frames:
        return pl.DataFrame()
    order = pl.Enum(list(analysis.embeddings))
    return pl.concat(frames).sort(pl.col("network_id").cast(order), maintain_order=True)


def _done(stages: dict[str, Stage], cache: Cache) -> dict[str, Stage]:
    """The stages that have an output; what failed is named under ``missing`` in study.json."""
    return {name: stage for name, stage in stages.items() if cache.has(stage)}


def _neighbours(alive: Sequence[Planned], analysis: Analysis, cache: Cache) -> pl.DataFrame:
    mapped = {planned.network_id for planned in alive if planned.mapped}
    stages = {name: stage for name, stage in analysis.measures.items() if name in mapped}
    frame = _collected("neighbours.parquet", stages, cache)
    return frame.with_columns(pl.col("ids").list.head(PUBLISHED_NEIGHBOURS)) if frame.width else frame


def _similarity(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    frames = [
        pl.read_parquet(cache.path(stage) / "similarity.parquet").with_columns(
            network_id=pl.lit(one), other_id=pl.lit(other)
        )
        for (one, other), stage in analysis.similarity.items()
        if cache.has(stage)
    ]
    return pl.concat(frames) if frames else pl.DataFrame()


def _credit(analysis: Analysis, cache: Cache) -> pl.DataFrame:
    """Neighbour credit, with the plain student that each network is held against."""
    frame = _collected("credit.parquet", analysis.credit, cache)
    plain = {name: stage.inputs["plain"] for name, stage in analysis.credit.items()}
    names = {stage.key: name for name, stage in analysis.measures.items()}
    companions = {name: names[stage.key] for name, stage in plain.items()}
    if not frame.width:
        return frame
    return frame.with_columns(plain_id=pl.col("network_id").replace_strict(companions))


# -------------------------------------------------------------------------------------- registries


def _methods(spec: StudySpec) -> pl.DataFrame:
    used = dict.fromkeys(method.method for method in spec.methods)
    return pl.DataFrame(
        [
            {
                "method": name,
                "title": METHODS[name].title,
                "formula": METHODS[name].formula,
                "summary": METHODS[name].summary,
                "citation": METHODS[name].citation,
                "defaults": canonical_json(METHODS[name].resolved({}).model_dump(mode="json")),
                "role": METHODS[name].role,
                "explains": METHODS[name].explains,
                "control_of": METHODS[name].control_of,
            }
            for name in used
        ]
    )


def _measures(spec: StudySpec) -> pl.DataFrame:
    fields = ("of", "title", "summary", "citation", "direction", "low", "high", "cost")
    rows = []
    for name in spec.measures.names:
        measure = MEASURES[name]
        row = {"measure": name, **{field: getattr(measure, field) for field in fields}, "chance": _chance(measure)}
        if measure.k is not None:
            row["summary"] += f" Here k is {_k(measure, spec)}."
        rows.append(row)
    return pl.DataFrame(rows, schema_overrides={"low": pl.Float32, "high": pl.Float32}, infer_schema_length=None)


def _chance(measure: Measure) -> str:
    return "none" if measure.chance is None else "shuffled" if measure.chance == "shuffled" else "known"


def _k(measure: Measure, spec: StudySpec) -> int:
    if measure.name == "knn_accuracy":
        return spec.measures.k
    return MAP_NEIGHBOURS if measure.of == "map" else measure.k or 0


# ---------------------------------------------------------------------------------------- records


def _record(spec: StudySpec, result: Result, cache: Cache) -> dict[str, Any]:
    """What study.json says: nothing that differs between two runs that computed the same."""
    training, analysis = result.training, result.analysis
    assert analysis is not None
    dataset = Dataset.read(cache.path(training.data))
    described = spec.model_dump(mode="json")
    for part in [described["teacher"], *described["students"]]:
        if part["checkpoint"] is not None:  # its content is in the stage's key; where it lay is nobody's business
            part["checkpoint"] = Path(part["checkpoint"]).name
    keys = [stage.key for stage in [*(p.stage for p in training.networks), *analysis.stages] if cache.has(stage)]
    return {
        "name": spec.name,
        "title": spec.title,
        "description": spec.description.strip(),
        "study_hash": study_hash({"study": described, "stages": sorted(keys), "export": EXPORT_VERSION}),
        "study": described,
        "headline": spec.resolved_headline.model_dump(mode="json"),
        "data": describe(
            dataset,
            spec.data.probe_size,
            SOURCES[spec.data.dataset],
            spec.data.title,
            spec.data.note,
            spec.data.licence,
        ),
        "versions": versions(),
        "missing": dict(sorted(result.outcome.failed.items())),
    }


def versions() -> dict[str, str]:
    """Versions of kdpipe, Python and the packages that the numbers depend on."""
    found = {"kdpipe": kdpipe.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _timings(training: Training, analysis: Analysis, cache: Cache, hardware: dict[str, Any]) -> dict[str, Any]:
    """Seconds by kind, as the manifests tell, and the speed of every training.

    Networks that train together have the time of their whole group, those of other studies included.
    """
    seconds: dict[str, float] = {}
    stages = [training.data, training.probe, *(p.stage for p in training.networks), *analysis.stages]
    for stage in {stage.key: stage for stage in stages}.values():  # checkpoints are of their student's stage
        if cache.has(stage):
            kind = stage.kind if stage.kind != "map" else f"map {stage.params['projector']}"
            seconds[kind] = seconds.get(kind, 0.0) + cache.manifest(stage)["seconds"]
    speed = {
        planned.network_id: json.loads((cache.path(planned.stage) / "speed.json").read_text())
        for planned in training.networks
        if cache.has(planned.stage)
    }
    return {
        "stages": {name: round(value, 2) for name, value in seconds.items()},
        "training": speed,
        "hardware": hardware,
    }
