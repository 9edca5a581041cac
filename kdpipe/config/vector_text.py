"""The study file that an import writes: what a folder of vectors holds, for people to read and to change."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from typing import Any

from kdpipe.vectors.content import NetworkRecord
from kdpipe.vectors.store import VectorStore
from kdpipe.vocabulary import TEACHER

MOST = 2000  # samples that are looked at, unless the study says otherwise
LEAST_FOR_MAPS = 50


def study_text(name: str, store: VectorStore) -> str:
    """A study (TOML) of all networks of a folder, with what its number of samples allows."""
    samples = store.samples
    probe = min(len(samples) - int(samples.reference.sum()), MOST)
    lines = [
        f"name = {_toml(name)}",
        f"title = {_toml(name)}",
        "",
        "[data]",
        'dataset = "vectors"',
        f"path = {_toml(store.folder.name)}",
        f"probe_size = {probe}",
        *_fitting(probe),
    ]
    records = [network.record for network in store.networks]
    for record in _without_old_teachers(records):
        lines += ["", "[[networks]]", *(f"{field} = {_toml(value)}" for field, value in _fields(record).items())]
    return "\n".join(lines) + "\n"


def networks_named(text: str) -> set[str]:
    """The names of all vectors that a study's text looks at; none where it is not TOML, which its reader says."""
    try:
        sections = tomllib.loads(text).get("networks", [])
    except tomllib.TOMLDecodeError:
        return set()
    return {str(section.get("vectors")) for section in sections if isinstance(section, dict)}


def _fitting(probe: int) -> list[str]:
    """Neighbours and maps that so few samples allow; nothing where there are enough for the defaults."""
    lines = []
    if probe <= 60:
        lines += ["", "[measures]", f"k = {max(probe // 6, 2)}", "second_k = 1"]
    if probe < LEAST_FOR_MAPS:
        lines += ["", "[maps]", "projectors = []"]
    elif probe <= 3 * 30:
        lines += ["", "[maps]", f"perplexity = {(probe - 1) // 4}.0"]
    return lines


def _without_old_teachers(records: list[NetworkRecord]) -> list[NetworkRecord]:
    """All but the teacher at steps before its last: a study has one teacher, as it is in the end."""
    teachers = [record for record in records if record.role == TEACHER]
    unfinished = [record.step for record in teachers if record.step is not None]
    last = None if len(unfinished) < len(teachers) else max(unfinished, default=None)
    return [
        replace(record, step=None) if record.role == TEACHER else record
        for record in records
        if record.role != TEACHER or record.step == last or len(teachers) == 1
    ]


def _fields(record: NetworkRecord) -> dict[str, Any]:
    said: dict[str, Any] = {"vectors": record.name, "role": record.role}
    if record.role != TEACHER:
        said |= {"student": record.student, "method": record.method, "seed": record.seed}
        said |= {} if record.step is None else {"step": record.step}
    said |= {} if record.label_fraction == 1 else {"label_fraction": record.label_fraction}
    return said


def _toml(value: Any) -> str:
    """Numbers and texts have in JSON a form that TOML reads as the same."""
    return json.dumps(value, ensure_ascii=False)
