"""Activation boundaries and the overhaul of feature distillation against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from draws import normal
from pairs import SHAPE, network, setting, terms
from scipy.stats import norm

from kdpipe.methods import METHODS, ab_loss, ofd_loss
from kdpipe.methods.overhaul import NegativeMeans


def column(*values: float) -> torch.Tensor:
    """A map of one image and one position, a channel for each value."""
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


# ---------------------------------------------------------------------------------------------- ab


def test_boundaries_by_hand():
    """Active: (1 - 0.5)² = 0.25. Inactive: (1 + 0.5)² = 2.25. Far enough on the right side: nothing."""
    student, teacher = column(0.5, 0.5, 3.0, -1.0), column(2.0, -3.0, 0.1, -0.1)
    assert ab_loss([student], [teacher]).item() == pytest.approx(2.5)
    assert ab_loss([student], [teacher], margin=2.0).item() == pytest.approx(1.5**2 + 2.5**2 + 0.0 + 1.0)
    # The last layer counts whole, the one before it half, the first a quarter.
    assert ab_loss([student] * 3, [teacher] * 3).item() == pytest.approx(2.5 * 1.75)


def test_boundaries_are_where_the_teacher_is_active_and_not_how_much():
    student, teacher = normal(3, 4, 2, 2), normal(3, 4, 2, 2, seed=1)
    value = ab_loss([student], [teacher]).item()
    assert ab_loss([student], [100 * teacher]).item() == value
    assert ab_loss([student], [teacher.relu()]).item() == value  # a ReLU keeps the boundary
    assert ab_loss([student], [torch.zeros_like(teacher)]).item() == ab_loss([student], [-teacher.abs()]).item()
    pushed = torch.where(teacher > 0, 1.0, -1.0).double().requires_grad_()
    loss = ab_loss([pushed], [teacher])
    loss.backward()
    assert loss.item() == 0.0 and pushed.grad.abs().max() == 0.0


def test_boundaries_are_summed_over_a_map_and_not_averaged():
    """The weight of 0.003 belongs to the sum."""
    student, teacher = normal(2, 3, 2, 2), normal(2, 3, 2, 2, seed=1)
    tiled = [part.repeat(1, 1, 2, 2) for part in (student, teacher)]
    assert ab_loss([tiled[0]], [tiled[1]]).item() == pytest.approx(4 * ab_loss([student], [teacher]).item())


def test_boundaries_come_first_and_kd_after():
    made = setting("ab", "cnn", "wide-cnn")
    first, after = terms(made, progress=0.0), terms(made, progress=0.5)
    assert first["ab"] > 0 and first["ce"] == first["kd"] == 0 and after["ab"] == 0
    kd = terms(setting("kd", "cnn", "wide-cnn"), progress=0.5)
    assert {name: after[name].item() for name in kd} == {name: term.item() for name, term in kd.items()}
    labels_alone = terms(setting("ab", "cnn", "wide-cnn", ce_weight=1.0, kd_weight=0.0), progress=0.5)
    assert labels_alone["kd"] == 0 and labels_alone["ce"].item() == pytest.approx(10 * kd["ce"].item())
    defaults = METHODS["ab"].resolved({})
    assert (defaults.margin, defaults.ab_weight, defaults.initialisation) == (1.0, 0.003, 30 / 270)


def test_boundaries_are_taken_before_the_activation_of_both_networks():
    """A map after its ReLU has no value below zero, on either side."""
    made = setting("ab", "cnn", "wide-cnn")
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for one in (made.student, made.teacher):
        one.keep_preactivations(SHAPE)
        outputs = one(images)
        assert all((part >= 0).all() for part in outputs.maps)
        assert all((part < 0).any() for part in outputs.preactivations)


# --------------------------------------------------------------------------------------------- ofd


def test_the_overhaul_by_hand():
    """Targets 2, -0.5, -1, -1 with a margin of -1: 1² + 0.5² + 0 (both inactive) + 1.5²."""
    student, teacher = column(1.0, 0.0, -2.0, 0.5), column(2.0, -0.5, -3.0, -3.0)
    margins = torch.full((4,), -1.0, dtype=torch.float64)
    assert ofd_loss([student], [teacher], [margins]).item() == pytest.approx(1 + 0.25 + 2.25)
    assert ofd_loss([student] * 3, [teacher] * 3, [margins] * 3).item() == pytest.approx(3.5 * 1.75)
    # Without a margin, the teacher's silence is met by any silence.
    nothing = ofd_loss([student], [teacher], [0 * margins]).item()
    assert nothing == pytest.approx(1 + 0 + 0 + 0.25)


def test_the_overhaul_is_published_in_three_cases():
    """As the three products of indicators in which the distance is often written."""
    student, teacher, margin = normal(4, 5, 3, 3), normal(4, 5, 3, 3, seed=1), -normal(5, seed=2).abs()
    m = margin.view(1, -1, 1, 1)
    known = (
        (student - m).square() * ((student > m) & (teacher <= m))
        + (student - teacher).square() * ((student > teacher) & (teacher > m) & (teacher <= 0))
        + (student - teacher).square() * (teacher > 0)
    )
    assert ofd_loss([student], [teacher], [margin]).item() == pytest.approx(known.mean(0).sum().item(), rel=1e-12)


def test_a_silent_student_is_left_alone_where_the_teacher_is_silent():
    student = torch.full((1, 2, 2, 2), -5.0, dtype=torch.float64, requires_grad=True)
    teacher = torch.full_like(student, -0.1).detach()
    teacher[:, 1] = 1.0
    ofd_loss([student], [teacher], [torch.zeros(2, dtype=torch.float64)]).backward()
    assert (student.grad[:, 0] == 0).all() and (student.grad[:, 1] < 0).all()


def test_margins_are_the_means_of_negative_values_over_all_batches():
    batches = [normal(count, 3, 2, 2, seed=count, dtype=torch.float32) for count in (2, 5, 3)]
    for batch in batches:
        batch[:, 2] = batch[:, 2].abs()  # never negative
    margins = NegativeMeans(3)
    for batch in batches:
        found = margins(batch)
    values = torch.cat(batches).transpose(0, 1).flatten(1)
    known = [row[row < 0].mean().item() if (row < 0).any() else 0.0 for row in values]
    assert found.tolist() == pytest.approx(known, rel=1e-5) and known[2] == 0.0
    assert margins.eval()(batches[0]).tolist() == found.tolist()
    assert {"mean", "count"} == set(margins.state_dict())  # a resumed training goes on from them


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.7, 0.5), (-1.0, 2.0)])
def test_margins_of_a_batch_norms_output_are_what_published_code_computes_from_it(mean, deviation):
    """mean - deviation · φ(r) / Φ(-r), r = mean / deviation, for normal values: here the quantiles of them."""
    quantiles = torch.tensor(norm.ppf((torch.arange(20_000).numpy() + 0.5) / 20_000))
    measured = NegativeMeans(1)((mean + deviation * quantiles).view(1, 1, 100, 200)).item()
    ratio = mean / deviation
    assert measured == pytest.approx(mean - deviation * norm.pdf(ratio) / norm.cdf(-ratio), rel=1e-3)


def test_margins_are_those_of_the_sum_with_the_shortcut():
    """The formula from the batch norm alone, at its initial weight of 0 and bias of 0, has no margin at all."""
    made = setting("ofd", "cnn", "wide-cnn")
    teacher = network("wide-cnn", 2).eval()
    teacher.keep_preactivations(SHAPE)
    for block in ("layer1.0", "layer2.0", "layer3.0", "layer4.0"):
        assert (teacher.model.get_submodule(block).bn2.weight == 0).all()
    terms(made)
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))[:8]
    with torch.no_grad():
        seen = teacher(images).preactivations
    for margins, part in zip(made.extras.margins, seen, strict=True):
        known = [channel[channel < 0].mean() if (channel < 0).any() else 0.0 for channel in part.transpose(0, 1)]
        torch.testing.assert_close(margins.mean, torch.tensor(known), rtol=1e-4, atol=1e-6)
    assert made.extras.margins[1].mean.min() < -0.01


def test_connectors_compare_maps_at_the_smaller_size():
    made = setting("ofd", "cnn", "vit")
    for one in (made.student, made.teacher):
        one.keep_preactivations(SHAPE)
    student, teacher = (one(torch.rand(2, *SHAPE)).preactivations for one in (made.student, made.teacher))
    for one, other, (own, theirs) in zip(
        *made.extras.connectors(student, teacher), made.extras.connectors.indices, strict=True
    ):
        (_, *own_size), (channels, *their_size) = (
            made.pair.student.taps[own].shape,
            made.pair.teacher.taps[theirs].shape,
        )
        smaller = [min(sides) for sides in zip(own_size, their_size, strict=True)]
        assert one.shape == other.shape == (2, channels, *smaller)
        assert torch.equal(other, F.adaptive_avg_pool2d(teacher[theirs], other.shape[2:]))
