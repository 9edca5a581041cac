"""The page of layers: panels and their scores, what is lit and ringed, the map that morphs, and the blind test."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
import pytest
from app_pages import chart_rows, says, show
from hypothesis import given
from hypothesis import strategies as strat
from streamlit.testing.v1 import AppTest
from synthetic import LAYERS, Recipe, write_toy_study
from visits import CHART, Visitor

from kdpipe.app.layers import blind_test as blind
from kdpipe.app.layers import morph
from kdpipe.app.shared import catalog, charts, maps
from kdpipe.app.shell import theme
from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import open_study, write_study

PAGE = "pages/1_Layers.py"


def spec_of(app: AppTest) -> dict[str, Any]:
    return json.loads(app.get("vega_lite_chart")[0].proto.spec)


def keep_maps(root: Path, kept: pl.Expr) -> None:
    """Write the made-up study again with a part of its maps."""
    study = open_study(root / "toy")
    write_with(root, {name: study.frame(name).filter(kept) for name in ("maps", "map_measures")})


def write_with(root: Path, changed: dict[str, pl.DataFrame]) -> None:
    """Write the made-up study again with other tables."""
    study = open_study(root / "toy")
    frames = {name: study.frame(name) for name in TABLES} | changed
    record = {name: value for name, value in study.record.items() if name not in ("files", "sha256")}
    write_study(study.folder, record, frames, study.timings)


# ------------------------------------------------------------------------------- panels


def test_a_panel_is_headed_by_its_layers_and_its_maps_scores(root: Path) -> None:
    spec = spec_of(show(PAGE, study="toy"))
    study = open_study(root / "toy")
    titles = [row["title"]["text"] for row in spec["vconcat"]]
    accuracy = study.frame("networks", network_id="teacher")["test_accuracy"][0]
    assert titles[0] == f"teacher · {accuracy:.1%} of test images right" and len(titles) == 4
    cell = spec["vconcat"][0]["hconcat"][1]
    assert cell["title"]["text"] == "layer2"
    on = {"network_id": "teacher", "layer": "layer2"}
    silhouette = study.frame("layer_measures", **on, view="projection", measure="silhouette")["value"][0]
    kept = study.frame("map_measures", **on, projector="tsne", measure="knn_recall")
    heading = " ".join(cell["title"]["subtitle"])
    assert f"silhouette {silhouette:.2f}" in heading
    assert f"kept {kept['value'][0]:.2f} (chance {kept['chance'][0]:.2f})" in heading
    assert re.search(r"kNN \d+%", heading) and "trust 0." in heading


def test_the_table_has_every_score_with_its_interval_and_chance(root: Path) -> None:
    app = show(PAGE, study="toy", **{"open-scores": "true"})
    table = app.dataframe[0].value
    assert list(table) == ["network", "layer", "measure", "value", "low", "high", "chance"]
    rows = pl.DataFrame(table.to_dict("list")).filter(network="teacher", layer="layer2")
    on = {"network_id": "teacher", "layer": "layer2", "view": "projection", "measure": "silhouette"}
    held = open_study(root / "toy").frame("layer_measures", **on)
    found = rows.filter(measure="silhouette").select("value", "low", "high", "chance").row(0)
    assert found == pytest.approx(held.select("value", "low", "high", "chance").row(0), nan_ok=True)
    assert rows.filter(measure="knn_recall")["chance"].null_count() == 0
    assert "their 20 nearest neighbours" in says(app.caption), "as many as the study's file says"


def test_a_score_near_zero_has_no_sign() -> None:
    panel = maps.Panel("a", "a", "one", 0, 0, {"silhouette": -0.001, "knn_recall": 0.26}, {"knn_recall": 0.01})
    assert maps.heading(panel, ["silhouette", "knn_recall"]) == ["silhouette 0.00", "kept 0.26 (chance 0.01)"]


def test_a_picked_network_without_a_map_is_named(root: Path) -> None:
    keep_maps(root, pl.col("network_id") != "small-plain-f0.1-s1")
    for shown in ("all panels", "one large map"):
        said = says(show(PAGE, study="toy", show=shown).caption)
        assert "no maps of them here" in said and said.count("seed 1") == 1
    assert "no maps of them" not in says(show(PAGE, study="toy", networks=["teacher"]).caption)


def test_a_link_restores_networks_layers_projector_and_classes(root: Path) -> None:
    app = show(PAGE, study="toy", networks=["teacher"], layers=["layer2", "layer4"], projector="PCA", classes=["3"])
    assert [cell["title"]["text"] for cell in spec_of(app)["vconcat"][0]["hconcat"]] == ["layer2", "layer4"]
    rows = chart_rows(app)
    assert rows["class_name"].unique().to_list() == ["3"]
    pca = open_study(root / "toy").frame("maps", network_id="teacher", layer="layer4", projector="pca")
    assert set(rows["x_1"]) <= set(pca["x"])


@pytest.mark.parametrize(("colour", "values"), [("prediction", 10), ("correctness", 2)])
def test_colour_by_what_a_network_said(root: Path, colour: str, values: int) -> None:
    app = show(PAGE, colour=colour)
    channel = spec_of(app)["vconcat"][1]["hconcat"][0]["layer"][0]["encoding"]["color"]
    assert len(channel["scale"]["domain"]) == values
    rows = chart_rows(app).sort("sample_id")
    told = open_study(root / "toy").frame("predictions", network_id="small-plain-f0.1-s0").sort("sample_id")
    if colour == "correctness":
        assert rows[channel["field"]].eq("right").to_list() == told["correct"].to_list()
    else:
        assert rows[channel["field"]].cast(pl.Int32).to_list() == told["predicted"].to_list()


def test_a_control_changes_what_is_drawn(root: Path) -> None:
    app = show(PAGE)
    app.multiselect(key="classes").set_value(["1", "2"]).run()
    assert sorted(chart_rows(app)["class_name"].unique()) == ["1", "2"]
    app.multiselect(key="networks").set_value([]).run()
    assert not app.exception and "at least one network" in says(app.info)


@pytest.mark.parametrize("fade", list(maps.FADES))
def test_what_makes_a_dot_faint_can_be_picked(root: Path, fade: str) -> None:
    app = show(PAGE, faint=maps.FADES[fade][0])
    opacity = spec_of(app)["vconcat"][0]["hconcat"][0]["layer"][0]["encoding"]["opacity"]["condition"]
    assert opacity["field"] == f"{fade}_0" and opacity["param"] == maps.LIT
    values = chart_rows(app)[opacity["field"]]
    assert values.null_count() == 0 and values.max() <= 1


def test_a_link_lights_a_class(root: Path) -> None:
    lit = next(param for param in spec_of(show(PAGE, lit="3"))["params"] if param["name"] == maps.LIT)
    assert lit["value"] == [{"colour": "3"}] and lit["bind"] == "legend"
    assert "value" not in next(param for param in spec_of(show(PAGE))["params"] if param["name"] == maps.LIT)


def test_of_a_hundred_classes_only_the_chosen_are_coloured(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=100, classes=100, seeds=(0,), fractions=(0.1,)))
    rows = chart_rows(show(PAGE, study="odd", classes=["class 3", "class 5"]))
    assert rows.height == 100
    assert set(rows["colour"]) == {"class 3", "class 5", theme.OTHER}
    first = [f"class {at}" for at in range(theme.COLOURED_CLASSES)]
    assert set(chart_rows(show(PAGE, study="odd"))["colour"]) == {*first, theme.OTHER}, (
        "some have a colour from the start"
    )


def test_maps_that_keep_few_neighbours_are_named() -> None:
    def panel(layer: str, kept: float | None) -> maps.Panel:
        return maps.Panel("a", "a", layer, 0, 0, {} if kept is None else {"knn_recall": kept})

    said = maps.kept_little([panel("layer1", 0.13), panel("layer_2", 0.4), panel("layer3", 0.6), panel("pixels", None)])
    assert r"In 2 of 3 panels (layer1, layer\_2) the map keeps 13% to 40%" in said
    assert maps.kept_little([panel("layer3", 0.6)]) == maps.kept_little([]) == ""


def test_the_warning_is_that_of_the_scores(root: Path) -> None:
    panels = [cell["title"]["subtitle"] for row in spec_of(show(PAGE))["vconcat"] for cell in row["hconcat"]]
    kept = [float(found[1]) for lines in panels if (found := re.search(r"kept (\d\.\d\d)", " ".join(lines)))]
    few = sum(one < 0.5 for one in kept)
    assert kept and (f"In {few} of {len(kept)} panels" in says(show(PAGE).caption)) == bool(few)


def test_what_rows_share_with_the_teacher_is_said_where_maps_share_a_start(root: Path) -> None:
    asked = "Rows differ because layers do"
    study = open_study(root / "toy")
    write_with(root, {"similarity": study.similarity.with_columns(view=pl.lit("projection"))})
    assert asked not in says(show(PAGE).caption), "each map was made alone"
    together = pl.lit("consensus").alias("layout")
    write_with(root, {name: study.frame(name).with_columns(together) for name in ("maps", "map_measures")})
    assert asked in says(show(PAGE).caption)
    study = open_study(root / "toy")
    networks = catalog.networks(study).filter("mapped")
    said = maps.shared_in_words(study, networks, "projection")
    pairs = study.frame("similarity", other_id="teacher", measure="mutual_knn")
    students = networks.filter(pl.col("role") != "teacher")
    assert students.height
    for network, label in students.select("network_id", "label").rows():
        shares = pairs.filter(network_id=network)["value"].to_list()
        assert f"{label}: {min(shares):.0%} to {max(shares):.0%}" in said
    assert maps.shared_in_words(study, students, "projection") == "", "the teacher is not shown"


@pytest.mark.parametrize("layers", [2, 3])
def test_layers_of_other_architectures_are_matched_by_depth(root: Path, layers: int) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), student_layers=LAYERS[:layers]))
    cells = spec_of(show(PAGE, study="odd"))["vconcat"][0]["hconcat"]
    expected = {2: ["layer1", "layer4"], 3: ["layer1", "layer2", "layer4"]}  # of a tie the earlier layer
    assert [cell["title"]["text"] for cell in cells] == expected[layers]


def test_pictures_and_legends_fit_a_small_window(root: Path) -> None:
    cells = spec_of(show(PAGE))["vconcat"][0]["hconcat"]
    assert sum(cell["width"] for cell in cells) + maps._GAP * (len(cells) - 1) <= 800
    assert charts.legend_columns(["plain, second initialisation"] * 5, 780) == 3
    assert charts.legend_columns(["a class with a name that is very long indeed"], 100) == 1


@pytest.mark.parametrize("query", [{"follow": "7"}, {"show": "blind test"}, {"show": "one large map"}])
def test_the_hand_made_specifications_are_valid_vega_lite(root: Path, query: dict[str, str]) -> None:
    app = show(PAGE, **query)
    spec = spec_of(app)
    if "follow" in query:
        assert spec["params"][0]["value"] == [{"sample_id": 7}]
    alt.Chart.from_dict({**spec, "data": {"values": []}}, validate=True)


def test_panels_of_one_column_share_a_square_frame() -> None:
    table = pl.DataFrame({"x_0": [0.0, 1.0], "y_0": [0.0, 4.0], "x_1": [-9.0, 1.0], "y_1": [0.0, 1.0]})
    across, up = maps.square_frame(table, [0, 1])
    assert across["domain"][1] - across["domain"][0] == pytest.approx(up["domain"][1] - up["domain"][0])
    assert across["domain"][0] < -9 and across["domain"][1] > 1


# ------------------------------------------------------------------------------- the followed image


def test_a_chosen_image_brings_its_neighbours_in_the_original_space(root: Path) -> None:
    app = show(PAGE, follow="7", networks=["teacher"])
    assert "predicts" in says(app.markdown) and "original space" in says(app.caption)
    strips = [element.proto.body for element in app.get("html") if "<figure" in element.proto.body]
    study = open_study(root / "toy")
    near = study.frame("neighbours", network_id="teacher", layer="layer4", view="projection", sample_id=7)["ids"][0]
    names = dict(study.samples.select("sample_id", "class_name").rows())
    assert re.findall(r'alt="([^"]*)"', strips[1]) == [names[sample] for sample in near.head(10)]
    assert all("data:image/webp;base64," in body for body in strips)


@pytest.mark.parametrize("views", [("gap",), ("gap", "projection")])
def test_maps_of_another_view_are_drawn_with_that_views_neighbours(root: Path, views: tuple[str, ...]) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), views=views, map_view="gap"))
    app = show(PAGE, study="odd", follow="7", networks=["teacher"])
    assert not app.error and says(app.caption).count("channel means (gap)") == 2
    strips = [element.proto.body for element in app.get("html") if "<figure" in element.proto.body]
    study = open_study(root / "odd")
    near = study.frame("neighbours", network_id="teacher", layer="layer4", view="gap", sample_id=7)["ids"][0].head(10)
    names = dict(study.samples.select("sample_id", "class_name").rows())
    assert re.findall(r'alt="([^"]*)"', strips[1]) == [names[sample] for sample in near]


# ------------------------------------------------------------------------------- one large map


def test_columns_of_the_large_map_are_turned_onto_each_other() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(30, 2)).astype(np.float32)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]], np.float32)
    ids = pl.Series("sample_id", range(30), dtype=pl.Int32)
    points = pl.concat(
        pl.DataFrame({"sample_id": ids, "x": xy[:, 0], "y": xy[:, 1]}).with_columns(
            network_id=pl.lit("a"), layer=pl.lit(layer), misplacement=0.5
        )
        for layer, xy in (("one", first), ("two", first @ turn + 5))
    )
    panels = [maps.Panel("a", "a", layer, 0, column, {}) for column, layer in enumerate(("one", "two"))]
    frame = morph.table(panels, points, pl.DataFrame({"sample_id": ids}))
    for axis in "xy":
        assert np.allclose(frame[f"{axis}_0_0"], frame[f"{axis}_0_1"], atol=1e-5)


def test_the_large_map_starts_where_the_link_says(root: Path) -> None:
    app = show(PAGE, show="one large map", networks=["teacher", "kd, 10% of labels, seed 0"], start_layer="layer2")
    starts = {param["name"]: param.get("value") for param in spec_of(app)["params"]}
    assert starts["network"] == 0 and starts["layer"] == 1
    app = show(PAGE, show="one large map", start_network="kd, 10% of labels, seed 0")
    starts = {param["name"]: param.get("value") for param in spec_of(app)["params"]}
    assert starts["network"] == 3
    assert "interpolation" in says(app.caption)


def test_the_large_map_says_where_it_is_and_what_the_stop_scores(root: Path) -> None:
    spec = spec_of(show(PAGE, show="one large map", networks=["teacher"], follow="7", colour="correctness"))
    params = {param["name"]: param for param in spec["params"]}
    kept = open_study(root / "toy").frame("map_measures", network_id="teacher", projector="tsne", layer="layer2")
    value, floor = kept.filter(measure="knn_recall").select("value", "chance").row(0)
    assert f"kept {value:.2f} (chance {floor:.2f})" in params["scored"]["expr"]
    assert "no network is here" in params["scored"]["expr"] and "'between ' +" in params["where"]["expr"]
    dots = spec["layer"][0]
    assert dots["params"][1]["value"] == [{"sample_id": 7}]
    assert dots["encoding"]["color"]["scale"]["domain"] == [str(label) for label in range(10)], "not right and wrong"


def test_a_network_that_lacks_a_layer_has_no_stop() -> None:
    panels = [maps.Panel(name, name, layer, row, column, {}) for row, name in enumerate("abc")
              for column, layer in enumerate(("one", "two")) if (name, layer) != ("b", "two")]  # fmt: skip
    whole = morph.complete(panels, 2)
    assert [(panel.network, panel.row, panel.column) for panel in whole] == [
        ("a", 0, 0), ("a", 0, 1), ("c", 1, 0), ("c", 1, 1),
    ]  # fmt: skip


def test_an_image_that_is_not_drawn_is_said_not_to_be_ringed(root: Path) -> None:
    names = dict(open_study(root / "toy").samples.select("sample_id", "class_name").rows())
    other = next(name for name in names.values() if name != names[7])
    for shown in ("all panels", "one large map"):
        assert "nothing is ringed" in says(show(PAGE, follow="7", classes=[other], show=shown).caption)
        assert "nothing is ringed" not in says(show(PAGE, follow="7", show=shown).caption)


def test_names_in_the_large_map_stay_text() -> None:
    name = "o'clock \"\\ \n"
    assert f"[{json.dumps(name)}][n0]" in morph._where("network", "n", [name])


# ------------------------------------------------------------------------------- the blind test


def test_the_blind_test_hides_names_and_scores_until_there_is_a_guess(root: Path) -> None:
    app = show(PAGE, show="blind test", **{"open-scores": "true"})
    hidden = json.dumps(spec_of(app))
    assert "silhouette" not in hidden and "kd," not in hidden and "predicted" not in hidden
    assert "kd," not in app.get("vega_lite_chart")[0].proto.alt
    assert not [column for column in chart_rows(app).columns if re.match("[pc]_", column)], "answers give it away"
    assert not app.dataframe, "a table of scores would too"
    study = open_study(root / "toy")
    rows = blind.contestants(study, catalog.networks(study))
    assert rows.select("role", "seed").rows() == [("distilled", 0), ("plain", 0), ("plain", 1)]
    order = blind.shuffled(rows["network_id"].to_list(), study.hash, 1)
    right = blind.LETTERS[order.index(rows["network_id"][0])]
    app.button(key=f"guess_{right}").click().run()
    assert "is the distilled one" in says(app.success)
    assert f"{right}: kd, 10% of labels, seed 0" in json.dumps(spec_of(app), ensure_ascii=False)
    assert "differ by their seed alone" in says(app.success)
    assert re.search(r"kept \d\.\d\d \(chance", json.dumps(spec_of(app))) and app.dataframe[0].value.shape[0] >= 12
    assert "1 of 1 right" in says(app.caption) and "probability 0.33" in says(app.caption)
    next(button for button in app.button if button.label == "Next round").click().run()
    assert app.select_slider(key="round").value == 2
    assert "kd," not in json.dumps(spec_of(app)), "the next round is hidden again"


def test_a_wrong_guess_is_called_what_it_was(root: Path) -> None:
    app = show(PAGE, show="blind test")
    study = open_study(root / "toy")
    rows = blind.contestants(study, catalog.networks(study))
    order = blind.shuffled(rows["network_id"].to_list(), study.hash, 1)
    wrong = next(letter for letter, one in zip(blind.LETTERS, order, strict=True) if one != rows["network_id"][0])
    app.button(key=f"guess_{wrong}").click().run()
    assert "a plain student" in says(app.warning) and "0 of 1 right" in says(app.caption)


def test_without_maps_of_plain_there_is_no_blind_test(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,)))
    assert "one plain student alone" in says(show(PAGE, study="odd", show="blind test").caption)


def test_the_blind_test_takes_what_a_projector_has_maps_of(root: Path) -> None:
    plain, distilled = "small-plain-f0.1-s1", "small-kd-f0.1-s0"
    pca, last = pl.col("projector") == "pca", pl.col("layer") == "layer4"
    second, first = pl.col("network_id") == plain, pl.col("network_id") == distilled
    ivis, tsne = pl.col("projector") == "ivis", pl.col("projector") == "tsne"
    lost = (pca & second) | (ivis & first) | (tsne & last & second)
    keep_maps(root, ~lost)
    assert len(spec_of(show(PAGE, show="blind test"))["hconcat"]) == 3
    assert "images at layer3" in says(show(PAGE, show="blind test").caption), "the last layer that all have"
    app = show(PAGE, show="blind test", projector="PCA")
    assert len(spec_of(app)["hconcat"]) == 2 and "one plain student alone" in says(app.caption)
    app.button(key="guess_A").click().run()
    assert re.search(r"probability (0\.5|1)\.", says(app.caption))
    app = show(PAGE, show="blind test", projector="ivis")
    assert not app.error and not app.get("vega_lite_chart") and "no maps of both" in says(app.info)


def test_controls_without_effect_are_greyed(root: Path) -> None:
    app = show(PAGE, show="blind test", colour="correctness")
    assert app.multiselect(key="networks").disabled
    assert "Colour means the class" in says(app.caption)
    assert not show(PAGE).multiselect(key="networks").disabled


@given(rounds=strat.integers(1, 12), choices=strat.integers(2, 3))
def test_luck_is_the_binomial_tail(rounds: int, choices: int) -> None:
    tails = [blind.by_luck(right, [choices] * rounds) for right in range(rounds + 1)]
    p = 1 / choices
    exact = [math.comb(rounds, k) * p**k * (1 - p) ** (rounds - k) for k in range(rounds + 1)]
    assert tails == pytest.approx([sum(exact[right:]) for right in range(rounds + 1)])
    assert all(a > b for a, b in itertools.pairwise(tails))


def test_luck_over_rounds_with_other_numbers_of_maps() -> None:
    assert blind.by_luck(2, [2, 3]) == pytest.approx(1 / 6)
    assert blind.by_luck(1, [2, 3]) == pytest.approx(1 - 1 / 2 * 2 / 3)


def test_every_order_comes_up() -> None:
    orders = {tuple(blind.shuffled(["a", "b", "c"], "hash", number)) for number in range(1, 60)}
    assert len(orders) == 6


# ------------------------------------------------------------------------------- in a browser


@pytest.mark.browser
def test_a_class_of_the_legend_lights_up_in_all_panels(visitor: Visitor) -> None:
    page = visitor.open("/Layers?study=toy&networks=teacher")
    legend = next(dot for dot in visitor.dots() if dot["mark"].endswith("legend_symbols"))
    page.mouse.click(legend["x"], legend["y"])
    page.wait_for_timeout(400)
    for panel in range(4):
        dots = visitor.panel(panel)
        lit = {dot["label"] for dot in dots if dot["opacity"] > 0.06}
        assert lit == {"0"} and {dot["label"] for dot in dots} == {str(i) for i in range(10)}


@pytest.mark.browser
def test_the_sliders_move_the_dots_without_the_server(visitor: Visitor) -> None:
    page = visitor.open("/Layers?study=toy&show=one large map")
    before = {dot["sample"]: (dot["x"], dot["y"]) for dot in visitor.dots() if dot["sample"] is not None}
    slider = page.locator(".vega-bindings input[type=range]").first
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    after = {dot["sample"]: (dot["x"], dot["y"]) for dot in visitor.dots() if dot["sample"] is not None}
    assert before.keys() == after.keys()
    assert sum(before[one] != after[one] for one in before) > len(before) / 2


@pytest.mark.browser
def test_the_large_map_rings_a_clicked_dot_at_every_stop(visitor: Visitor) -> None:
    page = visitor.open("/Layers?study=toy&show=one large map")
    page.locator(CHART).scroll_into_view_if_needed()
    dots = [one for one in visitor.dots() if one["sample"] is not None]
    dot = max(dots, key=lambda one: min(abs(one["x"] - o["x"]) + abs(one["y"] - o["y"]) for o in dots if o != one))
    page.mouse.click(dot["x"], dot["y"])
    page.wait_for_timeout(400)
    page.locator(".vega-bindings input[type=range]").first.focus()
    page.keyboard.press("End")
    page.wait_for_timeout(400)
    same = [one for one in visitor.dots() if one["sample"] == dot["sample"]]
    assert len(same) == 2 and same[0]["x"] == same[1]["x"] != dot["x"], "the dot, moved, and the ring round it"


@pytest.mark.browser
@pytest.mark.parametrize("shown", ["all panels", "one large map", "blind test"])
def test_on_a_small_screen_the_maps_scroll_and_not_the_page(visitor: Visitor, shown: str) -> None:
    visitor.page.set_viewport_size({"width": 700, "height": 900})
    page = visitor.open(f"/Layers?study=toy&show={shown}")
    for width in (700, 420):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(400)
        assert page.get_by_test_id("stMain").evaluate("main => main.scrollWidth - main.clientWidth") <= 1
        chart = page.locator(CHART).first
        assert width > 420 or chart.evaluate("box => box.scrollWidth > box.clientWidth")


@pytest.mark.browser
def test_a_riddle_is_solved_by_a_click(visitor: Visitor) -> None:
    page = visitor.open("/Layers?study=toy&show=blind test")
    page.locator(".st-key-guess_B button").click()
    page.get_by_text("So far").wait_for(timeout=15_000)
    visitor.settle()
    assert page.locator(CHART).count() == 1
