"""The study: one TOML file, validated once, typed from then on.

A study names a dataset, a teacher, students, methods, label budgets, seeds, layers, maps, measures
and training recipes in *steps*. :func:`load_spec` reads it, applies ``key=value`` overrides and
returns a :class:`StudySpec`, or raises one :class:`~kdpipe.errors.StudyError` that names each wrong
field with its place, what is allowed and the closest match.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kdpipe.checkpoints import complete
from kdpipe.data import AUGMENTATIONS, SOURCES
from kdpipe.errors import StudyError
from kdpipe.maps import PROJECTORS
from kdpipe.measures import MEASURES
from kdpipe.methods import METHODS
from kdpipe.spec_errors import Where, explain, place_of, unknown_name

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Spec(BaseModel):
    """Base of all parts: unknown fields are errors, types are not coerced, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False)
    later: ClassVar[frozenset[str]] = frozenset()

    def keyed(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """JSON values for a stage's key.

        Fields named in ``later`` came after networks had been trained; at their default they stay out,
        so that those networks are still known.
        """
        fields = type(self).model_fields
        same = {name for name in self.later if getattr(self, name) == fields[name].default}
        described = self.model_dump(mode="json", exclude={*exclude, *same})
        parts = ((name, getattr(self, name)) for name in described)
        return described | {name: part.keyed() for name, part in parts if isinstance(part, Spec)}


class DataSpec(Spec):
    """What is learned and on which images it is looked at."""

    dataset: str = "digits"
    path: str | None = Field(default=None, exclude=True, description="folder, relative to the data root")
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    channels: Literal[1, 3] | None = None
    augmentation: str | None = None
    validation_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    test_fraction: Annotated[float, Field(gt=0.0, lt=0.9)] = 0.3
    probe_size: Annotated[int, Field(ge=20, le=65_535)] = 2000
    reference_size: Annotated[int, Field(ge=20)] = Field(
        default=5000, description="training images that probes and class centres are fitted on, at most"
    )
    split_seed: Seed = 0
    title: str = ""
    note: str = ""
    licence: str = ""

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str) -> str:
        return unknown_name("dataset", value, SOURCES)

    @field_validator("augmentation")
    @classmethod
    def _known_augmentation(cls, value: str | None) -> str | None:
        return value if value is None else unknown_name("augmentation", value, AUGMENTATIONS)


class ArchSpec(Spec):
    """A timm model, its stem for small images, where its weights come from, which layers are tapped."""

    arch: str
    arguments: dict[str, Any] = {}
    stem: Literal["default", "small"] = "default"
    stem_stride: Literal[1, 2] = 2
    pretrained: bool = False
    checkpoint: str | None = None
    layers: Literal["stages", "all"] | Annotated[list[str], Field(min_length=2)] = "stages"

    @model_validator(mode="after")
    def _one_origin(self) -> ArchSpec:
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("weights come from pretrained or from checkpoint, not from both")
        return self


class TrainingSpec(Spec):
    """SGD with Nesterov momentum for a fixed number of steps."""

    later = frozenset({"teacher_cache", "compile"})
    steps: Annotated[int, Field(ge=0)] = 1000
    batch_size: Annotated[int, Field(ge=2)] = 128
    lr: Annotated[float, Field(gt=0.0)] = 0.1
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: Annotated[float, Field(ge=0.0)] = 5e-4
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    evaluations: Positive = 10
    unlabelled_batch_size: Positive = 128
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: bool = True
    compile: bool = Field(default=False, description="torch.compile the forward passes; see docs/BENCHMARKS.md")
    teacher_cache: bool = Field(default=False, description="keep the teacher's logits of every view of every image")

    @property
    def shared(self) -> dict[str, Any]:
        """What students that train beside each other must have in common."""
        own = {"lr", "momentum", "weight_decay", "schedule", "warmup", "teacher_cache"}
        return self.model_dump(mode="json", exclude=own)


class TeacherSpec(ArchSpec):
    """The network that is distilled from."""

    label_fraction: Fraction = 1.0
    seed: Seed = 0
    training: TrainingSpec = TrainingSpec()


class StudentSpec(ArchSpec):
    """An architecture that is distilled into; ``name`` stands in every network_id."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class MethodSpec(Spec):
    """One configuration of a method of the registry."""

    method: str
    label: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")] | None = None
    parameters: dict[str, Any] = {}
    unlabelled: bool = False
    teacher: Literal["study", "untrained", "own-budget", "self"] | None = Field(
        default=None, description="another teacher than the method's own"
    )
    training: dict[str, Any] = Field(default={}, description="fields that differ from the study's training")

    @field_validator("method")
    @classmethod
    def _known(cls, value: str) -> str:
        return unknown_name("method", value, METHODS)

    @model_validator(mode="after")
    def _parameters_fit(self) -> MethodSpec:
        try:
            METHODS[self.method].resolved(self.parameters)
        except ValidationError as error:
            model = METHODS[self.method].parameters
            raise ValueError(explain(error, model, lambda where: f"parameters.{where[0]}")) from None
        record = METHODS[self.method]
        if self.unlabelled and not record.needs_teacher:
            raise ValueError(f"unlabelled images need a teacher's term, and method {self.method!r} has none")
        if self.unlabelled and record.uses_labels:
            raise ValueError(f"the teacher's term of method {self.method!r} needs labels; unlabelled images have none")
        if self.teacher is not None and not record.needs_teacher:
            raise ValueError(f"method {self.method!r} has no teacher that another could stand in for")
        return self

    @model_validator(mode="after")
    def _training_fits(self) -> MethodSpec:
        try:
            own = TrainingSpec.model_validate(self.training)
        except ValidationError as error:
            raise ValueError(explain(error, TrainingSpec, lambda where: f"training.{where[0]}")) from None
        if own.steps == 0:
            raise ValueError("training.steps: a student needs at least one step")
        return self

    @property
    def sees_unlabelled(self) -> bool:
        """Whether its batches hold unlabelled images too, with their labels or without."""
        return self.unlabelled or METHODS[self.method].reveals_labels

    @property
    def teacher_kind(self) -> str | None:
        """Which teacher it learns from; None for none."""
        return self.teacher or METHODS[self.method].teacher

    @property
    def role(self) -> str:
        """What its networks are in a study.

        A distillation with a stand-in for its teacher, or that sees more or other batches than plain, is
        a control. So is a plain student with a training of its own: there is one to compare with.
        """
        record = METHODS[self.method]
        other_teacher = self.teacher not in (None, record.teacher)
        other_batches = {"steps", "batch_size", "unlabelled_batch_size"} & set(self.training)
        own_plain = record.role == "plain" and self.training
        return "control" if other_teacher or other_batches or own_plain else record.role

    def recipe(self, training: TrainingSpec) -> TrainingSpec:
        """The study's training with this method's own fields."""
        return TrainingSpec.model_validate({**training.model_dump(), **self.training})

    @property
    def name(self) -> str:
        """How this configuration is called in the study; the method's name unless a label is given."""
        stand_in = f"-{self.teacher}-teacher" if self.teacher else ""
        return self.label or (self.method + stand_in + ("-unlabelled" if self.unlabelled else ""))


class MapsSpec(Spec):
    """Which two-dimensional maps are drawn, of which view."""

    projectors: list[str] = ["tsne", "ivis", "pca"]
    view: Literal["gap", "projection"] = "projection"
    perplexity: Annotated[float, Field(ge=2.0)] = 30.0
    seed: Seed = 0
    plain_seeds: Positive = 2
    layouts: Annotated[list[Literal["consensus", "independent"]], Field(min_length=1)] = Field(
        default=["consensus", "independent"], description="of t-SNE: from a shared start, or each on its own"
    )
    strip_perplexities: list[Annotated[float, Field(ge=2.0)]] = Field(
        default=[5.0, 15.0], description="further perplexities of the headline's maps, where the probe is large enough"
    )
    strip_seeds: list[Seed] = Field(default=[1, 2], description="further seeds of the headline's maps: the noise floor")

    @field_validator("projectors")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        return [unknown_name("projector", name, PROJECTORS) for name in value]


class MeasuresSpec(Spec):
    """Which measures are computed, and what else is asked of every network."""

    names: list[str] = [name for name, measure in MEASURES.items() if measure.of != "factor"]
    k: Positive = 20
    specifications: bool = Field(
        default=True,
        description="the two endpoints of every image in other ways too: kNN at second_k, and both on the standardised "
        "layer",
    )
    second_k: Positive = Field(default=5, description="neighbours of the other kNN vote of every image")
    factors: bool = Field(default=True, description="how much of each layer is brightness, hue, edges, ...")
    explanations: bool = Field(default=True, description="Grad-CAM of the teacher's answers")

    @field_validator("names")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        return [unknown_name("measure", name, MEASURES) for name in value]


class HeadlineSpec(Spec):
    """The comparison the first page shows: plain against this method, for one student and budget."""

    student: str
    method: str
    label_fraction: Fraction


# What contrasts are held against, beside methods by their labels.
EVIDENCE_NAMES = {"teacher", "distilled", "second_seed", "matched-accuracy"}


class EpsilonSpec(Spec):
    """Differences that would not matter, in the unit of what is judged."""

    silhouette: Annotated[float, Field(ge=0.0)] = Field(default=0.005, description="area between silhouette curves")
    knn_accuracy: Annotated[float, Field(ge=0.0)] = Field(default=0.01, description="area between kNN accuracy curves")
    accuracy: Annotated[float, Field(ge=0.0)] = Field(default=0.01, description="share of images answered rightly")


class EvidenceSpec(Spec):
    """How claims are judged; it stands in the file before the run."""

    primary: HeadlineSpec | None = Field(
        default=None, description="the one cell whose p values are not exploratory; the headline by default"
    )
    epsilon: EpsilonSpec = EpsilonSpec()
    resamples: Annotated[int, Field(ge=200)] = Field(default=2000, description="of seeds and images, for intervals")
    seed: Seed = Field(default=0, description="of the resampling")


class StudySpec(Spec):
    """A whole study. Every list is explored in full: students x methods x label_fractions x seeds."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
    title: Annotated[str, Field(min_length=1)]
    description: str = ""
    data: DataSpec = DataSpec()
    teacher: TeacherSpec
    students: Annotated[list[StudentSpec], Field(min_length=1)]
    methods: Annotated[list[MethodSpec], Field(min_length=1)]
    label_fractions: Annotated[list[Fraction], Field(min_length=1)] = [1.0]
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    second_seed: bool = Field(
        default=True,
        description="with one seed, train plain from other initial weights too: what chance alone would change",
    )
    training: TrainingSpec = TrainingSpec()
    checkpoints: list[Annotated[float, Field(gt=0.0, lt=1.0)]] = Field(
        default=[],
        description="shares of the steps after which plain students, and those of the headline's method, are looked at "
        "too: what is compared at the same accuracy",
    )
    views: Annotated[list[Literal["gap", "projection"]], Field(min_length=1)] = ["gap", "projection"]
    maps: MapsSpec = MapsSpec()
    measures: MeasuresSpec = MeasuresSpec()
    headline: HeadlineSpec | None = None
    evidence: EvidenceSpec = EvidenceSpec()

    @model_validator(mode="before")
    @classmethod
    def _with_a_null(cls, raw: Any) -> Any:
        """No difference can be read without one that chance made: a study of one seed gets a second plain student."""
        if not isinstance(raw, dict) or raw.get("second_seed", True) is not True:
            return raw
        seeds, methods = raw.get("seeds", [0]), raw.get("methods")
        if not (isinstance(seeds, list) and len(seeds) == 1 and isinstance(methods, list)):
            return raw
        nulls = [name for name, record in METHODS.items() if record.own_initialisation and not record.needs_teacher]
        named = [method.get("method") for method in methods if isinstance(method, dict)]
        if not named or set(nulls) & {name for name in named if isinstance(name, str)}:
            return raw
        return {**raw, "methods": [*methods, {"method": nulls[0]}]}

    @model_validator(mode="after")
    def _consistent(self) -> StudySpec:
        _refuse_repeats("students", [student.name for student in self.students])
        _refuse_repeats("methods", [method.name for method in self.methods])
        _refuse_repeats("seeds", self.seeds)
        _refuse_repeats("label_fractions", self.label_fractions)
        _refuse_repeats("views", list(self.views))
        _refuse_repeats("checkpoints", self.checkpoints)
        _refuse_repeats("maps.projectors", self.maps.projectors)
        _refuse_repeats("measures.names", self.measures.names)
        if self.training.steps == 0:
            raise ValueError("training.steps: students need at least one step; a teacher alone may have none")
        for index, student in enumerate(self.students):
            if student.name == "teacher":
                raise ValueError(f"students.{index}.name: 'teacher' is the teacher's own name; choose another")
        kept = {f"{method.name}-at{step}" for method in self.methods for step in self.kept_steps(method)}
        if self.measures.specifications and self.measures.second_k == self.measures.k:
            raise ValueError("measures.second_k: it is to be another number of neighbours than measures.k")
        for method in self.methods:
            if method.label and method.label in EVIDENCE_NAMES:
                raise ValueError(f"methods: {method.label!r} is a word of the tables of evidence; choose another label")
            if method.name in kept | {"supervised", "untrained"}:
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
                _member(f"{field}.student", chosen.student, [student.name for student in self.students])
                _member(f"{field}.method", chosen.method, [method.name for method in self.methods])
                _member(f"{field}.label_fraction", chosen.label_fraction, self.label_fractions)
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


def _refuse_repeats(field: str, values: list[Any]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{field}: {value!r} stands there twice; each must differ (methods: by 'label')")


def _member(field: str, value: Any, allowed: list[Any]) -> None:
    if value not in allowed:
        raise ValueError(f"{field}: {value!r} is not in the study; it has {', '.join(map(repr, allowed))}")


@dataclass(frozen=True)
class StudyFile:
    """A validated study and the file it came from, so that later complaints can name a place in it."""

    path: Path
    text: str
    overrides: tuple[str, ...]
    spec: StudySpec

    def place(self, *where: int | str) -> str:
        """``file, line N: field`` of a location such as ``("students", 0, "arch")``."""
        return place_of(self.path, self.text, self.overrides, where)


def load_spec(path: Path, overrides: Iterable[str] = ()) -> StudySpec:
    """The study of :func:`read_study`, without its file."""
    return read_study(path, overrides).spec


def read_study(path: Path, overrides: Iterable[str] = ()) -> StudyFile:
    """Read and validate a study file.

    Args:
        path: a TOML file.
        overrides: ``key=value`` with dotted keys and TOML values, such as ``training.steps=50`` or
            ``methods.1.parameters.temperature=2.0``.

    Raises:
        StudyError: the file cannot be read, is not TOML, or does not describe a study.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"{path}: there is no such study file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: the study file cannot be read ({error}).") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path}: not valid TOML: {error}.") from None
    chosen = tuple(overrides)
    _spell_out_methods(raw)
    for override in chosen:
        _apply(raw, override)
        _spell_out_methods(raw)
    if problems := _complete_architectures(raw):
        raise StudyError("\n".join(f"{place_of(path, text, chosen, where)}: {said}" for where, said in problems))
    try:
        return StudyFile(path, text, chosen, StudySpec.model_validate(raw))
    except ValidationError as error:
        raise StudyError(explain(error, StudySpec, lambda where: place_of(path, text, chosen, where))) from None


def _spell_out_methods(raw: dict[str, Any]) -> None:
    """``methods = ["plain", "kd"]`` is short for two tables with defaults."""
    if isinstance(raw.get("methods"), list):
        raw["methods"] = [{"method": entry} if isinstance(entry, str) else entry for entry in raw["methods"]]


def _complete_architectures(raw: dict[str, Any]) -> list[tuple[Where, str]]:
    """A checkpoint that kdpipe wrote is short for its whole architecture; what contradicts it is returned."""
    students = raw.get("students")
    places: list[tuple[Where, Any]] = [(("teacher",), raw.get("teacher"))]
    places += [(("students", i), student) for i, student in enumerate(students if isinstance(students, list) else ())]
    sections = [(where, section) for where, section in places if isinstance(section, dict)]
    return [((*where, field), said) for where, section in sections for field, said in complete(section)]


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set one dotted key of the raw study."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise StudyError(f"override {override!r}: write it as key=value, such as training.steps=100.")
    target: Any = raw
    for part in parts[:-1]:
        if isinstance(target, list):
            target = _item(target, part, override)
        elif isinstance(target, dict):
            target = target.setdefault(part, {})
    last = parts[-1]
    if isinstance(target, list):
        _item(target, last, override)
        target[int(last)] = _toml_value(text)
    elif isinstance(target, dict):
        target[last] = _toml_value(text)
    else:
        raise StudyError(f"override {override!r}: {'.'.join(parts[:-1])} is a single value and has no field {last!r}.")


def _item(items: list[Any], part: str, override: str) -> Any:
    if not part.isdigit() or int(part) >= len(items):
        raise StudyError(f"override {override!r}: {part!r} is no position in a list of {len(items)} (counted from 0).")
    return items[int(part)]


def _toml_value(text: str) -> Any:
    """A TOML value; a bare word is a string, so that ``data.dataset=digits`` needs no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
