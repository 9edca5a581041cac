"""Wasserstein distillation against optimal plans, Gaussians and values worked out by hand, and real steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from draws import normal
from pairs import PAIRS, pair, setting, terms
from pydantic import ValidationError
from scipy.optimize import linprog
from torch import Tensor

from kdpipe.methods import METHODS, Pair
from kdpipe.methods.wasserstein import class_costs, transport_cost, wkdf_loss, wkdl_loss

TARGET = torch.tensor([0, 4, 2, 1, 3, 0])


def logits(dtype: torch.dtype = torch.float64, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    return scale * normal(6, 5, dtype=dtype), scale * normal(6, 5, seed=1, dtype=dtype)


def costs(dtype: torch.dtype = torch.float64) -> Tensor:
    return class_costs(normal(5, 7, seed=3, dtype=dtype))


def least_cost(source: Tensor, target: Tensor, cost: Tensor) -> float:
    """The Wasserstein distance itself, by linear programming."""
    k = len(source)
    rows, columns = np.kron(np.eye(k), np.ones(k)), np.kron(np.ones(k), np.eye(k))
    found = linprog(cost.flatten().numpy(), A_eq=np.vstack([rows, columns]), b_eq=torch.cat([source, target]).numpy())
    return float(found.fun)


# --------------------------------------------------------------------------------- what plans cost


def test_costs_of_classes_by_hand():
    """Cosines 0, -1, 0.6 of the first with the others; the length of a row does not count."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [3.0, 4.0]])
    known = [0.0] + [1 - math.exp(-2.0 * (1 - cosine)) for cosine in (0.0, -1.0, 0.6)]
    found = class_costs(weight, sharpness=2.0)
    assert found[0].tolist() == pytest.approx(known, rel=1e-6)
    assert torch.equal(found, found.T) and torch.equal(found.diagonal(), torch.zeros(4))


def test_a_class_of_no_weights_costs_what_unrelated_classes_cost_and_nothing_to_stay_at():
    found = class_costs(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    assert found[0].tolist() == pytest.approx([0.0, 1 - math.exp(-1)])


def test_a_converged_plan_costs_what_linear_programming_finds():
    source, target = (part.softmax(1) for part in logits())
    found = transport_cost(source.log(), target.log(), costs(), regularisation=0.02, iterations=3000)
    known = [least_cost(one, other, costs()) for one, other in zip(source, target, strict=True)]
    assert found.tolist() == pytest.approx(known, rel=0.02)
    assert all(value >= least - 1e-6 for value, least in zip(found.tolist(), known, strict=True))


def test_the_plan_by_products_of_dense_matrices():
    """Sinkhorn as it is written down, on probabilities."""
    source, target = (part.softmax(1) for part in logits(scale=0.5))
    kernel = torch.exp(-costs() / 0.1)
    u = torch.ones_like(source)
    for _ in range(7):
        v = target / (u @ kernel)
        u = source / (v @ kernel.T)
    plan = u[:, :, None] * kernel * v[:, None, :]
    torch.testing.assert_close(plan.sum(2), source)
    known = (plan * costs()).sum((1, 2))
    torch.testing.assert_close(transport_cost(source.log(), target.log(), costs(), 0.1, 7), known)


def test_ten_iterations_stop_short_where_classes_are_unlike():
    """The published setting: entropy 0.05, costs near 0.63, softened probabilities. The distance is far above."""
    student, teacher = logits()
    unlike = class_costs(torch.eye(5, dtype=torch.float64))
    few, many = (wkdl_loss(student, teacher, TARGET, unlike, iterations=n) for n in (10, 5000))
    softened = [(part / 8).scatter(1, TARGET[:, None], -torch.inf).softmax(1) for part in (student, teacher)]
    distance = np.mean([least_cost(one, other, unlike) for one, other in zip(*softened, strict=True)])
    assert many.item() == pytest.approx(distance, rel=0.02)
    assert few < many / 3
    # At an entropy of the size of the costs ten are enough.
    near, there = (wkdl_loss(student, teacher, TARGET, unlike, 8.0, 0.5, n) for n in (10, 1000))
    torch.testing.assert_close(near, there, rtol=1e-5, atol=0.0)


# ----------------------------------------------------------------------------------------- wkd-l


def test_two_classes_beside_the_label_by_hand():
    """(1/2, 1/2) to (3/4, 1/4): a quarter is carried, at the cost between the two; the label plays no part."""
    student, teacher = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[-5.0, math.log(3.0), 0.0]])
    cost = torch.tensor([[0.0, 9.0, 9.0], [9.0, 0.0, 0.4], [9.0, 0.4, 0.0]]).clamp_max(1.0)
    found = wkdl_loss(student, teacher, torch.tensor([0]), cost, 1.0, 0.05, 5000)
    assert found.item() == pytest.approx(0.25 * 0.4, rel=0.01)
    # Logits twice as large at T = 2; no T² stands in front.
    warm = wkdl_loss(2 * student, 2 * teacher, torch.tensor([0]), cost, 2.0, 0.05, 5000)
    torch.testing.assert_close(warm, found)


def test_a_mistake_for_a_class_alike_is_forgiven_sooner():
    """What a KL divergence cannot tell: the student is wrong by the same amount about a near class and a far one."""
    cost = torch.tensor([[0, 1, 1, 1], [1, 0, 0.1, 0.9], [1, 0.1, 0, 0.9], [1, 0.9, 0.9, 0]])
    teacher = torch.tensor([[0.0, 3.0, 0.0, 0.0]])
    near, far = torch.tensor([[0.0, 0.0, 3.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0, 3.0]])
    label = torch.tensor([0])
    one, other = (wkdl_loss(student, teacher, label, cost, 1.0, iterations=2000) for student in (near, far))
    assert one < other / 5


@pytest.mark.parametrize(
    ("temperature", "iterations", "known"),
    [(1.0, 1, 0.002783864736557007), (1.0, 10, 0.3713094890117645), (8.0, 10, 0.01280975341796875)],
)
def test_wkdl_gives_what_published_code_gives(temperature, iterations, known):
    """The value of the authors' own function, in float32 and with 1e-8 in its divisors, on these logits and costs."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = 2 * torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(5, (6,), generator=generator)
    torch.randn(2, 6, 21, 5, generator=generator, dtype=torch.float64)
    cost = class_costs(torch.randn(5, 7, generator=generator, dtype=torch.float64))
    assert wkdl_loss(student, teacher, target, cost, temperature, 0.05, iterations).item() == pytest.approx(
        known, rel=2e-3
    )


def test_equal_networks_pay_next_to_nothing_and_shifts_or_the_labels_own_logit_nothing_more():
    student, teacher = logits()
    assert wkdl_loss(teacher, teacher, TARGET, costs()) < 1e-3
    known = wkdl_loss(student, teacher, TARGET, costs())
    moved = (student + 3).scatter(1, TARGET[:, None], 50.0), teacher - 5
    torch.testing.assert_close(wkdl_loss(*moved, TARGET, costs()), known)
    alone = [wkdl_loss(student[i : i + 1], teacher[i : i + 1], TARGET[i : i + 1], costs()) for i in range(6)]
    torch.testing.assert_close(torch.stack(alone).mean(), known)


def test_classes_may_be_renamed():
    student, teacher = logits()
    order = torch.tensor([3, 0, 4, 1, 2])
    renamed = wkdl_loss(student[:, order], teacher[:, order], order.argsort()[TARGET], costs()[order][:, order])
    torch.testing.assert_close(renamed, wkdl_loss(student, teacher, TARGET, costs()))


def test_gradients_through_the_plan_agree_with_finite_differences():
    student, teacher = logits()
    for temperature in (1.0, 8.0):
        loss = lambda x, t=temperature: 100 * wkdl_loss(x, teacher[:2], TARGET[:2], costs(), t)  # noqa: E731
        assert torch.autograd.gradcheck(loss, (student[:2].clone().requires_grad_(),))


@pytest.mark.parametrize("size", [100.0, 1000.0])
@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_extreme_logits_neither_overflow_nor_underflow(size, temperature):
    """On probabilities in float32 these are 0 and their quotients NaN."""
    student = size * torch.tensor([[1.0, -1, 0, 0.5], [-1, 1, 1, 0], [0, 1, 0, -1]])
    teacher = size * torch.tensor([[-1.0, 1, 0, -0.5], [1, -1, -1, 0], [0, 1, 1, -1]])
    target, cost = torch.tensor([1, 0, 3]), class_costs(normal(4, 6, dtype=torch.float32))
    single, double = student.clone().requires_grad_(), student.double().requires_grad_()
    losses = [wkdl_loss(x, teacher.to(x.dtype), target, cost.to(x.dtype), temperature) for x in (single, double)]
    for loss in losses:
        loss.backward()
    assert losses[0].isfinite() and single.grad.isfinite().all() and 0 <= losses[0].item() <= 1
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-3, abs=1e-7)
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-2, atol=1e-6)


def test_the_least_regularisation_that_a_study_may_ask_for_is_safe_in_float32():
    """Costs of up to 1 over 0.02 are 50; e^-50 squared would not be a float32."""
    student, teacher = logits(torch.float32, scale=20.0)
    student.requires_grad_()
    opposite = torch.ones(5, 5) - torch.eye(5)
    loss = wkdl_loss(student, teacher, TARGET, opposite, 1.0, 0.02)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()
    with pytest.raises(ValidationError):
        METHODS["wkdl"].resolved({"regularisation": 0.01})


def test_autocast_does_not_reach_the_losses():
    student, teacher = logits(torch.float32)
    weight, maps = normal(5, 64, dtype=torch.float32), normal(2, 2, 4, 8, 8, dtype=torch.float32)
    losses = (
        lambda one, other: wkdl_loss(one, other, TARGET, class_costs(weight)),
        lambda one, other: wkdf_loss(maps[0].to(one.dtype), maps[1].to(one.dtype)),
    )
    for loss in losses:
        outside = loss(student, teacher)
        with torch.autocast("cpu", torch.bfloat16):
            inside, halved = loss(student, teacher), loss(student.bfloat16(), teacher.bfloat16())
        assert inside.item() == outside.item() and inside.dtype == halved.dtype == torch.float32


def test_who_cannot_carry_probability_is_told_why():
    method, shapes = METHODS["wkdl"], pair("cnn", "wide-cnn")
    assert "2 classes" in method.refuse(Pair(shapes.student, shapes.teacher, 2), method.resolved({}))
    headless = Pair(
        shapes.student, shapes.teacher.__class__(**{**vars(shapes.teacher), "linear_classifier": False}), 10
    )
    assert "one linear classifier" in method.refuse(headless, method.resolved({}))
    assert all(method.refuse(pair(*names), method.resolved({})) is None for names in PAIRS)


# ----------------------------------------------------------------------------------------- wkd-f


def gaussian(mean: float, deviation: float) -> Tensor:
    """A map (1, 1, 2, 2) of a mean and a deviation."""
    return torch.tensor([[[[mean - deviation, mean + deviation], [mean + deviation, mean - deviation]]]])


def test_wkdf_by_hand():
    """Means 1 and 3, deviations 2 and 5: 4 · 2² + 3²; of two channels the sum, of two images the mean."""
    student, teacher = gaussian(1.0, 2.0), gaussian(3.0, 5.0)
    assert wkdf_loss(student, teacher).item() == pytest.approx(4 * 4 + 9, rel=1e-4)
    assert wkdf_loss(student, teacher, mean_weight=0.0).item() == pytest.approx(9, rel=1e-4)
    wide = [part.expand(1, 2, 2, 2) for part in (student, teacher)]
    assert wkdf_loss(*wide).item() == pytest.approx(2 * 25, rel=1e-4)
    both = torch.cat([student, teacher]), torch.cat([teacher, teacher])
    assert wkdf_loss(*both).item() == pytest.approx(25 / 2, rel=1e-4)


def test_it_is_the_distance_between_sorted_samples_of_gaussians():
    """In one dimension the squared distance is the mean squared difference of quantiles."""
    quantiles = torch.special.ndtri((torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000).view(1, 1, 100, 100)
    student, teacher = 1 + 2 * quantiles, -0.5 + 0.7 * quantiles
    known = (student - teacher).square().mean()
    assert wkdf_loss(student, teacher, mean_weight=1.0).item() == pytest.approx(known.item(), rel=1e-3)


def test_where_a_channel_responds_does_not_count_and_sizes_may_differ():
    student, teacher = normal(2, 3, 8, 8), normal(2, 3, 8, 8, seed=1)
    known = wkdf_loss(student, teacher)
    shuffled = student.flatten(2)[:, :, torch.randperm(64)].unflatten(2, (8, 8))
    torch.testing.assert_close(wkdf_loss(shuffled, teacher), known)
    larger = teacher.repeat(1, 1, 2, 2)
    torch.testing.assert_close(wkdf_loss(student, larger), known)
    assert wkdf_loss(student, larger[:, :, :8, :8]) == known


@pytest.mark.parametrize(("grid", "known"), [(1, 0.6934522228660301), (2, 2.172958406423562), (4, 9.325078829772188)])
def test_cells_have_gaussians_of_their_own_as_in_published_code(grid, known):
    """The authors' own function; there variances are unbiased, here over all n positions of a cell."""
    generator = torch.Generator().manual_seed(0)
    torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    torch.randint(5, (6,), generator=generator)
    torch.randn(2, 6, 21, 5, generator=generator, dtype=torch.float64)
    torch.randn(5, 7, generator=generator, dtype=torch.float64)
    student, teacher = torch.randn(2, 3, 4, 8, 8, generator=generator, dtype=torch.float64)
    means = 4 * wkdf_loss(student, teacher, 1.0, grid) - 4 * wkdf_loss(student, teacher, 0.0, grid)
    n = (8 // grid) ** 2
    deviations = wkdf_loss(student, teacher, 0.0, grid) * n / (n - 1)
    assert (means + deviations).item() == pytest.approx(known, rel=1e-4)


def test_a_cell_is_its_own_map():
    student, teacher = normal(2, 3, 4, 6), normal(2, 3, 4, 6, seed=1)
    cells = [(slice(r, r + 2), slice(c, c + 3)) for r in (0, 2) for c in (0, 3)]
    known = [wkdf_loss(student[:, :, r, c], teacher[:, :, r, c]) for r, c in cells]
    torch.testing.assert_close(wkdf_loss(student, teacher, grid=2), torch.stack(known).mean())


def test_gradients_of_moments_agree_with_finite_differences():
    student, teacher = normal(2, 2, 4, 4).requires_grad_(), normal(2, 2, 4, 4, seed=1)
    for grid in (1, 2):
        assert torch.autograd.gradcheck(lambda x, g=grid: wkdf_loss(x, teacher, grid=g), (student,))


def test_constant_and_single_positions_and_far_means_have_no_spread_and_no_nan():
    """N - 1 in the place of N would be NaN at one position, and E[x²] - E[x]² noise of about 0.03 at a mean of 100."""
    teacher = torch.zeros(1, 2, 4, 4)
    for student in (torch.full((1, 2, 4, 4), 100.0), torch.full((1, 2, 1, 1), 100.0), torch.zeros(1, 2, 4, 4)):
        student = student.requires_grad_()
        deviations = wkdf_loss(student, teacher, mean_weight=0.0)
        deviations.backward()
        assert deviations.item() < 1e-9 and student.grad.isfinite().all() and student.grad.abs().max() < 1e-3
    assert wkdf_loss(torch.full((1, 2, 4, 4), 100.0), teacher).item() == pytest.approx(2 * 4 * 100**2)


def test_the_last_layers_are_compared_or_those_that_are_named():
    made = setting("wkdf", "cnn", "vit")
    assert made.extras.indices == [(3, len(made.pair.teacher.taps) - 1)]
    assert [type(part).__name__ for part in made.extras.layers[0]] == ["Conv2d", "BatchNorm2d", "ReLU"]
    names = [[made.pair.student.taps[1].layer, made.pair.teacher.taps[0].layer]]
    named = setting("wkdf", "cnn", "vit", pairs=names, rectified=False)
    assert named.extras.indices == [(1, 0)] and len(named.extras.layers[0]) == 2
    twice = setting("wkdf", "cnn", "wide-cnn", pairs=[["layer3", "layer3"], ["layer4", "layer4"]])
    once = [setting("wkdf", "cnn", "wide-cnn", pairs=[[name, name]]) for name in ("layer3", "layer4")]
    for i, single in enumerate(once):
        single.extras.layers[0].load_state_dict(twice.extras.layers[i].state_dict())
    torch.testing.assert_close(terms(twice)["wkdf"], terms(once[0])["wkdf"] + terms(once[1])["wkdf"])


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"grid": 2}, "layer layer4 has a 2x2 map"),
        ({"pairs": [["nowhere", "layer1"]]}, "'nowhere'"),
        ({"grid": 2, "pairs": [["layer3", "layer3"]]}, None),
    ],
)
def test_maps_without_spread_and_unknown_layers_are_refused_by_name(parameters, reason):
    method = METHODS["wkdf"]
    found = method.refuse(pair("cnn", "wide-cnn"), method.resolved(parameters))
    assert found is None if reason is None else reason in found


# ------------------------------------------------------------------------------------ both of them


@pytest.mark.parametrize("name", ["wkdl", "wkdf"])
@pytest.mark.parametrize("names", PAIRS)
def test_a_real_step_is_finite_or_refused_with_a_reason(name, names):
    method = METHODS[name]
    if (reason := method.refuse(pair(*names), method.resolved({}))) is not None:
        assert name == "wkdf" and "1x1 map" in reason
        return
    made = setting(name, *names)
    found = terms(made, rows=8, labelled=5)
    assert set(found) == ({"ce", "target", "wkdl"} if name == "wkdl" else {"ce", "wkdf"})
    assert all(term.ndim == 0 and term.isfinite() and term.dtype == torch.float32 for term in found.values())
    found[name].backward()
    trained = [] if made.extras is None else list(made.extras.parameters())
    assert bool(trained) == (name == "wkdf")
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert sum(p.grad.abs().sum() for p in made.student.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in made.teacher.parameters())


def test_the_label_has_a_term_of_its_own_weighted_by_the_teachers_confidence():
    """-q_y log p_y, no temperature."""
    made = setting("wkdl", "cnn", "wide-cnn")
    made.student.eval()
    made.student.train = lambda mode=True: made.student
    found = terms(made)["target"]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(16, 3, 32, 32, generator=generator)[:8]
    target = torch.tensor(made.pair.labels)[torch.randperm(64, generator=generator)[:8]]
    q = made.teacher(images).logits.softmax(1).gather(1, target[:, None]).squeeze(1)
    known = (q * F.cross_entropy(made.student(images).logits, target, reduction="none")).mean()
    torch.testing.assert_close(found, known)


@pytest.mark.parametrize("name", ["wkdl", "wkdf"])
def test_terms_fade_as_a_half_cosine_from_epoch_150_of_240(name):
    made = setting(name, "cnn", "wide-cnn")

    def at(progress, **parameters):
        made.parameters = made.method.resolved(parameters)
        return terms(made, rows=4, labelled=4, progress=progress)[name].item()

    full = at(0.0)
    assert at(150 / 240) == full == at(0.99, decay_from=1.0)
    assert at(195 / 240) == pytest.approx(full / 2, rel=1e-6)
    assert at(0.5, decay_from=0.0) == pytest.approx(full / 2, rel=1e-6)
    assert at(1.0) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["wkdl", "wkdf"])
def test_a_few_steps_lower_the_methods_own_term(name):
    own, rate = {"wkdl": ({"temperature": 1.0}, 2e-4), "wkdf": ({}, 0.05)}[name]  # untrained teachers say little at 8
    made = setting(name, "cnn", "wide-cnn", ce_weight=0.0, **own)
    modules = [made.student] if made.extras is None else [made.student, made.extras]
    learned = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(learned, lr=rate, momentum=0.9)
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
        "wkdl": {
            "ce_weight": 1, "target_weight": 1, "wkdl_weight": 600, "temperature": 8, "sharpness": 1,
            "regularisation": 0.05, "iterations": 10, "decay_from": 150 / 240,
        },
        "wkdf": {
            "ce_weight": 1, "wkdf_weight": 0.08, "mean_weight": 4, "grid": 1, "epsilon": 1e-5,
            "rectified": True, "decay_from": 150 / 240,
        },
    }  # fmt: skip
    changed = {"decay_from": 0.0, "iterations": 2, "regularisation": 0.2, "grid": 2, "epsilon": 0.1}
    for name, parameters in published.items():
        assert METHODS[name].resolved({}).model_dump(exclude_none=True) == parameters
        made = setting(name, "cnn", "wide-cnn")
        known = terms(made, rows=4, labelled=4)[name].item()
        for parameter in set(parameters) - {"ce_weight", "target_weight", "rectified"}:
            made.parameters = made.method.resolved({parameter: changed.get(parameter, 2.5)})
            found = terms(made, rows=4, labelled=4)[name].item()
            assert found != pytest.approx(known, rel=1e-3), parameter


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("wkdl", {"iterations": 0}),
        ("wkdl", {"temperature": 0.0}),
        ("wkdl", {"sharpness": 0.0}),
        ("wkdf", {"grid": 0}),
        ("wkdf", {"epsilon": 0.0}),
        ("wkdf", {"pairs": []}),
    ],
)
def test_parameters_out_of_range_are_refused(name, wrong):
    with pytest.raises(ValidationError):
        METHODS[name].resolved(wrong)
