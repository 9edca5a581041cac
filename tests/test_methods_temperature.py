"""A learned temperature: its loss by hand, whom its gradient serves, and how it rises."""

from __future__ import annotations

import math

import pytest
import torch
from draws import normal
from pairs import PAIRS, pair, setting, terms
from pydantic import ValidationError

from kdpipe.methods import METHODS, Step
from kdpipe.methods.logits import kd_loss
from kdpipe.methods.temperature import GlobalTemperature, InstanceTemperature, ctkd_loss, reversed_gradient
from kdpipe.models.network import Outputs

STUDENT, TEACHER = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
KL = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL((3/4, 1/4) ‖ (1/2, 1/2))


def logits(rows: int = 6, classes: int = 5, dtype=torch.float64):
    return 2 * normal(rows, classes, dtype=dtype), 2 * normal(rows, classes, seed=1, dtype=dtype)


# ----------------------------------------------------------------------------------------- the loss


def test_the_loss_by_hand_at_two_temperatures():
    """Logits T times as large at temperature T are the same probabilities, and T² stands in front: (1 + 9) / 2."""
    student, teacher = torch.cat([STUDENT, STUDENT]), torch.cat([TEACHER, 3 * TEACHER])
    assert ctkd_loss(student, teacher, torch.tensor([1.0, 3.0])).item() == pytest.approx(5 * KL, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 15.6])
def test_at_one_fixed_temperature_it_is_kd(temperature):
    student, teacher = logits()
    fixed = torch.tensor([temperature], dtype=torch.float64)
    torch.testing.assert_close(ctkd_loss(student, teacher, fixed), kd_loss(student, teacher, temperature))
    torch.testing.assert_close(ctkd_loss(student, teacher, fixed.expand(6)), kd_loss(student, teacher, temperature))


def test_gradients_agree_with_finite_differences_for_the_logits_and_for_the_temperatures():
    """The temperature's is that of the product: T² and both softmaxes depend on it."""
    student, teacher = logits()
    for temperature in (torch.tensor([3.0]), torch.tensor([1.0, 2.0, 3.0, 5.0, 9.0, 20.0])):
        inputs = student.clone().requires_grad_(), temperature.double().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, t: ctkd_loss(x, teacher, t), inputs)


def test_autocast_does_not_reach_the_loss():
    student, teacher = logits(64, 10, torch.float32)
    temperature = torch.rand(64, generator=torch.Generator().manual_seed(0)) + 1
    outside = ctkd_loss(student, teacher, temperature)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ctkd_loss(student, teacher, temperature)
        halved = ctkd_loss(student.bfloat16(), teacher.bfloat16(), temperature.bfloat16())
    assert inside.item() == outside.item() and inside.dtype == halved.dtype == torch.float32


def test_logits_of_a_thousand_stay_finite():
    student = (1000 * torch.tensor([[1.0, -1, 0], [0, 1, -1]])).requires_grad_()
    temperature = torch.tensor([1.0, 21.0], requires_grad=True)
    loss = ctkd_loss(student, -student.detach(), temperature)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all() and temperature.grad.isfinite().all()


def test_logits_that_are_the_teachers_leave_the_temperature_where_it_is():
    _, teacher = logits()
    temperature = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    ctkd_loss(teacher, teacher, temperature).backward()
    assert temperature.grad.abs().max() < 1e-12


# ------------------------------------------------------------------------------------- the adversary


def test_a_reversed_gradient_changes_nothing_but_the_way_back():
    tensor = normal(3).requires_grad_()
    out = reversed_gradient(tensor, 0.25)
    assert torch.equal(out, tensor)
    (2 * out).sum().backward()
    assert torch.equal(tensor.grad, torch.full((3,), -0.5, dtype=torch.float64))


def step_of(per: str = "study", progress: float = 0.5, **parameters):
    """The term of a step on chosen logits, with a fresh temperature behind it."""
    student, teacher = logits(8, 10, torch.float32)
    student.requires_grad_()
    method, nothing = METHODS["ctkd"], torch.zeros(8, 1)
    chosen = method.resolved({"per": per, **parameters})
    torch.manual_seed(0)
    extras = method.extras(pair("cnn", "wide-cnn"), chosen)
    target, index = torch.arange(5), torch.arange(8)
    seen = Outputs(student, [], nothing, nothing), Outputs(teacher, [], nothing, nothing)
    return Step(*seen, target, index, progress, chosen, extras, None, None), extras, student, teacher


@pytest.mark.parametrize("per", ["study", "image"])
def test_what_lowers_the_loss_for_the_student_raises_it_for_the_temperature(per):
    """One small step of descent on the same term, taken by each alone."""
    for who in ("student", "temperature"):
        step, extras, student, _ = step_of(per)
        before = METHODS["ctkd"].terms(step)["ctkd"]
        before.backward()
        moved = [student] if who == "student" else list(extras.parameters())
        with torch.no_grad():
            for tensor in moved:
                tensor -= 0.01 * tensor.grad
        after = METHODS["ctkd"].terms(step)["ctkd"]
        assert (after < before) == (who == "student")


def test_the_students_gradient_is_kds_at_that_temperature():
    """Not a trace of the reversed gradient reaches the student, though its logits decide on the temperature."""
    for per in ("study", "image"):
        step, extras, student, teacher = step_of(per)
        METHODS["ctkd"].terms(step)["ctkd"].backward()
        temperature = extras(student, teacher).detach()
        alone = student.detach().requires_grad_()
        (0.9 * ctkd_loss(alone, teacher, temperature)).backward()
        torch.testing.assert_close(student.grad, alone.grad)


@pytest.mark.parametrize(("progress", "strength"), [(0.0, 0.0), (5 / 240, 0.5), (2.5 / 240, 0.146447), (0.9, 1.0)])
def test_the_reversal_rises_as_a_half_cosine_over_the_first_ten_of_240_epochs(progress, strength):
    def slope(progress, **parameters):
        step, extras, *_ = step_of(progress=progress, **parameters)
        METHODS["ctkd"].terms(step)["ctkd"].backward()
        return extras.before_sigmoid.grad.item()

    assert slope(progress) == pytest.approx(strength * slope(0.5), rel=1e-5, abs=1e-12)
    assert slope(0.0, warmup=0.0) == slope(0.5) == pytest.approx(slope(0.5, reversal=0.5) * 2, rel=1e-6)


def test_the_temperature_starts_where_published_code_starts_and_stays_in_its_range():
    """1 + 20 sigmoid(1), between 1 and 21."""
    learned = GlobalTemperature(1.0, 20.0)
    assert learned(None, None).item() == pytest.approx(1 + 20 / (1 + math.exp(-1)))
    for raw, known in ((-1e4, 1.0), (1e4, 21.0)):
        with torch.no_grad():
            learned.before_sigmoid.fill_(raw)
        assert learned(None, None).item() == pytest.approx(known)


def test_weight_decay_spares_the_temperature():
    """Decay goes to parameters of more than one dimension."""
    assert [p.ndim for p in GlobalTemperature(1.0, 20.0).parameters()] == [1]


def test_each_image_has_a_temperature_of_its_own_from_its_logits_alone():
    torch.manual_seed(0)
    learned = InstanceTemperature(10, 32, 1.0, 20.0)
    student, teacher = logits(8, 10, torch.float32)
    temperatures = learned(student, teacher)
    assert temperatures.shape == (8,) and len(temperatures.unique()) == 8
    assert (temperatures > 1).all() and (temperatures < 21).all()
    torch.testing.assert_close(learned(student[3:5], teacher[3:5]), temperatures[3:5])


# -------------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize("per", ["study", "image"])
@pytest.mark.parametrize("names", PAIRS)
def test_a_real_step_trains_student_and_temperature(per, names):
    made = setting("ctkd", *names, per=per)
    assert made.method.refuse(made.pair, made.parameters) is None
    found = terms(made, rows=8, labelled=5)
    assert set(found) == {"ce", "ctkd"} and all(term.isfinite() and term.ndim == 0 for term in found.values())
    found["ctkd"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.extras.parameters())
    assert sum(p.grad.abs().sum() for p in made.student.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in made.teacher.parameters())


def test_the_temperature_drifts_against_a_student_that_still_learns():
    """A dozen steps of descent on one term: the student's divergence falls at any temperature all the same."""
    made = setting("ctkd", "cnn", "wide-cnn", ce_weight=0.0)
    start = made.extras(None, None).item()
    learned = [*made.student.parameters(), *made.extras.parameters()]
    optimiser = torch.optim.SGD(learned, lr=0.02, momentum=0.9)
    seen = []
    for _ in range(12):
        loss = terms(made)["ctkd"]
        seen.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert seen[-1] < 0.95 * seen[0]
    assert made.extras(None, None).item() != start


def test_defaults_are_the_published_ones_and_wrong_ones_are_refused():
    assert METHODS["ctkd"].resolved({}).model_dump() == {
        "ce_weight": 0.1, "ctkd_weight": 0.9, "per": "study", "start": 1.0, "span": 20.0,
        "reversal": 1.0, "warmup": 10 / 240, "width": 32,
    }  # fmt: skip
    for wrong in ({"per": "class"}, {"start": 0.0}, {"span": 0.0}, {"warmup": 1.5}, {"reversal": -1.0}, {"width": 0}):
        with pytest.raises(ValidationError):
            METHODS["ctkd"].resolved(wrong)
