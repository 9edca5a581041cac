"""Contrastive distillation: its probabilities by hand, their limits, and one real step."""

from __future__ import annotations

import math

import pytest
import torch
from memories import memory, vectors
from pairs import PAIRS, pair, profile, setting, terms
from pydantic import ValidationError

from kdpipe.methods import METHODS
from kdpipe.methods.base import Pair
from kdpipe.methods.contrastive import crd_loss, nce_loss

# --------------------------------------------------------------------------------------------- nce


def test_nce_with_one_negative_by_hand():
    """Z = 2, M = 8, N = 1. The positive has P = 3 / 2 and h = 1.5 / (1.5 + 1/8); the negative has P = 1/2, and
    1 - h = (1/8) / (1/2 + 1/8)."""
    scores = torch.tensor([[math.log(3.0), 0.0]])
    known = -math.log(1.5 / 1.625) - math.log(0.125 / 0.625)
    assert nce_loss(scores, torch.tensor(2.0).log(), images=8).item() == pytest.approx(known, rel=1e-6)


def test_nce_sums_over_negatives_and_averages_over_anchors():
    """With Z = M = 1 and two negatives N / M = 2, so that e^score = 2 is told apart with probability one half."""
    even = torch.full((1, 3), math.log(2.0))
    nothing = torch.zeros(())
    assert nce_loss(even, nothing, images=1).item() == pytest.approx(3 * math.log(2), rel=1e-6)
    assert nce_loss(even.expand(4, 3), nothing, images=1).item() == pytest.approx(3 * math.log(2), rel=1e-6)


def test_nces_best_scores_are_the_log_density_ratio():
    """Where each of M images is the positive with probability p, exp(score) = M p Z / M is the minimum."""
    density = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    scores = (density * 7.0).log().requires_grad_()  # Z = 7
    log_z, negatives, images = torch.tensor(7.0, dtype=torch.float64).log(), 4, 3
    loss = torch.zeros((), dtype=torch.float64)
    for image in range(3):  # the expectation: the positive by density, each of the negatives by 1 / M
        only = torch.stack([scores[image], *[torch.tensor(-1e3, dtype=torch.float64)] * negatives])[None]
        loss = loss + density[image] * nce_loss(only, log_z, images)
        noise = torch.stack([torch.tensor(1e3, dtype=torch.float64), scores[image], *only[0, 2:]])[None]
        loss = loss + negatives / images * nce_loss(noise, log_z, images)
    loss.backward()
    assert scores.grad.abs().max() < 1e-12


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_nce_stays_finite_at_extreme_scores(size):
    scores = torch.tensor([[-size, size, -size], [size, size, -size]], requires_grad=True)
    loss = nce_loss(scores, torch.zeros(()), images=10)
    loss.backward()
    assert loss.isfinite() and scores.grad.isfinite().all()


# --------------------------------------------------------------------------------------------- crd


def test_crd_with_one_negative_by_hand():
    """Two images, τ = 1, Z = 1, N / M = 1/2. Image 0 embeds as (1, 0) and (0, 1), and so do the banks image 1.

    Both anchors have the positive score 0: h = 1 / 1.5. The student's anchor meets the teacher's bank, cosine 0:
    1 - h = ½ / 1.5; the teacher's anchor meets the student's bank, cosine 0, as well.
    """
    made = memory((0, 1), width=2, negatives=1).eval()
    made.log_constants.zero_()
    made.student_bank[1], made.teacher_bank[1] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    student, teacher = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 7.0]])
    loss = crd_loss(student, teacher, torch.tensor([0]), made, temperature=1.0)
    assert loss.item() == pytest.approx(2 * (-math.log(1 / 1.5) - math.log(0.5 / 1.5)), rel=1e-6)
    # With the banks changed over, both anchors meet themselves: 1 - h = ½ / (e + ½), which no mix-up of banks gives.
    made.student_bank[1], made.teacher_bank[1] = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    loss = crd_loss(student, teacher, torch.tensor([0]), made, temperature=1.0)
    assert loss.item() == pytest.approx(2 * (-math.log(1 / 1.5) - math.log(0.5 / (math.e + 0.5))), rel=1e-6)


def test_crd_agrees_with_probabilities_of_chosen_vectors():
    """The long way, in float64: vectors picked one by one, h as a quotient."""
    made = memory().double().eval()
    made.log_constants.copy_(torch.tensor([1.5, 2.5]))
    student, teacher = vectors(6, 4, 1).double(), vectors(6, 4, 2).double()
    index = torch.tensor([3, 0, 7, 11, 5, 2])
    torch.manual_seed(4)
    drawn = made.draw(index)
    torch.manual_seed(4)
    loss = crd_loss(student, teacher, index, made)
    total, images, count = 0.0, 12, drawn.shape[1]
    cosine = torch.nn.functional.cosine_similarity
    for i in range(6):
        for anchor, other, bank, log_z in (
            (student[i], teacher[i], made.teacher_bank, 1.5),
            (teacher[i], student[i], made.student_bank, 2.5),
        ):
            p = math.exp(cosine(anchor, other, dim=0).item() / 0.07 - log_z)
            total -= math.log(p / (p + count / images))
            for j in drawn[i]:
                p = math.exp((anchor / anchor.norm() @ bank[j]).item() / 0.07 - log_z)
                total -= math.log(count / images / (p + count / images))
    assert loss.item() == pytest.approx(total / 6, rel=1e-9)


def test_the_gradient_agrees_with_finite_differences_on_both_sides():
    made = memory().double().eval()
    made.log_constants.zero_()
    student, teacher = vectors(3, 4, 1).double().requires_grad_(), vectors(3, 4, 2).double().requires_grad_()

    def loss(one, two):
        torch.manual_seed(0)
        return crd_loss(one, two, torch.tensor([0, 1, 2]), made, temperature=0.5)

    assert torch.autograd.gradcheck(loss, (student, teacher))


def test_the_loss_falls_as_positives_align_and_negatives_part():
    made = memory(negatives=4).eval()
    made.log_constants.zero_()
    student, other = vectors(3, 4, 1), vectors(3, 4, 2)
    values = []
    for share in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        values.append(crd_loss(student, (1 - share) * other + share * student, torch.arange(3), made).item())
    assert values[0] > values[1] > values[2]
    made.teacher_bank.copy_(
        made.student_bank.copy_(-torch.nn.functional.normalize(student.mean(0), dim=0).expand(12, 4))
    )
    torch.manual_seed(0)
    apart = crd_loss(student, student, torch.arange(3), made)
    made.teacher_bank.neg_(), made.student_bank.neg_()
    torch.manual_seed(0)
    assert apart < crd_loss(student, student, torch.arange(3), made)


def test_the_loss_sees_directions_alone_and_a_common_rotation_of_all_four():
    made = memory().double().eval()
    made.log_constants.zero_()
    student, teacher, index = vectors(4, 4, 1).double(), vectors(4, 4, 2).double(), torch.arange(4)

    def loss(one, two):
        torch.manual_seed(0)
        return crd_loss(one, two, index, made).item()

    value = loss(student, teacher)
    assert loss(5 * student, 0.1 * teacher) == pytest.approx(value, rel=1e-9)
    turn = torch.linalg.qr(vectors(4, 4, 3).double())[0]
    assert loss(student @ turn, teacher @ turn) != pytest.approx(value, rel=1e-3)
    made.student_bank.copy_(made.student_bank @ turn), made.teacher_bank.copy_(made.teacher_bank @ turn)
    assert loss(student @ turn, teacher @ turn) == pytest.approx(value, rel=1e-9)


def test_autocast_and_zero_and_large_embeddings_leave_it_finite_and_in_float32():
    student, teacher, index = vectors(4, 4, 1), vectors(4, 4, 2), torch.arange(4)
    made = memory().eval()
    values = []
    for half in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            values.append(crd_loss(student, teacher, index, made))
    assert torch.equal(*values) and values[0].dtype == torch.float32
    assert crd_loss(student.bfloat16(), teacher.bfloat16(), index, made).dtype == torch.float32
    corner = (100 * student.sign()).clone()
    corner[1] = 0
    corner.requires_grad_()
    loss = crd_loss(corner, -100 * teacher.sign(), index, memory())
    loss.backward()
    assert loss.isfinite() and corner.grad.isfinite().all() and corner.grad.abs().max() < 1e3


# ---------------------------------------------------------------------------------------- one step


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_a_step_on_every_pair_trains_the_student_and_both_heads(student, teacher):
    made = setting("crd", student, teacher)
    found = terms(made, rows=8, labelled=5)
    assert set(found) == {"ce", "crd"}
    assert all(term.ndim == 0 and term.isfinite() and term.dtype == torch.float32 for term in found.values())
    found["crd"].backward()
    assert all(p.grad.abs().sum() > 0 for p in made.extras.parameters())
    assert sum(p.grad.abs().sum() for p in made.student.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in made.teacher.parameters())
    assert made.extras.student.weight.shape == (128, made.pair.student.pooled)
    assert made.extras.teacher.weight.shape == (128, made.pair.teacher.pooled)


def test_unlabelled_rows_reach_the_contrastive_term_alone():
    values = []
    for labelled in (5, 8):
        made = setting("crd", "cnn", "wide-cnn")
        torch.manual_seed(0)
        values.append(terms(made, rows=8, labelled=labelled))
    assert values[0]["crd"].item() == values[1]["crd"].item()
    assert values[0]["ce"].item() != values[1]["ce"].item()
    assert not METHODS["crd"].uses_labels and "index" in METHODS["crd"].needs


def test_a_few_steps_lower_the_contrastive_term():
    made = setting("crd", "cnn", "wide-cnn")
    parameters = [*made.student.parameters(), *made.extras.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    values = []
    for _ in range(6):
        torch.manual_seed(0)
        loss = terms(made, rows=8)["crd"]
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert values[-1] < 0.9 * values[0], values


def test_validation_asks_with_shapes_alone():
    method, shapes = METHODS["crd"], Pair(profile("cnn"), profile("vit"), 10)
    parameters = method.resolved({})
    assert method.refuse(shapes, parameters) is None
    assert method.extras(shapes, parameters).memory.images == 2


def test_defaults_are_the_published_ones_and_reach_the_extras():
    parameters = METHODS["crd"].resolved({})
    assert (parameters.crd_weight, parameters.temperature, parameters.momentum) == (0.8, 0.07, 0.5)
    assert (parameters.width, parameters.negatives, parameters.ce_weight) == (128, 16384, 1.0)
    chosen = METHODS["crd"].resolved({"width": 8, "negatives": 3, "momentum": 0.25})
    made = METHODS["crd"].extras(pair("cnn", "vit"), chosen)
    assert made.memory.student_bank.shape == (64, 8)
    assert (made.memory.negatives, made.memory.momentum, made.student.out_features) == (3, 0.25, 8)
    usual, other = setting("crd", "cnn", "vit"), setting("crd", "cnn", "vit", crd_weight=1.6)
    values = []
    for one in (usual, other):
        torch.manual_seed(0)
        values.append(terms(one)["crd"].item())
    assert values[1] == pytest.approx(2 * values[0], rel=1e-5)
    for wrong in ({"temperature": 0.0}, {"momentum": 1.0}, {"negatives": 0}, {"crd_weight": -1.0}):
        with pytest.raises(ValidationError):
            METHODS["crd"].resolved(wrong)
