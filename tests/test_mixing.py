"""Mixed images and images changed at random: known answers, one stream for all, and who may not learn from them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from draws import same
from trainings import CPU, fit, interrupted, learner, recipe, stream, trained_teacher

from kdpipe.config.preflight import run_preflight
from kdpipe.config.sections import MethodSpec
from kdpipe.config.study_file import read_study
from kdpipe.config.training import TrainingSpec
from kdpipe.data.augmentation import AUGMENTATIONS, operate
from kdpipe.data.mixing import Mixing
from kdpipe.errors import StudyError
from kdpipe.methods import METHODS, Step
from kdpipe.methods.logits import kd_loss
from kdpipe.models.network import Outputs
from kdpipe.training import loop
from kdpipe.training.clock import StepClock
from kdpipe.training.learner import Resume
from kdpipe.training.optimizers import snapshot
from kdpipe.training.teacher_batches import TeacherBatches, frozen

pytestmark = pytest.mark.usefixtures("one_thread")
MIXINGS = {"mixup": Mixing(mixup=0.8), "cutmix": Mixing(cutmix=1.0), "both": Mixing(0.8, 1.0)}
RANDOM = [name for name, policy in AUGMENTATIONS.items() if policy.operations is not None]


@pytest.fixture(scope="module")
def teacher():
    return trained_teacher()


def batch(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(8, 1, 6, 6, generator=generator), torch.arange(8) % 5


# ------------------------------------------------------------------------------------ mixed images


def test_mixup_is_one_share_of_each_image_and_label_and_the_rest_of_the_one_before():
    images, labels = batch()
    mixed, shares = MIXINGS["mixup"](images, labels, 5, seed=3)
    share = float(((mixed - images.roll(1, 0)) / (images - images.roll(1, 0))).median())
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * images + (1 - share) * images.roll(1, 0), rtol=1e-4, atol=1e-5)
    own = F.one_hot(labels, 5).float()
    torch.testing.assert_close(shares, share * own + (1 - share) * own.roll(1, 0), rtol=1e-4, atol=1e-5)


def test_cutmix_exchanges_one_box_and_labels_count_its_pixels():
    images, labels = batch()
    seen = set()
    for seed in range(20):
        mixed, shares = MIXINGS["cutmix"](images, labels, 5, seed=seed)
        own, other = (mixed == images).all(0)[0], (mixed == images.roll(1, 0)).all(0)[0]
        assert (own ^ other).all()
        rows, columns = other.any(1), other.any(0)
        assert torch.equal(other, rows[:, None] & columns)  # a box
        share = float(own.float().mean())
        hot = F.one_hot(labels, 5).float()
        torch.testing.assert_close(shares, share * hot + (1 - share) * hot.roll(1, 0))
        seen.add(share)
    assert len(seen) > 5


def test_both_ways_are_taken_in_turn_by_chance():
    images, labels = batch()
    cut = 0
    for seed in range(200):
        mixed, _ = MIXINGS["both"](images, labels, 5, seed=seed)
        cut += bool(((mixed == images) | (mixed == images.roll(1, 0))).all())
    assert 70 < cut < 130


def test_a_small_alpha_leaves_images_nearly_alone_and_alpha_one_mixes_evenly():
    """The variance of Beta(a, a) is 1 / (4 (2a + 1))."""
    images, labels = batch()
    for alpha in (0.1, 1.0):
        shares = [Mixing(mixup=alpha)(images, labels, 5, seed)[1][1, 1] for seed in range(600)]
        assert torch.stack(shares).var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.12)


@pytest.mark.parametrize("name", list(MIXINGS))
def test_a_step_is_mixed_alike_each_time_and_the_global_random_state_is_left_alone(name):
    mixed = stream(np.arange(50), mixing=MIXINGS[name])
    before = torch.random.get_rng_state()
    first = mixed(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    again = mixed(3)
    assert torch.equal(first.images, again.images) and torch.equal(first.class_shares, again.class_shares)
    assert torch.equal(first.labels, stream(np.arange(50))(3).labels)
    assert not torch.equal(first.images, stream(np.arange(50))(3).images)
    others = [mixed(4).class_shares, stream(np.arange(50), "unlabelled", mixing=MIXINGS[name])(3).class_shares]
    assert all(not torch.equal(first.class_shares, other) for other in others)


def test_cross_entropy_with_shares_is_the_mean_of_that_with_each_label():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(4)
    shares = 0.7 * F.one_hot(labels, 5) + 0.3 * F.one_hot(labels.roll(1, 0), 5)
    step = Step(SimpleNamespace(logits=logits), None, labels, labels, 0.0, None, None, None, None, class_shares=shares)
    expected = 0.7 * F.cross_entropy(logits[:4], labels) + 0.3 * F.cross_entropy(logits[:4], labels.roll(1, 0))
    torch.testing.assert_close(step.cross_entropy, expected)


def test_the_control_with_anothers_logits_gets_those_of_an_image_that_has_no_part_in_it(teacher):
    """Mixed with the one before, an image shares half of what the one before shows."""
    count = 6
    own, said = torch.randn(2, count, 5, generator=torch.Generator().manual_seed(0))
    asked, method = [], METHODS["shuffled-teacher"]
    outputs = [Outputs(part, [], part, part) for part in (own, said)]
    target, parameters = torch.arange(count) % 5, method.resolved({})
    for shares, back in ((None, 1), (F.one_hot(target, 5).float(), 2)):
        step = Step(*outputs, target, target, 0.0, parameters, None, None, None, class_shares=shares)
        found = method.terms(step)["kd"] / parameters.kd_weight
        asked.append(found)
        torch.testing.assert_close(found, kd_loss(own, said.roll(back, 0), parameters.temperature))
    assert asked[0] != asked[1]


STUDENTS = ("kd", "fitnet", "supervised", "plain")


@pytest.mark.parametrize("name", STUDENTS)
def test_mixed_training_gives_the_same_bits_alone_in_company_and_after_a_resume(tmp_path, monkeypatch, teacher, name):
    mixed = recipe(mixup=0.8, cutmix=1.0)
    (alone,) = fit([learner(name, teacher)], teacher, mixed)
    group = {made.name: made for made in fit([learner(other, teacher) for other in STUDENTS], teacher, mixed)}
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    resume = Resume(tmp_path, {name: name})
    interrupted([learner(name, teacher)], teacher, resume, 5, recipe=mixed)
    (resumed,) = fit([learner(name, teacher)], teacher, mixed, resume)
    for made in (group[name], resumed):
        assert same(snapshot(made.network), snapshot(alone.network)) and made.history == alone.history
    assert "train_accuracy" not in {quantity for _, quantity, _ in alone.history}  # a mixed image has no one label
    (unmixed,) = fit([learner(name, teacher)], teacher, recipe())
    assert not same(snapshot(alone.network), snapshot(unmixed.network))


@pytest.mark.parametrize("unlabelled", [False, True])
def test_the_teacher_sees_the_mixed_images(teacher, unlabelled):
    parts = {"a": np.arange(50), "b": np.arange(50, 99)}
    streams = [stream(part, name, mixing=MIXINGS["both"]) for name, part in parts.items()]
    teacher_batches = TeacherBatches(*streams, teacher.eval(), "shared", False, True, StepClock(CPU))
    shown = teacher_batches.at(3).shown(METHODS["kd"], unlabelled, recall=True)
    assert torch.equal(shown.images[:16], streams[0](3).images) and len(shown.class_shares) == 16
    torch.testing.assert_close(shown.teacher.logits, frozen(teacher, shown.images, False).logits, rtol=1e-4, atol=1e-4)


def test_a_cache_of_known_views_has_no_say_where_views_are_not_known(teacher):
    mixed, cached = (recipe(mixup=0.8, teacher_cache=cache) for cache in (False, True))
    plainly, asked = (fit([learner("kd", teacher)], teacher, one)[0] for one in (mixed, cached))
    assert same(snapshot(plainly.network), snapshot(asked.network))


# --------------------------------------------------------------------------- images changed at random


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_changed_each_in_its_own_way_and_alike_at_each_call(name, channels):
    operations = AUGMENTATIONS[name].operations
    one = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, channels, 12, 12), np.uint8))
    images = one.expand(24, -1, -1, -1).contiguous()
    before = torch.random.get_rng_state()
    changed = operate(images, operations, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert changed.dtype == torch.uint8 and changed.shape == images.shape
    assert len(changed.flatten(1).unique(dim=0)) > 12
    assert torch.equal(changed, operate(images, operations, seed=1))
    assert not torch.equal(changed, operate(images, operations, seed=2))


@pytest.mark.parametrize("name", RANDOM)
def test_a_stream_shows_crops_that_are_changed(name):
    """Positions, labels, crops and flips are those of flip-crop4: only colour and form come after."""
    changed, cropped = (stream(np.arange(50), augmentation=each) for each in (name, "flip-crop4"))
    one, other = changed(3), cropped(3)
    for part in ("labels", "positions", "views"):
        assert torch.equal(getattr(one, part), getattr(other, part))
    crops = (other.images * 255).round().to(torch.uint8)
    seed = changed._seed("operations", 3)
    assert torch.equal((one.images * 255).round().to(torch.uint8), operate(crops, changed.policy.operations, seed))
    assert not torch.equal(one.images, other.images) and torch.equal(one.images, changed(3).images)
    assert not changed.shows_known_views and cropped.shows_known_views


def test_training_on_images_changed_at_random_gives_the_same_bits_alone_and_in_company(teacher):
    (alone,) = fit([learner("kd", teacher)], teacher, augmentation="trivialaugment")
    _, beside = fit([learner("fitnet", teacher), learner("kd", teacher)], teacher, augmentation="trivialaugment")
    assert same(snapshot(alone.network), snapshot(beside.network)) and alone.history == beside.history


# ---------------------------------------------------------------------------------------- studies


def study(folder: Path, methods: str, training: str, data: str = "") -> None:
    (folder / "study.toml").write_text(f"""
name = "mixed"
title = "Mixed"
methods = {methods}
[data]
dataset = "digits"
probe_size = 100
{data}
[teacher]
arch = "resnet18"
arguments = {{ channels = [8, 8, 8, 8], layers = [1, 1, 1, 1] }}
[[students]]
name = "small"
arch = "resnet18"
arguments = {{ channels = [8, 8, 8, 8], layers = [1, 1, 1, 1] }}
[training]
steps = 100
{training}
""")
    run_preflight(read_study(folder / "study.toml"), folder)


@pytest.mark.parametrize(
    ("method", "reason"),
    [("dkd", "one label"), ("crd", "remembers images"), ("funmatch", "mixes images itself")],
)
def test_methods_that_mixed_images_would_mislead_are_refused_with_the_reason(tmp_path, method, reason):
    with pytest.raises(StudyError, match=rf"'{method}' cannot learn from mixed images .*{reason}"):
        study(tmp_path, f'["plain", "kd", "{method}"]', "mixup = 0.8")
    study(tmp_path, f'["plain", "kd", {{ method = "{method}", training = {{ mixup = 0.0 }} }}]', "mixup = 0.8")


@pytest.mark.parametrize(
    ("training", "data", "why"),
    [("cutmix = 1.0", "", "mixed"), ("", 'augmentation = "randaugment"', "changed at random")],
)
def test_a_cache_of_views_that_are_never_seen_twice_is_refused(tmp_path, training, data, why):
    with pytest.raises(StudyError, match=f"teacher_cache: images are {why}"):
        study(tmp_path, '["plain", "kd"]', f"teacher_cache = true\n{training}", data)


def test_mixing_sets_a_student_apart_from_companions_and_is_in_its_key_once_it_is_used():
    assert not {"mixup", "cutmix"} & set(TrainingSpec().keyed())
    mixed = TrainingSpec(cutmix=1.0)
    assert set(mixed.keyed()) - set(TrainingSpec().keyed()) == {"cutmix"}
    assert mixed.shared != TrainingSpec().shared
    assert MethodSpec(method="kd", training={"mixup": 0.2}).role == "control"  # it sees other batches than plain
