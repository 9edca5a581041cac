"""``kdpipe.study_of``: what people give by mistake is told in one sentence, in their own words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import kdpipe
from kdpipe.errors import DataError, StudyError

IMAGES = np.random.default_rng(0).integers(0, 256, (80, 12, 12, 1), dtype=np.uint8)
LABELS = np.arange(80) % 2


class Small(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
        )


def refused(tmp_path, error, images=IMAGES, labels=LABELS, **networks: object) -> str:
    roles = {"teacher": Small(), "plain": Small(), "distilled": Small()} | networks
    with pytest.raises(error) as said:
        kdpipe.study_of(
            roles, (images, labels), artifacts=tmp_path / "a", cache=tmp_path / "c", projectors=["pca"], progress=False
        )
    return str(said.value)


def test_a_state_dict_is_no_network(tmp_path):
    assert "a state dict is no network" in refused(tmp_path, StudyError, teacher=Small().state_dict())


def test_a_live_module_that_holds_nan_is_called_by_its_class(tmp_path):
    broken = Small()
    with torch.no_grad():
        broken[-1].weight[0, 0] = float("nan")
    said = refused(tmp_path, StudyError, distilled=broken)
    assert "networks.2.factory: Small holds NaN or infinity in 5.weight" in said


def test_too_few_images_are_counted_in_the_users_numbers(tmp_path):
    said = refused(tmp_path, DataError, images=IMAGES[:12], labels=LABELS[:12])
    assert said == "7 test images are too few to look at, of 12; give more."
