"""Masked generation by hand and elsewhere, what is hidden and from whom, and which networks have tokens."""

from __future__ import annotations

import pytest
import torch
from draws import lattice, normal
from pairs import PAIRS, pair, refusal, setting, terms
from torch import nn

from kdpipe.methods import METHODS, mgd_loss, vitkd_loss
from kdpipe.methods.generation import Regeneration, TokenGeneration
from kdpipe.models.profile import Profile, Tap

TERMS = {"mgd": ["mgd"], "vitkd": ["shallow", "deep"]}
VITS = ("vit", "vit-mean")


# ------------------------------------------------------------------------------------ both of them


def test_golden_values():
    """Of the papers' sums in NumPy; every second token is hidden."""
    student, teacher = lattice(2, 3, 4, 4), lattice(2, 3, 4, 4, phase=0.5)
    hidden = (torch.arange(32) % 2 == 0).view(2, 1, 4, 4)
    assert mgd_loss(student, teacher).item() == pytest.approx(5.898446369495005, rel=1e-9)
    assert vitkd_loss(student, teacher).item() == pytest.approx(5.898446369495005, rel=1e-9)
    assert vitkd_loss(student, teacher, hidden).item() == pytest.approx(6.004266423106126, rel=1e-9)


@pytest.mark.parametrize("loss", [mgd_loss, vitkd_loss])
def test_losses_are_sums_over_a_map_and_means_over_images(loss):
    """The published weights belong to sums: a mean over elements is channels times positions too small."""
    one = torch.ones(2, 3, 4, 4)
    assert loss(one, 0 * one).item() == 3 * 4 * 4
    assert loss(one, torch.cat([0 * one[:1], one[:1]])).item() == 3 * 4 * 4 / 2


@pytest.mark.parametrize("loss", [mgd_loss, vitkd_loss])
def test_gradients_agree_with_finite_differences_in_float64(loss):
    student, teacher = normal(2, 2, 3, 3).requires_grad_(), normal(2, 2, 3, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), (student,))


@pytest.mark.parametrize("loss", [mgd_loss, vitkd_loss])
def test_autocast_does_not_reach_the_losses(loss):
    student, teacher = (normal(2, 3, 4, 4, seed=seed, dtype=torch.float32) for seed in (0, 1))
    outside = loss(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(student, teacher).item() == outside.item()
        assert loss(student.bfloat16(), teacher.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "names"), [("mgd", names) for names in PAIRS[:3]] + [("mgd", VITS), ("vitkd", VITS), ("vitkd", VITS[::-1])]
)
def test_a_real_step_reaches_student_and_generator_alone(name, names):
    made = setting(name, *names)
    parts = terms(made, labelled=5)
    assert set(parts) == {"ce", *TERMS[name]}
    sum(parts[term] for term in TERMS[name]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.extras.parameters())
    assert sum(p.grad.abs().sum() for p in made.student.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in made.teacher.parameters()) and not made.teacher.training


@pytest.mark.parametrize(
    ("name", "names", "rate"), [("mgd", ("cnn", "wide-cnn"), 30.0), ("mgd", VITS, 150.0), ("vitkd", VITS, 30.0)]
)
def test_a_few_steps_lower_the_methods_own_terms(name, names, rate):
    made = setting(name, *names)
    optimizer = torch.optim.SGD([*made.student.parameters(), *made.extras.parameters()], lr=rate)
    values = []
    for _ in range(6):
        parts = terms(made)
        term = sum(parts[own] for own in TERMS[name])
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
        values.append(term.item())
    assert values[-1] < 0.95 * values[0]


@pytest.mark.parametrize(("name", "field"), [("mgd", "mgd"), ("vitkd", "shallow"), ("vitkd", "deep")])
def test_weights_multiply_their_terms(name, field):
    def value(**parameters):
        made = setting(name, *VITS, **parameters)
        torch.manual_seed(0)  # what is hidden
        return terms(made)

    once = value()
    default = getattr(METHODS[name].resolved({}), f"{field}_weight")
    twice = value(ce_weight=0.0, **{f"{field}_weight": 2 * default})
    assert twice[field].item() == pytest.approx(2 * once[field].item(), rel=1e-6) and twice["ce"].item() == 0.0


# -------------------------------------------------------------------------------------------- mgd


class Seen(nn.Module):
    """Passes on what it gets, and keeps it."""

    def forward(self, given):
        self.given = given
        return given


@pytest.mark.parametrize("over", ["channels", "positions"])
def test_whole_channels_or_whole_positions_are_hidden_anew_for_each_image(over):
    made = Regeneration(200, 200)
    made.generate = Seen()
    whole = torch.ones(2, 200, 20, 20)
    torch.manual_seed(0)
    made(whole, 0.3, over)
    left = made.generate.given
    other = (2, 3) if over == "channels" else (1,)
    assert set(left.unique().tolist()) == {0.0, 1.0}, "what is left is not scaled up"
    assert torch.equal(left.amin(other), left.amax(other))
    shares = 1 - left.mean((1, 2, 3))
    assert (shares - 0.3).abs().max() < 0.1 and not torch.equal(left[0], left[1])
    made(whole, 0.3, over)
    assert not torch.equal(made.generate.given, left)
    made(whole, 0.0, over)
    assert torch.equal(made.generate.given, whole)


def test_the_last_layers_are_compared_unless_others_are_named():
    made = setting("mgd", "cnn", "wide-cnn")
    assert made.extras.indices == [(3, 3)]
    named = setting("mgd", "cnn", "wide-cnn", pairs=[["layer1", "layer2"], ["layer3", "layer3"]])
    assert named.extras.indices == [(0, 1), (2, 2)]
    assert isinstance(setting("mgd", "cnn", "cnn").extras.layers[0].align, nn.Identity)
    method = METHODS["mgd"]
    wrong = method.resolved({"pairs": [["layer1", "layer9"]]})
    assert "names layer 'layer9'" in method.refuse(pair("cnn", "wide-cnn"), wrong)


def test_a_last_map_of_one_point_is_refused_and_an_earlier_one_is_not():
    assert "layer blocks.5 has a 1x1 map" in refusal("mgd", "mobile", "wide-cnn")
    method = METHODS["mgd"]
    earlier = method.resolved({"pairs": [["blocks.1", "layer3"]]})
    assert method.refuse(pair("mobile", "wide-cnn"), earlier) is None


# ------------------------------------------------------------------------------------------ vitkd


def test_hidden_tokens_alone_count_in_the_last_layer():
    student, teacher = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    hidden = torch.tensor([[[[True, False], [False, False]]]])
    teacher[:, :, 0, 0], teacher[:, :, 1, 1] = 2.0, 100.0
    assert vitkd_loss(student, teacher, hidden).item() == pytest.approx(3 * 4 / 0.25)


def profile(*shapes: tuple[int, int, int]) -> Profile:
    taps = [Tap(f"blocks.{order}", order, 0.0, None, shape) for order, shape in enumerate(shapes)]
    return Profile(taps, 0, 0, shapes[-1][0], shapes[-1], False, False)


@pytest.mark.parametrize(("side", "masked", "kept"), [(4, 0.5, 8), (3, 0.5, 4), (4, 0.99, 1), (2, 0.01, 3)])
def test_of_each_image_as_many_tokens_are_hidden_behind_a_learned_one(side, masked, kept):
    """Never none, over which there would be no mean, and never all, from which nothing can be generated."""
    tokens = profile(*[(6, side, side)] * 3)
    made = TokenGeneration(tokens, tokens)
    made.generate = Seen()
    with torch.no_grad():
        made.token.fill_(9.0)
    generated, hidden = made.generated(torch.ones(32, 6, side, side), masked)
    assert hidden.shape == (32, 1, side, side)
    assert (hidden.flatten(1).sum(1) == side * side - kept).all()
    assert torch.equal(generated, torch.where(hidden, 9.0, 1.0).expand(32, 6, side, side))
    assert len({tuple(row) for row in hidden.flatten(1).tolist()}) > 1


def test_the_learned_token_is_trained_saved_and_spared_from_weight_decay():
    made = setting("vitkd", *VITS)
    assert made.extras.token.ndim == 1 and "token" in made.extras.state_dict()
    optimizer = torch.optim.SGD(made.extras.parameters(), lr=10.0)
    terms(made)["deep"].backward()
    optimizer.step()
    assert made.extras.token.abs().sum() > 0


def test_networks_without_tokens_of_one_size_are_refused_with_what_they_have():
    for names, whose in ((("cnn", "vit"), "student"), (("vit", "wide-cnn"), "teacher")):
        reason = refusal("vitkd", *names)
        assert "tokens" in reason and f"the {whose}'s layer layer1 has a map of" in reason
    assert refusal("vitkd", "distilled", "vit") is None
    method, whole = METHODS["vitkd"], profile(*[(6, 4, 4)] * 3)

    def refused(student: Profile) -> str:
        shapes = pair("vit", "vit")
        return method.refuse(type(shapes)(student, whole, 10), method.resolved({}))

    assert "looks at 2 of the student's" in refused(profile((6, 4, 4), (6, 4, 4)))
    assert "1x1 grid" in refused(profile(*[(6, 1, 1)] * 3))


def test_grids_of_different_size_meet():
    made = setting("vitkd", *VITS)
    student, teacher = pair(*VITS).student, profile(*[(32, 8, 8)] * 3)
    extras = TokenGeneration(student, teacher)
    low = extras.mimicked([torch.zeros(2, 24, 4, 4)] * 3)
    assert [part.shape for part in low] == [(2, 32, 4, 4)] * 2 and len(made.extras.shallow) == 2
