"""The pages on a made-up study, and on every way in which its artifacts can be broken."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import streamlit as st
from app_pages import ROOT, says, show
from streamlit.testing.v1 import AppTest
from synthetic import LAYERS, MANY, Recipe, write_toy_study

from kdpipe.app.shared import catalog, charts, focus
from kdpipe.app.shell import images, theme
from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import Study, open_study, sealed
from kdpipe.errors import DamagedArtifactError
from kdpipe.relative_depth import nearest_place

PAGES = ("Home.py", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "pages").glob("*.py")))
HOME, LAYERS_PAGE, MEASURES = "Home.py", "pages/1_Layers.py", "pages/3_Measures.py"
EXPLORE = "pages/2_Explore.py"
FORGIVEN = ("methods",)  # names alone come from it
# Read by no page of this study as it opens: numbers behind a verdict, and a null for studies without a second seed.
UNREAD = ("findings", "seed_credit")


def titles(app: AppTest) -> list[str]:
    return [header.value for header in app.header]


# ------------------------------------------------------------------------------- all is well


@pytest.mark.parametrize("page", PAGES)
def test_a_page_draws_something_with_words_and_complains_of_nothing(root: Path, page: str) -> None:
    app = show(page, study="toy")
    assert not app.error
    charts = app.get("vega_lite_chart")
    assert charts and all(len(chart.proto.alt) > 15 for chart in charts)
    said = says([*app.caption, *app.markdown, *app.text])
    assert "Probe images are drawn from the test set." in said, "the caveat stands wherever numbers are"


@pytest.mark.parametrize("page", PAGES)
def test_every_control_is_in_the_address(root: Path, page: str) -> None:
    app = show(page, study="toy")
    kinds = (app.selectbox, app.multiselect, app.toggle, app.checkbox, app.select_slider, app.slider, app.button_group)
    unbound = [one.key for kind in kinds for one in kind if not one.proto.query_param_key]
    assert unbound == ["study"]  # which open_page writes there itself
    assert app.query_params["study"] == "toy"


# ------------------------------------------------------------------------------- deep links


@pytest.mark.parametrize("page", PAGES)
def test_bogus_addresses_fall_back_to_the_defaults(root: Path, page: str) -> None:
    bogus = {"study": "../../etc", "networks": ["/etc/passwd"], "layers": ["*"], "projector": "x", "colour": "<b>"}
    bogus |= {"classes": ["99"], "sample": "-1", "measure": "nope", "view": "", "labels": "200%", "heat": "?"}
    app = show(page, **bogus)
    assert not app.error
    assert app.sidebar.selectbox[0].value == "toy"
    assert says(app.warning).count("There is no study called “....etc”: this is “toy”.") == 1
    assert "<b>" not in says([*app.caption, *app.markdown])


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
        if not recipe.maps and page in (LAYERS_PAGE, EXPLORE):
            assert "no maps" in says(app.info) or "no t-SNE maps" in says(app.info)


def test_a_study_without_a_trained_student_says_so_once(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), all_diverged=True))
    for page in PAGES:
        app = show(page, study="odd")
        assert not app.error
        if page in (HOME, MEASURES):
            assert says(app.warning).count("No student was trained to the end") == len(app.warning) == 1
            assert "kd, 10% of labels, seed 1 diverged at step 31" in says(app.text)
        assert "0 seed" not in says([*app.markdown, *app.caption, *app.info])


def test_percentages_on_axes_are_rounded() -> None:
    rows = {"series": ["plain"], "role": ["plain"], "budget": ["all labels"], "label_fraction": [1.0], "seed": [0]}
    frame = pl.DataFrame({**rows, "label": ["plain"], "test_accuracy": [0.71666664]})
    chart = json.dumps(charts.accuracy_dots(frame, {"plain": "#000000"}).to_dict())
    assert '"format": ".1~%"' in chart and '"format": "%"' not in chart


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


def test_what_is_missing_is_named_with_how_to_make_it(many: catalog.Study) -> None:
    for page in (LAYERS_PAGE, EXPLORE):
        said = says(show(page, study="many").info)
        assert said.count("This study has no maps") == 1 and "kdpipe run" in said
        assert '`projectors = ["tsne"]` and `view = "gap"`' in said, "maps need a view that is stored"
    app = show(MEASURES, study="many", view="whole map (projection)")
    assert not app.error and "add `projection` to `views`" in says(app.caption)
    assert "add `projection`" not in says(show(MEASURES, study="toy").caption)


def test_no_two_series_in_colour_look_alike(many: catalog.Study) -> None:
    networks = catalog.networks(many)
    chosen = ["method-3", "plain student (slow)", "kd", "untrained teacher", "method-9", "plain at step 100"]
    colours = focus.colours(many, networks, chosen)
    assert list(colours) == [*BASE, *chosen] and len(set(colours.values())) == len(colours)
    assert theme.GREY not in colours.values()
    assert (
        focus.colours(many, networks, ["method-3", "kd"])["kd"] == colours["kd"] == focus.colours(many, networks)["kd"]
    )


def test_kd_has_one_colour_whatever_else_there_is(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), methods=("at", "fitnet", "kd")))
    studies = [open_study(root / name) for name in ("toy", "odd")]
    first, second = (focus.colours(study, catalog.networks(study)) for study in studies)
    assert first["kd"] == second["kd"] and len(set(second.values())) == len(second)


def test_a_headline_may_be_a_control(many: catalog.Study) -> None:
    record = {**many.record, "headline": {**many.record["headline"], "method_label": "plain-slow"}}
    study = catalog.Study(many.folder, record)
    headline = catalog.headline(study, catalog.networks(study))
    assert headline["series"].unique(maintain_order=True).to_list() == [*BASE, "plain student (slow)"]


# ------------------------------------------------------------------------------- broken artifacts


@pytest.mark.parametrize("page", PAGES)
def test_unreadable_networks_are_said_once(root: Path, page: str) -> None:
    _missing(root / "toy" / "networks.parquet")
    app = show(page)
    assert [error.value.split(":")[0] for error in app.error] == ["toy/networks.parquet is missing"]


def test_an_unreadable_table_of_methods_costs_only_their_names(root: Path) -> None:
    _missing(root / "toy" / "methods.parquet")
    assert not show(HOME).error and not show(MEASURES).error


@pytest.mark.parametrize("page", PAGES)
def test_no_artifacts_at_all(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        monkeypatch.setenv("KDPIPE_ARTIFACTS", str(root))
        assert "kdpipe run" in says(show(page).info)


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
    assert "kdpipe run" in says(app.error) and "bad/study.json" in says(app.error)
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
    assert app.title and len(app.get("vega_lite_chart")) == 1
    assert "toy/maps.parquet" in says(show(LAYERS_PAGE).error)
    assert not show(MEASURES).error


FOLDED = {"open-answers": "true", "open-networks": "true"}  # what reads a table only once it is opened


@pytest.fixture(scope="module")
def readers(pristine: Path) -> dict[str, list[str]]:
    """Which pages read which table, as they open."""
    found: dict[str, list[str]] = {name: [] for name in TABLES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDPIPE_ARTIFACTS", str(pristine))
        scan = Study.scan
        for page in PAGES:
            st.cache_resource.clear()  # a study keeps its small tables, and the next page would not read them
            patch.setattr(Study, "scan", lambda self, name, at=page: (found[name].append(at), scan(self, name))[1])
            show(page, study="toy", sample="3", images="3", **FOLDED)
    return {name: sorted(set(pages)) for name, pages in found.items()}


@pytest.mark.parametrize("table", TABLES)
def test_any_damaged_table_is_named_and_never_ends_in_a_traceback(
    root: Path, readers: dict[str, list[str]], table: str
) -> None:
    _bit_flipped(root / "toy" / f"{table}.parquet")
    if table in UNREAD:
        assert not readers[table]
        with pytest.raises(DamagedArtifactError, match=f"toy/{table}.parquet is damaged"):
            open_study(root / "toy").frame(table)
        return
    assert readers[table], f"no page reads {table}"
    for page in readers[table]:
        said = says(show(page, study="toy", sample="3", images="3", **FOLDED).error)
        assert "a fault of kdpipe" not in said
        assert f"toy/{table}.parquet is damaged" in said or table in FORGIVEN


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
    profile = pytest.importorskip("kdpipe.models.profile")
    for count, others in itertools.product(range(1, 13), repeat=2):
        student, teacher = ([SimpleNamespace(order=i) for i in range(n)] for n in (count, others))
        ours = [nearest_place(place, count, others) for place in range(count)]
        assert ours == profile.pair_by_depth(student, teacher)
    assert [nearest_place(place, 3, 4) for place in range(3)] == [0, 1, 3], "the earlier of two as near"


def test_only_webp_bytes_become_an_image_and_other_bytes_and_captions_stay_text() -> None:
    drawn = base64.b64decode(images.data_uri(b"<svg onload=alert(1)>").partition("base64,")[2]).decode()
    assert "<svg onload" not in drawn and "&lt;svg" in drawn
    assert "<img src=x" not in images.strip([(b"", '"><img src=x onerror=alert(1)>', theme.GREY)])


def test_class_colours_are_ten_or_the_chosen_few() -> None:
    assert len(set(theme.class_colours([str(i) for i in range(10)]).values())) == 10
    assert theme.class_colours([str(i) for i in range(100)], ["7"]) == {"7": theme.PETROFF[0], theme.OTHER: theme.GREY}


def test_network_labels_are_unique(root: Path) -> None:
    assert catalog.networks(open_study(root / "toy"))["label"].is_unique().all()


# ------------------------------------------------------------------------------- what is folded away


def test_a_folded_table_is_made_once_it_is_opened(root: Path) -> None:
    page = "pages/10_Training.py"
    before = len(show(page).dataframe)
    app = show(page, **{"open-curves": "true"})
    assert len(app.dataframe) == before + 1 and not app.error
    signature = json.loads(app.get("vega_lite_chart")[0].proto.spec)["title"]["text"]
    assert "open-" not in " ".join(signature), "a figure's link needs no table"
    app = show(page, **{"open-curves": "<b>"})
    assert len(app.dataframe) == before and "is not offered here" in says(app.caption)
