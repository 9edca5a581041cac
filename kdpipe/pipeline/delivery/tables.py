"""Every layer's vectors and every map as Parquet, with a sheet by which ``kdpipe import`` takes the vectors again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kdpipe.artifacts.store import Study
from kdpipe.config.study_text import toml_of
from kdpipe.engine.cache import Cache
from kdpipe.errors import KdpipeError, StudyError
from kdpipe.files import new_folder
from kdpipe.pipeline.analysis_plan import Analysis
from kdpipe.pipeline.planned import NetworksPlan, Planned
from kdpipe.pipeline.stages.embeddings import LAYERS, read_vectors, reference_file
from kdpipe.representation.embed import read_embedding
from kdpipe.vectors.content import LOGITS, PROBE, REFERENCE, VECTOR_ROLES
from kdpipe.vocabulary import CHECKPOINT

MAPS = "maps.parquet"


@dataclass(frozen=True)
class Tables:
    """What was written: files of vectors by view, and rows of maps."""

    networks: int
    layers: int
    samples: int
    views: tuple[str, ...]
    points: int


@dataclass(frozen=True)
class _Samples:
    """The rows of every file: probe images by their sample_id, then those that probes are fitted on."""

    labels: NDArray[np.int64]
    split: list[str]
    class_names: Sequence[str]

    def columns(self) -> dict[str, Any]:
        return {
            "sample_id": pa.array(np.arange(len(self.labels), dtype=np.int32)),
            "label": pa.array(self.labels.astype(np.int32)),
            "class_name": pa.array([self.class_names[label] for label in self.labels]),
            "split": pa.array(self.split),
        }


def write_tables(folder: Path, study: Study, plan: NetworksPlan, analysis: Analysis, cache: Cache) -> Tables:
    """Write ``<view>/<network_id>.parquet``, a sheet ``<view>.toml`` a view, and ``maps.parquet``.

    A file of vectors has a row a sample: sample_id, label, class_name, split (probe, or reference for those that probes
    are fitted on), a column of float32 lists a layer, from input to output, and logits where they are known (of
    reference samples nobody has any, so these are in a file of their own where there are reference samples).

    Raises:
        StudyError: the folder is there already and holds something.
        KdpipeError: the cache lacks vectors.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StudyError(f"--vectors {folder}: it is there already and is not empty; name a new folder.")
    embedded = [(planned, analysis.embeddings[planned.network_id]) for planned in plan.networks
                if planned.network_id in analysis.embeddings]  # fmt: skip
    for planned, stage in embedded:
        if not cache.has(stage) or cache.thinned(stage):
            raise KdpipeError(
                f"the vectors of {planned.network_id} are not in the cache {cache.root}; run the study here first, or "
                "name its cache with --cache."
            )
    places = [(planned, cache.path(stage)) for planned, stage in embedded]
    samples = _samples(cache.path(plan.probe), study.record["data"]["class_names"])
    views = tuple(json.loads((places[0][1] / LAYERS).read_text())["views"])
    with new_folder(folder) as building:
        for view in views:
            (building / view).mkdir()
            for planned, place in places:
                _write_vectors(building / view / f"{planned.network_id}.parquet", place, view, samples)
            (building / f"{view}.toml").write_text(_sheet(places, view, samples, plan), encoding="utf-8")
        points = _write_maps(building / MAPS, study)
    layers = sum(len(_layers(place)) for _, place in places)
    return Tables(len(places), layers, len(samples.labels), views, points)


def _samples(probe: Path, class_names: Sequence[str]) -> _Samples:
    shown, fitted = np.load(probe / "labels.npy"), np.load(probe / "reference_labels.npy")
    split = [PROBE] * len(shown) + [REFERENCE] * len(fitted)
    return _Samples(np.concatenate([shown, fitted]).astype(np.int64), split, class_names)


def _layers(place: Path) -> list[tuple[int, str]]:
    """Order and name of each layer of a finished embedding."""
    taps = json.loads((place / LAYERS).read_text())["taps"]
    return [(tap["order"], tap["layer"]) for tap in taps]


def _write_vectors(path: Path, place: Path, view: str, samples: _Samples) -> None:
    columns = samples.columns()
    for order, layer in _layers(place):
        vectors = read_vectors(place, order, view)
        reference = reference_file(place, order, view)
        if reference.is_file():
            vectors = np.concatenate([vectors, read_embedding(reference)])
        columns[layer] = _lists(vectors)
    answers = place / "logits.npy"
    if answers.is_file():
        logits = np.load(answers).astype(np.float32)
        columns[LOGITS] = _lists(logits, len(samples.labels) - len(logits))
    pq.write_table(pa.table(columns), path, compression="zstd")


def _lists(vectors: NDArray[np.float32], empty: int = 0) -> pa.Array:
    """(N, d) as lists of float32, with as many empty rows after them."""
    flat = pa.array(vectors.astype(np.float32).ravel(), type=pa.float32())
    lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return pa.concat_arrays([lists, pa.nulls(empty, lists.type)]) if empty else lists


def _write_maps(path: Path, study: Study) -> int:
    named = study.frame("samples", columns=["sample_id", "label", "class_name"])
    maps = study.frame("maps").join(named, on="sample_id", how="left", maintain_order="left")
    maps.write_parquet(path, compression="zstd")
    return maps.height


# ------------------------------------------------------------------------------- the sheet


def _sheet(places: Sequence[tuple[Planned, Path]], view: str, samples: _Samples, plan: NetworksPlan) -> str:
    """A sheet (docs/VECTORS.md) of the networks that a study of vectors can have."""
    roles = {planned.network_id: planned.role for planned in plan.networks}
    networks: list[dict[str, Any]] = []
    for planned, place in places:
        finished = planned.checkpoint_of if planned.role == CHECKPOINT else planned.network_id
        role = roles.get(finished or "")
        if role not in VECTOR_ROLES:
            continue
        fields: dict[str, Any] = {
            "name": planned.network_id,
            "role": role,
            "student": planned.student,
            "method": planned.method or planned.described["method"],
            "seed": planned.seed,
            "label_fraction": planned.label_fraction,
            **({} if planned.checkpoint is None else {"step": planned.checkpoint}),
            "file": f"{view}/{planned.network_id}.parquet",
            "layers": [layer for _, layer in _layers(place)],
        }
        networks.append(fields)
    return toml_of({"class_names": list(samples.class_names), "networks": networks})
