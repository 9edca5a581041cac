"""What a recipe may ask for besides SGD: AdamW, clipping, smoothed labels, a running mean of the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from draws import same
from torch import nn
from trainings import CPU, STEPS, VALIDATION, fit, interrupted, learner, recipe, trained_teacher

from kdpipe.config.sections import MethodSpec
from kdpipe.config.training import TrainingSpec
from kdpipe.data.augmentation import AUGMENTATIONS
from kdpipe.methods import METHODS, Step
from kdpipe.training import loop
from kdpipe.training.evaluation import accuracy
from kdpipe.training.learner import Resume
from kdpipe.training.optimizers import RunningMean, clip_gradients, make_optimizer, snapshot

pytestmark = pytest.mark.usefixtures("one_thread")
ADAMW = {"optimizer": "adamw", "lr": 0.002, "weight_decay": 0.05}
RECIPES = {
    "adamw": {**ADAMW, "betas": [0.8, 0.95]},
    "clipped": {"clip_norm": 0.5},
    "smoothed": {"label_smoothing": 0.2},
    "averaged": {"ema": 0.9},
    "all": {**ADAMW, "clip_norm": 1.0, "label_smoothing": 0.1, "ema": 0.99},
}


@pytest.fixture(scope="module")
def teacher():
    return trained_teacher()


def taught(teacher, asked, name="kd", **more):
    (made,) = fit([learner(name, teacher, **more)], teacher, recipe(**asked))
    return made


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_gives_the_same_bits_alone_in_company_and_after_a_resume(tmp_path, monkeypatch, teacher, name):
    """The group's recipe is another one: optimiser, smoothing, clipping and the mean are a student's own."""
    own = recipe(**RECIPES[name])
    alone = taught(teacher, RECIPES[name])
    _, beside = fit([learner("plain", teacher), learner("kd", teacher, recipe=own)], teacher, recipe())
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    resume = Resume(tmp_path, {"kd": "kd"})
    interrupted([learner("kd", teacher, recipe=own)], teacher, resume, 7)
    (resumed,) = fit([learner("kd", teacher, recipe=own)], teacher, resume=resume)
    for made in (beside, resumed):
        assert same(snapshot(made.network), snapshot(alone.network))
        assert same(made.best.state, alone.best.state)
        assert made.history == alone.history
    assert not same(snapshot(alone.network), snapshot(taught(teacher, {}).network))


def test_fields_stay_out_of_keys_until_they_are_used_and_companions_may_differ_in_them():
    fields = {"optimizer", "betas", "clip_norm", "label_smoothing", "ema"}
    assert not fields & set(TrainingSpec().keyed())
    for asked in RECIPES.values():
        used = TrainingSpec(**asked)
        assert set(used.keyed()) - set(TrainingSpec().keyed()) == fields & set(asked)
        assert used.shared == TrainingSpec().shared
    assert MethodSpec(method="kd", training={"optimizer": "adamw"}).role == "distilled"


def test_the_reference_names_every_field_and_every_augmentation():
    text = (Path(__file__).parent.parent / "docs" / "TRAINING.md").read_text()
    names = {*TrainingSpec.model_fields, *AUGMENTATIONS}
    assert not {name for name in names if f"`{name}`" not in text and f"`{name} =" not in text}


@pytest.mark.parametrize(
    ("field", "value"),
    [("optimizer", "adam"), ("betas", [0.9]), ("betas", [0.9, 1.0]), ("clip_norm", 0.0), ("label_smoothing", 1.0),
     ("ema", 0.0), ("ema", 1.0)],
)  # fmt: skip
def test_values_that_make_no_sense_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        TrainingSpec(**{field: value})


# --------------------------------------------------------------------------------------- optimisers


def test_adamw_decays_apart_from_the_gradient_and_spares_norms_and_biases():
    """Without a gradient, one step multiplies weights by 1 - lr * decay, and leaves biases as they are."""
    linear = nn.Linear(3, 2)
    before = snapshot(linear)
    optimizer = make_optimizer(recipe(**ADAMW, betas=[0.8, 0.95]), [linear])
    for parameter in linear.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(linear.weight.detach(), before["weight"] * (1 - 0.002 * 0.05))
    assert torch.equal(linear.bias, before["bias"])
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.95)}


def test_adamw_moves_by_the_learning_rate_at_first():
    """Its first step is lr * sign(gradient), whatever the gradient's length (Kingma & Ba, 2015)."""
    weight = nn.Linear(4, 1, bias=False)
    before = weight.weight.detach().clone()
    optimizer = make_optimizer(recipe(**{**ADAMW, "weight_decay": 0.0}), [weight])
    weight.weight.grad = torch.tensor([[3.0, -0.01, 500.0, -2.0]])
    optimizer.step()
    torch.testing.assert_close((weight.weight - before).detach(), -0.002 * weight.weight.grad.sign())


def test_only_gradients_that_are_too_long_are_shortened_all_by_one_factor():
    two = [nn.Linear(2, 1, bias=False), nn.Linear(1, 1)]
    optimizer = make_optimizer(recipe(), two)
    for parameter in (p for module in two for p in module.parameters()):
        parameter.grad = torch.ones_like(parameter)  # four numbers: norm 2
    clip_gradients(optimizer, 3.0)
    assert all((p.grad == 1).all() for module in two for p in module.parameters())
    clip_gradients(optimizer, 1.0)
    torch.testing.assert_close(two[1].bias.grad, torch.tensor([0.5]))
    torch.testing.assert_close(two[0].weight.grad, torch.full((1, 2), 0.5))


def test_extras_count_in_the_norm(teacher):
    made = learner("fitnet", teacher)
    made.set_up(recipe(), CPU)
    for parameter in made.extras.parameters():
        parameter.grad = torch.ones_like(parameter)
    clip_gradients(made.optimizer, 1.0)
    lengths = [p.grad.norm() for p in made.extras.parameters() if p.grad is not None]
    assert torch.stack(lengths).norm() == pytest.approx(1.0, rel=1e-4)


# ------------------------------------------------------------------------------------- soft labels


def a_step(logits, target, **more):
    outputs = SimpleNamespace(logits=logits)
    return Step(outputs, None, target, target, 0.0, METHODS["label-smoothing"].resolved({}), None, None, None, **more)


def test_smoothed_labels_are_a_mixture_with_all_classes():
    logits, target = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 4, 9, 0])
    soft = 0.8 * F.one_hot(target, 10) + 0.2 / 10
    expected = -(soft * logits[:4].log_softmax(1)).sum(1).mean()
    step = a_step(logits, target, label_smoothing=0.2)
    torch.testing.assert_close(step.cross_entropy, expected)
    torch.testing.assert_close(replace(step, label_smoothing=0.0).cross_entropy, F.cross_entropy(logits[:4], target))


def test_the_control_that_smooths_has_a_share_of_its_own():
    """Its epsilon (0.1) stands in the place of the recipe's."""
    logits, target = torch.randn(4, 10, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 4, 9, 0])
    control = METHODS["label-smoothing"].terms(a_step(logits, target, label_smoothing=0.4))["ce"]
    torch.testing.assert_close(control, F.cross_entropy(logits, target, label_smoothing=0.1))


def test_plain_with_smoothed_labels_is_the_control_that_smooths(teacher):
    """Two ways to ask for one thing give one network."""
    smoothed = taught(teacher, {"label_smoothing": 0.1}, "plain", drop=0.0)
    control = taught(teacher, {}, "label-smoothing", drop=0.0)
    assert same(snapshot(smoothed.network), snapshot(control.network))


# ------------------------------------------------------------------------------------ running mean


def test_the_mean_of_constant_weights_is_those_weights_and_of_a_jump_the_known_share():
    linear = nn.Linear(2, 1)
    mean = RunningMean(linear, 0.5)
    before = snapshot(linear)
    mean.update(0)
    assert same(mean.state, before)
    with torch.no_grad():
        linear.bias += 1
    for step in (100, 101, 102):  # late enough for the decay itself
        mean.update(step)
    torch.testing.assert_close(mean.state["bias"], before["bias"] + 1 - 0.5**3)


def test_the_first_steps_are_forgotten_sooner():
    """After the first step the mean keeps (1 + 1) / (10 + 1) of the initial weights, whatever the decay."""
    linear = nn.Linear(1, 1, bias=False)
    mean = RunningMean(linear, 0.9999)
    initial = linear.weight.item()
    with torch.no_grad():
        linear.weight += 1
    mean.update(0)
    assert mean.state["weight"].item() == pytest.approx(initial + 9 / 11)


def test_the_mean_is_what_is_evaluated_selected_kept_and_left(teacher):
    """And training goes on from the weights themselves: its losses are those of a training without a mean."""
    averaged = taught(teacher, {"ema": 0.9}, keep_at=(8,), drop=0.0)
    without = taught(teacher, {}, keep_at=(8,), drop=0.0)
    losses = [[row for row in made.history if row[1] != "val_accuracy"] for made in (averaged, without)]
    assert losses[0] == losses[1]
    for name, last in snapshot(without.network).items():
        if last.is_floating_point():
            assert not torch.equal(averaged.network.state_dict()[name], last), name  # BatchNorm's statistics too
        else:
            assert torch.equal(averaged.network.state_dict()[name], last)
    assert accuracy(averaged.network, VALIDATION) == averaged.val_accuracy
    scores = {step: value for step, name, value in averaged.history if name == "val_accuracy"}
    assert scores[STEPS] == averaged.val_accuracy and scores[averaged.best.step] == averaged.best.accuracy
    again = recipe(ema=0.9)
    (reference,) = fit([learner("kd", teacher, drop=0.0)], teacher, again)
    weights = reference.network
    for step, state in ((8, averaged.kept[8]), (averaged.best.step, averaged.best.state)):
        weights.load_state_dict(state)
        assert accuracy(weights, VALIDATION) == scores[step]


def test_the_mean_is_that_of_every_step_worked_out_by_hand(teacher):
    whole = taught(teacher, {"ema": 0.9}, drop=0.0)
    every = taught(teacher, {}, keep_at=tuple(range(1, STEPS)), drop=0.0)
    states = [*(every.kept[step]["model.fc.bias"] for step in range(1, STEPS)), every.network.model.fc.bias.detach()]
    mean = learner("kd", teacher, drop=0.0).network.model.fc.bias.detach().clone()
    for n, state in enumerate(states, 1):
        decay = min(0.9, (1 + n) / (10 + n))
        mean = decay * mean + (1 - decay) * state
    torch.testing.assert_close(whole.network.model.fc.bias.detach(), mean)


def test_a_mean_of_another_network_is_refused_and_training_starts_anew(tmp_path, monkeypatch, teacher):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    resume, notes, asked = Resume(tmp_path, {"kd": "kd"}), [], recipe(ema=0.9)
    interrupted([learner("kd", teacher, recipe=asked)], teacher, resume, 7)
    saved = resume.load("kd")
    saved["mean"].popitem()
    resume.save("kd", saved)
    made = learner("kd", teacher, recipe=asked)
    fit([made], teacher, resume=resume, advance=lambda steps, note: notes.append(note))
    assert notes[0] == "kd from the start, as its resume file is damaged"
    assert same(snapshot(made.network), snapshot(taught(teacher, {"ema": 0.9}).network))


# -------------------------------------------------------------------------------------- image sizes


class Enlarged(nn.Module):
    """A network of 16 x 16 images that is shown images of 8 x 8 by somebody else's hand."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(F.interpolate(images, (16, 16), mode="bilinear", antialias=True))


def test_a_teacher_of_larger_images_teaches_what_it_says_of_larger_images(teacher):
    """Both see one view, each at its own size."""
    large, bare = trained_teacher(image_size=16), trained_teacher()
    bare.load_state_dict(large.state_dict())
    (found,) = fit([learner("kd", large, drop=0.0)], large)
    (expected,) = fit([learner("kd", large, drop=0.0)], Enlarged(bare))
    assert same(snapshot(found.network), snapshot(expected.network))
    (small,) = fit([learner("kd", bare, drop=0.0)], bare)
    assert not same(snapshot(found.network), snapshot(small.network))


@pytest.mark.parametrize("name", ["kd", "fitnet", "at", "rkd"])
@pytest.mark.parametrize(("student_size", "teacher_size"), [(None, 16), (16, None), (12, 16)])
def test_teacher_and_student_of_different_image_sizes_learn(name, student_size, teacher_size):
    """Maps of different sizes meet, and students of other sizes share the batch."""
    teacher = trained_teacher(teacher_size)
    both = [
        learner(name, teacher, student=(name, 1, False), drop=0.0, image_size=student_size),
        learner("plain", teacher, drop=0.0),
    ]
    fit(both, teacher, recipe(steps=4))
    assert all(made.diverged_step is None for made in both)
    (alone,) = fit([learner(name, teacher, student=(name, 1, False), drop=0.0, image_size=student_size)], teacher,
                   recipe(steps=4))  # fmt: skip
    assert same(snapshot(alone.network), snapshot(both[0].network))
    maps = [one.network(torch.rand(1, 1, 8, 8)).maps[0].shape[-1] for one in both]
    assert (maps[0] > maps[1]) == (student_size is not None)
