"""From a study that trains to the first half of its plan: which networks there are, and who learns from whom.

The plan has two halves, because a student that diverges has no layers to look at: the networks are
trained first, then what came out whole is embedded, measured and mapped (:mod:`kdpipe.pipeline.analysis_plan`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdpipe.config.preflight import Preflight
from kdpipe.config.sections import MethodSpec, StudentSpec, TeacherSpec
from kdpipe.config.study import StudySpec
from kdpipe.config.training import TrainingSpec
from kdpipe.data.sources import SOURCES
from kdpipe.engine.stage import Stage
from kdpipe.errors import StudyError
from kdpipe.files import canonical_json
from kdpipe.methods import METHODS
from kdpipe.models.origins import PLACES
from kdpipe.pipeline.planned import (
    NetworksPlan,
    Planned,
    architecture_params,
    described_architecture,
    plan_data,
    plan_pixels,
)
from kdpipe.pipeline.stages.data import make_data, make_probe
from kdpipe.pipeline.stages.embeddings import make_pixels
from kdpipe.pipeline.stages.networks import make_students, make_teacher
from kdpipe.pipeline.stages.outputs import kept_weights
from kdpipe.vocabulary import (
    CHECKPOINT,
    CONTROL_TEACHER,
    DISTILLED,
    PLAIN,
    SUPERVISED_TEACHER,
    TEACHER,
    TEACHER_ARCHITECTURE,
    UNTRAINED,
    UNTRAINED_NETWORK,
)

TRAINING = (make_data, make_probe, make_teacher, make_students, make_pixels)
SECOND_INITIALISATION = 1_000_000


def plan_training(
    spec: StudySpec, preflight: Preflight, root: Path, seeds: Sequence[int] | None = None
) -> NetworksPlan:
    """Data, teachers and students of a study.

    Args:
        root: where relative data paths start.
        seeds: only the students of these seeds.

    Raises:
        DataError, NetworkError: files that are not there.
    """
    data, probe = plan_data(spec, root)
    planner = _TrainingPlanner(spec, preflight, data, spec.data.augmentation or SOURCES[spec.data.dataset].augmentation)
    for seed in seeds or spec.seeds:
        for fraction in spec.label_fractions:
            for student in spec.students:
                planner.add_students(student, fraction, seed)
    return NetworksPlan(
        data,
        probe,
        planner.teacher,
        [teacher for teacher in planner.teachers.values() if teacher is not planner.teacher],
        planner.students,
        planner.checkpoints,
        [] if seeds else [*map(planner.untrained_student, spec.students), plan_pixels(probe)],
    )


def _new_weights(section: TeacherSpec) -> dict[str, Any]:
    """What changes in a section whose network is to start from new weights."""
    if section.folder is not None or (section.factory or "").startswith("module:"):
        raise StudyError(
            "teacher: a control needs this network with new weights, and it comes with its own; leave such controls "
            "out, or name a factory."
        )
    return {"checkpoint": None, "pretrained": False}


class _TrainingPlanner:
    """Adds students to a plan, and the teachers that they need."""

    def __init__(self, spec: StudySpec, preflight: Preflight, data: Stage, policy: str) -> None:
        self.spec, self.preflight, self.data, self.policy = spec, preflight, data, policy
        self.teachers: dict[str, Planned] = {}
        self.students: list[Planned] = []
        self.checkpoints: list[Planned] = []
        self.teacher = self._teacher(TEACHER, spec.teacher, TEACHER)

    def _teacher(self, name: str, section: TeacherSpec, role: str) -> Planned:
        """The teacher of that name, planned once."""
        if name not in self.teachers:
            params, runtime = architecture_params(section)
            recipe = section.training
            stage = make_teacher.plan(
                name,
                {**params, "augmentation": self.policy},
                {"data": self.data},
                runtime={**runtime, "stand_in": role != TEACHER},
                cost=recipe.steps * recipe.batch_size,
            )
            brought = section.pretrained or any(getattr(section, field) is not None for field in PLACES)
            blank = recipe.steps == 0 and (role != TEACHER or not brought)
            fraction = 0.0 if blank else section.label_fraction
            self.teachers[name] = Planned(
                network_id=name,
                role=role,
                stage=stage,
                student=TEACHER_ARCHITECTURE,
                shape=TEACHER,
                described={
                    **described_architecture(section),
                    "method": SUPERVISED_TEACHER if fraction else UNTRAINED_NETWORK,
                },
                steps=recipe.steps,
                label_fraction=fraction,
                seed=section.seed,
                init_seed=section.seed,
                mapped=role == TEACHER and bool(self.spec.maps.projectors),
            )
        return self.teachers[name]

    def _teacher_for(self, method: MethodSpec, plain: Planned | None, fraction: float, seed: int) -> Planned | None:
        kinds: dict[str | None, Callable[[], Planned | None]] = {
            None: lambda: None,
            "study": lambda: self.teacher,
            "untrained": self._untrained,
            "own-budget": lambda: self._own_budget(method, fraction, seed),
            "self": lambda: plain,
        }
        return kinds[method.teacher_kind]()

    def _untrained(self) -> Planned:
        section = self.spec.teacher
        recipe = section.training.model_copy(update={"steps": 0})
        blank = {"training": recipe, **_new_weights(section)}
        return self._teacher("teacher-untrained", section.model_copy(update=blank), CONTROL_TEACHER)

    def _own_budget(self, method: MethodSpec, fraction: float, seed: int) -> Planned:
        """Everything the student has and no more: its labelled images (chosen by its seed) and its training."""
        recipe = method.recipe(self.spec.training).model_copy(update={"teacher_cache": False})
        budget = {"label_fraction": fraction, "seed": seed, "training": recipe}
        section = self.spec.teacher.model_copy(update=budget | _new_weights(self.spec.teacher))
        own = f"-for-{method.name}" if method.training else ""
        return self._teacher(f"teacher-l{fraction:g}-s{seed}{own}", section, CONTROL_TEACHER)

    def add_students(self, student: StudentSpec, fraction: float, seed: int) -> None:
        """All methods of one student, budget and seed; the plain student first, as it may be somebody's teacher."""
        methods = sorted(self.spec.methods, key=lambda method: method.role != PLAIN)
        plain: Planned | None = None
        made = {}
        for method in methods:
            teacher = self._teacher_for(method, plain, fraction, seed)
            made[method.name] = self._student(student, method, teacher, fraction, seed)
            plain = plain or made[method.name]
        assert plain is not None, "a study has a plain student"
        self.students += [made[method.name] for method in self.spec.methods]
        for method in self.spec.methods:
            whole = made[method.name]
            for step in self.spec.kept_steps(method):
                name = f"{whole.network_id}-at{step}"
                there = replace(whole, network_id=name, role=CHECKPOINT, checkpoint=step, weights=kept_weights(step))
                self.checkpoints.append(replace(there, checkpoint_of=whole.network_id, mapped=False))

    def untrained_student(self, student: StudentSpec) -> Planned:
        """What the plain student of the first seed is before its first step."""
        plain = next(method for method in self.spec.methods if method.role == PLAIN)
        recipe = plain.recipe(self.spec.training).model_copy(update={"steps": 0, "teacher_cache": False})
        planned = self._student(student, plain, None, 1.0, self.spec.seeds[0], recipe)
        stage = replace(planned.stage, name=f"{student.name}-untrained")
        described = {**described_architecture(student), "method": UNTRAINED_NETWORK}
        return replace(
            planned,
            network_id=stage.name,
            role=UNTRAINED,
            stage=stage,
            described=described,
            method=None,
            label_fraction=0.0,
            mapped=False,
        )

    def _student(
        self,
        student: StudentSpec,
        method: MethodSpec,
        teacher: Planned | None,
        fraction: float,
        seed: int,
        recipe: TrainingSpec | None = None,
    ) -> Planned:
        record = METHODS[method.method]
        init_seed = seed + SECOND_INITIALISATION * record.own_initialisation
        architecture, runtime = architecture_params(student, {"name"})
        recipe = recipe or self._recipe(student, method)
        kept = self.spec.kept_steps(method) if recipe.steps else []
        params = {
            **architecture,
            "method": method.method,
            "method_version": record.version,
            **METHODS.plugin_in_key(method.method),
            "method_parameters": record.resolved(method.parameters).model_dump(mode="json", exclude_none=True),
            "unlabelled": method.sees_unlabelled,
            "training": recipe.keyed(),
            "augmentation": self.policy,
            "label_fraction": fraction,
            "label_seed": seed,
            "data_seed": seed,
            "init_seed": init_seed,
            **({"keep_at": kept} if kept else {}),
        }
        name = f"{student.name}-{method.name}-l{fraction:g}-s{seed}"
        # Those who have no teacher train with those of the study's teacher.
        companion = teacher or self.teacher
        shared = canonical_json([companion.stage.key, seed, fraction, record.views, recipe.shared])
        stage = make_students.plan(
            name,
            params,
            {"data": self.data, "teacher": teacher.stage} if teacher else {"data": self.data},
            batch=shared,
            batch_title=f"{fraction:.4g} of the labels, seed {seed}",
            runtime=runtime,
            cost=recipe.steps * recipe.batch_size,
        )
        first = seed == self.spec.seeds[0]
        drawn = {PLAIN: seed in self.spec.seeds[: self.spec.maps.plain_seeds], DISTILLED: first}
        headline = self.spec.resolved_headline
        return Planned(
            network_id=name,
            role=method.role,
            stage=stage,
            student=student.name,
            shape=student.name,
            described={
                **described_architecture(student),
                "method": method.method,
                "method_parameters": canonical_json(params["method_parameters"]),
                "training": canonical_json(method.training),
                "unlabelled": method.unlabelled,
            },
            steps=recipe.steps,
            method=method.name,
            teacher=teacher,
            label_fraction=fraction,
            seed=seed,
            init_seed=init_seed,
            mapped=bool(self.spec.maps.projectors)
            and drawn.get(method.role, False)
            and student.name == headline.student
            and fraction == headline.label_fraction,
        )

    def _recipe(self, student: StudentSpec, method: MethodSpec) -> TrainingSpec:
        """The method's training; a control that trains longer gets the steps that a teacher's passes cost."""
        recipe = method.recipe(self.spec.training)
        if not METHODS[method.method].reads_logits_alone:  # a cache changes nothing for others, nor their keys
            recipe = recipe.model_copy(update={"teacher_cache": False})
        if not METHODS[method.method].trains_longer:
            return recipe
        ratio = self.preflight.shapes[TEACHER].macs / self.preflight.shapes[student.name].macs
        return recipe.model_copy(update={"steps": round(recipe.steps * (1 + ratio / 3))})
