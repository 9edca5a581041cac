"""Projected vectors against values worked out by hand and elsewhere, what each projection may do, and its traps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from draws import lattice, normal
from pairs import PAIRS, TOKEN_PAIRS, pair, refusal, setting, terms
from torch import nn

from kdpipe.methods import METHODS, Pair, kd_loss, projected_loss, srd_loss, srrl_loss, vkd_loss
from kdpipe.methods.projections import whitened

HERE = ["projected", "vkd", "srd", "srrl"]
CLASSIFIER = lattice(3, 4, phase=2.0)


def fixed(name):
    """A loss of two (B, 4), with what else it takes held fixed."""
    return {
        "projected": projected_loss,
        "vkd": vkd_loss,
        "srd": srd_loss,
        "srrl": lambda one, other: srrl_loss(one, other, CLASSIFIER.to(one.dtype)),
    }[name]


# ------------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize(
    ("loss", "known"),
    [
        (projected_loss, 0.12275725638131775),
        (vkd_loss, 0.21428772566936968),
        (lambda s, t: vkd_loss(s, t, normalisation="whitening"), 0.06482620789519489),
        (srd_loss, 0.8289791137177442),
        (lambda s, t: srd_loss(s, t, exponent=2.0), 1.777891076456569),
        (fixed("srrl"), 0.4906909406052826),
    ],
    ids=["projected", "vkd", "vkd-whitening", "srd", "srd-2", "srrl"],
)
def test_golden_values(loss, known):
    """Of the papers' formulas in NumPy, by eigenvectors of the covariance where they whiten."""
    assert loss(lattice(6, 4), lattice(6, 4, phase=0.5)).item() == pytest.approx(known, rel=1e-9)


@pytest.mark.parametrize("name", HERE)
def test_gradients_agree_with_finite_differences_in_float64(name):
    student, teacher = normal(6, 4).requires_grad_(), normal(6, 4, seed=1)
    assert torch.autograd.gradcheck(lambda x: fixed(name)(x, teacher), (student,))


@pytest.mark.parametrize("name", HERE)
def test_autocast_does_not_reach_the_losses(name):
    student, teacher = normal(6, 4, dtype=torch.float32), normal(6, 4, seed=1, dtype=torch.float32)
    outside = fixed(name)(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        inside, halved = fixed(name)(student, teacher), fixed(name)(student.bfloat16(), teacher.bfloat16())
    assert inside.item() == outside.item() and inside.dtype == halved.dtype == torch.float32
    assert halved.item() == pytest.approx(outside.item(), rel=0.05)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("names", [*PAIRS, *TOKEN_PAIRS])
def test_a_real_step_reaches_student_and_projection_alone(name, names):
    assert refusal(name, *names) is None
    made = setting(name, *names)
    part = terms(made, labelled=5)[name]
    part.backward()
    trained = list(made.extras.parameters()) if made.extras is not None else []
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert sum(p.grad.abs().sum() for p in made.student.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in made.teacher.parameters()) and not made.teacher.training


@pytest.mark.parametrize("name", HERE)
def test_a_few_steps_lower_the_methods_own_term(name):
    made = setting(name, "cnn", "wide-cnn")
    optimizer = torch.optim.SGD([*made.student.parameters(), *made.extras.parameters()], lr=0.05)
    values = []
    for _ in range(6):
        term = terms(made)[name]
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
        values.append(term.item())
    assert values[-1] < values[0] - 0.05 * abs(values[0])


@pytest.mark.parametrize("name", HERE)
def test_weights_multiply_their_terms(name):
    once = terms(setting(name, "cnn", "vit"))
    default = getattr(METHODS[name].resolved({}), f"{name}_weight")
    twice = terms(setting(name, "cnn", "vit", ce_weight=0.0, **{f"{name}_weight": 2 * default}))
    assert twice[name].item() == pytest.approx(2 * once[name].item(), rel=1e-6) and twice["ce"].item() == 0.0


@pytest.mark.parametrize("name", ["vkd", "srd"])
def test_logits_are_distilled_beside_the_features(name):
    made = setting(name, "cnn", "wide-cnn", kd_weight=0.5, temperature=2.0)
    found = terms(made, rows=8)["kd"]
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))[:8]
    again = setting(name, "cnn", "wide-cnn")
    known = 0.5 * kd_loss(again.student.train()(images).logits, again.teacher(images).logits, 2.0)
    assert found.item() == pytest.approx(known.item(), rel=1e-5)


# -------------------------------------------------------------------------------------- projected


def test_projected_features_by_hand():
    assert projected_loss(torch.zeros(2, 3), torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])).item() == pytest.approx(
        14 / 6
    )


def test_there_is_a_projection_where_widths_differ_and_on_the_students_side_alone():
    """A trained layer on the teacher's side would make it 0, and with it the loss, whatever the student is."""
    made = setting("projected", "cnn", "wide-cnn")
    assert isinstance(made.extras, nn.Linear) and made.extras.weight.shape == (40, 24)
    assert setting("projected", "cnn", "cnn").extras is None


# -------------------------------------------------------------------------------------------- vkd


def test_vkd_by_hand():
    """Of (1, -1) the layer norm is itself; smooth L1 of 0.5 is 0.125 and of 3 is 2.5."""
    teacher = torch.tensor([[5.0, 3.0]])  # the same, shifted
    assert vkd_loss(torch.tensor([[1.5, 2.0]]), teacher).item() == pytest.approx((0.125 + 2.5) / 2, rel=1e-4)


def test_the_teacher_alone_is_normalised_and_image_by_image():
    student, teacher = normal(5, 8), normal(5, 8, seed=1)
    known = vkd_loss(student, teacher).item()
    scaled = teacher * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).double()[:, None] + 7
    assert vkd_loss(student, scaled).item() == pytest.approx(known, rel=1e-3)
    each = [vkd_loss(student[i : i + 1], teacher[i : i + 1]).item() for i in range(5)]
    assert known == pytest.approx(sum(each) / 5, rel=1e-9)
    assert vkd_loss(2 * student, teacher).item() != pytest.approx(known, rel=1e-3)


@pytest.mark.parametrize("names", [("cnn", "wide-cnn"), ("cnn", "vit")], ids=["to more dimensions", "to as many"])
def test_the_projection_keeps_all_distances_even_after_training_with_weight_decay(names):
    """A weight that is orthogonal only at first drifts away; torch's Householder map turns to 0 under weight decay."""
    made = setting("vkd", *names)
    before = made.extras.weight.detach().clone()
    optimizer = torch.optim.SGD(made.extras.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    for step in range(5):
        optimizer.zero_grad()
        (made.extras(normal(6, 24, seed=step, dtype=torch.float32)) - 1).square().sum().backward()
        optimizer.step()
    assert (made.extras.weight - before).abs().max() > 0.05
    features = normal(6, 24, dtype=torch.float32)
    torch.testing.assert_close(torch.pdist(made.extras(features)), torch.pdist(features), rtol=1e-4, atol=1e-4)


def test_a_student_wider_than_its_teacher_gets_orthonormal_rows():
    weight = setting("vkd", "mobile", "wide-cnn").extras.weight
    assert weight.shape[0] == 40 < weight.shape[1]
    torch.testing.assert_close(weight @ weight.T, torch.eye(40), rtol=1e-4, atol=1e-4)


def test_whitened_vectors_have_unit_covariance_and_their_axes_stay():
    vectors = normal(50, 4) * torch.tensor([1.0, 2.0, 5.0, 0.1]).double() + 3
    white = whitened(vectors)
    torch.testing.assert_close(white.T @ white / 50, torch.eye(4).double())
    assert white.mean(0).abs().max() < 1e-12
    assert all(torch.corrcoef(torch.stack([white[:, i], vectors[:, i]]))[0, 1] > 0.9 for i in range(4))
    torch.testing.assert_close(whitened(white), white)
    # A direction without spread stays without: no division of noise by noise.
    flat = torch.cat([vectors, vectors[:, :1] + vectors[:, 1:2]], 1)
    covariance = whitened(flat).T @ whitened(flat) / 50
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance), torch.tensor([0.0, 1, 1, 1, 1]).double())


def test_whitening_a_batch_smaller_than_the_width_tells_nothing_and_is_refused():
    distances = torch.pdist(whitened(normal(6, 8)))
    torch.testing.assert_close(distances, torch.full_like(distances, math.sqrt(2 * 6)))
    method = METHODS["vkd"]
    shapes = pair("cnn", "wide-cnn")
    white = method.resolved({"normalisation": "whitening"})
    reason = method.refuse(shapes, white)
    assert "16 images" in reason and "40 channels" in reason and "batch_size" in reason
    assert method.refuse(Pair(shapes.student, shapes.teacher, 10, batch_size=41), white) is None
    assert method.refuse(shapes, method.resolved({})) is None


# -------------------------------------------------------------------------------------------- srd


def test_srd_by_hand():
    """Two images standardise to -1 and 1, so that opposite order differs by 2: log of two times 2^4."""
    student, teacher = torch.tensor([[0.0], [10.0]]), torch.tensor([[40.0], [20.0]])
    assert srd_loss(student, teacher).item() == pytest.approx(math.log(2 * 16), rel=1e-4)
    assert srd_loss(student, teacher, exponent=1.0).item() == pytest.approx(math.log(2 * 2), rel=1e-4)


def test_srd_does_not_fall_below_all_bounds_where_student_and_teacher_agree():
    """Without the small number under the logarithm the loss is -inf there, and its gradient NaN."""
    student = normal(6, 4).requires_grad_()
    loss = srd_loss(student, student.detach() * 2 + 1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1e-5), abs=1e-3) and student.grad.isfinite().all()


def test_srd_sees_neither_scale_nor_shift_of_a_feature_and_sums_over_images():
    student, teacher = normal(6, 4), normal(6, 4, seed=1)
    known = srd_loss(student, teacher).item()
    turned = student * torch.tensor([2.0, 3.0, 40.0, 10.0]).double() - 5
    assert srd_loss(turned, teacher).item() == pytest.approx(known, rel=1e-3)
    twice = srd_loss(torch.cat([student, student]), torch.cat([teacher, teacher])).item()
    assert twice == pytest.approx(known + math.log(2), rel=1e-6)


# ------------------------------------------------------------------------------------------- srrl


def test_srrl_by_hand():
    """Features differ by (1, 0) and (0, 2); the classifier makes (3, 1) and (0, 4) of that."""
    student, teacher = torch.tensor([[1.0, 5.0], [0.0, 2.0]]), torch.tensor([[0.0, 5.0], [0.0, 0.0]])
    assert srrl_loss(student, teacher, torch.tensor([[3.0, 0.0], [1.0, 2.0]])).item() == (9 + 1 + 0 + 16) / 4


@pytest.mark.parametrize("teacher", ["wide-cnn", "vit"])
def test_srrl_compares_with_the_teachers_own_logits(teacher):
    """What goes through the classifier is what the teacher's classifier takes: a class token, where it has one."""
    made = setting("srrl", "cnn", teacher)
    classifier = made.teacher.classifier
    images = torch.rand(4, 3, 32, 32)
    said = made.teacher(images)
    student = normal(4, classifier.in_features, dtype=torch.float32)
    known = F.mse_loss(classifier(student), said.logits)
    assert srrl_loss(student, said.pooled, classifier.weight).item() == pytest.approx(known.item(), rel=1e-4)


def test_srrl_asks_for_a_linear_classifier():
    reason = refusal("srrl", "cnn", "distilled")
    assert "one linear layer on its pooled vector" in reason
    assert refusal("srrl", "distilled", "cnn") is None
