"""The map of step by depth: pairs of one seed at one step and depth, and nothing that only one side has."""

from __future__ import annotations

import polars as pl
import pytest

from kdpipe.app.training.when_and_where import in_words, means, on_their_way

SEEDS, STEPS, DEPTHS = (0, 1), (10, 20), (0.0, 1.0)


def networks() -> pl.DataFrame:
    rows = []
    for role, label in (("plain", "plain"), ("distilled", "kd"), ("distilled", "rkd")):
        for seed in SEEDS:
            end = f"{label}-{seed}"
            of = {"student": "s", "budget": "all", "seed": seed, "method_label": label}
            rows.append({**of, "network_id": end, "role": role, "checkpoint_of": None, "checkpoint_step": 20})
            if label != "rkd":
                way = {"network_id": f"{end}-at10", "role": "checkpoint", "checkpoint_of": end, "checkpoint_step": 10}
                rows.append({**of, **way})
    return pl.DataFrame(rows)


def value(row: dict, depth: float) -> float:
    """Distilled gains 0.1 at step 20 in the last layer, and nothing elsewhere."""
    gained = row["method_label"] == "kd" and row["checkpoint_step"] == 20 and depth == 1.0
    return row["seed"] + depth + 0.1 * gained


def values() -> pl.DataFrame:
    found = networks().rows(named=True)
    return pl.DataFrame(
        [{"network_id": r["network_id"], "layer": f"l{d:g}", "value": value(r, d)} for r in found for d in DEPTHS]
    )


def layers() -> pl.DataFrame:
    found = networks()["network_id"]
    return pl.DataFrame([{"network_id": n, "layer": f"l{d:g}", "relative_depth": d} for n in found for d in DEPTHS])


def test_checkpoints_have_the_role_of_what_they_became() -> None:
    way = on_their_way(networks(), "s", "all")
    assert set(way.filter(checkpoint_step=10)["role"]) == {"plain", "distilled"}
    assert "rkd" not in way["method_label"], "it has no checkpoint"
    assert way.height == 2 * len(SEEDS) * len(STEPS)
    assert on_their_way(networks().filter(pl.col("role") != "checkpoint"), "s", "all").is_empty()


def test_a_difference_is_of_one_seed_at_one_step_and_depth() -> None:
    found = means(values(), on_their_way(networks(), "s", "all"), layers(), "kd")
    assert found.select("checkpoint_step", "relative_depth").rows() == [(s, d) for s in STEPS for d in DEPTHS]
    assert found["difference"].to_list() == pytest.approx([0, 0, 0, 0.1])
    assert found["seeds"].to_list() == [2] * 4
    assert "largest at step 20, depth 1.00: +0.100" in in_words(found)


def test_students_that_are_the_same_differ_nowhere() -> None:
    found = means(values(), on_their_way(networks(), "s", "all"), layers(), "kd").with_columns(difference=pl.lit(0.0))
    assert in_words(found) == "There is no difference, at any step and depth."


def test_what_one_side_lacks_is_left_out() -> None:
    some = values().filter(~((pl.col("network_id") == "plain-1-at10") & (pl.col("layer") == "l1")))
    found = means(some, on_their_way(networks(), "s", "all"), layers(), "kd")
    assert found.filter(checkpoint_step=10, relative_depth=1.0)["seeds"].item() == 1
