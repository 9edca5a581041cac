"""The page of training: curves over steps, terms of the loss, schedules, speed, and what broke off."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from app_pages import chart_rows, says, show
from synthetic import Recipe, write_toy_study
from visits import Visitor

from kdpipe.app.shared import catalog
from kdpipe.app.training import curves as training
from kdpipe.artifacts.store import open_study

PAGE = "pages/10_Training.py"


def _lines(root: Path, quantity: str, name: str = "toy") -> pl.DataFrame:
    study = open_study(root / name)
    return training.over_steps(study.frame("history", quantity=quantity), catalog.networks(study))


def _history(*rows: tuple[str, int, int, float, str]) -> pl.DataFrame:
    names = ["series", "seed", "step", "value", "status"]
    frame = pl.DataFrame(rows, schema=names, orient="row")
    label = pl.concat_str("series", pl.lit("-"), "seed")
    return frame.with_columns(
        network_id=label, label=label, role=pl.lit("distilled"), quantity=pl.lit("loss"), diverged_step=pl.lit(31)
    )


def test_means_are_over_seeds_and_leave_out_what_diverged() -> None:
    frame = _history(
        ("kd", 0, 10, 1.0, "trained"), ("kd", 1, 10, 3.0, "trained"), ("kd", 2, 10, 99.0, "diverged"),
        ("kd", 0, 20, 2.0, "trained"),
    )  # fmt: skip
    found = training.means(frame)
    assert found.select("step", "mean", "lowest", "highest", "seeds").rows() == [(10, 2.0, 1.0, 3.0, 2)], (
        "step 20 of one seed alone is no mean of the same networks"
    )
    last = training.ends(_history(("kd", 2, 10, 1.0, "diverged"), ("kd", 2, 20, float("nan"), "diverged")))
    assert last.select("step", "value").rows() == [(10, 1.0)]


def test_accuracies_are_drawn_as_means_of_the_history(root: Path) -> None:
    app = show(PAGE, labels="all labels")
    drawn = json.loads(app.get("vega_lite_chart")[0].proto.spec)
    assert len(drawn["layer"]) == 2, "band and line"
    expected = training.means(_lines(root, "val_accuracy").filter(pl.col("label").str.contains("all labels")))
    last = expected.filter(series="kd").sort("step").row(-1, named=True)
    words = app.get("vega_lite_chart")[0].proto.alt
    assert f"kd {last['mean']:.1%} at step {last['step']}" in words and "mean over seeds" in says(app.caption)
    each = json.loads(show(PAGE, each="true").get("vega_lite_chart")[0].proto.spec)
    assert each["layer"][0]["encoding"]["detail"]["field"] == "network_id"


def test_a_diverged_network_is_marked_and_named(root: Path) -> None:
    app = show(PAGE)
    assert "Diverged before its first point here: kd, 10% of labels, seed 99 at step 31" in says(app.caption)
    study = open_study(root / "toy")
    networks, losses = catalog.networks(study), _lines(root, "loss")
    assert "no longer finite (kd, 10% of labels, seed 99 at step 31)" in training.diverged_in_words(networks, losses)
    rows = _history(("kd", 0, 10, 0.5, "trained"), ("kd", 1, 10, 0.4, "diverged"), ("x", 1, 10, 0.3, "diverged"))
    spec = training.accuracy_chart(rows, {"kd": "#e76300"}, "accuracy").to_dict()
    crosses = [layer["mark"]["color"] for layer in spec["layer"] if layer["mark"].get("shape") == "cross"]
    assert set(crosses) == {"#e76300", "#9aa0a6"}
    assert "2 networks diverged" in training.accuracy_in_words(rows, {"kd": ""}, "accuracy")


def test_terms_of_a_loss_add_up_and_are_drawn_as_they_are_asked_for(root: Path) -> None:
    app = show(PAGE, of="kd")
    index = 1
    spec = json.loads(app.get("vega_lite_chart")[index].proto.spec)
    assert spec["layer"][0]["encoding"]["color"]["scale"]["domain"] == ["whole loss", "cross_entropy", "kd"]
    assert "1 of 3 diverged and is left out of the mean" in says(app.caption)
    stored = open_study(root / "toy").frame("history", network_id="small-kd-f0.1-s0")
    expected = dict(stored.filter(step=20).select("quantity", "value").rows())
    one = show(PAGE, of="kd", seed="0", terms="stack")
    rows = chart_rows(one, index).filter(step=20)
    assert dict(rows.select("term", "mean").rows()) == pytest.approx(
        {"cross_entropy": expected["loss/cross_entropy"], "kd": expected["loss/kd"]}, rel=1e-6
    )
    assert json.loads(one.get("vega_lite_chart")[index].proto.spec)["layer"][0]["mark"]["type"] == "area"
    log = json.loads(show(PAGE, of="kd", log="true").get("vega_lite_chart")[index].proto.spec)
    assert log["layer"][1]["encoding"]["y"]["scale"]["type"] == "log"


def test_a_term_below_zero_is_neither_stacked_nor_given_a_logarithm(root: Path) -> None:
    rows = training.terms(_history(("kd", 0, 10, -1.0, "trained")).with_columns(quantity=pl.lit("loss/info")))
    assert rows.select("term", "lowest").rows() == [("info", -1.0)]
    study = open_study(root / "toy")
    history = study.history.with_columns(
        value=pl.when(pl.col("quantity") == "loss/kd").then(-pl.col("value")).otherwise("value")
    )
    _replace(root / "toy", history)
    app = show(PAGE, of="kd", terms="stack")
    assert "cannot be stacked, so lines are drawn" in says(app.caption)
    assert "no logarithm" in says(show(PAGE, of="kd", log="true").caption)


def _replace(folder: Path, history: pl.DataFrame) -> None:
    """Put another history into a study, with its catalog put right."""
    from kdpipe.artifacts.store import sealed, write_table

    path = folder / "study.json"
    record = json.loads(path.read_text())
    write_table(folder, "history", history, record["study_hash"], record["versions"]["kdpipe"])
    from kdpipe.files import sha256_of

    file = folder / "history.parquet"
    record["files"]["history.parquet"] |= {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    path.write_text(json.dumps(sealed(record)))


def test_each_schedule_is_drawn_once_and_a_broken_one_joins_the_whole() -> None:
    rates = [(10, 0.1), (20, 0.05), (30, 0.0)]
    rows = [(name, 0, step, value, "trained") for name in ("kd", "plain") for step, value in rates]
    rows += [("lost", 0, step, value, "diverged") for step, value in rates[:2]]
    rows += [("long", 0, step, 0.1, "trained") for step in (10, 20, 30, 40)]
    found = training.schedules(_history(*rows))
    kinds = found.select("schedule", "networks").unique(maintain_order=True).rows()
    assert kinds == [("kd + 2 others", 3), ("long", 1)]
    assert found.filter(schedule="long").height == 4


def test_shares_are_those_of_the_timings_and_older_ones_are_said_to_lack_them(root: Path) -> None:
    study = open_study(root / "toy")
    app = show(PAGE)
    rows = chart_rows(app, 3)
    kd = dict(rows.filter(pl.col("name").str.starts_with("kd")).select("part", "share").rows())
    assert kd == pytest.approx({"data": 0.05, "teacher": 0.15, "student": 0.7, "loss": 0.1})
    assert "trained by an older version, which recorded speed but no shares" in says(app.caption)
    assert "made up, 1 thread of 2 cores" in says(app.caption)
    found = training.speeds(study, catalog.networks(study))
    table = training.groups(found)
    of_kd = study.timings["training"]["small-kd-f0.1-s0"]
    mine = found.filter(network_id="small-kd-f0.1-s0").row(0, named=True)
    assert mine["steps_per_second"] == of_kd["steps"] / of_kd["seconds"] and mine["together"] == 4
    assert table["groups"].sum() == found.unique(["seconds", "steps", "together"]).height


def test_without_timings_or_history_a_sentence_says_so(root: Path) -> None:
    (root / "toy" / "timings.json").unlink()
    study = open_study(root / "toy")
    _replace(root / "toy", study.history.clear())
    app = show(PAGE)
    words = says(app.info)
    assert not app.error and "no training times" in words and "no accuracies over training steps" in words
    assert "no losses" in words and "no learning rates" in words


def test_links_restore_choices_and_bogus_ones_fall_back(root: Path) -> None:
    app = show(PAGE, of="rkd", seed="1", terms="stack", each="true")
    assert app.selectbox(key="of").value == "rkd" and app.selectbox(key="seed").value == "1"
    assert app.toggle(key="each").value is True
    app = show(PAGE, of="<i>", seed="12", terms="no", accuracy="loss")
    assert not app.error and "is not offered here" in says(app.caption) and "<i>" not in says(app.caption)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(name="odd", samples=20, seeds=(0,), fractions=(0.1,), methods=(), controls={}, diverged=False),
        Recipe(name="odd", samples=20, seeds=(0, 1), second_student=True, other_teachers=True, checkpoints=(20,)),
        Recipe(name="odd", samples=20, seeds=(0, 1), all_diverged=True),
    ],
)
def test_studies_of_other_shapes(root: Path, recipe: Recipe) -> None:
    write_toy_study(root, recipe)
    app = show(PAGE, study="odd")
    assert not app.error and len(app.get("vega_lite_chart")) == 4
    for chart in app.get("vega_lite_chart"):
        assert len(chart.proto.alt) > 30


@pytest.mark.browser
def test_a_loss_is_picked_stacked_and_downloaded(visitor: Visitor) -> None:
    page = visitor.open("/Training?study=toy&of=kd")
    page.locator(".st-key-terms button", has_text="stack").click()
    visitor.settle()
    assert "terms=stack" in page.url
    page.locator(".st-key-csv-toy-speed button").scroll_into_view_if_needed()
    with page.expect_download() as download:
        page.locator(".st-key-csv-toy-speed button").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("network_id,series,budget,seed") and len(lines) > 5
