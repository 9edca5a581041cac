"""A study: its sections together, and what must hold between them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kdpipe.config.sections import (
    DataSpec,
    EvidenceSpec,
    Fraction,
    HeadlineSpec,
    MapsSpec,
    MeasuresSpec,
    MethodSpec,
    Seed,
    Spec,
    StudentSpec,
    TeacherSpec,
    TrainingSpec,
    member,
    refuse_repeats,
)
from kdpipe.methods import METHODS
from kdpipe.vocabulary import (
    DISTILLED,
    MATCHED_ACCURACY,
    SUPERVISED_TEACHER,
    TEACHER,
    TEACHER_ARCHITECTURE,
    UNTRAINED_NETWORK,
)

# What contrasts are held against, besides methods by their labels.
EVIDENCE_NAMES = {TEACHER, DISTILLED, "second_seed", MATCHED_ACCURACY}


class StudySpec(Spec):
    """A whole study. Every list is explored in full: students x methods x label_fractions x seeds."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
    title: Annotated[str, Field(min_length=1)]
    description: str = ""
    plugins: list[str] = Field(default=[], exclude=True, description="plug-in files, relative to the study file")
    data: DataSpec = Field(default_factory=DataSpec)
    teacher: TeacherSpec
    students: Annotated[list[StudentSpec], Field(min_length=1)]
    methods: Annotated[list[MethodSpec], Field(min_length=1)]
    label_fractions: list[Fraction] = Field(default=[1.0], min_length=1)
    seeds: list[Seed] = Field(default=[0], min_length=1)
    second_seed: bool = Field(
        default=True,
        description="with one seed, train plain from other initial weights too: what chance alone would change",
    )
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    checkpoints: list[Annotated[float, Field(gt=0.0, lt=1.0)]] = Field(
        default=[],
        description="shares of the steps after which plain students, and those of the headline's method, are looked at "
        "too: what is compared at the same accuracy",
    )
    views: list[Literal["gap", "projection"]] = Field(default=["gap", "projection"], min_length=1)
    maps: MapsSpec = Field(default_factory=MapsSpec)
    # Made when a study is read: a measure that was registered meanwhile counts.
    measures: MeasuresSpec = Field(default_factory=MeasuresSpec)
    headline: HeadlineSpec | None = None
    evidence: EvidenceSpec = Field(default_factory=EvidenceSpec)

    @model_validator(mode="before")
    @classmethod
    def _with_a_null(cls, raw: Any) -> Any:
        """No difference can be read without one that chance made: a study of one seed gets a second plain student."""
        if not isinstance(raw, dict) or raw.get("second_seed", True) is not True:
            return raw
        seeds, methods = raw.get("seeds", [0]), raw.get("methods")
        if not (isinstance(seeds, list) and len(seeds) == 1 and isinstance(methods, list)):
            return raw
        nulls = [name for name, record in METHODS.items() if record.is_null]
        named = [method.get("method") for method in methods if isinstance(method, dict)]
        if not named or set(nulls) & {name for name in named if isinstance(name, str)}:
            return raw
        return {**raw, "methods": [*methods, {"method": nulls[0]}]}

    @model_validator(mode="after")
    def _consistent(self) -> StudySpec:
        refuse_repeats("students", [student.name for student in self.students])
        refuse_repeats("methods", [method.name for method in self.methods])
        refuse_repeats("seeds", self.seeds)
        refuse_repeats("label_fractions", self.label_fractions)
        refuse_repeats("views", list(self.views))
        refuse_repeats("checkpoints", self.checkpoints)
        refuse_repeats("maps.projectors", self.maps.projectors)
        refuse_repeats("measures.names", self.measures.names)
        if self.training.steps == 0:
            raise ValueError("training.steps: students need at least one step; a teacher alone may have none")
        for index, student in enumerate(self.students):
            if student.name == TEACHER_ARCHITECTURE:
                raise ValueError(f"students.{index}.name: 'teacher' is the teacher's own name; choose another")
        if self.measures.specifications and self.measures.second_k == self.measures.k:
            raise ValueError("measures.second_k: it is to be another number of neighbours than measures.k")
        for method in self.methods:
            if method.label and method.label in EVIDENCE_NAMES:
                raise ValueError(f"methods: {method.label!r} is a word of the tables of evidence; choose another label")
            if method.name in {SUPERVISED_TEACHER, UNTRAINED_NETWORK}:
                raise ValueError(f"methods: {method.name!r} is the name of other networks; choose another label")
        names = [name for student in self.students for name in self.network_names(student)]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"two networks would be called {repeated[0]!r}; change a student's name, a method's label or one of "
                "the label_fractions"
            )
        plain = [method for method in self.methods if method.role == "plain"]
        if len(plain) > 1:
            raise ValueError(f"methods: {plain[1].name!r} is 'plain' once more; give it a training of its own")
        if not plain:
            raise ValueError("methods: every comparison needs the student without distillation; add 'plain'")
        if self.maps.projectors and self.maps.view not in self.views:
            raise ValueError(f"maps.view: maps need the view {self.maps.view!r}, which views leaves out; add it there")
        for field, chosen in (("headline", self.headline), ("evidence.primary", self.evidence.primary)):
            if chosen is not None:
                member(f"{field}.student", chosen.student, [student.name for student in self.students])
                member(f"{field}.method", chosen.method, [method.name for method in self.methods])
                member(f"{field}.label_fraction", chosen.label_fraction, self.label_fractions)
        return self

    def kept_steps(self, method: MethodSpec) -> list[int]:
        """Steps after which a student's weights are kept: of plain and the headline's method, and of no others."""
        kept = method.role == "plain" or method.name == self.resolved_headline.method
        steps = method.recipe(self.training).steps if kept else 0
        return sorted({max(round(share * steps), 1) for share in self.checkpoints if steps} - {steps})

    def network_names(self, student: StudentSpec) -> list[str]:
        """What the networks of a student are called, but for their seed."""
        return [f"{student.name}-{method.name}-l{f:g}" for f in self.label_fractions for method in self.methods]

    @property
    def resolved_headline(self) -> HeadlineSpec:
        """The headline, or by default the first distillation at the smallest budget."""
        if self.headline is not None:
            return self.headline
        distilled = [m.name for m in self.methods if m.role == "distilled"]
        method = distilled[0] if distilled else self.methods[0].name
        return HeadlineSpec(student=self.students[0].name, method=method, label_fraction=min(self.label_fractions))
