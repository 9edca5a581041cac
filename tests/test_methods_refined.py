"""Refined and scale decoupled distillation by hand, beside DKD, at their limits, and in real steps."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from draws import normal
from pairs import CLASSES, SHAPE, network, pair, setting, terms
from pydantic import ValidationError
from torch import Tensor

from kdpipe.methods import METHODS
from kdpipe.methods.decoupling import among_others, at_class, class_or_not, divergence
from kdpipe.methods.logits import dkd_loss
from kdpipe.methods.refined import rld_loss
from kdpipe.methods.scales import region_logits, sdd_loss
from kdpipe.models.profile import profile_of

# Student (1/2, 1/4, 1/4), teacher (1/2, 3/8, 1/8).
P, Q = torch.tensor([[4.0, 2.0, 2.0]]) / 8, torch.tensor([[4.0, 3.0, 1.0]]) / 8


def draw(rows: int = 6, classes: int = 5, regions: int = 0, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Student's and teacher's logits in float64, of some regions if there are any, and labels."""
    shape = (rows, regions, classes) if regions else (rows, classes)
    target = torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(2))
    return scale * normal(*shape), scale * normal(*shape, seed=1), target


def right(teacher: Tensor, target: Tensor) -> Tensor:
    """The teacher's logits, the label's raised above all others."""
    return teacher.scatter_add(1, target[:, None], torch.full_like(teacher[:, :1], 20.0))


LOSSES = {"rld": rld_loss, "sdd": sdd_loss}
REGIONS = {"rld": 0, "sdd": 21}


# -------------------------------------------------------------------------------- split at a class


def test_nothing_left_beside_a_class_is_no_divergence_and_no_nan():
    logits = normal(3, 4).requires_grad_()
    out = torch.tensor([[True] * 4, [True, False, True, True], [False, False, True, True]])
    found = among_others(logits, out)
    assert torch.equal(found[:2], torch.zeros(2, 4, dtype=torch.float64))
    torch.testing.assert_close(found[2, :2], logits[2, :2].log_softmax(0))
    found[:2].sum().backward()
    assert torch.equal(logits.grad, torch.zeros(3, 4, dtype=torch.float64))


def test_a_divergence_a_row():
    rows = divergence(class_or_not(P.log(), at_class(P, torch.tensor([1]))), torch.tensor([[0.5, 0.5]]).log())
    assert rows.item() == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75), rel=1e-6)


# --------------------------------------------------------------------------------------------- rld


def test_rld_by_hand_where_the_teacher_is_wrong():
    """Label 1, teacher's answer 0. Confidence: (1/2, 1/2) against the student's (1/4, 3/4). One class is left."""
    label = torch.tensor([1])
    confidence = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert rld_loss(P.log(), Q.log(), label).item() == pytest.approx(confidence, rel=1e-5)
    # Of four classes two are left: teacher (3/4, 1/4) among them, student (1/2, 1/2).
    student = torch.tensor([[2.0, 2.0, 2.0, 2.0]]).log() * 4
    teacher = torch.tensor([[16.0, 8.0, 3.0, 1.0]]).log() * 4
    correlation = 16 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert rld_loss(student, teacher, label, alpha=0.0, beta=2.0).item() == pytest.approx(2 * correlation, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_rld_is_dkd_where_the_teacher_is_right(temperature):
    student, teacher, target = draw()
    teacher = right(teacher, target)
    known = dkd_loss(student, teacher, target, 1.0, 8.0, temperature)
    torch.testing.assert_close(rld_loss(student, teacher, target, 1.0, 8.0, temperature, temperature), known)


def test_rld_gives_what_published_code_gives():
    """The value of the authors' own function on these logits, at their defaults; the teacher is wrong in all rows."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = 2 * torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(5, (6,), generator=generator)
    assert not (teacher.argmax(1) == target).any()
    assert rld_loss(student, teacher, target).item() == pytest.approx(18.273769020208228, rel=1e-12)


def test_what_a_wrong_teacher_puts_before_the_label_is_not_looked_at():
    """Its logits may change among themselves, and so may the student's there, as long as the confidences stay."""
    target = torch.tensor([2])
    student, teacher = torch.tensor([[3.0, 1.0, 0.5, 0.0, -1.0]]), torch.tensor([[4.0, 3.0, 1.0, 0.5, -2.0]])
    known = rld_loss(student, teacher, target, alpha=0.0)
    others = torch.tensor([[1.0, 3.0, 0.5, 0.0, -1.0]]), torch.tensor([[9.0, 7.0, 1.0, 0.5, -2.0]])
    torch.testing.assert_close(rld_loss(*others, target, alpha=0.0), known)
    assert known > 0.1
    changed = rld_loss(student, torch.tensor([[4.0, 3.0, 1.0, 0.5, 0.0]]), target, alpha=0.0)
    assert abs(changed - known) > 0.1


def test_a_label_that_the_teacher_ranks_last_leaves_no_class_and_no_nan():
    student = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], requires_grad=True)
    teacher, target = torch.tensor([[3.0, 2.0, 1.0], [2.0, 2.0, 2.0]]), torch.tensor([2, 0])
    loss = rld_loss(student, teacher, target, alpha=0.0)
    loss.backward()
    assert loss.item() == 0 and torch.equal(student.grad, torch.zeros(2, 3))


def test_confidence_survives_where_log_of_softmax_underflows():
    """softmax(-200) is 0 in float32. KL of (e.g.) (1/3, 2/3) against (e^-200 / 2, 1)."""
    student, teacher = torch.tensor([[-200.0, 0.0, 0.0]]), torch.zeros(1, 3)
    known = (math.log(1 / 3) + 200 + math.log(2)) / 3 + 2 / 3 * math.log(2 / 3)
    assert rld_loss(student, teacher, torch.tensor([0]), beta=0.0).item() == pytest.approx(known, rel=1e-6)


def test_each_part_has_a_temperature_of_its_own():
    student, teacher, target = draw()
    parts = [rld_loss(student, teacher, target, *weights) for weights in ((1.0, 0.0), (0.0, 8.0))]
    torch.testing.assert_close(rld_loss(student, teacher, target), sum(parts))
    torch.testing.assert_close(rld_loss(student, teacher, target, 1.0, 0.0, correlation_temperature=9.0), parts[0])
    torch.testing.assert_close(rld_loss(student, teacher, target, 0.0, 8.0, confidence_temperature=9.0), parts[1])
    warm = rld_loss(4 * student, 4 * teacher, target, 1.0, 0.0, 4.0)
    torch.testing.assert_close(warm, 16 * parts[0])


# --------------------------------------------------------------------------------------------- sdd


def test_sdd_of_the_whole_image_alone_is_dkd():
    student, teacher, target = draw(regions=1)
    torch.testing.assert_close(sdd_loss(student, teacher, target), dkd_loss(student[:, 0], teacher[:, 0], target))


def test_sdd_by_hand():
    """The whole agrees with the teacher; of two regions one sees another class and counts twice: (0 + a + 2 b) / 3."""
    label, one = torch.tensor([0]), torch.tensor([[[4.0, 3.0, 1.0]]]).log()
    other = torch.tensor([[[1.0, 3.0, 4.0]]]).log()
    student = torch.zeros(1, 3, 3)
    student[:, 0] = one
    teacher = torch.cat([one, one, other], 1)
    a, b = (dkd_loss(torch.zeros(1, 3), part[:, 0], label) for part in (one, other))
    assert sdd_loss(student, teacher, label).item() == pytest.approx((a + 2 * b).item() / 3, rel=1e-5)
    assert sdd_loss(student, teacher, label, complementary=5.0).item() == pytest.approx(
        (a + 5 * b).item() / 3, rel=1e-5
    )


def test_two_different_wrong_answers_disagree():
    """Published code asks whether each is right, and would count such a region once."""
    label = torch.tensor([0])
    teacher = torch.tensor([[[1.0, 3.0, 2.0], [1.0, 2.0, 3.0]]])
    student = teacher.clone()
    student[:, 1] = 0.0
    alone = dkd_loss(torch.zeros(1, 3), teacher[:, 1], label)
    torch.testing.assert_close(sdd_loss(student, teacher, label), 2 * alone / 2)


def test_sdd_gives_what_published_code_gives_where_the_teacher_is_right():
    """The value of the authors' own function on these logits, at the defaults of its DKD."""
    generator = torch.Generator().manual_seed(0)
    torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(5, (6,), generator=generator)
    student, teacher = 2 * torch.randn(2, 6, 21, 5, generator=generator, dtype=torch.float64)
    teacher[torch.arange(6), 0, target] += 20
    assert sdd_loss(student, teacher, target).item() == pytest.approx(38.62681331459193, rel=1e-12)


def test_the_order_of_regions_but_the_first_does_not_matter_and_labels_go_with_their_images():
    student, teacher, target = draw(regions=6)
    known = sdd_loss(student, teacher, target)
    order = torch.tensor([0, 3, 5, 1, 2, 4])
    torch.testing.assert_close(sdd_loss(student[:, order], teacher[:, order], target), known)
    alone = [sdd_loss(student[i : i + 1], teacher[i : i + 1], target[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(torch.stack(alone).mean(), known)
    assert abs(sdd_loss(student, teacher, target.flip(0)) - known) > 0.1


def test_region_logits_are_means_of_the_maps_own_and_the_first_are_the_networks():
    """Blocks of positions by plain slicing; a classifier commutes with means."""
    final, weight, bias = normal(2, 3, 8, 8), normal(4, 3, seed=1), normal(4, seed=2)
    found = region_logits(final, weight, bias)
    assert found.shape == (2, 21, 4)
    everywhere = torch.einsum("bchw,kc->bkhw", final, weight) + bias[:, None, None]
    torch.testing.assert_close(found[:, 0], everywhere.mean((2, 3)))
    torch.testing.assert_close(found[:, 1 + 2], everywhere[:, :, 4:, :4].mean((2, 3)))  # lower left quarter
    torch.testing.assert_close(found[:, 5 + 4 * 1 + 3], everywhere[:, :, 2:4, 6:].mean((2, 3)))
    torch.testing.assert_close(region_logits(final, weight, None) + bias, found)


def test_the_first_region_of_a_real_network_is_its_own_answer():
    for kind in ("cnn", "wide-cnn"):
        made = network(kind).eval()
        outputs = made(torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0)))
        found = region_logits(outputs.final, made.classifier.weight, made.classifier.bias)
        torch.testing.assert_close(found[:, 0], outputs.logits, rtol=1e-4, atol=1e-5)


def test_tokens_are_regions_too_where_the_head_is_linear_on_their_mean():
    """A vision transformer whose norm stands before the mean, in the place of either network."""
    from kdpipe.config.sections import ArchSpec
    from kdpipe.models.build import build

    arguments = {
        "img_size": 32, "patch_size": 8, "depth": 2, "num_heads": 2, "embed_dim": 24,
        "global_pool": "avg", "fc_norm": False,
    }  # fmt: skip
    spec = ArchSpec.model_validate({"arch": "vit_tiny_patch16_224", "arguments": arguments})
    tokens = build(spec, image_shape=SHAPE, classes=CLASSES, mean=[0.5] * 3, std=[0.25] * 3, seed=0).eval()
    found = profile_of(tokens, SHAPE)
    shapes, method = replace(pair("cnn", "wide-cnn"), student=found, teacher=found), METHODS["sdd"]
    assert found.linear_head and method.refuse(shapes, method.resolved({})) is None
    outputs = tokens(torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0)))
    final = tokens.as_map(outputs.final, outputs.maps[-1])
    regions = region_logits(final, tokens.classifier.weight, tokens.classifier.bias)
    torch.testing.assert_close(regions[:, 0], outputs.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "parameters", "reason"),
    [
        (("vit", "wide-cnn"), {}, "the student's logits are not one linear layer"),
        (("cnn", "vit"), {}, "the teacher's logits are not one linear layer"),
        (("cnn", "wide-cnn"), {"scales": [1, 4]}, "asks for 4 regions a side, but the smallest last map has 2"),
        (("cnn", "wide-cnn"), {"scales": [2, 1]}, "the whole image, 1, has to be the first"),
        (("cnn", "wide-cnn"), {"scales": [1, 2]}, None),
        (("cnn", "wide-cnn"), {}, None),
    ],
)
def test_who_has_no_regions_is_told_why(names, parameters, reason):
    method = METHODS["sdd"]
    found = method.refuse(pair(*names), method.resolved(parameters))
    assert found is None if reason is None else reason in found


# ------------------------------------------------------------------------------------ both of them


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_finite_differences(name):
    student, teacher, target = draw(regions=REGIONS[name] and 5)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, teacher, target), (student.requires_grad_(),))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [100.0, 1000.0])
def test_extreme_logits_stay_finite_and_agree_with_float64(name, size):
    student, teacher, target = draw(regions=REGIONS[name], scale=size)
    single, double = student.float().requires_grad_(), student.float().double().requires_grad_()
    losses = [LOSSES[name](x, teacher.float().to(x.dtype), target) for x in (single, double)]
    for loss in losses:
        loss.backward()
    assert losses[0].isfinite() and single.grad.isfinite().all()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-4)
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_does_not_reach_the_losses(name):
    student, teacher, target = (x.float() if x.is_floating_point() else x for x in draw(regions=REGIONS[name]))
    outside = LOSSES[name](student, teacher, target)
    with torch.autocast("cpu", torch.bfloat16):
        inside = LOSSES[name](student, teacher, target)
        halved = LOSSES[name](student.bfloat16(), teacher.bfloat16(), target)
    assert inside.item() == outside.item() and inside.dtype == halved.dtype == torch.float32


def test_autocast_does_not_reach_the_regions():
    final, weight = normal(2, 8, 4, 4, dtype=torch.float32), normal(5, 8, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(region_logits(final, weight, None), region_logits(final, weight, None).float())
    assert region_logits(final.bfloat16(), weight, None).dtype == torch.float32


@pytest.mark.parametrize("name", LOSSES)
def test_a_right_teacher_of_ones_own_logits_leaves_nothing_to_learn(name):
    _, teacher, target = draw()
    teacher = right(teacher, target)
    logits = teacher[:, None].expand(-1, 3, -1) if name == "sdd" else teacher
    assert LOSSES[name](logits, logits, target).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_real_step_takes_labelled_rows_alone(name):
    few, more = (terms(setting(name, "cnn", "wide-cnn"), rows=8, labelled=n) for n in (5, 8))
    assert METHODS[name].uses_labels and few[name].item() != more[name].item()
    made = setting(name, "cnn", "wide-cnn")
    found = terms(made, rows=8, labelled=5)
    assert set(found) == {"ce", name}
    found[name].backward()
    learned = {key: p.grad for key, p in made.student.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in learned.values()) and any("fc" in key for key in learned)
    assert all(p.grad is None for p in made.teacher.parameters())


@pytest.mark.parametrize("name", LOSSES)
def test_terms_rise_over_the_first_twelfth_of_the_training(name):
    made = setting(name, "cnn", "wide-cnn")

    def at(progress, **parameters):
        made.parameters = made.method.resolved(parameters)
        return terms(made, rows=4, labelled=4, progress=progress)[name].item()

    assert at(0.0) == 0.0
    assert at(1 / 24) == pytest.approx(at(0.5) / 2, rel=1e-6)
    assert at(1 / 12) == pytest.approx(at(0.9), rel=1e-6) and at(0.0, warmup=0.0) == at(0.9)


@pytest.mark.parametrize("name", LOSSES)
def test_a_few_steps_lower_the_methods_own_term(name):
    made = setting(name, "cnn", "wide-cnn", ce_weight=0.0)
    optimiser = torch.optim.SGD(made.student.parameters(), lr=0.02, momentum=0.9)
    seen = []
    for _ in range(8):
        loss = terms(made)[name]
        seen.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert seen[-1] < 0.9 * seen[0]


def test_defaults_are_the_published_ones_and_reach_the_losses():
    published = {
        "rld": {
            "alpha": 1, "beta": 8, "confidence_temperature": 1, "correlation_temperature": 4,
            "warmup": 20 / 240, "ce_weight": 1, "rld_weight": 1,
        },
        "sdd": {
            "complementary": 2, "alpha": 1, "beta": 8, "temperature": 4,
            "warmup": 20 / 240, "ce_weight": 1, "sdd_weight": 1,
        },
    }  # fmt: skip
    for name, parameters in published.items():
        assert METHODS[name].resolved({}).model_dump(exclude_none=True) == parameters
        made = setting(name, "cnn", "wide-cnn")
        known = terms(made, rows=4, labelled=4)[name].item()
        for parameter in METHODS[name].parameters.model_fields.keys() - {"ce_weight"}:
            changed = {"scales": [1], "warmup": 1.0, "complementary": 9.0}.get(parameter, 2.5)
            made.parameters = made.method.resolved({parameter: changed})
            found = terms(made, rows=4, labelled=4)[name].item()
            assert found != pytest.approx(known, rel=1e-4), parameter


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("rld", {"confidence_temperature": 0.0}),
        ("rld", {"correlation_temperature": -1.0}),
        ("rld", {"beta": -1.0}),
        ("sdd", {"scales": []}),
        ("sdd", {"scales": [1, 0]}),
        ("sdd", {"complementary": -1.0}),
        ("sdd", {"temperature": 0.0}),
    ],
)
def test_parameters_out_of_range_are_refused(name, wrong):
    with pytest.raises(ValidationError):
        METHODS[name].resolved(wrong)
