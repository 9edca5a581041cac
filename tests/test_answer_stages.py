"""The stages behind what networks answer and how maps lie over each other: values by hand, and what rests on what."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from kdpipe.engine.cache import Cache
from kdpipe.engine.run import run
from kdpipe.engine.stage import Context, Stage, Task, stage
from kdpipe.measures import MEASURES, mcnemar
from kdpipe.pipeline.alignment_plan import plan_alignment
from kdpipe.pipeline.answers_plan import AnswersPlan, plan_answers
from kdpipe.pipeline.stages.alignment import make_seed_drift, on_reference
from kdpipe.pipeline.stages.answers import MEASURED, SHARES
from kdpipe.pipeline.stages.factors import FACTOR
from kdpipe.pipeline.stages.map_measures import VALUE
from kdpipe.pipeline.stages.maps import LAYOUT
from kdpipe.pipeline.stages.predictions import predictions, read_answers, read_logits
from kdpipe.pipeline.stages.samples import known_factors, webp
from kdpipe.vocabulary import FACTORS

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
TAUGHT = np.array([0, 1, 2, 0, 2, 0, 0, 1])


class Silent:
    """A reporter that keeps what it is warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def track(self, title: str, total: float) -> Any:
        return nullcontext(SimpleNamespace(advance=lambda amount=1, note="": None))

    def say(self, message: str) -> None: ...

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@stage("probe")
def make_toy_probe(task: Task, context: Context) -> None:
    np.save(task.folder / "labels.npy", LABELS)
    np.save(task.folder / "images.npy", np.zeros((len(LABELS), 3, 4, 4), np.uint8))


@stage("factor")
def make_toy_factor(task: Task, context: Context) -> None:
    hue = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [-1.0, 0.0]] * 2)
    np.save(task.folder / FACTOR, hue if task.stage.params["factor"] == "hue" else np.linspace(0, 1, 8))


@stage("embedding", takes=("probe",))
def make_toy_embedding(task: Task, context: Context) -> None:
    said = np.array(task.stage.params["said"])
    np.save(task.folder / "logits.npy", 2 * np.eye(3, dtype=np.float32)[said])


@pytest.fixture
def ran(tmp_path: Any) -> tuple[AnswersPlan, Cache]:
    """Answers of four made-up networks, run by the engine."""
    probe = make_toy_probe.plan("probe", {})
    plain, own = [0, 1, 2, 1, 2, 0, 1, 0], [0, 1, 2, 0, 2, 1, 1, 1]
    said = {"teacher": TAUGHT.tolist(), "plain": plain, "own": own, "pixels": [0] * 8}
    embeddings = {
        n: make_toy_embedding.plan(f"embedding of {n}", {"said": s}, {"probe": probe}) for n, s in said.items()
    }
    factors = {name: make_toy_factor.plan(name, {"factor": name}) for name in FACTORS}
    measures = [MEASURES["churn"], MEASURES["mcnemar"]]
    pairs, trios = [("own", "teacher"), ("own", "plain")], [("own", "plain", "teacher")]
    plan = plan_answers(probe, embeddings, pairs, trios, measures, factors, k=3)
    cache = Cache(tmp_path / "cache")
    outcome = run(plan.stages, cache, Context("cpu", tmp_path, Silent(), tmp_path / "scratch", {}))
    assert not outcome.failed
    return plan, cache


# ------------------------------------------------------------------------------------- answers


def test_predictions_are_softmax_margin_and_largest_logit() -> None:
    logits = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 3.0]], np.float32)
    found = predictions(logits, np.array([2, 1]))
    e = np.exp
    assert found["predicted"].to_list() == [0, 1] and found["correct"].to_list() == [False, True]
    assert found["confidence"].to_list() == pytest.approx([e(2) / (e(2) + 1 + e(1)), e(3) / (1 + 2 * e(3))])
    assert found["margin"].to_list() == [-1.0, 0.0]


def test_raw_pixels_answer_nothing_and_answers_do_not_rest_on_embeddings(ran: tuple[AnswersPlan, Cache]) -> None:
    plan, cache = ran
    assert set(plan.predictions) == {"teacher", "plain", "own"}
    for beside in [*plan.measures.values(), *plan.shares.values(), *plan.flips.values()]:
        assert {needed.kind for needed in beside.inputs.values()} == {"probe", "prediction"}, "these travel whole"
    folder = cache.path(plan.predictions["teacher"])
    assert read_answers(folder).tolist() == TAUGHT.tolist()
    assert read_logits(folder).dtype == np.float32 and read_logits(folder).shape == (8, 3)


def test_two_networks_answers_are_held_beside_each_other(ran: tuple[AnswersPlan, Cache]) -> None:
    plan, cache = ran
    stages = {name: plan.measures["own", "plain", name] for name in ("churn", "mcnemar")}
    parts = [cache.path(stage) / MEASURED for stage in stages.values()]
    rows = pl.concat([pl.read_parquet(part) for part in [*parts, cache.path(plan.shares["own", "plain"]) / SHARES]])
    found = {row["measure"]: row for row in rows.rows(named=True)}
    assert list(found) == ["churn", "mcnemar", "fixed", "broken", "inherited", "kept"]
    assert found["churn"]["value"] == 3 / 8 and found["churn"]["chance"] is not None
    right = [np.array(said) == LABELS for said in ([0, 1, 2, 0, 2, 1, 1, 1], [0, 1, 2, 1, 2, 0, 1, 0])]
    assert found["mcnemar"]["value"] == pytest.approx(mcnemar(*right)) and found["mcnemar"]["chance"] is None
    assert [found[name]["value"] for name in ("fixed", "broken", "inherited", "kept")] == [2 / 8, 0, 3 / 8, 3 / 8]


def test_flips_are_counted_over_all_classes_and_for_each(ran: tuple[AnswersPlan, Cache]) -> None:
    plan, cache = ran
    folder = cache.path(plan.flips["own", "plain", "teacher"])
    counts = pl.read_parquet(folder / "flips.parquet")
    assert counts["label"].to_list() == [None, 0, 1, 2] and counts["images"].to_list() == [8, 3, 3, 2]
    assert counts["fixed"].to_list() == [2, 1, 1, 0] and counts["broken"].sum() == 0
    images = pl.read_parquet(folder / "sample_flips.parquet")
    assert images["outcome"].to_list() == ["kept", "kept", "kept", "fixed", "wrong", "wrong", "wrong", "fixed"]
    assert images["teacher_correct"].to_list() == (TAUGHT == LABELS).tolist()


def test_probe_images_have_pictures_and_factors(ran: tuple[AnswersPlan, Cache]) -> None:
    plan, cache = ran
    shown = pl.read_parquet(cache.path(plan.samples) / "samples.parquet")
    assert shown["hue"].to_list() == [0.0, None, 90.0, 180.0] * 2 and shown["display_rank"].to_list() == list(range(8))
    assert shown["brightness"].to_list() == np.linspace(0, 1, 8).tolist()
    assert all(image.startswith(b"RIFF") for image in shown["image"])


def test_grey_and_coloured_images_become_webp() -> None:
    for channels in (1, 3):
        assert webp(np.full((channels, 20, 20), 90, np.uint8))[8:12] == b"WEBP"


def test_a_factor_that_is_no_hue_is_left_as_it_is() -> None:
    found = known_factors({"edge_density": np.array([0.1]), "hue": np.array([[0.0, -2.0]])})
    assert found == {"edge_density": np.array([0.1]), "hue": [270.0]}


# ------------------------------------------------------------------------------------- alignment


def test_a_map_is_turned_on_its_reference_and_takes_its_size() -> None:
    reference = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]], np.float32)
    found = on_reference(5 * reference @ turn + 3, reference)
    assert found == pytest.approx(reference, abs=1e-5)
    noisy = reference + np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
    of = [np.square(part - part.mean(axis=0)).sum() for part in (on_reference(noisy, reference), reference)]
    assert of[0] == pytest.approx(of[1], rel=1e-4), "what resembles its reference less is not drawn smaller"


def test_what_cannot_be_aligned_stays_as_it_is() -> None:
    collapsed = np.ones((5, 2), np.float32)
    assert on_reference(collapsed, np.eye(5, 2, dtype=np.float32)) is collapsed


def test_maps_that_have_nothing_in_common_stay_as_they_are():
    across = np.array([[1, 0], [-1, 0], [1, 0], [-1, 0]], np.float32)
    along = np.array([[0, 1], [0, 1], [0, -1], [0, -1]], np.float32)
    assert on_reference(across, along) is across


@stage("alignment")
def make_toy_aligned(task: Task, context: Context) -> None:
    seed = task.stage.params["seed"]
    drawn = np.random.default_rng(seed or 0).normal(size=(40, 2))
    np.save(task.folder / LAYOUT, np.ones((40, 2)) if seed is None else drawn)


@pytest.mark.parametrize(("seeds", "low", "high"), [((0, 0, 0), 0, 1e-6), ((0, 1), 0.5, 1.5), ((None, 0), None, None)])
def test_seeds_that_give_the_same_map_do_not_drift_and_one_point_has_no_drift(
    tmp_path: Any, seeds: tuple[int | None, ...], low: float | None, high: float | None
) -> None:
    maps = {f"map {at}": make_toy_aligned.plan(f"map {at}", {"seed": s, "at": at}) for at, s in enumerate(seeds)}
    params = {"maps": list(maps), "measure": "seed_drift", "version": 1}
    drift, cache = make_seed_drift.plan("drift", params, maps), Cache(tmp_path / "cache")
    assert not run([drift], cache, Context("cpu", tmp_path, Silent(), tmp_path / "scratch", {})).failed
    value = cache.path(drift) / VALUE
    if low is None or high is None:
        assert not value.exists()
    else:
        assert low <= pl.read_parquet(value)["value"][0] <= high


@stage("map")
def make_toy_map(task: Task, context: Context) -> None:
    np.save(task.folder / LAYOUT, np.random.default_rng(task.stage.params["options"]["seed"]).normal(size=(9, 2)))


def _map(network_id: str, seed: int, shared: Stage | None = None, strip: bool = False, projector: str = "tsne") -> Any:
    params = {"projector": projector, "options": {"seed": seed}, "of": network_id}
    made = make_toy_map.plan(f"{projector} of {network_id}, {seed}", params)
    planned = SimpleNamespace(network_id=network_id)
    return SimpleNamespace(
        planned=planned, stage=made, order=1, place=1, layout="independent", shared=shared, strip=strip
    )


def test_maps_lie_on_the_shared_map_or_on_the_teachers() -> None:
    shared = make_toy_map.plan("shared", {"options": {"seed": 9}})
    together = [_map("teacher", 0, shared), _map("plain", 0, shared), _map("plain", 1, shared, strip=True)]
    alone = [_map("plain", 0, projector="pca"), _map("teacher", 0, projector="pca")]
    plan = plan_alignment([*together, *alone], [])
    assert {plan.aligned[one.stage.key].inputs["reference"].key for one in together} == {shared.key}
    assert {plan.aligned[one.stage.key].inputs["reference"].key for one in alone} == {alone[1].stage.key}
    assert "reference" not in plan_alignment(alone[:1], []).aligned[alone[0].stage.key].inputs


def test_only_maps_that_differ_in_their_seed_alone_drift() -> None:
    shared = make_toy_map.plan("shared", {"options": {"seed": 9}})
    maps = [
        _map("plain", 0, shared),
        _map("kd", 0, shared),
        _map("plain", 1, shared, True),
        _map("plain", 2, shared, True),
    ]
    plan = plan_alignment(maps, [MEASURES["seed_drift"]])
    key = (maps[0].stage.key, "seed_drift")
    assert list(plan.drift) == [key]
    drift = plan.drift[key]
    assert [drift.inputs[name].key for name in drift.params["maps"]] == [
        plan.aligned[maps[at].stage.key].key for at in (0, 2, 3)
    ]
