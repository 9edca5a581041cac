"""Studies: what they may say, and how mistakes are explained."""

from pathlib import Path

import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kdpipe.config.preflight import run_preflight
from kdpipe.config.study import StudySpec
from kdpipe.config.study_file import load_spec, read_study
from kdpipe.errors import StudyError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def complaint(path: Path, *overrides: str) -> str:
    with pytest.raises(StudyError) as error:
        run_preflight(read_study(path, overrides), Path())
    return str(error.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.dataset=digts", "data.dataset: there is no dataset 'digts', did you mean 'digits'?; allowed: digits, "),
        ("training.stpes=5", "training.stpes: there is no field 'stpes', did you mean 'steps'?; allowed: steps, "),
        ("training.steps=abc", "training.steps: must be an integer, not 'abc'"),
        ("training.steps=1.5", "training.steps: must be an integer, not 1.5"),
        ("training.steps=0", "training.steps: students need at least one step"),
        ("teacher.training.lr=-1", "teacher.training.lr: must be greater than 0, not -1"),
        ("students.0.stem=smal", "students.0.stem: must be 'default' or 'small', not 'smal', did you mean 'small'?"),
        ("methods.1.method=kdd", "methods.1.method: there is no method 'kdd', did you mean 'kd'?; allowed: plain, "),
        ("methods.1.parameters.temprature=3", "parameters.temprature: there is no field 'temprature', did you mean "),
        ("methods.1.parameters.temperature=-3", "parameters.temperature: must be greater than 0, not -3"),
        ("methods.0.unlabelled=true", "unlabelled images need a teacher's term, and method 'plain' has none"),
        ("methods=['kd']", "methods: every comparison needs the student without distillation; add 'plain'"),
        ("methods=['plain','kd','kd']", "methods: 'kd' stands there twice"),
        ("seeds=[0,0]", "seeds: 0 stands there twice"),
        ("label_fractions=[0.2,0.20000001]", "two networks would be called 'small-plain-l0.2'"),
        ("maps.projectors=['umap']", "there is no projector 'umap'; allowed: tsne, ivis, pca"),
        ("measures.names=['sillhouette']", "there is no measure 'sillhouette', did you mean 'silhouette'?"),
        ("views=['gap']", "maps.view: maps need the view 'projection'"),
        ("teacher.arch=resnet81", "has no model 'resnet81', did you mean 'resnet18'?"),
        (
            "teacher.layers=['layer9','layer4']",
            "'resnet18' has no layer 'layer9', did you mean 'layer4'?; it has act1, ",
        ),
        ("students.0.arguments={bogus=1}", "students.0.arguments: 'resnet18' cannot be built with {'bogus': 1}"),
        ("students.0.arguments={channels=[4,8,8,8]}", "corrupts memory on some CPUs"),
        ("teacher.checkpoint=x.pt", "teacher.checkpoint: x.pt is not a .safetensors file"),
        ("teacher.checkpoint=x.safetensors", "teacher.checkpoint: there is no file x.safetensors"),
        (
            "data.probe_size=5000",
            "but the test set has 539; write probe_size = 539 or less",
        ),
        ("data.dataset=folder", "data.path: dataset 'folder' needs the folder that holds it"),
        ("maps.perplexity=100", "maps.perplexity: 100 needs more than 300 probe images, there are 60"),
        ("measures.k=60", "measures.k: 60 neighbours need more than 60 probe images"),
        ("measures.second_k=60", "measures.second_k: 60 neighbours need more than 60 probe images"),
        ("measures.second_k=0", "measures.second_k: must be"),
        ("measures.specifications=1", "measures.specifications: must be"),
        ("label_fractions=[0.001]", "label_fractions.0: 0.001 of 1132 training images is less than one label"),
        ("training", "write it as key=value"),
        ("seeds.0.x=1", "seeds.0 is a single value and has no field 'x'"),
        ("students.3.arch=x", "'3' is no position in a list of 1"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(study: Path, override: str, said: str) -> None:
    message = complaint(study, override)
    assert said in message
    assert len(message.splitlines()) == 1
    assert override.split("=")[0].split(".")[0] in message


def test_a_method_that_cannot_serve_a_pair_is_refused(study: Path) -> None:
    message = complaint(study, "students.0.layers=['layer1','layer4']")
    assert "methods.2: 'fitnet' cannot distil into 'small': layer layer4 has a 1x1 map" in message


def test_a_mistake_in_the_file_has_its_line(study: Path) -> None:
    text = study.read_text().replace("perplexity = 5.0", 'perplexity = "five"').replace("batch_size = 32", "batch = 32")
    study.write_text(text)
    lines = text.splitlines()
    message = complaint(study).splitlines()
    assert len(message) == 3  # two tables have the wrong batch
    for line in message:
        number = int(line.split("line ")[1].split(":")[0])
        assert lines[number - 1].split("=")[0].strip() in line


@pytest.mark.parametrize("content", ["name = ", "\x00", "[[name]]\n[name]"])
def test_what_is_no_toml_is_said_so(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(content)
    assert "not valid TOML" in complaint(path)
    assert "there is no such study file" in complaint(tmp_path / "none.toml")


def test_overrides_reach_short_methods_and_default_tables(study: Path) -> None:
    spec = load_spec(study, ["methods.1.parameters.temperature=2.0", "teacher.seed=4", "title=Another one"])
    assert (spec.methods[1].parameters, spec.teacher.seed, spec.title) == ({"temperature": 2.0}, 4, "Another one")


def test_where_data_lies_is_no_part_of_a_study(study: Path) -> None:
    here, there = (load_spec(study, [f"data.path={path}"]).model_dump(mode="json") for path in ("a", "b"))
    assert here == there


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.toml")), ids=lambda path: path.name)
def test_the_studies_of_the_repository_are_valid(path: Path) -> None:
    assert load_spec(path).name == path.stem


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda s: st.lists(s, max_size=3)))
def test_any_value_in_any_field_is_explained_not_raised(value: object) -> None:
    """Whatever a field holds, the error is a list of sentences."""
    from pydantic import ValidationError

    from kdpipe.config.diagnostics import explain

    for field in StudySpec.model_fields:
        try:
            StudySpec.model_validate({field: value})
        except ValidationError as error:
            text = explain(error, StudySpec, lambda where: ".".join(map(str, where)))
            assert text
            assert "Traceback" not in text


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"measures": {"k": 5, "second_k": 5}}, "measures.second_k"),
        ({"methods": [{"method": "plain"}, {"method": "label-smoothing", "label": "teacher"}]}, "another label"),
        (
            {"methods": [{"method": "plain"}, {"method": "label-smoothing", "label": "matched-accuracy"}]},
            "another label",
        ),
    ],
)
def test_what_evidence_could_not_tell_apart_is_refused(section: dict, said: str) -> None:
    study = {
        "name": "s", "title": "S", "teacher": {"arch": "resnet18"}, "students": [{"name": "a", "arch": "resnet18"}],
        "methods": [{"method": "plain"}],
    }  # fmt: skip
    with pytest.raises(ValidationError, match=said):
        StudySpec.model_validate(study | section)
