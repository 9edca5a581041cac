"""What study.json and timings.json say."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import kdpipe
from kdpipe.artifacts.store import study_hash
from kdpipe.config.sections import VECTORS
from kdpipe.config.study import BaseStudy
from kdpipe.data.dataset import Dataset, describe
from kdpipe.data.sources import SOURCES
from kdpipe.engine.cache import Cache
from kdpipe.measures import FACTORS, MEASURES
from kdpipe.methods import METHODS
from kdpipe.models.origins import PLACES
from kdpipe.pipeline.analysis_plan import Analysis
from kdpipe.pipeline.planned import NetworksPlan
from kdpipe.pipeline.run_study import Result
from kdpipe.pipeline.stages.vectors import described_vectors
from kdpipe.registry import Plugin, Registry
from kdpipe.representation.projectors import PROJECTORS
from kdpipe.source import commit

EXPORT_VERSION = 6  # raised when the same outputs would be assembled differently


PACKAGES = ("torch", "torchvision", "timm", "numpy", "polars", "openTSNE", "ivis", "tensorflow", "scikit-learn")


def study_record(spec: BaseStudy, result: Result, cache: Cache) -> dict[str, Any]:
    """What study.json says: nothing that differs between two runs that computed the same."""
    plan, analysis = result.plan, result.analysis
    assert analysis is not None
    described = spec.model_dump(mode="json")
    sections = [described.get("teacher"), *described.get("students", ()), *described.get("networks", ())]
    for part in filter(None, sections):
        for field in PLACES:  # their content is in the stage's key; where they lay is nobody's business
            if part.get(field) is not None:
                part[field] = Path(part[field]).name
    keys = [stage.key for stage in [*(p.stage for p in plan.networks), *analysis.stages] if cache.has(stage)]
    return {
        "name": spec.name,
        "title": spec.title,
        "description": spec.description.strip(),
        "study_hash": study_hash({"study": described, "stages": sorted(keys), "export": EXPORT_VERSION}),
        "study": described,
        "headline": spec.resolved_headline.model_dump(mode="json"),
        "data": _data(spec, cache.path(plan.data)),
        "versions": versions(),
        "plugins": plugins_used(spec),
        "commit": commit(),  # of the code that wrote the artifacts; a stage of the cache may be older
        "missing": dict(sorted(result.outcome.failed.items())),
        **({"lacking": dict(plan.lacking)} if plan.lacking else {}),
    }


def _data(spec: BaseStudy, folder: Path) -> dict[str, Any]:
    title, note, licence = spec.data.title, spec.data.note, spec.data.licence
    if spec.data.dataset == VECTORS:
        return described_vectors(folder, spec.data.probe_size, title, note, licence)
    source = SOURCES[spec.data.dataset]
    return describe(Dataset.read(folder), spec.data.probe_size, source, title, note, licence)


def plugins_used(spec: BaseStudy) -> list[dict[str, Any]]:
    """Plug-ins that brought something of what the study is made of: name, identity, and what it took of them."""
    named: list[tuple[Registry[Any], list[str]]] = [
        (METHODS, [name for name in spec.method_names if name in METHODS]),
        (MEASURES, spec.measures.names),
        (FACTORS, list(FACTORS)),
        (PROJECTORS, spec.maps.projectors),
        (SOURCES, [spec.data.dataset] if spec.data.dataset in SOURCES else []),
    ]
    taken: dict[Plugin, list[str]] = {}
    for registry, names in named:
        for name in dict.fromkeys(names):
            if plugin := registry.plugin_of(name):
                taken.setdefault(plugin, []).append(f"{registry.kind} {name}")
    told = sorted(taken.items(), key=lambda item: (item[0].name, item[0].identity))
    return [{"name": plugin.name, "identity": plugin.identity, "records": records} for plugin, records in told]


def versions() -> dict[str, str]:
    """Versions of kdpipe, Python and the packages that the numbers depend on."""
    found = {"kdpipe": kdpipe.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def timings_record(plan: NetworksPlan, analysis: Analysis, cache: Cache, hardware: dict[str, Any]) -> dict[str, Any]:
    """Seconds by kind, as the manifests tell, and the speed of every training.

    Networks that train together have the time of their whole group, those of other studies included.
    """
    seconds: dict[str, float] = {}
    stages = [plan.data, plan.probe, *(p.stage for p in plan.networks), *analysis.stages]
    for stage in {stage.key: stage for stage in stages}.values():  # checkpoints are of their student's stage
        if cache.has(stage):
            kind = stage.kind if stage.kind != "map" else f"map {stage.params['projector']}"
            seconds[kind] = seconds.get(kind, 0.0) + cache.manifest(stage)["seconds"]
    speed = {
        planned.network_id: json.loads((cache.path(planned.stage) / "speed.json").read_text())
        for planned in plan.networks
        if cache.has(planned.stage)
    }
    return {
        "stages": {name: round(value, 2) for name, value in seconds.items()},
        "training": speed,
        "hardware": hardware,
    }
