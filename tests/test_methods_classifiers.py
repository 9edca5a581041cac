"""SimKD, CAT-KD and OFA against values worked out by hand, their limits, and one real step of each."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from draws import normal
from pairs import PAIRS, SHAPE, network, pair, setting, terms
from pydantic import ValidationError
from torch import nn

from kdpipe.methods import METHODS, Step
from kdpipe.methods.classifiers import catkd_loss, class_activation_maps, ofa_loss, simkd_loss
from kdpipe.models.network import Outputs

NAMES = ["simkd", "catkd", "ofa"]
TARGET = torch.tensor([0, 2])


def example(name, dtype=torch.float64, scale=1.0):
    """A loss of the student's tensor alone, and that tensor."""
    student, teacher = (scale * normal(2, 3, 4, 4, seed=seed, dtype=dtype) for seed in (0, 1))
    if name == "ofa":
        student, teacher = student[:, :, 0, 0].contiguous(), teacher[:, :, 0, 0].contiguous()
        return (lambda x: ofa_loss(x, teacher.to(x.dtype), TARGET, gamma=1.7, temperature=2.0)), student
    loss = {"simkd": simkd_loss, "catkd": catkd_loss}[name]
    return (lambda x: loss(x, teacher.to(x.dtype))), student


# ------------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences_in_float64(name):
    loss, student = example(name)
    assert torch.autograd.gradcheck(loss, (student.requires_grad_(),))


@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_reach_the_losses(name):
    loss, student = example(name, torch.float32)
    outside = loss(student)
    with torch.autocast("cpu", torch.bfloat16):
        inside, halved = loss(student), loss(student.bfloat16())
    assert inside.item() == outside.item() and inside.dtype == halved.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_finite_at_a_hundred(name):
    loss, student = example(name, torch.float32, scale=100.0)
    student = (100 * student.sign()).requires_grad_()
    value = loss(student)
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


REFUSED = {
    ("simkd", "cnn", "vit"): "the teacher's logits are not one linear layer",
    ("catkd", "cnn", "vit"): "the teacher's logits are not one linear layer",
    ("catkd", "vit", "wide-cnn"): "the student's logits are not one linear layer",
    ("catkd", "mobile", "wide-cnn"): "the student's logits are not one linear layer",
    ("catkd", "vit-mean", "wide-cnn"): "the student's logits are not one linear layer",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("names", PAIRS)
def test_a_real_step_is_finite_or_refused_with_a_reason(name, names):
    method = METHODS[name]
    reason = method.refuse(pair(*names), method.resolved({}))
    assert (reason is None) == ((name, *names) not in REFUSED)
    if reason:
        assert REFUSED[name, *names] in reason
        return
    made = setting(name, *names)
    parts = terms(made, rows=8, labelled=5)
    assert set(parts) == ({"simkd"} if name == "simkd" else {"ce", name})
    assert all(part.ndim == 0 and part.isfinite() and part.dtype == torch.float32 for part in parts.values())
    parts[name].backward()
    trained = [] if made.extras is None else list(made.extras.parameters())
    assert bool(trained) == (name == "ofa")
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert sum(p.grad.abs().sum() for p in made.student.model.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in made.teacher.parameters()) and not made.teacher.training


@pytest.mark.parametrize("name", NAMES)
def test_unlabelled_rows_count_for_the_teachers_term_alone_unless_it_needs_labels(name):
    few, all_ = (terms(setting(name, "cnn", "wide-cnn"), rows=8, labelled=n) for n in (5, 8))
    assert METHODS[name].uses_labels == (name == "ofa")
    assert (few[name].item() == all_[name].item()) == (name != "ofa")
    assert name == "simkd" or few["ce"].item() != all_["ce"].item()


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_lower_the_methods_own_term(name):
    made = setting(name, "cnn", "wide-cnn")
    modules = [made.student] if made.extras is None else [made.student, made.extras]
    learned = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr={"simkd": 0.3, "catkd": 0.01, "ofa": 1.0}[name])
    values = []
    for _ in range(5):
        term = terms(made)[name]
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
        values.append(term.item())
    # OFA's five cross-entropies cannot fall below five times the teacher's entropy, about ln 10 each.
    floor = 11.3 if name == "ofa" else 0.0
    assert values[-1] - floor < 0.95 * (values[0] - floor)


# ------------------------------------------------------------------------------------------ simkd


def test_simkd_is_the_mean_squared_difference_where_maps_meet():
    assert simkd_loss(torch.zeros(2, 3, 2, 2), torch.full((2, 3, 4, 4), 2.0)).item() == 4.0
    chequered = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 4, 4)
    assert simkd_loss(torch.zeros(1, 1, 2, 2), chequered).item() == 0.0
    assert simkd_loss(torch.zeros(1, 1, 4, 4), chequered).item() == 1.0


@pytest.mark.parametrize("names", [("cnn", "wide-cnn"), ("vit", "wide-cnn"), ("mobile", "wide-cnn")])
def test_a_student_ends_in_the_teachers_own_classifier(names):
    made = setting("simkd", *names)
    head, reused = made.student.head, made.teacher.classifier
    assert torch.equal(head.classifier.weight, reused.weight) and torch.equal(head.classifier.bias, reused.bias)
    assert head.classifier.weight is not reused.weight
    assert not any(p.requires_grad for p in head.classifier.parameters())
    assert all(p.requires_grad for p in head.projector.parameters())
    outputs, taught = made.student.eval()(torch.rand(2, *SHAPE)), made.teacher(torch.rand(2, *SHAPE))
    assert outputs.final.shape[1] == made.pair.teacher.final[0] and outputs.logits.shape == (2, 10)
    torch.testing.assert_close(outputs.logits, reused(outputs.final.mean((2, 3))))
    # The paper's point: where features agree, so do the decisions.
    torch.testing.assert_close(head.classify(taught.final)[1], taught.logits)


def test_the_projector_comes_from_the_current_random_state():
    def first_weights(seed):
        method, shapes, student = METHODS["simkd"], pair("cnn", "wide-cnn"), network("cnn")
        torch.manual_seed(seed)
        method.adapt(student, network("wide-cnn"), shapes, method.resolved({}))
        return student.head.projector[0].weight

    assert torch.equal(first_weights(1), first_weights(1)) and not torch.equal(first_weights(1), first_weights(2))


def test_a_classifier_without_a_bias_is_reused_too():
    method, student, teacher = METHODS["simkd"], network("cnn"), network("wide-cnn")
    teacher.model.fc = nn.Linear(40, 10, bias=False)
    method.adapt(student, teacher, pair("cnn", "wide-cnn"), method.resolved({}))
    assert torch.equal(student.head.classifier.weight, teacher.model.fc.weight)
    assert student.head.classifier.bias.abs().sum() == 0


def test_simkd_has_no_cross_entropy_and_cannot_be_switched_off():
    with pytest.raises(ValidationError):
        METHODS["simkd"].resolved({"simkd_weight": 0.0})
    with pytest.raises(ValidationError):
        METHODS["simkd"].resolved({"ce_weight": 1.0})


# ----------------------------------------------------------------------------------------- cat-kd


@pytest.mark.parametrize("kind", ["cnn", "wide-cnn"])
def test_class_activation_maps_average_to_the_logits_but_for_the_bias(kind):
    own = network(kind).eval()
    outputs = own(torch.rand(3, *SHAPE))
    cams = class_activation_maps(own.as_map(outputs.final, outputs.maps[-1]), own.classifier.weight)
    assert cams.shape == (3, 10, 2, 2)
    torch.testing.assert_close(cams.mean((2, 3)) + own.classifier.bias, outputs.logits, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):  # a matrix product, which autocast would take to bfloat16
        assert torch.equal(class_activation_maps(outputs.final, own.classifier.weight), cams)


def test_class_attention_by_hand():
    """One class at (1, 0, 0, 0) against (0, 3, 0, 4) / 5: squared distance 2 of 4 positions; the other agrees."""
    student = torch.tensor([[[[2.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]])
    teacher = torch.tensor([[[[0.0, 3.0], [0.0, 4.0]], [[7.0, 7.0], [7.0, 7.0]]]])
    assert catkd_loss(student, teacher).item() == pytest.approx((2 / 4 + 0) / 2)
    # Without normalisation: (4 + 9 + 16) / 4 and 36.
    assert catkd_loss(student, teacher, normalised=False).item() == pytest.approx((29 / 4 + 36) / 2)


def test_class_attention_sees_pooled_positions_and_not_the_scale_of_a_class():
    student, teacher = normal(2, 5, 4, 4), normal(2, 5, 8, 8, seed=1)
    value = catkd_loss(student, teacher)
    blocks = [cam.reshape(2, 5, 2, side // 2, 2, side // 2).mean((3, 5)) for cam, side in ((student, 4), (teacher, 8))]
    cosines = F.cosine_similarity(blocks[0].flatten(2), blocks[1].flatten(2), dim=2)
    assert value.item() == pytest.approx((2 - 2 * cosines).mean().item() / 4, rel=1e-12)
    scales = torch.linspace(0.1, 50, 5, dtype=torch.float64).view(5, 1, 1)
    assert catkd_loss(scales * student, teacher / scales).item() == pytest.approx(value.item(), rel=1e-12)
    assert catkd_loss(-student, teacher).item() != pytest.approx(value.item(), rel=1e-3)
    assert catkd_loss(student, 3 * student).item() == pytest.approx(0.0, abs=1e-14)


def test_a_class_without_any_activation_gives_no_gradient_of_a_trillion():
    """F.normalize clamps the norm at 1e-12, so that its slope at zero is 1e12."""
    student = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss = catkd_loss(student, normal(1, 2, 2, 2, dtype=torch.float32))
    loss.backward()
    assert loss.item() == pytest.approx(1 / 4) and student.grad.abs().max() == 0


def test_class_attention_trains_the_students_classifier_and_takes_published_settings():
    made = setting("catkd", "cnn", "wide-cnn", normalised=False, catkd_weight=0.7)
    terms(made)["catkd"].backward()
    assert made.student.classifier.weight.grad.abs().sum() > 0


def test_class_attention_is_refused_on_points_and_above_the_maps_size():
    method, shapes = METHODS["catkd"], pair("cnn", "wide-cnn")
    assert "parameters.pooled is 4, but" in method.refuse(shapes, method.resolved({"pooled": 4}))
    point = replace(shapes, teacher=replace(shapes.teacher, final=(40, 1, 1)))
    assert "the teacher's last map is 1x1" in method.refuse(point, method.resolved({}))


# -------------------------------------------------------------------------------------------- ofa

HALF, THREE_QUARTERS = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])


@pytest.mark.parametrize(("gamma", "target"), [(1.0, 0), (2.0, 0), (2.0, 1), (1.4, 1)])
def test_one_for_all_by_hand(gamma, target):
    """q = (3/4, 1/4), p = (1/2, 1/2): [(1 + q_y)^gamma - 1 + q_other] ln 2; the other class has no gamma."""
    label, other = (0.75, 0.25) if target == 0 else (0.25, 0.75)
    known = ((1 + label) ** gamma - 1 + other) * math.log(2)
    assert ofa_loss(HALF, THREE_QUARTERS, torch.tensor([target]), gamma).item() == pytest.approx(known, rel=1e-6)


def test_at_gamma_one_it_is_the_cross_entropy_to_the_teacher():
    student, teacher = normal(6, 10), normal(6, 10, seed=1)
    target = torch.arange(6)
    for temperature in (1.0, 3.0):
        known = F.cross_entropy(student / temperature, (teacher / temperature).softmax(1))
        made = ofa_loss(student, teacher, target, temperature=temperature)
        assert made.item() == pytest.approx(known.item(), rel=1e-12)


def test_with_the_cross_entropy_it_is_the_papers_loss():
    student, teacher, target, gamma = normal(6, 10), normal(6, 10, seed=1), torch.arange(6), 1.4
    log_p, q = student.log_softmax(1), teacher.softmax(1)
    known = 0.0
    for row, label in enumerate(target.tolist()):
        known -= (1 + q[row, label]) ** gamma * log_p[row, label]
        known -= sum(q[row, c] * log_p[row, c] for c in range(10) if c != label)
    made = F.cross_entropy(student, target) + ofa_loss(student, teacher, target, gamma)
    assert made.item() == pytest.approx(known.item() / 6, rel=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 1.5])
def test_the_best_student_is_the_teacher_with_more_of_the_label_and_its_loss_is_not_zero(gamma):
    teacher, target = normal(4, 5), torch.tensor([0, 1, 2, 3])
    q = teacher.softmax(1)
    wanted = q.scatter(1, target[:, None], (1 + q.gather(1, target[:, None])) ** gamma - 1)
    student = wanted.log().requires_grad_()
    loss = ofa_loss(student, teacher, target, gamma)
    loss.backward()
    assert student.grad.abs().max() < 1e-12 and loss > 0.1
    if gamma == 1.0:  # then it is the teacher itself, and the entropy is what is left
        torch.testing.assert_close(wanted, q)
        assert loss.item() == pytest.approx(-(q * q.log()).sum(1).mean().item(), rel=1e-12)


def test_underflowing_probabilities_stay_in_log_space():
    """log(softmax) is -inf here: the student gives the label e^-200."""
    student = torch.tensor([[-100.0, 100.0, 0.0]])
    value = ofa_loss(student, -student, torch.tensor([0]))
    assert student.softmax(1).log().isinf().any()
    assert value.item() == pytest.approx(ofa_loss(student.double(), -student.double(), torch.tensor([0])).item())
    assert value.item() == pytest.approx(200.0, rel=1e-5)


@pytest.mark.parametrize("names", PAIRS)
def test_each_layer_of_the_student_gets_an_exit(names):
    made = setting("ofa", *names)
    student = [torch.randn(2, *t.shape) for t in made.pair.student.taps]
    logits = made.extras(student)
    assert [x.shape for x in logits] == [(2, 10)] * len(student)
    # The last layer has no stage left, the one before it one, and nobody more than three.
    strided = [
        sum(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in leave.modules()) for leave in made.extras.exits
    ]
    assert strided == [min(len(student) - 1 - i, 3) for i in range(len(student))]


def test_exits_can_be_named():
    made = setting("ofa", "cnn", "wide-cnn", layers=["layer4", "layer2"])
    assert made.extras.indices == [3, 1] and len(made.extras.exits) == 2
    method = METHODS["ofa"]
    reason = method.refuse(made.pair, method.resolved({"layers": ["layer2", "fc"]}))
    assert "names layer 'fc', but the student's layers are layer1" in reason
    for wrong in ({"layers": []}, {"gamma": 0.5}, {"temperature": 0.0}):
        with pytest.raises(ValidationError):
            method.resolved(wrong)


def test_rows_without_a_label_reach_no_exit():
    made = setting("ofa", "cnn", "wide-cnn")
    layers = [normal(8, *t.shape, dtype=torch.float32).requires_grad_() for t in made.pair.student.taps]
    logits = normal(8, 10, dtype=torch.float32).requires_grad_()
    student = Outputs(logits, layers, layers[-1].mean((2, 3)), layers[-1])
    with torch.no_grad():
        teacher = made.teacher(torch.rand(8, *SHAPE))
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
    term = made.method.terms(step)["ofa"]
    leaving = [*made.extras([m[:5] for m in layers]), logits[:5]]
    known = sum(ofa_loss(x, teacher.logits[:5], torch.arange(5)) for x in leaving)  # rows side by side
    assert term.item() == pytest.approx(known.item(), rel=1e-6)
    term.backward()
    for touched in (logits, *layers):
        rows = touched.grad.flatten(1).abs().sum(1)
        assert (rows[:5] > 0).all() and (rows[5:] == 0).all()
