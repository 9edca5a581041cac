#!/usr/bin/env python
"""Training speed as ratios within one run: students together against alone, channels last against first.

``benchmarks/training.py [--steps 20] [--device cpu]``. Networks, batch and image size are those of
studies/cifar10.toml;
the images are random, as their content does not change the speed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kdpipe.data import AUGMENTATIONS, Batches  # noqa: E402
from kdpipe.hardware import describe_hardware, resolve_device  # noqa: E402
from kdpipe.methods import METHODS, Pair  # noqa: E402
from kdpipe.networks import Network, build, tap_table  # noqa: E402
from kdpipe.sources import Split  # noqa: E402
from kdpipe.study import ArchSpec, load_spec  # noqa: E402
from kdpipe.train import Learner, train  # noqa: E402

SHAPE, CLASSES = (3, 32, 32), 10
SPEC = load_spec(ROOT / "studies" / "cifar10.toml")


def network(spec: ArchSpec, seed: int) -> Network:
    return build(spec, image_shape=SHAPE, classes=CLASSES, mean=[0.5] * 3, std=[0.25] * 3, seed=seed, weights=False)


def learner(method: str, pair: Pair) -> Learner:
    record = METHODS[method]
    parameters = record.resolved({})
    extras = record.extras(pair, parameters) if record.needs_teacher else None
    return Learner(method, network(SPEC.students[0], 1), record, parameters, extras, method)


def images_per_second(methods: list[str], steps: int, device: torch.device, channels_last: bool) -> float:
    """Training throughput of ``methods`` side by side, after a warm-up of three steps."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2048, *SHAPE), dtype=np.uint8)
    split = Split(images, random.integers(0, CLASSES, 2048))
    teacher = network(SPEC.teacher, 0)
    pair = Pair(tap_table(network(SPEC.students[0], 1), SHAPE)[0], tap_table(teacher, SHAPE)[0], CLASSES)
    taught = any(METHODS[name].needs_teacher for name in methods)
    batches = Batches(
        split,
        np.arange(2048),
        batch_size=SPEC.training.batch_size,
        seed=0,
        policy=AUGMENTATIONS["flip-shift4"],
        device=device,
    )
    few = Split(images[:64], split.labels[:64])

    def seconds(count: int) -> float:
        recipe = SPEC.training.model_copy(update={"steps": count, "channels_last": channels_last, "evaluations": 1})
        learners = [learner(name, pair) for name in methods]
        started = time.perf_counter()
        train(
            learners,
            teacher=teacher if taught else None,
            labelled=batches,
            unlabelled=None,
            validation=few,
            recipe=recipe,
            device=device,
        )
        return time.perf_counter() - started

    seconds(3)
    return steps * SPEC.training.batch_size / seconds(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    device = torch.device(resolve_device(chosen.device))
    four = ["plain", "kd", "fitnet", "second-seed"]
    alone = {name: images_per_second([name], chosen.steps, device, True) for name in four}
    together = images_per_second(four, chosen.steps, device, True)
    one_after_another = 1 / sum(1 / speed for speed in alone.values())
    first = images_per_second(four, chosen.steps, device, False)
    hardware = describe_hardware(str(device))
    where = hardware["accelerator"] or f"{hardware['threads']} threads of {hardware['processor']}"
    print(f"One run of `benchmarks/training.py --steps {chosen.steps}` on {where}, torch {torch.__version__}.\n")
    print("| | images/s |\n|---|--:|")
    for name, speed in alone.items():
        print(f"| {name} alone | {speed:.0f} |")
    print(f"| all four together, one teacher pass | {together:.0f} |")
    print(f"| all four together, channels first | {first:.0f} |\n")
    print(f"- Together takes {one_after_another / together:.2f} of the time of one after another.")
    print(f"- Channels last is {together / first:.2f} times as fast as channels first.")


if __name__ == "__main__":
    main()
