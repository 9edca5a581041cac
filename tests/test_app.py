"""The pages on a made-up study, and on every way in which its artifacts can be broken."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import altair as alt
import polars as pl
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from synthetic import LAYERS, MANY, Recipe, write_toy_study

from kdpipe.schema import TABLES
from kdpipe.store import open_study, sealed
from kdpipe.views import catalog, charts, evidence, focus, gains, images, maps, tables, theme

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "Home.py", "pages/1_Embeddings.py", "pages/2_Measures.py", "pages/3_Inside_layers.py", "pages/4_Evidence.py",
)  # fmt: skip
HOME, EMBEDDINGS, MEASURES, INSIDE, EVIDENCE = PAGES
Open = Callable[..., AppTest]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    write_toy_study(root, Recipe(samples=60, seeds=(0, 1)))
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may break."""
    copy = tmp_path / "artifacts"
    shutil.copytree(pristine, copy)
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(copy))
    return copy


@pytest.fixture(autouse=True)
def _fresh_cache() -> Iterator[None]:
    yield
    st.cache_resource.clear()
    st.cache_data.clear()


def show(page: str, **query: str | list[str]) -> AppTest:
    """Run a page as a visitor with this address would, and insist that no traceback shows."""
    app = AppTest.from_file(str(ROOT / page), default_timeout=30)
    app.query_params.update(query)
    app.run()
    assert not app.exception, [element.message for element in app.exception]
    return app


def says(elements: object) -> str:
    return " ".join(element.value for element in elements)  # type: ignore[attr-defined]


def chart_rows(app: AppTest, index: int = 0) -> pl.DataFrame:
    proto = app.get("vega_lite_chart")[index].proto
    data = proto.data.data if proto.HasField("data") else proto.datasets[0].data.data
    return pl.read_ipc_stream(data)


def titles(app: AppTest) -> list[str]:
    return [header.value for header in app.header]


# ------------------------------------------------------------------------------- all is well


@pytest.mark.parametrize(("page", "charts"), [(HOME, 3), (EMBEDDINGS, 1), (MEASURES, 5)])
def test_a_page_draws_its_charts_and_complains_of_nothing(root: Path, page: str, charts: int) -> None:
    app = show(page)
    assert not app.error
    assert len(app.get("vega_lite_chart")) == charts
    assert "Probe images are drawn from the test set." in says(app.caption)


def test_every_chart_has_words_for_those_who_cannot_see_it(root: Path) -> None:
    for page in PAGES:
        for chart in show(page).get("vega_lite_chart"):
            assert len(chart.proto.alt) > 15


def test_home_tells_what_the_study_is_and_judges_nothing_on_two_seeds(root: Path) -> None:
    app = show(HOME)
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
    assert "estimates" in says(app.info)
    assert [metric.label for metric in app.metric] == ["Teacher", "Plain", "Control", "Distilled: kd"]
    assert "diverged at step 31" in says(app.warning)


def test_home_shows_teacher_two_plain_seeds_and_the_distilled_student(root: Path) -> None:
    spec = json.loads(show(HOME).get("vega_lite_chart")[2].proto.spec)
    names = [row["title"]["text"] for row in spec["vconcat"]]
    assert names == [
        "teacher",
        "plain, 10% of labels, seed 0",
        "plain, 10% of labels, seed 1",
        "kd, 10% of labels, seed 0",
    ]
    for row in spec["vconcat"]:
        assert [cell["title"]["text"] for cell in row["hconcat"]] == list(LAYERS)
        assert all(cell["title"]["subtitle"][0].startswith("trustworthiness 0.") for cell in row["hconcat"])


def test_accuracies_are_those_of_the_table(root: Path) -> None:
    study = open_study(root / "toy")
    kd = study.networks.filter((pl.col("method_label") == "kd") & (pl.col("label_fraction") < 0.5))
    shown = {metric.label: metric.value for metric in show(HOME).metric}
    assert shown["Distilled: kd"] == f"{kd['test_accuracy'].mean():.1%}"


# ------------------------------------------------------------------------------- deep links


def test_a_link_restores_networks_layers_projector_and_classes(root: Path) -> None:
    app = show(
        EMBEDDINGS, study="toy", networks=["teacher"], layers=["layer2", "layer4"], projector="PCA", classes=["3"]
    )
    spec = json.loads(app.get("vega_lite_chart")[0].proto.spec)
    assert [cell["title"]["text"] for cell in spec["vconcat"][0]["hconcat"]] == ["layer2", "layer4"]
    rows = chart_rows(app)
    assert rows["class_name"].unique().to_list() == ["3"]
    pca = open_study(root / "toy").frame("maps", network_id="teacher", layer="layer4", projector="pca")
    assert set(rows["x_1"]) <= set(pca["x"])


@pytest.mark.parametrize(("colour", "values"), [("prediction", 10), ("correctness", 2)])
def test_colour_by_what_a_network_said(root: Path, colour: str, values: int) -> None:
    app = show(EMBEDDINGS, colour=colour)
    cell = json.loads(app.get("vega_lite_chart")[0].proto.spec)["vconcat"][1]["hconcat"][0]
    channel = cell["layer"][0]["encoding"]["color"]
    assert len(channel["scale"]["domain"]) == values
    rows = chart_rows(app)
    told = open_study(root / "toy").frame("predictions", network_id="small-plain-f0.1-s0").sort("sample_id")
    if colour == "correctness":
        assert rows.sort("sample_id")[channel["field"]].eq("right").to_list() == told["correct"].to_list()
    else:
        assert rows.sort("sample_id")[channel["field"]].cast(pl.Int32).to_list() == told["predicted"].to_list()


def test_a_chosen_image_brings_its_neighbours_in_the_original_space(root: Path) -> None:
    app = show(EMBEDDINGS, sample="7")
    assert "predicts" in says(app.markdown) and "original space" in says(app.caption)
    strips = [element.proto.body for element in app.get("html") if "kd-strip" in element.proto.body]
    strips = [body for body in strips if "<figure" in body]
    heats = [body for body in strips if "kd-cells" in body]
    strips = [body for body in strips if "kd-cells" not in body]
    assert len(heats) == 1 and heats[0].count("<img") == heats[0].count("kd-cells") == 4 and "cosine 0." in heats[0]
    assert len(strips) == 5 and strips[1].count("<img") == 10
    assert all("data:image/webp;base64," in body for body in strips)


def test_measures_follow_the_link(root: Path) -> None:
    app = show(MEASURES, measure="kNN accuracy", view="channel means (gap)", labels="all labels")
    assert not app.error and "kNN accuracy" in says(app.markdown)
    study = open_study(root / "toy")
    value = study.frame("layer_measures", network_id="teacher", layer="layer1", view="gap", measure="knn_accuracy")
    table = app.dataframe[0].value
    assert table["teacher"][0] == pytest.approx(value["value"][0], abs=5e-4)


def test_measures_draw_what_chance_and_no_training_give(root: Path) -> None:
    app = show(MEASURES, measure="Silhouette")
    spec = app.get("vega_lite_chart")[0].proto.spec
    assert '"text": {"field": "label"' in spec and "strokeDash" in spec
    assert "raw pixels" in says(app.caption)
    far = pl.DataFrame({"value": [0.1, 0.2], "chance": [9.0, 9.0]})
    near = pl.DataFrame({"series": ["raw pixels", "untrained"], "value": [0.15, -5.0]})
    assert charts.far_off(far, near) == {"chance": 9.0, "untrained": -5.0}
    assert charts.far_off(far.with_columns(chance=pl.lit(0.05))) == {}


def test_measures_show_answers_beside_plain_and_teacher(root: Path) -> None:
    app = show(MEASURES, beside="teacher")
    tables = [table.value for table in app.dataframe]
    assert any({"fixed", "broken", "churn"} <= set(table.columns) for table in tables)
    assert any({"ece", "prediction_depth"} <= set(table.columns) for table in tables)


def test_inside_layers_counts_what_the_table_holds(root: Path) -> None:
    app = show(INSIDE, credit="kd", view="channel means (gap)")
    assert not app.error
    study = open_study(root / "toy")
    networks = study.networks.filter(pl.col("method_label") == "kd", pl.col("label_fraction") < 0.5, status="trained")
    credit = study.frame("neighbour_credit", network_id=networks["network_id"].to_list(), layer="layer1", view="gap")
    expected = credit.group_by("network_id").agg(pl.col("kept_same").mean())["kept_same"].mean()
    shown = next(table.value for table in app.dataframe if "neighbours" in table.value.columns)
    mine = shown[(shown["series"] == "kd") & (shown["layer"] == "layer1") & (shown["credit"] == "kept")]
    assert mine[mine["of"] == "same class"]["neighbours"].item() == pytest.approx(expected, rel=1e-5)


def test_a_study_with_a_verdict_is_shown_first(root: Path) -> None:
    write_toy_study(root, Recipe(name="zz", samples=40, seeds=tuple(range(8)), fractions=(0.1,), maps=False))
    app = show(HOME)
    assert app.sidebar.selectbox[0].value == "zz"
    assert "8 in all" not in says(app.caption) and "8 seeds" in says(app.text)


def test_verdicts_are_those_of_the_artifacts(root: Path) -> None:
    study = open_study(root / "toy")
    app = show(EVIDENCE)
    shown = app.dataframe[0].value
    for row in study.verdicts.filter(claim="earlier").iter_rows(named=True):
        name = f"{row['method_label']}, {catalog.budget(row['label_fraction'])}"
        assert shown[shown["comparison"] == name]["earlier"].item() == row["title"]
    assert evidence.primary(study)["sentence"] in says(app.text)
    assert "more seeds: 8 in all" in says(app.caption)


@pytest.mark.parametrize("endpoint", list(evidence.ENDPOINTS))
def test_what_an_effect_outlasts_is_drawn_from_the_comparisons(root: Path, endpoint: str) -> None:
    comparisons = open_study(root / "toy").comparisons
    app = show(EVIDENCE, cell="rkd, all labels", endpoint=evidence.ENDPOINTS[endpoint])
    frames = [pl.read_ipc_stream(dataset.data.data) for dataset in app.get("vega_lite_chart")[0].proto.datasets]
    rows = next(frame for frame in frames if "estimate" in frame.columns)
    mine = comparisons.filter(method_label="rkd", label_fraction=1.0, measure=endpoint, quantity="early_abc")
    expected = dict(mine.select("against", "estimate").iter_rows())
    assert dict(rows.select("against", "estimate").iter_rows()) == pytest.approx(expected, rel=1e-5)


def test_a_study_of_two_layers_has_no_early_area_and_says_so(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), student_layers=LAYERS[:2]))
    app = show(EVIDENCE, study="odd")
    assert not app.error and "that takes three layers" in says(app.info)


@pytest.mark.parametrize("page", PAGES)
def test_bogus_addresses_fall_back_to_the_defaults(root: Path, page: str) -> None:
    bogus = {"study": "../../etc", "networks": ["/etc/passwd"], "layers": ["*"], "projector": "x", "colour": "<b>"}
    bogus |= {"classes": ["99"], "sample": "-1", "measure": "nope", "view": "", "labels": "200%", "heat": "?"}
    app = show(page, **bogus)
    assert not app.error
    assert app.sidebar.selectbox[0].value == "toy"
    assert says(app.warning).count("There is no study called “....etc”: this is “toy”.") == 1


def test_a_control_changes_what_is_drawn(root: Path) -> None:
    app = show(EMBEDDINGS)
    app.multiselect(key="classes").set_value(["1", "2"]).run()
    assert sorted(chart_rows(app)["class_name"].unique()) == ["1", "2"]
    app.multiselect(key="networks").set_value([]).run()
    assert not app.exception and "at least one network" in says(app.info)


@pytest.mark.parametrize("fade", list(maps.FADES))
def test_what_makes_a_dot_faint_can_be_picked(root: Path, fade: str) -> None:
    app = show(EMBEDDINGS, faint=maps.FADES[fade][0])
    spec = json.loads(app.get("vega_lite_chart")[0].proto.spec)
    opacity = spec["vconcat"][0]["hconcat"][0]["layer"][0]["encoding"]["opacity"]
    assert opacity["field"] == f"{fade}_0"
    values = chart_rows(app)[opacity["field"]]
    assert values.null_count() == 0 and values.max() <= 1


# ------------------------------------------------------------------------------- other studies


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(name="odd", samples=40, seeds=(0,), fractions=(1.0,), methods=("kd",)),
        Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), student_layers=LAYERS[:2]),
        Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), maps=False, note=""),
        Recipe(name="odd", samples=100, classes=100, seeds=(0,), fractions=(0.1,)),
    ],
    ids=["one seed", "fewer layers than the teacher", "no maps", "a hundred classes"],
)
def test_studies_of_other_shapes(root: Path, recipe: Recipe) -> None:
    write_toy_study(root, recipe)
    for page in PAGES:
        app = show(page, study="odd")
        assert not app.error
        if not recipe.maps and page in (HOME, EMBEDDINGS):
            assert "no maps" in says(app.info) or "no t-SNE maps" in says(app.info)


def test_home_draws_what_maps_there_are(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), projectors=("pca",)))
    app = show(HOME, study="odd")
    assert not app.error and "drawn by PCA" in says(app.markdown) and "t-SNE" not in says(app.markdown)
    assert "PCA maps of each layer" in app.get("vega_lite_chart")[2].proto.alt


def test_layers_of_other_architectures_are_matched_by_depth(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), student_layers=LAYERS[:2]))
    spec = json.loads(show(HOME, study="odd").get("vega_lite_chart")[2].proto.spec)
    assert [cell["title"]["text"] for cell in spec["vconcat"][0]["hconcat"]] == ["layer1", "layer4"]


def test_of_a_hundred_classes_only_the_chosen_are_coloured(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=100, classes=100, seeds=(0,), fractions=(0.1,)))
    rows = chart_rows(show(EMBEDDINGS, study="odd", classes=["class 3", "class 5"]))
    assert rows.height == 100
    assert set(rows["colour"]) == {"class 3", "class 5", theme.OTHER}


def test_a_folder_that_was_run_again_is_read_again(root: Path) -> None:
    assert show(HOME).metric[0].value == "97.0%"
    write_toy_study(root, Recipe(samples=40, seeds=(0,), fractions=(0.5,)))
    assert "50% of labels" in says(show(HOME).markdown)


@pytest.mark.parametrize("views", [("gap",), ("gap", "projection")])
def test_maps_of_another_view_are_drawn_with_that_views_neighbours(root: Path, views: tuple[str, ...]) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), views=views, map_view="gap"))
    app = show(HOME, study="odd")
    assert not app.error and len(app.get("vega_lite_chart")) == 3
    assert "channel means (gap)" in says(app.caption)
    app = show(EMBEDDINGS, study="odd", sample="7", networks=["teacher"])
    assert not app.error and says(app.caption).count("channel means (gap)") == 2
    strips = [element.proto.body for element in app.get("html") if "<figure" in element.proto.body]
    strips = [body for body in strips if "kd-cells" not in body]
    study = open_study(root / "odd")
    near = study.frame("neighbours", network_id="teacher", layer="layer4", view="gap", sample_id=7)["ids"][0].head(10)
    names = dict(study.samples.select("sample_id", "class_name").rows())
    assert re.findall(r'alt="([^"]*)"', strips[1]) == [names[sample] for sample in near]


def test_a_study_without_a_trained_student_says_so_once(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), all_diverged=True))
    for page in PAGES:
        app = show(page, study="odd")
        assert not app.error
        if page != EMBEDDINGS:
            assert says(app.warning).count("No student was trained to the end") == len(app.warning) == 1
            assert "kd, 10% of labels, seed 1 diverged at step 31" in says(app.text)
        everything = says([*app.markdown, *app.caption, *app.info])
        assert "0 seed" not in everything and "plain rows" not in everything and "second plain row" not in everything
    assert [metric.label for metric in show(HOME, study="odd").metric] == ["Teacher"]


def test_several_divergences_are_one_message(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy_study(
        root, Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), lost=(("plain", 1), ("rkd", 0)))
    )
    app = show(HOME, study="odd")
    assert [warning.value for warning in app.warning] == [
        "3 networks were not trained to the end and are left out of every mean."
    ]
    assert says(app.text).count("diverged at step 31") == 3


def test_a_budget_without_a_trained_student_still_shows_the_teacher(root: Path) -> None:
    lost = tuple((label, 0) for label in ("plain", "second-seed", "kd", "rkd"))
    recipe = Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1, 1.0), lost=lost, diverged=False)
    write_toy_study(root, recipe)
    app = show(MEASURES, study="odd", labels="10% of labels")
    assert not app.error and "on this label budget" in says(app.info)


def test_percentages_on_axes_are_rounded() -> None:
    rows = {"series": ["plain"], "role": ["plain"], "budget": ["all labels"], "label_fraction": [1.0], "seed": [0]}
    frame = pl.DataFrame({**rows, "label": ["plain"], "test_accuracy": [0.71666664]})
    chart = json.dumps(charts.accuracy_dots(frame, {"plain": "#000000"}).to_dict())
    assert '"format": ".1~%"' in chart and '"format": "%"' not in chart


def test_stages_that_failed_are_named_on_home(root: Path) -> None:
    missing = {"map ivis teacher/layer1": "ivis maps need tensorflow", "train small-kd": "out of memory"}
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), diverged=False, missing=missing))
    app = show(HOME, study="odd")
    assert len(app.warning) == 1 and "2 stages of this study failed" in says(app.warning)
    assert "train small-kd: out of memory" in says(app.text)
    assert "out of memory" not in says(show(HOME, study="toy").text)


# ------------------------------------------------------------------------------- many methods


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crowd")
    write_toy_study(root, MANY)
    write_toy_study(root, Recipe(samples=20, seeds=(0,), fractions=(0.1,), diverged=False))
    return root


@pytest.fixture
def many(crowd: Path, monkeypatch: pytest.MonkeyPatch) -> catalog.Study:
    """The study of many methods, and the app pointed at it."""
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(crowd))
    return open_study(crowd / "many")


BASE = ["teacher", "plain", "plain, second initialisation"]


def test_networks_are_called_by_what_they_are(many: catalog.Study) -> None:
    networks = catalog.networks(many)
    assert networks["label"].is_unique().all()
    assert networks.filter(pl.col("series") == "plain").height == len(MANY.seeds)
    assert networks.filter(pl.col("series") == "teacher")["network_id"].to_list() == ["teacher"]
    named = dict(networks.select("network_id", "label").rows())
    assert named["teacher-untrained"] == "untrained teacher"
    assert named["teacher-l0.1-s1"] == "teacher on 10% of labels, seed 1"
    assert named["small-plain-f0.1-s0-at20"] == "plain at step 20, 10% of labels, seed 0"
    assert named["small-random-teacher-f0.1-s0"] == "KD from an untrained teacher, 10% of labels, seed 0"
    series = set(networks.filter(pl.col("role") == "control")["series"])
    assert {"FitNet hints (own-budget-teacher)", "plain student (slow)", *BASE[2:]} <= series
    assert networks.filter("null")["series"].unique().to_list() == BASE[2:]


def test_titles_keep_their_capitals_inside_a_sentence() -> None:
    titles = ["Label smoothing", "Self-distillation", "KD from another image", "FitNet hints", "DIST"]
    expected = ["label smoothing", "self-distillation", "KD from another image", "FitNet hints", "DIST"]
    assert [catalog.in_sentence(title) for title in titles] == expected


def test_home_counts_neither_other_teachers_nor_checkpoints_as_students(many: catalog.Study) -> None:
    app = show(HOME, study="many")
    assert not app.error
    assert [metric.label for metric in app.metric] == ["Teacher", "Plain", "Control", "Distilled: kd"]
    plain = many.networks.filter(pl.col("role") == "plain")
    assert app.metric[1].value == f"{plain['test_accuracy'].mean():.1%}"
    words = says(app.markdown)
    assert (
        "Student: **resnet10t (1.2 M parameters)**, plain and distilled with **30 methods**, on 10% of labels" in words
    )
    assert "Beside these: 4 other controls, 4 other teachers, 6 students on their way and 1 untrained student." in words
    assert words.count("points on average") <= 4 and "the highest mean of 30 methods" in words
    assert words.count("KD from an untrained teacher") == 0, "only the second start tells what chance moves"


def test_home_sorts_gains_beside_the_range_of_the_control(many: catalog.Study) -> None:
    app = show(HOME, study="many")
    table = next(table.value for table in app.dataframe if "mean gain" in table.value.columns)
    assert len(table) == 30 + len(MANY.controls)
    assert table["mean gain"].is_monotonic_decreasing and table["control's range"].nunique() == 1
    spec = json.loads(app.get("vega_lite_chart")[1].proto.spec)
    rows = [layer["encoding"]["y"] for layer in spec["layer"] if "y" in layer["encoding"]]
    assert rows and all(row["sort"] == table["method"].to_list() for row in rows)
    assert rows[0]["axis"]["labelOverlap"] is False and spec["height"] > 20 * len(table)
    assert "An arrow with a number" in says(app.caption)
    legend = json.loads(app.get("vega_lite_chart")[0].proto.spec)["layer"][1]["encoding"]["color"]["scale"]["domain"]
    assert legend == [*BASE, "kd"] and "The 33 other methods and controls are below" in says(app.caption)


def test_what_is_missing_is_named_with_how_to_make_it(many: catalog.Study) -> None:
    for page in (HOME, EMBEDDINGS):
        said = says(show(page, study="many").info)
        assert said.count("This study has no maps") == 1 and "scripts/precompute.py" in said
        assert '`projectors = ["tsne"]` and `view = "gap"`' in said, "maps need a view that is stored"
    app = show(MEASURES, study="many", view="whole map (projection)")
    assert not app.error and "add `projection` to `views`" in says(app.caption)
    assert "add `projection`" not in says(show(MEASURES, study="toy").caption)


def test_measures_colour_the_headline_and_leave_the_others_grey(many: catalog.Study) -> None:
    app = show(MEASURES, study="many")
    assert not app.error
    assert "Student" not in [box.label for box in app.selectbox], "a teacher is no student to choose"
    assert app.multiselect(key="methods").value == ["kd"]
    assert app.dataframe[0].value.columns.to_list() == ["layer", "depth", *BASE, "kd"]
    assert "109 networks, 3 seeds" in says(app.caption) and "Grey: 33 other methods" in says(app.caption)
    for chart in app.get("vega_lite_chart"):
        domains = re.findall(r'"scale": \{"domain": (\[[^]]*\]), "range"', chart.proto.spec)
        assert all(set(json.loads(domain)) <= {*BASE, "kd"} for domain in domains)


def test_a_link_chooses_what_is_in_colour(many: catalog.Study) -> None:
    chosen = ["fitnet", "teacher on 10% of labels", "plain at step 20"]
    app = show(MEASURES, study="many", methods=chosen, others="false")
    assert not app.error
    assert set(app.dataframe[0].value.columns) == {"layer", "depth", *BASE, *chosen}
    assert "16 networks, 3 seeds" in says(app.caption) and "Grey: " not in says(app.caption)
    app.multiselect(key="methods").set_value([]).run()
    assert not app.exception and app.dataframe[0].value.columns.to_list() == ["layer", "depth", *BASE]
    app.sidebar.selectbox[0].set_value("toy").run()
    assert not app.exception and not app.error and "kd" in app.dataframe[0].value.columns


def test_a_link_with_too_many_or_unknown_methods_still_opens(many: catalog.Study) -> None:
    for methods in ([f"method-{i}" for i in range(20)], ["nope"]):
        app = show(MEASURES, study="many", methods=methods)
        assert not app.error and len(app.multiselect(key="methods").value) <= theme.COLOURED_METHODS


def test_few_methods_are_all_in_colour_with_nothing_to_choose(root: Path) -> None:
    app = show(MEASURES)
    assert not app.multiselect and "Grey: " not in says(app.caption)
    networks = catalog.networks(open_study(root / "toy"))
    assert list(focus.colours(open_study(root / "toy"), networks)) == [*BASE, "kd", "rkd"]


def test_no_two_series_in_colour_look_alike(many: catalog.Study) -> None:
    networks = catalog.networks(many)
    chosen = ["method-3", "plain student (slow)", "kd", "untrained teacher", "method-9", "plain at step 100"]
    colours = focus.colours(many, networks, chosen)
    assert list(colours) == [*BASE, *chosen] and len(set(colours.values())) == len(colours)
    assert theme.GREY not in colours.values()
    assert (
        focus.colours(many, networks, ["method-3", "kd"])["kd"] == colours["kd"] == focus.colours(many, networks)["kd"]
    )


def test_a_headline_may_be_a_control(many: catalog.Study) -> None:
    record = {**many.record, "headline": {**many.record["headline"], "method_label": "plain-slow"}}
    study = catalog.Study(many.folder, record)
    headline = catalog.headline(study, catalog.networks(study))
    assert headline["series"].unique(maintain_order=True).to_list() == [*BASE, "plain student (slow)"]


def test_gains_far_below_the_others_do_not_press_them_together() -> None:
    frame = {"null": False, "series": "x", "role": "distilled", "pairs": 3}
    near = [{**frame, "gain": gain, "lowest": gain - 0.5, "highest": gain + 0.5} for gain in (5.0, 4.0, 2.0, 1.0)]
    far = {**frame, "gain": -60.0, "lowest": -61.0, "highest": -59.0}
    assert charts.left_edge(pl.DataFrame(near)) is None
    edge = charts.left_edge(pl.DataFrame([*near, far]))
    assert edge is not None and -5 < edge <= 0


# ------------------------------------------------------------------------------- paired gains


def _accuracies(*rows: tuple[str, int, float | None]) -> pl.DataFrame:
    roles = {"teacher": "teacher", "plain": "plain", "second": "control"}
    return pl.DataFrame(
        [
            {"rank": 0, "role": roles.get(name, "distilled"), "student": "small", "series": name, "seed": seed}
            | {"null": name == "second", "label_fraction": 0.1, "budget": "10% of labels", "test_accuracy": accuracy}
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
    assert "from -5.0 to +5.0 over 2 seeds" in words and "a gain inside that range tells nothing" in words


def test_home_shows_the_paired_gain_of_each_method_and_of_the_control(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1, 2), fractions=(0.1,), lost=(("plain", 1),)))
    app = show(HOME, study="odd")
    accuracy = {
        (row["method_label"], row["seed"]): row["test_accuracy"]
        for row in open_study(root / "odd").networks.rows(named=True)
    }
    for label, tile in (("kd", "Distilled: kd"), ("second-seed", "Control")):
        mean = sum(100 * (accuracy[label, seed] - accuracy["plain", seed]) for seed in (0, 2)) / 2
        assert {metric.label: metric.delta for metric in app.metric}[tile] == f"{mean:+.1f} vs plain"
    words = says(app.markdown)
    assert "**kd**" in words and "**rkd**" in words and "**plain, second initialisation**" in words
    assert "control's is no gain" not in says(app.caption)
    assert "With 2 paired seeds these are estimates" in says(app.info)
    shown = next(table.value for table in app.dataframe if "mean gain" in table.value.columns)
    assert list(shown["method"]) == ["kd", "rkd", "plain, second initialisation"]


# ------------------------------------------------------------------------------- words


def test_words_about_seeds_and_the_control(root: Path) -> None:
    home, embeddings, measures = (show(page) for page in (HOME, EMBEDDINGS, MEASURES))
    for words in (says(home.markdown), says(embeddings.markdown)):
        assert "random initialisation alone" not in words and "random \ninitialisation" not in words
        assert "initial weights" in words and "batches" in words and "labelled" in words
    assert says(home.markdown).count("other initial weights") == 1
    assert "compare the two plain rows" in says(home.markdown)
    assert "Teacher: all labels, one network." in says(home.caption)
    assert "arrange the images alike at the same depth" in says(measures.caption)
    assert "rises sooner" not in says(measures.markdown)
    assert "each method at its first seed" not in embeddings.multiselect(key="networks").help.lower()
    assert "plain, second initialisation" in measures.dataframe[0].value.columns


def test_home_compares_with_no_plain_row_that_is_not_there(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,)))
    words = says(show(HOME, study="odd").markdown)
    assert "two plain rows" not in words and "no second plain row" in words


def test_the_heat_map_opens_with_the_headline(root: Path) -> None:
    assert show(MEASURES).selectbox(key="heat").value == "kd, 10% of labels, seed 0"


# ------------------------------------------------------------------------------- broken artifacts


@pytest.mark.parametrize("page", PAGES)
def test_unreadable_networks_are_said_once(root: Path, page: str) -> None:
    _missing(root / "toy" / "networks.parquet")
    app = show(page)
    assert [error.value.split(":")[0] for error in app.error] == ["toy/networks.parquet is missing"]


def test_an_unreadable_table_of_methods_costs_only_their_names(root: Path) -> None:
    _missing(root / "toy" / "methods.parquet")
    assert len(show(HOME).error) == 1 and not show(MEASURES).error


@pytest.mark.parametrize("page", PAGES)
def test_no_artifacts_at_all(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        monkeypatch.setenv("KDPIPE_ARTIFACTS", str(root))
        assert "scripts/precompute.py" in says(show(page).info)


def _other_schema(folder: Path) -> None:
    record = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**record, "schema_version": 0}))


def _no_study_file(folder: Path) -> None:
    (folder / "study.json").unlink()


def _torn_study_file(folder: Path) -> None:
    (folder / "study.json").write_text('{"schema_version": 1, "name"')


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("harm", [_other_schema, _no_study_file, _torn_study_file])
def test_an_unreadable_study_leaves_the_others_in_reach(root: Path, page: str, harm: Callable[[Path], None]) -> None:
    shutil.copytree(root / "toy", root / "bad")
    harm(root / "bad")
    app = show(page, study="bad")
    assert "scripts/precompute.py" in says(app.error) and "bad/study.json" in says(app.error)
    app.sidebar.selectbox[0].set_value("toy").run()
    assert not app.exception and not app.error
    assert show(page).sidebar.selectbox[0].value == "toy", "the first study that opens is the default"


def _missing(path: Path) -> None:
    path.unlink()


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _bit_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [_missing, _truncated, _bit_flipped])
def test_damaged_maps_leave_all_else_standing(root: Path, harm: Callable[[Path], None]) -> None:
    harm(root / "toy" / "maps.parquet")
    app = show(HOME)
    assert len(app.error) == 1 and "toy/maps.parquet" in says(app.error)
    assert len(app.metric) == 4 and len(app.get("vega_lite_chart")) == 2
    assert "toy/maps.parquet" in says(show(EMBEDDINGS).error)
    assert not show(MEASURES).error


@pytest.mark.parametrize("table", TABLES)
def test_any_damaged_table_is_named_and_never_ends_in_a_traceback(root: Path, table: str) -> None:
    _bit_flipped(root / "toy" / f"{table}.parquet")
    complaints = [says(show(page, sample="3").error) for page in PAGES]
    if table not in ("sample_measures", "sample_flips"):  # no page reads them
        assert any(f"toy/{table}.parquet is damaged" in complaint for complaint in complaints)
    assert any("something unexpected" in complaint for complaint in complaints) is False


def test_a_file_that_breaks_while_the_app_runs_is_noticed(root: Path) -> None:
    assert not show(HOME).error
    _bit_flipped(root / "toy" / "networks.parquet")
    assert "networks.parquet is damaged" in says(show(HOME).error)


def test_a_record_without_its_optional_parts_still_shows(root: Path) -> None:
    path = root / "toy" / "study.json"
    record = json.loads(path.read_text())
    for key in ("headline", "description", "versions"):
        record.pop(key)
    path.write_text(json.dumps(sealed(record)))
    (root / "toy" / "timings.json").unlink()
    for page in PAGES:
        assert not show(page).error


# ------------------------------------------------------------------------------- the parts


def test_depths_are_matched_as_the_pipeline_matches_them() -> None:
    anatomy = pytest.importorskip("kdpipe.anatomy")
    for count, others in itertools.product(range(1, 13), repeat=2):
        student, teacher = ([SimpleNamespace(order=i) for i in range(n)] for n in (count, others))
        ours = [catalog.nearest_place(place, count, others) for place in range(count)]
        assert ours == anatomy.pair_by_depth(student, teacher)
    assert [catalog.nearest_place(place, 3, 4) for place in range(3)] == [0, 1, 3], "the earlier of two as near"


def test_similarity_by_depth_does_not_hang_on_the_order_of_rows(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), student_layers=LAYERS[:3]))
    study = open_study(root / "odd")
    scope = catalog.networks(study).filter(pl.col("status") == "trained")
    pairs = tables.to_teacher(study.similarity, scope)
    told_apart = pl.col("other_layer").str.tail(1).cast(pl.Float32)
    pairs = pairs.with_columns(value=told_apart)
    plain = pairs.filter((pl.col("network_id") == "small-plain-f0.1-s0") & (pl.col("layer") == "layer2"))
    expected = plain.filter(pl.col("other_layer") == "layer2")["value"].to_list()
    for shuffled in (pairs, pairs.reverse(), pairs.sample(fraction=1, shuffle=True, seed=1)):
        curves = tables.matching_depth(shuffled, scope, study.layers)
        found = curves.filter((pl.col("network_id") == "small-plain-f0.1-s0") & (pl.col("layer") == "layer2"))
        assert found["value"].to_list() == expected


def test_panels_of_a_tie_show_the_earlier_layer(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), student_layers=LAYERS[:3]))
    spec = json.loads(show(HOME, study="odd").get("vega_lite_chart")[2].proto.spec)
    assert [cell["title"]["text"] for cell in spec["vconcat"][0]["hconcat"]] == ["layer1", "layer2", "layer4"]


def test_pictures_and_legends_fit_a_small_window(root: Path) -> None:
    cells = json.loads(show(HOME).get("vega_lite_chart")[2].proto.spec)["vconcat"][0]["hconcat"]
    assert sum(cell["width"] for cell in cells) + maps._GAP * (len(cells) - 1) <= 800
    assert charts.legend_columns(["plain, second initialisation"] * 5, 780) == 3
    assert charts.legend_columns(["teacher", "plain", "plain, second initialisation", "kd", "rkd"], 780) == 5
    assert charts.legend_columns(["a class with a name that is very long indeed"], 100) == 1


def test_the_hand_made_specification_is_valid_vega_lite(root: Path) -> None:
    app = show(EMBEDDINGS, sample="7")
    spec = json.loads(app.get("vega_lite_chart")[0].proto.spec)
    study = open_study(root / "toy")
    assert spec["params"][0]["value"] == [{"sample_id": 7}]
    alt.Chart.from_dict({**spec, "data": {"values": study.samples.drop("image").to_dicts()}}, validate=True)


def test_only_webp_bytes_become_an_image_and_captions_stay_text() -> None:
    assert images.data_uri(b"<svg onload=alert(1)>") == images.data_uri(b"")
    assert "<img src=x" not in images.strip([(b"", '"><img src=x onerror=alert(1)>', theme.GREY)])


def test_class_colours_are_ten_or_the_chosen_few() -> None:
    assert len(set(theme.class_colours([str(i) for i in range(10)]).values())) == 10
    assert theme.class_colours([str(i) for i in range(100)], ["7"]) == {"7": theme.PETROFF[0], theme.OTHER: theme.GREY}


def test_network_labels_are_unique(root: Path) -> None:
    assert catalog.networks(open_study(root / "toy"))["label"].is_unique().all()


def test_pairs_count_from_either_side(root: Path) -> None:
    study = open_study(root / "toy")
    networks = catalog.networks(study)
    pairs = study.similarity
    turned = pairs.rename(
        {"network_id": "other_id", "other_id": "network_id"} | {"layer": "other_layer", "other_layer": "layer"}
    )
    there, back = tables.to_teacher(pairs, networks), tables.to_teacher(turned.select(pairs.columns), networks)
    assert there.sort(pl.all()).equals(back.sort(pl.all()))


def test_panels_of_one_column_share_a_square_frame() -> None:
    table = pl.DataFrame({"x_0": [0.0, 1.0], "y_0": [0.0, 4.0], "x_1": [-9.0, 1.0], "y_1": [0.0, 1.0]})
    across, up = maps._square(table, [0, 1])
    assert across["domain"][1] - across["domain"][0] == pytest.approx(up["domain"][1] - up["domain"][0])
    assert across["domain"][0] < -9 and across["domain"][1] > 1
