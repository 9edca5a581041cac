"""The page of flips: what is counted, which images are shown, confusions, calibration and slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from app_pages import chart_rows, says, show
from synthetic import Recipe, write_toy_study
from visits import Visitor

from kdpipe.app.flips import calibration, replacement, slices
from kdpipe.app.flips import outcomes as flips
from kdpipe.app.shell import images
from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import Study, open_study, write_study

FLIPS = "pages/6_Flips.py"
KD = ("small-kd-f0.1-s0", "small-kd-f0.1-s1")


def headers(app: Any) -> list[str]:
    return [header.value for header in app.header]


def tile(app: Any, name: str) -> Any:
    """The one tile with this name."""
    (found,) = (metric for metric in app.metric if metric.label == name)
    return found


def rewrite(study: Study, **changed: pl.DataFrame) -> None:
    """Write the study again with some of its tables replaced."""
    frames = {name: changed.get(name, study.frame(name)) for name in TABLES}
    record = {name: value for name, value in study.record.items() if name not in ("files", "sha256")}
    write_study(study.folder, record, frames, study.timings)


# ------------------------------------------------------------------------------- all is well


def test_every_part_is_drawn_with_words_for_it(root: Path) -> None:
    app = show(FLIPS)
    assert not app.error and not app.warning
    assert headers(app) == [
        "What changed", "Slices you would lose", "Class by class", "The images", "What it mixes up",
        "How sure, and how right", "All methods side by side",
    ]  # fmt: skip
    drawn = app.get("vega_lite_chart")
    assert len(drawn) == 6 and all(len(chart.proto.alt) > 30 for chart in drawn)
    assert "Probe images are drawn from the test set." in says(app.caption)
    assert "**null**" in says(app.caption)


def test_the_counts_are_those_of_the_table_with_the_null(root: Path) -> None:
    study = open_study(root / "toy")
    expected = study.frame("flips", network_id=KD).filter(pl.col("label").is_null())
    app = show(FLIPS)
    rows = chart_rows(app, holding="mean")
    assert set(rows["series"]) == {"kd", "plain, second initialisation"}
    for kind in ("fixed", "broken", "inherited"):
        mine = rows.filter(series="kd", kind=kind).row(0, named=True)
        assert mine["mean"] == pytest.approx(expected[kind].mean())
        assert (mine["lowest"], mine["highest"]) == (expected[kind].min(), expected[kind].max())
    fixed = tile(app, "Fixed")
    assert fixed.value == f"{expected['fixed'].mean():.1f}" and "by other initial weights" in fixed.delta


def test_one_seed_is_compared_with_the_second_start_of_that_seed(root: Path) -> None:
    app = show(FLIPS, seed="seed 1", method="rkd", labels="all labels")
    study = open_study(root / "toy")
    row = study.frame("flips", network_id="small-rkd-f1-s1").filter(pl.col("label").is_null()).row(0, named=True)
    assert [tile(app, name).value for name in ("Fixed", "Broken")] == [f"{row['fixed']:.1f}", f"{row['broken']:.1f}"]
    assert set(chart_rows(app, holding="mean")["seeds"]) == {1}


def test_the_second_start_itself_has_no_null(root: Path) -> None:
    app = show(FLIPS, method="plain, second initialisation")
    assert chart_rows(app, holding="mean")["series"].unique().to_list() == ["plain, second initialisation"]
    assert "nothing tells what chance alone flips" in says(app.caption)


def test_a_link_with_what_is_not_there_falls_back_and_says_so(root: Path) -> None:
    app = show(FLIPS, method="<b>no</b>", seed="seed 77", outcome="lost", replaces="nobody", of="elephant")
    assert not app.error
    assert says(app.caption).count("is not offered here") == 5 and "<b>" not in says(app.caption)


def test_many_classes_show_the_extremes_and_the_confusions_that_changed_most(root: Path) -> None:
    write_toy_study(root, Recipe(name="wide", samples=150, classes=30, seeds=(0, 1), fractions=(0.1,), maps=False))
    app = show(FLIPS, study="wide")
    assert not app.error
    assert chart_rows(app, 2, "class_name")["class_name"].n_unique() == flips.MOST_ROWS
    assert "6 classes between the extremes" in says(app.caption)
    assert chart_rows(app, 3, "true")["true"].n_unique() == flips.MOST_CONFUSED


def test_a_study_without_flips_says_so(root: Path) -> None:
    study = open_study(root / "toy")
    rewrite(study, flips=study.flips.clear(), sample_flips=study.sample_flips.clear())
    app = show(FLIPS)
    assert not app.error and "nothing can be flipped" in says(app.info)


def test_answers_are_compared_with_those_of_plain_and_of_the_teacher(root: Path) -> None:
    app = show(FLIPS, beside="teacher", **{"open-answers": "true", "open-networks": "true"})
    shown = [table.value for table in app.dataframe]
    assert any({"fixed", "broken", "churn"} <= set(table.columns) for table in shown)
    assert any({"ece", "prediction_depth"} <= set(table.columns) for table in shown)


# ------------------------------------------------------------------------------- in the teacher's place


def test_the_student_is_compared_with_its_teacher_first(root: Path) -> None:
    study = open_study(root / "toy")
    networks = {row["network_id"]: row for row in study.networks.rows(named=True)}
    own, teacher = [networks[name] for name in KD], networks["teacher"]
    app = show(FLIPS)
    assert app.subheader[0].value == "In the teacher's place"
    mean = 50 * (own[0]["test_accuracy"] + own[1]["test_accuracy"])
    accuracy = tile(app, "Test accuracy")
    assert accuracy.value == f"{mean:.1f} %"
    assert accuracy.delta == f"{mean - 100 * teacher['test_accuracy']:+.1f} points"
    fewer = teacher["macs"] / own[0]["macs"]
    assert tile(app, "Multiply-adds an image").delta == f"{fewer:.3g} times fewer"
    errors = study.frame("network_measures", measure="ece", network_id=[*KD, "teacher"])
    of = dict(errors.select("network_id", "value").rows())
    assert tile(app, "Calibration error").value == f"{(of[KD[0]] + of[KD[1]]) / 2:.3f}"
    plain = [row["test_accuracy"] for row in networks.values() if row["network_id"].startswith("small-plain-f1-")]
    labels = study.networks.filter(network_id="small-plain-f1-s0")["labelled_images"].item()
    more = f"plain ({labels:,} labels) {100 * sum(plain) / len(plain):.1f} %"
    assert "Students without this teacher, to compare with kd" in says(app.caption)
    assert more in says(app.caption)


def test_equal_sizes_are_not_called_fewer() -> None:
    assert replacement.times(100, 100.2) == "as many"
    assert replacement.times(50, 100) == "2 times fewer" and replacement.times(100, 50) == "2 times more"


# ------------------------------------------------------------------------------- images


def compared(study: Study) -> flips.Comparison:
    rows = study.frame("flips", network_id=KD).filter(pl.col("label").is_null())
    own = rows.select("network_id", "plain_id", "teacher_id").with_columns(series=pl.lit("kd"), seed=pl.Series([0, 1]))
    colours = {"teacher": "#1", "plain": "#2", "kd": "#3"}
    return flips.Comparison("kd", "10% of labels", own, own.clear(), colours, ("small", "kd", "0.1"))


def test_images_are_those_of_the_table_the_most_consistent_first(pristine: Path) -> None:
    study = open_study(pristine / "toy")
    for outcome in flips.OUTCOMES:
        found = flips.flipped(study, compared(study), outcome)
        rows = study.frame("sample_flips", network_id=KD)
        rows = rows.filter("inherited" if outcome == "inherited" else pl.col("outcome") == outcome)
        assert dict(found.select("sample_id", "times").rows()) == dict(rows.group_by("sample_id").len().rows())
        assert found["times"].to_list() == sorted(found["times"], reverse=True)


def test_captions_say_what_was_answered(pristine: Path) -> None:
    study = open_study(pristine / "toy")
    found = flips.flipped(study, compared(study), "fixed").tail(1)
    sample = found["sample_id"][0]
    (figure,) = flips.figures(study, compared(study), "fixed", found)
    flip = study.frame("sample_flips", network_id=KD, sample_id=sample, outcome="fixed").row(0, named=True)
    said = {row["network_id"]: str(row["predicted"]) for row in study.frame("predictions", sample_id=sample).to_dicts()}
    assert figure.lines[:4] == [
        found["class_name"][0], f"plain: {said[flip['plain_id']]}", f"student: {said[flip['network_id']]}",
        f"teacher: {said['teacher']}",
    ]  # fmt: skip
    assert figure.link == f"Sample?study=toy&sample={sample}"


def test_a_gallery_reads_nothing_as_html() -> None:
    evil = '"><script>alert(1)</script>'
    html = images.gallery([images.Figure(b"", [evil, evil], evil, evil)])
    assert "<script>" not in html and "&lt;script&gt;" in html and '""' in html


# ------------------------------------------------------------------------------- confusions


def test_confusions_add_up_to_what_changed(pristine: Path) -> None:
    study = open_study(pristine / "toy")
    cells = flips.confusions(study, compared(study))
    assert cells.height == 100
    assert cells.group_by("true").agg(pl.col("difference").sum())["difference"].abs().max() == pytest.approx(0)
    ledger = study.frame("flips", network_id=KD).filter(pl.col("label").is_null())
    gained = cells.filter(pl.col("true") == pl.col("answer"))["difference"].sum()
    assert gained == pytest.approx((ledger["fixed"] - ledger["broken"]).mean())
    teacher = study.frame("predictions", network_id="teacher").join(study.samples, on="sample_id")
    count = teacher.filter(label=3, predicted=3).height
    assert cells.filter(true="3", answer="3")["teacher"].item() == count
    steady = cells.filter("steady")
    assert (steady["lowest"] * steady["highest"] > 0).all()


def test_teacher_errors_are_drawn_on_request(root: Path) -> None:
    assert len(show(FLIPS, teacher_errors="true").get("vega_lite_chart")) == 7


# ------------------------------------------------------------------------------- calibration


def test_the_diagram_is_of_the_seeds_that_were_picked(root: Path) -> None:
    study = open_study(root / "toy")
    for seed, picked in ((None, "all seeds"), (1, "seed 1")):
        stored = study.frame("calibration", method_label="kd", budget_id="0.1", who="student")
        stored = stored.filter(pl.col("seed").eq_missing(seed) & (pl.col("images") >= calibration.FEWEST))
        app = show(FLIPS, seed=picked)
        drawn = chart_rows(app, 4, "low").filter(series="kd").sort("bin")
        columns = ["bin", "accuracy", "low", "high"]
        assert drawn.height and drawn.select(columns).rows() == stored.select(columns).rows()


# ------------------------------------------------------------------------------- slices


def test_slices_are_named_and_the_largest_loss_comes_first(root: Path) -> None:
    study = open_study(root / "toy")
    table = slices.differences(study, compared(study), "plain")
    assert table["slice"][0] == "all images" and table["difference"][1:].is_sorted()
    assert set(table.filter(kind="class")["slice"]) == set(study.record["data"]["class_names"])
    brightness = table.filter(kind="brightness")
    edges = [study.samples["brightness"].cast(pl.Float64).quantile(share, "linear") for share in (0.25, 0.75)]
    assert f"brightness: lowest quarter (≤ {edges[0]:.3g})" in brightness["slice"].to_list()
    assert f"brightness: highest quarter (> {edges[1]:.3g})" in brightness["slice"].to_list()
    teacher = slices.differences(study, compared(study), "teacher")
    assert set(table["kind"]) - set(teacher["kind"]) == {"teacher_entropy"}


def test_slices_are_of_the_network_that_is_replaced(root: Path) -> None:
    study = open_study(root / "toy")
    answers = {row["network_id"]: row["correct"] for row in study.predictions.group_by("network_id").agg(
        pl.col("correct").mean()).to_dicts()}  # fmt: skip
    own = np.mean([answers[name] for name in KD])
    plain = np.mean([answers[name.replace("kd", "plain")] for name in KD])
    for base, level in (("teacher", answers["teacher"]), ("plain", plain)):
        app = show(FLIPS, replaces=base)
        assert f"differs from {slices.called(base)} by {100 * (own - level):+.1f} points" in says(app.text)
        assert "some look bad by luck" in says(app.caption)


# ------------------------------------------------------------------------------- in a browser


@pytest.mark.browser
def test_a_picture_leads_to_its_page_and_a_link_keeps_what_was_picked(visitor: Visitor) -> None:
    page = visitor.open("/Flips?study=toy&outcome=broken")
    assert "other initial weights:" in page.locator(".kd-gallery figcaption").first.inner_text()
    page.locator(".st-key-outcome button", has_text="inherited").click()
    visitor.settle()
    assert "outcome=inherited" in page.url
    page.locator(".st-key-outcome button", has_text="fixed").click()
    visitor.settle()
    link = page.locator(".kd-gallery a").first
    sample = link.get_attribute("href").split("sample=")[1]
    link.click()
    page.wait_for_url(f"**/Sample?*sample={sample}*")
    visitor.settle()
    assert page.locator(".kd-strip figure.large", has_text=f"image {sample}:").count() == 1


def test_slices_that_are_lost_for_certain_are_drawn_first() -> None:
    many = pl.DataFrame(
        {"slice": [f"s{i:02}" for i in range(60)], "difference": [float(i - 60) for i in range(60)]}
    ).with_columns(marked=pl.col("difference") > -5)
    table = pl.concat([many.head(1).with_columns(slice=pl.lit("all images")), many])
    drawn, left_out = slices.drawn(table)
    assert drawn.height == slices.MOST and left_out == 60 - slices.MOST
    assert drawn.filter("marked").height == 4, "small losses, but certain ones"
    assert drawn["difference"].is_sorted()
