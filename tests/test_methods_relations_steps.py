"""Methods on relations, and function matching, as records: what they refuse, their extras, one real step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pairs import PAIRS, pair, setting, terms
from pydantic import ValidationError
from torch import nn

from kdpipe.methods import METHODS
from kdpipe.methods.base import Pair
from kdpipe.methods.logits import kd_loss
from kdpipe.methods.relations import CorrelationHeads, cc_loss

NAMES = ["rkd", "sp", "cc", "pkt", "nst", "funmatch"]


def test_nst_refuses_points_and_unknown_layers_by_name():
    method, shapes = METHODS["nst"], pair("cnn", "wide-cnn")
    parameters = method.resolved({})
    assert method.refuse(shapes, parameters) is None
    last = shapes.student.taps[-1]
    point = replace(shapes.student, taps=[*shapes.student.taps[:-1], replace(last, shape=(24, 1, 1))])
    reason = method.refuse(Pair(point, shapes.teacher, 10), parameters)
    assert f"layer {last.layer} has a 1x1 map" in reason
    named = method.resolved({"pairs": [["layer1", "nowhere"]]})
    assert "nowhere" in method.refuse(shapes, named)
    # A layer that takes no part may be a point.
    assert method.refuse(Pair(point, shapes.teacher, 10), method.resolved({"pairs": [["layer1", "layer2"]]})) is None


def test_ccs_teacher_layer_is_saved_and_does_not_train():
    heads = CorrelationHeads(24, 40, 128)
    assert set(heads.state_dict()) == {"student.weight", "teacher.weight"}
    assert [name for name, p in heads.named_parameters() if p.requires_grad] == ["student.weight"]


def test_with_a_fixed_teacher_layer_the_heads_cannot_meet_in_one_direction():
    """If both trained, the loss would go to nothing for a student that knows nothing, as all images become one."""
    torch.manual_seed(0)
    student, teacher = torch.randn(16, 6).relu(), torch.randn(16, 8).relu()
    heads = CorrelationHeads(6, 8, 16)
    left = {}
    for free in (False, True):
        parameters = [nn.Parameter(p.detach().clone(), requires_grad=True) for p in heads.parameters()]
        optimizer = torch.optim.SGD(parameters if free else parameters[:1], lr=1.0, momentum=0.9)
        for _ in range(100):
            loss = 100 * cc_loss(student @ parameters[0].T, teacher @ parameters[1].T)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        left[free] = loss.item()
    assert left[True] < 0.2 * left[False]


# ---------------------------------------------------------------------------------------- one step


# The slow student takes part where its shapes matter.
@pytest.mark.parametrize(
    ("name", "student", "teacher"),
    [(name, *kinds) for name in NAMES for kinds in PAIRS if kinds[0] != "mobile" or name in {"sp", "cc", "nst"}],
)
def test_a_step_on_every_pair_has_named_finite_terms_and_a_gradient(name, student, teacher):
    method = METHODS[name]
    shapes, parameters = pair(student, teacher), method.resolved({})
    if reason := method.refuse(shapes, parameters):
        assert name == "nst" and "map" in reason
        return
    made = setting(name, student, teacher)
    found = terms(made, rows=8, labelled=5)
    assert set(found) == ({"kl"} if name == "funmatch" else {"ce", name})
    assert all(term.ndim == 0 and term.isfinite() and term.dtype == torch.float32 for term in found.values())
    found[name if name in found else "kl"].backward()
    assert sum(p.grad.abs().sum() for p in made.student.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in made.teacher.parameters())
    if made.extras is not None:
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.extras.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", NAMES)
def test_all_rows_reach_the_teachers_term_and_labelled_ones_alone_the_cross_entropy(name):
    made = setting(name, "cnn", "wide-cnn")
    made.student.eval().train = lambda mode=True: made.student  # batch norm would tie rows together
    eight, same = terms(made, rows=8, labelled=5), terms(made, rows=8, labelled=8)
    term = "kl" if name == "funmatch" else name
    assert eight[term].item() == same[term].item()  # no label is read
    if term != "kl":
        assert eight["ce"].item() != same["ce"].item()
    assert not METHODS[name].uses_labels


@pytest.mark.parametrize("name", NAMES)
def test_weights_multiply_and_defaults_are_the_published_ones(name):
    weight = {"rkd": 1.0, "sp": 3000.0, "cc": 100.0, "pkt": 30000.0, "nst": 50.0, "funmatch": 1.0}[name]
    term = "kl" if name == "funmatch" else name
    assert getattr(METHODS[name].resolved({}), f"{term}_weight") == weight
    made = setting(name, "cnn", "wide-cnn")
    once = terms(made)
    made.parameters = METHODS[name].resolved({f"{term}_weight": 2 * weight})
    twice = terms(made)
    assert twice[term].item() == pytest.approx(2 * once[term].item(), rel=1e-5)
    with pytest.raises(ValidationError):
        METHODS[name].resolved({f"{term}_weight": -1.0})


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_lower_the_methods_own_term(name):
    made = setting(name, "cnn", "wide-cnn")
    term = "kl" if name == "funmatch" else name
    modules = [made.student] + ([made.extras] if made.extras is not None else [])
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    values = []
    for _ in range(3):
        loss = terms(made, rows=8)[term]
        values.append(loss.item())
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        length = torch.stack([g.norm() for g in gradients if g is not None]).norm()
        with torch.no_grad():  # steps of one length, whatever the weight in front of the term
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter -= 0.1 * gradient / length
    assert values[-1] < 0.97 * values[0], values


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("rkd", [{"distance_weight": 5.0}, {"angle_weight": 1.0}]),
        ("cc", [{"gamma": 0.8}, {"order": 1}]),
        ("funmatch", [{"temperature": 3.0}]),
    ],
)
def test_every_parameter_reaches_its_term(name, changes):
    made = setting(name, "cnn", "wide-cnn")
    term = "kl" if name == "funmatch" else name
    usual = terms(made)[term].item()
    for change in changes:
        made.parameters = METHODS[name].resolved(change)
        assert terms(made)[term].item() != pytest.approx(usual, rel=1e-4)


def test_parameters_of_extras_reach_them():
    shapes = pair("cnn", "wide-cnn")
    assert METHODS["cc"].extras(shapes, METHODS["cc"].resolved({"width": 7})).student.weight.shape == (7, 24)
    assert METHODS["cc"].extras(shapes, METHODS["cc"].resolved({})).teacher.weight.shape == (128, 40)
    chosen = METHODS["nst"].resolved({"pairs": [["layer4", "layer2"]]})
    maps = list("abcde")
    assert METHODS["nst"].extras(shapes, chosen)(maps, maps) == (["d"], ["b"])


# --------------------------------------------------------------------------------------- consistency


def test_funmatch_is_kd_at_temperature_one_on_mixed_views_and_nothing_else():
    method = METHODS["funmatch"]
    assert method.views == "mixup" and method.resolved({}).temperature == 1.0
    made = setting("funmatch", "cnn", "wide-cnn")
    found = terms(made, rows=8, labelled=5)
    assert list(found) == ["kl"]
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    known = kd_loss(made.student(images).logits, made.teacher(images).logits, temperature=1.0)
    assert found["kl"].item() == pytest.approx(known.item(), rel=1e-5)
    assert "steps" in method.differs
