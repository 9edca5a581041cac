"""The stages that train teachers and students."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch

from kdpipe.config.sections import StudentSpec, TeacherSpec
from kdpipe.config.training import TrainingSpec
from kdpipe.data.augmentation import AUGMENTATIONS
from kdpipe.data.batches import Batches
from kdpipe.data.dataset import Dataset
from kdpipe.data.splits import label_budget
from kdpipe.engine.stage import Context, Task, batch_stage
from kdpipe.errors import TrainingError
from kdpipe.files import write_atomic
from kdpipe.methods import METHODS, Pair
from kdpipe.models.build import build
from kdpipe.models.network import Network
from kdpipe.models.origins import restored
from kdpipe.models.profile import Profile, profile_of
from kdpipe.models.saved import read_network, write_network
from kdpipe.pipeline.stages.outputs import HISTORY, HISTORY_SCHEMA, LAST, RESULT, SELECTED, kept_weights
from kdpipe.training.evaluation import accuracy, use_half
from kdpipe.training.learner import Learner, Resume
from kdpipe.training.loop import train


@batch_stage("teacher", takes=("data",))
def make_teacher(tasks: Sequence[Task], context: Context) -> None:
    """Train a teacher on its labels, or take it as it comes where it has no steps."""
    for task in tasks:
        params = task.stage.params
        spec = TeacherSpec.model_validate({**params["network"], **restored(params, task.stage.runtime)})
        dataset = Dataset.read(task.inputs["data"])
        network = _new(spec, dataset, spec.seed)
        profile = profile_of(network, dataset.image_shape)
        chosen = label_budget(dataset.train.labels, spec.label_fraction, spec.seed)
        learner = Learner("teacher", network, METHODS["plain"], METHODS["plain"].resolved({}), None, task.stage.key)
        _train_together([learner], [task], None, dataset, chosen, spec.training, spec.seed, params, context)
        if learner.diverged_step is not None and not task.stage.runtime.get("stand_in"):
            raise TrainingError(
                f"the teacher diverged at step {learner.diverged_step} (its loss is no longer finite); "
                "lower teacher.training.lr or lengthen its warmup."
            )
        if learner.diverged_step is not None:
            context.reporter.warn(
                f"{task.stage.name} diverged at step {learner.diverged_step} (its loss is no longer finite), so nobody "
                "can learn from it; the others go on. Lower training.lr."
            )
        labelled = len(chosen) if spec.training.steps else 0
        _write_result(task, learner, spec, dataset, profile, labelled, context)


@batch_stage("student", takes=("data",), may_take=("teacher",))
def make_students(tasks: Sequence[Task], context: Context) -> None:
    """Train students of one seed, budget and teacher together, on one stream of views."""
    first = tasks[0].stage.params
    dataset = Dataset.read(tasks[0].inputs["data"])
    chosen = label_budget(dataset.train.labels, first["label_fraction"], first["label_seed"])
    # The batch's name holds the teacher's key, so those who have a teacher have the same one.
    taught = [task.inputs["teacher"] for task in tasks if "teacher" in task.inputs]
    if taught and json.loads((taught[0] / RESULT).read_text())["status"] != "trained":
        untaught = [task for task in tasks if "teacher" in task.inputs]
        for task in untaught:
            _write_untaught(task, dataset, len(chosen))
        tasks, taught = [task for task in tasks if task not in untaught], []
        if not tasks:
            return
    teacher = read_network(taught[0] / LAST) if taught else None
    master = profile_of(teacher, dataset.image_shape) if teacher is not None else None
    learners: list[Learner] = []
    profiles: list[Profile] = []
    for task in tasks:
        learner = _learner(task, dataset, chosen, teacher, master)
        learners.append(learner)
        profiles.append(profile_of(learner.network, dataset.image_shape))
    recipe = learners[0].recipe
    assert recipe is not None
    _train_together(learners, tasks, teacher, dataset, chosen, recipe, first["data_seed"], first, context)
    for task, learner, profile in zip(tasks, learners, profiles, strict=True):
        if learner.diverged_step is not None:
            context.reporter.warn(
                f"{learner.name} diverged at step {learner.diverged_step} (its loss is no longer finite); "
                "the others went on. Lower training.lr, or the weight of its method."
            )
        revealed = learner.method.reveals_labels
        seen = len(dataset.train.labels) if revealed else len(chosen)
        labelled = seen if recipe.steps else 0
        _write_result(task, learner, _student(task), dataset, profile, labelled, context)


def _learner(
    task: Task, dataset: Dataset, chosen: np.ndarray, teacher: Network | None, master: Profile | None
) -> Learner:
    """A student at its initial weights, with what its method adds."""
    params = task.stage.params
    network = _new(_student(task), dataset, params["init_seed"])
    method = METHODS[params["method"]]
    parameters = method.resolved(params["method_parameters"])
    recipe = TrainingSpec.model_validate(params["training"])
    extras = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params["init_seed"])
        if method.needs_teacher:
            assert teacher is not None and master is not None, "the plan gives such a method its teacher"
            labels = dataset.train.labels[chosen].tolist()
            if params["unlabelled"]:
                labels += [-1] * (len(dataset.train.labels) - len(chosen))
            shape, shown = profile_of(network, dataset.image_shape), recipe.images_a_step(params["unlabelled"])
            pair = Pair(shape, master, len(dataset.class_names), tuple(labels), shown)
            extras = method.extras(pair, parameters)
            method.adapt(network, teacher, pair, parameters)
    return Learner(
        task.stage.name,
        network,
        method,
        parameters,
        extras,
        task.stage.key,
        unlabelled=params["unlabelled"],
        recipe=recipe,
        keep_at=tuple(params.get("keep_at", ())),
    )


def _student(task: Task) -> StudentSpec:
    own = {"name": "student", **restored(task.stage.params, task.stage.runtime)}
    return StudentSpec.model_validate({**task.stage.params["network"], **own})


def _new(spec: TeacherSpec | StudentSpec, dataset: Dataset, seed: int) -> Network:
    return build(
        spec,
        image_shape=dataset.image_shape,
        classes=len(dataset.class_names),
        mean=dataset.mean,
        std=dataset.std,
        seed=seed,
    )


def _train_together(
    learners: list[Learner],
    tasks: Sequence[Task],
    teacher: Network | None,
    dataset: Dataset,
    chosen: np.ndarray,
    recipe: TrainingSpec,
    data_seed: int,
    params: Mapping[str, Any],
    context: Context,
) -> None:
    """Bring data and networks to the device, train with a progress bar, leave speed in the tasks' folders."""
    device = torch.device(context.device)
    policy = AUGMENTATIONS[params["augmentation"]]

    stream = partial(Batches, dataset.train, seed=data_seed, policy=policy, device=device, mixing=recipe.mixing)
    labelled = stream(chosen, batch_size=recipe.batch_size)
    rest = np.setdiff1d(np.arange(len(dataset.train.labels)), chosen)
    wanted = any(learner.unlabelled for learner in learners)
    if wanted and not len(rest):
        raise TrainingError("unlabelled: every training image has a label in this budget, so none is left unlabelled.")
    unlabelled = stream(rest, batch_size=recipe.unlabelled_batch_size, stream="unlabelled") if wanted else None
    names = {learner.name: task.stage.key for learner, task in zip(learners, tasks, strict=True)}
    resume = Resume(context.scratch / "resume", names)
    for learner, task in zip(learners, tasks, strict=True):
        if task.anew:
            resume.clear(learner.name)
    title = learners[0].name if len(learners) == 1 else f"{len(learners)} students, {tasks[0].stage.batch_title}"
    started = time.perf_counter()
    with context.reporter.track(f"training {title}", recipe.steps * len(learners)) as bar:
        common = train(
            learners,
            teacher=teacher,
            labelled=labelled,
            unlabelled=unlabelled,
            validation=dataset.validation,
            recipe=recipe,
            device=device,
            resume=resume,
            advance=bar.advance,
        )
    _write_speed(learners, tasks, common, time.perf_counter() - started, recipe, device, context)


def _write_speed(
    learners: list[Learner],
    tasks: Sequence[Task],
    common: Mapping[str, float],
    seconds: float,
    recipe: TrainingSpec,
    device: torch.device,
    context: Context,
) -> None:
    """Leave in each task's folder how fast its group was, where the time went, and what its own step took."""
    clocks = [learner.clock for learner in learners if learner.clock is not None]
    whole = sum(common.values()) + sum(sum(clock.a_step.values()) for clock in clocks)
    together = {part: sum(clock.a_step.get(part, 0.0) for clock in clocks) for part in ("student", "loss")}
    shares = {name: value / whole for name, value in {**common, **together}.items()} if whole else {}
    for task, learner in zip(tasks, learners, strict=True):
        own = learner.clock.a_step if learner.clock else {}
        speed = {
            "seconds": seconds,
            "students_together": len(learners),
            "steps": recipe.steps,
            "steps_per_second": recipe.steps / seconds,
            "images_per_second": recipe.steps * recipe.batch_size / seconds,
            "shares": {name: round(share, 4) for name, share in shares.items()},
            "seconds_a_step": {name: round(value, 6) for name, value in {**common, **own}.items()},
            "device": str(device),
            "threads": torch.get_num_threads(),
            "half": use_half(recipe, device),
            **context.hardware,
        }
        write_atomic(task.folder / "speed.json", json.dumps(speed))


def _write_untaught(task: Task, dataset: Dataset, labelled_images: int) -> None:
    """Publish that a student was not trained, as its teacher diverged."""
    profile = profile_of(_new(_student(task), dataset, task.stage.params["init_seed"]), dataset.image_shape)
    result = {"status": "untaught", "diverged_step": None, "labelled_images": labelled_images}
    sizes = {"params": profile.params, "macs": profile.macs, "taps": [tap.__dict__ for tap in profile.taps]}
    pl.DataFrame(schema=HISTORY_SCHEMA).write_parquet(task.folder / HISTORY)
    write_atomic(task.folder / "speed.json", "{}")
    write_atomic(task.folder / RESULT, json.dumps(result | sizes))
    task.finish()


def _write_result(
    task: Task,
    learner: Learner,
    spec: TeacherSpec | StudentSpec,
    dataset: Dataset,
    profile: Profile,
    labelled_images: int,
    context: Context,
) -> None:
    """Publish a trained network: its last and its selected weights, its history and its numbers."""
    network = learner.network
    kept: dict[str, dict[str, float]] = {}
    result: dict[str, Any] = {
        "status": "trained" if learner.diverged_step is None else "diverged",
        "diverged_step": learner.diverged_step,
        "params": profile.params,
        "macs": profile.macs,
        "labelled_images": labelled_images,
        "taps": [tap.__dict__ for tap in profile.taps],
    }
    history = pl.DataFrame(learner.history, schema=HISTORY_SCHEMA, orient="row")
    history.write_parquet(task.folder / HISTORY)
    if learner.diverged_step is None:
        keep = partial(write_network, spec=spec, image_shape=dataset.image_shape, classes=len(dataset.class_names))
        keep(task.folder / LAST, network)
        result |= {
            "val_accuracy": learner.val_accuracy,
            "test_accuracy": accuracy(network, dataset.test),
            "selected_step": learner.best.step,
            "selected_val_accuracy": learner.best.accuracy,
        }
        network.load_state_dict(learner.best.state, strict=False)
        keep(task.folder / SELECTED, network)
        result["selected_test_accuracy"] = accuracy(network, dataset.test)
        for step, state in learner.kept.items():
            network.load_state_dict(state, strict=False)
            keep(task.folder / kept_weights(step), network)
            numbers = {"val_accuracy": accuracy(network, dataset.validation)}
            kept[str(step)] = numbers | {"test_accuracy": accuracy(network, dataset.test)}
        if kept:
            result["kept"] = kept
    write_atomic(task.folder / RESULT, json.dumps(result))
    task.finish()
    Resume(context.scratch / "resume", {learner.name: task.stage.key}).clear(learner.name)
