"""The memory of contrastive distillation: what is drawn from it and what it keeps."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memories import LABELS, memory, vectors
from scipy.stats import chisquare
from torch._subclasses.fake_tensor import FakeTensorMode

from kdpipe.methods.contrastive import ContrastiveMemory, crd_loss

# ------------------------------------------------------------------------------------------- draws


@given(
    labels=st.lists(st.integers(-1, 3), min_size=2, max_size=30),
    rows=st.lists(st.integers(0, 29), min_size=1, max_size=6),
    wanted=st.integers(1, 50),
)
def test_negatives_are_never_of_the_own_class_nor_the_image_itself(labels, rows, wanted):
    made = ContrastiveMemory(labels, 2, wanted)
    index = torch.tensor([row % len(labels) for row in rows])
    drawn = made.draw(index)
    assert drawn.shape == (len(rows), made.negatives) and 1 <= made.negatives <= wanted
    assert (drawn >= 0).all() and (drawn < len(labels)).all()
    assert (drawn != index[:, None]).all()
    if len(set(labels)) > 1:
        own = torch.tensor(labels)[index][:, None]
        assert ((torch.tensor(labels)[drawn] != own) | (own < 0)).all()


@pytest.mark.parametrize("row", [0, 1, 5, 8, 11])
def test_negatives_are_uniform_over_all_that_are_allowed(row):
    labels = (0, 1, 2, 0, 0, -1, 2, 1, 0, -1, -1, 2)
    made = memory(labels, negatives=5)
    torch.manual_seed(1)
    counts = made.draw(torch.full((1200,), row)).flatten().bincount(minlength=12)
    own = labels[row]
    allowed = [i for i in range(12) if i != row and (own < 0 or labels[i] != own)]
    assert counts.sum() == counts[allowed].sum()
    assert chisquare(counts[allowed].numpy()).pvalue > 0.001
    assert (counts[allowed] > 0).all()


def test_a_seed_fixes_the_draw_and_the_whole_batch_is_drawn_at_once(monkeypatch):
    made, index = memory(), torch.arange(12)
    torch.manual_seed(7)
    one = made.draw(index)
    torch.manual_seed(7)
    assert torch.equal(made.draw(index), one)
    assert not torch.equal(made.draw(index), one)
    calls, randint = [], torch.randint
    monkeypatch.setattr(torch, "randint", lambda *args, **more: calls.append(args) or randint(*args, **more))
    crd_loss(vectors(12, 4, 1), vectors(12, 4, 2), index, made)
    assert len(calls) == 1


def test_negatives_are_capped_by_what_the_set_offers():
    assert memory(negatives=16384).negatives == 8  # four of twelve images are of the own class
    assert memory((0, 0, 0, 0, 1), negatives=16384).negatives == 1
    assert memory((0, 0, 1, 1, *[-1] * 96), negatives=16384).negatives == 98
    assert memory(tuple(i % 10 for i in range(20_000)), width=2, negatives=16384).negatives == 16384


@pytest.mark.parametrize("labels", [(), (3,), (-1,), (2, 2, 2), (-1, -1)])
def test_sets_without_classes_to_tell_apart_still_make_a_memory(labels):
    made = memory(labels)
    index = torch.zeros(3, dtype=torch.int64)
    assert (made.draw(index) != 0).all()
    assert crd_loss(vectors(3, 4, 1), vectors(3, 4, 2), index, made).isfinite()


# ------------------------------------------------------------------------------------------ memory


def test_banks_hold_unit_vectors_and_move_by_the_momentum():
    made = memory(momentum=0.75)
    before = made.student_bank.clone(), made.teacher_bank.clone()
    student, teacher, index = vectors(3, 4, 1), vectors(3, 4, 2), torch.tensor([4, 0, 9])
    crd_loss(student, teacher, index, made)
    for bank, old, new in zip((made.student_bank, made.teacher_bank), before, (student, teacher), strict=True):
        assert torch.allclose(bank.norm(dim=1), torch.ones(12))
        assert not bank.requires_grad
        moved = 0.75 * old[index] + 0.25 * new / new.norm(dim=1, keepdim=True)
        torch.testing.assert_close(bank[index], moved / moved.norm(dim=1, keepdim=True))
        others = [i for i in range(12) if i not in (4, 0, 9)]
        assert torch.equal(bank[others], old[others])


def test_an_update_between_forward_and_backward_leaves_the_gradient_right():
    student, index = vectors(4, 4, 1).requires_grad_(), torch.tensor([0, 1, 2, 3])
    gradients = []
    for often in (0, 3):
        made = memory()
        torch.manual_seed(5)
        loss = crd_loss(student, vectors(4, 4, 2), index, made)
        for _ in range(often):
            crd_loss(vectors(4, 4, 3), vectors(4, 4, 4), index, made)
        gradients.append(torch.autograd.grad(loss, student)[0])
    assert torch.equal(*gradients)


def test_an_image_twice_in_a_batch_is_updated_by_its_first_row():
    student, teacher = vectors(4, 4, 1), vectors(4, 4, 2)
    made, known = memory(), memory()
    made.remember(torch.tensor([5, 2, 5, 5]), student, teacher)
    known.remember(torch.tensor([5, 2]), student[:2], teacher[:2])
    assert torch.equal(made.student_bank, known.student_bank)
    assert torch.equal(made.teacher_bank, known.teacher_bank)


def test_the_constants_are_set_once_and_by_the_first_scores():
    made = memory(negatives=3)
    assert made.log_constants.isnan().all()
    student, teacher, index = vectors(4, 4, 1), vectors(4, 4, 2), torch.arange(4)
    torch.manual_seed(2)
    drawn = made.draw(index)
    unit = torch.nn.functional.normalize
    scores = torch.einsum("bd,bkd->bk", unit(student), made.teacher_bank[drawn])
    scores = torch.cat([(unit(student) * unit(teacher)).sum(1, keepdim=True), scores], 1) / 0.07
    torch.manual_seed(2)
    crd_loss(student, teacher, index, made)
    assert made.log_constants[0].item() == pytest.approx(math.log(scores.double().exp().mean().item() * 12), rel=1e-5)
    first = made.log_constants.clone()
    crd_loss(teacher, student, index, made)
    assert torch.equal(made.log_constants, first) and first[0] != first[1]


def test_no_value_is_asked_for_on_the_way():
    """Tensors without values pass, so a GPU is never waited for."""
    made = memory()
    with FakeTensorMode():
        for name, buffer in list(made.named_buffers()):
            setattr(made, name, torch.empty(buffer.shape, dtype=buffer.dtype))
        student, teacher = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
        crd_loss(student, teacher, torch.zeros(5, dtype=torch.int64), made).backward()


def test_in_evaluation_nothing_is_remembered():
    made = memory().eval()
    state = copy.deepcopy(made.state_dict())
    crd_loss(vectors(4, 4, 1), vectors(4, 4, 2), torch.arange(4), made)
    for name, tensor in made.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0, equal_nan=True)


def test_a_memory_that_was_saved_goes_on_as_if_it_had_not_been():
    def train(made, steps):
        values = []
        for step in steps:
            torch.manual_seed(step)
            index = torch.tensor([step, step + 1, step + 2])
            values.append(crd_loss(vectors(3, 4, step), vectors(3, 4, 50 + step), index, made).item())
        return values

    whole, half = memory(), memory()
    expected = train(whole, range(8))
    first = train(half, range(4))
    torch.manual_seed(99)
    resumed = ContrastiveMemory(LABELS, 4, 5)
    resumed.load_state_dict({name: tensor.clone() for name, tensor in half.state_dict().items()})
    assert first + train(resumed, range(4, 8)) == expected
    assert not any(True for _ in resumed.parameters())
