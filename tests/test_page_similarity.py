"""The page of similarity: heat maps of pairs, similarity by depth, neighbours and their null, dark knowledge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from app_pages import says, show
from streamlit.testing.v1 import AppTest
from synthetic import LAYERS, MANY, Recipe, write_toy_study
from visits import CHART, Visitor

from kdpipe.app.shared import catalog, charts, credit, tables
from kdpipe.app.similarity import pairings as similarity
from kdpipe.artifacts.store import Study, open_study
from kdpipe.vocabulary import budget_id

PAGE = "pages/7_Similarity.py"
FRAME = '[data-testid="stFullScreenFrame"]'
GAP = "channel means (gap)"
ALT = {
    "heat_chart": "of each layer with each layer",
    "alike": "by relative depth, at the last layer but one",
    "net": "gained less those lost",
    "credit_chart": "Neighbours of an image under",
    "dark_chart": "Dark knowledge: ",
}


def frames_of(app: AppTest, key: str) -> list[pl.DataFrame]:
    """Every table that a chart draws from."""
    return [pl.read_ipc_stream(dataset.data.data) for dataset in proto_of(app, key).datasets]


def proto_of(app: AppTest, key: str) -> Any:
    return next(chart.proto for chart in app.get("vega_lite_chart") if ALT[key] in chart.proto.alt)


def cells_of(app: AppTest) -> pl.DataFrame:
    return next(frame for frame in frames_of(app, "heat_chart") if "lowest" in frame.columns)


def means_of(app: AppTest, key: str) -> pl.DataFrame:
    return next(frame for frame in frames_of(app, key) if "mean" in frame.columns)


def scope_of(study: Study, fraction: float = 0.1) -> pl.DataFrame:
    networks = catalog.networks(study).filter(pl.col("status") == "trained")
    return networks.filter((pl.col("role") == "teacher") | (pl.col("budget_id") == budget_id(fraction)))


# ------------------------------------------------------------------------------- layer by layer


def test_the_four_heat_maps_are_means_over_seeds_with_their_range(root: Path) -> None:
    app = show(PAGE, view=GAP)
    assert not app.error
    cells = cells_of(app)
    assert cells["pair"].unique(maintain_order=True).to_list() == [
        "kd with the teacher", "plain with the teacher", "kd with plain", "plain, second initialisation, with plain",
    ]  # fmt: skip
    study = open_study(root / "toy")
    of = study.similarity.join(study.networks, on="network_id").filter(
        pl.col("label_fraction") < 0.5, measure="cka", layer="layer2", other_layer="layer3", status="trained"
    )
    seconds = of.filter(method_label="second-seed")
    for name, rows in {
        "kd with the teacher": of.filter(method_label="kd", other_id="teacher"),
        "plain with the teacher": of.filter(method_label="plain", other_id="teacher"),
        "kd with plain": of.filter(pl.col("other_id") != "teacher", method_label="kd"),
        "plain, second initialisation, with plain": seconds.filter(pl.col("other_id") != "teacher"),
    }.items():
        found = cells.filter(pair=name, layer="layer2", other_layer="layer3").row(0, named=True)
        expected = [rows["value"].mean(), rows["value"].min(), rows["value"].max()]
        assert [found[key] for key in ("value", "lowest", "highest")] == pytest.approx(expected, abs=1e-6)
        assert found["pairs"] == rows.height == 2 and found["above"] and not found["matched"]
    assert cells.filter("matched").height == 4 * len(LAYERS)
    assert "2 pairs of networks a cell" in says(app.caption) and "Chance is 0" in says(app.caption)
    told = proto_of(app, "heat_chart").alt
    assert "kd with the teacher 0.90 (0.90 to 0.91)" in told or "kd with the teacher 0.91 (0.90 to 0.91)" in told


def test_all_heat_maps_share_one_scale_and_no_two_cells_lie_on_each_other(root: Path) -> None:
    app = show(PAGE, view=GAP)
    spec = json.loads(proto_of(app, "heat_chart").spec)
    assert '"domain": [0, 1]' in json.dumps(spec) and '"clamp": true' in json.dumps(spec)
    assert not cells_of(app).select("x", "y").is_duplicated().any()
    words = next(frame for frame in frames_of(app, "heat_chart") if "kind" in frame.columns)
    assert words.filter(kind="head")["text"].to_list() == list(LAYERS) * 4


def test_one_seed_alone_has_no_range_and_says_so(root: Path) -> None:
    app = show(PAGE, view=GAP, seed="1", method="rkd")
    cells = cells_of(app)
    assert cells["pair"][0] == "rkd with the teacher" and set(cells["pairs"]) == {1}
    assert "Seed 1 alone: no range" in says(app.caption)
    assert "(" not in proto_of(app, "heat_chart").alt.split("same depth: ")[1]


def test_two_plain_seeds_are_a_pair_and_the_first_seed_has_no_other(root: Path) -> None:
    app = show(PAGE, view=GAP, second=similarity.OTHER_SEED)
    assert "plain of another seed with plain" in cells_of(app)["pair"].to_list()
    assert "shares none of them" in says(app.caption)
    app = show(PAGE, view=GAP, second=similarity.OTHER_SEED, seed="0")
    assert not app.error and "plain of another seed with plain" not in cells_of(app)["pair"].to_list()
    assert "Not in this study at this pick: plain of another seed with plain" in says(app.caption)


def test_cells_not_above_chance_are_bracketed_and_what_was_not_computed_is_said(root: Path) -> None:
    app = show(PAGE, view=GAP, similarity="Shared neighbours")
    cells = cells_of(app)
    first = cells.filter(layer="layer1")
    assert not first["above"].any() and first["text"].unique().to_list() == ["(0.10)"]
    others = cells.filter(pl.col("layer") != "layer1")
    assert others["above"].all() and not others["text"].str.contains(r"\(").any()
    words = says(app.caption)
    assert "4 cells not above it for every pair" in words and "nearest in depth alone" in words
    assert "Chance is 0.2;" in words


def test_layers_of_other_numbers_stand_side_by_side(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1), student_layers=LAYERS[:3]))
    cells = cells_of(show(PAGE, study="odd", view=GAP))
    teacher = cells.filter(pl.col("pair") == "kd with the teacher")
    assert teacher.height == 3 * 4 and teacher.filter("matched").height == 3
    assert cells.filter(pl.col("pair") == "kd with plain").height == 3 * 3


def test_a_study_of_plain_alone_still_draws_what_there_is(root: Path) -> None:
    recipe = Recipe(
        name="odd", samples=40, seeds=(0,), fractions=(0.1,), methods=(), controls={}, diverged=False, maps=False
    )
    write_toy_study(root, recipe)
    app = show(PAGE, study="odd", view=GAP)
    assert not app.error and cells_of(app)["pair"].unique().to_list() == ["plain with the teacher"]
    assert "distilled with the teacher" in says(app.caption) and "`second-seed`" in says(app.caption)
    assert "no credit to give" in says(app.info)


def test_a_study_without_pairs_says_how_to_make_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), all_diverged=True))
    monkeypatch.setattr(Study, "frame", _without_pairs(Study.frame))
    app = show(PAGE, study="toy")
    assert not app.error and "no measures of pairs of layers" in says(app.info)
    assert "Dark knowledge" in [header.value for header in app.header]


def _without_pairs(frame: Any) -> Any:
    def read(self: Study, name: str, **equals: Any) -> pl.DataFrame:
        found = frame(self, name, **equals)
        return found.clear() if name == "similarity" else found

    return read


# ------------------------------------------------------------------------------- by depth


def test_similarity_to_the_teacher_and_its_difference_to_plain_by_seed(root: Path) -> None:
    app = show(PAGE, view=GAP)
    kd = means_of(app, "alike").filter(series="kd", layer="layer2").row(0, named=True)
    assert [kd[name] for name in ("mean", "lowest", "highest")] == pytest.approx([0.905, 0.9, 0.91], abs=1e-6)
    app = show(PAGE, view=GAP, show="difference to plain")
    moved = means_of(app, "alike")
    kd = moved.filter(series="kd", layer="layer2").row(0, named=True)
    assert [kd[name] for name in ("mean", "lowest", "highest")] == pytest.approx([0.15, 0.15, 0.15], abs=1e-6)
    assert "plain" not in moved["series"].to_list() and "Grey band: what other initial weights alone move" in says(
        app.caption
    )


def test_similarity_to_plain_holds_plain_against_its_first_seed(root: Path) -> None:
    app = show(PAGE, view=GAP, whom="plain of the same seed")
    means = means_of(app, "alike")
    assert means.filter(series="plain", layer="layer1")["seeds"].item() == 1
    assert means.filter(series="kd", layer="layer1")["seeds"].item() == 2
    assert "plain of the first seed" in says(app.caption)


def test_chance_and_untrained_students_are_drawn_or_named(root: Path) -> None:
    near = show(PAGE, view=GAP, similarity="Shared neighbours")
    assert "Grey dashes" in says(near.caption) and '"what"' in proto_of(near, "alike").spec
    far = show(PAGE, view=GAP)
    assert "Chance (what unrelated layers give on average) is 0, too far off to be drawn" in says(far.caption)


def test_marks_outside_the_frame_are_clipped() -> None:
    curves = pl.DataFrame(
        [(name, name, f"layer{i}", i / 2, value - 0.01 * i, 0.0) for name, value in (("kd", 0.9), ("grey", 0.1))
         for i in range(3)],
        schema=["series", "network_id", "layer", "relative_depth", "value", "chance"], orient="row",
    ).with_columns(label="series")  # fmt: skip
    spec = charts.depth_curves(curves, {"kd": "#000000"}, "x").to_dict()
    dashed = [layer["mark"] for layer in spec["layer"] if layer["mark"].get("strokeDash")]
    assert dashed and all(mark["clip"] for mark in dashed), "an unclipped line far below presses the chart flat"
    assert similarity.out_of_sight(curves, curves.clear(), {"kd": "#000000"}) == {"chance": 0.0}


def test_similarity_by_depth_does_not_hang_on_the_order_of_rows(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), student_layers=LAYERS[:3]))
    study = open_study(root / "odd")
    scope = catalog.networks(study).filter(pl.col("status") == "trained")
    pairs = tables.to_teacher(study.similarity.filter(measure="cka"), scope)
    told_apart = pl.col("other_layer").str.tail(1).cast(pl.Float32)
    pairs = pairs.with_columns(value=told_apart)
    plain = pairs.filter((pl.col("network_id") == "small-plain-f0.1-s0") & (pl.col("layer") == "layer2"))
    expected = plain.filter(pl.col("other_layer") == "layer2")["value"].to_list()
    for shuffled in (pairs, pairs.reverse(), pairs.sample(fraction=1, shuffle=True, seed=1)):
        curves = tables.matching_depth(shuffled, scope, study.layers)
        found = curves.filter((pl.col("network_id") == "small-plain-f0.1-s0") & (pl.col("layer") == "layer2"))
        assert found["value"].to_list() == expected


def test_pairs_count_from_either_side(root: Path) -> None:
    study = open_study(root / "toy")
    networks = catalog.networks(study)
    pairs = study.similarity
    turned = pairs.rename(
        {"network_id": "other_id", "other_id": "network_id"} | {"layer": "other_layer", "other_layer": "layer"}
    ).select(pairs.columns)
    there, back = tables.to_teacher(pairs, networks), tables.to_teacher(turned, networks)
    assert there.sort(pl.all()).equals(back.sort(pl.all()))
    scope = scope_of(study)
    for which in (similarity.OTHER_START, similarity.OTHER_SEED):
        height = similarity.plain_with_plain(pairs, scope, which).height
        assert height and height == similarity.plain_with_plain(turned, scope, which).height


# ------------------------------------------------------------------------------- neighbours


def test_credit_counts_what_the_table_holds(root: Path) -> None:
    app = show(PAGE, credit="kd", view=GAP, **{"open-kinds": "true"})
    assert not app.error
    study = open_study(root / "toy")
    networks = study.networks.filter(pl.col("method_label") == "kd", pl.col("label_fraction") < 0.5, status="trained")
    rows = study.frame("neighbour_credit", network_id=networks["network_id"].to_list(), layer="layer1", view="gap")
    each = rows.group_by("network_id").agg(same=pl.col("kept_same").mean(), other=pl.col("kept_other").mean())
    shown = next(table.value for table in app.dataframe if "neighbours" in table.value.columns)
    mine = shown[(shown["series"] == "kd") & (shown["layer"] == "layer1") & (shown["credit"] == "kept")]
    assert mine["same"].item() == pytest.approx(each["same"].mean(), rel=1e-5)
    totals = each["same"] + each["other"]
    expected = [totals.mean(), totals.min(), totals.max()]
    assert [mine[name].item() for name in ("neighbours", "lowest", "highest")] == pytest.approx(expected, rel=1e-5)


def test_the_null_is_another_start_or_another_seed_or_said_to_be_missing(root: Path) -> None:
    study = open_study(root / "toy")
    scope = scope_of(study)
    frame, what = credit.of_another_start(study, scope, "gap")
    assert frame["network_id"].n_unique() == 2 and "plain from other initial weights (2 seeds)" in what
    app = show(PAGE, view=GAP)
    diamonds = next(frame for frame in frames_of(app, "credit_chart") if "start" not in frame.columns and
                    frame["series"].eq("plain, second initialisation").all())  # fmt: skip
    kept = frame.filter(layer="layer1").select(pl.col("kept_same") + pl.col("kept_other")).to_series()
    assert diamonds.filter(layer="layer1", credit="kept")["neighbours"].item() == pytest.approx(kept.mean(), rel=1e-5)
    frame, what = credit.of_another_start(study, scope.filter(~pl.col("null")), "projection")
    assert frame["network_id"].unique().to_list() == ["small-plain-f0.1-s1"] and "plain of another seed" in what
    assert credit.by_kind(frame, scope, study.layers)["credit"].n_unique() == len(credit.KINDS)
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), maps=False, controls={}))
    app = show(PAGE, study="odd", view=GAP)
    assert not app.error and "is not stored here" in says(app.caption)


def test_gained_less_lost_is_drawn_for_every_series_in_colour(root: Path) -> None:
    app = show(PAGE, view=GAP)
    means = means_of(app, "net")
    assert set(means["series"]) == {"kd", "rkd"}
    study = open_study(root / "toy")
    kd = [row["network_id"] for row in scope_of(study).filter(series="kd").rows(named=True)]
    rows = study.frame("neighbour_credit", network_id=kd, layer="layer3", view="gap")
    whole = pl.col("gained_same").cast(pl.Float64) + pl.col("gained_other") - pl.col("lost_same") - pl.col("lost_other")
    expected = rows.group_by("network_id").agg(whole.mean().alias("net"))["net"]
    row = means.filter(series="kd", layer="layer3").row(0, named=True)
    ends = [expected.mean(), expected.min(), expected.max()]
    assert [row[name] for name in ("mean", "lowest", "highest")] == pytest.approx(ends, rel=1e-5)


def test_of_many_layers_six_are_picked_first() -> None:
    layers = [f"blocks.{i}" for i in range(16)]
    few = credit.some_of(layers)
    assert len(few) == 6 and few[0] == layers[0] and few[-1] == layers[-1]
    assert credit.some_of(layers[:3]) == layers[:3]


# ------------------------------------------------------------------------------- dark knowledge


def test_dark_knowledge_is_drawn_with_chance_and_its_difference(root: Path) -> None:
    app = show(PAGE, view=GAP)
    study = open_study(root / "toy")
    value = study.frame("layer_measures", network_id="teacher", layer="layer1", view="gap", measure="dark_knowledge")
    means = means_of(app, "dark_chart")
    assert means.filter(series="teacher", layer="layer1")["mean"].item() == pytest.approx(value["value"].item())
    moved = means_of(show(PAGE, view=GAP, dark="difference to plain"), "dark_chart")
    assert "teacher" not in moved["series"].to_list() and "kd" in moved["series"].to_list()


def test_a_study_without_dark_knowledge_says_how_to_make_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = Study.frame

    def without(self: Study, name: str, **equals: Any) -> pl.DataFrame:
        found = frame(self, name, **equals)
        return found.filter(pl.col("measure") != "dark_knowledge") if name == "layer_measures" else found

    monkeypatch.setattr(Study, "frame", without)
    app = show(PAGE)
    assert not app.error and "add `dark_knowledge`" in says(app.info)


# ------------------------------------------------------------------------------- links


def test_a_link_shows_the_same_view_and_a_bogus_one_the_default(root: Path) -> None:
    app = show(PAGE, view=GAP, similarity="Shared neighbours", method="rkd", seed="1", dark="difference to plain")
    assert not app.warning or "diverged" in says(app.warning)
    assert app.selectbox(key="method").value == "rkd" and app.selectbox(key="seed").value == "1"
    assert cells_of(app)["pair"][0] == "rkd with the teacher"
    bogus = {"similarity": "nope", "method": "<b>", "seed": "-1", "second": "?", "whom": "x", "credit": "[a](b)"}
    app = show(PAGE, view=GAP, **bogus)
    assert not app.error and cells_of(app)["pair"][0] == "kd with the teacher"
    assert says(app.caption).count("is not offered here") == len(bogus)


def test_many_methods_are_offered_and_few_are_in_colour(root: Path) -> None:
    write_toy_study(root, MANY)
    app = show(PAGE, study="many")
    assert not app.error and len(app.selectbox(key="method").options) > 30
    assert "Grey: 3" in says(app.caption)


# ------------------------------------------------------------------------------- in a browser


@pytest.mark.browser
def test_a_picked_method_is_drawn_and_stays_in_the_address(visitor: Visitor) -> None:
    page = visitor.open("/Similarity?study=toy&view=channel+means+%28gap%29&method=rkd")
    told = page.locator(FRAME).first.locator("button[aria-label^='Show data']")
    assert "rkd with the teacher" in (told.get_attribute("aria-label") or "")
    page.locator(".st-key-second").get_by_text(similarity.OTHER_SEED, exact=True).click()
    page.wait_for_function("location.search.includes('second=another')")
    page.wait_for_function(
        "document.querySelector('[data-testid=\"stElementToolbar\"] button').ariaLabel.includes('of another seed with')"
    )


@pytest.mark.browser
def test_a_figure_is_saved_as_drawing_and_as_pixels_with_hash_and_link(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.open("/Similarity?study=toy&method=rkd")
    frame = page.locator(FRAME).first
    frame.scroll_into_view_if_needed()
    frame.locator(CHART).hover()
    with page.expect_download() as drawing:
        frame.locator(".kd-svg").click()
    drawing.value.save_as(tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    assert drawing.value.suggested_filename == "kdpipe-toy-Similarity.svg" and text.startswith("<svg")
    assert "kdpipe · study toy · " in text and "/Similarity?method=rkd&amp;study=toy" in text
    with page.expect_download() as pixels:
        frame.locator("button[aria-label^='Download as PNG']").click()
    pixels.value.save_as(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.browser
def test_without_reacts_own_fields_there_is_no_button_for_drawings_and_all_else_works(visitor: Visitor) -> None:
    visitor.page.add_init_script(
        "const keys = Object.keys; Object.keys = (of) => keys(of).filter((key) => !key.startsWith('__reactFiber'));"
    )
    page = visitor.open("/Similarity?study=toy")
    frame = page.locator(FRAME).first
    frame.scroll_into_view_if_needed()
    frame.locator(CHART).hover()
    pixels = frame.locator("button[aria-label^='Download as PNG']")
    pixels.wait_for(timeout=15_000)
    frame.locator(CHART).hover(position={"x": 60, "y": 60})
    assert not page.locator(".kd-svg").count()
    with page.expect_download():
        pixels.click()


@pytest.mark.browser
def test_nothing_runs_off_a_phone(visitor: Visitor) -> None:
    visitor.page.set_viewport_size({"width": 420, "height": 900})
    page = visitor.open("/Similarity?study=toy")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert page.locator(f"{CHART} canvas").first.bounding_box()["width"] <= 420
