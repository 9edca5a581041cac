"""The distillation token by hand, which head learns from whom, what the network answers, and who is refused."""

from __future__ import annotations

import math

import pytest
import torch
from draws import lattice, normal
from pairs import CLASSES, network, pair, refusal, setting, terms

from kdpipe.config.sections import ArchSpec
from kdpipe.methods import METHODS, deit_loss, kd_loss
from kdpipe.models.build import build
from kdpipe.models.profile import profile_of

NAMES = ("distilled", "wide-cnn")


def test_golden_values():
    """Of the paper's equations in NumPy."""
    student, teacher = lattice(4, 5), lattice(4, 5, phase=1.3)
    assert deit_loss(student, teacher).item() == pytest.approx(1.5134051848373045, rel=1e-9)
    assert deit_loss(student, teacher, target="soft").item() == pytest.approx(0.3432826529727051, rel=1e-9)


def test_the_hard_form_by_hand():
    """Probabilities 3/4 and 1/4; the teacher says the second class, however surely."""
    student = torch.tensor([[math.log(3.0), 0.0]])
    for teacher in (torch.tensor([[0.0, 0.1]]), torch.tensor([[-50.0, 50.0]])):
        assert deit_loss(student, teacher).item() == pytest.approx(math.log(4), rel=1e-6)


def test_the_soft_form_is_averaged_over_images_and_not_over_classes():
    student, teacher = normal(6, 10), normal(6, 10, seed=1)
    each = [deit_loss(student[i : i + 1], teacher[i : i + 1], "soft").item() for i in range(6)]
    assert deit_loss(student, teacher, "soft").item() == pytest.approx(sum(each) / 6, rel=1e-9)
    # Published code divides by images times classes.
    by_all = 9 * torch.nn.functional.kl_div(
        (student / 3).log_softmax(1), (teacher / 3).log_softmax(1), reduction="mean", log_target=True
    )
    assert deit_loss(student, teacher, "soft").item() == pytest.approx(10 * by_all.item(), rel=1e-9)


@pytest.mark.parametrize("target", ["hard", "soft"])
def test_gradients_agree_with_finite_differences_in_float64(target):
    student, teacher = normal(4, 5).requires_grad_(), normal(4, 5, seed=1)
    assert torch.autograd.gradcheck(lambda x: deit_loss(x, teacher, target), (student,))


@pytest.mark.parametrize("target", ["hard", "soft"])
def test_autocast_does_not_reach_the_loss(target):
    student, teacher = (normal(4, 5, seed=seed, dtype=torch.float32) for seed in (0, 1))
    outside = deit_loss(student, teacher, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert deit_loss(student, teacher, target).item() == outside.item()
        assert deit_loss(student.bfloat16(), teacher.bfloat16(), target).dtype == torch.float32


def test_labels_teach_the_first_head_and_the_teacher_the_second():
    for term, learns, rests in (("ce", "head", "head_dist"), ("deit", "head_dist", "head")):
        made = setting("deit", *NAMES)
        terms(made, labelled=5)[term].backward()
        assert getattr(made.student.model, learns).weight.grad.abs().sum() > 0
        assert getattr(made.student.model, rests).weight.grad is None
        assert made.student.model.dist_token.grad.abs().sum() > 0  # both tokens look at each other
        assert all(p.grad is None for p in made.teacher.parameters())


def test_the_network_answers_with_the_mean_of_its_heads_before_and_after_training():
    """Left in distilled training, timm's model returns a pair of logits, which nothing else here expects."""
    made = setting("deit", *NAMES)
    terms(made)
    assert not made.student.model.distilled_training
    images = torch.rand(2, 3, 32, 32)
    for mode in (True, False):
        outputs = made.student.train(mode)(images)
        first, second = made.student.train().heads_apart(outputs.final)
        torch.testing.assert_close(outputs.logits, (first + second) / 2)
    assert outputs.logits.shape == (2, CLASSES)


def test_the_teachers_row_counts_without_a_label_too():
    few, all_ = (terms(setting("deit", *NAMES), rows=8, labelled=n) for n in (5, 8))
    assert few["deit"].item() == all_["deit"].item() and few["ce"].item() != all_["ce"].item()
    assert METHODS["deit"].reads_logits_alone  # so that the cache of teacher logits serves it


def test_the_soft_form_goes_to_the_second_head():
    made = setting("deit", *NAMES, target="soft", temperature=2.0, deit_weight=1.0)
    found = terms(made, rows=4)["deit"]
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))[:4]
    again = setting("deit", *NAMES)
    second = again.student.train().heads_apart(again.student(images).final)[1]
    assert found.item() == pytest.approx(kd_loss(second, again.teacher(images).logits, 2.0).item(), rel=1e-5)


@pytest.mark.parametrize("student", ["cnn", "vit", "vit-mean", "mobile"])
def test_students_without_a_second_head_are_refused_with_one_that_has(student):
    assert "deit_tiny_distilled_patch16_224" in refusal("deit", student, "wide-cnn")
    assert refusal("deit", "distilled", student) is None
    assert not pair(student, "cnn").student.two_heads


def test_another_transformer_with_two_heads_is_asked_for_both():
    spec = ArchSpec.model_validate({"arch": "levit_128s", "arguments": {"img_size": 64, "depth": [1, 1, 1]}})
    made = build(spec, image_shape=(3, 64, 64), classes=CLASSES, mean=[0.5] * 3, std=[0.25] * 3, seed=0)
    assert made.two_heads and profile_of(made, (3, 64, 64)).two_heads
    first, second = made.train().heads_apart(made(torch.rand(2, 3, 64, 64)).final)
    assert first.shape == second.shape == (2, CLASSES) and not torch.equal(first, second)


def test_a_network_with_one_head_says_so():
    assert not network("vit").two_heads and not network("cnn").two_heads
