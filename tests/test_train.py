"""Training: the same bits alone, in company and after a resume; a frozen teacher; divergence contained."""

from __future__ import annotations

import math
import resource
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from draws import same
from torch import nn
from torch._dynamo.utils import counters
from trainings import (
    CPU,
    STEPS,
    STUDENTS,
    TRAIN,
    VALIDATION,
    fit,
    interrupted,
    learner,
    network,
    recipe,
    trained_teacher,
)

from kdpipe.config.training import TrainingSpec
from kdpipe.data.augmentation import AUGMENTATIONS
from kdpipe.data.batches import Batches
from kdpipe.methods import METHODS
from kdpipe.training import learner as learner_module
from kdpipe.training import loop
from kdpipe.training.clock import StepClock
from kdpipe.training.evaluation import accuracy, predict, use_half
from kdpipe.training.learner import Resume
from kdpipe.training.loop import train
from kdpipe.training.optimizers import snapshot
from kdpipe.training.schedules import SCHEDULES, learning_rate, step_decay
from kdpipe.training.teacher_batches import TeacherBatches, TeacherLogits, frozen, mixup

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def teacher():
    return trained_teacher()


@pytest.fixture(scope="module")
def group(teacher):
    return {made.name: made for made in fit([learner(name, teacher) for name in STUDENTS], teacher)}


@pytest.mark.parametrize("name", list(STUDENTS))
def test_a_student_gets_the_same_bits_alone_and_in_company(group, teacher, name):
    """With dropout on: its noise, too, is its own."""
    (alone,) = fit([learner(name, teacher)], teacher)
    assert same(snapshot(alone.network), snapshot(group[name].network))
    assert alone.history == group[name].history
    if alone.extras is not None:
        assert same(snapshot(alone.extras), snapshot(group[name].extras))


def test_students_do_differ_from_each_other(group):
    weights = [made.network.model.fc.weight for made in group.values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])


def test_the_global_random_state_has_no_say(teacher, group):
    torch.manual_seed(99)
    torch.rand(17)
    (again,) = fit([learner("kd", teacher)], teacher)
    assert same(snapshot(again.network), snapshot(group["kd"].network))


def test_the_teacher_is_not_touched():
    teacher = trained_teacher()
    before = snapshot(teacher)
    assert before["model.bn1.num_batches_tracked"] == 1
    fit([learner("kd", teacher), learner("fitnet", teacher)], teacher)
    assert same(before, snapshot(teacher))  # BatchNorm's statistics among them
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_training_learns(teacher):
    (made,) = fit([learner("plain", teacher, drop=0.0)], teacher, recipe(steps=60))
    losses = [value for _, quantity, value in made.history if quantity == "loss"]
    assert losses[-1] < 0.85 * losses[0]


def test_the_history_has_every_term_and_they_add_up(group):
    history = {(step, quantity): value for step, quantity, value in group["fitnet"].history}
    for step in range(1, STEPS + 1):
        total = history[step, "loss/ce"] + history[step, "loss/hint"]
        assert history[step, "loss"] == pytest.approx(total, rel=1e-5)
        assert history[step, "lr"] == pytest.approx(learning_rate(recipe(), step - 1))
    assert sorted(step for step, quantity in history if quantity == "val_accuracy") == [4, 8, 12]


# -------------------------------------------------------------------------------------- divergence


def test_divergence_is_caught_named_and_contained(group, teacher):
    bad = learner("hopeless", teacher, {"kd_weight": 1e30}, student=("kd", 1, False))
    names = ("plain", "kd", "fitnet", "second-seed")
    learners = fit([bad, *(learner(name, teacher) for name in names)], teacher)
    assert learners[0].diverged_step is not None and 1 < learners[0].diverged_step <= 4
    for made in learners[1:]:
        assert made.diverged_step is None
        assert same(snapshot(made.network), snapshot(group[made.name].network))


@pytest.mark.parametrize("at", [1, 5, STEPS])
def test_the_first_step_without_a_finite_loss_is_the_one_that_is_named(teacher, at):
    class Poisoned(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.calls = inner, 0

        @property
        def mean(self):
            return self.inner.mean

        def forward(self, images):
            outputs = self.inner(images)
            self.calls += self.training
            return outputs if self.calls < at else replace(outputs, logits=outputs.logits * math.nan)

    made = learner("plain", teacher)
    made.network = Poisoned(made.network)
    fit([made], teacher)
    assert made.diverged_step == at


def test_weights_spoiled_by_the_last_step_count_as_divergence(teacher):
    """The last loss was finite, the step it led to was not: there is no network to look at."""
    bad = learner("hopeless", teacher, {"kd_weight": 1e37}, student=("kd", 1, False))
    fit([bad], teacher, recipe(steps=1))
    logits = predict(bad.network, VALIDATION.images)
    assert not logits.isfinite().all()
    assert bad.diverged_step is not None


def test_when_all_diverge_the_bar_is_filled(teacher):
    told = []
    bad = [learner(n, teacher, {"kd_weight": 1e30}, student=("kd", 1, False)) for n in ("a", "b")]
    fit(bad, teacher, recipe(steps=100), advance=lambda steps, note: told.append(steps))
    assert sum(told) == 200


# ------------------------------------------------------------------------------------------ resume


@pytest.mark.parametrize("at", [1, 5, 11])
def test_resumed_training_ends_with_the_same_bits(tmp_path, monkeypatch, group, teacher, at):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    resume = Resume(tmp_path / "resume", {name: name for name in STUDENTS})
    interrupted([learner(name, teacher) for name in STUDENTS], teacher, resume, at)
    assert resume.load("fitnet")["step"] == at
    for made in fit([learner(name, teacher) for name in STUDENTS], teacher, resume=resume):
        assert same(snapshot(made.network), snapshot(group[made.name].network)), made.name
        assert made.history == group[made.name].history
        assert made.best.step == group[made.name].best.step
        assert same(made.best.state, group[made.name].best.state)


def test_a_student_that_comes_late_meets_every_step_once(tmp_path, monkeypatch, group, teacher):
    """One has a checkpoint, the other starts from nothing, in one call."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    resume = Resume(tmp_path, {name: name for name in STUDENTS})
    interrupted([learner("kd", teacher)], teacher, resume, 7)
    told = []
    both = [learner("kd", teacher), learner("plain", teacher)]
    for made in fit(both, teacher, resume=resume, advance=lambda steps, note: told.append(steps)):
        assert same(snapshot(made.network), snapshot(group[made.name].network))
    assert sum(told) == 2 * STEPS


def test_a_damaged_checkpoint_counts_as_empty_and_pickles_are_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    resume = Resume(tmp_path, {"a": "a"})
    assert resume.load("a") is None
    resume.save("a", {"step": 3})
    whole = (tmp_path / "a.pt").read_bytes()
    assert resume.load("a") == {"step": 3}
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    assert resume.load("a") == {}
    torch.save({"step": Trap()}, tmp_path / "a.pt")
    assert resume.load("a") == {}
    assert not (tmp_path / "sprung").exists()
    resume.clear("a")
    resume.clear("a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda saved: saved["optimizer"].pop("param_groups"),
        lambda saved: saved["optimizer"]["param_groups"].pop(),
        lambda saved: saved["optimizer"].pop("state"),
        lambda saved: saved["network"].pop("model.conv1.weight"),
        lambda saved: saved["extras"].pop(next(iter(saved["extras"]))),
        lambda saved: saved["kept"].update({4: {"x": torch.zeros(1)}}),
        lambda saved: saved.update(best=(1, 0.5, {"x": torch.zeros(1)})),
        lambda saved: saved.update(best=()),
        lambda saved: saved.update(history=[(1, "loss")]),
        lambda saved: saved.update(step=STEPS),
        lambda saved: saved.update(step="7"),
        dict.clear,
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named_and_the_training_starts_anew(
    tmp_path, monkeypatch, group, teacher, damage
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    resume, notes = Resume(tmp_path, {"fitnet": "fitnet"}), []
    interrupted([learner("fitnet", teacher)], teacher, resume, 7)
    saved = resume.load("fitnet")
    damage(saved)
    resume.save("fitnet", saved)
    (made,) = fit([learner("fitnet", teacher)], teacher, resume=resume, advance=lambda steps, note: notes.append(note))
    assert notes[0] == "fitnet from the start, as its resume file is damaged"
    assert same(snapshot(made.network), snapshot(group["fitnet"].network))
    assert made.history == group["fitnet"].history and same(made.best.state, group["fitnet"].best.state)


def test_a_disk_that_does_not_take_a_checkpoint_is_an_os_error(tmp_path):
    resume = Resume(tmp_path, {"a": "a"})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"a\.pt"):
            resume.save("a", {"network": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------ recipes, selection


@pytest.mark.parametrize("name", ["onecycle", "cosine"])
def test_schedules_at_known_points(name):
    schedule = SCHEDULES[name]
    start, end = {"onecycle": (1 / 25, 1e-4), "cosine": (0.0, 0.0)}[name]
    assert schedule(0.0, 0.2) == pytest.approx(start)
    assert schedule(0.1, 0.2) == pytest.approx({"onecycle": (1 + 1 / 25) / 2, "cosine": 0.5}[name])
    assert schedule(0.2, 0.2) == pytest.approx(1.0)
    assert schedule(0.6, 0.2) == pytest.approx((1.0 + end) / 2)
    assert schedule(1.0, 0.2) == pytest.approx(end)
    assert schedule(0.0, 0.0) == pytest.approx(1.0)
    rates = [learning_rate(recipe(schedule=name, steps=1000, lr=0.3), step) for step in range(1000)]
    assert max(rates) == pytest.approx(0.3, rel=1e-3) and min(rates) > 0
    assert np.argmax(rates) in (199, 200)


def test_the_step_schedule_is_torchs_own():
    """MultiStepLR at every step, and a linear warm-up before it where one is asked for."""
    asked = recipe(schedule="step", steps=40, lr=0.05, warmup=0.0, milestones=[0.625, 0.75, 0.875], decay=0.1)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.05)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [25, 30, 35], gamma=0.1)
    for step in range(40):
        assert learning_rate(asked, step) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert step_decay(0.05, 0.1, [0.5], 0.1) == pytest.approx(0.5)
    assert step_decay(0.1, 0.1, [0.5], 0.1) == 1.0 and step_decay(0.5, 0.1, [0.5], 0.2) == 0.2


def test_milestones_come_in_order():
    for milestones in ([0.75, 0.5], [0.5, 0.5], [], [1.0], [0.0]):
        with pytest.raises(ValueError, match="milestones"):
            TrainingSpec(milestones=milestones)


def test_fields_that_came_later_stay_out_of_keys_until_they_are_used():
    """Networks trained before there was a step schedule are still known; companions may differ in it."""
    old = {"steps", "batch_size", "lr", "momentum", "weight_decay", "schedule", "warmup", "evaluations"}
    old |= {"unlabelled_batch_size", "precision", "channels_last"}
    assert set(TrainingSpec().keyed()) == old
    plain, other = TrainingSpec(), TrainingSpec(schedule="step", nesterov=False, decay_norms=True, decay=0.2)
    assert set(other.keyed()) == old | {"nesterov", "decay_norms", "decay"}
    assert plain.shared == other.shared


def test_norms_and_biases_decay_on_request(teacher):
    made = learner("fitnet", teacher)
    made.set_up(recipe(decay_norms=True, nesterov=False), CPU)
    assert [(group["weight_decay"], group["nesterov"]) for group in made.optimizer.param_groups] == [(5e-4, False)] * 2


def test_weight_decay_spares_norms_and_biases(teacher):
    made = learner("fitnet", teacher)
    made.set_up(recipe(), CPU)
    groups = {group["weight_decay"]: group["params"] for group in made.optimizer.param_groups}
    spared = {id(p) for p in groups[0.0]}
    for module in [*made.network.modules(), *made.extras.modules()]:
        for name, parameter in module.named_parameters(recurse=False):
            assert (id(parameter) in spared) == (isinstance(module, nn.BatchNorm2d) or name == "bias")
    assert len(groups[0.0]) + len(groups[5e-4]) == len([*made.network.parameters(), *made.extras.parameters()])


def test_extras_are_trained(group, teacher):
    fresh = learner("fitnet", teacher).extras
    assert not same(snapshot(fresh), snapshot(group["fitnet"].extras))


def test_the_selected_weights_are_those_of_the_best_validation_the_earliest_on_ties(teacher):
    made = learner("plain", teacher)
    scores = iter([0.3, 0.7, 0.7, 0.5])
    made.set_up(recipe(), CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner_module, "accuracy", lambda *arguments: next(scores))
        for step in (1, 2, 3, 4):
            with torch.no_grad():
                made.network.model.fc.bias.fill_(step)
            made.evaluate(VALIDATION, step)
    assert (made.best.step, made.best.accuracy, made.val_accuracy) == (2, 0.7, 0.5)
    assert made.best.state["model.fc.bias"].unique().tolist() == [2.0]


def test_the_best_is_a_real_score_of_real_weights(group):
    for made in group.values():
        chosen = network(1)
        chosen.load_state_dict(made.best.state)
        assert accuracy(chosen, VALIDATION) == made.best.accuracy
        scores = [value for _, quantity, value in made.history if quantity == "val_accuracy"]
        assert max(scores) == made.best.accuracy and scores[-1] == made.val_accuracy


def test_prediction_does_not_depend_on_the_batch_nor_move_statistics(group):
    made = group["plain"].network
    before = snapshot(made)
    many = np.concatenate([VALIDATION.images] * 6)  # more than one evaluation batch
    torch.testing.assert_close(predict(made.train(), many)[-1], predict(made.train(), many[-1:])[0])
    assert same(before, snapshot(made)) and not made.training


def test_bfloat16_trains_with_float32_weights_and_losses(teacher):
    (made,) = fit([learner("kd", teacher)], teacher, recipe(precision="bfloat16", steps=3))
    assert all(p.dtype == torch.float32 for p in made.network.parameters())
    assert use_half(recipe(precision="auto"), torch.device("cuda")) and not use_half(recipe(precision="auto"), CPU)


# ------------------------------------------------------------------------------- what a group shares


def test_weights_on_the_way_are_those_of_a_shorter_look(teacher):
    """Kept weights are the network as it was: training on changes nothing about them, keeping changes nothing."""
    (kept,) = fit([learner("plain", teacher, keep_at=(4, 9))], teacher)
    (without,) = fit([learner("plain", teacher)], teacher)
    assert same(snapshot(kept.network), snapshot(without.network))
    assert sorted(kept.kept) == [4, 9]
    assert not same(kept.kept[4], kept.kept[9]) and not same(kept.kept[9], snapshot(kept.network))


def test_kept_weights_survive_a_resume(tmp_path, monkeypatch, teacher):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    resume = Resume(tmp_path, {"plain": "plain"})
    interrupted([learner("plain", teacher, keep_at=(4, 9))], teacher, resume, 7)
    (again,) = fit([learner("plain", teacher, keep_at=(4, 9))], teacher, resume=resume)
    (whole,) = fit([learner("plain", teacher, keep_at=(4, 9))], teacher)
    assert all(same(again.kept[step], whole.kept[step]) for step in (4, 9))


def test_a_learner_may_have_a_learning_rate_of_its_own(teacher, group):
    own = recipe(lr=0.01)
    fast, slow = fit([learner("plain", teacher), learner("kd", teacher, recipe=own)], teacher)
    assert same(snapshot(fast.network), snapshot(group["plain"].network))
    assert not same(snapshot(slow.network), snapshot(group["kd"].network))
    rates = [{step: v for step, name, v in made.history if name == "lr"} for made in (fast, slow)]
    assert rates[1] == {step: pytest.approx(rate / 5) for step, rate in rates[0].items()}


def test_revealed_labels_are_learned_from(teacher, group):
    """Supervised on the same images: the unlabelled rows count in the loss and in the accuracy."""
    rows = {(step, name): v for step, name, v in group["supervised"].history}
    plain = {(step, name): v for step, name, v in group["plain"].history}
    assert rows[1, "train_accuracy"] * 32 == pytest.approx(round(rows[1, "train_accuracy"] * 32))
    assert rows[1, "loss"] != plain[1, "loss"]


def test_the_cache_of_teacher_logits_says_what_the_teacher_says(teacher):
    """Only methods that read nothing but logits of known views use it, alone or not; the teacher rests meanwhile."""
    few = recipe(teacher_cache=True)
    asked, pupil = [], learner("kd", teacher, drop=0.0)
    handle = teacher.register_forward_hook(lambda *_: asked.append(1))
    (alone,) = fit([pupil], teacher, few)
    handle.remove()
    assert len(asked) == AUGMENTATIONS["shift1"].views  # once for each view of all 200 images, and in no step
    cached, fitnet = fit([learner("kd", teacher, drop=0.0), learner("fitnet", teacher)], teacher, few)
    (direct,) = fit([learner("kd", teacher, drop=0.0)], teacher)
    assert same(snapshot(alone.network), snapshot(cached.network))
    for name, tensor in snapshot(direct.network).items():
        torch.testing.assert_close(snapshot(alone.network)[name], tensor, rtol=1e-3, atol=1e-4)
    (untouched,) = fit([learner("fitnet", teacher)], teacher)
    assert same(snapshot(untouched.network), snapshot(fitnet.network))


@pytest.mark.parametrize("name", ["kd", "fitnet", "funmatch"])
@pytest.mark.parametrize("unlabelled", [False, True])
def test_what_is_taught_is_about_the_images_that_are_shown(teacher, name, unlabelled):
    """With the cache too: mixed images are no known views, and are asked about anew."""
    method, policy = METHODS[name], AUGMENTATIONS["shift1"]
    streams = [
        Batches(TRAIN, np.arange(*part), batch_size=16, seed=0, policy=policy, device=CPU, stream=stream)
        for part, stream in (((0, 50), "labelled"), ((50, 100), "unlabelled"))
    ]
    teacher.eval()
    cache = TeacherLogits(teacher, streams[0], half=False)
    teacher_batches = TeacherBatches(*streams, teacher, method.views, False, True, StepClock(CPU), cache=cache)
    shown = teacher_batches.at(3).shown(method, unlabelled, recall=True)
    said = frozen(teacher, shown.images, half=False)
    torch.testing.assert_close(shown.teacher.logits, said.logits, rtol=1e-4, atol=1e-4)
    assert bool(shown.teacher.maps) == (name != "kd")
    assert len(shown.images) == len(shown.index) == 16 * (1 + unlabelled) and len(shown.labels) == 16


def test_cached_logits_belong_to_the_view_that_is_shown(teacher):
    policy = AUGMENTATIONS["shift1"]
    stream = Batches(TRAIN, np.arange(50), batch_size=16, seed=0, policy=policy, device=CPU)
    recalled = TeacherLogits(teacher.eval(), stream, half=False)
    for step in (0, 3):
        batch = stream(step)
        said = frozen(teacher, batch.images, half=False).logits
        torch.testing.assert_close(recalled(batch), said, rtol=2e-3, atol=2e-3)
        other = frozen(teacher, stream(step + 1).images, half=False).logits
        assert (recalled(batch) - other).abs().max() > 0.05


def test_each_image_is_mixed_with_the_next_one():
    images = torch.rand(6, 1, 4, 4)
    mixed = mixup(images, seed=1)
    for row in range(6):
        mine, next_one = images[row].flatten(), images[row - 1].flatten()
        share = ((mixed[row].flatten() - next_one) / (mine - next_one)).median()
        torch.testing.assert_close(mixed[row].flatten(), share * mine + (1 - share) * next_one, rtol=1e-4, atol=1e-5)
        assert 0 <= share <= 1
    assert torch.equal(mixed, mixup(images, seed=1)) and not torch.equal(mixed, mixup(images, seed=2))


def test_the_time_of_a_training_is_shared_out(teacher):
    made = learner("kd", teacher)
    stream = Batches(TRAIN, np.arange(200), batch_size=16, seed=0, policy=AUGMENTATIONS["shift1"], device=CPU)
    common = train(
        [made], teacher=teacher, labelled=stream, unlabelled=None,
        validation=VALIDATION, recipe=recipe(), device=CPU,
    )  # fmt: skip
    assert set(common) == {"data", "teacher"} and set(made.clock.a_step) == {"student", "loss"}
    assert min([*common.values(), *made.clock.a_step.values()]) > 0


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_one_compilation_serves_every_student_of_an_architecture(teacher):
    """And every one gets what it would get without, but for rounding."""
    fast = recipe(steps=3, compile=True)
    before = counters["stats"]["unique_graphs"]
    compiled = fit([learner(name, teacher, drop=0.0) for name in ("plain", "kd", "second-seed")], teacher, fast)
    assert counters["stats"]["unique_graphs"] - before == 2  # the students' and the teacher's
    for made in compiled:
        (plainly,) = fit([learner(made.name, teacher, drop=0.0)], teacher, recipe(steps=3))
        for name, tensor in snapshot(plainly.network).items():
            torch.testing.assert_close(snapshot(made.network)[name], tensor, rtol=1e-2, atol=1e-3)
