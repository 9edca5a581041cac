"""From a study to its plan of stages, and from the plan to artifacts.

The plan has two halves, because a student that diverges has no layers to look at: the networks are
trained first, then what came out whole is embedded, measured and mapped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdpipe import engine
from kdpipe.analysis_stages import make_embeddings, make_maps, make_measures, make_similarity
from kdpipe.checks import Facts
from kdpipe.data import SOURCES, fingerprint
from kdpipe.engine import Cache, Context, Outcome, Stage
from kdpipe.errors import KdpipeError, NetworkError, StudyError
from kdpipe.files import sha256_of
from kdpipe.measures import MEASURES
from kdpipe.methods import METHODS
from kdpipe.study import MethodSpec, StudentSpec, StudySpec
from kdpipe.training_stages import RESULT, make_data, make_probe, make_students, make_teacher

TRAINING_KINDS = ("data", "probe", "teacher", "student")
ANALYSIS_KINDS = ("embedding", "measure", "similarity", "map")
KINDS = TRAINING_KINDS + ANALYSIS_KINDS
SECOND_INITIALISATION = 1_000_000
# Fields of the data section that do not change the decoded splits.
UNKEYED_DATA = {"path", "title", "note", "licence", "augmentation", "probe_size"}
TEACHER = "teacher"


@dataclass(frozen=True)
class Planned:
    """A network of the study and the stage that trains it."""

    network_id: str
    role: str
    stage: Stage
    student: StudentSpec | None = None
    method: MethodSpec | None = None
    label_fraction: float = 1.0
    seed: int = 0
    init_seed: int = 0
    mapped: bool = False


@dataclass(frozen=True)
class Training:
    """The first half of the plan."""

    data: Stage
    probe: Stage
    teacher: Planned
    students: list[Planned]

    @property
    def networks(self) -> list[Planned]:
        return [self.teacher, *self.students]


@dataclass(frozen=True)
class Analysis:
    """The second half, for the networks that were trained to the end."""

    embeddings: dict[str, Stage]
    measures: dict[str, Stage]
    similarity: dict[str, Stage]
    maps: list[Stage]

    @property
    def stages(self) -> list[Stage]:
        return [*self.embeddings.values(), *self.measures.values(), *self.similarity.values(), *self.maps]


# ------------------------------------------------------------------------------------------ plans


def plan_training(spec: StudySpec, root: Path, seeds: Sequence[int] | None = None) -> Training:
    """Data, teacher and students of a study.

    Args:
        root: where relative data paths start.
        seeds: only the students of these seeds.

    Raises:
        DataError, NetworkError: files that are not there.
        StudyError: seeds the study does not have.
    """
    if unknown := set(seeds or ()) - set(spec.seeds):
        raise StudyError(f"--seed {min(unknown)}: the study has seeds {', '.join(map(str, spec.seeds))}.")
    data = _data_stage(spec, root)
    policy = spec.data.augmentation or SOURCES[spec.data.dataset].augmentation
    teacher = _teacher_stage(spec, data, policy)
    students = [
        _student_stage(spec, data, teacher, policy, student, method, fraction, seed)
        for seed in (seeds or spec.seeds)
        for fraction in spec.label_fractions
        for student in spec.students
        for method in spec.methods
    ]
    return Training(
        data,
        _probe_stage(spec, data),
        Planned(TEACHER, "teacher", teacher, mapped=True, **_teacher_facts(spec)),
        students,
    )


def _teacher_facts(spec: StudySpec) -> dict[str, Any]:
    seed = spec.teacher.seed
    return {"label_fraction": spec.teacher.label_fraction, "seed": seed, "init_seed": seed}


def _data_stage(spec: StudySpec, root: Path) -> Stage:
    source = SOURCES[spec.data.dataset]
    if source.needs_path and not spec.data.path:
        raise StudyError(f"data.path: dataset {source.name!r} needs the folder that holds it.")
    described = spec.data.model_dump(mode="json", exclude=UNKEYED_DATA)
    params = {"data": described, "content": fingerprint(source, spec.data, root)}
    return Stage("data", "data", make_data, params, runtime={"path": spec.data.path})


def _probe_stage(spec: StudySpec, data: Stage) -> Stage:
    params = {"size": spec.data.probe_size, "seed": spec.data.split_seed}
    return Stage("probe", "probe", make_probe, params, {"data": data})


def _architecture(spec: Any, extra: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Key parameters and runtime of a network: a checkpoint counts by content, not by path."""
    described = spec.model_dump(mode="json", exclude={"checkpoint", *extra})
    if spec.checkpoint is None:
        return {"network": described}, {}
    path = Path(spec.checkpoint).expanduser()
    if not path.is_file():
        raise NetworkError(f"checkpoint: there is no file {path}.")
    return {"network": described, "checkpoint": sha256_of(path)}, {"checkpoint": str(path)}


def _teacher_stage(spec: StudySpec, data: Stage, policy: str) -> Stage:
    params, runtime = _architecture(spec.teacher, set())
    recipe = spec.teacher.training
    return Stage(
        "teacher",
        TEACHER,
        make_teacher,
        {**params, "augmentation": policy},
        {"data": data},
        runtime=runtime,
        cost=recipe.steps * recipe.batch_size,
    )


def _student_stage(
    spec: StudySpec,
    data: Stage,
    teacher: Stage,
    policy: str,
    student: StudentSpec,
    method: MethodSpec,
    fraction: float,
    seed: int,
) -> Planned:
    record = METHODS[method.method]
    init_seed = seed + SECOND_INITIALISATION * record.own_initialisation
    architecture, runtime = _architecture(student, {"name"})
    params = {
        **architecture,
        "method": method.method,
        "method_version": record.version,
        "method_parameters": record.resolved(method.parameters).model_dump(mode="json"),
        "unlabelled": method.unlabelled,
        "training": spec.training.model_dump(mode="json"),
        "augmentation": policy,
        "label_fraction": fraction,
        "label_seed": seed,
        "data_seed": seed,
        "init_seed": init_seed,
    }
    name = f"{student.name}-{method.name}-l{fraction:g}-s{seed}"
    stage = Stage(
        "student",
        name,
        make_students,
        params,
        {"data": data, "teacher": teacher} if record.needs_teacher else {"data": data},
        batch=f"{teacher.key}-{seed}-{fraction}",
        batch_title=f"{fraction:.4g} of the labels, seed {seed}",
        runtime=runtime,
        cost=spec.training.steps * spec.training.batch_size,
    )
    first = seed == spec.seeds[0]
    mapped = {"plain": seed in spec.seeds[: spec.maps.plain_seeds], "distilled": first}.get(record.role, False)
    headline = spec.resolved_headline
    return Planned(
        network_id=name,
        role=record.role,
        stage=stage,
        student=student,
        method=method,
        label_fraction=fraction,
        seed=seed,
        init_seed=init_seed,
        mapped=mapped and student.name == headline.student and fraction == headline.label_fraction,
    )


def plan_analysis(spec: StudySpec, facts: Facts, training: Training, networks: Sequence[Planned]) -> Analysis:
    """Embeddings, measures, similarity to the teacher and maps of ``networks``."""
    probe = training.probe
    embeddings = {
        planned.network_id: Stage(
            "embedding",
            f"embedding of {planned.network_id}",
            make_embeddings,
            {"views": list(spec.views)},
            {"probe": probe, "network": planned.stage},
            version=2,
            batch="all",
            cost=spec.data.probe_size,
        )
        for planned in networks
    }
    wanted = spec.measures.names
    of_layers = {"names": [n for n in wanted if MEASURES[n].of == "layer"], "k": spec.measures.k}
    of_pairs = {"names": [n for n in wanted if MEASURES[n].of == "pair"]}
    measures = {
        name: Stage(
            "measure",
            f"measures of {name}",
            make_measures,
            of_layers,
            {"probe": probe, "embedding": stage},
            batch="all",
            cost=spec.data.probe_size,
        )
        for name, stage in embeddings.items()
    }
    similarity = {
        name: Stage(
            "similarity",
            f"similarity of {name}",
            make_similarity,
            of_pairs,
            {"probe": probe, "embedding": stage, "teacher": embeddings[TEACHER]},
            batch="all",
            cost=spec.data.probe_size,
        )
        for name, stage in embeddings.items()
        if name != TEACHER and of_pairs["names"]
    }
    maps = [
        _map_stage(spec, planned.network_id, embeddings[planned.network_id], order, layer, projector)
        for projector in spec.maps.projectors
        for planned in networks
        if planned.mapped
        for order, layer in enumerate(facts.layers(planned.student))
    ]
    return Analysis(embeddings, measures, similarity, maps)


def _map_stage(spec: StudySpec, network_id: str, embedding: Stage, order: int, layer: str, projector: str) -> Stage:
    options: dict[str, Any] = {"seed": spec.maps.seed} if projector != "pca" else {}
    if projector == "tsne":
        options["perplexity"] = spec.maps.perplexity
    return Stage(
        "map",
        f"{projector} of {network_id}, {layer}",
        make_maps,
        {
            "projector": projector,
            "options": options,
            "order": order,
            "view": spec.maps.view,
            "neighbours": int(3 * spec.maps.perplexity),
        },
        {"embedding": embedding},
        batch=projector,
        cost=spec.data.probe_size,
    )


# -------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class Result:
    """What a run did, in both halves."""

    training: Training
    analysis: Analysis | None
    outcome: Outcome


def run_study(
    spec: StudySpec,
    facts: Facts,
    cache: Cache,
    context: Context,
    *,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    force: Sequence[str] = (),
) -> Result:
    """Run what the cache does not have of a study.

    Args:
        only: kinds to run, with what they need; all of them if empty.
        force: kinds to run anew, with all that rests on them.

    Raises:
        KdpipeError: the data or the teacher failed, on which everything rests.
    """
    training = plan_training(spec, context.data_root, seeds)
    # All the rest is for nothing without these, so they come first and end the run if they fail.
    base = [training.data, training.probe, training.teacher.stage]
    base_alone = bool(only) and set(only) <= {stage.kind for stage in base}
    outcome = engine.run([s for s in base if not base_alone or s.kind in only], cache, context, force)
    if outcome.failed:
        raise KdpipeError(next(iter(outcome.failed.values())))  # what came after it was only left out
    if not base_alone:
        students = [planned.stage for planned in training.students]
        outcome = _merged(outcome, engine.run(students, cache, context, force, outcome.again))
    if only and not set(only) & set(ANALYSIS_KINDS):
        return Result(training, None, outcome)
    analysis = plan_analysis(spec, facts, training, finished(training, cache))
    stages = [stage for stage in analysis.stages if not only or stage.kind in only]
    later = engine.run(stages, cache, context, force, outcome.again)
    return Result(training, analysis, _merged(outcome, later))


def finished(training: Training, cache: Cache) -> list[Planned]:
    """The networks that were trained to the end."""

    def whole(planned: Planned) -> bool:
        if not cache.has(planned.stage):
            return False
        return bool(json.loads((cache.path(planned.stage) / RESULT).read_text())["status"] == "trained")

    return [planned for planned in training.networks if whole(planned)]


def _merged(first: Outcome, second: Outcome) -> Outcome:
    ran = {stage.key for stage in first.ran}
    cached = {stage.key for stage in first.cached}
    return Outcome(
        ran=first.ran + [stage for stage in second.ran if stage.key not in ran],
        cached=first.cached + [stage for stage in second.cached if stage.key not in ran | cached],
        failed={**first.failed, **second.failed},
        again=first.again | second.again,
        seconds={
            kind: first.seconds.get(kind, 0.0) + second.seconds.get(kind, 0.0)
            for kind in {**first.seconds, **second.seconds}
        },
    )
