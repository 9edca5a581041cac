"""Losses against values worked out by hand, their limits, and the registry's records."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from torch import nn

from kdpipe.methods import METHODS, Pair, Step, fitnet_loss, kd_loss
from kdpipe.methods.features import Regressor, refuse_points
from kdpipe.networks import Outputs, Tap

STUDENT, TEACHER = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
logits = arrays("float32", (5, 7), elements=st.floats(-20, 20, width=32))


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


def test_the_direction_is_from_teacher_to_student():
    assert kd_loss(STUDENT, TEACHER, 1.0).item() != pytest.approx(kd_loss(TEACHER, STUDENT, 1.0).item(), rel=1e-2)


@given(logits, logits, st.sampled_from([1.0, 4.0]))
@settings(max_examples=50)
def test_kd_is_never_negative_zero_at_the_teacher_and_blind_to_shifts(student, teacher, temperature):
    student, teacher = torch.from_numpy(student), torch.from_numpy(teacher)
    value = kd_loss(student, teacher, temperature)
    assert value >= -1e-4
    assert kd_loss(teacher, teacher, temperature).abs() < 1e-5
    shifted = kd_loss(student + 3.0, teacher - 5.0, temperature)
    assert shifted.item() == pytest.approx(value.item(), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_and_its_gradient_are_finite_at_extreme_logits(temperature):
    student = torch.tensor([[100.0, -100.0, 0.0], [-100.0, 100.0, 100.0]], requires_grad=True)
    teacher = -student.detach()
    loss = kd_loss(student, teacher, temperature)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()
    known = 0.0  # by a float64 evaluation that does not leave log space
    log_s, log_t = ((x.detach().double() / temperature).log_softmax(1) for x in (student, teacher))
    known = (log_t.exp() * (log_t - log_s)).sum(1).mean().item() * temperature**2
    assert loss.item() == pytest.approx(known, rel=1e-5)


def test_the_gradient_of_kd_is_the_difference_of_the_softened_probabilities():
    """d/ds of T² KL is T (p - q) / B."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(6, 10, generator=generator, requires_grad=True)
    teacher = torch.randn(6, 10, generator=generator)
    kd_loss(student, teacher, 4.0).backward()
    known = 4.0 * ((student / 4).softmax(1) - (teacher / 4).softmax(1)) / 6
    torch.testing.assert_close(student.grad, known.detach(), rtol=1e-4, atol=1e-7)


def test_autocast_does_not_reach_the_losses():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 64, 10, generator=generator) * 5
    maps = torch.randn(2, 8, 4, 6, 6, generator=generator)
    outside = kd_loss(student, teacher), fitnet_loss(*maps)
    with torch.autocast("cpu", torch.bfloat16):
        inside = kd_loss(student, teacher), fitnet_loss(*maps)
        halved = kd_loss(student.bfloat16(), teacher.bfloat16()), fitnet_loss(*maps.bfloat16())
    assert [x.item() for x in inside] == [x.item() for x in outside]
    assert all(x.dtype == torch.float32 for x in (*inside, *halved))


# ----------------------------------------------------------------------------------------- fitnet


def test_fitnet_is_the_mean_squared_difference():
    assert fitnet_loss(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 2.0)).item() == 4.0
    maps = torch.randn(2, 3, 4, 4)
    assert fitnet_loss(maps, maps).item() == 0.0


@pytest.mark.filterwarnings("ignore:Input #0 requires gradient and is not a double")
def test_fitnets_gradient_agrees_with_finite_differences():
    student = torch.randn(2, 2, 2, 2, requires_grad=True)
    teacher = torch.randn(2, 2, 2, 2)
    assert torch.autograd.gradcheck(lambda x: fitnet_loss(x, teacher), (student,), eps=1e-2, atol=1e-2)


def tap(channels: int, side: int, order: int = 0, depth: float = 0.0) -> Tap:
    return Tap(f"layer{order}", order, depth, None, (channels, side, side))


@pytest.mark.parametrize(("mine", "theirs"), [((4, 8), (6, 8)), ((4, 8), (6, 4)), ((4, 4), (6, 8))])
def test_the_regressor_brings_maps_to_one_shape_whichever_is_larger(mine, theirs):
    regressor = Regressor(tap(*mine), tap(*theirs), 0, 0)
    student = torch.randn(3, mine[0], mine[1], mine[1])
    teacher = torch.randn(3, theirs[0], theirs[1], theirs[1])
    one, other = regressor([student], [teacher])
    assert one.shape == other.shape == (3, 6, min(mine[1], theirs[1]), min(mine[1], theirs[1]))
    if theirs[1] <= mine[1]:
        assert torch.equal(other, teacher)  # the hint itself, as it is
    assert all(isinstance(p, nn.Parameter) for p in regressor.parameters())
    assert len(list(regressor.parameters())) == 3


TEACHER_TAPS = [tap(8, 8, 0, 0.0), tap(16, 4, 1, 0.5), tap(32, 2, 2, 1.0)]


def test_the_hint_is_at_the_asked_depth_of_both_networks():
    student = [tap(4, 8 >> i // 2, i, i / 4) for i in range(5)]
    method = METHODS["fitnet"]
    middle = method.extras(Pair(student, TEACHER_TAPS, 10), method.resolved({}))
    assert (middle.student_index, middle.teacher_index) == (2, 1)
    last = method.extras(Pair(student, TEACHER_TAPS, 10), method.resolved({"depth": 1.0}))
    assert (last.student_index, last.teacher_index) == (4, 2)


def test_maps_of_one_point_are_refused_by_name():
    method = METHODS["fitnet"]
    points = [tap(4, 1, i, i / 2) for i in range(3)]
    reason = method.refuse(Pair(points, TEACHER_TAPS, 10), method.resolved({}))
    assert "layer1 has a 1x1 map" in reason and "stem = 'small'" in reason
    assert method.refuse(Pair(TEACHER_TAPS, TEACHER_TAPS, 10), method.resolved({})) is None
    assert refuse_points([Tap("thin", 0, 0.0, None, (3, 1, 9))])


# --------------------------------------------------------------------------------------- registry


def outputs(count: int, channels: int, side: int = 4, grad: bool = False) -> Outputs:
    made = torch.randn(count, 10), [torch.randn(count, channels, side, side) for _ in range(3)]
    return Outputs(made[0].requires_grad_(grad), [m.requires_grad_(grad) for m in made[1]])


@pytest.mark.parametrize("name", list(METHODS))
def test_every_record_is_complete_and_its_terms_are_named_and_finite(name):
    method = METHODS[name]
    assert method.name == name and method.title and method.summary and method.formula and method.citation
    parameters = method.resolved({})
    json.dumps(parameters.model_dump(mode="json"))
    with pytest.raises(ValidationError):
        method.resolved({"no_such_parameter": 1})
    taps = [tap(6, 4, i, i / 2) for i in range(3)]
    extras = method.extras(Pair(taps, taps, 10), parameters)
    student, teacher = outputs(8, 6, grad=True), outputs(8, 6)
    target = torch.arange(5)  # the last three images have no label
    terms = method.terms(Step(student, teacher if method.needs_teacher else None, target, parameters, extras))
    assert all(term.ndim == 0 and term.isfinite() and term.dtype == torch.float32 for term in terms.values())
    sum(terms.values()).backward()
    assert student.logits.grad[:5].abs().sum() > 0
    assert teacher.logits.grad is None and all(m.grad is None for m in teacher.maps)
    if not method.needs_teacher:
        assert student.logits.grad[5:].abs().sum() == 0


@pytest.mark.parametrize(("name", "term"), [("kd", "kd"), ("fitnet", "hint")])
def test_unlabelled_rows_reach_the_teachers_term_alone(name, term):
    method = METHODS[name]
    taps = [tap(6, 4, i, i / 2) for i in range(3)]
    extras = method.extras(Pair(taps, taps, 10), method.resolved({}))
    student, teacher, target = outputs(8, 6), outputs(8, 6), torch.arange(5)
    both = [method.terms(Step(student.rows(n), teacher.rows(n), target, method.resolved({}), extras)) for n in (5, 8)]
    assert both[0]["ce"].item() == both[1]["ce"].item()
    assert both[0][term].item() != both[1][term].item()


def test_weights_multiply_their_terms():
    student, teacher, target = outputs(8, 6), outputs(8, 6), torch.arange(8)

    def terms(**parameters):
        return METHODS["kd"].terms(Step(student, teacher, target, METHODS["kd"].resolved(parameters), None))

    once, twice = terms(), terms(kd_weight=1.8, ce_weight=0.0)
    assert twice["kd"].item() == pytest.approx(2 * once["kd"].item(), rel=1e-6)
    assert twice["ce"].item() == 0.0  # and the squared temperature is still there
    expected = 1.8 * kd_loss(student.logits, teacher.logits, 4.0).item()
    assert twice["kd"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0.0}, {"temperature": -1.0}, {"kd_weight": -0.1}, {"temperature": "4"}]
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        METHODS["kd"].resolved(wrong)
