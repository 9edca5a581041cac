"""Registries keep their word: what is registered from outside is computed, stored, shown, and re-runs nothing else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import streamlit as st
from app_pages import says, show
from conftest import TINY, CommandLine

from kdpipe.artifacts.store import load_study
from kdpipe.config.preflight import run_preflight
from kdpipe.config.study_file import read_study
from kdpipe.data.sources import SOURCES
from kdpipe.engine.run import with_inputs
from kdpipe.measures import FACTORS, MEASURES, Factor, Measure
from kdpipe.methods import METHODS, Method
from kdpipe.pipeline.analysis_plan import plan_analysis
from kdpipe.pipeline.networks_plan import plan_networks
from kdpipe.registry import Registry
from kdpipe.representation.map_jobs import in_turn
from kdpipe.representation.projectors import PROJECTORS, Projector

TAKES = {
    "layer": ("X", "y"),
    "pair": ("X", "Y"),
    "map": ("X", "layout"),
    "network": ("logits", "y"),
    "answers": ("a", "b"),
}
WORDS = {"summary": "One line of a plug-in.", "citation": "A plug-in (2026)"}


def measure(of: str) -> Measure:
    """Ten and the number of images: a value that no other measure has."""
    return Measure(
        name=f"outside_{of}",
        of=of,
        title=f"Outside {of}",
        direction="higher",
        function=lambda *arrays: 10.0 + len(arrays[0]),
        takes=TAKES[of],
        chance=1.5,
        cost="1",
        **WORDS,
    )


OF_ONE_IMAGE = Measure(
    name="outside_share",
    of="layer",
    title="Outside share",
    direction="higher",
    function=lambda X, y: float((y < 3).mean()),
    per_image=lambda found, k: found.y < 3,
    takes=("X", "y"),
    chance=None,
    cost="N",
    **WORDS,
)
FACTOR = Factor("outside_corner", "Corner", function=lambda images: images[:, 0, 2, 3].astype(float), **WORDS)


@dataclass(frozen=True)
class NoOptions:
    """The projector has none, not even a seed."""


PROJECTOR = Projector(
    "outside-map",
    "Two columns",
    options=NoOptions,
    layouts=in_turn("outside", lambda job: np.asarray(job.X[:, :2])),
    **WORDS,
)
METHOD = Method(
    name="outside-method",
    title="Outside method",
    role="distilled",
    family="logits",
    terms=lambda step: {
        "ce": step.cross_entropy,
        "pull": (step.student.logits - step.of_teacher.logits).square().mean(),
    },
    formula="CE + distance",
    **WORDS,
)
DATASET = replace(SOURCES["digits"], name="outside-digits", title="Digits from outside")


@contextlib.contextmanager
def registered(*records: object) -> Iterator[None]:
    """Records in their registries, and out again."""
    kinds = {Measure: MEASURES, Factor: FACTORS, Projector: PROJECTORS, Method: METHODS, type(DATASET): SOURCES}
    with contextlib.ExitStack() as stack:
        for record in records:
            registry = kinds[type(record)]
            registry.register(record)
            stack.callback(registry.unregister, record.name)
        yield


EVERYTHING = (*map(measure, TAKES), OF_ONE_IMAGE, FACTOR, PROJECTOR, METHOD, DATASET)
STUDY = (
    TINY.replace("seeds = [0, 1]", "seeds = [0]")
    .replace('"plain", "kd", "fitnet", "second-seed"', '"plain", "outside-method"')
    .replace('dataset = "digits"', 'dataset = "outside-digits"')
    .replace("steps = 30", "steps = 12")
    .replace('"tsne", "pca"', '"outside-map"')
)


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A study that names everything from outside, run to the end by the real command."""
    line = CommandLine(tmp_path_factory.mktemp("outside"))
    line.study.write_text(STUDY)
    with registered(*EVERYTHING):
        done = line.here()
    assert done.code == 0, done.out + done.err
    yield SimpleNamespace(line=line, study=load_study(line.artifacts / "tiny"))


@pytest.fixture
def artifacts(outside, monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(outside.line.artifacts))
    yield
    st.cache_resource.clear()
    st.cache_data.clear()


# ----------------------------------------------------------------------------------- in the tables


@pytest.mark.parametrize(
    ("of", "table"),
    [
        ("layer", "layer_measures"),
        ("pair", "similarity"),
        ("map", "map_measures"),
        ("network", "network_measures"),
        ("answers", "answers"),
    ],
)
def test_a_measure_of_every_kind_is_in_its_table(outside, of, table):
    rows = outside.study.frame(table, measure=f"outside_{of}")
    inside = outside.study.frame(table).filter(~pl.col("measure").str.starts_with("outside"))
    assert rows.height > 0
    assert set(rows["network_id"]) == set(inside["network_id"] if of != "map" else outside.study.maps["network_id"])
    assert rows["value"].unique().to_list() == [70.0] and rows["chance"].unique().to_list() == [1.5]
    assert outside.study.measures.filter(measure=f"outside_{of}")["title"].to_list() == [f"Outside {of}"]


def test_a_measure_that_is_a_mean_over_images_has_its_interval_and_its_classes(outside):
    rows = outside.study.frame("layer_measures", measure="outside_share")
    assert rows["value"].to_numpy() == pytest.approx(0.3)  # six images of each of ten classes
    assert (rows["low"] < 0.3).all() and (rows["high"] > 0.3).all()
    classes = outside.study.frame("class_measures", measure="outside_share")
    assert (classes["value"] == (classes["label"] < 3)).all() and classes.height == 10 * rows.height


def test_factor_projector_method_and_dataset_are_in_theirs(outside):
    study = outside.study
    assert study.frame("factors", factor="outside_corner")["explained"].null_count() == 0
    pixels = study.frame("factors", factor="outside_corner", network_id="pixels", view="gap")
    assert pixels["residual"].max() < 0.1  # it is taken out with the others
    assert set(study.maps["projector"]) == {"outside-map"}
    assert "outside-method" in study.networks["method"].to_list()
    assert {"loss/ce", "loss/pull"} <= set(study.history["quantity"])
    assert study.record["data"]["dataset"] == "Digits from outside"


# ----------------------------------------------------------------------------------- on the pages


@pytest.mark.parametrize(
    ("page", "query", "shown"),
    [
        ("pages/3_Measures.py", {"measure": "Outside layer"}, "Outside layer"),
        ("pages/7_Similarity.py", {}, "Outside pair"),
        ("pages/1_Layers.py", {"open-scores": "true"}, "outside_map"),
        ("pages/6_Flips.py", {"open-networks": "true"}, "Outside network"),
        ("pages/6_Flips.py", {"open-answers": "true"}, "Outside answers"),
        ("pages/9_Factors.py", {}, "outside corner"),
        ("pages/1_Layers.py", {}, "outside-map"),
        ("pages/4_Methods.py", {}, "outside-method"),
        ("pages/11_Study.py", {}, "Digits from outside"),
    ],
)
def test_a_page_shows_it_because_it_is_in_the_tables(artifacts, page, query, shown):
    assert shown in everything_on(show(page, study="tiny", **query))


def everything_on(app) -> str:
    """All that a visitor reads or picks: words, options of widgets, and the cells of tables."""
    words = [says(app.markdown), says(app.caption)]
    for kind in ("selectbox", "multiselect", "radio", "button_group"):
        words += [str(getattr(widget, "options", "")) for widget in app.get(kind)]
    for table in app.dataframe:
        words += [*map(str, table.value.columns), *(str(cell) for row in table.value.values for cell in row)]
    return " ".join([*words, *(str(element.proto) for element in app.get("vega_lite_chart"))])


# ------------------------------------------------------------------------------- what is run again


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Callable[..., dict[str, str]]:
    """Names of all stages of a study by key, as planned with some records registered."""
    path = tmp_path_factory.mktemp("plan") / "tiny.toml"
    path.write_text(TINY)
    facts = run_preflight(read_study(path), Path("."))

    def planned(*records: object, **changes: str) -> dict[str, str]:
        with registered(*records):
            text = TINY
            for old, new in changes.items():
                text = text.replace(old, new)
            path.write_text(text)
            study = read_study(path)
            training = plan_networks(study.spec, facts, Path("."))
            analysis = plan_analysis(study.spec, facts, training, training.networks)
            stages = [*(network.stage for network in training.networks), *analysis.stages]
            return {stage.key: stage.name for stage in with_inputs(stages)}

    return planned


@pytest.mark.parametrize("record", [*map(measure, TAKES), OF_ONE_IMAGE], ids=lambda record: record.name)
def test_a_new_measure_runs_alone_and_so_does_its_next_version(keys, record):
    without, first, second = keys(), keys(record), keys(replace(record, version=2))
    assert without.keys() < first.keys() or record.of == "answers"
    for one in (first, second):
        assert without.keys() <= one.keys()
        assert all(name.startswith(f"{record.name} of ") for key, name in one.items() if key not in without)
    assert not (first.keys() - without.keys()) & second.keys()


def test_a_new_factor_is_asked_of_layers_alone_but_taken_out_with_all_others(keys):
    without, first, second = keys(), keys(FACTOR), keys(replace(FACTOR, version=2))
    new = {name for key, name in first.items() if key not in without}
    assert {name for name in new if not name.startswith("factors of ")} == {
        "outside_corner",
        *(f"outside_corner in {name.removeprefix('factors of ')}" for name in new if name.startswith("factors of ")),
    }
    gone = {name for key, name in without.items() if key not in first}
    assert gone and all(name.startswith("factors of ") for name in gone)
    assert {name for key, name in second.items() if key not in first} == new


def test_a_new_projector_draws_its_own_maps_and_its_next_version_draws_them_again(keys):
    drawn = {'"tsne", "pca"': '"tsne", "pca", "outside-map"'}
    without, first, second = keys(), keys(PROJECTOR, **drawn), keys(replace(PROJECTOR, version=2), **drawn)
    assert without.keys() < first.keys()
    new = {name for key, name in first.items() if key not in without}
    assert all("outside-map" in name for name in new)
    assert {name for key, name in second.items() if key not in first} == new


def test_a_new_method_trains_its_own_students_and_a_new_version_trains_them_again(keys):
    named = {'"fitnet", ': '"fitnet", "outside-method", '}
    without, first, second = keys(), keys(METHOD, **named), keys(replace(METHOD, version=2), **named)
    for one, other in ((first, without), (second, without), (second, first)):
        new = {name for key, name in one.items() if key not in other}
        # What networks share at a depth is of all that are mapped, so a mapped method moves consensus maps, and every
        # map is turned like what is shared.
        rest = {name for name in new if "outside-method" not in name}
        moved = ("shared map", "consensus", "aligned", "seed_drift")
        assert all(any(word in name for word in moved) for name in rest)
        assert any(name.startswith("small-outside-method") for name in new)


@pytest.fixture
def newer():
    """Raise a record's version for a test, in its place."""
    changed = []

    def raise_version(registry, name):
        changed.append((registry, dict(registry)))
        _hold(registry, {**registry, name: replace(registry[name], version=2)})

    yield raise_version
    for registry, records in reversed(changed):
        _hold(registry, records)


def _hold(registry, records):
    for name in list(registry):
        registry.unregister(name)
    for record in records.values():
        registry.register(record)


def test_another_dataset_changes_no_key_and_the_version_of_one_changes_its_own(keys, newer):
    assert keys(DATASET) == keys()
    before = keys()
    newer(SOURCES, "digits")
    assert not keys().keys() & before.keys()


def test_a_map_measure_of_another_version_is_worked_out_without_drawing_the_map_again(keys, newer):
    before = keys()
    newer(MEASURES, "shepard")
    new = {name for key, name in keys().items() if key not in before}
    assert new and all(name.startswith("shepard of ") for name in new)


def test_a_second_run_with_another_version_runs_that_measure_alone(outside):
    """As the plans say, so the command does: one stage for each network of the study."""
    kinds = [folder.name for folder in (outside.line.cache / "stages").iterdir()]
    before = {kind: outside.line.stages(kind) for kind in kinds}
    changed = [replace(record, version=2) if record.name == "outside_layer" else record for record in EVERYTHING]
    with registered(*changed):
        done = outside.line.here()
    assert done.code == 0, done.out + done.err
    new = {kind: outside.line.stages(kind) - before[kind] for kind in kinds}
    assert {kind for kind, keys in new.items() if keys} == {"measure"}
    manifests = [outside.line.cache / "stages" / "measure" / key / "manifest.json" for key in new["measure"]]
    assert {json.loads(path.read_text())["params"]["measure"] for path in manifests} == {"outside_layer"}
    assert len(manifests) == outside.study.networks.height


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a/b", "../up", ".hidden", "über", "a" * 65, "a\n"])
def test_a_name_that_cannot_stand_in_a_column_and_a_path_is_refused(name):
    with pytest.raises(ValueError, match="cannot be the name of a measure"):
        MEASURES.register(replace(measure("layer"), name=name))
    assert name not in MEASURES


@pytest.mark.parametrize(
    ("registry", "name", "kind"),
    [
        (MEASURES, "silhouette", "measure"),
        (METHODS, "kd", "method"),
        (SOURCES, "digits", "dataset"),
        (PROJECTORS, "tsne", "projector"),
        (FACTORS, "hue", "factor"),
    ],
)
def test_no_name_is_taken_twice(registry: Registry, name: str, kind: str):
    record = registry[name]
    with pytest.raises(ValueError, match=f"There is a {kind} '{name}' already"):
        registry.register(replace(record))
    assert registry[name] is record and list(registry).count(name) == 1


@pytest.mark.parametrize("version", [0, -1, 1.5, "2"])
def test_a_version_is_a_whole_number_from_one(version):
    with pytest.raises(ValueError, match="must be 1 or more"):
        MEASURES.register(replace(measure("layer"), version=version))


def test_a_measure_that_no_study_could_compute_is_refused_where_it_is_written():
    with pytest.raises(ValueError, match="there is no array 'Z' of a layer; it may take X, y"):
        replace(measure("layer"), takes=("X", "Z"))
    with pytest.raises(ValueError, match="cannot be measured by shuffling"):
        replace(measure("map"), chance="shuffled")


def test_an_unknown_name_in_a_study_file_is_answered_with_the_closest_registered_one(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY + '\nnames = ["outside_layr"]\n')
    with registered(measure("layer")), pytest.raises(Exception, match="did you mean 'outside_layer'"):
        read_study(path)


@pytest.mark.parametrize(
    ("registry", "name"), [(FACTORS, "all"), (FACTORS, "class_name"), (MEASURES, "fixed"), (MEASURES, "kept")]
)
def test_a_name_that_stands_for_something_else_in_tables_is_refused(registry, name):
    record = replace(next(iter(registry.values())), name=name)
    with pytest.raises(ValueError, match=f"'{name}' stands for something else in tables"):
        registry.register(record)


def test_a_measure_counts_in_a_study_that_names_none_whenever_it_was_registered(tmp_path):
    """The defaults of a study without a section of measures are made when it is read, not when kdpipe is imported."""
    text = TINY[: TINY.index("[measures]")] if "[measures]" in TINY else TINY
    (tmp_path / "study.toml").write_text(text)
    late = replace(MEASURES["fisher"], name="late-measure")
    assert "late-measure" not in read_study(tmp_path / "study.toml").spec.measures.names
    MEASURES.register(late)
    try:
        assert "late-measure" in read_study(tmp_path / "study.toml").spec.measures.names
    finally:
        MEASURES.unregister("late-measure")
