"""Attention between layers by hand and elsewhere, what it rests on, and one real step of SemCKD."""

from __future__ import annotations

import math

import pytest
import torch
from draws import lattice, normal
from pairs import PAIRS, pair, refusal, setting, terms

from kdpipe.methods import METHODS, Pair, semckd_loss
from kdpipe.methods.cross_layer import SemanticCalibration, SimilarityEmbedding, gram, layer_attention

QUERIES, KEYS = lattice(2, 2, 4), lattice(2, 3, 4, phase=0.7)
CHANNELS = (2, 3, 2)
TEACHER = [lattice(2, c, 2, 2, phase=9 + j) for j, c in enumerate(CHANNELS)]
STUDENT = [[lattice(2, c, 2, 2, phase=i + j) for j, c in enumerate(CHANNELS)] for i in range(2)]


def test_golden_values():
    """Of the paper's formulas in NumPy."""
    attention = layer_attention(QUERIES, KEYS)
    known = torch.tensor([[0.56235741, 0.29291782, 0.14472477], [0.10831769, 0.66221928, 0.22946303]]).double()
    torch.testing.assert_close(attention[0], known, rtol=1e-6, atol=1e-8)
    assert semckd_loss(STUDENT, TEACHER, attention).item() == pytest.approx(1.5193552190455073, rel=1e-9)


def test_semckd_by_hand():
    """One student layer is 1 and 3 away from two teacher layers, squared 1 and 9, which get 3/4 and 1/4."""
    student = [[torch.zeros(1, 2, 2, 2), torch.zeros(1, 1, 2, 2)]]
    teacher = [torch.ones(1, 2, 4, 4), torch.full((1, 1, 2, 2), 3.0)]
    attention = torch.tensor([[[0.75, 0.25]]])
    assert semckd_loss(student, teacher, attention).item() == pytest.approx(0.75 * 1 + 0.25 * 9)
    assert semckd_loss(student * 5, teacher, attention.expand(1, 5, 2)).item() == pytest.approx(3.0)


def test_attention_by_hand():
    """The query is the first key, and at a right angle to the second: e to 1."""
    queries, keys = torch.tensor([[[5.0, 0.0]]]), torch.tensor([[[0.1, 0.0], [0.0, 7.0]]])
    assert layer_attention(queries, keys)[0, 0, 0].item() == pytest.approx(math.e / (math.e + 1), rel=1e-6)


def test_gradients_agree_with_finite_differences_in_float64():
    attention = layer_attention(QUERIES, KEYS)
    first = STUDENT[0][0].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: semckd_loss([[x, *STUDENT[0][1:]], STUDENT[1]], TEACHER, attention), (first,)
    )
    queries = QUERIES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: semckd_loss(STUDENT, TEACHER, layer_attention(x, KEYS)), (queries,))


def test_a_layer_that_says_nothing_attends_to_all_alike_and_not_to_nan():
    """Published code divides by a length of 0 there."""
    queries = torch.zeros(1, 1, 4, requires_grad=True)
    attention = layer_attention(queries, KEYS[:1].float())
    attention[0, 0, 0].backward()
    torch.testing.assert_close(attention, torch.full((1, 1, 3), 1 / 3))
    assert queries.grad.isfinite().all()


def test_autocast_does_not_reach_the_losses():
    student = [[part.float() for part in row] for row in STUDENT]
    teacher, attention = [part.float() for part in TEACHER], layer_attention(QUERIES.float(), KEYS.float())
    outside = semckd_loss(student, teacher, attention)
    with torch.autocast("cpu", torch.bfloat16):
        assert semckd_loss(student, teacher, attention).item() == outside.item()
        assert torch.equal(layer_attention(QUERIES.float(), KEYS.float()), attention)
        assert gram(teacher[0].bfloat16()).dtype == torch.float32


def test_a_layer_is_known_by_the_similarities_of_its_images_whatever_its_width():
    maps = normal(8, 3, 4, 4, dtype=torch.float32)
    embed = SimilarityEmbedding(8)
    turned = maps.flip(1)  # another order of channels is the same layer
    torch.testing.assert_close(embed(maps), embed(turned), rtol=1e-4, atol=1e-4)
    assert embed(maps).shape == (8, 2)
    fewer = embed(maps[:5])
    assert fewer.shape == (5, 2) and fewer.isfinite().all()
    assert SimilarityEmbedding(2)(maps[:2]).shape == (2, 1)


def test_queries_and_keys_are_as_wide_as_a_step_has_images():
    shapes = pair("cnn", "wide-cnn")
    for size in (16, 40):
        made = SemanticCalibration(Pair(shapes.student, shapes.teacher, 10, batch_size=size))
        assert {embed.embed[0].in_features for embed in (*made.queries, *made.keys)} == {size}


@pytest.mark.parametrize("names", PAIRS[:4])
def test_a_real_step_reaches_student_attention_and_projections_alone(names):
    assert refusal("semckd", *names) is None
    made = setting("semckd", *names)
    seen = made.extras.attention(
        [torch.rand(4, *tap.shape) for tap in made.pair.student.taps],
        [torch.rand(4, *tap.shape) for tap in made.pair.teacher.taps],
    )
    assert seen.shape == (4, len(made.pair.student.taps), len(made.pair.teacher.taps))
    torch.testing.assert_close(seen.sum(2), torch.ones_like(seen[..., 0]))
    parts = terms(made, labelled=5)
    assert set(parts) == {"ce", "semckd", "kd"}
    parts["semckd"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.extras.parameters())
    assert any(p.grad.abs().sum() > 0 for p in made.extras.queries.parameters())
    assert sum(p.grad.abs().sum() for p in made.student.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in made.teacher.parameters()) and not made.teacher.training


def test_a_few_steps_lower_the_methods_own_term_and_its_weight_multiplies_it():
    made = setting("semckd", "cnn", "wide-cnn", semckd_weight=1.0)
    optimizer = torch.optim.SGD([*made.student.parameters(), *made.extras.parameters()], lr=0.3)
    values = []
    for _ in range(5):
        term = terms(made)["semckd"]
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
        values.append(term.item())
    assert values[-1] < 0.95 * values[0]
    assert METHODS["semckd"].resolved({}).semckd_weight == 400.0
    whole = terms(setting("semckd", "cnn", "wide-cnn"))["semckd"].item()
    assert whole == pytest.approx(400 * values[0], rel=1e-5)
