#!/usr/bin/env python
"""Training speed as ratios within one run: students together, our input pipeline, timm's distillation task.

``benchmarks/training.py [--steps 20] [--device cpu] [--write]``. The student is that of
studies/cifar10.toml; images are random, as their content does not change the speed. ``--write`` puts
the tables into docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.task import LogitDistillationTask
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kdpipe.config.sections import ArchSpec
from kdpipe.config.study_file import load_spec
from kdpipe.config.training import TrainingSpec
from kdpipe.data.augmentation import AUGMENTATIONS
from kdpipe.data.batches import Batches
from kdpipe.data.sources.base import Split
from kdpipe.engine.hardware import describe_hardware, resolve_device
from kdpipe.methods import METHODS, Pair
from kdpipe.models.build import build
from kdpipe.models.network import Network
from kdpipe.models.profile import profile_of
from kdpipe.training.evaluation import use_half
from kdpipe.training.learner import Learner
from kdpipe.training.loop import train

SHAPE, CLASSES, IMAGES = (3, 32, 32), 10, 2048
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
SPEC = load_spec(ROOT / "studies" / "cifar10.toml")
POLICY = AUGMENTATIONS["flip-shift4"]
MARKS = ("<!-- training:begin -->", "<!-- training:end -->")
# Teachers of about three to five and of more than nine times the student's forward time.
TEACHERS = {"near": {"channels": [36, 72, 144, 232]}, "far": {"channels": [72, 144, 288, 576]}}


def network(arguments: dict[str, Any], seed: int) -> Network:
    spec = ArchSpec(arch="resnet18", arguments=arguments, stem="small", stem_stride=2)
    return build(spec, image_shape=SHAPE, classes=CLASSES, mean=list(MEAN), std=list(STD), seed=seed)


def student(seed: int) -> Network:
    return network(SPEC.students[0].arguments, seed)


def split() -> Split:
    random = np.random.default_rng(0)
    return Split(random.integers(0, 256, (IMAGES, *SHAPE), dtype=np.uint8), random.integers(0, CLASSES, IMAGES))


def stream(data: Split, device: torch.device) -> Batches:
    size = SPEC.training.batch_size
    return Batches(data, np.arange(IMAGES), batch_size=size, seed=0, policy=POLICY, device=device)


def learner(method: str, name: str, seed: int, teacher: Network) -> Learner:
    record, made = METHODS[method], student(seed)
    parameters = record.resolved({})
    labels, shown = tuple(i % CLASSES for i in range(IMAGES)), SPEC.training.batch_size
    pair = Pair(profile_of(made, SHAPE), profile_of(teacher, SHAPE), CLASSES, labels, shown)
    extras = record.extras(pair, parameters) if record.needs_teacher else None
    return Learner(name, made, record, parameters, extras, name)


def clocked(
    work: Callable[..., object], device: torch.device, repeats: int = 3, prepare: Callable[[], tuple[Any, ...]] = tuple
) -> float:
    """Least seconds of several runs of ``work``, after one to warm up; what ``prepare`` makes for it is not timed."""
    work(*prepare())
    times = []
    for _ in range(repeats):
        made = prepare()
        started = time.perf_counter()
        work(*made)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times)  # others on the machine can only add


def training_seconds(
    groups: list[list[str]], teacher: Network, recipe: TrainingSpec, device: torch.device, rounds: int = 4
) -> list[float]:
    """Least seconds for ``recipe.steps`` steps of each group of methods side by side.

    The groups take turns, so that a change of the machine's pace meets all of them.
    """
    data = split()
    few, batches = Split(data.images[:64], data.labels[:64]), stream(data, device)

    def work(*learners: Learner) -> None:
        train(
            learners, teacher=teacher, labelled=batches, unlabelled=None, validation=few, recipe=recipe, device=device
        )

    def prepare(methods: list[str]) -> tuple[Learner, ...]:
        return tuple(learner(name, f"{name} {i}", i, teacher) for i, name in enumerate(methods))

    times = [[clocked(work, device, 1, partial(prepare, methods)) for methods in groups] for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]


def forward_ratio(teacher: Network, device: torch.device, recipe: TrainingSpec) -> float:
    """Time of the teacher's forward pass over that of the student's, each as it runs in training.

    The teacher's is in evaluation and keeps nothing; the student's is in training mode and keeps what its backward
    pass needs. A student's forward pass in evaluation is cheaper, and is not what it does here.
    """
    images = torch.rand(recipe.batch_size, *SHAPE, device=device).to(memory_format=torch.channels_last)
    half = use_half(recipe, device)

    def seconds(made: Network, learns: bool) -> float:
        made = made.to(device).to(memory_format=torch.channels_last).train(learns)
        with torch.set_grad_enabled(learns), torch.autocast(device.type, torch.bfloat16, enabled=half):
            return clocked(lambda: [made(images) for _ in range(10)], device)

    pupil = student(0)
    turns = [(seconds(teacher, False), seconds(pupil, True)) for _ in range(8)]  # in turn, as the pace may change
    return min(one for one, _ in turns) / min(other for _, other in turns)


def together(recipe: TrainingSpec, device: torch.device) -> list[str]:
    """(a) k students beside each other against one after another."""
    lines = [
        "| teacher forward / student forward | students | together / one after another | (t+3k)/(k(t+3)) | quotient |",
        "|--:|--:|--:|--:|--:|",
    ]
    for arguments in TEACHERS.values():
        teacher = network(arguments, 0)
        t = forward_ratio(teacher, device, recipe)
        counts = (1, 4, 8)
        alone, *groups = training_seconds([["kd"], *(["kd"] * k for k in counts)], teacher, recipe, device, rounds=3)
        for k, seconds in zip(counts, groups, strict=True):
            measured = seconds / (k * alone)
            ideal = (t + 3 * k) / (k * (t + 3))
            lines.append(f"| {t:.1f} | {k} | {measured:.2f} | {ideal:.2f} | {measured / ideal:.2f} |")
    return lines


class PerSample(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """One PIL image at a time, cropped, flipped, normalised: the usual pipeline."""

    def __init__(self, data: Split) -> None:
        self.images, self.labels = data.images.transpose(0, 2, 3, 1).copy(), data.labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(SHAPE[1], padding=4, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def pipeline(recipe: TrainingSpec, device: torch.device) -> list[str]:
    """(b) our batches against a per-sample PIL loader, one thread each."""
    data, threads = split(), torch.get_num_threads()
    torch.set_num_threads(1)
    batches, steps = stream(data, device), IMAGES // recipe.batch_size
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (MEAN, STD))
    ours = clocked(lambda: [(batches(step).images - mean) / std for step in range(steps)], device)
    loader = DataLoader(PerSample(data), batch_size=recipe.batch_size, shuffle=True, drop_last=True)
    theirs = clocked(lambda: [images.to(device) for images, _ in loader], device)
    torch.set_num_threads(threads)
    seen = steps * recipe.batch_size
    return [
        "| input pipeline, one thread | images/s |",
        "|---|--:|",
        f"| batched on the device | {seen / ours:,.0f} |",
        f"| PIL, one image at a time | {seen / theirs:,.0f} |",
        "",
        f"Batched is {theirs / ours:.1f} times as fast.",
    ]


def against_timm(recipe: TrainingSpec, device: torch.device) -> list[str]:
    """(c) one student by KD, here and in timm's task, on the same batches with the same optimiser."""
    teacher = network(TEACHERS["near"], 0)
    recipe = recipe.model_copy(update={"steps": 2 * recipe.steps})  # the validation at the end is not timm's
    data = split()
    few, batches, half = Split(data.images[:64], data.labels[:64]), stream(data, device), use_half(recipe, device)

    def ours(made: Learner) -> None:
        train([made], teacher=teacher, labelled=batches, unlabelled=None, validation=few, recipe=recipe, device=device)

    def models() -> tuple[nn.Module, nn.Module]:
        made: list[Any] = [
            part.model.to(device).to(memory_format=torch.channels_last) for part in (student(1), teacher)
        ]
        for model in made:
            model.pretrained_cfg.update(mean=MEAN, std=STD)
        return made[0], made[1]

    def theirs(learning: nn.Module, teaching: nn.Module) -> None:
        task = LogitDistillationTask(
            learning, teaching, criterion=nn.CrossEntropyLoss(), distill_loss_weight=0.9, task_loss_weight=0.1,
            temperature=4.0, device=device, verbose=False,
        )  # fmt: skip
        task.train()
        optimizer = torch.optim.SGD(
            learning.parameters(), lr=0.1, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay
        )
        mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (MEAN, STD))
        for step in range(recipe.steps):
            batch = batches(step)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                loss = task((batch.images - mean) / std, batch.labels)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    made: dict[str, tuple[Callable[..., object], Callable[[], tuple[Any, ...]]]] = {
        "ours": (ours, lambda: (learner("kd", "kd", 1, teacher),)),
        "theirs": (theirs, models),
    }
    ratios = []
    for turn in range(8):  # each first as often, so that a change of the machine's pace meets both
        order = list(made) if turn % 2 else list(made)[::-1]
        seconds = {name: clocked(made[name][0], device, 1, made[name][1]) for name in order}
        ratios.append(seconds["ours"] / seconds["theirs"])
    return [
        f"One student by KD takes {statistics.median(ratios):.2f} of the time of timm's `LogitDistillationTask` "
        f"(median of {len(ratios)} pairs, {min(ratios):.2f} to {max(ratios):.2f})."
    ]


def throughput(recipe: TrainingSpec, device: torch.device) -> list[str]:
    """Images a second of the whole step, by method and precision."""
    teacher = network(TEACHERS["near"], 0)
    seen = recipe.steps * recipe.batch_size
    lines = ["| training | images/s |", "|---|--:|"]
    names = ["plain", "kd", "fitnet"]
    for name, seconds in zip(names, training_seconds([[n] for n in names], teacher, recipe, device), strict=True):
        lines.append(f"| {name} | {seen / seconds:,.0f} |")
    for title, change in (("channels first", {"channels_last": False}), ("compiled", {"compile": True})):
        (seconds,) = training_seconds([["kd"]], teacher, recipe.model_copy(update=change), device)
        lines.append(f"| kd, {title} | {seen / seconds:,.0f} |")
    if device.type == "cuda":
        for precision in ("float32", "bfloat16"):
            chosen = recipe.model_copy(update={"precision": precision})
            (seconds,) = training_seconds([["kd"]], network(TEACHERS["far"], 0), chosen, device)
            lines.append(f"| kd, the larger teacher, {precision} | {seen / seconds:,.0f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    device = torch.device(resolve_device(chosen.device))
    recipe = SPEC.training.model_copy(update={"steps": chosen.steps, "evaluations": 1})
    hardware = describe_hardware(str(device))
    where = hardware["accelerator"] or f"{hardware['threads']} threads of {hardware['processor']}"
    lines = [f"One run of `benchmarks/training.py --steps {chosen.steps}` on {where}, torch {torch.__version__}.", ""]
    for part in (together, pipeline, against_timm, throughput):
        lines += [*part(recipe, device), ""]
    text = "\n".join(lines)
    print(text)
    if chosen.write:
        target = ROOT / "docs" / "BENCHMARKS.md"
        before, _, rest = target.read_text().partition(MARKS[0])
        target.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{rest.partition(MARKS[1])[2]}")


if __name__ == "__main__":
    main()
