"""Train the networks of networks.toml as one would anywhere: ``python examples/networks/train.py``.

kdpipe has no part in this. Its weights are plain safetensors of ``module.state_dict()``.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from my_models import perceptron, small
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

CLASSES, STEPS, TEMPERATURE = 10, 400, 4.0


def logits(network: nn.Module, images: Tensor) -> Tensor:
    answer = network((images - 0.5) / 0.3)
    return answer["logits"] if isinstance(answer, dict) else answer


def train(network: nn.Module, images: Tensor, labels: Tensor, teacher: nn.Module | None = None) -> nn.Module:
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(STEPS):
        batch = torch.randint(0, len(images), (64,))
        own = logits(network, images[batch])
        loss = F.cross_entropy(own, labels[batch])
        if teacher is not None:
            with torch.no_grad():
                theirs = logits(teacher, images[batch])
            soft = (own / TEMPERATURE).log_softmax(1), (theirs / TEMPERATURE).softmax(1)
            loss = loss + TEMPERATURE**2 * F.kl_div(*soft, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def main() -> None:
    torch.manual_seed(0)
    pixels, classes = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    labels = torch.tensor(classes)
    teacher = train(small(CLASSES, width=16), images, labels)
    networks = {
        "teacher": teacher,
        "plain": train(perceptron(CLASSES), images, labels),
        "distilled": train(perceptron(CLASSES), images, labels, teacher),
    }
    folder = Path("own")
    folder.mkdir(exist_ok=True)
    for name, network in networks.items():
        save_file(network.state_dict(), folder / f"{name}.safetensors")
        print(f"{folder / name}.safetensors")


if __name__ == "__main__":
    main()
