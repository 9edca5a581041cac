"""What enters the activation that ends a layer: found in any network, kept as it was, with its gradient."""

from __future__ import annotations

import pytest
import torch
from pairs import SHAPE, network
from torch import nn

from kdpipe.models.preactivations import Preactivations, ending_activations

IMAGES = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["cnn", "mobile", "vit"])
def test_a_map_is_the_activation_of_its_preactivation_or_itself(kind):
    made = network(kind).eval()
    made.keep_preactivations(SHAPE)
    outputs = made(IMAGES)
    names = made.preactivations.activations
    assert [name is not None for name in names] == {"cnn": [True] * 4, "mobile": [False] * 3 + [True]}.get(
        kind, [False] * 3
    )
    for name, before, after in zip(names, outputs.preactivations, outputs.maps, strict=True):
        if name is None:
            assert torch.equal(before, after)
        else:
            assert torch.equal(made.model.get_submodule(name)(before.clone()), after) and (before < 0).any()


def test_the_last_block_ends_a_stage_though_at_first_it_repeats_the_one_before():
    """At its initial weights a residual block passes on what it gets, so that two activations give the same map."""
    made = network("deep-cnn")
    made.keep_preactivations(SHAPE)
    assert made.preactivations.activations == tuple(f"layer{stage}.1.act2" for stage in (1, 2, 3, 4))


def test_keeping_them_changes_nothing_else_and_leaves_nothing_behind():
    plain, keeping = network("cnn"), network("cnn")
    keeping.keep_preactivations(SHAPE)
    keeping.keep_preactivations(SHAPE)  # once is enough
    assert keeping.training == plain.training
    one, other = plain(IMAGES), keeping(IMAGES)
    assert torch.equal(one.logits, other.logits) and all(map(torch.equal, one.maps, other.maps))
    assert one.preactivations == [] and len(other.preactivations) == 4
    both = other.joined(keeping(IMAGES))
    assert [len(part) for part in both.preactivations] == [6] * 4
    assert all(torch.equal(part, plain.state_dict()[name]) for name, part in keeping.state_dict().items())


def test_an_activation_in_place_does_not_reach_them_and_their_gradient_reaches_the_weights():
    made = network("cnn")
    assert made.model.layer1[0].act2.inplace
    made.keep_preactivations(SHAPE)
    outputs = made(IMAGES)
    (-outputs.preactivations[0].clamp(max=0)).sum().backward()  # of negative values alone
    assert made.model.layer1[0].bn2.weight.grad.abs().sum() > 0


class Shared(nn.Module):
    """One activation for two layers, and a third layer that ends in none."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.act = nn.ReLU(inplace=True)

    def forward_intermediates(self, images, indices):
        inner = self.two(self.act(self.one(images)))
        first = self.act(inner)
        second = self.three(first)
        return second, [(first, second)[i] for i in indices]


def test_of_an_activation_in_several_places_the_last_call_counts():
    torch.manual_seed(0)
    model = Shared().train()
    assert ending_activations(model, [0, 1], IMAGES) == ["act", None] and model.training
    kept = Preactivations(model, ["act", None])
    _, maps = model.forward_intermediates(IMAGES, [0, 1])
    first, second = kept.take(maps)
    torch.testing.assert_close(first, model.two(model.one(IMAGES).relu()))
    assert torch.equal(second, maps[1])
