#!/usr/bin/env python
"""Write docs/LITERATURE.md from the registered networks: ``scripts/literature_docs.py [--check]``."""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from kdpipe.models.literature import LITERATURE, LiteratureNetwork

TARGET = ROOT / "docs" / "LITERATURE.md"
INTRODUCTION = """# Networks and pairs of the literature

Written by `scripts/literature_docs.py` from the registry in `kdpipe/models/literature/`.

Papers on distillation compare on the same small networks for CIFAR-100. kdpipe registers them with timm, so
`arch = "cifar_resnet8x4"` works wherever a timm name does, in Python too, once `kdpipe.models` is imported.

| `arch` | in papers | in published code | parameters | MACs | stages |
|---|---|---|--:|--:|---|
"""
TEXT = """
Parameters and MACs are for 100 classes and colour images of 32 × 32; norms and activations cost nothing there.

- **Names and shapes of all tensors are those of RepDistiller and mdistiller**, and published weights give the maps and
  logits that they give there (`tests/test_literature.py` holds digests of both). The code is written from the papers.
- **Names of the published code** are no timm names, and `vgg13` is another network in timm. A study that asks for
  `resnet8x4` or `ShuffleV1` is told the right one.
- **Other sizes.** All take other images, channels and numbers of classes. `cifar_vgg*` pool once more where the last
  stage would see more than 4 × 4, as published for images of 64.
- **No weights are fetched.** The papers' teachers are trained by the studies below, or loaded from files.

## Where a layer is looked at

A layer is what its module returns. Its stem is left out of `layers = "stages"`, as AT, VID and their like leave it out.

| networks | a stage ends | stem |
|---|---|---|
| ResNets, ShuffleNets, VGG | after the ReLU | `act1`; `block0` in VGG |
| WRN | before norm and ReLU, which open the next block | `conv1` |
| MobileNetV2 | after the norm: bottlenecks are linear | `conv1` |

The published code gives the same maps to its methods. What OFD and its like take before the ReLU is no layer here.

## Published weights

RepDistiller and mdistiller publish teachers trained on CIFAR-100 as pickled files with the tensors under `model`.
`kdpipe convert` reads the tensors alone; the file that it writes knows its network, its classes and the published
scaling of images. A study then takes the teacher as it comes:

```sh
kdpipe convert ckpt_epoch_240.pth --like cifar_resnet32x4 --output resnet32x4.safetensors
kdpipe studies/cifar100/resnet32x4-resnet8x4.toml teacher.checkpoint=resnet32x4.safetensors teacher.training.steps=0
```

A plain safetensors file of the same tensors works too; images are then scaled by the dataset's own means and deviations.

## The standard pairs

A file for each of the 13 pairs stands in `studies/cifar100/`, seven of the same style and six of different styles. They
download CIFAR-100 and want a GPU: three seeds of ten to thirteen students, each of 240 epochs.

```sh
kdpipe validate studies/cifar100/resnet56-resnet20.toml
kdpipe studies/cifar100/resnet56-resnet20.toml
python scripts/ledger.py        # published numbers beside those of all finished studies
```

The recipe is the published one: SGD with momentum 0.9 and without Nesterov's, batches of 64, rate 0.05 (0.01 for
MobileNetV2 and ShuffleNets), times 0.1 after epochs 150, 180 and 210, weight decay 5e-4 on all parameters, random crops
on black and flips, in float32. Weights of losses are those that the papers or mdistiller give for the pair. It differs
in two things:

- 500 of the 50,000 training images are held out, to find the best epoch without a look at the test images.
- A batch may reach into the next epoch, so none is smaller than 64.

[LEDGER.md](LEDGER.md) has the published numbers with their sources.
"""


def row(network: LiteratureNetwork) -> str:
    """One network as a row of the table, counted without its numbers."""
    with torch.device("meta"):
        model = timm.create_model(network.name, num_classes=100).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 32, 32, device="meta"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    macs = counter.get_total_flops() // 2
    taps: Any = model.feature_info
    stages = ", ".join(f"`{tap['module']}`" for tap in taps[1:])
    counts = f"{parameters:,} | {macs / 1e6:.1f} M"
    return f"| `{network.name}` | {network.title} | `{network.published}` | {counts} | {stages} |"


def main() -> None:
    text = INTRODUCTION + "".join(f"{row(network)}\n" for network in LITERATURE.values()) + TEXT
    if "--check" in sys.argv:
        remedy = "docs/LITERATURE.md is out of date: run scripts/literature_docs.py"
        sys.exit(0 if TARGET.read_text() == text else remedy)
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
