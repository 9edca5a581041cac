"""What only the data and the networks can say about a study, asked before anything is trained.

The study file alone may be in order and the study still impossible: an architecture that timm does
not have, a layer that does not exist, a method that cannot serve the pair, a budget below one image
a class. All of it is found here, from shapes, and reported at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdpipe.config.diagnostics import Where
from kdpipe.config.sections import ArchSpec
from kdpipe.config.study import BaseStudy, FinishedStudy, GivenStudy, StudySpec, VectorStudy
from kdpipe.config.study_file import StudyFile
from kdpipe.config.training import TrainingSpec
from kdpipe.config.vector_store import seen_in, shape_of, store_of, stored
from kdpipe.data.augmentation import AUGMENTATIONS
from kdpipe.data.copies import copies_in_words
from kdpipe.data.dataset import SplitPlan, plan_splits
from kdpipe.data.sources import SOURCES, Source
from kdpipe.data.sources.base import Peek, inspect, peek
from kdpipe.engine.stage import Reporter
from kdpipe.errors import DataError, NetworkError, StudyError
from kdpipe.methods import METHODS, Pair
from kdpipe.models.build import build
from kdpipe.models.network import Network
from kdpipe.models.origins import origin_of
from kdpipe.models.profile import Profile, profile_of
from kdpipe.vocabulary import TEACHER

Problem = tuple[Where, str]


@dataclass(frozen=True)
class Preflight:
    """The data and the networks of a study, seen from outside.

    Attributes:
        splits: how the images would be split; None for vectors, which say it themselves.
        shapes: of the teacher, and of students by the name of their architecture; of finished networks by their own.
        warnings: what makes numbers of the study say less than they seem to; known where every image was decoded.
    """

    data: Peek
    splits: SplitPlan | None
    shapes: dict[str, Profile]
    warnings: tuple[str, ...] = ()

    def layers(self, shape: str) -> list[str]:
        """Names of the layers that are looked at in networks of this shape."""
        return [tap.layer for tap in self.shapes[shape].taps]


def run_preflight(
    study: StudyFile, root: Path, *, every_image: bool = False, reporter: Reporter | None = None
) -> Preflight:
    """Look at the data and build every architecture once.

    Args:
        every_image: decode all of them, which a run does anyhow, and not the first alone.
        reporter: shows how far the decoding is.

    Raises:
        StudyError: all that is impossible, one line each.
        DataError: data that cannot be read.
    """
    spec = study.spec
    if isinstance(spec, VectorStudy):
        return _look_at_vectors(study, spec, root)
    source = SOURCES[spec.data.dataset]
    if source.needs_path and not spec.data.path:
        raise StudyError(f"{study.place('data', 'path')}: dataset {source.name!r} needs the folder that holds it.")
    seen = _look(source, spec, root, every_image, reporter)
    splits, unsplit = _planned_splits(spec, seen)
    problems = [*unsplit, *_look_problems(spec, seen)]
    if isinstance(spec, StudySpec):
        problems += _training_problems(spec, seen)
    shapes: dict[str, Profile] = {}
    for place, name, architecture in _sections(spec):
        try:
            shapes[name] = _shape(architecture, seen)
        except NetworkError as error:
            field, _, reason = str(error).partition(": ")
            problems.append(((*place, field), reason))
    if isinstance(spec, StudySpec):
        problems += _refusals(spec, shapes, len(seen.class_names))
    if isinstance(spec, FinishedStudy):
        problems += _unlike(spec, shapes)
    if problems or splits is None:
        raise StudyError("\n".join(f"{study.place(*where)}: {problem}" for where, problem in problems))
    return Preflight(seen, splits, shapes, tuple(_copies(seen, splits)))


def _look_at_vectors(study: StudyFile, spec: VectorStudy, root: Path) -> Preflight:
    store = store_of(spec, root)
    seen = seen_in(store)
    problems = list(_look_problems(spec, seen))
    shapes: dict[str, Profile] = {}
    for i, network in enumerate(spec.networks):
        try:
            shapes[spec.network_id(network)] = shape_of(stored(store, network))
        except DataError as error:
            problems.append((("networks", i, "vectors"), str(error)))
    problems += _unlike(spec, shapes)
    if problems:
        raise StudyError("\n".join(f"{study.place(*where)}: {problem}" for where, problem in problems))
    return Preflight(seen, None, shapes)


def _unlike(spec: GivenStudy[Any], shapes: dict[str, Profile]) -> Iterator[Problem]:
    """Students of one name whose layers differ: nothing of them could be compared layer by layer."""
    first: dict[str, tuple[int, list[str]]] = {}
    for i, network in enumerate(spec.networks):
        shape = shapes.get(spec.network_id(network))
        if network.role == TEACHER or shape is None:
            continue
        layers = [tap.layer for tap in shape.taps]
        other, expected = first.setdefault(network.student, (i, layers))
        if layers != expected:
            yield (
                ("networks", i, "student"),
                f"{network.student!r} has the layers {_listed(layers)} here, and {_listed(expected)} in "
                f"networks.{other}; choose the same by layers, or give it another student's name and a plain one.",
            )


def _listed(layers: Sequence[str]) -> str:
    return ", ".join(layers[:4]) + (f", … ({len(layers)})" if len(layers) > 4 else "")


def _sections(spec: BaseStudy) -> Iterator[tuple[Where, str, ArchSpec]]:
    """Where each architecture of a study stands, what it is called, and what it is."""
    if isinstance(spec, StudySpec):
        yield ("teacher",), TEACHER, spec.teacher
        for i, student in enumerate(spec.students):
            yield ("students", i), student.name, student
    elif isinstance(spec, FinishedStudy):
        for i, network in enumerate(spec.networks):
            yield ("networks", i), spec.network_id(network), network


def _look(source: Source, spec: BaseStudy, root: Path, every_image: bool, reporter: Reporter | None) -> Peek:
    if not every_image:
        return peek(source, spec.data, root)
    if reporter is None or source.peek is None:  # a look would cost as much as the reading
        return inspect(source, spec.data, root)
    seen = source.peek(spec.data, root)
    with reporter.track(f"decoding {source.title}", seen.train + (seen.test or 0)) as bar:
        return inspect(source, spec.data, root, bar.advance)


def _copies(seen: Peek, splits: SplitPlan) -> Iterator[str]:
    """What is said of images that stand there twice, if all were decoded."""
    train, test = seen.train_digests, seen.test_digests
    if train is not None:
        test = test if splits.test is None else train[splits.test]
        assert test is not None
        others = {"test": test, "validation": train[splits.validation]}
        yield from copies_in_words(train[splits.train], seen.train_labels[splits.train], others)


def _shape(architecture: ArchSpec, seen: Peek) -> Profile:
    channels = seen.image_shape[0]
    network = build(
        architecture,
        image_shape=seen.image_shape,
        classes=len(seen.class_names),
        mean=[0.5] * channels,
        std=[0.5] * channels,
        seed=0,
        # A local file is read now, a hub asked when it is needed.
        weights=architecture.checkpoint is not None or architecture.folder is not None,
    )
    if broken := _not_finite(network):
        files = [field for field in ("folder", "checkpoint") if getattr(architecture, field) is not None]
        brought = files[0] if files else "factory"
        place = getattr(architecture, brought) if files else origin_of(architecture)
        raise NetworkError(f"{brought}: {place} holds NaN or infinity in {broken}; take other weights.")
    if narrow := _dangerous_convolution(network):
        raise NetworkError(
            f"arguments: {narrow} is a strided 1x1 convolution of fewer than 8 channels, whose backward pass corrupts "
            "memory on some CPUs (seen with torch 2.14.1); use 8 channels or more."
        )
    return profile_of(network, seen.image_shape)


def _not_finite(network: Network) -> str | None:
    """Name of a weight that no answer could come out of."""
    for name, weight in network.model.state_dict().items():
        if not torch.isfinite(weight).all():
            return str(name)
    return None


def _dangerous_convolution(network: Network) -> str | None:
    """Name of a convolution that crashes torch's CPU kernels in training (heap corruption, not an exception)."""
    for name, module in network.model.named_modules():
        if not isinstance(module, nn.Conv2d) or module.groups != 1:
            continue
        if module.kernel_size == (1, 1) and module.stride != (1, 1) and module.in_channels < 8:
            return name
    return None


def _sizes(spec: BaseStudy, seen: Peek) -> tuple[int, int]:
    """Images to train on, and to test on."""
    test = seen.test if seen.test is not None else round(spec.data.test_fraction * seen.train)
    rest = seen.train if seen.test is not None else seen.train - test
    return rest - max(round(spec.data.validation_fraction * rest), 1), test


def _look_problems(spec: BaseStudy, seen: Peek) -> Iterator[Problem]:
    """Too few images for what is to be looked at."""
    _, test = _sizes(spec, seen)
    if spec.data.probe_size > test:
        yield (
            ("data", "probe_size"),
            f"{spec.data.probe_size} probe images are asked for, but the test set has {test}; "
            f"write probe_size = {test} or less.",
        )
    for field in ("k", "second_k"):
        k = getattr(spec.measures, field)
        if k >= spec.data.probe_size:
            yield ("measures", field), f"{k} neighbours need more than {spec.data.probe_size} probe images."
    if "tsne" in spec.maps.projectors and 3 * spec.maps.perplexity >= spec.data.probe_size:
        yield (
            ("maps", "perplexity"),
            f"{spec.maps.perplexity:g} needs more than {3 * spec.maps.perplexity:g} probe images, "
            f"there are {spec.data.probe_size}.",
        )
    if spec.maps.projectors and spec.data.probe_size < 50:
        yield ("data", "probe_size"), f"maps need at least 50 probe images, not {spec.data.probe_size}."


def _training_problems(spec: StudySpec, seen: Peek) -> Iterator[Problem]:
    """Budgets that are too small, and training that this machine cannot do."""
    classes, (train, _) = len(seen.class_names), _sizes(spec, seen)
    fractions: list[tuple[Where, float]] = [(("teacher", "label_fraction"), spec.teacher.label_fraction)]
    fractions += [(("label_fractions", i), fraction) for i, fraction in enumerate(spec.label_fractions)]
    for place, fraction in fractions:
        if round(fraction * train) < classes:
            yield (
                place,
                f"{fraction:g} of {train} training images is less than one label for each of "
                f"{classes} classes; take at least {classes / train:.4g}.",
            )
    wider = next((method.name for method in spec.methods if method.sees_unlabelled), None)
    if wider and round(max(spec.label_fractions) * train) >= train:
        yield ("label_fractions",), f"with all labels no unlabelled image is left for method {wider!r}."
    yield from _mixing_problems(spec)
    yield from _cache_problems(spec, train)
    if spec.training.compile and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        yield (
            ("training", "compile"),
            "torch.compile needs a C++ compiler, and there is none; install g++ or leave it out.",
        )


def _planned_splits(spec: BaseStudy, seen: Peek) -> tuple[SplitPlan | None, list[Problem]]:
    """The splits, or why there are none: classes too small for three of them."""
    fractions = {"validation_fraction": spec.data.validation_fraction, "test_fraction": spec.data.test_fraction}
    train, test, seed = seen.train_labels, seen.test_labels, spec.data.split_seed
    try:
        return plan_splits(train, test, seen.class_names, **fractions, split_seed=seed), []
    except DataError as error:
        return None, [(("data",), str(error))]


def _mixing_problems(spec: StudySpec) -> Iterator[Problem]:
    """Methods that need the one label, or the one image, that a mixed image has not."""
    for i, method in enumerate(spec.methods):
        record = METHODS[method.method]
        reasons = {
            "its teacher's term needs the one label of an image": record.uses_labels,
            "it remembers images one by one": "index" in record.needs,
            "it mixes images itself": record.views == "mixup",
        }
        if not method.recipe(spec.training).mixing.used:
            continue
        for reason in (reason for reason, holds in reasons.items() if holds):
            yield (
                ("methods", i),
                f"{method.method!r} cannot learn from mixed images (mixup, cutmix): {reason}. Leave it out, or make it "
                "a control on other images: training = { mixup = 0.0, cutmix = 0.0 }.",
            )


def _cache_problems(spec: StudySpec, train: int) -> Iterator[Problem]:
    """A cache of all views that is larger than what the training draws would cost more than it saves."""
    policy = AUGMENTATIONS[spec.data.augmentation or SOURCES[spec.data.dataset].augmentation]
    views = round(max(spec.label_fractions) * train) * policy.views
    places: dict[Where, TrainingSpec] = {("training", "teacher_cache"): spec.training}
    places |= {("methods", i): m.recipe(spec.training) for i, m in enumerate(spec.methods) if m.training}
    for place, recipe in places.items():
        drawn = recipe.steps * recipe.batch_size
        if recipe.teacher_cache and (policy.operations is not None or recipe.mixing.used):
            changed = "mixed" if recipe.mixing.used else f"changed at random by augmentation {policy.name!r}"
            yield place, f"teacher_cache: images are {changed}, so a view is never seen twice; leave the cache out."
        elif recipe.teacher_cache and views > drawn:
            yield (
                place,
                f"teacher_cache: {max(spec.label_fractions):g} of the labels with augmentation {policy.name!r} have "
                f"{views:,} views, but the training draws {drawn:,}; the cache would cost more than it saves.",
            )


def _refusals(spec: StudySpec, shapes: dict[str, Profile], classes: int) -> Iterator[Problem]:
    """Why methods cannot serve the study's pairs."""
    for i, method in enumerate(spec.methods):
        record = METHODS[method.method]
        if not record.needs_teacher:
            continue
        for student in spec.students:
            shape = shapes.get(student.name)
            teacher = shape if method.teacher_kind == "self" else shapes.get(TEACHER)
            if shape is None or teacher is None:
                continue
            shown = method.recipe(spec.training).images_a_step(method.unlabelled)
            pair = Pair(shape, teacher, classes, batch_size=shown)
            if reason := record.refuse(pair, record.resolved(method.parameters)):
                yield ("methods", i), f"{method.method!r} cannot distil into {student.name!r}: {reason}."
