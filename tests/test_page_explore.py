"""The page of one or two large maps: what is drawn, coloured, filtered and selected, and what a link restores."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair
import polars as pl
import pytest
from app_pages import chart_rows, says, show
from streamlit.testing.v1 import AppTest
from synthetic import Recipe, write_toy_study
from visits import CHART, Visitor

from kdpipe.app.explore import colouring as quantities
from kdpipe.app.explore import linked_maps as linked
from kdpipe.app.explore import selection
from kdpipe.app.explore import settings as explore
from kdpipe.artifacts.store import Study, load_study

PAGE = "pages/2_Explore.py"
PLAIN, KD = "plain, 10% of labels, seed 0", "kd, 10% of labels, seed 0"


def spec_of(app: AppTest, index: int = 0) -> dict[str, Any]:
    return json.loads(app.get("vega_lite_chart")[index].proto.spec)


def drawn(app: AppTest) -> pl.DataFrame:
    return chart_rows(app).filter("shown")


def study_of(root: Path) -> Study:
    return load_study("toy", root)


# --------------------------------------------------------------------------------- two maps


def test_plain_and_distilled_stand_side_by_side_with_every_image(root: Path) -> None:
    app = show(PAGE, study="toy")
    spec, rows = spec_of(app), chart_rows(app)
    assert [cell["title"]["text"] for cell in spec["concat"]] == [PLAIN, KD]
    assert rows.height == 60 and rows["shown"].all()
    study = study_of(root)
    for at, who in enumerate(("small-plain-f0.1-s0", "small-kd-f0.1-s0")):
        points = study.frame("maps", network_id=who, layer="layer4", projector="tsne").sort("sample_id")
        assert rows.sort("sample_id")[f"x_{at}"].to_list() == points["x"].to_list()
    assert rows["image"].str.starts_with("data:image/webp;base64,").all()
    fields = [line["field"] for line in spec["concat"][0]["layer"][1]["encoding"]["tooltip"]]
    assert fields[0] == "image" and {"class_name", "answer_0", "confidence_0", "sample_id"} <= set(fields)


def test_the_specification_is_one_that_vega_lite_knows(root: Path) -> None:
    spec = spec_of(show(PAGE, study="toy", colour="neighbour credit"))
    # Altair's schema has no signal where a concat is broken into rows, though the browser takes one.
    spec = {**spec, "columns": 2, "data": {"values": []}}
    altair.Chart.from_dict(spec)


def test_the_right_layer_follows_the_left_one_until_it_is_picked(root: Path) -> None:
    def layers(**query: str) -> list[str]:
        cells = spec_of(show(PAGE, study="toy", **query))["concat"]
        return [cell["title"]["subtitle"].split(" · ")[0] for cell in cells]

    assert layers() == ["layer4", "layer4"]
    assert layers(layer="layer2") == ["layer2", "layer2"]
    assert layers(layer="layer2", right_layer="layer3") == ["layer2", "layer3"]


def test_a_single_map_fills_the_page(root: Path) -> None:
    app = show(PAGE, study="toy", left="teacher", right="no second map")
    spec = spec_of(app)
    assert len(spec["vconcat"]) == 1 and "x_1" not in chart_rows(app).columns
    assert not [control for control in app.segmented_control if control.key in ("maps", "by")]


def test_one_network_can_stand_beside_itself_at_another_layer(root: Path) -> None:
    app = show(PAGE, study="toy", left=KD, right=KD, layer="layer1", right_layer="layer4", images="3")
    assert not app.error
    assert "answers" in says(app.text)
    assert not [control for control in app.segmented_control if control.key == "by"]


def test_notes_about_the_address_stand_above_the_title(root: Path) -> None:
    app = show(PAGE, study="toy", left="nobody", colour="nothing")
    order = [element.type for element in app.main.children.values()]
    place = app.main.children[order.index("title") - 1]
    assert ["not offered" in note.value for note in place.children.values()] == [True, True]
    assert sum("not offered" in note.value for note in app.caption) == 2


# ------------------------------------------------------------------------------------ colour


@pytest.mark.parametrize(
    "quantity", [*(q.title for q in quantities.QUANTITIES), *(w[0] for w in quantities.FACTORS.values())]
)
def test_every_quantity_colours_the_maps(root: Path, quantity: str) -> None:
    app = show(PAGE, study="toy", colour=quantity)
    assert not app.error and not [note for note in app.caption if "not offered" in note.value]
    colour = spec_of(app)["concat"][1]["layer"][1]["encoding"]["color"]["condition"]
    assert colour["field"] in chart_rows(app).columns
    assert colour["legend"]["title"]


def test_each_map_has_its_own_network_s_values_on_one_scale(root: Path) -> None:
    app = show(PAGE, study="toy", colour="confidence")
    rows, study = chart_rows(app), study_of(root)
    for at, who in enumerate(("small-plain-f0.1-s0", "small-kd-f0.1-s0")):
        told = study.frame("predictions", network_id=who).sort("sample_id")
        assert rows.sort("sample_id")[f"confidence_{at}"].to_list() == told["confidence"].to_list()
    spec = spec_of(app)
    assert spec["resolve"]["scale"]["color"] == "shared"
    scales = [cell["layer"][1]["encoding"]["color"]["condition"]["scale"] for cell in spec["concat"]]
    assert scales[0] == scales[1] and scales[0]["domain"] == [0.0, 1.0]


def test_credit_is_neighbours_gained_less_lost_around_a_neutral_zero(root: Path) -> None:
    app = show(PAGE, study="toy", colour="neighbour credit")
    rows = chart_rows(app).sort("sample_id")
    credit = study_of(root).frame("neighbour_credit", network_id="small-kd-f0.1-s0", layer="layer4", view="projection")
    kinds = [pl.col(name).cast(pl.Int32) for name in ("gained_same", "gained_other", "lost_same", "lost_other")]
    expected = credit.sort("sample_id").select(kinds[0] + kinds[1] - kinds[2] - kinds[3]).to_series()
    assert rows["credit_1"].to_list() == expected.to_list()
    scale = spec_of(app)["concat"][1]["layer"][1]["encoding"]["color"]["condition"]["scale"]
    low, middle, high = scale["domain"]
    assert middle == 0 and low == -high


def test_plain_beside_its_student_shows_what_became_of_its_images(root: Path) -> None:
    app = show(PAGE, study="toy", colour="what distillation did")
    rows = chart_rows(app)
    assert rows["outcome_0"].to_list() == rows["outcome_1"].to_list()
    assert "student's values" in says(app.caption)


def test_a_network_without_outcomes_says_why(root: Path) -> None:
    app = show(PAGE, study="toy", left="teacher", right="no second map", colour="what distillation did")
    assert "is not known of it" in says(app.info)
    assert chart_rows(app)["outcome_0"].null_count() == 60


def test_of_many_classes_the_chosen_ones_are_in_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: None
) -> None:
    write_toy_study(tmp_path, Recipe(samples=200, classes=100, seeds=(0, 1), fractions=(0.1,)))
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(tmp_path))
    app = show(PAGE, study="toy", focus=["class 7", "class 31"])
    assert set(chart_rows(app)["class_name_colour"]) == {"class 7", "class 31", "other classes"}
    colour = spec_of(app)["concat"][0]["layer"][1]["encoding"]["color"]["condition"]
    assert colour["scale"]["domain"] == ["class 7", "class 31", "other classes"]
    assert set(chart_rows(app)["shown"]) == {True}


# ----------------------------------------------------------------------------------- filters


def test_filters_leave_images_out_but_keep_them_as_faint_context(root: Path) -> None:
    app = show(PAGE, study="toy", classes=["3", "4"])
    rows = chart_rows(app)
    assert rows.height == 60 and set(drawn(app)["class_name"]) == {"3", "4"}
    assert rows.filter(~pl.col("shown"))["image"].null_count() == 60 - drawn(app).height
    assert f"{drawn(app).height} of 60 images" in says(app.markdown)


@pytest.mark.parametrize("by, who", [("left", "small-plain-f0.1-s0"), ("right", "small-kd-f0.1-s0")])
def test_right_and_wrong_are_of_the_network_that_is_asked(root: Path, by: str, who: str) -> None:
    app = show(PAGE, study="toy", answers="wrong", by=by)
    told = study_of(root).frame("predictions", network_id=who).filter(~pl.col("correct"))
    assert sorted(drawn(app)["sample_id"]) == sorted(told["sample_id"])


def test_images_that_the_two_answer_differently(root: Path) -> None:
    rows = drawn(show(PAGE, study="toy", answers="differ"))
    assert rows.height and (rows["answer_0"] != rows["answer_1"]).all()


def test_outcomes_and_confidence_filter_on_the_server(root: Path) -> None:
    flips = study_of(root).frame("sample_flips", network_id="small-kd-f0.1-s0")
    rows = drawn(show(PAGE, study="toy", outcome=["fixed", "inherited"]))
    expected = flips.filter((pl.col("outcome") == "fixed") | pl.col("inherited"))["sample_id"]
    assert sorted(rows["sample_id"]) == sorted(expected)
    told = study_of(root).frame("predictions", network_id="small-kd-f0.1-s0")
    middle = int(100 * told["confidence"].median())
    rows = drawn(show(PAGE, study="toy", confidence=[str(middle), "100"]))
    assert sorted(rows["sample_id"]) == sorted(told.filter(pl.col("confidence") >= middle / 100)["sample_id"])
    assert 0 < rows.height < 60


def test_no_image_left_is_said_not_drawn(root: Path) -> None:
    app = show(PAGE, study="toy", confidence=["0", "1"], images="5")
    assert drawn(app).is_empty() and "0 of 60 images" in says(app.markdown)
    assert "the filters leave out it" in says(app.text)


@pytest.mark.parametrize("value", [["x"], ["20"], ["0", "500"]])
def test_a_confidence_that_is_no_range_falls_back(root: Path, value: list[str]) -> None:
    app = show(PAGE, study="toy", confidence=value)
    assert drawn(app).height == 60
    assert "Confidence: the link asks for" in says(app.caption)


def test_a_confidence_may_name_its_ends_in_any_order(root: Path) -> None:
    assert "confidence 10 to 90" in says(show(PAGE, study="toy", confidence=["90", "10"]).markdown)


# --------------------------------------------------------------------------------- selection


def test_a_link_restores_the_selection_with_rings(root: Path) -> None:
    app = show(PAGE, study="toy", images=["3", "7"])
    picked = next(param for param in spec_of(app)["params"] if param["name"] == linked.PICK)
    assert picked["value"] == [{"sample_id": 3}, {"sample_id": 7}]
    assert "of 2 are" in says(app.text)
    assert sum("figure" in block.proto.body for block in app.get("html")) >= 3  # the images, and neighbours of each
    assert "images=" not in json.dumps(spec_of(app)["title"])  # a click would draw all anew


def test_an_image_that_is_not_there_is_named(root: Path) -> None:
    app = show(PAGE, study="toy", images="7777")
    assert "7777" in says(app.caption) and not app.error


def test_typed_images_are_ringed_on_maps_drawn_anew(root: Path) -> None:
    app = show(PAGE, study="toy", images="3")
    before = app.get("vega_lite_chart")[0].proto.id
    app.multiselect(key="images").set_value([3, 9]).run()
    picked = next(param for param in spec_of(app)["params"] if param["name"] == linked.PICK)
    assert picked["value"] == [{"sample_id": 3}, {"sample_id": 9}]
    assert app.get("vega_lite_chart")[0].proto.id != before


@pytest.fixture
def choice(root: Path) -> explore.Choice:
    study = study_of(root)
    sides = [
        explore.Side("small-plain-f0.1-s0", PLAIN, "layer4", {}),
        explore.Side("small-kd-f0.1-s0", KD, "layer4", {}),
    ]
    setting = {"view": "projection", "layout": "independent", "perplexity": 30.0, "map_seed": 0}
    facts = explore.facts(study, sides, "tsne", setting)
    return explore.Choice(sides, setting, "tsne", quantities.QUANTITIES[0], {}, facts, facts.head(40), "")


def test_clicks_and_a_rectangle_become_image_numbers(choice: explore.Choice) -> None:
    x, y = choice.facts["x_1"][5], choice.facts["y_1"][5]
    box = {"x_1": [x + 1.5, x - 1.5], "y_1": [y - 1.5, y + 1.5]}
    inside = choice.shown.filter(
        pl.col("x_1").is_between(x - 1.5, x + 1.5) & pl.col("y_1").is_between(y - 1.5, y + 1.5)
    )
    found = selection.picked_in({"pick": [{"sample_id": 50}, {"sample_id": 9999}], "brush": box}, choice)
    assert found[0] == 50 and set(found[1:]) == set(inside["sample_id"]) and 5 in found
    assert selection.picked_in({"pick": [], "brush": {}}, choice) == []
    assert selection.picked_in({"brush": {"nonsense": [0, 1]}}, choice) == []


def test_the_selection_is_counted_beside_what_is_shown(choice: explore.Choice) -> None:
    name = choice.shown["class_name"][0]
    chosen = choice.shown.filter(class_name=name)
    rows = selection.counts(chosen, choice.shown, "class_name")
    first = rows.row(0, named=True)
    assert first["group"] == name and first["selected"] == chosen.height and first["share"] == 1
    assert first["expected"] == pytest.approx(chosen.height**2 / 40)
    assert rows["selected"].sum() == chosen.height and rows["expected"].sum() == pytest.approx(chosen.height)
    assert selection.sentence(chosen, choice).startswith(f"{chosen.height} of {chosen.height} are {name} (")


def test_neighbours_come_from_the_original_space() -> None:
    near = pl.DataFrame({"sample_id": [0, 1, 2, 3], "ids": [[1, 2], [0, 2], [3, 0], [2, 1]]})
    near = near.cast({"sample_id": pl.Int32, "ids": pl.List(pl.Int32)})
    labels = pl.DataFrame({"sample_id": [0, 1, 2, 3], "label": [0, 0, 1, 1]}).cast(pl.Int32)
    one = selection.neighbourhood(near, labels, [2])
    assert one.nearest["sample_id"].to_list() == [3, 0] and one.words.startswith("50 % of the 2 nearest")
    two = selection.neighbourhood(near, labels, [0, 1])
    assert two.nearest.rows() == [(2, 2)] and "50 % are in the selection" in two.words
    other = near.with_columns(ids=pl.Series([[1, 3], [0, 2], [3, 0], [2, 1]], dtype=pl.List(pl.Int32)))
    assert selection.shared(near, other, [0]) == (0.5, 0.875)


def test_the_table_holds_what_is_known_of_each_image(choice: explore.Choice) -> None:
    table = selection.table(choice.facts.head(3), choice)
    for name in ("answer", "right or wrong", "confidence", "prediction depth", "outcome", "neighbour credit"):
        assert f"{KD}: {name}" in table.columns
    assert {"sample_id", "class", *quantities.FACTORS} <= set(table.columns) and table.height == 3


# ----------------------------------------------------------------------- what may be missing


def test_a_study_without_maps_says_how_to_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: None
) -> None:
    write_toy_study(tmp_path, Recipe(samples=20, seeds=(0,), fractions=(0.1,), maps=False))
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(tmp_path))
    app = show(PAGE, study="toy")
    assert "projectors" in says(app.info) and not app.get("vega_lite_chart") and not app.error


def test_a_study_of_plain_networks_alone_offers_no_outcomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: None
) -> None:
    write_toy_study(
        tmp_path, Recipe(samples=40, seeds=(0, 1), fractions=(0.1,), methods=(), controls={}, diverged=False)
    )
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(tmp_path))
    app = show(PAGE, study="toy", images=["1", "2"])
    offered = app.selectbox(key="colour").options
    assert "what distillation did" not in offered and "confidence" in offered
    assert not [control for control in app.multiselect if control.key == "outcome"] and not app.error


# ------------------------------------------------------------------------- in a real browser


def _lonely(dots: list[dict[str, Any]], far: Callable[[dict[str, Any]], bool] = lambda dot: True) -> dict[str, Any]:
    """The dot of a map that is furthest from all others, so that the pointer meets no other one."""
    apart = {
        i: min(abs(dot["x"] - o["x"]) + abs(dot["y"] - o["y"]) for o in dots if o is not dot)
        for i, dot in enumerate(dots)
    }
    return dots[max((i for i in apart if far(dots[i])), key=lambda i: apart[i])]


def _map(visitor: Visitor, at: int) -> list[dict[str, Any]]:
    return [dot for dot in visitor.dots() if dot["mark"] == f"map_{at}_marks"]


def _rings(visitor: Visitor) -> list[int]:
    return sorted(dot["sample"] for dot in visitor.dots() if re.match(r"concat_\d_layer_[23]", dot["mark"]))


def _numbers(url: str) -> set[int]:
    return {int(number) for number in re.findall(r"images=(\d+)", url)}


@pytest.mark.browser
def test_pointing_and_clicking_ring_an_image_in_both_maps(visitor: Visitor) -> None:
    page = visitor.open("/Explore?study=toy")
    page.locator(CHART).first.scroll_into_view_if_needed()
    first = _lonely(_map(visitor, 0))
    page.mouse.move(first["x"] - 12, first["y"])
    page.mouse.move(first["x"], first["y"], steps=4)
    page.locator("#vg-tooltip-element img").wait_for(timeout=5_000)
    assert _rings(visitor) == [first["sample"]] * 2
    page.mouse.click(first["x"], first["y"])
    page.wait_for_url(re.compile(rf"images={first['sample']}\b"))
    visitor.settle()
    assert page.locator(".kd-gallery figure").count() == 1
    assert page.locator(".kd-strip img").count() == 2 * 12
    second = _lonely(_map(visitor, 1), lambda dot: abs(dot["sample"] - first["sample"]) > 0)
    page.keyboard.down("Shift")
    page.mouse.click(second["x"], second["y"])
    page.keyboard.up("Shift")
    page.wait_for_url(re.compile(r"images=\d+.*images=\d+"))
    assert _numbers(page.url) == {first["sample"], second["sample"]}
    page.reload()
    page.locator(".kd-gallery figure").nth(1).wait_for()
    visitor.settle()
    assert _rings(visitor) == sorted([first["sample"], second["sample"]] * 2)


@pytest.mark.browser
def test_a_rectangle_selects_what_is_in_it_and_replaces_what_was_clicked(visitor: Visitor) -> None:
    page = visitor.open("/Explore?study=toy&images=1")
    page.locator(CHART).first.scroll_into_view_if_needed()
    dots = _map(visitor, 1)
    left, top = min(dot["x"] for dot in dots) - 4, min(dot["y"] for dot in dots) - 4
    middle = sorted(dot["x"] for dot in dots)[50] + 0.5
    foot = max(dot["y"] for dot in dots) + 3
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(middle, foot, steps=5)
    page.mouse.up()
    inside = {dot["sample"] for dot in dots if dot["x"] <= middle}
    page.wait_for_url(re.compile(r"images=\d+.*images=\d+"))
    visitor.settle()
    assert _numbers(page.url) == inside
    assert page.get_by_text(f"of {len(inside)} are").count() == 1
    dot = _lonely([dot for dot in dots if dot["sample"] in inside])
    page.mouse.move(dot["x"] - 5, dot["y"])
    page.mouse.move(dot["x"], dot["y"], steps=3)
    page.locator("#vg-tooltip-element img").wait_for(timeout=5_000)  # the rectangle lies under the dots


@pytest.mark.browser
def test_the_keyboard_selects_an_image_too(visitor: Visitor) -> None:
    page = visitor.open("/Explore?study=toy&images=8")
    box = page.locator(".st-key-images input")
    box.click()
    box.type("42")
    page.get_by_role("option", name="42", exact=True).wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"images=8&images=42"))
    visitor.settle()
    assert _rings(visitor) == [8, 8, 42, 42]


@pytest.mark.browser
def test_all_dots_are_in_sight_on_a_narrow_window(visitor: Visitor) -> None:
    visitor.page.set_viewport_size({"width": 420, "height": 900})
    visitor.open("/Explore?study=toy")
    for at in (0, 1):
        assert all(0 < dot["x"] < 420 for dot in _map(visitor, at))
