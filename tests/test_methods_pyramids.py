"""The hierarchical context loss by hand and by another route, its fusions and its warm-up."""

from __future__ import annotations

import pytest
import torch
from draws import normal
from pairs import PAIRS, setting, terms

from kdpipe.methods.pyramids import reviewkd_loss


@pytest.mark.parametrize(
    ("side", "total"), [(2, 1 + 1 / 2), (4, 1 + 1 / 2 + 1 / 4), (8, 1 + 1 / 2 + 1 / 4 + 1 / 8), (16, 1.875)]
)
def test_the_pyramid_by_hand(side, total):
    """A shift of 1 is there at all sizes, mean 1; a chequered pattern of ±1 at the full size alone."""
    even = torch.ones(1, 3, side, side)
    signs = torch.tensor([1.0, -1.0]).repeat(side // 2)
    chequered = (signs[:, None] * signs).expand(1, 3, side, side)
    assert reviewkd_loss([even], [0 * even]).item() == pytest.approx(1.0)
    assert reviewkd_loss([chequered], [0 * even]).item() == pytest.approx(1 / total)
    assert reviewkd_loss([even, chequered], [even, even * 0]).item() == pytest.approx(1 / total)


def test_the_pyramid_by_means_of_blocks():
    student, teacher = normal(2, 3, 8, 8), normal(2, 3, 8, 8, seed=1)
    difference = student - teacher
    known = difference.square().mean()
    for level, weight in ((4, 0.5), (2, 0.25), (1, 0.125)):
        blocks = difference.reshape(2, 3, level, 8 // level, level, 8 // level).mean((3, 5))
        known = known + weight * blocks.square().mean()
    assert reviewkd_loss([student], [teacher]).item() == pytest.approx(known.item() / 1.875, rel=1e-12)


def test_the_review_warms_up_over_a_share_of_the_training():
    def at(progress, **parameters):
        made = setting("reviewkd", "cnn", "wide-cnn", **parameters)
        return terms(made, progress=progress)["reviewkd"].item()

    assert at(0.0) == 0.0
    assert at(10 / 240) == pytest.approx(at(0.5) / 2, rel=1e-6)
    assert at(20 / 240) == at(0.9) == at(0.0, warmup=0.0)


@pytest.mark.parametrize("names", [names for names in PAIRS if names[0] != "mobile"])
def test_the_review_gives_maps_like_the_teachers_and_passes_deep_layers_on(names):
    made = setting("reviewkd", *names)
    student = [torch.randn(2, *t.shape, requires_grad=True) for t in made.pair.student.taps]
    teacher = [torch.randn(2, *t.shape) for t in made.pair.teacher.taps]
    reviewed, paired = made.extras(student, teacher)
    assert [own for own, _ in made.extras.indices] == list(range(len(student)))[::-1]  # the deepest first
    assert [m.shape[1] for m in reviewed] == [m.shape[1] for m in paired]
    assert all(m.shape[2] <= o.shape[2] for m, o in zip(reviewed, paired, strict=True))
    assert [fusion.attend is None for fusion in made.extras.fusions] == [True] + [False] * (len(student) - 1)
    reviewed[-1].square().sum().backward()  # the shallowest
    assert all(m.grad.abs().sum() > 0 for m in student)
    again = setting("reviewkd", *names)
    again.extras([m.detach() for m in student], teacher)[0][0].sum().backward()
    assert again.extras.fusions[1].enter[0].weight.grad is None  # the deepest depends on itself alone
