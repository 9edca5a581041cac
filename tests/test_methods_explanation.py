"""Explanation-enhanced distillation: cosines by hand, Grad-CAM by another route, gradients of gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pairs import PAIRS, SHAPE, network, pair, setting, terms

from kdpipe.methods import METHODS, kd_loss
from kdpipe.methods.classifiers import class_activation_maps
from kdpipe.methods.explanation import e2kd_loss, grad_cam
from kdpipe.models.network import Outputs

SERVED = [("cnn", "wide-cnn"), ("vit-mean", "wide-cnn")]


def positive(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ------------------------------------------------------------------------------------------- loss


def test_one_minus_the_cosine_by_hand():
    """(1, 0, 0, 0) with itself, with (0, 1, 0, 0) and with (1, 1, 0, 0): 0, 1 and 1 - 1/sqrt 2."""
    first = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    second = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    assert e2kd_loss(first, first).item() == pytest.approx(0.0, abs=1e-7)
    assert e2kd_loss(first, second).item() == pytest.approx(1.0)
    assert e2kd_loss(first, first + second).item() == pytest.approx(1 - 1 / math.sqrt(2), rel=1e-6)
    three = torch.cat([first, first, first]), torch.cat([first, second, first + second])
    assert e2kd_loss(*three).item() == pytest.approx((0 + 1 + 1 - 1 / math.sqrt(2)) / 3, rel=1e-6)


@given(st.floats(0.01, 100.0), st.integers(0, 20))
def test_it_is_blind_to_scale_and_between_zero_and_one_for_maps_that_are_not_negative(scale, seed):
    student, teacher = positive(3, 4, 4, seed=seed), positive(3, 4, 4, seed=seed + 1)
    value = e2kd_loss(student, teacher).item()
    assert 0 <= value <= 1
    assert e2kd_loss(scale * student, teacher / scale).item() == pytest.approx(value, abs=1e-12)
    assert e2kd_loss(teacher, scale * teacher).item() == pytest.approx(0.0, abs=1e-12)


def test_the_gradient_agrees_with_finite_differences_and_maps_meet_at_the_smaller():
    student, teacher = positive(2, 4, 4).requires_grad_(), positive(2, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: e2kd_loss(x, teacher), (student,))
    pooled = student.reshape(2, 2, 2, 2, 2).mean((2, 4))
    assert e2kd_loss(student, teacher).item() == pytest.approx(e2kd_loss(pooled, teacher).item(), rel=1e-12)


def test_a_map_of_zeros_has_a_cosine_of_zero_and_no_gradient():
    ones = torch.ones(1, 2, 2)
    for student, teacher in ((0 * ones, ones), (ones, 0 * ones), (0 * ones, 0 * ones)):
        student = student.clone().requires_grad_()
        loss = e2kd_loss(student, teacher)
        loss.backward()
        assert loss.item() == 1.0 and student.grad.abs().max() == 0
    # The other images of the batch learn as they would.
    student = torch.stack([torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]])]).requires_grad_()
    e2kd_loss(student, torch.ones(2, 2, 2)).backward()
    assert student.grad.isfinite().all() and student.grad[1].abs().sum() > 0


def test_autocast_does_not_reach_the_loss_and_large_maps_are_finite():
    student, teacher = positive(4, 6, 6, dtype=torch.float32), positive(4, 6, 6, seed=1, dtype=torch.float32)
    outside = e2kd_loss(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        inside = e2kd_loss(student, teacher)
    assert inside.item() == outside.item() and inside.dtype == torch.float32
    assert e2kd_loss(1e4 * student, 1e4 * teacher).item() == pytest.approx(outside.item(), rel=1e-5)


# --------------------------------------------------------------------------------------- grad-cam


@pytest.mark.parametrize("create_graph", [False, True])
def test_under_a_linear_head_grad_cam_is_the_positive_part_of_the_class_activation_map(create_graph):
    """The slope of a logit at each of H x W positions is w / HW, so the map is that of the class over HW."""
    own = network("wide-cnn").eval()
    outputs = own(torch.rand(4, *SHAPE))
    classes = torch.tensor([3, 0, 9, 3])
    cams = class_activation_maps(outputs.final, own.classifier.weight)[torch.arange(4), classes]
    made = grad_cam(own, outputs, classes, create_graph)
    assert made.requires_grad == create_graph and made.shape == (4, 2, 2) and (made >= 0).all()
    torch.testing.assert_close(made, (cams / 4).relu(), rtol=1e-4, atol=1e-6, check_dtype=True)


def bent_head(first, second):
    """A head that bends before it decides, so that Grad-CAM's slopes move with the weights."""

    def classify(final, shown=None):
        hidden = torch.tanh(torch.einsum("bchw,dc->bdhw", final, first)).mean((2, 3))
        return hidden, hidden @ second.T

    return SimpleNamespace(classify=classify, as_map=lambda final, last: final)


def explained(final, first, second, create_graph=True):
    own = bent_head(first, second)
    outputs = Outputs(own.classify(final)[1], [final], final.mean((2, 3)), final)
    return grad_cam(own, outputs, torch.tensor([0, 2]), create_graph)


def test_gradients_of_the_explanation_are_of_second_order_and_right():
    final, first, second = positive(2, 3, 2, 2) + 0.5, positive(4, 3, seed=1), positive(3, 4, seed=2)
    teacher = positive(2, 2, 2, seed=3)
    tensors = [part.requires_grad_() for part in (final, first, second)]
    assert explained(*tensors).min() > 0.01  # away from the kink of the positive part
    assert torch.autograd.gradcheck(lambda *parts: e2kd_loss(explained(*parts), teacher), tensors)
    gradients = torch.autograd.grad(e2kd_loss(explained(*tensors), teacher), tensors)
    assert all(gradient.abs().max() > 1e-4 for gradient in gradients)


def test_slopes_without_a_graph_would_train_no_head_and_mislead_the_trunk():
    final, first, second = positive(2, 3, 2, 2) + 0.5, positive(4, 3, seed=1), positive(3, 4, seed=2)
    teacher = positive(2, 2, 2, seed=3)
    assert not explained(final, first, second, create_graph=False).requires_grad
    final.requires_grad_()
    (right,) = torch.autograd.grad(e2kd_loss(explained(final, first, second), teacher), final)
    slopes = torch.autograd.grad(bent_head(first, second).classify(final)[1][[0, 1], [0, 2]].sum(), final)[0]
    held = (slopes.mean((2, 3), keepdim=True) * final).sum(1).relu()
    (wrong,) = torch.autograd.grad(e2kd_loss(held, teacher), final)
    assert (right - wrong).abs().max() > 1e-4


def test_a_teacher_without_a_graph_is_explained_by_its_head_alone():
    own = network("wide-cnn").eval().requires_grad_(False)
    with torch.no_grad():
        outputs = own(torch.rand(2, *SHAPE))
        before = outputs.final.clone()
        made = grad_cam(own, outputs, outputs.logits.argmax(1))
    assert not made.requires_grad and made.max() > 0
    assert torch.equal(outputs.final, before) and not outputs.final.requires_grad


def test_tokens_are_laid_out_as_maps():
    own = network("vit-mean").eval()
    outputs = own(torch.rand(2, *SHAPE))
    made = grad_cam(own, outputs, torch.tensor([1, 2]), create_graph=True)
    assert outputs.final.ndim == 3 and made.shape == (2, 4, 4)


# ------------------------------------------------------------------------------------------- step


@pytest.mark.parametrize("names", PAIRS)
def test_pairs_without_explanations_are_refused_with_a_reason(names):
    method = METHODS["e2kd"]
    reason = method.refuse(pair(*names), method.resolved({}))
    known = {
        ("cnn", "vit"): "not every position of the teacher's last map reaches its logits",
        ("vit", "wide-cnn"): "not every position of the student's last map reaches its logits",
        ("mobile", "wide-cnn"): "the student's last map is 1x1",
    }
    assert known[names] in reason if names in known else reason is None


def test_a_teacher_whose_last_map_is_a_point_is_refused():
    method, shapes = METHODS["e2kd"], pair("cnn", "wide-cnn")
    point = replace(shapes, teacher=replace(shapes.teacher, final=(40, 1, 1)))
    assert "the teacher's last map is 1x1" in method.refuse(point, method.resolved({}))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("names", SERVED)
def test_a_real_step_reaches_trunk_and_classifier_of_the_student_alone(names, half):
    made = setting("e2kd", *names)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        parts = terms(made, rows=8, labelled=5)
    assert set(parts) == {"ce", "kd", "e2kd"} and parts["ce"].item() == 0.0
    assert all(part.ndim == 0 and part.isfinite() and part.dtype == torch.float32 for part in parts.values())
    parts["e2kd"].backward()
    gradients = {name: p.grad for name, p in made.student.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert made.student.classifier.weight.grad.abs().sum() > 0
    assert (
        sum(gradient.abs().sum() for name, gradient in gradients.items() if "layer1" in name or "blocks.0" in name) > 0
    )
    assert all(p.grad is None for p in made.teacher.parameters()) and not made.teacher.training


def test_the_terms_are_hintons_and_the_cosine_of_the_teachers_first_choice():
    made = setting("e2kd", "cnn", "wide-cnn", temperature=5.0, e2kd_weight=10.0)
    parts = terms(made)
    images = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0))
    again = setting("e2kd", "cnn", "wide-cnn")
    student, teacher = again.student.train()(images), again.teacher(images)
    # With its T² in front, although no cross-entropy stands beside it.
    assert parts["kd"].item() == pytest.approx(kd_loss(student.logits, teacher.logits, 5.0).item(), rel=1e-5)
    classes = teacher.logits.argmax(1)
    maps = [
        class_activation_maps(seen.final, own.classifier.weight)[torch.arange(8), classes].relu()
        for own, seen in ((again.student, student), (again.teacher, teacher))
    ]
    assert parts["e2kd"].item() == pytest.approx(10 * e2kd_loss(*maps).item(), rel=1e-4)


def test_unlabelled_rows_are_explained_too():
    few, all_ = (terms(setting("e2kd", "cnn", "wide-cnn", ce_weight=1.0), rows=8, labelled=n) for n in (5, 8))
    assert few["e2kd"].item() == all_["e2kd"].item() and few["kd"].item() == all_["kd"].item()
    assert few["ce"].item() != all_["ce"].item() and not METHODS["e2kd"].uses_labels


@pytest.mark.parametrize("names", SERVED)
def test_a_few_steps_bring_the_explanations_together(names):
    made = setting("e2kd", *names)
    optimizer = torch.optim.SGD(made.student.parameters(), lr=0.1)
    values = []
    for _ in range(5):
        term = terms(made)["e2kd"]
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
        values.append(term.item())
    assert values[-1] < 0.9 * values[0]
