"""Losses on relations between images and between channels: values by hand, limits, invariances."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from draws import normal
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from kdpipe.methods.numerics import unit
from kdpipe.methods.relations import cc_loss, off_diagonal, pkt_loss, rkd_loss, sp_loss
from kdpipe.methods.selectivity import nst_loss

VECTORS = {"rkd": rkd_loss, "sp": sp_loss, "cc": cc_loss, "pkt": pkt_loss}


def rotation(size: int, seed: int = 9) -> torch.Tensor:
    return torch.linalg.qr(normal(size, size, seed=seed))[0]


def both(loss):
    """A loss on vectors, and nst's on one pair of maps, in one form."""
    return (lambda one, two: nst_loss([one], [two])) if loss is nst_loss else loss


def sides(loss, dtype=torch.float64):
    shape = (5, 3, 2, 2) if loss is nst_loss else (5, 4)
    return normal(*shape, seed=1).to(dtype), normal(*shape, seed=2).to(dtype)


ALL = [*VECTORS.values(), nst_loss]
each = pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.__name__)


# ------------------------------------------------------------------------------------ all together


@each
def test_the_gradient_agrees_with_finite_differences(loss):
    student, teacher = sides(loss)
    assert torch.autograd.gradcheck(lambda x: both(loss)(x, teacher), (student.requires_grad_(),))


@each
@given(seed=st.integers(0, 10_000))
def test_the_loss_is_positive_and_zero_at_the_teacher(loss, seed):
    shape = (4, 3, 2, 3) if loss is nst_loss else (4, 3)
    student, teacher = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    assert both(loss)(student, teacher) > 0
    teacher.requires_grad_()
    none = both(loss)(teacher, teacher.detach())
    none.backward()
    assert none.abs() < 1e-14 and teacher.grad.abs().max() < 1e-12  # a minimum, not just a root


@each
@pytest.mark.parametrize("kind", ["large", "equal rows", "all equal", "zero rows", "all zero", "opposite"])
def test_value_and_gradient_are_finite_and_small_in_the_corners(loss, kind):
    student, teacher = sides(loss, torch.float32)
    usual = torch.autograd.functional.jacobian(lambda x: both(loss)(x, teacher), student).abs().max()
    if kind == "large":
        student, teacher = 100 * student.sign(), -100 * teacher.sign()
    elif kind == "equal rows":
        student[1] = student[0]
    elif kind == "all equal":
        student[:] = student[0].clone()
    elif kind == "zero rows":
        student[0], teacher[1] = 0, 0
    elif kind == "all zero":
        student[:] = 0
    else:
        student[1] = -student[0]
    student.requires_grad_()
    value = both(loss)(student, teacher)
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()
    assert student.grad.abs().max() < 20 * usual  # an epsilon in a denominator makes it 1e6 and more


@each
def test_autocast_and_half_precision_do_not_reach_the_loss(loss):
    student, teacher = sides(loss, torch.float32)
    outside = both(loss)(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        inside = both(loss)(student, teacher)
        halved = both(loss)(student.bfloat16(), teacher.bfloat16())
    assert torch.equal(inside, outside)
    assert inside.dtype == halved.dtype == torch.float32
    assert both(loss)(*sides(loss)).dtype == torch.float64


@each
def test_inputs_stay_as_they_are_and_the_teacher_needs_no_gradient(loss):
    student, teacher = sides(loss)
    kept = student.clone(), teacher.clone()
    both(loss)(student.requires_grad_(), teacher).backward()
    assert torch.equal(student.detach(), kept[0]) and torch.equal(teacher, kept[1])


# (turned, scaled, each image scaled, shifted): what may happen to one side without a change of the loss.
@pytest.mark.parametrize(
    ("loss", "blind"),
    [(rkd_loss, (1, 1, 0, 1)), (sp_loss, (1, 1, 0, 0)), (cc_loss, (1, 1, 1, 0)), (pkt_loss, (1, 1, 1, 0))],
    ids=lambda part: getattr(part, "__name__", ""),
)
@pytest.mark.parametrize("side", [0, 1])
def test_what_the_loss_is_blind_to_and_what_not(loss, blind, side):
    student, teacher = normal(6, 4, seed=1), normal(6, 4, seed=2)
    value = loss(student, teacher).item()
    changes = (
        lambda x: x @ rotation(4),
        lambda x: 3.7 * x,
        lambda x: x * torch.linspace(0.5, 3, 6, dtype=x.dtype)[:, None],
        lambda x: x + 2.0,
    )
    for change, same in zip(changes, blind, strict=True):
        inputs = [student, teacher]
        inputs[side] = change(inputs[side])
        assert (loss(*inputs).item() == pytest.approx(value, rel=1e-9)) == bool(same)
    stretched = [student, teacher]
    stretched[side] = stretched[side] * torch.tensor([1.0, 1.0, 1.0, 5.0], dtype=torch.float64)
    assert loss(*stretched).item() != pytest.approx(value, rel=1e-3)
    order = [3, 0, 5, 1, 2, 4]
    assert loss(student[order], teacher[order]).item() == pytest.approx(value, rel=1e-9)
    assert loss(student[order], teacher).item() != pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("loss", VECTORS.values(), ids=list(VECTORS))
def test_student_and_teacher_may_have_different_widths(loss):
    student = normal(6, 4)
    wider = F.pad(student, (0, 3)) @ rotation(7)
    assert loss(student, wider).abs() < 1e-14


@pytest.mark.parametrize("loss", VECTORS.values(), ids=list(VECTORS))
@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_too_small_for_relations_costs_nothing_it_cannot_know(loss, count):
    student = normal(count, 3, seed=1).requires_grad_()
    value = loss(student, normal(count, 3, seed=2))
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


@each
def test_no_value_is_asked_for_on_the_way(loss):
    """Tensors without values pass, so a GPU is never waited for."""
    with FakeTensorMode():
        student, teacher = torch.randn(5, 4, 2, 2, requires_grad=True), torch.randn(5, 4, 2, 2)
        if loss is not nst_loss:
            student, teacher = student.flatten(1), teacher.flatten(1)
        both(loss)(student, teacher).backward()


def test_unit_vectors_keep_zero_and_its_gradient_small():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    made = unit(rows)
    made.sum().backward()
    assert made.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]
    assert rows.grad.abs().max() <= 1.0


def test_off_diagonal_keeps_the_order_of_a_row():
    assert off_diagonal(torch.arange(9).view(3, 3)).tolist() == [[1, 2], [3, 5], [6, 7]]
    assert off_diagonal(torch.ones(1, 1)).shape == (1, 0)


# --------------------------------------------------------------------------------------------- rkd


def test_rkd_distances_by_hand():
    """On a line: 0 1 3 has distances 1 3 2 over their mean 2; 0 1 2 has 1 2 1 over 4/3; all angles agree.

    The differences are -1/4, 0, 1/4, so that the Huber losses are 1/32, 0, 1/32 and their mean is 1/48.
    """
    student, teacher = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    assert rkd_loss(student, teacher).item() == pytest.approx(25 / 48, rel=1e-6)
    assert rkd_loss(student, teacher, distance_weight=1.0).item() == pytest.approx(1 / 48, rel=1e-6)


def test_rkd_angles_by_hand():
    """A right isosceles triangle has cosines 0, √½, √½; an equilateral one ½ thrice; each counts twice."""
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
    known = (0.5 * 0.5**2 + 2 * 0.5 * (math.sqrt(0.5) - 0.5) ** 2) / 3
    assert rkd_loss(student, teacher, distance_weight=0.0).item() == pytest.approx(50 * known, rel=1e-5)


def test_rkd_agrees_with_loops_over_tuples_of_different_images():
    student, teacher = normal(6, 3, seed=1), normal(6, 4, seed=2)
    student[0] *= 40  # far out: the linear part of the Huber loss
    huber = lambda d: d * d / 2 if abs(d) <= 1 else abs(d) - 0.5  # noqa: E731
    twos, threes = (list(itertools.permutations(range(6), n)) for n in (2, 3))

    def relations(x):
        distance = {(i, j): (x[i] - x[j]).norm().item() for i, j in twos}
        mean = sum(distance.values()) / len(twos)
        angle = {}
        for i, j, k in threes:
            one, two = x[i] - x[j], x[k] - x[j]
            angle[i, j, k] = (one @ two / one.norm() / two.norm()).item()
        return [d / mean for d in distance.values()], list(angle.values())

    (d_s, a_s), (d_t, a_t) = relations(student), relations(teacher)
    assert max(abs(s - t) for s, t in zip(d_s, d_t, strict=True)) > 1
    distance = sum(huber(s - t) for s, t in zip(d_s, d_t, strict=True)) / len(twos)
    angle = sum(huber(s - t) for s, t in zip(a_s, a_t, strict=True)) / len(threes)
    assert rkd_loss(student, teacher).item() == pytest.approx(25 * distance + 50 * angle, rel=1e-10)


def test_rkd_of_coinciding_images_has_no_angle_there():
    """0 0 1 on a line against 0 1 2, whose cosines are 1, -1, 1: the student's are none, none and 1.

    The Huber losses are ½, ½, 0, with the mean 1/3; a direction's angle with itself is no relation and costs nothing.
    """
    student, teacher = torch.tensor([[0.0], [0.0], [1.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    assert rkd_loss(student, teacher, distance_weight=0.0).item() == pytest.approx(50 / 3, rel=1e-6)


def test_rkds_gradient_at_coinciding_images_is_of_the_usual_size():
    student, teacher = normal(8, 4, seed=1).float(), normal(8, 4, seed=2).float()
    sizes = []
    for gap in (None, 1e-7, 0.0):
        moved = student.clone()
        if gap is not None:
            moved[1] = moved[0] + gap  # what rounding leaves of two equal rows, or nothing
        rkd_loss(moved.requires_grad_(), teacher).backward()
        sizes.append(moved.grad.norm().item())
    assert sizes[1] < 3 * sizes[0] and sizes[2] < 3 * sizes[0]


# ---------------------------------------------------------------------------------------------- sp


def test_sp_by_hand_has_rows_of_euclidean_length_one():
    """Q = (1 0; 1 1) has the Gram matrix (1 1; 1 2), whose rows are divided by √2 and √5, not by their sums 2 and 3.

    The identity has (1 0; 0 1). The squares sum to (√½-1)² + ½ + 1/5 + (2/√5-1)², over B² = 4.
    """
    student, teacher = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.eye(2)
    known = ((math.sqrt(0.5) - 1) ** 2 + 0.5 + 0.2 + (2 / math.sqrt(5) - 1) ** 2) / 4
    assert sp_loss(student, teacher).item() == pytest.approx(known, rel=1e-6)
    trap = ((0.5 - 1) ** 2 + 0.5**2 + (1 / 3) ** 2 + (2 / 3 - 1) ** 2) / 4  # rows that sum to 1
    assert sp_loss(student, teacher).item() != pytest.approx(trap, rel=0.05)


def test_sp_takes_maps_of_any_shape_and_flattens_them():
    maps = normal(4, 3, 2, 5)
    assert sp_loss(maps, maps.flatten(1)).item() == 0.0
    assert sp_loss(maps, normal(4, 7, 1, 1)).item() > 0.0


# ---------------------------------------------------------------------------------------------- cc


def test_cc_by_hand():
    """At right angles the kernel is exp(-2γ); in one direction exp(-2γ)(1 + 2γ + 2γ²). Two of four entries differ."""
    student, teacher = torch.eye(2), torch.tensor([[1.0, 0.0], [5.0, 0.0]])
    gamma = 0.4
    known = (math.exp(-2 * gamma) * (2 * gamma + 2 * gamma**2)) ** 2 * 2 / 4
    assert cc_loss(student, teacher).item() == pytest.approx(known, rel=1e-6)


def test_ccs_series_tends_to_the_gaussian():
    student, teacher = normal(5, 3, seed=1), normal(5, 4, seed=2)
    gauss = [torch.exp(-0.4 * torch.cdist(x, x) ** 2) for x in (unit(student), unit(teacher))]
    known = F.mse_loss(*gauss).item()
    assert cc_loss(student, teacher, order=10).item() == pytest.approx(known, rel=1e-6)
    assert cc_loss(student, teacher, order=2).item() == pytest.approx(known, rel=0.2)
    assert cc_loss(student, teacher, order=1).item() != pytest.approx(known, rel=1e-3)


def test_cc_is_not_the_product_of_neighbours_in_the_batch():
    """That form depends on the order of the batch, and on one image's error alone where the other's is zero."""
    student = normal(4, 3, seed=1)
    teacher = student.clone()
    teacher[2] += 1.0
    assert ((student - teacher).abs()[:-1] * (student - teacher).abs()[1:]).sum() == 0
    assert cc_loss(student, teacher) > 0


# --------------------------------------------------------------------------------------------- pkt


def test_pkt_by_hand():
    """Unit vectors at 0, 90 and 180 degrees against three at 120 degrees from each other.

    The teacher's kernel (cos + 1) / 2 is 1/4 everywhere, so each conditional is (1/2, 1/2). The student's kernels are
    ½ and 0 at the ends, which the floor makes (1, 2e-7), and (½, ½) in the middle. KL at an end is
    ½ ln ½ + ½ ln(½ / 2e-7) and there are two ends; the mean is over 6 pairs.
    """
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    angles = torch.arange(3) * 2 * math.pi / 3
    teacher = torch.stack([angles.cos(), angles.sin()], 1)
    known = 2 * (0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 2e-7)) / 6
    assert pkt_loss(student, teacher).item() == pytest.approx(known, rel=1e-4)


def test_pkt_agrees_with_loops_and_leaves_out_the_image_itself():
    student, teacher = normal(5, 3, seed=1), normal(5, 4, seed=2)

    def conditional(x, i, j):
        near = [(F.cosine_similarity(x[k], x[j], dim=0).item() + 1) / 2 for k in range(5)]
        return near[i] / sum(near[k] for k in range(5) if k != j)

    total = 0.0
    for i, j in itertools.permutations(range(5), 2):
        q, p = conditional(teacher, i, j), conditional(student, i, j)
        total += q * math.log(q / p)
    assert pkt_loss(student, teacher).item() == pytest.approx(total / 20, rel=1e-10)
    assert pkt_loss(student, teacher).item() != pytest.approx(pkt_loss(teacher, student).item(), rel=1e-2)


def test_pkts_weight_is_for_a_mean_over_pairs():
    """A batch of copies of a batch has the same conditionals but for their number: the mean falls with the batch."""
    student, teacher = normal(16, 3, seed=1), normal(16, 3, seed=2)
    small, large = pkt_loss(student, teacher), pkt_loss(student.repeat(4, 1), teacher.repeat(4, 1))
    assert large.item() == pytest.approx(small.item() / 4, rel=0.15)


# --------------------------------------------------------------------------------------------- nst


def test_nst_by_hand():
    """One channel (1 0 0 0) against one (3 4 0 0) / 5: 1 + 1 - 2 (3/5)² = 1.28; against its double, nothing."""
    student = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)
    teacher = torch.tensor([3.0, 4.0, 0.0, 0.0]).view(1, 1, 2, 2)
    assert nst_loss([student], [teacher]).item() == pytest.approx(1.28, rel=1e-6)
    assert nst_loss([student, student], [teacher, 2 * student]).item() == pytest.approx(1.28, rel=1e-6)


@pytest.mark.parametrize(("own", "other", "side"), [(3, 5, 2), (3, 5, 4), (40, 7, 2), (7, 40, 3)])
def test_nst_agrees_with_the_distance_of_mean_second_moments(own, other, side):
    """(xᵀy)² is the product of the matrices xxᵀ and yyᵀ, so the discrepancy is the distance of their means."""
    student, teacher = normal(3, own, side, side, seed=1), normal(3, other, side, side, seed=2)
    moments = []
    for part in (student, teacher):
        channels = F.normalize(part.flatten(2), dim=2)
        moments.append(torch.einsum("bcp,bcq->bpq", channels, channels) / channels.shape[1])
    known = (moments[0] - moments[1]).square().sum((1, 2)).mean()
    assert nst_loss([student], [teacher]).item() == pytest.approx(known.item(), rel=1e-10)


def test_nst_is_blind_to_the_order_and_size_of_channels_but_not_to_places():
    student, teacher = normal(2, 6, 3, 3, seed=1), normal(2, 6, 3, 3, seed=2)
    value = nst_loss([student], [teacher]).item()
    assert nst_loss([student[:, [3, 1, 5, 0, 2, 4]]], [teacher]).item() == pytest.approx(value, rel=1e-10)
    sizes = torch.tensor([1.0, 2, -3, 4, 5, 6], dtype=torch.float64)[:, None, None]
    assert nst_loss([student * sizes], [teacher]).item() == pytest.approx(value, rel=1e-10)
    doubled = torch.cat([student, student], 1)
    assert nst_loss([doubled], [teacher]).item() == pytest.approx(value, rel=1e-10)
    assert nst_loss([teacher[:, [3, 1, 5, 0, 2, 4]]], [teacher]).abs() < 1e-14
    assert nst_loss([teacher.flip(3)], [teacher]).item() > 0.01


def test_nst_brings_maps_to_the_smaller_size_whichever_it_is():
    small, large = normal(2, 3, 2, 2), normal(2, 4, 4, 4)
    shrunk = F.avg_pool2d(large, 2)
    assert nst_loss([small], [large]).item() == pytest.approx(nst_loss([small], [shrunk]).item(), rel=1e-10)
    assert nst_loss([large], [small]).item() == pytest.approx(nst_loss([shrunk], [small]).item(), rel=1e-10)
    assert nst_loss([normal(2, 3, 2, 8)], [normal(2, 3, 8, 2)]).isfinite()


def test_nst_wants_as_many_maps_of_the_one_as_of_the_other():
    maps = normal(2, 3, 2, 2)
    with pytest.raises(ValueError, match="argument"):
        nst_loss([maps, maps], [maps])
