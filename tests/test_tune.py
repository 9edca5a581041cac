"""Choosing configurations: the same number for every method, the winner by validation, the study rewritten."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import tune

from kdpipe.config.sections import MethodSpec
from kdpipe.config.study_file import read_study
from kdpipe.methods import METHODS

STUDY = ROOT / "studies" / "methods.toml"
TABLE = STUDY.with_name("methods-tuning.csv")


@pytest.mark.parametrize("method", [name for name in METHODS if name not in tune.FOLLOWS])
def test_every_method_gets_three_configurations_and_one_is_the_published(method):
    entries = [MethodSpec.model_validate(entry) for entry in tune.configurations(method, 0.1)]
    assert len(entries) == len({json.dumps([e.parameters, e.training]) for e in entries}) == 3
    published = METHODS[method].resolved({})
    assert sum(METHODS[method].resolved(e.parameters) == published and not e.training for e in entries) == 1


def table(best: dict[str, int]) -> pl.DataFrame:
    rows = [
        {
            "method": name, "parameters": json.dumps(entry["parameters"]), "training": json.dumps(entry["training"]),
            "val_accuracy": 0.6 if best.get(name, 1) == index else 0.5, "status": "trained", "base_lr": 0.1,
        }
        for name in METHODS if name not in tune.FOLLOWS
        for index, entry in enumerate(tune.configurations(name, 0.1))
    ]  # fmt: skip
    return pl.DataFrame(rows)


def test_the_study_gets_the_winners():
    """The plain student's rate becomes the study's, and others keep the rate that they were chosen with."""
    text = tune.rewritten(STUDY.read_text(), table({"plain": 0, "kd": 2, "simkd": 2}))
    raw = tomllib.loads(text)
    entries = {e if isinstance(e, str) else e["method"]: {} if isinstance(e, str) else e for e in raw["methods"]}
    assert list(entries) == list(METHODS)
    assert raw["training"]["lr"] == 0.05 and raw["teacher"]["training"]["lr"] == 0.1
    assert entries["plain"] == entries["second-seed"] == {}
    assert entries["kd"]["parameters"] == entries["self-distillation"]["parameters"] == {"kd_weight": 3.6}
    assert entries["kd"]["training"] == {"lr": 0.1}
    assert entries["dkd"] == {"method": "dkd", "training": {"lr": 0.1}}
    assert tune.rewritten(text, table({"plain": 0, "kd": 2, "simkd": 2})) == text


def test_a_diverged_configuration_never_wins():
    lost = table({"kd": 2}).with_columns(
        status=pl.when(pl.col("val_accuracy") > 0.55).then(pl.lit("diverged")).otherwise(pl.lit("trained"))
    )
    assert all(entry["parameters"] != {"kd_weight": 3.6} for entry in tune.chosen(lost))


def test_beyond_goes_one_step_further_where_an_end_was_best():
    entries = tune.further(table({"kd": 2, "at": 0, "simkd": 2, "label-smoothing": 0}), 0.1)
    found = {entry["method"]: {**entry["parameters"], **entry["training"]} for entry in entries}
    assert set(found) == {"kd", "at", "simkd", "label-smoothing"}
    assert found["kd"]["kd_weight"] == pytest.approx(14.4) and found["at"]["at_weight"] == pytest.approx(62.5)
    assert found["simkd"]["lr"] == pytest.approx(0.4)


def test_a_seed_that_is_reported_is_refused():
    with pytest.raises(SystemExit, match="choose another"):
        tune.tuning_study(read_study(STUDY), 0, 10)


@pytest.mark.skipif(not TABLE.exists(), reason="no configurations have been chosen yet")
def test_the_committed_study_has_the_configurations_that_its_table_chose():
    assert tune.rewritten(STUDY.read_text(), pl.read_csv(TABLE)) == STUDY.read_text()
