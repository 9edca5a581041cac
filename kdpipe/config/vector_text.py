"""The study file that an import writes: what a folder of vectors holds, for people to read and to change."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

from kdpipe.config.study_text import allowed_by, toml_of
from kdpipe.vectors.content import NetworkRecord
from kdpipe.vectors.store import VectorStore
from kdpipe.vocabulary import TEACHER

MOST = 2000  # samples that are looked at, unless the study says otherwise


def study_text(name: str, store: VectorStore) -> str:
    """A study (TOML) of all networks of a folder, with what its number of samples allows."""
    samples = store.samples
    probe = min(len(samples) - int(samples.reference.sum()), MOST)
    data = {"dataset": "vectors", "path": store.folder.name, "probe_size": probe}
    records = _without_old_teachers([network.record for network in store.networks])
    networks = [_fields(record) for record in records]
    return toml_of({"name": name, "title": name, "data": data, **allowed_by(probe), "networks": networks})


def networks_named(text: str) -> set[str]:
    """The names of all vectors that a study's text looks at; none where it is not TOML, which its reader says."""
    try:
        sections = tomllib.loads(text).get("networks", [])
    except tomllib.TOMLDecodeError:
        return set()
    return {str(section.get("vectors")) for section in sections if isinstance(section, dict)}


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
