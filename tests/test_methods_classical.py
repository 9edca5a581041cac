"""Factors, activation boundaries, flows, singular vectors, the overhaul and channel correlations: what they share."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from draws import normal
from pairs import PAIRS, pair, setting, terms
from pydantic import ValidationError
from torch import nn

from kdpipe.methods import METHODS, ab_loss, fsp_loss, ft_loss, ickd_loss, kdsvd_loss, ofd_loss

HERE = ["ft", "ab", "fsp", "kdsvd", "ofd", "ickd"]
AT_FIRST = {"ab", "fsp"}  # their term leads alone in the first part of the training
MARGINS = [torch.tensor([-0.5, -1.0, 0.0], dtype=torch.float64)] * 2
LOSSES = {
    "ft": lambda student, teacher: ft_loss(student[-1], teacher[-1]),
    "ft, p = 2": lambda student, teacher: ft_loss(student[-1], teacher[-1], p=2),
    "ab": ab_loss,
    "fsp": fsp_loss,
    "kdsvd": kdsvd_loss,
    "kdsvd, k = 2": partial(kdsvd_loss, k=2),
    "ofd": lambda student, teacher: ofd_loss(student, teacher, MARGINS),
    "ickd": lambda student, teacher: ickd_loss(student[-1], teacher[-1]),
}
each = pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))
every = pytest.mark.parametrize("name", HERE)


def maps(seed: int, images: int = 2, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Two layers of three channels."""
    return [normal(images, 3, side, side, seed=10 * seed + side, dtype=dtype) for side in (4, 2)]


def progress(name: str) -> float:
    return 0.0 if name in AT_FIRST else 0.5


# --------------------------------------------------------------------------------------- the losses


@each
def test_the_gradient_agrees_with_finite_differences(loss):
    """Of both layers; the singular vectors here are far enough from each other for their gradient to be exact."""
    student, teacher = [part.requires_grad_() for part in maps(1)], maps(2)
    assert loss(student, teacher).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda *own: loss(own, teacher), student, rtol=1e-3)


@each
def test_the_loss_is_zero_at_the_teacher_but_for_boundaries(loss):
    """Those ask for a margin, of which a teacher's small activations fall short."""
    student, teacher = maps(1), maps(2)
    assert loss(student, teacher) > 1e-4
    own = [part.clone().requires_grad_() for part in teacher]
    none = loss(own, teacher)
    if loss is ab_loss:
        assert none > 0 and loss([100 * part for part in teacher], teacher) < loss(teacher, teacher)
        return
    none.backward()
    assert none.abs() < 1e-14
    assert all(part.grad is None or part.grad.abs().max() < 1e-6 for part in own)


@each
def test_autocast_and_half_precision_do_not_reach_the_loss(loss):
    student, teacher = maps(1, dtype=torch.float32), maps(2, dtype=torch.float32)
    outside = loss(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(student, teacher)
        halved = loss([part.bfloat16() for part in student], [part.bfloat16() for part in teacher])
    assert inside.item() == outside.item() and inside.dtype == outside.dtype
    assert halved.item() == pytest.approx(outside.item(), rel=0.1)


@each
@pytest.mark.parametrize("kind", ["large", "constant", "one dead channel", "dead student", "dead teacher", "both dead"])
def test_value_and_gradient_are_finite_in_the_corners(loss, kind):
    student, teacher = maps(1, dtype=torch.float32), maps(2, dtype=torch.float32)
    if kind == "large":
        student, teacher = [100 * part.sign() for part in student], [-100 * part.sign() for part in teacher]
    elif kind == "constant":
        student = [torch.ones_like(part) for part in student]
    elif kind == "one dead channel":
        for part in (*student, *teacher):
            part[:, 1] = 0
    if "student" in kind or "both" in kind:
        student = [torch.zeros_like(part) for part in student]
    if "teacher" in kind or "both" in kind:
        teacher = [torch.zeros_like(part) for part in teacher]
    for part in student:
        part.requires_grad_()
    value = loss(student, teacher)
    value.backward()
    gradients = [part.grad for part in student if part.grad is not None]
    assert value.isfinite() and gradients
    assert all(gradient.isfinite().all() and gradient.abs().max() < 1e5 for gradient in gradients)


@each
def test_losses_leave_their_inputs_alone_and_average_over_images(loss):
    student, teacher = maps(1), maps(2)
    before = [part.clone() for part in (*student, *teacher)]
    both = loss(student, teacher).item()
    single = [loss([p[i : i + 1] for p in student], [p[i : i + 1] for p in teacher]).item() for i in range(2)]
    assert both == pytest.approx(sum(single) / 2, rel=1e-9)
    assert all(torch.equal(part, kept) for part, kept in zip((*student, *teacher), before, strict=True))


# ------------------------------------------------------------------------------------- real networks


@every
@pytest.mark.parametrize("names", PAIRS)
def test_a_real_step_trains_the_student_and_the_extras_or_is_refused_with_a_reason(name, names):
    method = METHODS[name]
    if reason := method.refuse(pair(*names), method.resolved({})):
        assert names[0] == "mobile" and name == "ickd" and "layer blocks.5 has a 1x1 map" in reason
        return
    made = setting(name, *names)
    parts = terms(made, rows=8, labelled=5, progress=progress(name))
    assert all(part.ndim == 0 and part.isfinite() and part.dtype == torch.float32 for part in parts.values())
    parts[name].backward()
    trained = made.extras.translator if name == "ft" else made.extras
    assert all(isinstance(p, nn.Parameter) and p.grad.isfinite().all() for p in trained.parameters())
    assert sum(p.grad.abs().sum() for p in made.student.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in made.teacher.parameters()) and not made.teacher.training


@every
def test_unlabelled_rows_count_for_the_teachers_term_alone(name):
    few, all_ = (
        terms(setting(name, "cnn", "wide-cnn"), rows=8, labelled=count, progress=progress(name)) for count in (5, 8)
    )
    assert few[name].item() == all_[name].item()
    assert not METHODS[name].uses_labels


@every
def test_a_few_steps_lower_the_methods_own_term(name):
    made = setting(name, "cnn", "wide-cnn")
    rate = {"ft": 1e-3, "ab": 0.1, "fsp": 1.0, "kdsvd": 0.05, "ofd": 0.3, "ickd": 0.03}[name]
    optimizer = torch.optim.SGD([*made.student.parameters(), *made.extras.parameters()], lr=rate)
    values = []
    for _ in range(6):
        term = terms(made, progress=progress(name))[name]
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
        values.append(term.item())
    assert values[-1] < 0.95 * values[0]


@every
def test_weights_multiply_their_terms(name):
    field = f"{name}_weight"
    default = getattr(METHODS[name].resolved({}), field)
    once = terms(setting(name, "cnn", "wide-cnn"), progress=progress(name))
    twice = terms(setting(name, "cnn", "wide-cnn", ce_weight=0.0, **{field: 2 * default}), progress=progress(name))
    assert twice[name].item() == pytest.approx(2 * once[name].item(), rel=1e-6)
    assert twice["ce"].item() == 0.0


@pytest.mark.parametrize("name", ["ab", "ofd", "fsp", "kdsvd"])
def test_layers_are_paired_by_depth_or_as_named_and_taken_in_order(name):
    def indices(**parameters):
        extras = setting(name, "cnn", "wide-cnn", **parameters).extras
        return (extras.connectors if name == "ofd" else extras).indices

    assert indices() == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert indices(pairs=[["layer3", "layer4"], ["layer1", "layer1"]]) == [(0, 0), (2, 3)]
    method = METHODS[name]
    reason = method.refuse(pair("cnn", "wide-cnn"), method.resolved({"pairs": [["layer1", "layer9"]]}))
    assert "names layer 'layer9'" in reason
    with pytest.raises(ValidationError):
        method.resolved({"pairs": []})


@pytest.mark.parametrize("name", ["ft", "ab", "fsp"])
def test_a_first_phase_is_a_share_of_the_training_and_every_term_is_reported_all_along(name):
    """The mean of a term over the steps of a log would be too small if steps left it out."""
    field = "paraphrasing" if name == "ft" else "initialisation"
    made = setting(name, "cnn", "wide-cnn", **{field: 0.3})
    first, after = (terms(made, progress=when) for when in (0.29, 0.3))
    assert first.keys() == after.keys()
    assert (first[name] > 0) == (name in AT_FIRST) and (after[name] > 0) == (name not in AT_FIRST)
    assert (first["ce"] > 0) == (name == "ft") and after["ce"] > 0
    for out in (0.0, 1.0):
        with pytest.raises(ValidationError):
            METHODS[name].resolved({field: out})
    silent = [term for term in (*first.values(), *after.values()) if term == 0]
    assert silent and not any(term.requires_grad for term in silent)  # no decay, no momentum from a weight of zero
