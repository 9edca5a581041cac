"""Losses on feature maps against values worked out by hand, their limits, and one real step of each."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from draws import normal
from hypothesis import given
from hypothesis import strategies as st
from pairs import PAIRS, pair, setting, terms
from pydantic import ValidationError
from torch import nn

from kdpipe.methods import METHODS, Pair, Step
from kdpipe.methods.features import Regressor, at_loss, fitnet_loss, vid_loss
from kdpipe.methods.layers import meet, refuse_points
from kdpipe.methods.numerics import unit
from kdpipe.methods.pyramids import reviewkd_loss
from kdpipe.models.network import Outputs
from kdpipe.models.profile import Profile, Tap

HERE = {"fitnet": "hint", "at": "at", "vid": "vid", "reviewkd": "reviewkd"}


def tap(channels: int, side: int, order: int = 0, depth: float = 0.0) -> Tap:
    return Tap(f"layer{order}", order, depth, None, (channels, side, side))


def profile(taps: list[Tap]) -> Profile:
    return Profile(taps, 0, 0, taps[-1].shape[0], taps[-1].shape, True, True)


def of(student: list[Tap], teacher: list[Tap]) -> Pair:
    return Pair(profile(student), profile(teacher), 10)


def fixed(loss):
    """A loss of two maps, with what else it takes held fixed."""
    return {
        "fitnet": fitnet_loss,
        "at": lambda one, other: at_loss([one], [other]),
        "vid": lambda one, other: vid_loss(one, other, torch.linspace(-2, 2, one.shape[1], dtype=one.dtype)),
        "reviewkd": lambda one, other: reviewkd_loss([one], [other]),
    }[loss]


# ------------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("name", HERE)
def test_gradients_agree_with_finite_differences_in_float64(name):
    student, teacher = normal(2, 2, 4, 4).requires_grad_(), normal(2, 2, 4, 4, seed=1)
    assert fixed(name)(student, teacher).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda x: fixed(name)(x, teacher), (student,))


@pytest.mark.parametrize("name", HERE)
def test_autocast_does_not_reach_the_losses(name):
    student, teacher = normal(4, 6, 8, 8, dtype=torch.float32), normal(4, 6, 8, 8, seed=1, dtype=torch.float32)
    outside = fixed(name)(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        inside = fixed(name)(student, teacher)
        halved = fixed(name)(student.bfloat16(), teacher.bfloat16())
    assert inside.item() == outside.item() and inside.dtype == halved.dtype == torch.float32
    assert halved.item() == pytest.approx(outside.item(), rel=0.05)


@pytest.mark.parametrize("name", HERE)
def test_maps_of_a_hundred_and_dead_maps_give_finite_losses_and_gradients(name):
    large = 100 * torch.sign(normal(2, 3, 4, 4, dtype=torch.float32))
    for student, teacher in ((large, -large), (torch.zeros_like(large), large), (large, torch.zeros_like(large))):
        student = student.clone().requires_grad_()
        loss = fixed(name)(student, teacher)
        loss.backward()
        assert loss.isfinite() and student.grad.isfinite().all() and student.grad.abs().max() < 1e8


@pytest.mark.parametrize("name", HERE)
def test_losses_leave_their_inputs_alone_and_average_over_images(name):
    student, teacher = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    before = student.clone(), teacher.clone()
    both = fixed(name)(student, teacher)
    each = [fixed(name)(student[i : i + 1], teacher[i : i + 1]) for i in range(2)]
    assert both.item() == pytest.approx((each[0] + each[1]).item() / 2, rel=1e-12)
    assert torch.equal(student, before[0]) and torch.equal(teacher, before[1])


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("names", PAIRS[:4])
def test_a_real_step_is_finite_or_refused_with_a_reason(name, names):
    method = METHODS[name]
    if reason := method.refuse(pair(*names), method.resolved({})):
        assert names[0] == "mobile" and name in {"at", "reviewkd"}
        assert "layer blocks.5 has a 1x1 map" in reason
        return
    made = setting(name, *names)
    parts = terms(made, rows=8, labelled=5)
    assert set(parts) == {"ce", HERE[name]}
    assert all(part.ndim == 0 and part.isfinite() and part.dtype == torch.float32 for part in parts.values())
    parts[HERE[name]].backward()
    trained = list(made.extras.parameters())
    assert all(isinstance(p, nn.Parameter) and p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert sum(p.grad.abs().sum() for p in made.student.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in made.teacher.parameters()) and not made.teacher.training


@pytest.mark.parametrize("name", HERE)
def test_unlabelled_rows_count_for_the_teachers_term_alone(name):
    few, all_ = (terms(setting(name, "cnn", "wide-cnn"), rows=8, labelled=n) for n in (5, 8))
    assert few[HERE[name]].item() == all_[HERE[name]].item()
    assert few["ce"].item() != all_["ce"].item()
    assert not METHODS[name].uses_labels


@pytest.mark.parametrize("name", HERE)
def test_a_few_steps_lower_the_methods_own_term(name):
    # A variance far above the error hides the mean's progress for hundreds of steps.
    made = setting(name, "cnn", "wide-cnn", **({"initial_variance": 0.5} if name == "vid" else {}))
    rate = {"fitnet": 0.003, "at": 3e-4, "vid": 3.0, "reviewkd": 1.0}[name]
    optimizer = torch.optim.SGD([*made.student.parameters(), *made.extras.parameters()], lr=rate)
    values = []
    for _ in range(5):
        term = terms(made)[HERE[name]]
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
        values.append(term.item())
    assert values[-1] < values[0] - 0.05 * abs(values[0])


@pytest.mark.parametrize("name", HERE)
def test_weights_multiply_their_terms(name):
    once = terms(setting(name, "cnn", "wide-cnn"))
    field = f"{HERE[name]}_weight"
    default = getattr(METHODS[name].resolved({}), field)
    twice = terms(setting(name, "cnn", "wide-cnn", ce_weight=0.0, **{field: 2 * default}))
    assert twice[HERE[name]].item() == pytest.approx(2 * once[HERE[name]].item(), rel=1e-6)
    assert twice["ce"].item() == 0.0


@pytest.mark.parametrize("name", ["at", "vid", "reviewkd"])
def test_layers_are_paired_by_depth_or_as_named(name):
    by_depth = setting(name, "cnn", "wide-cnn").extras
    assert sorted(by_depth.indices) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    named = setting(name, "cnn", "wide-cnn", pairs=[["layer1", "layer2"], ["layer3", "layer1"]]).extras
    assert sorted(named.indices) == [(0, 1), (2, 0)]
    method = METHODS[name]
    reason = method.refuse(pair("cnn", "wide-cnn"), method.resolved({"pairs": [["layer1", "layer9"]]}))
    assert "names layer 'layer9'" in reason and "teacher's layers are layer1" in reason
    with pytest.raises(ValidationError):
        method.resolved({"pairs": []})
    # Naming earlier layers serves a pair that is refused as a whole.
    earlier = method.resolved({"pairs": [["blocks.1", "layer3"]]})
    assert method.refuse(pair("mobile", "wide-cnn"), earlier) is None


def test_maps_meet_at_the_smaller_side_of_each():
    one, other = meet(torch.ones(2, 3, 4, 9), torch.ones(2, 5, 6, 3))
    assert one.shape == (2, 3, 4, 3) and other.shape == (2, 5, 4, 3)
    same = torch.randn(2, 3, 4, 4)
    assert torch.equal(meet(same, same)[0], same)


def test_unit_vectors_have_length_one_and_none_stays_none():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    made = unit(vectors)
    assert made.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]
    (made * torch.tensor([1.0, 5.0])).sum().backward()
    # A clamped norm, as F.normalize takes it, has a slope of 1e12 at zero.
    assert vectors.grad[1].tolist() == [0.0, 0.0]


# ----------------------------------------------------------------------------------------- fitnet


def test_fitnet_is_the_mean_squared_difference():
    assert fitnet_loss(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 2.0)).item() == 4.0
    assert fitnet_loss(normal(2, 3, 4, 4), normal(2, 3, 4, 4)).item() == 0.0


@pytest.mark.parametrize(("mine", "theirs"), [((4, 8), (6, 8)), ((4, 8), (6, 4)), ((4, 4), (6, 8))])
def test_the_regressor_brings_maps_to_one_shape_whichever_is_larger(mine, theirs):
    regressor = Regressor(tap(*mine), tap(*theirs), 0, 0)
    student = torch.randn(3, mine[0], mine[1], mine[1])
    teacher = torch.randn(3, theirs[0], theirs[1], theirs[1])
    one, other = regressor([student], [teacher])
    assert one.shape == other.shape == (3, 6, min(mine[1], theirs[1]), min(mine[1], theirs[1]))
    if theirs[1] <= mine[1]:
        assert torch.equal(other, teacher)  # the hint itself, as it is
    assert len(list(regressor.parameters())) == 3


TEACHER_TAPS = [tap(8, 8, 0, 0.0), tap(16, 4, 1, 0.5), tap(32, 2, 2, 1.0)]


def test_the_hint_is_at_the_asked_depth_of_both_networks_or_where_it_is_named():
    student, method = [tap(4, 8 >> i // 2, i, i / 4) for i in range(5)], METHODS["fitnet"]

    def places(**parameters):
        made = method.extras(of(student, TEACHER_TAPS), method.resolved(parameters))
        return made.student_index, made.teacher_index

    assert places() == (2, 1)
    assert places(depth=1.0) == (4, 2)
    assert places(depth=1.0, pairs=[["layer1", "layer2"]]) == (1, 2)


def test_fitnets_default_parameters_are_what_they_were():
    default = METHODS["fitnet"].resolved({})
    assert default.model_dump(mode="json", exclude_none=True) == {"ce_weight": 1.0, "hint_weight": 100.0, "depth": 0.5}
    for wrong in ([], [["layer1", "layer1"], ["layer2", "layer2"]], [["layer1"]]):
        with pytest.raises(ValidationError):
            METHODS["fitnet"].resolved({"pairs": wrong})


def test_hints_of_one_point_and_of_unknown_layers_are_refused_by_name():
    method, points = METHODS["fitnet"], [tap(4, 1, i, i / 2) for i in range(3)]
    reason = method.refuse(of(points, TEACHER_TAPS), method.resolved({}))
    assert "layer1 has a 1x1 map" in reason and "stem = 'small'" in reason
    assert method.refuse(of(TEACHER_TAPS, TEACHER_TAPS), method.resolved({})) is None
    assert refuse_points([Tap("thin", 0, 0.0, None, (3, 1, 9))])
    unknown = method.resolved({"pairs": [["nowhere", "layer1"]]})
    assert "'nowhere'" in method.refuse(of(TEACHER_TAPS, TEACHER_TAPS), unknown)


# --------------------------------------------------------------------------------------------- at


def test_attention_transfer_by_hand():
    """Attention (1, 0, 0, 0) against (0, 3, 4, 0) / 5: squared distance 1 + 9/25 + 16/25 = 2, over 4 positions."""
    student = torch.tensor([[[[0.6, 0.0], [0.0, 0.0]], [[0.8, 0.0], [0.0, 0.0]]]])  # 0.36 + 0.64 = 1
    teacher = torch.tensor([[[[0.0, math.sqrt(3)], [2.0, 0.0]]]])
    assert at_loss([student], [teacher]).item() == pytest.approx(2 / 4, rel=1e-6)
    assert at_loss([student, teacher], [teacher, teacher]).item() == pytest.approx(2 / 4, rel=1e-6)
    assert at_loss([student, student], [teacher, teacher]).item() == pytest.approx(1.0, rel=1e-6)


def test_attention_transfer_is_a_cosine_in_disguise():
    """|u - v|² = 2 - 2 cos for unit vectors, averaged over H x W positions."""
    student, teacher = normal(5, 3, 4, 6), normal(5, 7, 4, 6, seed=1)
    energies = [part.square().sum(1).flatten(1) for part in (student, teacher)]
    known = (2 - 2 * F.cosine_similarity(*energies)).mean() / 24
    assert at_loss([student], [teacher]).item() == pytest.approx(known.item(), rel=1e-12)


@given(st.floats(0.01, 100.0), st.integers(0, 10))
def test_attention_is_blind_to_scale_sign_and_order_of_channels(scale, seed):
    student, teacher = normal(2, 4, 3, 3, seed=seed), normal(2, 6, 3, 3, seed=seed + 1)
    value = at_loss([student], [teacher]).item()
    assert at_loss([-scale * student.flip(1)], [teacher / scale]).item() == pytest.approx(value, rel=1e-9)
    assert at_loss([scale * teacher.flip(1)], [teacher]).item() == pytest.approx(0.0, abs=1e-12)


def test_attention_maps_are_pooled_and_not_the_maps_that_would_cancel():
    """A map of +1 and -1 has an even attention, at any size."""
    stripes = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 4, 4)
    assert at_loss([stripes], [torch.ones(1, 3, 2, 2)]).item() == pytest.approx(0.0, abs=1e-12)


# -------------------------------------------------------------------------------------------- vid


def log_scale(variance: float) -> float:
    return math.log(math.expm1(variance - 1e-5))


def test_vid_by_hand():
    """Variance 1 and distance 2: (0 + 4) / 2. Variance 4 and distance 2: (ln 4 + 4/4) / 2. The mean of the two."""
    student, teacher = torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), 2.0)
    scales = torch.tensor([log_scale(1.0), log_scale(4.0)])
    known = (2.0 + (math.log(4) + 1) / 2) / 2
    assert vid_loss(student, teacher, scales).item() == pytest.approx(known, rel=1e-5)


def test_vid_is_the_normal_distributions_likelihood_but_for_a_constant():
    student, teacher, scales = normal(3, 4, 5, 5), normal(3, 4, 5, 5, seed=1), normal(4, seed=2)
    sigma = (F.softplus(scales) + 1e-5).sqrt().view(1, 4, 1, 1)
    known = -torch.distributions.Normal(student, sigma).log_prob(teacher).mean() - 0.5 * math.log(2 * math.pi)
    assert vid_loss(student, teacher, scales).item() == pytest.approx(known.item(), rel=1e-12)


def test_the_best_variance_of_a_channel_is_its_mean_squared_error():
    student, teacher = normal(3, 2, 4, 4), 1 + normal(3, 2, 4, 4, seed=1)
    error = (teacher - student).square().mean((0, 2, 3))
    scales = torch.log(torch.expm1(error - 1e-5)).requires_grad_()
    vid_loss(student, teacher, scales).backward()
    assert scales.grad.abs().max() < 1e-12


def test_the_gradient_of_the_log_scale_agrees_with_finite_differences():
    student, teacher, scales = normal(2, 3, 4, 4), normal(2, 3, 2, 2, seed=1), normal(3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: vid_loss(student, teacher, x), (scales,))


@pytest.mark.parametrize("extreme", [-100.0, 100.0])
def test_extreme_log_scales_stay_finite(extreme):
    scales = torch.full((3,), extreme, requires_grad=True)
    loss = vid_loss(torch.full((1, 3, 2, 2), 100.0), torch.full((1, 3, 2, 2), -100.0), scales)
    loss.backward()
    assert loss.isfinite() and scales.grad.isfinite().all()


def test_vids_log_scales_are_trained_saved_and_spared_from_weight_decay():
    made = setting("vid", "cnn", "vit")
    scales = {name: p for name, p in made.extras.named_parameters() if "log_scale" in name}
    assert len(scales) == 4 and set(scales) <= set(made.extras.state_dict())
    for scale, (_, teacher) in zip(scales.values(), made.extras.indices, strict=True):
        assert scale.shape == (made.pair.teacher.taps[teacher].shape[0],)  # one dimension: no decay
        assert torch.allclose(F.softplus(scale), torch.tensor(5.0))
    terms(made)["vid"].backward()
    assert all(scale.grad.abs().sum() > 0 for scale in scales.values())


# --------------------------------------------------------------------------- who gets a gradient


@pytest.mark.parametrize("name", HERE)
def test_every_row_learns_from_the_teacher_and_the_teacher_from_nobody(name):
    made = setting(name, "cnn", "wide-cnn")

    def outputs(profile, seed):
        layers = [normal(8, *t.shape, seed=seed, dtype=torch.float32).requires_grad_() for t in profile.taps]
        logits = normal(8, 10, seed=seed, dtype=torch.float32).requires_grad_()
        return Outputs(logits, layers, layers[-1].mean((2, 3)), layers[-1])

    student, teacher = outputs(made.pair.student, 1), outputs(made.pair.teacher, 2)
    teacher = Outputs(teacher.logits.detach(), [m.detach() for m in teacher.maps], teacher.pooled, teacher.final)
    step = Step(
        student,
        teacher,
        torch.arange(5),
        torch.arange(8),
        0.5,
        made.parameters,
        made.extras,
        made.student,
        made.teacher,
    )
    parts = made.method.terms(step)
    parts[HERE[name]].backward()
    touched = [m.grad for m in student.maps if m.grad is not None]
    assert touched and all((gradient.flatten(1).abs().sum(1) > 0).all() for gradient in touched)
    assert student.logits.grad is None
