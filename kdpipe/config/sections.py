"""The sections of a study file: data, networks, training, methods, maps, measures, evidence.

Every field is typed, limited and checked against its registry at the edge; inside, everything is known to be right.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from kdpipe.config.diagnostics import explain
from kdpipe.config.spec import Fraction, Positive, Seed, Spec
from kdpipe.config.training import TrainingSpec
from kdpipe.data.augmentation import AUGMENTATIONS
from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import ChannelAxis
from kdpipe.measures import MEASURES
from kdpipe.methods import METHODS
from kdpipe.names import unknown_name
from kdpipe.representation.projectors import PROJECTORS

VECTORS = "vectors"  # the dataset of a study of vectors: samples, and perhaps no images


class DataSpec(Spec):
    """What is learned and on which images it is looked at."""

    later = frozenset({"image_column", "label_column", "channel_axis"})
    dataset: str = "digits"
    path: str | None = Field(default=None, exclude=True, description="folder, relative to the data root")
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    channels: Literal[1, 3] | None = None
    image_column: str | None = Field(default=None, description="of a table with several columns of images")
    label_column: str | None = Field(default=None, description="of a table whose label is not called label")
    channel_axis: ChannelAxis | None = Field(default=None, description="of arrays whose shape could be read both ways")
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
        return unknown_name("dataset", value, [*SOURCES, VECTORS])

    @field_validator("augmentation")
    @classmethod
    def _known_augmentation(cls, value: str | None) -> str | None:
        return value if value is None else unknown_name("augmentation", value, AUGMENTATIONS)


class ArchSpec(Spec):
    """What a network is, where its weights come from, how it takes images, which layers are tapped."""

    later = frozenset({"factory", "folder", "image_size", "mean", "std"})
    arch: str | None = Field(default=None, description="a timm model; not needed where a checkpoint of kdpipe says it")
    factory: str | None = Field(
        default=None, description="file.py:function that returns a torch.nn.Module; the file relative to the study file"
    )
    folder: str | None = Field(default=None, description="of an image classifier of transformers, with its weights")
    arguments: dict[str, Any] = Field(default={})
    stem: Literal["default", "small"] = "default"
    stem_stride: Literal[1, 2] = 2
    pretrained: bool = False
    checkpoint: str | None = None
    layers: Literal["stages", "all"] | Annotated[list[str], Field(min_length=2)] = "stages"
    image_size: Annotated[int, Field(ge=4, le=2048)] | None = Field(
        default=None, description="side that the network takes; images are resized to it"
    )
    mean: list[float] | None = Field(default=None, description="of each channel, of images in [0, 1]")
    std: list[Annotated[float, Field(gt=0.0)]] | None = Field(default=None, description="of each channel")

    @model_validator(mode="after")
    def _one_origin(self) -> ArchSpec:
        named = [name for name in ("arch", "factory", "folder") if getattr(self, name) is not None]
        if not named:
            raise ValueError(
                "arch: this field is required, unless factory, folder or a checkpoint of kdpipe says what it is"
            )
        if len(named) > 1:
            raise ValueError(f"a network is one of arch, factory and folder, not {' and '.join(named)}")
        if self.arch is None and (self.pretrained or self.stem != "default"):
            field = "pretrained" if self.pretrained else "stem"
            raise ValueError(f"{field}: only a timm model (arch) has that; leave it out")
        if self.folder is not None and (self.arguments or self.checkpoint is not None):
            field = "arguments" if self.arguments else "checkpoint"
            raise ValueError(f"{field}: a folder of transformers brings its own; leave it out")
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("weights come from pretrained or from checkpoint, not from both")
        return self

    @model_validator(mode="after")
    def _scaled(self) -> ArchSpec:
        if (self.mean is None) != (self.std is None) or len(self.mean or []) != len(self.std or []):
            raise ValueError("mean and std go together, a number for each channel")
        return self

    @property
    def as_it_comes(self) -> bool:
        """Whether the network is used without training of its own."""
        return False


class TeacherSpec(ArchSpec):
    """The network that is distilled from."""

    label_fraction: Fraction = 1.0
    seed: Seed = 0
    training: TrainingSpec = TrainingSpec()

    @property
    def as_it_comes(self) -> bool:
        """Whether the network is used without training of its own."""
        return self.training.steps == 0


class StudentSpec(ArchSpec):
    """An architecture that is distilled into; ``name`` stands in every network_id."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class GivenSpec(Spec):
    """A network that was trained elsewhere: what it is in the study."""

    role: Literal["teacher", "plain", "distilled", "control"]
    student: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")] = Field(
        default="student", description="name of its architecture; students of one name are compared"
    )
    method: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")] | None = Field(
        default=None,
        description="how it was trained: a method of kdpipe, or a name of your own; 'plain' or 'distillation' by "
        "default",
    )
    explains: Literal["instead", "without"] | None = Field(
        default=None,
        description="of a control with a name of your own: whether it does something in the place of distillation, or "
        "withholds something from it",
    )
    seed: Seed = 0
    label_fraction: Fraction = Field(default=1.0, description="share of the training labels that it had")
    step: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="training step; with several of one network, all but the last are its checkpoints"
    )

    @property
    def label(self) -> str:
        """How its method is called."""
        return self.method or ("distillation" if self.role == "distilled" else self.role)

    @property
    def run(self) -> tuple[str, str, str, float, int]:
        """What the states of one network on its way have in common."""
        return self.role, self.student, self.label, self.label_fraction, self.seed

    @model_validator(mode="after")
    def _control_says_how(self) -> GivenSpec:
        if self.role == "control" and self.method is None:
            raise ValueError("method: a control says how it was trained, such as 'label-smoothing'")
        if self.explains and (self.role != "control" or self.label in METHODS):
            raise ValueError("explains: it is for a control with a name of your own; leave it out")
        return self


class NetworkSpec(GivenSpec, ArchSpec):
    """A finished network: what it is in the study, and where it comes from."""

    @model_validator(mode="after")
    def _has_weights(self) -> NetworkSpec:
        if self.arch is not None and self.checkpoint is None and not self.pretrained:
            raise ValueError(
                f"arch: {self.arch!r} alone is a network that nobody trained; name its weights by checkpoint, or take "
                "timm's by pretrained = true"
            )
        return self

    @property
    def as_it_comes(self) -> bool:
        """Whether the network is used without training of its own."""
        return True


class VectorsSpec(GivenSpec):
    """A network of which there are vectors alone."""

    vectors: Annotated[str, Field(min_length=1)] = Field(description="its name in the folder of vectors")


class MethodSpec(Spec):
    """One configuration of a method of the registry."""

    method: str
    label: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")] | None = None
    parameters: dict[str, Any] = Field(default={})
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
        other_batches = {"steps", "batch_size", "unlabelled_batch_size", "mixup", "cutmix"} & set(self.training)
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

    projectors: list[str] = Field(default=["tsne", "ivis", "pca"])
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

    names: list[str] = Field(default_factory=lambda: list(MEASURES), description="all registered ones by default")
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


def refuse_repeats(field: str, values: list[Any]) -> None:
    """Raise ValueError where one of ``values`` stands twice."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{field}: {value!r} stands there twice; each must differ (methods: by 'label')")


def member(field: str, value: Any, allowed: list[Any]) -> None:
    """Raise ValueError unless ``value`` is one of those that the study has."""
    if value not in allowed:
        raise ValueError(f"{field}: {value!r} is not in the study; it has {', '.join(map(repr, allowed))}")
