"""Two networks of one's own: what a study names as a factory is a function that returns a torch.nn.Module."""

import torch.nn.functional as F
from torch import Tensor, nn


class Small(nn.Module):
    """Two convolutions and two linear layers; it returns a dictionary, as many codebases do."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.fc1 = nn.Linear(2 * width * 4, 64)
        self.fc2 = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits, and the features before them, of images (B, 1, 8, 8)."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        features = F.relu(self.fc1(x.flatten(1)))
        return {"features": features, "logits": self.fc2(features)}


def small(num_classes: int, width: int = 8) -> Small:
    return Small(width, num_classes)


def perceptron(num_classes: int) -> nn.Sequential:
    """Layers are vectors here, and maps of one place."""
    first, second = (nn.Linear(64, 48), nn.ReLU()), (nn.Linear(48, 24), nn.ReLU())
    return nn.Sequential(nn.Flatten(), *first, *second, nn.Linear(24, num_classes))
