"""Home: the question, the verdicts, the picture, three ways in, and what the study is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from app_pages import chart_rows, says, show
from synthetic import LAYERS, MANY, Recipe, write_toy_study
from visits import CHART, Visitor

from kdpipe.app.home import overview as home
from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import open_study, sealed
from kdpipe.vocabulary import qualification

PAGE = "Home.py"


def test_home_asks_answers_and_tells_what_the_study_is(root: Path) -> None:
    app = show(PAGE, study="toy")
    assert not app.error and app.title[0].value == "What does distillation change inside a network?"
    words = says(app.markdown)
    for part in (
        "made-up digits",
        "resnet18 (11 M",
        "resnet10t",
        "kd and rkd",
        "10% of labels and all labels",
        "2 seeds",
    ):
        assert part in words
    assert "diverged at step 31" in says(app.warning)
    assert "Probe images are drawn from the test set." in says(app.caption)


def test_cards_say_effect_interval_seeds_and_controls(root: Path) -> None:
    write_toy_study(root, Recipe(name="judged", samples=40, seeds=tuple(range(8)), fractions=(0.1,), maps=False))
    app = show(PAGE, study="judged")
    study = open_study(root / "judged")
    row = study.frame("verdicts", primary=True).row(0, named=True)
    said = says(app.caption)
    assert f"{row['estimate']:+.3f} silhouette ({row['low']:+.3f} to {row['high']:+.3f}), 8 paired seeds." in said
    asked = row["controls_remaining"] + row["controls_explaining"]
    assert f"Remains after {row['controls_remaining']} of {asked} other explanations" in said or not asked
    verdict, unasked = row["title"], qualification(row["verdict"], row["controls_not_asked"])
    assert unasked.endswith("not asked"), "a narrow card has room for the verdict or for this, so each has its badge"
    shown = [badge.value for badge in app.markdown]
    assert any(verdict in text and unasked not in text for text in shown)
    assert any(unasked in text and verdict not in text for text in shown)


def test_home_judges_nothing_on_two_seeds(root: Path) -> None:
    app = show(PAGE, study="toy")
    assert "estimate only" in says(app.markdown) and "A decision takes" in says(app.caption)
    assert "supported" not in says(app.markdown)


def test_a_study_with_a_verdict_and_maps_is_shown_first(root: Path) -> None:
    judged = Recipe(name="yy", samples=40, seeds=tuple(range(8)), fractions=(0.1,), maps=False)
    write_toy_study(root, judged)
    app = show(PAGE)
    assert app.sidebar.selectbox[0].value == "yy" and "8 paired seeds" in says(app.caption)
    write_toy_study(root, replace(judged, name="zz", maps=True))
    assert show(PAGE).sidebar.selectbox[0].options[:2] == ["zz", "yy"]


@pytest.mark.parametrize(("points", "said"), [(9.75, "+9.8"), (2.15, "+2.2"), (-2.35, "-2.4"), (-0.04, "-0.0")])
def test_rounded_halves_read_as_in_the_verdicts_sentence(points: float, said: str) -> None:
    stored = pl.Series([points / 100], dtype=pl.Float32)[0]
    verdict = {"claim": "accurate", "estimate": stored, "low": None, "seeds": 3, "takes": None}
    verdict |= {"controls_not_asked": 0}
    none = TABLES["verdict_controls"].schema.to_frame()
    assert home.effect_in_words(verdict, none).startswith(f"{said} points")


def test_the_picture_is_the_curve_and_the_maps_of_plain_and_distilled(root: Path) -> None:
    app = show(PAGE, study="toy")
    curve, maps = app.get("vega_lite_chart")
    assert curve.proto.alt.startswith("silhouette from the first layer to the last: ")
    spec = json.loads(maps.proto.spec)
    assert [row["title"]["text"] for row in spec["vconcat"]] == [
        "plain, 10% of labels, seed 0",
        "kd, 10% of labels, seed 0",
    ]
    for row in spec["vconcat"]:
        assert [cell["title"]["text"] for cell in row["hconcat"]] == list(LAYERS)
    study = open_study(root / "toy")
    values = study.frame("layer_measures", network_id="teacher", measure="silhouette", view="projection")["value"]
    drawn = chart_rows(app, 0)
    assert set(drawn.filter(pl.col("series") == "teacher")["mean"]) == set(values)


def test_without_maps_the_other_endpoint_stands_beside(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), maps=False))
    alts = [chart.proto.alt for chart in show(PAGE, study="odd").get("vega_lite_chart")]
    assert [alt.split(" from ")[0] for alt in alts] == ["silhouette", "kNN accuracy"]


def test_a_projector_is_called_by_its_name(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), projectors=("pca",)))
    assert show(PAGE, study="odd").get("vega_lite_chart")[1].proto.alt.startswith("PCA maps")


def test_every_figure_is_signed_with_study_hash_and_link(root: Path) -> None:
    study = open_study(root / "toy")
    for chart in show(PAGE, study="toy").get("vega_lite_chart"):
        signed = json.loads(chart.proto.spec)["title"]
        assert (
            signed["orient"] == "bottom" and study.hash in signed["text"][0] and "study=toy" in "".join(signed["text"])
        )


def test_titles_and_descriptions_are_no_markdown(root: Path) -> None:
    folder = root / "toy" / "study.json"
    record = json.loads(folder.read_text())
    record |= {"title": "**bold** [x](http://evil)", "description": "<b>html</b> ![i](http://evil/x.png)"}
    folder.write_text(json.dumps(sealed(record)))
    app = show(PAGE, study="toy")
    assert app.subheader[0].value == "\\*\\*bold\\*\\* \\[x\\](http:\u2060//evil)"
    assert any(r"!\[i\](http" in element.value for element in app.markdown)


def test_a_folder_that_was_run_again_is_read_again(root: Path) -> None:
    assert "50% of labels" not in says(show(PAGE).markdown)
    write_toy_study(root, Recipe(samples=40, seeds=(0,), fractions=(0.5,)))
    assert "50% of labels" in says(show(PAGE).markdown)


def test_several_divergences_are_one_message(root: Path) -> None:
    lost = (("plain", 1), ("rkd", 0))
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), lost=lost))
    app = show(PAGE, study="odd")
    assert [warning.value for warning in app.warning] == [
        "3 networks were not trained to the end and are left out of every mean."
    ]
    assert says(app.text).count("diverged at step 31") == 3


def test_stages_that_failed_are_named(root: Path) -> None:
    missing = {"map ivis teacher/layer1": "ivis maps need tensorflow", "train small-kd": "out of memory"}
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), diverged=False, missing=missing))
    app = show(PAGE, study="odd")
    assert len(app.warning) == 1 and "2 stages of this study failed" in says(app.warning)
    assert "train small-kd: out of memory" in says(app.text)
    assert "out of memory" not in says(show(PAGE, study="toy").text)


def test_other_teachers_and_checkpoints_are_no_students(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy_study(tmp_path, MANY)
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(tmp_path))
    app = show(PAGE, study="many")
    words = says(app.markdown)
    assert not app.error
    assert (
        "Student: **resnet10t (1.2 M parameters)**, plain and distilled with **30 methods**, on 10% of labels" in words
    )
    others = "4 other controls, 4 other teachers, 6 students on their way and 1 untrained student"
    assert f"Besides these: {others}." in words


@pytest.mark.browser
def test_question_answer_and_picture_stand_on_one_screen(visitor: Visitor) -> None:
    visitor.page.set_viewport_size({"width": 1440, "height": 900})
    page = visitor.open("/?study=toy")
    page.locator(CHART).nth(1).wait_for()
    page.wait_for_timeout(500)
    assert page.locator(f"{CHART} canvas").first.bounding_box()["y"] < 600
    assert len(visitor.panel(7, 1)) == 100


@pytest.mark.browser
def test_three_ways_lead_to_their_pages(visitor: Visitor) -> None:
    page = visitor.open("/?study=toy")
    for label, name in (
        ("Evidence: every verdict", "Evidence"),
        ("Methods: gain and cost", "Methods"),
        ("Layers:", "Layers"),
    ):
        page.get_by_test_id("stPageLink").filter(has_text=label).locator("a").click()
        page.wait_for_url(re.compile(rf"/{name}"))
        visitor.settle()
        assert page.locator(".st-key-study input").input_value() == "toy"
        page.go_back()
        page.wait_for_selector(f"{CHART} canvas")
        visitor.settle()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0125, "+0.013"), (-0.0125, "-0.013"), (-1e38, "-1e+38"), (float("inf"), "+inf"), (1e15, "+1e+15")],
)
def test_any_number_of_a_table_can_be_shown(value: float, shown: str) -> None:
    assert home.rounded(value, (1, "", "0.001")) == shown
