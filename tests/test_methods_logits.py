"""Losses on logits: values worked out by hand, other routes to the same number, limits, and real steps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pairs import profile, setting, terms
from pydantic import ValidationError
from torch import Tensor

from kdpipe.methods import METHODS, Pair, Step
from kdpipe.methods.logits import dkd_loss, kd_loss, lskd_loss, nkd_loss, ttm_loss, wttm_loss
from kdpipe.methods.logits_relational import dist_loss, mlkd_loss
from kdpipe.methods.numerics import unit_deviation
from kdpipe.models.network import Outputs

NAMES = ["kd", "dkd", "nkd", "lskd", "ttm", "wttm", "dist", "mlkd"]
LOSSES = dict(
    zip(NAMES, (kd_loss, dkd_loss, nkd_loss, lskd_loss, ttm_loss, wttm_loss, dist_loss, mlkd_loss), strict=True)
)
LABELS = ("dkd", "nkd")  # their losses take the label

STUDENT, TEACHER = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
# Three classes whose probabilities are round: student (1/2, 1/4, 1/4), teacher (1/2, 3/8, 1/8); the label is class 0.
P, Q = torch.tensor([[4.0, 2.0, 2.0]]) / 8, torch.tensor([[4.0, 3.0, 1.0]]) / 8
LABEL = torch.tensor([0])
OTHERS = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL((3/4, 1/4) ‖ (1/2, 1/2)), of the two others as well
logits = arrays("float32", (5, 7), elements=st.floats(-20, 20, width=32))


def draw(rows: int = 6, classes: int = 5, seed: int = 0, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits in float64, and labels."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, rows, classes, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(classes, (rows,), generator=generator)


def value(name: str, student: Tensor, teacher: Tensor, target: Tensor, **parameters) -> Tensor:
    return LOSSES[name](student, teacher, *((target,) if name in LABELS else ()), **parameters)


# --------------------------------------------------------------------------------------------- kd


def test_kd_of_two_classes_by_hand():
    """Teacher (3/4, 1/4) against student (1/2, 1/2): KL = 3/4 ln 3/2 + 1/4 ln 1/2."""
    known = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kd_loss(STUDENT, TEACHER, temperature=1.0).item() == pytest.approx(known, rel=1e-6)


def test_kd_has_the_squared_temperature_in_front():
    """At T = 2 the same teacher needs logits twice as large, and T² = 4 stands in front."""
    known = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kd_loss(2 * STUDENT, 2 * TEACHER, temperature=2.0).item() == pytest.approx(known, rel=1e-6)


def test_kd_is_a_sum_over_classes_and_a_mean_over_images():
    one = kd_loss(STUDENT, TEACHER, 1.0)
    two = kd_loss(STUDENT.expand(2, 2), torch.cat([TEACHER, STUDENT]), 1.0)
    assert two.item() == pytest.approx(one.item() / 2, rel=1e-6)
    # A class that both give no probability changes nothing; a mean over classes would.
    wider = [torch.cat([part, torch.full((1, 1), -80.0)], 1) for part in (STUDENT, TEACHER)]
    assert kd_loss(*wider, 1.0).item() == pytest.approx(one.item(), rel=1e-5)


def test_the_direction_of_kd_is_from_teacher_to_student():
    """KL((1/2, 1/2) ‖ (3/4, 1/4)) = 1/2 ln 2/3 + 1/2 ln 2 is the other one."""
    reversed_ = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    assert kd_loss(TEACHER, STUDENT, 1.0).item() == pytest.approx(reversed_, rel=1e-5)
    assert abs(kd_loss(STUDENT, TEACHER, 1.0).item() - reversed_) > 0.01


@given(logits, logits, st.sampled_from([1.0, 4.0]))
def test_kd_is_never_negative_zero_at_the_teacher_and_blind_to_shifts(student, teacher, temperature):
    student, teacher = torch.from_numpy(student), torch.from_numpy(teacher)
    known = kd_loss(student, teacher, temperature)
    assert known >= -1e-4
    assert kd_loss(teacher, teacher, temperature).abs() < 1e-5
    shifted = kd_loss(student + 3.0, teacher - 5.0, temperature)
    assert shifted.item() == pytest.approx(known.item(), rel=1e-3, abs=1e-3)


def test_the_gradient_of_kd_is_the_difference_of_the_softened_probabilities():
    """d/ds of T² KL is T (p - q) / B."""
    student, teacher, _ = draw(classes=10)
    student.requires_grad_()
    kd_loss(student, teacher, 4.0).backward()
    known = 4.0 * ((student / 4).softmax(1) - (teacher / 4).softmax(1)) / 6
    torch.testing.assert_close(student.grad, known.detach())


def test_kd_computes_the_bits_it_always_did():
    student, teacher, _ = (x.float() if x.is_floating_point() else x for x in draw(64, 10))
    log_p, log_q = F.log_softmax(student / 4.0, dim=1), F.log_softmax(teacher / 4.0, dim=1)
    assert torch.equal(kd_loss(student, teacher), F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * 16)


# -------------------------------------------------------------------------------------------- dkd


def test_dkd_by_hand():
    """The target has 1/2 in both, so TCKD = 0; the others are (3/4, 1/4) against (1/2, 1/2) of their half."""
    assert dkd_loss(P.log(), Q.log(), LABEL, 1.0, 8.0, 1.0).item() == pytest.approx(8 * OTHERS, rel=1e-5)
    # With class 1 as the label: target 3/8 against 1/4, the others (4/5, 1/5) against (2/3, 1/3).
    tckd = 3 / 8 * math.log((3 / 8) / (1 / 4)) + 5 / 8 * math.log((5 / 8) / (3 / 4))
    nckd = 4 / 5 * math.log((4 / 5) / (2 / 3)) + 1 / 5 * math.log((1 / 5) / (1 / 3))
    one = torch.tensor([1])
    assert dkd_loss(P.log(), Q.log(), one, 1.0, 0.0, 1.0).item() == pytest.approx(tckd, rel=1e-5)
    assert dkd_loss(P.log(), Q.log(), one, 0.0, 1.0, 1.0).item() == pytest.approx(nckd, rel=1e-5)
    assert dkd_loss(P.log(), Q.log(), one, 3.0, 2.0, 1.0).item() == pytest.approx(3 * tckd + 2 * nckd, rel=1e-5)
    # Logits twice as large at T = 2, and T² = 4 in front.
    warm = dkd_loss(2 * P.log(), 2 * Q.log(), one, 3.0, 2.0, 2.0)
    assert warm.item() == pytest.approx(4 * (3 * tckd + 2 * nckd), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_tckd_and_nckd_weighted_by_the_teachers_doubt(temperature):
    """KD = TCKD + (1 - q_y) NCKD, image by image."""
    student, teacher, target = draw(12, 7)
    doubt = 1 - (teacher / temperature).softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    for i in range(12):
        one = student[i : i + 1], teacher[i : i + 1], target[i : i + 1]
        split = dkd_loss(*one, 1.0, doubt[i].item(), temperature)
        torch.testing.assert_close(kd_loss(*one[:2], temperature), split)


def test_dkd_weighs_the_others_of_a_sure_teacher_in_full():
    """What DKD is for: KD's share of the other classes fades with the teacher's doubt, NCKD does not."""
    student = torch.tensor([[9.0, 1.0, 0.0]])
    sure, surer = torch.tensor([[9.0, 0.0, 1.0]]), torch.tensor([[19.0, 0.0, 1.0]])
    first, second = (dkd_loss(student, teacher, LABEL, 0.0, 1.0, 1.0) for teacher in (sure, surer))
    assert first.item() == pytest.approx(second.item(), rel=1e-5) and first > 0.1


def test_dkd_of_two_classes_is_kd():
    student, teacher, target = draw(8, 2)
    torch.testing.assert_close(dkd_loss(student, teacher, target), kd_loss(student, teacher))


def test_dkd_survives_where_log_of_softmax_underflows():
    """softmax(-200) is 0 in float32 and its logarithm -inf; the divergence itself is 199 or so."""
    student, teacher = torch.tensor([[-200.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    assert student.softmax(1).log().isinf().any()
    # TCKD: (1/3, 2/3) against (e^-200 / 2, 1) = 1/3 (ln 1/3 + 200 + ln 2) + 2/3 ln 2/3.
    known = (math.log(1 / 3) + 200 + math.log(2)) / 3 + 2 / 3 * math.log(2 / 3)
    assert dkd_loss(student, teacher, LABEL, 1.0, 8.0, 1.0).item() == pytest.approx(known, rel=1e-6)
    # And the other way round, where all other classes together underflow.
    assert dkd_loss(-student, teacher, LABEL, 1.0, 8.0, 1.0).isfinite()


def test_the_target_is_out_of_the_others_however_large_its_logit():
    """-1000 in the target's place is no mask at such logits."""
    student = torch.tensor([[5000.0, 1.0, 0.0]])
    known = dkd_loss(torch.tensor([[0.0, 1.0, 0.0]]), Q.log(), LABEL, 0.0, 1.0, 1.0)
    assert dkd_loss(student, Q.log(), LABEL, 0.0, 1.0, 1.0).item() == pytest.approx(known.item(), rel=1e-5)


# -------------------------------------------------------------------------------------------- nkd


def test_nkd_by_hand():
    """-1/2 ln 1/2 for the label, and the others (3/4, 1/4) against (1/2, 1/2): cross-entropy ln 2."""
    assert nkd_loss(P.log(), Q.log(), LABEL).item() == pytest.approx((0.5 + 1.5) * math.log(2), rel=1e-6)
    assert nkd_loss(P.log(), Q.log(), LABEL, gamma=0.0).item() == pytest.approx(0.5 * math.log(2), rel=1e-6)


def test_nkds_label_knows_no_temperature_and_its_others_have_it_squared():
    student, teacher, target = draw()
    cold, warm = (nkd_loss(student, teacher, target, 0.0, t) for t in (1.0, 3.0))
    torch.testing.assert_close(cold, warm)
    # The others' logits three times as large at T = 3 are the same probabilities, 9 times as heavy.
    cold, warm = (
        nkd_loss(t * student, t * teacher, target, 1.0, t) - nkd_loss(t * student, t * teacher, target, 0.0, t)
        for t in (1.0, 3.0)
    )
    torch.testing.assert_close(warm, 9 * cold)


def test_nkd_by_removing_the_label_from_each_row():
    student, teacher, target = draw()
    known = 0.0
    for s, t, y in zip(student, teacher, target.tolist(), strict=True):
        p, q = (torch.cat([x[:y], x[y + 1 :]]) for x in (s, t))
        known -= (t.softmax(0)[y] * s.log_softmax(0)[y]).item() / 6
        known -= 1.5 * 4 * ((q / 2).softmax(0) * (p / 2).log_softmax(0)).sum().item() / 6
    assert nkd_loss(student, teacher, target, 1.5, 2.0).item() == pytest.approx(known, rel=1e-9)


def test_nkd_leaves_entropies_at_the_teacher_and_its_least_value_is_that_of_the_others():
    student, teacher, target = draw()
    row = torch.arange(6)
    q = teacher.softmax(1)[row, target]
    others = teacher.clone()
    others[row, target] = -torch.inf
    entropy = torch.special.entr(others.softmax(1)).sum(1)
    known = (torch.special.entr(q) + 1.5 * entropy).mean()
    torch.testing.assert_close(nkd_loss(teacher, teacher, target), known)
    assert known > 0.1
    # The others are best at the teacher's; the label is best at certainty, not at the teacher's q.
    sure = teacher.clone()
    sure[row, target] = 60.0
    torch.testing.assert_close(nkd_loss(sure, teacher, target), 1.5 * entropy.mean())
    assert nkd_loss(student, teacher, target) > 1.5 * entropy.mean()


# ------------------------------------------------------------------------------------------- lskd


def test_lskd_by_hand():
    """(-1, 0, 1) has the unbiased deviation 1 and is its own z-score; (1, 0, -1) its reverse."""
    student, teacher = torch.tensor([[10.0, 20.0, 30.0]]), torch.tensor([[1.0, 0.0, -1.0]])
    e = [math.exp(x) for x in (0.5, 0.0, -0.5)]  # T = 2
    # The logits' difference is (1, 0, -1) and the normalisers are equal.
    known = 4 * (e[0] * 1 + e[2] * -1) / sum(e)
    assert lskd_loss(student, teacher).item() == pytest.approx(known, rel=1e-6)


def test_lskd_is_kd_of_z_scores():
    student, teacher, _ = draw()
    scores = [(x - x.mean(1, keepdim=True)) / (1e-7 + x.std(1, keepdim=True)) for x in (student, teacher)]
    torch.testing.assert_close(lskd_loss(student, teacher), kd_loss(*scores, 2.0), rtol=1e-6, atol=0)


def test_the_biased_deviation_would_be_another_temperature():
    """z with n is sqrt(n / (n - 1)) times z with n - 1: divide the temperature by it, but keep the T² of before."""
    student, teacher, _ = draw()
    biased = [(x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0) for x in (student, teacher)]
    factor = math.sqrt(5 / 4)
    torch.testing.assert_close(factor**2 * lskd_loss(student, teacher, 2 / factor), kd_loss(*biased, 2.0))
    assert abs(lskd_loss(student, teacher).item() / kd_loss(*biased, 2.0).item() - 1) > 0.01


@given(st.floats(0.01, 100), st.floats(-50, 50), st.floats(0.01, 100), st.floats(-50, 50), st.integers(0, 20))
def test_lskd_is_blind_to_positive_scale_and_any_shift_of_either_side(scale, shift, other_scale, other_shift, seed):
    student, teacher, _ = draw(seed=seed)
    known = lskd_loss(student, teacher)
    moved = lskd_loss(scale * student + shift, other_scale * teacher + other_shift)
    torch.testing.assert_close(moved, known, rtol=1e-6, atol=1e-9)
    assert lskd_loss(scale * teacher + shift, teacher).item() == pytest.approx(0, abs=1e-9)


def test_lskd_sees_a_negative_scale():
    student, teacher, _ = draw()
    assert abs(lskd_loss(-student, teacher).item() - lskd_loss(student, teacher).item()) > 0.1
    assert lskd_loss(-teacher, teacher) > 1


def test_lskd_refuses_two_classes_whose_z_scores_have_no_gradient():
    method = METHODS["lskd"]
    shapes = profile("cnn")
    assert "2 classes" in method.refuse(Pair(shapes, shapes, 2), method.resolved({}))
    assert method.refuse(Pair(shapes, shapes, 3), method.resolved({})) is None
    student = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    lskd_loss(student, torch.randn(4, 2)).backward()
    assert student.grad.abs().max() < 1e-12


# -------------------------------------------------------------------------------------------- ttm


def test_ttm_by_hand():
    """Teacher (9/10, 1/10), gamma 1/2: powers (3, 1)/sqrt(10), normalised (3/4, 1/4), against (1/2, 1/2)."""
    teacher = torch.tensor([[0.9, 0.1]]).log()
    assert ttm_loss(STUDENT, teacher, gamma=0.5).item() == pytest.approx(OTHERS, rel=1e-5)


def test_ttm_is_kd_less_the_students_renyi_entropy_but_for_what_the_teacher_gives():
    """TTM = T KL_T - (T - 1) H_{1/T}(student) + (T - 1) H(softened teacher), the last without the student."""
    student, teacher, _ = draw()
    t = 10.0
    entropy = (student.softmax(1) ** (1 / t)).sum(1).log() / (1 - 1 / t)
    constant = torch.special.entr((teacher / t).softmax(1)).sum(1)
    known = kd_loss(student, teacher, t) / t + (t - 1) * (constant - entropy).mean()
    torch.testing.assert_close(ttm_loss(student, teacher, 1 / t), known)


def test_ttm_is_wttm_without_the_weights_of_images():
    student, teacher, _ = draw()
    weights = (teacher.softmax(1) ** 0.3).sum(1)
    alone = torch.stack([ttm_loss(student[i : i + 1], teacher[i : i + 1], 0.3) for i in range(6)])
    torch.testing.assert_close(wttm_loss(student, teacher, 0.3), (weights * alone).mean())


def test_a_power_raises_probabilities_that_underflow():
    """e^-120 is 0 in float32, and so is any power of it; its power 0.02 is e^-2.4."""
    teacher = torch.tensor([[120.0, 0.0]])
    assert (teacher.softmax(1) ** 0.02)[0, 1] == 0
    q = 1 / (1 + math.exp(-2.4))
    known = q * math.log(2 * q) + (1 - q) * math.log(2 * (1 - q))
    assert ttm_loss(STUDENT, teacher, gamma=0.02).item() == pytest.approx(known, rel=1e-5)


def test_ttm_gives_what_published_code_gives():
    """The value of the authors' own function on these logits, at their gamma."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = 2 * torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    assert ttm_loss(student, teacher).item() == pytest.approx(1.5432661147086308, rel=1e-12)


# ------------------------------------------------------------------------------------------- wttm


def test_wttm_by_hand():
    """Teacher (9/10, 1/10), gamma 1/2: powers (3, 1)/sqrt(10), their sum 4/sqrt(10), normalised (3/4, 1/4)."""
    teacher = torch.tensor([[0.9, 0.1]]).log()
    assert wttm_loss(STUDENT, teacher, gamma=0.5).item() == pytest.approx(4 / math.sqrt(10) * OTHERS, rel=1e-5)


def test_wttm_softens_the_teacher_alone():
    """gamma = 1 / T: the transformed teacher is softmax(z / T), the student stays at temperature 1."""
    student, teacher, _ = draw()
    known = 0.0
    for s, t in zip(student, teacher, strict=True):
        soft = (0.2 * t).softmax(0)
        weight = t.softmax(0).pow(0.2).sum()
        known += (weight * (soft * (soft.log() - s.log_softmax(0))).sum()).item() / 6
    assert wttm_loss(student, teacher).item() == pytest.approx(known, rel=1e-9)


def test_wttm_at_power_1_is_kd_at_temperature_1():
    student, teacher, _ = draw()
    torch.testing.assert_close(wttm_loss(student, teacher, 1.0), kd_loss(student, teacher, 1.0))


def test_wttm_is_least_at_the_transformed_teacher_and_weighs_unsure_images_more():
    student, teacher, _ = draw()
    assert wttm_loss(0.2 * teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    assert wttm_loss(teacher, teacher) > 0.1
    # d/ds is the power sum times (p - softened q) / B: between 1 (sure) and K^(1 - gamma) (knows nothing).
    student.requires_grad_()
    sure, unsure = torch.tensor([[80.0, 0, 0, 0, 0]] * 6), torch.zeros(6, 5)
    for master, weight in ((sure, 1.0), (unsure, 5**0.8)):
        (gradient,) = torch.autograd.grad(wttm_loss(student, master.double()), student)
        known = weight * (student.softmax(1) - (0.2 * master).softmax(1)) / 6
        torch.testing.assert_close(gradient, known, rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------------------------------------- dist


def test_dist_by_hand():
    """Probabilities (1/2, 1/3, 1/6), (1/6, 1/3, 1/2) against the same and the first again.

    Rows correlate with 1 and -1, mean 0. Columns: the first (1/2, 1/6) against a constant counts 0, so do
    the second, constant itself, and the third: mean 0.
    """
    student = torch.tensor([[3.0, 2, 1], [1, 2, 3]]).log()
    teacher = torch.tensor([[3.0, 2, 1], [3, 2, 1]]).log()
    assert dist_loss(student, teacher, temperature=1.0).item() == pytest.approx(2.0, rel=1e-6)
    assert dist_loss(student, teacher, 3.0, 0.0, temperature=1.0).item() == pytest.approx(3.0, rel=1e-6)
    # Against itself upside down rows correlate with -1, columns with -1, 0 (the constant one) and -1: mean -2/3.
    known = (1 + 1) + (1 + 2 / 3)
    assert dist_loss(student, student.flip(0), temperature=1.0).item() == pytest.approx(known, rel=1e-5)
    # Twice the logits at T = 2 are the same probabilities, with T² = 4 in front.
    assert dist_loss(2 * student, 2 * student.flip(0), temperature=2.0).item() == pytest.approx(4 * known, rel=1e-5)


def test_dist_is_corrcoef_of_rows_and_of_columns():
    student, teacher, _ = draw()
    p, q = (student / 4).softmax(1), (teacher / 4).softmax(1)
    rows = sum(torch.corrcoef(torch.stack([p[i], q[i]]))[0, 1] for i in range(6)) / 6
    columns = sum(torch.corrcoef(torch.stack([p[:, i], q[:, i]]))[0, 1] for i in range(5)) / 5
    torch.testing.assert_close(dist_loss(student, teacher), 16 * ((1 - rows) + (1 - columns)))
    torch.testing.assert_close(dist_loss(student, teacher, 2.0, 0.5), 16 * (2 * (1 - rows) + 0.5 * (1 - columns)))


@given(logits)
def test_dist_is_zero_at_the_teacher_wherever_it_varies(teacher):
    """The correlation of a vector with itself is 1, of a constant one it counts 0."""
    teacher = torch.from_numpy(teacher)
    q = (teacher / 4).softmax(1)
    constant = [(unit_deviation(q, dim).norm(dim=dim) < 0.5).float().mean().item() for dim in (1, 0)]
    assert dist_loss(teacher, teacher).item() == pytest.approx(16 * sum(constant), abs=1e-4)


def test_the_correlation_is_blind_to_affine_changes():
    generator = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 6, 5, generator=generator, dtype=torch.float64)
    for dim in (0, 1):
        known = (unit_deviation(p, dim) * unit_deviation(q, dim)).sum(dim)
        torch.testing.assert_close((unit_deviation(3 * p + 7, dim) * unit_deviation(q / 9 - 1, dim)).sum(dim), known)
        torch.testing.assert_close((unit_deviation(-p, dim) * unit_deviation(q, dim)).sum(dim), -known)


@pytest.mark.parametrize("name", ["dist", "lskd"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 100.0])
def test_constant_rows_give_no_nan_and_no_exploding_gradient(name, constant):
    """A zero-initialised classifier says the same of all: a small epsilon would make a gradient of 1e7 of it."""
    student = torch.full((6, 5), constant, requires_grad=True)
    teacher = draw()[1].float()
    loss = value(name, student, teacher, LABEL)
    loss.backward()
    assert loss.isfinite() and torch.equal(student.grad, torch.zeros(6, 5))
    assert value(name, teacher, student.detach(), LABEL).isfinite()
    if name == "dist":
        assert loss.item() == pytest.approx(2 * 16)  # no correlation at all


def test_one_image_has_rows_but_no_columns():
    student, teacher, _ = draw(rows=1)
    row = dist_loss(student, teacher, 1.0, 0.0)
    torch.testing.assert_close(dist_loss(student, teacher), row + 16)


# ------------------------------------------------------------------------------------------- mlkd


def test_mlkd_by_hand():
    """P = identity-like rows (1/2, 1/2) x 2 against (3/4, 1/4), (1/4, 3/4), at T = 1.

    KL is OTHERS for both images. Between images: teacher 10/16 on the diagonal, 6/16 off it, student 1/2
    throughout: four differences of 1/8. Between classes the same numbers. So (4 / 64) / 2 twice.
    """
    student, teacher = torch.zeros(2, 2), torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log()
    assert mlkd_loss(student, teacher, [1.0]).item() == pytest.approx(OTHERS + 2 * (4 / 64) / 2, rel=1e-5)


def test_the_squared_gram_difference_by_the_traces_of_small_products():
    """‖QQᵀ - PPᵀ‖² = ‖QᵀQ‖² - 2‖QᵀP‖² + ‖PᵀP‖², and likewise with the transposes."""
    student, teacher, _ = draw(7, 4)
    known = 0.0
    for temperature in (2.0, 3.0, 4.0, 5.0, 6.0):
        p, q = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
        images = ((q.T @ q) ** 2).sum() - 2 * ((q.T @ p) ** 2).sum() + ((p.T @ p) ** 2).sum()
        classes = ((q @ q.T) ** 2).sum() - 2 * ((q @ p.T) ** 2).sum() + ((p @ p.T) ** 2).sum()
        known = known + kd_loss(student, teacher, temperature) + images / 7 + classes / 4
    torch.testing.assert_close(mlkd_loss(student, teacher), known)


def test_mlkd_adds_its_temperatures():
    student, teacher, _ = draw()
    parts = [mlkd_loss(student, teacher, (t,)) for t in (2, 5)]
    torch.testing.assert_close(mlkd_loss(student, teacher, (2, 5)), sum(parts))


def test_mlkd_is_zero_at_the_teacher_and_blind_to_the_order_of_images():
    student, teacher, _ = draw()
    assert mlkd_loss(teacher, teacher).item() == 0
    order = torch.randperm(6)
    torch.testing.assert_close(mlkd_loss(student[order], teacher[order]), mlkd_loss(student, teacher))


# ------------------------------------------------------------------------------------ what all share


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences(name):
    student, teacher, target = draw()
    assert torch.autograd.gradcheck(lambda x: value(name, x, teacher, target), (student.requires_grad_(),))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [100.0, 1000.0])
def test_extreme_logits_stay_finite_and_agree_with_float64(name, size):
    """Also for labels that either network gives no probability, and at temperature 1."""
    student = size * torch.tensor([[1.0, -1, 0, 0.5], [-1, 1, 1, 0], [0, 1, 0, -1]])
    teacher = size * torch.tensor([[-1.0, 1, 0, -0.5], [1, -1, -1, 0], [0, 1, 1, -1]])
    target = torch.tensor([1, 0, 3])
    cold = {"mlkd": {"temperatures": (1.0,)}, "ttm": {"gamma": 1.0}, "wttm": {"gamma": 1.0}}.get(
        name, {"temperature": 1.0}
    )
    for parameters in ({}, cold):
        single, double = student.clone().requires_grad_(), student.double().requires_grad_()
        losses = (
            value(name, single, teacher, target, **parameters),
            value(name, double, teacher.double(), target, **parameters),
        )
        for loss in losses:
            loss.backward()
        assert losses[0].isfinite() and single.grad.isfinite().all()
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
        torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_reach_the_losses(name):
    student, teacher, target = (x.float() if x.is_floating_point() else x for x in draw(64, 10, scale=5.0))
    outside = value(name, student, teacher, target)
    with torch.autocast("cpu", torch.bfloat16):
        inside = value(name, student, teacher, target)
        halved = value(name, student.bfloat16(), teacher.bfloat16(), target)
    assert inside.item() == outside.item()
    assert inside.dtype == halved.dtype == torch.float32
    assert value(name, student.double(), teacher.double(), target).dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_only_the_student_gets_a_gradient_and_inputs_stay_as_they_are(name):
    student, teacher, target = draw()
    before = student.clone(), teacher.clone()
    student.requires_grad_()
    value(name, student, teacher, target).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    assert torch.equal(student, before[0]) and torch.equal(teacher, before[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_of_all_logits_changes_nothing(name):
    student, teacher, target = draw()
    known = value(name, student, teacher, target)
    torch.testing.assert_close(value(name, student + 3, teacher - 5, target), known)


@pytest.mark.parametrize("name", ["kd", "dkd", "nkd", "lskd", "ttm", "wttm"])
def test_a_batch_is_the_mean_of_its_images(name):
    student, teacher, target = draw()
    alone = [value(name, student[i : i + 1], teacher[i : i + 1], target[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(value(name, student, teacher, target), torch.stack(alone).mean())


@pytest.mark.parametrize("name", ["kd", "dkd", "lskd", "ttm", "wttm", "mlkd"])
def test_divergences_are_sums_over_classes_and_run_from_teacher_to_student(name):
    """A mean over the classes, or the divergence the other way round, would give other numbers."""
    student, teacher, target = draw(1, 5)
    assert abs(value(name, student, teacher, target) - value(name, teacher, student, target)) > 1e-3
    if name in ("kd", "dkd"):  # a sixth class that nobody takes for possible adds nothing
        wider = [torch.cat([x, torch.full((1, 1), -400.0, dtype=x.dtype)], 1) for x in (student, teacher)]
        torch.testing.assert_close(value(name, *wider, target), value(name, student, teacher, target))


# ----------------------------------------------------------------------------------------- records


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("student", ["cnn", "vit"])
def test_one_real_step_with_unlabelled_rows(name, student):
    made = setting(name, student, "wide-cnn")
    assert made.extras is None and made.method.refuse(made.pair, made.parameters) is None
    found = terms(made, rows=8, labelled=5)
    assert set(found) == {"ce", name}
    assert all(term.ndim == 0 and term.isfinite() and term.dtype == torch.float32 for term in found.values())
    sum(found.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.student.parameters() if p.requires_grad)
    assert all(p.grad is None for p in made.teacher.parameters())


def logits_of_a_step(name: str, labelled: int, **parameters) -> tuple[dict[str, Tensor], Tensor]:
    """The terms on chosen logits of 8 rows, and the gradient at the student's."""
    student, teacher, target = (x.float() if x.is_floating_point() else x for x in draw(8, 5))
    student.requires_grad_()
    nothing = torch.zeros(8, 1)
    method = METHODS[name]
    step = Step(
        student=Outputs(student, [], nothing, nothing),
        teacher=Outputs(teacher, [], nothing, nothing),
        target=target[:labelled],
        index=torch.arange(8),
        progress=parameters.pop("progress", 0.5),
        parameters=method.resolved(parameters),
        extras=None,
        student_network=None,
        teacher_network=None,
    )
    found = method.terms(step)
    found[name].backward()
    return found, student.grad


@pytest.mark.parametrize("name", NAMES)
def test_the_teachers_term_uses_the_unlabelled_rows_unless_it_needs_labels(name):
    found, gradient = logits_of_a_step(name, 5)
    assert gradient[:5].abs().sum() > 0
    assert (gradient[5:].abs().sum() > 0) == (not METHODS[name].uses_labels) == (name not in LABELS)
    rows = 5 if name in LABELS else 8
    student, teacher, target = (x.float() if x.is_floating_point() else x for x in draw(8, 5))
    weight = getattr(METHODS[name].resolved({}), f"{name}_weight")
    known = weight * value(name, student[:rows], teacher[:rows], target[:rows])
    assert found[name].item() == pytest.approx(known.item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_weights_multiply_their_terms_and_no_ce_keeps_the_squared_temperature(name):
    once = logits_of_a_step(name, 8)[0]
    weight = getattr(METHODS[name].resolved({}), f"{name}_weight")
    twice = logits_of_a_step(name, 8, **{f"{name}_weight": 2 * weight, "ce_weight": 0.0})[0]
    assert twice["ce"].item() == 0.0
    assert twice[name].item() == pytest.approx(2 * once[name].item(), rel=1e-6)


def test_defaults_are_the_published_ones():
    published = {
        "kd": {"temperature": 4, "ce_weight": 0.1, "kd_weight": 0.9},
        "dkd": {"alpha": 1, "beta": 8, "temperature": 4, "warmup": 20 / 240, "ce_weight": 1, "dkd_weight": 1},
        "nkd": {"gamma": 1.5, "temperature": 1, "ce_weight": 1, "nkd_weight": 1},
        "lskd": {"temperature": 2, "ce_weight": 0.1, "lskd_weight": 9},
        "ttm": {"gamma": 0.1, "ce_weight": 1, "ttm_weight": 45},
        "wttm": {"gamma": 0.2, "ce_weight": 1, "wttm_weight": 4},
        "dist": {"beta": 1, "gamma": 1, "temperature": 4, "ce_weight": 1, "dist_weight": 2},
        "mlkd": {"temperatures": [2, 3, 4, 5, 6], "ce_weight": 0.1, "mlkd_weight": 0.9},
    }
    student, teacher, target = draw()
    for name, parameters in published.items():
        assert METHODS[name].resolved({}).model_dump() == parameters
        # The loss alone has the same ones.
        own = {key: number for key, number in parameters.items() if "weight" not in key and key != "warmup"}
        assert torch.equal(value(name, student, teacher, target), value(name, student, teacher, target, **own))
    assert METHODS["kd"].version == 1 and not METHODS["kd"].differs


def test_every_parameter_reaches_its_loss():
    changed = {
        "kd": {"temperature": 2.0},
        "dkd": {"alpha": 2.0, "beta": 2.0, "temperature": 2.0, "warmup": 1.0},
        "nkd": {"gamma": 1.0, "temperature": 2.0},
        "lskd": {"temperature": 4.0},
        "ttm": {"gamma": 0.5},
        "wttm": {"gamma": 0.5},
        "dist": {"beta": 2.0, "gamma": 2.0, "temperature": 1.0},
        "mlkd": {"temperatures": [2.0, 3.0]},
    }
    for name, parameters in changed.items():
        weights = {"ce_weight", f"{name}_weight"}
        assert set(METHODS[name].parameters.model_fields) == {*parameters, *weights}
        known = logits_of_a_step(name, 8)[0][name].item()
        for parameter in parameters.items():
            assert logits_of_a_step(name, 8, **dict([parameter]))[0][name].item() != pytest.approx(known, rel=1e-3)


def test_dkd_rises_over_the_first_twelfth_of_the_training():
    full = logits_of_a_step("dkd", 8)[0]
    for progress, share in ((0.0, 0.0), (1 / 24, 0.5), (1 / 12, 1.0), (0.9, 1.0)):
        found = logits_of_a_step("dkd", 8, progress=progress)[0]
        assert found["dkd"].item() == pytest.approx(share * full["dkd"].item(), rel=1e-5)
        assert found["ce"].item() == full["ce"].item()
    assert logits_of_a_step("dkd", 8, progress=0.0, warmup=0.0)[0]["dkd"].item() == full["dkd"].item()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("kd", {"temperature": 0.0}),
        ("kd", {"temperature": -1.0}),
        ("kd", {"kd_weight": -0.1}),
        ("kd", {"temperature": "4"}),
        ("dkd", {"warmup": 1.5}),
        ("dkd", {"beta": -1.0}),
        ("nkd", {"gamma": -1.0}),
        ("lskd", {"temperature": 0.0}),
        ("ttm", {"gamma": 0.0}),
        ("wttm", {"gamma": 0.0}),
        ("dist", {"temperature": 0.0}),
        ("mlkd", {"temperatures": []}),
        ("mlkd", {"temperatures": [2.0, 0.0]}),
    ],
)
def test_parameters_out_of_range_are_refused(name, wrong):
    with pytest.raises(ValidationError):
        METHODS[name].resolved(wrong)


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_lower_the_methods_own_term(name):
    made = setting(name, "cnn", "wide-cnn", ce_weight=0.0)
    weight = getattr(made.parameters, f"{name}_weight")
    optimiser = torch.optim.SGD(made.student.parameters(), lr=0.05 / weight, momentum=0.9)
    seen = []
    for _ in range(12):
        loss = terms(made)[name]
        seen.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert seen[-1] < (0.98 if name == "nkd" else 0.95) * seen[0]  # most of NKD is the untrained teacher's entropy


@pytest.mark.parametrize("name", NAMES)
def test_descent_on_the_logits_reaches_the_losss_own_minimum(name):
    """KD and its kin end at the teacher's probabilities, WTTM at the softened ones, DIST and LSKD at their pattern."""
    student, teacher, target = draw(scale=1.0)
    student.requires_grad_()
    optimiser = torch.optim.LBFGS([student], max_iter=300, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = value(name, student, teacher, target)
        loss.backward()
        return loss

    optimiser.step(closure)
    reached = student.detach()
    if name in ("kd", "dkd", "mlkd"):
        torch.testing.assert_close(reached.softmax(1), teacher.softmax(1), rtol=1e-3, atol=1e-4)
    elif name in ("ttm", "wttm"):
        gamma = {"ttm": 0.1, "wttm": 0.2}[name]
        torch.testing.assert_close(reached.softmax(1), (gamma * teacher).softmax(1), rtol=1e-3, atol=1e-4)
    elif name == "lskd":
        torch.testing.assert_close(unit_deviation(reached, 1), unit_deviation(teacher, 1), rtol=1e-2, atol=1e-3)
    elif name == "dist":
        assert dist_loss(reached, teacher) < 1e-3
    else:  # the label is as sure as can be, the others are as the teacher's
        row = torch.arange(6)
        assert (reached.softmax(1)[row, target] > 0.99).all()
        others = [x.scatter(1, target.unsqueeze(1), -torch.inf).softmax(1) for x in (reached, teacher)]
        torch.testing.assert_close(*others, rtol=1e-2, atol=1e-3)
