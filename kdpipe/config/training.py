"""How networks are trained: the section of a study, and of a teacher or method that differs from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from kdpipe.config.spec import Alpha, Positive, Share, Spec
from kdpipe.data.mixing import Mixing


class TrainingSpec(Spec):
    """How a network is trained: an optimiser, a schedule, and a fixed number of steps."""

    later = frozenset(
        {"teacher_cache", "compile", "nesterov", "decay_norms", "milestones", "decay"}
        | {"optimizer", "betas", "clip_norm", "label_smoothing", "ema", "mixup", "cutmix"}
    )
    steps: Annotated[int, Field(ge=0)] = 1000
    batch_size: Annotated[int, Field(ge=2)] = 128
    lr: Annotated[float, Field(gt=0.0)] = 0.1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(default=0.9, description="of optimizer sgd")
    nesterov: bool = Field(default=True, description="of optimizer sgd")
    betas: list[Annotated[float, Field(ge=0.0, lt=1.0)]] = Field(
        default=[0.9, 0.999],
        min_length=2,
        max_length=2,
        description="of optimizer adamw: decay of its two running means",
    )
    weight_decay: Annotated[float, Field(ge=0.0)] = 5e-4
    decay_norms: bool = Field(default=False, description="weight decay for norms and biases too")
    clip_norm: Annotated[float, Field(gt=0.0)] | None = Field(
        default=None, description="longer gradients are shortened to this norm"
    )
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.0, description="share of a label that is spread over all classes"
    )
    mixup: Alpha = Field(default=0.0, description="alpha by which images of a batch are mixed; 0 for never")
    cutmix: Alpha = Field(
        default=0.0, description="alpha by which parts of images are exchanged in a batch; with mixup, one or the other"
    )
    ema: Share | None = Field(
        default=None, description="decay of a running mean of the weights, which is evaluated and saved in their place"
    )
    schedule: Literal["onecycle", "cosine", "step"] = "onecycle"
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    milestones: list[Share] = Field(
        default=[150 / 240, 180 / 240, 210 / 240],
        min_length=1,
        description="of schedule step: shares of the training after which the rate drops",
    )
    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.1, description="of schedule step: what the rate is multiplied by at a milestone"
    )
    evaluations: Positive = 10
    unlabelled_batch_size: Positive = 128
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: bool = True
    compile: bool = Field(default=False, description="torch.compile the forward passes; see docs/BENCHMARKS.md")
    teacher_cache: bool = Field(default=False, description="keep the teacher's logits of every view of every image")

    @property
    def shared(self) -> dict[str, Any]:
        """What students that train together must have in common."""
        own = {"lr", "momentum", "nesterov", "weight_decay", "decay_norms"}
        own |= {"schedule", "warmup", "milestones", "decay", "teacher_cache"}
        own |= {"optimizer", "betas", "clip_norm", "label_smoothing", "ema"}
        return self.model_dump(mode="json", exclude=own)

    @property
    def mixing(self) -> Mixing:
        """How batches are mixed."""
        return Mixing(self.mixup, self.cutmix)

    @field_validator("milestones")
    @classmethod
    def _in_order(cls, value: list[float]) -> list[float]:
        if value != sorted(set(value)):
            raise ValueError("milestones come in order, each once, such as [0.5, 0.75]")
        return value

    def images_a_step(self, unlabelled: bool) -> int:
        """How many images a step shows, with or without the unlabelled ones."""
        return self.batch_size + (self.unlabelled_batch_size if unlabelled else 0)
