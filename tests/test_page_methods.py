"""The page of methods: paired gains, areas and advances, prices, ranks, budgets, and what is said of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import streamlit as st
from app_pages import chart_rows, says, show
from synthetic import MANY, Recipe, write_toy_study
from visits import CHART, Visitor

from kdpipe.app.methods import charts as gain_charts
from kdpipe.app.methods import differences as methods
from kdpipe.app.methods import tables as method_tables
from kdpipe.app.shared import catalog, gains
from kdpipe.artifacts.store import Study, open_study

PAGE = "pages/4_Methods.py"
EARLY = methods.QUANTITIES[1]
TOOK = "ms a step"


def _spec(app: Any, index: int) -> dict[str, Any]:
    return json.loads(app.get("vega_lite_chart")[index].proto.spec)


def formula(app: Any) -> str:
    """The HTML of the formula of the picked method."""
    return next((element.proto.body for element in app.get("html") if element.proto.body.startswith("<pre")), "")


def _table(app: Any) -> Any:
    return next(table.value for table in app.dataframe if "gain" in table.value.columns)


@pytest.fixture(scope="module")
def evident(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Eight seeds, with a control that was held against a method and one that withholds something."""
    root = tmp_path_factory.mktemp("evident")
    controls = {"second-seed": "second-seed", "random-teacher": "random-teacher"}
    recipe = Recipe(name="eight", samples=40, seeds=range(8), fractions=(0.1,), controls=controls, maps=False)
    return open_study(write_toy_study(root, recipe))


# ------------------------------------------------------------------------------------- gains


def _accuracies(*rows: tuple[str, int, float | None]) -> pl.DataFrame:
    roles = {"teacher": "teacher", "plain": "plain", "second": "control"}
    return pl.DataFrame(
        [
            {"rank": 0, "role": roles.get(name, "distilled"), "student": "small", "series": name, "seed": seed}
            | {"null": name == "second", "budget_id": "0.1", "label_fraction": 0.1, "budget": "10% of labels"}
            | {"test_accuracy": accuracy}
            | {"status": "diverged" if accuracy is None else "trained"}
            for name, seed, accuracy in rows
        ],
        schema_overrides={"test_accuracy": pl.Float32, "label_fraction": pl.Float32},
    )


def test_gains_are_paired_by_seed_and_a_diverged_seed_shifts_none() -> None:
    frame = _accuracies(
        ("teacher", 0, 0.99), ("plain", 0, 0.50), ("plain", 1, 0.90), ("plain", 2, None),
        ("kd", 0, 0.52), ("kd", 1, None), ("kd", 2, 0.10),
        ("second", 0, 0.55), ("second", 1, 0.85), ("second", 2, 0.95),
    )  # fmt: skip
    found = {row["series"]: row for row in gains.paired(frame).rows(named=True)}
    assert set(found) == {"kd", "second"}
    assert found["kd"]["gain"] == pytest.approx(2.0, abs=1e-4) and found["kd"]["pairs"] == 1
    second = found["second"]
    assert [second[name] for name in ("gain", "lowest", "highest")] == pytest.approx([0, -5, 5], abs=1e-4)
    words = gains.in_words(gains.paired(frame))
    assert "**kd** +2.0 points (1 seed)" in words
    assert "from -5.0 to +5.0 over 2 seeds" in words and "gain inside that range could be luck" in words


def test_the_page_shows_the_paired_gain_of_each_method_and_of_the_control(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1, 2), fractions=(0.1,), lost=(("plain", 1),)))
    app = show(PAGE, study="odd")
    accuracy = {
        (row["method_label"], row["seed"]): row["test_accuracy"]
        for row in open_study(root / "odd").networks.rows(named=True)
    }
    table = _table(app).set_index("method")
    names = {"kd": "kd", "second-seed": "plain, second initialisation"}
    for label, series in names.items():
        each = [100 * (accuracy[label, seed] - accuracy["plain", seed]) for seed in (0, 2)]
        assert table.loc[series, ["gain", "lowest", "highest"]].to_list() == pytest.approx(
            [np.mean(each), min(each), max(each)], abs=1e-4
        )
    drawn = chart_rows(app, holding="gain")
    assert drawn.select("series", "gain").rows() == [
        (name, pytest.approx(table.loc[name, "gain"])) for name in ("kd", "rkd", "plain, second initialisation")
    ]
    tiles = {metric.label: metric.delta for metric in app.metric}
    assert tiles["Distilled: kd"] == f"{table.loc['kd', 'gain']:+.1f} vs plain"
    assert "With 2 paired seeds these are estimates" in says(app.info)
    assert "**kd**" in says(app.markdown) and "**plain, second initialisation**" in says(app.markdown)


def test_rows_are_sorted_by_gain_before_the_band_of_the_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toy_study(tmp_path, MANY)
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(tmp_path))
    app = show(PAGE)
    table, spec = _table(app), _spec(app, 0)
    assert len(table) == 31 + len(MANY.controls), "plain stands beside them for its cost"
    ranked = [row for row in table["method"] if row != "plain"]
    rows = [layer["encoding"]["y"] for layer in spec["layer"] if "y" in layer["encoding"]]
    assert rows and all(row["sort"] == ranked for row in rows)
    assert rows[0]["axis"]["labelOverlap"] is False and spec["height"] > 20 * len(ranked)
    assert "An arrow with a number" in says(app.caption) and "Band: as far as plain" in says(app.caption)
    drawn = chart_rows(app, holding="gain")
    assert set(drawn.filter(pl.col("series").str.contains("teacher"))["kind"]) == {"control"}
    assert drawn.filter(series="kd")["kind"].item() == "method"


def test_gains_far_below_the_others_do_not_press_them_together() -> None:
    near = [{"gain": gain, "lowest": gain - 0.5, "highest": gain + 0.5} for gain in (5.0, 4.0, 2.0, 1.0)]
    far = {"gain": -60.0, "lowest": -61.0, "highest": -59.0}
    assert gain_charts.left_edge(pl.DataFrame(near), 0.3) is None
    edge = gain_charts.left_edge(pl.DataFrame([*near, far]), 0.3)
    assert edge is not None and -5 < edge <= 0
    small = pl.DataFrame([{name: value / 1000 for name, value in row.items()} for row in [*near, far]])
    assert gain_charts.left_edge(small, 0.0003) == pytest.approx(edge / 1000), "areas are small numbers"


# ------------------------------------------------------------------------------------- quantities


@pytest.mark.parametrize("quantity", [one for one in methods.QUANTITIES if one.measure], ids=lambda one: one.name)
def test_a_quantity_is_drawn_from_the_comparisons(root: Path, quantity: methods.Quantity) -> None:
    app = show(PAGE, quantity=quantity.name)
    study = open_study(root / "toy")
    stored = study.frame("comparisons", against="plain", measure=quantity.measure, quantity=quantity.quantity)
    stored = stored.filter(budget_id="0.1")
    scale = 3 if quantity.quantity == "advance" else 1  # four layers are three steps apart
    expected = {row["method_label"]: scale * row["estimate"] for row in stored.rows(named=True)}
    found = dict(chart_rows(app, holding="gain").select("series", "gain").rows())
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert quantity.about[:40] in says(app.caption)
    table = _table(app).set_index("method")
    column = {**method_tables._AREAS, **method_tables._ADVANCES}[quantity.name]
    assert {name: table.loc[name, column] for name in expected} == pytest.approx(expected, rel=1e-4) and expected


def test_an_early_area_of_a_control_is_the_methods_less_what_it_was_held_against_by(evident: Study) -> None:
    networks = catalog.networks(evident)
    found = methods.differences(evident, networks, EARLY)
    name = networks.filter(method_label="random-teacher")["series"][0]
    stored = evident.frame("comparisons", measure="silhouette", quantity="early_abc", method_label="kd")
    plain = stored.filter(against="plain")["per_seed"][0].to_numpy()
    control = stored.filter(control="random-teacher")["per_seed"][0].to_numpy()
    mine = found.filter(series=name).sort("seed")
    assert mine["seed"].to_list() == list(range(8))
    assert mine["gain"].to_numpy() == pytest.approx(plain - control, abs=1e-6)
    # The same from the curves themselves: areas subtract.
    curves = {
        row: _early_area(evident, networks.filter(method_label=label, seed=3)["network_id"][0])
        for row, label in (("control", "random-teacher"), ("plain", "plain"))
    }
    of_layers = curves["control"] - curves["plain"]
    assert mine.filter(seed=3)["gain"].item() == pytest.approx(of_layers, abs=0.02), "means of images stand there"


def _early_area(study: Study, network_id: str) -> float:
    rows = study.frame("sample_measures", network_id=network_id, view="projection")
    curve = rows.join(study.samples.select("sample_id", "label"), on="sample_id")
    curve = curve.group_by("layer", "label").agg(pl.col("silhouette").mean())
    values = curve.group_by("layer").agg(pl.col("silhouette").mean()).sort("layer")["silhouette"].to_numpy()
    return float(((values[1:-1] + values[:-2]) / 2).sum() / 3)


def test_the_null_of_an_area_is_what_the_judge_divided_by(evident: Study) -> None:
    networks = catalog.networks(evident)
    rows = gains.over_seeds(methods.differences(evident, networks, EARLY))
    reach = methods.null_reach(evident, rows, EARLY)
    second = [_early_area(evident, f"small-second-seed-f0.1-s{seed}") for seed in range(8)]
    plain = [_early_area(evident, f"small-plain-f0.1-s{seed}") for seed in range(8)]
    moved = np.sqrt(np.mean((np.array(second) - np.array(plain)) ** 2))
    assert list(reach.values()) == pytest.approx([moved], rel=1e-3)
    advance = methods.QUANTITIES[3]
    assert methods.null_reach(evident, rows, advance) == {}, "nothing is stored of advances"


# ------------------------------------------------------------------------------------- cost


def test_a_step_costs_its_parts_and_older_timings_have_none(root: Path) -> None:
    app = show(PAGE)
    table = _table(app).set_index("method")
    assert table.loc["kd", TOOK] == pytest.approx(18.0) and table.loc["plain", TOOK] == pytest.approx(16.0)
    words = says(app.caption)
    assert "Trained on made up, 1 thread of 2 cores" in words and "timed by an older version" in words
    assert "6 M MACs an image and 1.2 M parameters" in words
    (root / "toy" / "timings.json").unlink()
    st.cache_resource.clear()  # times are no part of a study's identity, so an open one keeps them
    app = show(PAGE)
    assert "stored no training times" in says(app.caption) and _table(app)[TOOK].isna().all()


def test_the_cheapest_network_that_is_as_accurate_is_named(root: Path) -> None:
    write_toy_study(root, Recipe(name="two", samples=20, seeds=(0, 1), fractions=(0.1,), second_student=True))
    networks = catalog.networks(open_study(root / "two"))
    points = methods.priced(networks, "10% of labels", "macs")
    assert set(points["name"]) == {"teacher", *(f"{s} {m}" for s in ("small", "large") for m in ("plain", "kd", "rkd"))}
    front = points.filter("front")
    assert front["name"].to_list() == ["small kd", "large kd", "teacher"] and front["accuracy"].is_sorted()
    apart = (points["place"] / points["cost"] - 1).abs()
    assert points["place"].n_unique() == points.height and apart.max() < 0.08
    said = list(methods.bargains(points, "MACs"))
    assert said[0].startswith("**large kd**") and "below **teacher**" in said[0] and "**30 %** of its MACs" in said[0]
    assert said[1].startswith("**small kd**") and "above **large plain**" in said[1] and "**50 %**" in said[1]
    app = show(PAGE, study="two", price="parameters")
    assert "share one architecture" not in says(app.caption) and "**no latency**" in says(app.caption)
    assert any("of its parameters" in one.value for one in app.markdown)
    app = show(PAGE, study="toy")
    assert "All students share one architecture, so the picture has 2 columns" in says(app.caption)


# ------------------------------------------------------------------------------------- ranks


def test_ranks_are_those_of_the_table_with_controls_and_without(root: Path) -> None:
    study = open_study(root / "toy")
    for controls in (False, True):
        stored = study.frame("method_ranks", measure="test_accuracy", budget_id="0.1", with_controls=controls)
        app = show(PAGE, rank_controls=str(controls).lower())
        drawn = chart_rows(app, 3, "rank").sort("rank")
        assert drawn["rank"].to_list() == stored.sort("rank")["rank"].to_list()
        assert drawn["low"].to_list() == stored.sort("rank")["best"].to_list(), "of three seeds there is no interval"
    words = says(app.caption)
    assert "Line: lowest to highest rank" in words and "A rank hides how small differences are" in words


def test_ranks_are_among_all_methods_whichever_are_drawn(root: Path) -> None:
    write_toy_study(root, MANY)
    networks, study = catalog.networks(open_study(root / "many")), open_study(root / "many")
    cell = pl.col("student") == "small"
    whole = methods.ranks(study, networks, cell, methods.ACCURACY, controls=False)
    few = networks.filter(pl.col("series").is_in(["plain", "kd", "method-26"]))
    some = methods.ranks(study, few, cell, methods.ACCURACY, controls=False)
    assert some.ranked == whole.ranked == whole.rows.height and some.rows.height == 3
    assert some.rows.rows() == whole.rows.filter(pl.col("series").is_in(some.rows["series"].to_list())).rows()
    assert f"among all {whole.ranked} networks" in method_tables.about_ranks(some)
    assert "drawn or not" not in method_tables.about_ranks(whole)
    assert method_tables.ranks_in_words(some, "accuracy").startswith(f"3 of {whole.ranked} networks")


def test_ranks_of_eight_seeds_are_drawn_with_their_interval(evident: Study) -> None:
    networks = catalog.networks(evident)
    found = methods.ranks(evident, networks, pl.col("student") == "small", EARLY, controls=True)
    stored = evident.frame("method_ranks", measure="silhouette", with_controls=True, method_label="kd").to_dicts()[0]
    mine = found.rows.filter(series="kd").row(0, named=True)
    assert found.resampled and found.seeds == 8 and (mine["low"], mine["high"]) == (stored["low"], stored["high"])
    assert "2,000 draws" in method_tables.about_ranks(found)


# ------------------------------------------------------------------------------- budgets and words


def test_gains_across_budgets_stand_side_by_side(root: Path) -> None:
    write_toy_study(root, Recipe(name="two", samples=20, seeds=(0, 1), second_student=True, diverged=False))
    networks = catalog.networks(open_study(root / "two"))
    app = show(PAGE, study="two")
    charts = app.get("vega_lite_chart")
    panels = [json.loads(chart.proto.spec) for chart in charts][-2:]
    domains = [next(iter(_domains(panel))) for panel in panels]
    assert domains[0] == domains[1], "charts side by side share their axis"
    expected = gains.paired(networks).filter(student="small", series="kd").sort("label_fraction")["gain"]
    words = charts[-2].proto.alt
    assert f"kd: {expected[0]:+.1f} points at 10% of labels, {expected[1]:+.1f} points at all labels" in words
    one = Recipe(name="one", samples=20, seeds=(0, 1), fractions=(0.1,), second_student=True, diverged=False)
    write_toy_study(root, one)
    assert "points at small" in show(PAGE, study="one").get("vega_lite_chart")[-1].proto.alt
    write_toy_study(root, Recipe(name="alone", samples=20, seeds=(0,), fractions=(0.1,)))
    assert "one architecture of students and one budget" in says(show(PAGE, study="alone").caption)


def _domains(spec: dict[str, Any]) -> list[Any]:
    ys = (layer["encoding"].get("y", {}) for layer in spec["layer"])
    return [y["scale"]["domain"] for y in ys if "domain" in (y.get("scale") or {})]


def test_a_method_is_described_in_text_that_nobody_interprets(root: Path) -> None:
    app = show(PAGE, method="Rkd")
    assert app.selectbox(key="method").value == "rkd" or "RKD" in app.selectbox(key="method").options
    app = show(PAGE, method=next(name for name in app.selectbox(key="method").options if name.lower() == "rkd"))
    assert "Made-up words about rkd." in says(app.text) and ">L = rkd</pre>" in formula(app)
    assert "rkd: no parameters (" in says(app.text)


def test_what_saw_more_than_plain_is_named() -> None:
    rows = [
        ("plain", "plain", 100, False), ("kd", "distilled", 100, False), ("kd-unlabelled", "distilled", 100, True),
        ("supervised", "control", 1000, True),
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema=["series", "role", "labelled_images", "unlabelled"], orient="row")
    frame = frame.with_columns(status=pl.lit("trained"), student=pl.lit("small"), training=pl.lit("{}"))
    words = method_tables.saw_more(frame)
    assert words == " From images without labels too learned: kd-unlabelled. With more labels than plain: supervised."
    slower = pl.when(pl.col("series") == "kd").then(pl.lit('{"lr":0.1}')).otherwise("training")
    told = method_tables.saw_more(frame.with_columns(training=slower)).removeprefix(words)
    assert "another recipe than plain" in told and told.endswith("of method and recipe together: kd.")


def test_a_link_restores_every_choice_and_bogus_values_fall_back(root: Path) -> None:
    app = show(PAGE, quantity="early area, silhouette", labels="all labels", rank_controls="true", price="parameters")
    assert app.selectbox(key="quantity").value == "early area, silhouette"
    assert app.toggle(key="rank_controls").value is True
    app = show(PAGE, quantity="<b>no</b>", rank="*x*", price="$", method="?")
    assert app.selectbox(key="quantity").value == "accuracy" and "is not offered here" in says(app.caption)
    assert "<b>" not in says(app.caption)


def test_a_study_of_two_networks_or_without_a_trained_student(root: Path) -> None:
    few = Recipe(name="few", samples=20, seeds=(0,), fractions=(0.1,), methods=(), controls={}, diverged=False)
    write_toy_study(root, few)
    app = show(PAGE, study="few")
    assert not app.error and "can be compared with a plain student" in says(app.info)
    write_toy_study(root, Recipe(name="lost", samples=20, seeds=(0, 1), all_diverged=True))
    app = show(PAGE, study="lost")
    assert not app.error and not app.get("vega_lite_chart") and formula(app)


def test_charts_have_words_with_numbers(root: Path) -> None:
    for chart in show(PAGE).get("vega_lite_chart"):
        assert len(chart.proto.alt) > 40 and any(character.isdigit() for character in chart.proto.alt)


# ------------------------------------------------------------------------------------- browser


@pytest.mark.browser
def test_every_method_has_a_row_in_the_order_of_gains(visitor: Visitor) -> None:
    visitor.open("/Methods?study=many")
    dots = [dot for dot in visitor.dots(0) if dot["y"]]
    heights = sorted({round(dot["y"]) for dot in dots})
    assert len(heights) >= 35 and min(b - a for a, b in itertools.pairwise(heights)) >= 16


@pytest.mark.browser
def test_a_quantity_is_picked_and_stays_in_the_address(visitor: Visitor) -> None:
    page = visitor.open("/Methods?study=toy")
    page.locator(".st-key-quantity").get_by_role("combobox").click()
    page.get_by_role("option", name="early area, silhouette").click()
    visitor.settle()
    assert "quantity=early+area" in page.url
    page.reload()
    page.wait_for_selector(f"{CHART} canvas")
    visitor.settle()
    page.get_by_text("How to read this").first.click()
    page.get_by_text("The area between the two curves").first.wait_for()
