"""Small real pairs of networks, and one real training step of a method on them."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from kdpipe.config.sections import ArchSpec
from kdpipe.methods import METHODS, Pair, Step, Terms
from kdpipe.methods.base import Method
from kdpipe.models.build import build
from kdpipe.models.network import Network
from kdpipe.models.profile import Profile, profile_of

SHAPE, CLASSES = (3, 32, 32), 10
VIT = {"img_size": 32, "patch_size": 8, "depth": 3, "num_heads": 2}
ARCHITECTURES = {
    "cnn": {"arch": "resnet18", "arguments": {"channels": [8, 12, 16, 24], "layers": [1, 1, 1, 1]}, "stem": "small"},
    "wide-cnn": {"arch": "resnet18", "arguments": {"channels": [16, 24, 32, 40], "layers": [1] * 4}, "stem": "small"},
    "deep-cnn": {"arch": "resnet18", "arguments": {"channels": [4, 4, 4, 4]}, "stem": "small"},
    "mobile": {"arch": "mobilenetv3_small_050", "stem": "small"},
    "vit": {"arch": "vit_tiny_patch16_224", "arguments": {**VIT, "embed_dim": 24}},
    "resnet8": {"arch": "cifar_resnet8"},
    "wrn": {"arch": "cifar_wrn16_1"},
    "distilled": {"arch": "deit_tiny_distilled_patch16_224", "arguments": {**VIT, "embed_dim": 24}},
    "vit-mean": {"arch": "vit_tiny_patch16_224", "arguments": {**VIT, "embed_dim": 32, "global_pool": "avg"}},
}
# (student, teacher): other widths, other depths, other kinds.
PAIRS = [
    ("cnn", "wide-cnn"), ("cnn", "vit"), ("vit", "wide-cnn"), ("mobile", "wide-cnn"), ("vit-mean", "wide-cnn"),
    ("resnet8", "wrn"),
]  # fmt: skip
# What methods for transformers ask for: tokens on both sides, or a second head.
TOKEN_PAIRS = [("vit", "vit-mean"), ("distilled", "wide-cnn")]


def network(kind: str, seed: int = 0) -> Network:
    spec = ArchSpec.model_validate(ARCHITECTURES[kind])
    return build(spec, image_shape=SHAPE, classes=CLASSES, mean=[0.5] * 3, std=[0.25] * 3, seed=seed)


@lru_cache
def profile(kind: str) -> Profile:
    return profile_of(network(kind), SHAPE)


def pair(student: str, teacher: str, images: int = 64) -> Pair:
    labels = tuple(i % CLASSES for i in range(images))
    return Pair(profile(student), profile(teacher), CLASSES, labels, batch_size=16)


def refusal(name: str, student: str, teacher: str) -> str | None:
    """Why a method, as it is published, does not serve a pair."""
    method: Method = METHODS[name]
    return method.refuse(pair(student, teacher), method.resolved({})) if method.needs_teacher else None


def pair_for(name: str) -> tuple[str, str]:
    """The first pair that a method serves."""
    return next(kinds for kinds in (*PAIRS, *TOKEN_PAIRS) if refusal(name, *kinds) is None)


def setting(name: str, student: str, teacher: str, **parameters: Any) -> SimpleNamespace:
    """A method with everything it needs on a pair: networks, extras, an optimiser's parameters."""
    method: Method = METHODS[name]
    resolved, shapes = method.resolved(parameters), pair(student, teacher)
    learner, master = network(student, 1), network(teacher, 2).eval().requires_grad_(False)
    torch.manual_seed(3)
    extras: nn.Module | None = method.extras(shapes, resolved)
    method.adapt(learner, master, shapes, resolved)
    return SimpleNamespace(
        method=method, parameters=resolved, pair=shapes, student=learner, teacher=master, extras=extras
    )


def terms(made: SimpleNamespace, rows: int = 8, labelled: int = 8, seed: int = 0, progress: float = 0.5) -> Terms:
    """The named terms of one step on random images, of which the first ``labelled`` have a label."""
    generator = torch.Generator().manual_seed(seed)
    if "preactivations" in made.method.needs:
        for network in (made.student, made.teacher):
            network.keep_preactivations(SHAPE)
    # Drawn for the largest batch, so that fewer rows are the first rows of more.
    images = torch.rand(max(rows, 16), *SHAPE, generator=generator)[:rows]
    index = torch.randperm(len(made.pair.labels), generator=generator)[:rows]
    target = torch.tensor(made.pair.labels)[index][:labelled]
    with torch.no_grad():
        seen = made.teacher(images) if made.method.needs_teacher else None
    step = Step(
        student=made.student.train()(images),
        teacher=seen,
        target=target,
        index=index,
        progress=progress,
        parameters=made.parameters,
        extras=made.extras,
        student_network=made.student,
        teacher_network=made.teacher if made.method.needs_teacher else None,
    )
    return made.method.terms(step)
