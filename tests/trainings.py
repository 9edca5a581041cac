"""Trainings small enough for tests: digits, thin ResNets, a dozen steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from kdpipe.config.sections import ArchSpec
from kdpipe.config.training import TrainingSpec
from kdpipe.data.augmentation import AUGMENTATIONS
from kdpipe.data.batches import Batches
from kdpipe.data.mixing import UNMIXED
from kdpipe.data.sources.base import Split
from kdpipe.methods import METHODS, Pair
from kdpipe.models.build import build
from kdpipe.models.profile import profile_of
from kdpipe.training.learner import Learner
from kdpipe.training.loop import train

SHAPE, STEPS, CPU = (1, 8, 8), 12, torch.device("cpu")
DIGITS = load_digits()
IMAGES = np.round(DIGITS.images * 255 / 16).astype(np.uint8)[:, None]
TRAIN, VALIDATION = Split(IMAGES[:400], DIGITS.target[:400]), Split(IMAGES[400:500], DIGITS.target[400:500])
# name: method, initial weights, whether it also sees unlabelled images
STUDENTS = {
    "plain": ("plain", 1, False),
    "kd": ("kd", 1, False),
    "fitnet": ("fitnet", 1, False),
    "second-seed": ("second-seed", 2, False),
    "kd-unlabelled": ("kd", 1, True),
    "supervised": ("supervised-on-the-same-images", 1, True),
    "crd-unlabelled": ("crd", 1, True),
    "rkd": ("rkd", 1, False),
    "label-smoothing": ("label-smoothing", 1, False),
    "shuffled-teacher": ("shuffled-teacher", 1, False),
}


def recipe(**more):
    defaults = {"steps": STEPS, "batch_size": 16, "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "warmup": 0.2}
    return TrainingSpec(**{"evaluations": 3, "precision": "float32", **defaults, **more})


def network(seed: int, width: int = 8, image_size: int | None = None, **more):
    arguments = {"channels": [width, width, width, width], "layers": [1, 1, 1, 1], **more}
    spec = ArchSpec(arch="resnet18", arguments=arguments, stem="small", image_size=image_size)
    return build(spec, image_shape=SHAPE, classes=10, mean=[0.3], std=[0.4], seed=seed)


def trained_teacher(image_size: int | None = None):
    """A teacher whose BatchNorm statistics are not the initial ones."""
    made = network(0, 16, image_size).train()
    with torch.no_grad():
        made(torch.from_numpy(IMAGES[:100].astype(np.float32) / 255))
    return made


def learner(
    name: str, teacher, parameters=None, drop: float = 0.2, student=None, image_size: int | None = None, **more
) -> Learner:
    method_name, seed, unlabelled = student or STUDENTS[name]
    method, made = METHODS[method_name], network(seed, image_size=image_size, drop_rate=drop)
    resolved, extras = method.resolved(parameters or {}), None
    labels = (*TRAIN.labels[:200].tolist(), *[-1] * (200 if unlabelled else 0))
    if method.needs_teacher:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            pair = Pair(profile_of(made, SHAPE), profile_of(teacher, SHAPE), 10, labels)
            extras = method.extras(pair, resolved)
            method.adapt(made, teacher, pair, resolved)
    return Learner(name, made, method, resolved, extras, f"stream of {name}", unlabelled, **more)


def stream(indices, name="labelled", augmentation="shift1", mixing=UNMIXED):
    policy = AUGMENTATIONS[augmentation]
    return Batches(TRAIN, indices, batch_size=16, seed=0, policy=policy, device=CPU, stream=name, mixing=mixing)


def fit(learners, teacher, recipe=recipe(), resume=None, augmentation="shift1", **more):  # noqa: B008
    shown = {"augmentation": augmentation, "mixing": recipe.mixing}

    train(
        learners,
        teacher=teacher,
        labelled=stream(np.arange(200), "labelled", **shown),
        unlabelled=stream(np.arange(200, 400), "unlabelled", **shown),
        validation=VALIDATION,
        recipe=recipe,
        device=CPU,
        resume=resume,
        **more,
    )
    return learners


class KilledError(Exception):
    pass


def interrupted(learners, teacher, resume, at: int, **more) -> None:
    """Train, and be killed after ``at`` steps."""
    done = 0

    def advance(steps, note):
        nonlocal done
        done += 1
        if done > at:  # it is told once at the start
            raise KilledError

    with pytest.raises(KilledError):
        fit(learners, teacher, resume=resume, advance=advance, **more)
