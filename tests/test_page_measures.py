"""The page of measures: values and differences by depth, bands, classes, the area and the advance, specifications."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from app_pages import says
from app_pages import show as closed
from streamlit.testing.v1 import AppTest
from synthetic import LAYERS, MANY, Recipe, write_toy_study
from visits import CHART, Visitor

from kdpipe.app.measures import specification
from kdpipe.app.shared import catalog, charts, curves, focus, tables
from kdpipe.app.shared import verdicts as evidence
from kdpipe.app.shell import theme
from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import Study, open_study, write_study
from kdpipe.relative_depth import advance, early_abc
from kdpipe.vocabulary import ENDPOINTS

PAGE = "pages/3_Measures.py"
BASE = ["teacher", "plain", "plain, second initialisation"]


def frames_of(app: AppTest, index: int) -> list[pl.DataFrame]:
    """Every table that the n-th chart of a page draws from."""
    proto = app.get("vega_lite_chart")[index].proto
    return [pl.read_ipc_stream(dataset.data.data) for dataset in proto.datasets]


def show(page: str, **query: Any) -> AppTest:
    """The page with its tables opened."""
    return closed(page, **{"open-numbers": "true", "open-classes": "true", **query})


def table_with(app: AppTest, *columns: str) -> Any:
    return next(table.value for table in app.dataframe if set(columns) <= set(table.value.columns))


def number(cell: str) -> float:
    return float(cell.split(" ")[0])


# ------------------------------------------------------------------------------- by depth


def test_measures_follow_the_link(root: Path) -> None:
    app = show(PAGE, measure="kNN accuracy", view="channel means (gap)", labels="all labels")
    assert not app.error and "kNN accuracy" in says(app.markdown)
    study = open_study(root / "toy")
    value = study.frame("layer_measures", network_id="teacher", layer="layer1", view="gap", measure="knn_accuracy")
    table = table_with(app, "teacher", "depth")
    assert number(table["teacher"][0]) == pytest.approx(value["value"][0], abs=5e-4)


def test_the_band_is_over_seeds_or_over_images(root: Path) -> None:
    study = open_study(root / "toy")
    kd = study.networks.filter((pl.col("method_label") == "kd") & (pl.col("label_fraction") < 0.5), status="trained")
    rows = study.frame("layer_measures", network_id=kd["network_id"].to_list(), view="gap", layer="layer2")
    rows = rows.filter(measure="silhouette")
    ends = {"seeds": (rows["value"].min(), rows["value"].max()), "images": (rows["low"].mean(), rows["high"].mean())}
    for band, (low, high) in ends.items():
        app = show(PAGE, view="channel means (gap)", band=band)
        means = next(frame for frame in frames_of(app, 0) if "mean" in frame.columns and frame["series"].eq("kd").any())
        row = means.filter(series="kd", layer="layer2").row(0, named=True)
        names = ("low", "high") if band == "images" else ("lowest", "highest")
        assert [row[name] for name in names] == pytest.approx([low, high], abs=1e-6)
        spec = app.get("vega_lite_chart")[0].proto.spec
        assert f'"field": "{names[0]}", "scale"' in spec or f'"field": "{names[0]}"' in spec
        assert ("95 % interval over probe images" in says(app.caption)) == (band == "images")


def test_a_difference_is_to_plain_of_the_same_seed_inside_what_another_start_moves(root: Path) -> None:
    app = show(PAGE, view="channel means (gap)", show="difference to plain", band="images")
    assert not app.error and "No interval over images of a difference is stored" in says(app.caption)
    study = open_study(root / "toy")
    values = study.frame("layer_measures", view="gap", layer="layer3", measure="silhouette")
    named = values.join(study.networks, on="network_id").filter(pl.col("label_fraction") < 0.5, student="small")
    of = {(row["method_label"], row["seed"]): row["value"] for row in named.rows(named=True)}
    found = frames_of(app, 0)
    means = next(frame for frame in found if "mean" in frame.columns and frame["series"].eq("kd").any())
    assert set(means["series"]) == {"kd", "rkd", BASE[2]}, "neither plain nor the teacher differs from plain"
    moved = [of["kd", seed] - of["plain", seed] for seed in (0, 1)]
    row = means.filter(series="kd", layer="layer3").row(0, named=True)
    assert [row["mean"], row["lowest"], row["highest"]] == pytest.approx([np.mean(moved), min(moved), max(moved)])
    reach = next(frame for frame in found if "reach" in frame.columns).filter(pl.col("relative_depth").round(2) == 0.67)
    again = [abs(of["second-seed", seed] - of["plain", seed]) for seed in (0, 1)]
    assert reach["high"].item() == pytest.approx(max(again)) == pytest.approx(-reach["low"].item())
    assert "furthest of 2 seeds" in says(app.caption)


def test_without_a_second_start_nothing_tells_what_chance_moves(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), controls={}))
    app = show(PAGE, study="odd", show="difference to plain")
    assert not app.error and "no band tells what chance alone moves" in says(app.caption)


def test_what_chance_and_no_training_give_is_drawn(root: Path) -> None:
    app = show(PAGE, measure="Silhouette")
    spec = app.get("vega_lite_chart")[0].proto.spec
    assert '"text": {"field": "label"' in spec and "strokeDash" in spec
    assert "raw pixels" in says(app.caption)
    far = pl.DataFrame({"value": [0.1, 0.2], "chance": [9.0, 9.0]})
    near = pl.DataFrame({"series": ["raw pixels", "untrained"], "value": [0.15, -5.0]})
    assert charts.far_off(far, near) == {"chance": 9.0, "untrained": -5.0}
    assert charts.far_off(far.with_columns(chance=pl.lit(0.05))) == {}


def test_grey_series_far_away_leave_the_frame_and_are_named() -> None:
    rows = [("kd", 0.1), ("kd", 0.3), ("near", 0.2), ("far", -4.0), ("far", 0.2)]
    frame = pl.DataFrame(rows, schema=["series", "value"], orient="row").with_columns(
        layer=pl.Series(["a", "b", "a", "a", "b"]), relative_depth=pl.Series([0.0, 1.0, 0.0, 0.0, 1.0]), chance=0.0
    )
    assert charts.out_of_frame(frame, {"kd": "#000000"}) == {"far": -4.0}
    assert charts.out_of_frame(frame.filter(pl.col("series") != "far"), {"kd": "#000000"}) == {}


def test_a_budget_without_a_trained_student_still_shows_the_teacher(root: Path) -> None:
    lost = tuple((label, 0) for label in ("plain", "second-seed", "kd", "rkd"))
    recipe = Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1, 1.0), lost=lost, diverged=False)
    write_toy_study(root, recipe)
    app = show(PAGE, study="odd", labels="10% of labels")
    assert not app.error and "on this label budget" in says(app.info)
    app = show(PAGE, study="odd", labels="10% of labels", show="difference to plain")
    assert not app.error and "no difference to show" in says(app.info)


def test_a_layer_class_by_class_with_the_range_of_its_seeds(root: Path) -> None:
    app = show(PAGE, view="channel means (gap)", class_layer="layer2")
    rows = table_with(app, "class_name", "lowest")
    study = open_study(root / "toy")
    kd = study.networks.filter((pl.col("method_label") == "kd") & (pl.col("label_fraction") < 0.5), status="trained")
    on = {"view": "gap", "layer": "layer2", "measure": "silhouette", "label": 3}
    values = study.frame("class_measures", network_id=kd["network_id"].to_list(), **on)["value"]
    mine = rows[(rows["series"] == "kd") & (rows["class_name"] == "3")]
    found = [mine[name].item() for name in ("lowest", "value", "highest")]
    assert found == pytest.approx([values.min(), values.mean(), values.max()])


# ------------------------------------------------------------------------------- area and advance


def test_the_advance_is_that_of_the_evidence() -> None:
    rng = np.random.default_rng(3)
    depth = np.linspace(0, 1, 5)
    method, plain = rng.normal(size=(2, 200, 5)).cumsum(axis=2)
    pair = curves.CurvePair("kd", tuple(range(200)), depth, method, plain)
    found = np.array([there[2] - there[1] for there in pair.advances])
    np.testing.assert_allclose(found, advance(depth, method, plain), equal_nan=True)
    assert np.isnan(found).any() and not np.isnan(found).all()
    one, other = method.mean(axis=0), plain.mean(axis=0)
    pieces = curves.between(depth[:-1], one[:-1], other[:-1])
    areas = [
        np.trapezoid((part["method"] - part["plain"]).to_numpy(), part["depth"].to_numpy())
        for part in pieces.partition_by("piece")
    ]
    assert sum(areas) == pytest.approx(float(early_abc(depth, one, other)))
    for part in pieces.partition_by("piece"):
        ahead = (part["method"] - part["plain"]) * (1 if part["ahead"][0] else -1)
        assert ahead.min() >= -1e-12, "a piece lies on one side"


def test_area_and_advance_are_drawn_and_said_with_what_the_study_found(root: Path) -> None:
    study = open_study(root / "toy")
    app = show(PAGE, comparison="rkd, all labels")
    assert not app.error
    rows = study.comparisons.filter(method_label="rkd", label_fraction=1.0, against="plain")
    words = says(app.markdown)
    for measure in ENDPOINTS:
        area = rows.filter(measure=measure, quantity="early_abc").row(0, named=True)
        interval = f"{area['estimate']:+.4f} ({area['low']:+.4f} to {area['high']:+.4f})"
        assert f"Area before the last layer: {interval}, 2 paired seeds" in words
        advance = rows.filter(measure=measure, quantity="advance").row(0, named=True)
        layers = abs(advance["estimate"]) * 3  # four layers are three steps apart
        assert f"Advance: {abs(advance['estimate']):.2f} of the depth ({layers:.2f} layers)" in words
        cell = {"student": "small", "method_label": "rkd", "budget_id": "1"}
        pair = curves.pair_of(study, catalog.networks(study), cell, measure)
        assert pair is not None and pair.seeds == (0, 1)
        who = study.networks.filter(method_label="plain", label_fraction=1.0, seed=1)["network_id"].item()
        on = {"network_id": who, "view": ENDPOINTS[measure].view, "measure": measure}
        assert pair.plain[1].tolist() == study.frame("layer_measures", **on)["value"].to_list()
    assert "no p value" in words and words.count("Advance:") == 2
    alts = [chart.proto.alt for chart in app.get("vega_lite_chart")]
    assert sum("Area before the last layer: " in alt and "Advance: " in alt for alt in alts) == 2
    arrows = next(frame for frame in frames_of(app, 2) if "there" in frame.columns)
    assert set(arrows["seed"]) <= {"0", "1", "mean"} and arrows.height


def test_words_say_when_an_interval_is_wide_crosses_zero_or_does_not_matter() -> None:
    row = {"estimate": 0.02, "low": -0.01, "high": 0.05, "seeds": 8, "p_corrected": 0.3, "p": 0.2}
    row |= {"correction": "holm", "null_estimate": None}
    assert "crosses 0" in curves.area_in_words(row, 0.005) and "p = 0.3, corrected after Holm" in curves.area_in_words(
        row, 0.005
    )
    assert "by how much is uncertain" in curves.area_in_words({**row, "low": 0.001}, 0.0)
    assert "plain is ahead" in curves.area_in_words({**row, "estimate": -0.02, "low": -0.03, "high": -0.015}, 0.0)
    assert "All of it lies within ±0.1" in curves.area_in_words(row, 0.1)
    null = {**row, "null_estimate": -0.003, "null_ratio": 4.0}
    assert "-0.0030 on average over the seeds, 0.0050 whatever the sign" in curves.area_in_words(null, 0.0)
    reached = {"estimate": 0.1, "per_seed": [0.3, None, -0.1], "never_reached": 1, "seeds": 3}
    pair = curves.CurvePair("kd", (0, 1), np.array([0.0, 1.0]), np.ones((2, 2)), np.zeros((2, 2)))
    words = curves.advance_in_words(reached, pair)
    assert "mean over 2 seeds (seeds from -0.10 to +0.30" in words and "disagree in sign" in words
    assert "At 1 seed distilled never reaches that value" in words
    low = curves.CurvePair("kd", (0, 1), np.array([0.0, 1.0]), np.zeros((2, 2)), np.ones((2, 2)))
    assert "at none of 2 seeds" in curves.advance_in_words(None, low) and curves.arrows(low).is_empty()
    assert "no advance" in curves.advance_in_words(None, pair) and "no area" in curves.area_in_words(None, 0.0)


def test_two_layers_have_no_area_and_one_view_no_endpoint_of_the_other(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), student_layers=LAYERS[:2]))
    app = show(PAGE, study="odd")
    assert not app.error and "that takes three layers" in says(app.markdown)
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), views=("gap",), map_view="gap"))
    app = show(PAGE, study="odd")
    assert not app.error and "no curves of this endpoint" in says(app.info)


# ------------------------------------------------------------------------------- every way to measure


def test_specifications_are_those_of_the_table(root: Path) -> None:
    study = open_study(root / "toy")
    app = show(PAGE, comparison="kd, 10% of labels")
    rows = evidence.of_cell(study.specification, {"student": "small", "method_label": "kd", "budget_id": "0.1"})
    rows = rows.filter(against="plain")
    drawn = [next(frame for frame in frames_of(app, index) if "way" in frame.columns) for index in (-2, -1)]
    assert sorted(pl.concat(drawn)["estimate"]) == pytest.approx(sorted(rows["estimate"]))
    for frame in drawn:
        assert frame["estimate"].is_sorted() and frame["way"].is_unique().all()
        assert frame.filter(kind="fixed in advance").height == 1
    above = rows.filter(pl.col("low") > 0).height
    assert f"The interval of {above} of {rows.height} specifications lies above 0" in says(app.caption)
    named = specification.rows_of(rows.with_columns(against=pl.lit("x")), ["x", "plain"])
    assert named["way"].str.starts_with("x: ").all()


# ------------------------------------------------------------------------------- many methods


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crowd")
    write_toy_study(root, MANY)
    write_toy_study(root, Recipe(samples=20, seeds=(0,), fractions=(0.1,), diverged=False))
    return root


@pytest.fixture
def many(crowd: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: None) -> Iterator[Study]:
    """The study of many methods, and the app pointed at it."""
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(crowd))
    yield open_study(crowd / "many")


def test_the_headline_is_in_colour_and_the_others_are_grey(many: Study) -> None:
    app = show(PAGE, study="many")
    assert not app.error
    assert "Student" not in [box.label for box in app.selectbox], "a teacher is no student to choose"
    assert app.multiselect(key="methods").value == ["kd"]
    assert table_with(app, "depth").columns.to_list() == ["layer", "depth", *BASE, "kd"]
    assert "109 networks, 3 seeds" in says(app.caption) and "Grey: 33 other methods" in says(app.caption)
    spec = json.loads(app.get("vega_lite_chart")[0].proto.spec)
    domains = [
        layer["encoding"]["color"]["scale"]["domain"]
        for layer in spec["layer"]
        if "scale" in layer.get("encoding", {}).get("color", {})
    ]
    assert domains and all(set(domain) <= {*BASE, "kd"} for domain in domains)


def test_a_link_chooses_what_is_in_colour(many: Study) -> None:
    chosen = ["fitnet", "teacher on 10% of labels", "plain at step 20"]
    app = show(PAGE, study="many", methods=chosen, others="false")
    assert not app.error
    assert set(table_with(app, "depth").columns) == {"layer", "depth", *BASE, *chosen}
    assert "3 seeds" in says(app.caption) and "Grey: " not in says(app.caption)
    app.multiselect(key="methods").set_value([]).run()
    assert not app.exception and table_with(app, "depth").columns.to_list() == ["layer", "depth", *BASE]
    app.sidebar.selectbox[0].set_value("toy").run()
    assert not app.exception and not app.error and "kd" in table_with(app, "depth").columns


def test_a_link_with_too_many_or_unknown_methods_still_opens(many: Study) -> None:
    for methods in ([f"method-{i}" for i in range(20)], ["nope"]):
        app = show(PAGE, study="many", methods=methods)
        assert not app.error and len(app.multiselect(key="methods").value) <= theme.COLOURED_METHODS


def test_a_comparison_without_a_colour_gets_one(many: Study) -> None:
    app = show(PAGE, study="many", comparison="method-7, 10% of labels")
    assert not app.error
    kept = set(focus.colours(many, catalog.networks(many)).values())
    scale = json.loads(app.get("vega_lite_chart")[2].proto.spec)
    colours = [layer["encoding"]["color"]["scale"] for layer in scale["layer"] if "color" in layer.get("encoding", {})]
    own = dict(zip(colours[0]["domain"], colours[0]["range"], strict=True))
    assert own["method-7"] not in kept


def test_few_methods_are_all_in_colour_with_nothing_to_choose(root: Path) -> None:
    app = show(PAGE)
    assert [box.key for box in app.multiselect] == ["against"] and "Grey: " not in says(app.caption)
    networks = catalog.networks(open_study(root / "toy"))
    assert list(focus.colours(open_study(root / "toy"), networks)) == [*BASE, "kd", "rkd"]


def test_a_bogus_address_falls_back_and_says_so(root: Path) -> None:
    app = show(PAGE, show="everything", band="models", comparison="<b>", against=["nope"], class_layer="layer9")
    assert not app.error
    assert "Show: the link asks for “everything”" in says(app.caption)
    assert "Comparison: the link asks for “b”" in says(app.caption)


def test_factors_are_drawn_with_their_seeds_and_may_be_missing(root: Path) -> None:
    app = show("pages/9_Factors.py", factor="edge density", part="the whole")
    assert not app.error
    study = open_study(root / "toy")
    of = study.networks.filter((pl.col("method_label") == "kd") & (pl.col("label_fraction") < 0.5), status="trained")
    rows = study.frame("factors", network_id=of["network_id"].to_list(), view="projection", factor="edge_density")
    means = next(frame for frame in frames_of(app, 0) if "mean" in frame.columns)
    expected = rows.filter(layer="layer2")["explained"].mean()
    assert means.filter(series="kd", layer="layer2")["mean"].item() == pytest.approx(expected)
    assert all("kd 0." in chart.proto.alt for chart in app.get("vega_lite_chart"))
    assert tables.factor_curves(study.factors.clear(), catalog.networks(study), study.layers, "explained").is_empty()


def test_a_study_without_factors_offers_nothing_to_pick(root: Path) -> None:
    study = open_study(root / "toy")
    frames = {name: study.frame(name) for name in TABLES}
    record = {name: value for name, value in study.record.items() if name not in ("files", "sha256")}
    write_study(study.folder, record, frames | {"factors": study.factors.clear()}, study.timings)
    app = show("pages/9_Factors.py")
    assert not app.error and "did not ask for known factors" in says(app.info)
    assert not app.main.selectbox and not app.segmented_control and not app.multiselect


@pytest.mark.parametrize("page", [PAGE, "pages/5_Evidence.py", "pages/9_Factors.py"])
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(name="odd", samples=100, classes=100, seeds=(0,), fractions=(0.1,), methods=("kd",)),
        Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), methods=(), controls={}, diverged=False),
        Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), all_diverged=True),
        Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), lost=(("plain", 0), ("second-seed", 1))),
    ],
    ids=["a hundred classes", "plain alone", "all diverged", "some diverged"],
)
def test_studies_of_other_shapes(root: Path, recipe: Recipe, page: str) -> None:
    write_toy_study(root, recipe)
    for query in ({}, {"show": "difference to plain", "band": "images", "each_seed": "true"}):
        app = show(page, study="odd", **query)
        assert not app.error, [error.value for error in app.error]


# ------------------------------------------------------------------------------- in a browser


@pytest.mark.browser
def test_a_difference_is_picked_and_stays_in_the_address(visitor: Visitor) -> None:
    page = visitor.open("/Measures?study=toy")
    fills = {dot["fill"] for dot in visitor.dots()}
    assert len(fills) >= 5  # teacher, plain, control, two methods
    page.locator(".st-key-show").get_by_text("difference to plain").click()
    visitor.settle()
    assert "show=difference" in page.url
    page.get_by_text("How to read this").first.click()
    page.get_by_text("what other initial weights alone move").wait_for(timeout=15_000)
    assert len({dot["fill"] for dot in visitor.dots()}) == 3  # the control and two methods
    page.get_by_text("The numbers").first.click()
    with page.expect_download() as download:
        page.locator(".st-key-csv-toy-silhouette-projection-minus-plain button").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("series,role,label,seed") and len(lines) == 1 + 6 * 4


@pytest.mark.browser
def test_a_layer_and_a_control_rerun_their_part_alone(visitor: Visitor) -> None:
    page = visitor.open("/Measures?study=toy")
    drawn = page.locator(f"{CHART} canvas").first.element_handle()
    page.locator(".st-key-class_layer").get_by_text("layer1").click()
    page.wait_for_url(lambda url: "class_layer=layer1" in url)
    page.locator(f"{CHART}[aria-label*='of each class at layer1']").wait_for(state="attached", timeout=15_000)
    visitor.settle()
    assert drawn.evaluate("canvas => canvas.isConnected"), "the curves above stay as they are"


@pytest.mark.browser
def test_a_phone_shows_all_without_sideways_scroll(visitor: Visitor) -> None:
    visitor.page.set_viewport_size({"width": 420, "height": 900})
    page = visitor.open("/Measures?study=toy&against=plain")
    page.wait_for_timeout(500)
    for canvas in page.locator(f"{CHART} canvas").all():
        drawn = canvas.bounding_box()
        assert drawn["x"] >= 0 and drawn["x"] + drawn["width"] <= 421
