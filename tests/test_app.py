"""The pages on a made-up study, and on every way in which its artifacts can be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import altair as alt
import polars as pl
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from synthetic import LAYERS, Recipe, write_toy_study

from kdpipe.schema import TABLES
from kdpipe.store import open_study, sealed
from kdpipe.views import catalog, images, maps, tables, theme

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("Home.py", "pages/1_Embeddings.py", "pages/2_Measures.py")
HOME, EMBEDDINGS, MEASURES = PAGES
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


@pytest.mark.parametrize(("page", "charts"), [(HOME, 2), (EMBEDDINGS, 1), (MEASURES, 5)])
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
    assert "random initialisation alone" in words
    assert "estimates" in says(app.info)
    assert [metric.label for metric in app.metric] == ["Teacher", "Plain", "Control: second-seed", "Distilled: kd"]
    assert "diverged at step 31" in says(app.warning)


def test_home_shows_teacher_two_plain_seeds_and_the_distilled_student(root: Path) -> None:
    spec = json.loads(show(HOME).get("vega_lite_chart")[1].proto.spec)
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
    assert len(strips) == 5 and strips[1].count("<img") == 10
    assert all("data:image/webp;base64," in body for body in strips)


def test_measures_follow_the_link(root: Path) -> None:
    app = show(MEASURES, measure="kNN accuracy", view="channel means (gap)", labels="all labels")
    assert not app.error and "kNN accuracy" in says(app.markdown)
    study = open_study(root / "toy")
    value = study.frame("layer_measures", network_id="teacher", layer="layer1", view="gap", measure="knn_accuracy")
    table = app.dataframe[0].value
    assert table["teacher"][0] == pytest.approx(value["value"][0], abs=5e-4)


@pytest.mark.parametrize("page", PAGES)
def test_bogus_addresses_fall_back_to_the_defaults(root: Path, page: str) -> None:
    bogus = {"study": "../../etc", "networks": ["/etc/passwd"], "layers": ["*"], "projector": "x", "colour": "<b>"}
    bogus |= {"classes": ["99"], "sample": "-1", "measure": "nope", "view": "", "labels": "200%", "heat": "?"}
    app = show(page, **bogus)
    assert not app.error
    assert app.sidebar.selectbox[0].value == "toy"


def test_a_control_changes_what_is_drawn(root: Path) -> None:
    app = show(EMBEDDINGS)
    app.multiselect(key="classes").set_value(["1", "2"]).run()
    assert sorted(chart_rows(app)["class_name"].unique()) == ["1", "2"]
    app.multiselect(key="networks").set_value([]).run()
    assert not app.exception and "at least one network" in says(app.info)


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
        if not recipe.maps and page != MEASURES:
            assert "no maps" in says(app.info) or "no t-SNE maps" in says(app.info)


def test_layers_of_other_architectures_are_matched_by_depth(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), student_layers=LAYERS[:2]))
    spec = json.loads(show(HOME, study="odd").get("vega_lite_chart")[1].proto.spec)
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


# ------------------------------------------------------------------------------- broken artifacts


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
    assert "scripts/precompute.py" in says(app.error) and "bad/study.json" in says(app.error).lower()
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
    assert len(app.error) == 1 and "toy/maps.parquet" in says(app.error).lower()
    assert len(app.metric) == 4 and len(app.get("vega_lite_chart")) == 1
    assert "toy/maps.parquet" in says(show(EMBEDDINGS).error).lower()
    assert not show(MEASURES).error


@pytest.mark.parametrize("table", TABLES)
def test_any_damaged_table_is_named_and_never_ends_in_a_traceback(root: Path, table: str) -> None:
    _bit_flipped(root / "toy" / f"{table}.parquet")
    complaints = [says(show(page, sample="3").error) for page in PAGES]
    if table != "sample_measures":  # no page reads it
        assert any(f"toy/{table}.parquet is damaged" in complaint.lower() for complaint in complaints)
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
