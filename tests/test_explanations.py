"""Heat-maps of answers: how alike two are, how they are stored, and that any network of a study has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdpipe.models.build import build
from kdpipe.models.network import ReusedHead
from kdpipe.models.saved import SavedArchitecture
from kdpipe.models.weights import give_head
from kdpipe.pipeline.stages.explanations import explain, map_cosine, small_maps

SPEC = SavedArchitecture("resnet18", {"channels": [8, 8, 8, 16], "layers": [1, 1, 1, 1]}, "small", 1, "stages")
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)


def network():
    return build(SPEC, image_shape=(3, 16, 16), classes=4, mean=[0.5] * 3, std=[0.5] * 3, seed=0).eval()


def test_cosine_of_two_heat_maps_by_hand():
    one = np.array([[[1, 0], [0, 0]], [[1, 2], [3, 4]], [[0, 0], [0, 0]]], np.float32)
    other = np.array([[[1, 1], [0, 0]], [[2, 4], [6, 8]], [[1, 0], [0, 0]]], np.float32)
    found = map_cosine(one, other)
    assert found[:2] == pytest.approx([1 / np.sqrt(2), 1])
    assert np.isnan(found[2])  # a blank map points nowhere
    assert map_cosine(np.kron(one, np.ones((2, 2), np.float32)), other)[:2] == pytest.approx(found[:2])


def test_stored_heat_maps_are_at_most_eight_a_side_and_as_bright_as_can_be():
    maps = np.random.default_rng(0).random((3, 12, 9)).astype(np.float32)
    maps[2] = 0
    small = small_maps(maps)
    assert small.shape == (3, 8, 8) and small.dtype == np.uint8
    assert small.max(axis=(1, 2)).tolist() == [255, 255, 0]
    assert small_maps(maps[:, :3, :2]).shape == (3, 3, 2)  # as wide and as high as the image is
    assert small_maps(maps[:, :4, :4])[0] == pytest.approx(255 * maps[0, :4, :4] / maps[0, :4, :4].max(), abs=0.5)


@pytest.mark.parametrize("reused", [False, True])
def test_the_map_of_a_linear_head_is_its_class_activation_map(reused):
    """Grad-CAM of a linear layer on a mean is the positive part of its class-activation map, over the positions."""
    made = network()
    if reused:
        give_head(made, ReusedHead(16, (2, 2), 12, 4))
        made.eval()
    classes = np.array([0, 1, 2, 3, 0, 1])
    with torch.no_grad():
        final = made(torch.from_numpy(IMAGES).float() / 255).final
    weight = (made.head if reused else made.model).get_submodule("classifier" if reused else "fc").weight
    cam = torch.einsum("bchw,bc->bhw", final, weight[classes]).relu() / 4
    assert explain(made, IMAGES, classes) == pytest.approx(cam.detach().numpy(), rel=1e-4, abs=1e-6)


def test_another_class_has_another_map():
    made = network()
    one, other = (explain(made, IMAGES, np.full(6, label)) for label in (0, 1))
    assert (map_cosine(one, one)[map_cosine(one, one) > 0] > 0.999).all()
    assert not np.allclose(one, other)
