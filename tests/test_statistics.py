"""Statistics from a study's tables: against textbooks, counts by hand, and truths that were planted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from synthetic import Recipe, write_toy_study

from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import Study, open_study
from kdpipe.measures import ece
from kdpipe.pipeline.statistics import STATISTICS_TABLES, calibration, slices, statistics_tables
from kdpipe.pipeline.statistics.gains import gains_table
from kdpipe.pipeline.statistics.ranks import Ranking, ranking

EIGHT = Recipe(
    name="eight",
    samples=40,
    seeds=range(8),
    fractions=(0.1,),
    controls={"second-seed": "second-seed", "random-teacher": "random-teacher"},
)
KD = tuple(f"small-kd-f0.1-s{seed}" for seed in range(8))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return open_study(write_toy_study(tmp_path_factory.mktemp("statistics"), EIGHT))


@pytest.fixture(scope="module")
def frames(study: Study) -> dict[str, pl.DataFrame]:
    """Every table that statistics are made from."""
    return {name: study.frame(name) for name in TABLES if name not in STATISTICS_TABLES}


# ------------------------------------------------------------------------------------- all of them


def test_they_follow_from_the_other_tables_in_whatever_order_rows_stand(study: Study, frames: Any) -> None:
    again = statistics_tables({name: frame.sample(fraction=1, shuffle=True, seed=0) for name, frame in frames.items()})
    assert set(again) == set(STATISTICS_TABLES)
    for name, frame in again.items():
        assert_frame_equal(frame, study.frame(name), check_row_order=False, rel_tol=1e-5, abs_tol=1e-6)
        assert frame.height, name


def test_a_study_without_students_beside_plain_or_neighbours_has_empty_tables(frames: Any) -> None:
    lacking = {name: frames[name].clear() for name in ("flips", "neighbours", "comparisons")}
    found = statistics_tables({**frames, **lacking})
    assert {name for name, frame in found.items() if frame.height} == {"method_ranks"}
    assert all(frame.schema == TABLES[name].schema for name, frame in found.items())


# ------------------------------------------------------------------------------------- gains


def _gain(frame: pl.DataFrame, label: str, measure: str = "silhouette", quantity: str = "early_abc") -> dict[str, Any]:
    return frame.filter(method_label=label, measure=measure, quantity=quantity).row(0, named=True)


def test_a_control_gains_what_is_left_of_a_method_beside_it(study: Study, frames: Any) -> None:
    gains = study.frame("gains")
    compared = frames["comparisons"].filter(method_label="kd", measure="silhouette", quantity="early_abc")
    held = {"plain": pl.col("against") == "plain", "control": pl.col("control") == "random-teacher"}
    kd, left = (compared.filter(which)["per_seed"][0].to_numpy() for which in held.values())
    assert _gain(gains, "kd")["per_seed"] == pytest.approx(kd.tolist())
    assert _gain(gains, "random-teacher")["per_seed"] == pytest.approx((kd - left).tolist())
    assert _gain(gains, "random-teacher")["seeds"] == list(range(8))
    assert set(gains["method_label"]) == {"kd", "rkd", "random-teacher"}, "the second start was held against nothing"


def test_a_control_that_withholds_something_was_itself_held_against_plain(frames: Any) -> None:
    instead = pl.col("control") == "random-teacher"
    compared = frames["comparisons"].with_columns(
        control_kind=pl.when(instead).then(pl.lit("without")).otherwise("control_kind")
    )
    stored = frames["comparisons"].filter(instead, method_label="kd", measure="silhouette", quantity="early_abc")
    found = gains_table({**frames, "comparisons": compared})
    assert _gain(found, "random-teacher")["per_seed"] == stored["per_seed"][0].to_list()


def test_an_advance_is_of_the_seeds_that_were_compared(study: Study) -> None:
    found = _gain(study.frame("gains"), "kd", quantity="advance")
    assert found["seeds"] == list(range(8)) and len(found["per_seed"]) == 8


def test_values_of_fewer_seeds_than_were_trained_are_of_no_known_seed(frames: Any) -> None:
    fewer = frames["comparisons"].with_columns(pl.col("per_seed").list.head(5))
    found = _gain(gains_table({**frames, "comparisons": fewer}), "kd")
    assert found["seeds"] is None and len(found["per_seed"]) == 5


# ------------------------------------------------------------------------------------- ranks


def _ranked(values: dict[str, list[float | None]]) -> Ranking:
    rows = [(name, seed, value) for name, each in values.items() for seed, value in enumerate(each)]
    return ranking(pl.DataFrame(rows, schema=["method_label", "seed", "value"], orient="row"))


def test_ranks_are_within_seeds_and_ties_share_theirs() -> None:
    found = _ranked({"a": [3.0, 1.0], "b": [2.0, 1.0], "c": [1.0, 0.5]})
    rows = {row["method_label"]: row for row in found.rows.rows(named=True)}
    assert found.seeds == [0, 1] and all(row["low"] is None and row["high"] is None for row in rows.values())
    assert rows["a"]["rank"] == 1.25 and (rows["b"]["best"], rows["b"]["worst"]) == (1.5, 2.0)
    assert rows["c"]["rank"] == 3 and rows["a"]["mean"] == 2


def test_ranks_of_eight_seeds_have_a_bootstrap_interval() -> None:
    values: dict[str, list[float | None]] = {"a": [1.0, 0.0] * 4, "b": [0.0, 1.0] * 4, "c": [-1.0] * 8}
    found = _ranked(values)
    assert found.rows.rows() == _ranked(values).rows.rows(), "the draws are seeded"
    rows = {row["method_label"]: row for row in found.rows.rows(named=True)}
    assert 1 <= rows["a"]["low"] < 1.5 < rows["a"]["high"] <= 2 and rows["c"]["low"] == rows["c"]["high"] == 3
    expected = 1 + np.percentile(np.random.default_rng(1).binomial(8, 0.5, 20_000) / 8, [2.5, 97.5])
    assert [rows["a"]["low"], rows["a"]["high"]] == pytest.approx(expected, abs=0.13)


def test_a_seed_is_given_up_for_a_method_but_not_all_seeds() -> None:
    some = _ranked({"a": [1.0, 2.0, 3.0], "b": [0.0, None, 1.0], "c": [0.0, None, None]})
    assert some.seeds == [0, 2] and some.left_out == ["c"]
    apart = _ranked({"a": [1.0, 2.0, 3.0, 4.0], "b": [1.0, 2.0, None, None], "c": [None, None, 1.0, 2.0]})
    assert apart.seeds == [0, 1, 2, 3] and apart.left_out == ["b", "c"]
    assert _ranked({"a": [None], "b": [None]}).rows.is_empty()


def test_plain_has_no_early_area_over_itself_and_controls_are_ranked_apart(study: Study) -> None:
    ranks = study.frame("method_ranks", measure="silhouette")
    assert set(ranks["with_controls"]) == {True, False}
    assert ranks.filter(method_label="plain")["mean"].to_list() == [0.0, 0.0]
    alone, together = (set(ranks.filter(with_controls=which)["method_label"]) for which in (False, True))
    assert alone == {"plain", "kd", "rkd"}, "no area is known of plain's second start, which is held against none"
    assert together - alone == {"random-teacher"}
    accuracy = study.frame("method_ranks", measure="test_accuracy", with_controls=False)
    assert set(accuracy["method_label"]) == {*alone, "second-seed"} and accuracy["low"].null_count() == 0
    assert set(accuracy["seeds"]) == {8}


# ------------------------------------------------------------------------------------- slices


def _slice(kind: str, inside: np.ndarray) -> slices.Slice:
    return slices.Slice(kind, 0, inside)


def test_one_seed_gives_agresti_and_mins_interval() -> None:
    own, base = np.zeros((1, 100)), np.zeros((1, 100))
    own[0, :20], base[0, 12:40] = 1, 1  # 12 gained, 8 kept, 20 lost
    whole, found = slices.differences(own, base, [_slice("class", np.ones(100, bool))])
    gained, lost, n = 12.5, 20.5, 102  # half an image in each of four cells
    centre = (gained - lost) / n
    half = 1.959964 * math.sqrt(((gained + lost) / n - centre**2) / n)
    for row in (whole, found):
        assert row["difference"] == pytest.approx(-8)
        assert (row["base_accuracy"], row["accuracy"]) == pytest.approx((28, 20))
        assert (row["low"], row["high"]) == pytest.approx((100 * (centre - half), 100 * (centre + half)), abs=1e-4)
        assert (row["p"] < 0.05) == (row["low"] * row["high"] > 0)
    assert found["excess"] == 0 and found["p_excess"] == 1, "nothing lies outside of it"


def test_a_slice_that_is_lost_is_marked_and_few_others_are() -> None:
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(20), 100)
    base = (rng.random((3, 2000)) < 0.9).astype(float)
    own = (rng.random((3, 2000)) < np.where(kind == 7, 0.5, 0.9)).astype(float)
    whole, *rows = slices.differences(own, base, [slices.Slice("class", at, kind == at) for at in range(20)])
    assert [row["part"] for row in rows if row["marked"]] == [7] == [row["part"] for row in rows if row["worst"]]
    assert whole["difference"] == pytest.approx(100 * (own.mean() - base.mean())) and whole["excess"] is None
    lost = rows[7]
    assert lost["difference"] == min(row["difference"] for row in rows)
    moved = own - base
    excess = moved[:, kind == 7].mean() - moved[:, kind != 7].mean()
    assert lost["excess"] == pytest.approx(100 * excess)
    seeds = 100 * moved[:, kind == 7].mean(axis=1)
    assert (lost["lowest"], lost["highest"]) == pytest.approx((seeds.min(), seeds.max()))


def test_equal_networks_lose_no_slice() -> None:
    right = (np.random.default_rng(0).random((2, 300)) < 0.8).astype(float)
    rows = slices.differences(right, right, [_slice("class", np.arange(300) % 3 == part) for part in range(3)])
    assert all(row["difference"] == 0 and row["low"] < 0 < row["high"] and row["p"] == 1 for row in rows)
    assert not any(row["marked"] for row in rows)


def test_quarters_hold_a_quarter_and_leave_out_what_has_no_value(study: Study) -> None:
    hue = pl.when(pl.col("sample_id") % 2 == 0).then(pl.col("sample_id").cast(pl.Float32))
    samples = study.samples.with_columns(hue=hue, contrast=pl.lit(1.0, pl.Float32))
    found = slices.slices_of(samples)
    quarters = {kind: [one for one in found if one.kind == kind] for kind in ("brightness", "hue", "contrast")}
    assert [one.inside.sum() for one in quarters["brightness"]] == [10] * 4
    assert [one.inside.sum() for one in quarters["hue"]] == [5] * 4 and not quarters["contrast"]
    assert sum(one.inside.astype(int) for one in quarters["brightness"]).tolist() == [1] * 40
    first, *_, last = quarters["brightness"]
    assert first.above is None and last.up_to is None and first.up_to < last.above


def test_slices_are_of_all_seeds_and_of_each(study: Study) -> None:
    table = study.frame("slices", method_label="kd", replaces="plain", kind="all")
    assert table["seed"].to_list() == [None, *range(8)]
    right = dict(study.predictions.group_by("network_id").agg(pl.col("correct").mean()).rows())
    for row in table.iter_rows(named=True):
        names = [name for seed, name in enumerate(KD) if row["seed"] in (None, seed)]
        gained = [100 * (right[name] - right[name.replace("kd", "plain")]) for name in names]
        assert row["difference"] == pytest.approx(np.mean(gained), abs=1e-4)
        assert (row["lowest"], row["highest"]) == pytest.approx((min(gained), max(gained)), abs=1e-4)


# ------------------------------------------------------------------------------------- calibration


def test_wilson_is_the_textbook_interval() -> None:
    low, high = calibration.wilson(np.array([8.0, 0.0, 10.0]), np.full(3, 10.0))
    assert low == pytest.approx([0.490, 0.0, 0.722], abs=1e-3)  # Wilson (1927), Newcombe (1998)
    assert high == pytest.approx([0.943, 0.278, 1.0], abs=1e-3)


def test_bins_are_open_below_and_hold_every_image_once() -> None:
    one = calibration.bins_of(np.array([0.1, 0.11]), np.array([1.0, 0.0]))
    other = calibration.bins_of(np.array([0.95, 1.0]), np.array([1.0, 1.0]))
    rows = calibration.reliability(np.stack([one, other]))
    assert [row["bin"] for row in rows] == [0, 1, 9]
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert [row["images"] for row in rows] == [0.5, 0.5, 1.0] and [row["accuracy"] for row in rows] == [1, 0, 1]
    assert {row["seeds"] for row in rows} == {2}


def test_distances_from_the_diagonal_are_the_calibration_error(study: Study) -> None:
    answers = study.frame("predictions", network_id=KD[0]).sort("sample_id")
    labels = study.samples.sort("sample_id")["label"].to_numpy()
    rows = study.frame("calibration", method_label="kd", who="student", seed=0)
    gap = (rows["share"] * (rows["confidence"] - rows["accuracy"]).abs()).sum()
    assert gap == pytest.approx(ece(np.array(answers["logits"].to_list()), labels, bins=10), abs=1e-5)


def test_everybody_beside_a_student_is_there_and_a_second_start_has_none_itself(study: Study) -> None:
    whole = study.frame("calibration").filter(pl.col("seed").is_null())
    found = {label: set(who) for label, who in whole.group_by("method_label").agg("who").rows()}
    assert found["kd"] == {"student", "plain", "teacher", "second start"}
    assert found["second-seed"] == {"student", "plain", "teacher"}


# ------------------------------------------------------------------------------------- credit of another seed


def test_another_seeds_neighbours_are_counted_beside_the_first(study: Study) -> None:
    labels = dict(study.samples.select("sample_id", "label").rows())
    second, first = "small-plain-f0.1-s1", "small-plain-f0.1-s0"
    found = study.frame("seed_credit", layer="layer3", view="projection").row(0, named=True)
    assert (found["network_id"], found["plain_id"]) == (second, first)
    place = {"layer": "layer3", "view": "projection"}
    own, plain, teacher = (
        dict(study.frame("neighbours", network_id=who, **place).select("sample_id", "ids").rows())
        for who in (second, first, "teacher")
    )
    counted = {name: 0 for name in found if name.endswith(("_same", "_other"))}
    for image, label in labels.items():
        mine, its, theirs = (set(ids[image]) for ids in (own, plain, teacher))
        parts = {"kept": mine & its & theirs, "gained": mine & theirs - its, "lost": its & theirs - mine}
        for kind, ids in {**parts, "invented": mine - its - theirs}.items():
            for other in ids:
                counted[f"{kind}_{'same' if labels[other] == label else 'other'}"] += 1
    assert {name: found[name] for name in counted} == pytest.approx({n: c / 40 for n, c in counted.items()}, rel=1e-5)


def test_one_plain_student_has_no_other_seed(tmp_path: Path) -> None:
    recipe = Recipe(name="one", samples=20, seeds=(0,), fractions=(0.1,))
    assert open_study(write_toy_study(tmp_path, recipe)).frame("seed_credit").is_empty()
