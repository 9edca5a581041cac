"""Every method of the registry in real training: on all kinds of pairs, in company, after a resume."""

from __future__ import annotations

import numpy as np
import pairs
import pytest
import torch
from draws import same

from kdpipe.config.training import TrainingSpec
from kdpipe.data.augmentation import AUGMENTATIONS
from kdpipe.data.batches import Batches
from kdpipe.data.sources.base import Split
from kdpipe.methods import METHODS
from kdpipe.training import loop
from kdpipe.training.learner import Learner, Resume
from kdpipe.training.loop import train
from kdpipe.training.optimizers import snapshot

STEPS, CPU = 5, torch.device("cpu")
RANDOM = np.random.default_rng(0)
DATA = Split(RANDOM.integers(0, 256, (96, *pairs.SHAPE), dtype=np.uint8), np.arange(96) % pairs.CLASSES)
RECIPE = TrainingSpec(steps=STEPS, batch_size=8, lr=0.02, evaluations=1)


def learner(name: str, student: str, teacher: str) -> Learner:
    made = pairs.setting(name, student, teacher)
    if not made.method.needs_teacher:
        made.extras = None
    return Learner(name, made.student, made.method, made.parameters, made.extras, name, made.method.reveals_labels)


def fit(learners: list[Learner], teacher: str, **more) -> list[Learner]:
    def stream(indices, name):
        policy = AUGMENTATIONS["flip-shift2"]
        return Batches(DATA, indices, batch_size=8, seed=0, policy=policy, device=CPU, stream=name)

    train(
        learners,
        teacher=pairs.network(teacher, 2),
        labelled=stream(np.arange(64), "labelled"),
        unlabelled=stream(np.arange(64, 96), "unlabelled"),
        validation=Split(DATA.images[:16], DATA.labels[:16]),
        recipe=RECIPE,
        device=CPU,
        **more,
    )
    return learners


def served(student: str, teacher: str) -> list[str]:
    return [name for name in METHODS if pairs.refusal(name, student, teacher) is None]


def refused(student: str, teacher: str) -> dict[str, str]:
    """Why, by method."""
    reasons = {name: pairs.refusal(name, student, teacher) for name in METHODS}
    return {name: reason for name, reason in reasons.items() if reason is not None}


@pytest.mark.parametrize(("student", "teacher"), [*pairs.PAIRS, *pairs.TOKEN_PAIRS])
def test_every_method_serves_a_pair_or_says_why_not(student, teacher):
    """One training of all that serve it; whoever is refused gets a reason that names what is in the way."""
    able = served(student, teacher)
    for views in ("shared", "mixup"):
        learners = [learner(name, student, teacher) for name in able if METHODS[name].views == views]
        for made in fit(learners, teacher):
            assert made.diverged_step is None, made.name
            assert {"loss", "val_accuracy"} <= {quantity for _, quantity, _ in made.history}
    assert all(len(reason) > 20 for reason in refused(student, teacher).values())


def test_convolutional_pairs_are_served_by_every_method_that_does_not_ask_for_tokens():
    for pair in (("cnn", "wide-cnn"), ("resnet8", "wrn")):
        for name, reason in refused(*pair).items():
            assert "token" in reason, name


def test_only_methods_on_what_a_transformer_lacks_refuse_it():
    """Class-activation maps and Grad-CAM want a head on the mean of the last map; others, tokens on both sides."""
    asks_for_tokens = set(refused("cnn", "wide-cnn"))
    for names, without in (
        (("vit", "wide-cnn"), {"catkd", "e2kd", "sdd"}),
        (("cnn", "vit"), {"catkd", "e2kd", "sdd", "simkd"}),
    ):
        found = refused(*names)
        assert set(found) - asks_for_tokens == without
        assert all("classifier" in METHODS[name].needs for name in without)
    assert not set(refused("vit", "vit-mean")) - {"catkd", "e2kd", "sdd", "simkd", "deit"}
    assert "deit" in served("distilled", "wide-cnn")


def test_maps_before_their_activation_are_kept_for_those_who_read_them():
    reader, other = fit([learner(name, "cnn", "wide-cnn") for name in ("ofd", "kd")], "wide-cnn")
    assert reader.network.preactivations is not None and other.network.preactivations is None


@pytest.fixture(scope="module")
def company():
    """All methods that serve a convolutional pair, in one training."""
    names = [name for name in served("cnn", "wide-cnn") if METHODS[name].views == "shared"]
    return {made.name: made for made in fit([learner(name, "cnn", "wide-cnn") for name in names], "wide-cnn")}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.views == "shared"])
def test_a_method_gets_the_same_bits_alone_and_among_all_others(name, company):
    kinds = pairs.pair_for(name)
    (alone,) = fit([learner(name, *kinds)], kinds[1])
    # A method for another kind of network stands beside the plain student of that kind.
    among = company.get(name) or fit([learner("plain", *kinds), learner(name, *kinds)], kinds[1])[1]
    assert same(snapshot(alone.network), snapshot(among.network))
    assert alone.history == among.history


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_resumes_to_the_same_bits(name, tmp_path, monkeypatch):
    """Banks of negatives, regressors, log-scales and reused heads are put back as they were."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    kinds = pairs.pair_for(name)
    (whole,) = fit([learner(name, *kinds)], kinds[1])

    class StoppedError(Exception):
        pass

    done = 0

    def stop(amount, note):
        nonlocal done
        done += amount
        if done == 3:
            raise StoppedError

    resume = Resume(tmp_path, {name: name})
    with pytest.raises(StoppedError):
        fit([learner(name, *kinds)], kinds[1], resume=resume, advance=stop)
    assert resume.load(name)["step"] == 3 or resume.load(name)["step"] == 2
    (again,) = fit([learner(name, *kinds)], kinds[1], resume=resume)
    assert same(snapshot(whole.network), snapshot(again.network))
    assert whole.history == again.history


def test_the_teacher_stays_as_it_was(company):
    """Frozen, in eval mode, its statistics untouched, whatever the methods ask of it."""
    teacher = pairs.network("wide-cnn", 2)
    before = snapshot(teacher)
    learners = [learner(name, "cnn", "wide-cnn") for name in ("e2kd", "simkd", "crd", "catkd", "ofa")]
    stream = Batches(DATA, np.arange(64), batch_size=8, seed=0, policy=AUGMENTATIONS["none"], device=CPU)
    train(
        learners, teacher=teacher, labelled=stream, unlabelled=None,
        validation=Split(DATA.images[:16], DATA.labels[:16]), recipe=RECIPE, device=CPU,
    )  # fmt: skip
    assert same(before, snapshot(teacher)) and not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
