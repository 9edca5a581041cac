"""Factors, flow matrices, singular vectors and channel correlations against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from draws import normal
from hypothesis import given
from hypothesis import strategies as st
from pairs import pair, setting, terms

from kdpipe.methods import METHODS, fsp_loss, ft_loss, ickd_loss, kdsvd_loss
from kdpipe.methods.factor_transfer import reconstruction_loss
from kdpipe.methods.flow import flow_matrix, successive_layers
from kdpipe.models.profile import Profile, Tap


def rotation(size: int, seed: int = 9) -> torch.Tensor:
    return torch.linalg.qr(normal(size, size, seed=seed))[0]


def moved(maps: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Positions of maps (B, C, H, W) mixed by a matrix (HW, HW)."""
    return (maps.flatten(2) @ by).view_as(maps)


# ---------------------------------------------------------------------------------------------- ft


def test_factors_by_hand():
    """(3, 4) / 5 and (4, 3) / 5 differ by 0.2 in both elements."""
    student, teacher = (torch.tensor(values).view(1, 2, 1, 1) for values in ([3.0, 4.0], [8.0, 6.0]))
    assert ft_loss(student, teacher).item() == pytest.approx(0.2)
    assert ft_loss(student, teacher, p=2).item() == pytest.approx(0.04)
    with pytest.raises(ValueError, match="p = 1 or p = 2, not 3"):
        ft_loss(student, teacher, p=3)


def test_factors_are_compared_whole_and_not_as_attention_maps():
    """Squared and averaged over channels, as in widespread code, a factor loses signs and the order of channels."""
    factor = normal(2, 4, 3, 3)
    for other in (-factor, factor.flip(1)):
        attention = [F.normalize(part.square().mean(1).flatten(1)) for part in (factor, other)]
        assert torch.allclose(*attention)
        assert ft_loss(factor, other) > 0.05
    assert ft_loss(3 * factor, factor).item() == pytest.approx(0.0, abs=1e-15)  # scale alone is free


def test_the_paraphraser_learns_first_and_is_left_alone_after():
    made = setting("ft", "cnn", "wide-cnn")
    paraphraser, translator = made.extras.paraphraser, made.extras.translator
    optimizer = torch.optim.SGD(
        [*made.student.parameters(), *made.extras.parameters()], lr=0.05, momentum=0.9, weight_decay=0.1
    )
    rebuilt, kept = [], {}
    for step in range(12):
        made.extras.train()
        parts = terms(made, progress=0.0 if step < 8 else 0.5)
        optimizer.zero_grad(set_to_none=True)
        sum(parts.values()).backward()
        if step < 8:
            rebuilt.append(parts["reconstruction"].item())
            assert all(p.grad is not None for p in paraphraser.parameters())
            assert all(p.grad is None for p in translator.parameters())
        else:
            kept = kept or {name: part.clone() for name, part in paraphraser.state_dict().items()}
            assert all(p.grad is None for p in paraphraser.parameters())
            assert all(p.grad is not None for p in translator.parameters())
        optimizer.step()
    assert rebuilt[-1] < 0.8 * rebuilt[0]
    # Neither momentum nor weight decay nor batch statistics go on.
    assert all(torch.equal(part, kept[name]) for name, part in paraphraser.state_dict().items())


def test_a_factor_has_a_share_of_the_teachers_channels():
    for rate, width in ((0.5, 20), (0.75, 30), (0.001, 1)):
        made = setting("ft", "vit", "wide-cnn", rate=rate)
        factor, rebuilt = made.extras.paraphraser(torch.rand(2, 40, 4, 4))
        assert factor.shape == (2, width, 4, 4) and rebuilt.shape == (2, 40, 4, 4)
        assert made.extras.translator(torch.rand(2, 24, 4, 4)).shape == (2, width, 4, 4)
    assert reconstruction_loss(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), 3.0)).item() == 9.0


# --------------------------------------------------------------------------------------------- fsp


def test_flow_by_hand():
    """Two channels (1, 2) and (0, 1) over two positions against one channel (3, 5): 13 / 2 and 5 / 2."""
    front, back = torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]]), torch.tensor([[[[3.0, 5.0]]]])
    assert flow_matrix(front, back).tolist() == [[[6.5], [2.5]]]
    assert fsp_loss([front, back], [0 * front, back]).item() == pytest.approx((6.5**2 + 2.5**2) / 2)
    assert fsp_loss([front, back] * 2, [0 * front, back] * 2).item() == pytest.approx(3 * (6.5**2 + 2.5**2) / 2)


def test_a_larger_map_is_pooled_by_its_maximum():
    """As in the paper; averages, as in widespread code, would give 12.5."""
    front, back = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.full((1, 1, 1, 1), 5.0)
    assert flow_matrix(front, back).item() == 20.0 and flow_matrix(back, front).item() == 20.0


def test_flow_depends_on_what_meets_where_and_not_on_where():
    front, back = normal(2, 3, 2, 4), normal(2, 5, 2, 4, seed=1)
    known = torch.einsum("bchw,bdhw->bcd", front, back) / 8
    torch.testing.assert_close(flow_matrix(front, back), known)
    shuffled = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    one, two = (part.flatten(2)[..., shuffled].view_as(part) for part in (front, back))
    torch.testing.assert_close(flow_matrix(one, two), known)
    assert not torch.allclose(flow_matrix(one, back), known)


# --------------------------------------------------------------------------------- layers in order


def taps(count: int) -> Profile:
    made = [Tap(f"layer{i}", i, i / max(count - 1, 1), None, (4, 2, 3)) for i in range(count)]
    return Profile(made, 0, 0, 4, (4, 2, 3), True, True)


def test_a_teachers_layer_comes_once_unless_named_again():
    method = METHODS["fsp"]
    shapes = pair("cnn", "vit")  # four layers, and three
    assert successive_layers(shapes, method.resolved({})) == [(0, 0), (2, 1), (3, 2)]
    named = [["layer1", shapes.teacher.taps[0].layer], ["layer2", shapes.teacher.taps[0].layer]]
    assert successive_layers(shapes, method.resolved({"pairs": named})) == [(0, 0), (1, 0)]


@pytest.mark.parametrize("name", ["fsp", "kdsvd"])
def test_what_is_between_layers_needs_two_of_them(name):
    method, shapes = METHODS[name], pair("cnn", "wide-cnn")
    reason = method.refuse(shapes, method.resolved({"pairs": [["layer1", "layer1"]]}))
    assert "there is a single pair of layers" in reason
    assert "'layer7'" in method.refuse(shapes, method.resolved({"pairs": [["layer7", "layer1"]]}))
    single = type(shapes)(taps(3), taps(1), 10)
    assert "single pair" in method.refuse(single, method.resolved({}))
    assert method.refuse(type(shapes)(taps(3), taps(2), 10), method.resolved({})) is None


def test_channels_are_projected_only_where_they_differ():
    same, wider = setting("fsp", "cnn", "cnn").extras, setting("fsp", "cnn", "wide-cnn").extras
    assert not list(same.parameters()) and len(list(wider.parameters())) == 4
    maps = [torch.rand(2, *tap.shape) for tap in pair("cnn", "cnn").student.taps]
    assert all(torch.equal(one, other) for one, other in zip(same(maps, maps)[0], maps, strict=True))


# ------------------------------------------------------------------------------------------- kdsvd


def test_singular_vectors_by_hand():
    """Of one position, a map has one vector: kernels of (1, 0) with itself and with (0, 1) are 1 and exp(-1/8), which
    change places in all four elements. (0.6, 0.8) with itself: exp(-0.2² / 8) off the diagonal."""
    here, there, between = (
        torch.tensor(channels).double().view(1, 2, 1, 1) for channels in ([1.0, 0.0], [0.0, 2.0], [3.0, 4.0])
    )
    known = 4 * (1 - math.exp(-1 / 8)) ** 2
    assert kdsvd_loss([here, here], [here, there]).item() == pytest.approx(known, rel=1e-12)
    assert kdsvd_loss([here] * 3, [here, there, there]).item() == pytest.approx(known, rel=1e-12)
    known = 2 * (math.exp(-1 / 8) - math.exp(-(0.2**2) / 8)) ** 2
    assert kdsvd_loss([here, here], [between, between]).item() == pytest.approx(known, rel=1e-12)


def test_singular_vectors_match_a_plain_calculation():
    student, teacher = [normal(3, 4, 3, 2, seed=s) for s in (1, 2)], [normal(3, 4, 5, 2, seed=s) for s in (3, 4)]
    total = 0.0
    for image in range(3):
        vectors = []
        for own, other in zip(student, teacher, strict=True):
            right = [torch.linalg.svd(part[image].flatten(1).T)[2] for part in (own, other)]
            target = right[1][0] * right[1][0].sum().sign()
            cosines = right[0] @ target
            best = cosines.abs().argmax()
            vectors.append((right[0][best] * cosines[best].sign(), target))
        (one, known_one), (two, known_two) = vectors
        for i in range(4):
            for j in range(4):
                kernel = math.exp(-((one[i] - two[j]) ** 2) / 8)
                total += (kernel - math.exp(-((known_one[i] - known_two[j]) ** 2) / 8)) ** 2
    assert kdsvd_loss(student, teacher).item() == pytest.approx(total / 3, rel=1e-9)


@given(seed=st.integers(0, 1000), k=st.integers(1, 2))
def test_singular_vectors_are_blind_to_scale_sign_and_positions(seed, k):
    """So also to height and width: a decomposition of the rows of a map, as in one published code, is not."""
    student, teacher = [normal(2, 4, 3, 3, seed=seed + s) for s in (0, 1)], [normal(2, 4, 3, 3, seed=seed + 5)] * 2
    value = kdsvd_loss(student, teacher, k).item()
    by = rotation(9, seed)
    for change in (lambda x: -x, lambda x: 7.0 * x, lambda x: moved(x, by), lambda x: x.transpose(2, 3)):
        assert kdsvd_loss([change(part) for part in student], teacher, k).item() == pytest.approx(value, rel=1e-6)
        assert kdsvd_loss(student, [change(part) for part in teacher], k).item() == pytest.approx(value, rel=1e-6)
    assert kdsvd_loss([part.flip(1) for part in student], teacher, k).item() != pytest.approx(value, rel=1e-3)


def test_the_students_vectors_are_matched_whatever_their_order():
    left, right = rotation(6, 1)[:, :3], rotation(3, 2)
    teacher, student = (
        (left @ torch.diag(torch.tensor(values).double()) @ right.T).T.reshape(1, 3, 2, 3)
        for values in ([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])
    )
    for k in (1, 2, 3):
        assert kdsvd_loss([student] * 2, [teacher] * 2, k).item() == pytest.approx(0.0, abs=1e-20)


def test_the_gradient_is_finite_where_singular_values_are_equal():
    """The library's own is not, and published code drops the elements that are not finite."""
    equal = torch.zeros(1, 3, 2, 2)
    equal[0, 0, 0, 0] = equal[0, 1, 0, 1] = equal[0, 2, 1, 0] = 1.0  # three singular values of 1
    for map_student in (equal, torch.zeros(1, 3, 2, 2)):
        plain = map_student.clone().requires_grad_()
        torch.linalg.svd(plain.flatten(2).mT, full_matrices=False)[2][:, :1].sum().backward()
        own = map_student.clone().requires_grad_()
        loss = kdsvd_loss([own, own], [normal(1, 3, 2, 2, seed=s).float() for s in (1, 2)])
        loss.backward()
        assert not plain.grad.isfinite().all()
        assert loss.isfinite() and own.grad.isfinite().all() and own.grad.abs().max() < 10


def test_the_gradient_is_the_librarys_where_singular_values_differ():
    """For more positions than channels and for fewer, where directions that a map does not span come in."""
    for shape in ((2, 3, 3, 3), (2, 6, 1, 3)):
        teacher = [normal(*shape, seed=s) for s in (3, 4)]
        own = [normal(*shape, seed=s).requires_grad_() for s in (1, 2)]
        assert torch.autograd.gradcheck(lambda *maps, of=teacher: kdsvd_loss(maps, of, 2), own, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (2, 6, 1, 3)])
def test_a_diverged_student_has_no_finite_loss_and_stops_nobody_else(shape):
    """The library raises at a matrix that is not finite."""
    student, teacher = [normal(*shape, seed=s) for s in (1, 2)], [normal(*shape, seed=s) for s in (3, 4)]
    student[1][0, 0, 0, 0] = math.nan
    with pytest.raises(RuntimeError):
        torch.linalg.eigh(student[1].flatten(2) @ student[1].flatten(2).mT)
    assert kdsvd_loss(student, teacher).isnan()
    assert kdsvd_loss([part[1:] for part in student], [part[1:] for part in teacher]).isfinite()


def test_more_vectors_than_a_map_has_are_refused():
    method, shapes = METHODS["kdsvd"], pair("cnn", "wide-cnn")
    assert method.refuse(shapes, method.resolved({"k": 4})) is None
    reason = method.refuse(shapes, method.resolved({"k": 5}))
    assert "parameters.k is 5, but layer layer4 has 4 positions and 40 channels" in reason
    few = [["layer1", "layer1"], ["layer2", "layer2"]]  # 16 channels, 24 channels, many positions
    assert method.refuse(shapes, method.resolved({"k": 16, "pairs": few})) is None
    assert "16 singular vectors at most" in method.refuse(shapes, method.resolved({"k": 17, "pairs": few}))


# -------------------------------------------------------------------------------------------- ickd


def test_channel_correlations_by_hand():
    """Rows (1, 0) and (0, 1) against (1, 1) / √2 twice: 2 - √2 a row, over two channels."""
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    teacher = torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]])
    assert ickd_loss(student, teacher).item() == pytest.approx(2 - math.sqrt(2), rel=1e-6)


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10.0))
def test_channel_correlations_are_blind_to_scale_and_positions(seed, scale):
    """And to the size of a map: here the same positions come twice."""
    student, teacher = normal(2, 3, 2, 2, seed=seed), normal(2, 3, 2, 2, seed=seed + 1)
    value = ickd_loss(student, teacher).item()
    assert ickd_loss(scale * student, -teacher).item() == pytest.approx(value, rel=1e-9)
    assert ickd_loss(moved(student, rotation(4, seed)), teacher).item() == pytest.approx(value, rel=1e-9)
    assert ickd_loss(student, teacher.repeat(1, 1, 2, 1)).item() == pytest.approx(value, rel=1e-9)
    one_scaled = student * torch.tensor([1.0, 3.0, 1.0]).double().view(1, 3, 1, 1)
    assert ickd_loss(one_scaled, teacher).item() != pytest.approx(value, rel=1e-6)


def test_a_dead_channel_gives_no_gradient():
    """A clamped norm would give it one of 1 / clamp."""
    student = normal(1, 3, 2, 2, dtype=torch.float32)
    student[:, 1] = 0
    student.requires_grad_()
    ickd_loss(student, normal(1, 3, 2, 2, seed=1, dtype=torch.float32)).backward()
    assert student.grad.isfinite().all() and student.grad.abs().max() < 10


def test_a_map_of_one_point_has_no_correlations():
    method = METHODS["ickd"]
    assert "1x1 map" in method.refuse(pair("mobile", "wide-cnn"), method.resolved({}))
    assert method.refuse(pair("vit", "wide-cnn"), method.resolved({})) is None
