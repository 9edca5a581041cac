"""Plug-ins: files that a study names bring methods, measures and datasets, and the package does not change."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import streamlit as st
from app_pages import says, show
from conftest import REPOSITORY, TINY, CommandLine

from kdpipe.artifacts.store import load_study
from kdpipe.config.plugins import REGISTRIES, load_plugins, withdraw_plugins
from kdpipe.config.preflight import run_preflight
from kdpipe.config.study_file import read_study
from kdpipe.data.sources import SOURCES
from kdpipe.engine.run import with_inputs
from kdpipe.errors import StudyError
from kdpipe.files import sha256_of
from kdpipe.measures import FACTORS, MEASURES
from kdpipe.methods import METHODS
from kdpipe.pipeline.analysis_plan import plan_analysis
from kdpipe.pipeline.networks_plan import plan_networks

EXAMPLES = REPOSITORY / "examples" / "plugins"
MEASURE = """\
from kdpipe.measures import Measure

WIDTH = Measure(
    "width", of="layer", title="Width", summary="Features.", citation="none", direction="neither",
    function=lambda X: float(X.shape[1]), chance=None, takes=("X",), cost="1",
)
"""
FACTOR = """\
from kdpipe.measures import Factor

CORNER = Factor("corner", "Corner", "One pixel.", "none", lambda images: images[:, 0, 2, 3].astype(float))
"""
PROJECTOR = """\
from dataclasses import dataclass

from kdpipe.representation.map_jobs import in_turn
from kdpipe.representation.projectors import Projector


@dataclass(frozen=True)
class NoOptions:
    pass


two = in_turn("columns", lambda job: job.X[:, :2])
COLUMNS = Projector("columns", "Two columns", "The first two.", "none", options=NoOptions, layouts=two)
"""


@pytest.fixture(autouse=True)
def without_plugins() -> Iterator[None]:
    """What a test loads is gone after it, and registries are as they were."""
    before = {kind: dict(registry) for kind, registry in REGISTRIES.items()}
    yield
    withdraw_plugins()
    assert {kind: dict(registry) for kind, registry in REGISTRIES.items()} == before


@pytest.fixture
def plugin(tmp_path) -> Callable[..., Path]:
    """A plug-in file with the given text."""

    def written(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


# --------------------------------------------------------------------------- from the command to a page


@pytest.fixture(scope="module")
def finished_stripes(tmp_path_factory) -> SimpleNamespace:
    """The study of all examples, two of them named by it and one on the command line, run to the end and left alone."""
    line = CommandLine(tmp_path_factory.mktemp("stripes"))
    line.study = line.root / "stripes.toml"
    text = (EXAMPLES / "stripes.toml").read_text()
    line.study.write_text(text.replace('"dead_features.py", ', "").replace("steps = 200", "steps = 12"))
    for name in ("cosine.py", "stripes.py"):
        shutil.copy(EXAMPLES / name, line.root)
    done = line.here("--plugin", str(EXAMPLES / "dead_features.py"))
    assert done.code == 0, done.out + done.err
    withdraw_plugins()
    return SimpleNamespace(line=line, study=load_study(line.artifacts / "stripes"))


def test_what_examples_bring_is_in_the_artifacts(finished_stripes):
    study = finished_stripes.study
    assert "cosine" in study.networks["method"].to_list()
    assert {"loss/ce", "loss/cosine"} <= set(study.history["quantity"])
    assert study.methods.filter(method="cosine")["title"].to_list() == ["Cosine of logits"]
    values = study.frame("layer_measures", measure="dead_features")
    assert set(values["network_id"]) == set(study.networks["network_id"]) and values["value"].is_between(0, 1).all()
    assert study.record["data"]["dataset"] == "Stripes" and study.record["data"]["class_names"] == ["|", "/", "-", "\\"]


def test_the_record_names_each_plugin_its_content_and_what_it_brought(finished_stripes):
    assert finished_stripes.study.record["plugins"] == [
        {"name": name, "identity": f"sha256:{sha256_of(EXAMPLES / name)}", "records": [record]}
        for name, record in (
            ("cosine.py", "method cosine"),
            ("dead_features.py", "measure dead_features"),
            ("stripes.py", "dataset stripes"),
        )
    ]


@pytest.mark.parametrize(
    ("page", "query", "shown"),
    [
        ("pages/3_Measures.py", {"measure": "Dead features"}, "Dead features"),
        ("pages/4_Methods.py", {}, "cosine"),
        ("pages/11_Study.py", {}, f"cosine.py (`sha256:{sha256_of(EXAMPLES / 'cosine.py')}`) with method cosine"),
    ],
)
def test_pages_show_it_where_the_plugins_are_absent(finished_stripes, monkeypatch, page, query, shown):
    assert "cosine" not in METHODS and "dead_features" not in MEASURES and "stripes" not in SOURCES
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(finished_stripes.line.artifacts))
    app = show(page, study="stripes", **query)
    words = [
        says(app.markdown),
        *(str(widget.options) for kind in ("selectbox", "multiselect") for widget in app.get(kind)),
    ]
    tables = [str(cell) for table in app.dataframe for row in table.value.values for cell in row]
    st.cache_resource.clear()
    st.cache_data.clear()
    assert shown in " ".join([*words, *tables])


def test_a_study_is_judged_the_same_where_its_plugins_are_absent(finished_stripes, monkeypatch, capsys):
    from kdpipe.cli.main import main

    folder = finished_stripes.line.artifacts / "stripes"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("sys.argv", ["kdpipe", "judge", "stripes", "--artifacts", str(folder.parent)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "verdicts in" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_examples_are_as_short_as_promised_and_shown_whole():
    manual = (REPOSITORY / "docs" / "PLUGINS.md").read_text()
    for name, most in (("cosine.py", 20), ("dead_features.py", 10), ("stripes.py", 20)):
        text = (EXAMPLES / name).read_text()
        assert sum(bool(line.strip()) for line in text.splitlines()) <= most
        assert text in manual
    assert (EXAMPLES / "dead_features.py").read_text() in (REPOSITORY / "README.md").read_text()


# ---------------------------------------------------------------------------------- what is run again


def keys(folder: Path, *plugins: Path, **changes: str) -> dict[str, str]:
    """Names of all stages of the tiny study by key, as planned with some plug-ins."""
    text = TINY
    for old, new in changes.items():
        text = text.replace(old, new)
    path = folder / "tiny.toml"
    path.write_text(text)
    study = read_study(path, plugins=plugins)
    facts = run_preflight(study, Path("."))
    training = plan_networks(study.spec, facts, Path("."))
    analysis = plan_analysis(study.spec, facts, training, training.networks)
    stages = [*(network.stage for network in training.networks), *analysis.stages]
    return {stage.key: stage.name for stage in with_inputs(stages)}


@pytest.mark.parametrize(
    ("text", "changes", "own"),
    [
        (MEASURE, {}, "width of "),
        (FACTOR, {}, "corner"),
        (PROJECTOR, {'"tsne", "pca"': '"tsne", "pca", "columns"'}, "columns"),
        ((EXAMPLES / "cosine.py").read_text(), {'"fitnet", ': '"fitnet", "cosine", '}, "small-cosine"),
        ((EXAMPLES / "stripes.py").read_text(), {'dataset = "digits"': 'dataset = "stripes"'}, "data"),
    ],
    ids=["measure", "factor", "projector", "method", "dataset"],
)
def test_other_content_is_another_key_of_its_own_results_alone(plugin, tmp_path, text, changes, own):
    first = keys(tmp_path, plugin(text), **changes)
    assert keys(tmp_path, plugin(text, "renamed.py"), **changes) == first  # a name is no content
    second = keys(tmp_path, plugin(f"{text}# another line\n"), **changes)
    new = {name for key, name in second.items() if key not in first}
    assert {name for name in second.values() if name.startswith(own)} <= new
    if own == "data":
        assert not first.keys() & second.keys()
    else:  # what rests on it moves: shared maps on a mapped method, what is left on a factor
        rests = ("shared map", "consensus", "aligned", "seed_drift", "factors of ", "probe images")
        assert all(own in name or any(word in name for word in rests) for name in new)


def test_the_packages_own_results_have_the_keys_that_they_had(plugin, tmp_path):
    without = keys(tmp_path)
    assert without.keys() < keys(tmp_path, plugin(MEASURE)).keys()


# -------------------------------------------------------------------------------------------- loading


def test_a_file_of_several_records_brings_them_all_and_nothing_private_or_imported(plugin):
    path = plugin(
        "from dataclasses import replace\nfrom kdpipe.measures import MEASURES\nfrom kdpipe.methods.logits import *\n"
        "from kdpipe.methods import METHODS\nSILHOUETTE = MEASURES['silhouette']\n"
        "_DRAFT = replace(SILHOUETTE, name='draft')\n"
        "MINE = tuple(replace(SILHOUETTE, name=f'mine_{i}') for i in (1, 2))\n"
        "SAME = MINE[0]\nKD = replace(METHODS['kd'], name='my-kd')\n"
    )
    before = {*MEASURES, *METHODS}
    load_plugins([path, path.parent / ".." / path.parent.name / "mine.py"])  # one file by two names
    assert {*MEASURES, *METHODS} - before == {"mine_1", "mine_2", "my-kd"}
    plugin_of = MEASURES.plugin_of("mine_1")
    assert plugin_of is not None and plugin_of == METHODS.plugin_of("my-kd")
    assert plugin_of.name == "mine.py" and MEASURES.plugin_of("silhouette") is None


def test_plugins_of_one_study_are_not_seen_by_the_next(plugin, tmp_path):
    path = tmp_path / "tiny.toml"
    plugin(MEASURE)
    path.write_text(f'plugins = ["mine.py"]\n{TINY}')
    assert "width" in read_study(path).spec.measures.names
    path.write_text(TINY)
    assert "width" not in read_study(path).spec.measures.names and "width" not in MEASURES


WRONG = {
    "syntax": ("x = 1\ndef f(:\n", "line 2: not valid Python"),
    "not text": (b"x = '\xff'\n", "not valid Python"),
    "import": ("import os\nimport nowhere_to_be_found\n", "line 2: ModuleNotFoundError: No module named 'nowhere_"),
    "exception": ("\n\nvalues = {}['a']\n", "line 3: KeyError: 'a'"),
    "deep exception": ("def f():\n    return 1 / 0\n\nf()\n", "line 2: ZeroDivisionError"),
    "end": ("import sys\nsys.exit()\n", "line 2: it ends the program"),
    "missing field": (
        'from kdpipe.measures import Factor\nA = Factor("a", "A")\n',
        "line 2: TypeError: Factor.__init__() missing",
    ),
    "unknown field": (MEASURE.replace("title=", "titel="), "line 3: TypeError: Measure.__init__() got an unexpected"),
    "wrong array": (MEASURE.replace('("X",)', '("Z",)'), "line 3: ValueError: Measure 'width': there is no array 'Z'"),
    "wrong type": (MEASURE.replace('title="Width"', "title=3"), "line 3: title of Measure 'width': must be a string"),
    "wrong word": (
        MEASURE.replace('"neither"', '"up"'),
        "line 3: direction of Measure 'width': must be 'higher', 'lower' or 'neither', not 'up'",
    ),
    "no function": (FACTOR.replace("lambda images: images[:, 0, 2, 3].astype(float)", "3"), "must be callable, not 3"),
    "no dataclass": (PROJECTOR.replace("@dataclass(frozen=True)\n", ""), "its options must be a dataclass"),
    "taken": (MEASURE.replace('"width"', '"silhouette"'), "line 3: There is a measure 'silhouette' already"),
    "no name": (MEASURE.replace('"width"', '"My width"'), "line 3: 'My width' cannot be the name of a measure"),
    "version": (MEASURE.replace('cost="1"', 'cost="1", version=0'), "line 3: The version of measure 'width' must be 1"),
    "nothing": ("x = 1\n", "no record is in this plug-in"),
    "registers": (
        MEASURE + "from kdpipe.measures import MEASURES\nMEASURES.register(WIDTH)\n",
        "it registers measure 'width' itself",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_broken_plugin_is_one_sentence_and_leaves_no_record(tmp_path, case):
    text, said = WRONG[case]
    path = tmp_path / "mine.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    good = tmp_path / "good.py"
    good.write_text(FACTOR.replace("corner", "other_corner"))
    with pytest.raises(StudyError) as caught:
        load_plugins([good, path])
    told = str(caught.value)
    assert told.startswith(str(path)) and said in told and "\n" not in told
    assert "width" not in MEASURES and "other_corner" not in FACTORS


def test_two_plugins_of_one_name_are_told_apart(plugin):
    with pytest.raises(StudyError, match=r"second\.py, line 3: There is a measure 'width' already"):
        load_plugins([plugin(MEASURE), plugin(MEASURE, "second.py")])


def test_an_error_while_a_study_runs_is_one_sentence_with_its_line(plugin):
    failing = MEASURE.replace("float(X.shape[1])", "[][X]") + "\n\ndef terms(step):\n    return int('one')\n\n"
    failing += "from dataclasses import replace\nfrom kdpipe.methods import METHODS\n"
    load_plugins([plugin(failing + "MINE = replace(METHODS['kd'], name='mine', terms=terms)\n")])
    with pytest.raises(StudyError, match=r"^mine\.py, line 5: function of measure 'width': IndexError: list index"):
        MEASURES["width"].function(0)
    with pytest.raises(StudyError, match=r"^mine\.py, line 10: terms of method 'mine': ValueError: invalid literal"):
        METHODS["mine"].terms(None)


def test_a_value_error_of_a_measure_says_that_there_is_no_value(plugin):
    load_plugins([plugin(MEASURE.replace("float(X.shape[1])", "float(X)"))])
    with pytest.raises(ValueError, match="could not convert"):
        MEASURES["width"].function("many")


def test_a_dataset_that_cannot_be_decoded_ends_a_command_with_code_2(command_line, plugin):
    broken = plugin((EXAMPLES / "stripes.py").read_text().replace("800", "801.5", 1))
    done = command_line.here("--plugin", str(broken), "data.dataset=stripes", command="validate")
    assert done.code == 2 and "Traceback" not in done.err and "mine.py, line " in done.err
    assert "load of dataset 'stripes'" in done.err


@pytest.mark.parametrize("command", ["run", "plan", "validate"])
def test_commands_say_what_is_wrong_and_end_with_code_2(command_line, command):
    broken = command_line.root / "mine.py"
    broken.write_text("x = 1\nx.y\n")
    done = command_line.here("--plugin", str(broken), command=command)
    assert done.code == 2 and "Traceback" not in done.err
    assert f"{broken}, line 2: AttributeError" in done.err.replace("\n", "")


def test_a_plugin_that_is_not_there_is_said_with_where_it_was_looked_for(command_line):
    command_line.study.write_text(f'plugins = ["nowhere.py"]\n{TINY}')
    done = command_line.here(command="validate")
    assert done.code == 2 and f"{command_line.root / 'nowhere.py'}: there is no such plug-in file" in done.err


def test_plugins_that_are_no_list_of_texts_are_refused_with_their_line(command_line):
    command_line.study.write_text(f'plugins = "mine.py"\n{TINY}')
    done = command_line.here(command="validate")
    assert done.code == 2 and "line 1: plugins: must be a list" in done.err


# --------------------------------------------------------------------------------- installed plug-ins


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """A distribution with one module, as pip lays it out."""

    def lay_out(module: str, entries: str, version: str = "1.2.0") -> None:
        site = tmp_path / "site"
        shutil.rmtree(site, ignore_errors=True)
        described = site / f"kdpipe_widths-{version}.dist-info"
        described.mkdir(parents=True)
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kdpipe-widths\nVersion: {version}\n")
        (described / "entry_points.txt").write_text(entries)
        (site / "kdpipe_widths.py").write_text(module)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, "kdpipe_widths", raising=False)

    return lay_out


@pytest.mark.parametrize("value", ["WIDTH", "ALL"])
def test_an_entry_point_is_a_record_or_several(installed, tmp_path, value):
    installed(MEASURE + "ALL = (WIDTH,)\n", f"[kdpipe.measures]\nwidths = kdpipe_widths:{value}\n")
    first = keys(tmp_path)
    plugin = MEASURES.plugin_of("width")
    assert plugin is not None and (plugin.name, plugin.identity) == ("kdpipe-widths", "kdpipe-widths 1.2.0")
    installed(MEASURE + "ALL = (WIDTH,)\n", f"[kdpipe.measures]\nwidths = kdpipe_widths:{value}\n", version="1.3.0")
    new = {name for key, name in keys(tmp_path).items() if key not in first}
    assert new and all(name.startswith("width of ") for name in new)


@pytest.mark.parametrize(
    ("module", "entry", "said"),
    [
        ("x = 1 / 0\n", "kdpipe_widths:WIDTH", "ZeroDivisionError: division by zero ("),
        (MEASURE, "kdpipe_widths:HEIGHT", "AttributeError"),
        ("WIDTH = 3\n", "kdpipe_widths:WIDTH", "TypeError: 'int' object is not iterable"),
        (FACTOR + "WIDTH = [CORNER]\n", "kdpipe_widths:WIDTH", "stands where a Measure belongs"),
        (MEASURE.replace('"width"', '"cka"'), "kdpipe_widths:WIDTH", "There is a measure 'cka' already"),
    ],
)
def test_a_broken_installed_plugin_is_named_with_its_entry_point(installed, module, entry, said):
    installed(module, f"[kdpipe.measures]\nwidths = {entry}\n")
    with pytest.raises(StudyError) as caught:
        load_plugins()
    told = str(caught.value)
    assert told.startswith("plug-in kdpipe-widths 1.2.0, entry point 'widths' of kdpipe.measures: ") and said in told
    assert "\n" not in told
