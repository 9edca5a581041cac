"""A study: its sections together, and what must hold between them.

There are three kinds. One trains its networks, students x methods x label fractions x seeds; another looks at networks
that are there already, and the third at vectors, of networks that need not be here. What is looked at, and how it is
judged, is the same for all.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, model_validator

from kdpipe.config.sections import (
    VECTORS,
    DataSpec,
    EvidenceSpec,
    GivenSpec,
    HeadlineSpec,
    MapsSpec,
    MeasuresSpec,
    MethodSpec,
    NetworkSpec,
    StudentSpec,
    TeacherSpec,
    VectorsSpec,
    member,
    refuse_repeats,
)
from kdpipe.config.spec import Fraction, Seed, Spec
from kdpipe.config.training import TrainingSpec
from kdpipe.methods import METHODS
from kdpipe.vocabulary import (
    CONTROL,
    DISTILLED,
    MATCHED_ACCURACY,
    PLAIN,
    SUPERVISED_TEACHER,
    TEACHER,
    TEACHER_ARCHITECTURE,
    UNTRAINED_NETWORK,
)

# What contrasts are held against, besides methods by their labels.
EVIDENCE_NAMES = {TEACHER, DISTILLED, "second_seed", MATCHED_ACCURACY}


class BaseStudy(Spec):
    """What every study says: its name, its images, and how networks are looked at, compared and judged."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
    title: Annotated[str, Field(min_length=1)]
    description: str = ""
    plugins: list[str] = Field(default=[], exclude=True, description="plug-in files, relative to the study file")
    data: DataSpec = Field(default_factory=DataSpec)
    views: list[Literal["gap", "projection"]] = Field(default=["gap", "projection"], min_length=1)
    maps: MapsSpec = Field(default_factory=MapsSpec)
    # Made when a study is read: a measure that was registered meanwhile counts.
    measures: MeasuresSpec = Field(default_factory=MeasuresSpec)
    headline: HeadlineSpec | None = None
    evidence: EvidenceSpec = Field(default_factory=EvidenceSpec)

    @model_validator(mode="after")
    def _looks_consistent(self) -> BaseStudy:
        if self.data.dataset == VECTORS and not isinstance(self, VectorStudy):
            raise ValueError("data.dataset: 'vectors' are of networks given by [[networks]] with vectors = '...' alone")
        refuse_repeats("views", list(self.views))
        refuse_repeats("maps.projectors", self.maps.projectors)
        refuse_repeats("measures.names", self.measures.names)
        if self.measures.specifications and self.measures.second_k == self.measures.k:
            raise ValueError("measures.second_k: it is to be another number of neighbours than measures.k")
        if self.maps.projectors and self.maps.view not in self.views:
            raise ValueError(f"maps.view: maps need the view {self.maps.view!r}, which views leaves out; add it there")
        for field, chosen in (("headline", self.headline), ("evidence.primary", self.evidence.primary)):
            if chosen is not None:
                member(f"{field}.student", chosen.student, self.student_names)
                member(f"{field}.method", chosen.method, self.method_labels)
                member(f"{field}.label_fraction", chosen.label_fraction, self.budgets)
        return self

    @property
    def student_names(self) -> list[str]:
        """Architectures of students, in the order of the study."""
        raise NotImplementedError

    @property
    def method_labels(self) -> list[str]:
        """What methods are called in this study."""
        raise NotImplementedError

    @property
    def method_names(self) -> list[str]:
        """The methods of the registry that they are, or their own names where they are none of them."""
        raise NotImplementedError

    @property
    def distilled_labels(self) -> list[str]:
        """Labels of methods that distil."""
        raise NotImplementedError

    @property
    def budgets(self) -> list[float]:
        """Shares of the labels that students had."""
        raise NotImplementedError

    @property
    def student_seeds(self) -> list[int]:
        """Seeds of students, the first one first."""
        raise NotImplementedError

    @property
    def resolved_headline(self) -> HeadlineSpec:
        """The headline, or by default the first distillation at the smallest budget."""
        if self.headline is not None:
            return self.headline
        method = [*self.distilled_labels, *self.method_labels][0]
        return HeadlineSpec(student=self.student_names[0], method=method, label_fraction=min(self.budgets))


class StudySpec(BaseStudy):
    """A study that trains. Every list is explored in full: students x methods x label_fractions x seeds."""

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
        refuse_repeats("checkpoints", self.checkpoints)
        if self.training.steps == 0:
            raise ValueError("training.steps: students need at least one step; a teacher alone may have none")
        for index, student in enumerate(self.students):
            if student.name == TEACHER_ARCHITECTURE:
                raise ValueError(f"students.{index}.name: 'teacher' is the teacher's own name; choose another")
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
    def student_names(self) -> list[str]:
        """Architectures of students, in the order of the study."""
        return [student.name for student in self.students]

    @property
    def method_labels(self) -> list[str]:
        """What methods are called in this study."""
        return [method.name for method in self.methods]

    @property
    def method_names(self) -> list[str]:
        """The methods of the registry that they are."""
        return [method.method for method in self.methods]

    @property
    def distilled_labels(self) -> list[str]:
        """Labels of methods that distil."""
        return [method.name for method in self.methods if method.role == DISTILLED]

    @property
    def budgets(self) -> list[float]:
        """Shares of the labels that students had."""
        return list(self.label_fractions)

    @property
    def student_seeds(self) -> list[int]:
        """Seeds of students, the first one first."""
        return list(self.seeds)


Given = TypeVar("Given", bound=GivenSpec)


class GivenStudy(BaseStudy, Generic[Given]):
    """A study that trains nothing: its networks, or their vectors, are there already."""

    networks: Annotated[list[Given], Field(min_length=2)]

    @model_validator(mode="after")
    def _roles_consistent(self) -> GivenStudy[Given]:
        teachers = [i for i, network in enumerate(self.networks) if network.role == TEACHER]
        if len(teachers) != 1:
            raise ValueError(
                "networks: one network is to have the role 'teacher', and "
                + (f"networks {', '.join(map(str, teachers))} all have it" if teachers else "none has it")
            )
        if not any(network.role == PLAIN for network in self.networks):
            raise ValueError(
                "networks: every comparison needs the student without distillation; add a network with role = 'plain'"
            )
        for i, network in enumerate(self.networks):
            for reason in self._misnamed(network):
                raise ValueError(f"networks.{i}.{reason}")
        names = [self.network_id(network) for network in self.networks]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise ValueError(
                    f"networks.{i}: it would be called {name!r}, as networks.{names.index(name)} is; tell them apart "
                    "by student, method, seed, label_fraction or step"
                )
        return self

    def _misnamed(self, network: Given) -> list[str]:
        if network.role == TEACHER:
            own = [f for f in ("student", "method", "step") if f in network.model_fields_set]
            return [f"{own[0]}: a teacher has none; leave it out"] if own else []
        if network.student == TEACHER_ARCHITECTURE:
            return ["student: 'teacher' is the teacher's own name; choose another"]
        label = network.label
        if label in EVIDENCE_NAMES | {SUPERVISED_TEACHER, UNTRAINED_NETWORK}:
            return [f"method: {label!r} is a word of the tables; choose another"]
        record = METHODS.get(label)
        if record is not None and network.role not in (record.role, CONTROL):
            return [f"method: {label!r} makes a network of role {record.role!r}, not {network.role!r}"]
        roles = {other.role for other in self.networks if other.role != TEACHER and other.label == label}
        if len(roles) > 1:
            return [f"method: {label!r} stands for networks of the roles {' and '.join(sorted(roles))}; rename one"]
        return []

    def network_id(self, network: Given) -> str:
        """What a network is called: ``small-kd-l1-s0``, with ``-at500`` for a checkpoint."""
        if network.role == TEACHER:
            return TEACHER
        whole = f"{network.student}-{network.label}-l{network.label_fraction:g}-s{network.seed}"
        return f"{whole}-at{network.step}" if self.is_checkpoint(network) else whole

    def is_checkpoint(self, network: Given) -> bool:
        """Whether the study has a later state of the same network: that of a higher step, or of none given."""
        if network.step is None:
            return False
        later = (other.step for other in self.networks if other.run == network.run)
        return any(step is None or step > network.step for step in later)

    @property
    def students(self) -> list[Given]:
        """All but the teacher, without checkpoints."""
        return [one for one in self.networks if one.role != TEACHER and not self.is_checkpoint(one)]

    @property
    def student_names(self) -> list[str]:
        """Architectures of students, in the order of the study."""
        return list(dict.fromkeys(network.student for network in self.students))

    @property
    def method_labels(self) -> list[str]:
        """What methods are called in this study."""
        return list(dict.fromkeys(network.label for network in self.students))

    @property
    def method_names(self) -> list[str]:
        """The methods of the registry that they are, or their own names where they are none of them."""
        return self.method_labels

    @property
    def distilled_labels(self) -> list[str]:
        """Labels of methods that distil."""
        return list(dict.fromkeys(network.label for network in self.students if network.role == DISTILLED))

    @property
    def budgets(self) -> list[float]:
        """Shares of the labels that students had."""
        return list(dict.fromkeys(network.label_fraction for network in self.students))

    @property
    def student_seeds(self) -> list[int]:
        """Seeds of students, the first one first."""
        return list(dict.fromkeys(network.seed for network in self.students))


class FinishedStudy(GivenStudy[NetworkSpec]):
    """A study of finished networks, which are shown its images."""


class VectorStudy(GivenStudy[VectorsSpec]):
    """A study of vectors: what layers made of samples elsewhere."""
