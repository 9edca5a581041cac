"""The page of the study: provenance, tables to take away, glossary, citing, and how to open it in Python."""

from __future__ import annotations

import io
import json
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from app_pages import chart_rows, says, show
from synthetic import MANY, Recipe, write_toy_study
from visits import Visitor

from kdpipe.app.shared import catalog
from kdpipe.app.study import glossary, provenance
from kdpipe.artifacts.schema import SCHEMA_VERSION, TABLES
from kdpipe.artifacts.store import Study, load_study, open_study
from kdpipe.vocabulary import MEANINGS

PAGE = "pages/11_Study.py"
FILES, WORDS, CITE = "tables and downloads", "glossary", "figures and citing"
EXPECTED = (
    "knowledge distillation", "teacher", "student", "plain", "control", "null", "seed", "layer", "relative depth",
    "view", "projection", "gap", "probe image", "t-sne", "ivis", "pca", "consensus map", "perplexity",
    "trustworthiness", "continuity", "silhouette", "knn", "early area", "advance", "mcnemar", "ece", "holm",
    "benjamini", "bootstrap",
)  # fmt: skip


# ------------------------------------------------------------------------------- about


def test_the_page_tells_how_the_study_was_made(root: Path) -> None:
    app = show(PAGE, **{"open-study-file": "true"})
    study = open_study(root / "toy")
    assert not app.error
    words = says(app.markdown)
    for part in (study.hash, "0\\.1.0", "torch 2\\.14", "made up", "made-up digits", "CC0", "1,000 to train"):
        assert part in words
    resolved = json.loads(app.code[0].value)
    assert resolved == study.record["study"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, f"0\\.1.0, artifact schema {SCHEMA_VERSION}"),
        ({"commit": "0123456789abcdef"}, f"0\\.1.0, commit `0123456789ab`, artifact schema {SCHEMA_VERSION}"),
        ({"commit": "0123456789abcdef+dirty"}, "commit `0123456789ab` with changes that are in no commit, artifact"),
        ({"judged_with": {"kdpipe": "0.3.0", "commit": None}}, f"schema {SCHEMA_VERSION}; judged again by 0\\.3.0"),
    ],
)
def test_the_page_tells_which_commit_made_and_judged_a_study(root: Path, more: dict[str, Any], said: str) -> None:
    study = open_study(root / "toy")
    facts = dict(provenance.made_with(Study(study.folder, {**study.record, **more})))
    assert said in facts["kdpipe"]


def test_networks_are_counted_by_kind(root: Path) -> None:
    write_toy_study(root, MANY)
    study = open_study(root / "many")
    rows = provenance.by_role(catalog.networks(study))
    assert rows["networks"].sum() == study.networks.height
    assert rows.filter(role="distilled")["kind"].n_unique() == len(MANY.methods)
    assert f"{study.networks.height} networks" in says(show(PAGE, study="many").markdown)


def test_times_are_drawn_by_stage_and_missing_ones_said(root: Path) -> None:
    app = show(PAGE)
    rows = chart_rows(app)
    assert dict(rows.select("stage", "seconds").rows()) == {"train": 12.5, "maps": 3.0}
    assert "15.5 s in all" in app.get("vega_lite_chart")[0].proto.alt
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), diverged=False))
    (root / "odd" / "timings.json").unlink()
    app = show(PAGE, study="odd")
    assert not app.error and "no timings" in says(app.info)


def test_what_is_missing_is_said_with_what_fills_it(root: Path) -> None:
    missing = {"map ivis teacher/layer1": "ivis maps need tensorflow"}
    recipe = Recipe(name="odd", samples=40, seeds=(0,), fractions=(0.1,), diverged=False, missing=missing, maps=False)
    write_toy_study(root, recipe)
    app = show(PAGE, study="odd")
    assert "1 stage of this study failed" in says(app.warning) and "need tensorflow" in says(app.text)
    words = says(app.markdown)
    assert "- `maps`: `projectors` under `[maps]`" in words
    assert "No stage failed" not in says(app.caption) and "No stage failed" in says(show(PAGE, study="toy").caption)


def test_every_table_that_can_be_empty_has_a_remedy() -> None:
    always = {"networks", "layers", "samples", "predictions", "history", "layer_measures", "sample_measures"}
    always |= {"network_measures", "answers", "methods", "measures", "claims"}
    assert TABLES.keys() - always <= provenance.FILLS.keys()


# ------------------------------------------------------------------------------- tables


def test_all_tables_are_listed_as_the_catalog_says(root: Path) -> None:
    app = show(PAGE, part=FILES)
    shown = app.dataframe[0].value
    files = open_study(root / "toy").record["files"]
    assert dict(zip(shown["table"], shown["sha256"], strict=True)) == {
        file.removesuffix(".parquet"): entry["sha256"] for file, entry in files.items()
    }
    assert list(shown["bytes"]) == [files[f"{name}.parquet"]["bytes"] for name in shown["table"]]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_taken_away_as_it_is(root: Path, table: str) -> None:
    study = open_study(root / "toy")
    content = provenance.parquet_of(study, table)
    assert sha256(content).hexdigest() == study.record["files"][f"{table}.parquet"]["sha256"]
    frame = study.frame(table)
    read = pl.read_csv(provenance.csv_of(study, table), infer_schema=False)
    assert read.columns == frame.columns and read.height == frame.height


def test_a_picked_table_shows_its_columns_and_first_rows(root: Path) -> None:
    app = show(PAGE, part=FILES, table="samples")
    assert not app.error
    columns, first = app.dataframe[1].value, app.dataframe[2].value
    assert list(columns["column"]) == list(TABLES["samples"].columns)
    assert "image" not in first.columns and len(first) == 20
    (root / "toy" / "samples.parquet").unlink()
    assert "toy/samples.parquet is missing" in says(show(PAGE, part=FILES, table="samples").error)


def test_the_zip_opens_as_a_study(root: Path, tmp_path: Path) -> None:
    study = open_study(root / "toy")
    with zipfile.ZipFile(io.BytesIO(provenance.zipped(study))) as archive:
        archive.extractall(tmp_path / "away")
    taken = load_study(tmp_path / "away" / "toy")
    assert taken.hash == study.hash and taken.networks.equals(study.networks) and taken.timings == study.timings


def test_sizes_and_times_as_people_say_them() -> None:
    assert [provenance.size(n) for n in (12, 4_300, 12_400_000, 2.5e9)] == ["12 bytes", "4.3 kB", "12.4 MB", "2.5 GB"]
    assert [provenance.duration(n) for n in (0.02, 90, 7200)] == ["0.02 s", "1.5 min", "2 h"]


# ------------------------------------------------------------------------------- words


def test_the_glossary_has_the_words_of_the_pages_in_order(root: Path) -> None:
    study = open_study(root / "toy")
    found = glossary.entries(study)
    names = [entry.name.casefold() for entry in found]
    assert names == sorted(names)
    for word in (*EXPECTED, *MEANINGS):
        assert any(name.startswith(word) for name in names), word
    assert {"CKA", "Silhouette"} <= {entry.name for entry in found if entry.kind == glossary.MEASURE}
    assert len({glossary.called(entry) for entry in found}) == len(found), "each can be picked"
    for entry in glossary.TERMS:
        assert entry.text.count(". ") <= 2 and entry.text.endswith("."), entry.name


def test_verdicts_mean_in_the_glossary_what_they_mean_elsewhere() -> None:
    said = {entry.name.casefold(): entry.text for entry in glossary.TERMS}
    for verdict, meaning in MEANINGS.items():
        assert said[verdict] == f"Verdict: {meaning[:1].lower()}{meaning[1:]}"


def test_a_word_can_be_linked_and_kinds_be_picked(root: Path) -> None:
    app = show(PAGE, part=WORDS, term="Relative depth")
    words = says(app.markdown)
    assert "layers of two networks are paired by it" in words.lower() and "Perplexity" not in words
    app = show(PAGE, part=WORDS, words=glossary.METHOD)
    assert not app.error and "Loss" in says(app.markdown) and "Perplexity" not in says(app.markdown)
    app = show(PAGE, part="nonsense", term="<script>")
    assert not app.error and "is not offered here" in says(app.caption)


def test_what_files_say_stays_text() -> None:
    entry = glossary.Entry("*x* <b>", "[a](http://b) `c`", "_d_", glossary.METHOD)
    shown = glossary.as_markdown([entry])
    assert "\\*x\\* \\<b\\>" in shown and "\\[a\\](http" in shown


# ------------------------------------------------------------------------------- citing and opening


def test_the_citation_names_the_software_the_study_and_the_paper(root: Path) -> None:
    app = show(PAGE, part=CITE)
    study = open_study(root / "toy")
    ours, paper = app.code[0].value, app.code[1].value
    assert ours.startswith("@software{kdpipe,") and study.hash in ours and "version = {0.1.0}" in ours
    assert "Shows why knowledge distillation works" in ours and "The kdpipe authors" in ours
    assert "Visualizing the embedding space to explain the effect of knowledge distillation" in paper
    assert all(text.count("{") == text.count("}") for text in (ours, paper))
    assert "SVG" in says(app.markdown) and "hash" in says(app.markdown)


def test_the_code_to_open_a_study_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdpipe.artifacts.store.ARTIFACTS", root)
    monkeypatch.chdir(root.parent)
    for what, code in provenance.in_python(open_study(root / "toy")).items():
        if what.startswith("pandas"):
            pytest.importorskip("pandas")
        exec(compile(code, what, "exec"), {})


# ------------------------------------------------------------------------------- in a browser


@pytest.mark.browser
def test_tables_and_the_zip_are_downloaded_when_asked(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    page.goto(visitor.address + "/Study?study=toy&part=tables+and+downloads&table=similarity")
    page.wait_for_selector(".st-key-table_parquet button")
    visitor.settle()
    for key, name in (("table_parquet", "similarity.parquet"), ("table_csv", "similarity.csv"), ("zip", "toy.zip")):
        with page.expect_download() as got:
            page.locator(f".st-key-{key} button").click()
        assert got.value.suggested_filename == name
        got.value.save_as(tmp_path / name)
    assert pl.read_parquet(tmp_path / "similarity.parquet").height == pl.read_csv(tmp_path / "similarity.csv").height
    assert zipfile.ZipFile(tmp_path / "toy.zip").testzip() is None


@pytest.mark.browser
def test_a_word_is_found_by_typing_and_stays_in_the_address(visitor: Visitor) -> None:
    page = visitor.page
    page.goto(visitor.address + "/Study?study=toy&part=glossary")
    page.wait_for_selector(".st-key-term input")
    visitor.settle()
    page.locator(".st-key-term input").fill("perple")
    page.keyboard.press("Enter")
    page.wait_for_function("location.search.includes('term=Perplexity')")
    page.get_by_text("Multiply-accumulates").wait_for(state="detached")
    assert page.get_by_text("how many neighbours of an image t-SNE tries to keep").is_visible()
