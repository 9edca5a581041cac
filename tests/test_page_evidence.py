"""The page of evidence: the verdicts of the artifacts, what they mean, and what remains after its controls."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from app_pages import says, show
from synthetic import LAYERS, Recipe, write_toy_study
from visits import CHART, Visitor

from kdpipe.app.shared import verdicts as evidence
from kdpipe.artifacts.store import open_study
from kdpipe.vocabulary import CONTROL_KINDS, ENDPOINTS, MEANINGS, budget_in_words

PAGE = "pages/5_Evidence.py"


def test_verdicts_are_those_of_the_artifacts(root: Path) -> None:
    study = open_study(root / "toy")
    app = show(PAGE)
    shown = app.table[0].value
    for row in study.verdicts.filter(claim="earlier").iter_rows(named=True):
        name = f"{row['method_label']}, {budget_in_words(row['label_fraction'])}"
        found = shown[shown["comparison"] == name]["earlier"].item()
        assert found.endswith(row["title"]) and found.startswith(":gray[:material/straighten:]")
    assert evidence.primary(study)["sentence"] in says(app.text)
    assert "more seeds: 8 in all" in says(app.caption)
    assert "**estimate only**: Too few seeds" in says(app.markdown)
    assert "**reversed**" not in says(app.markdown), "only what occurs is explained"


def test_every_verdict_has_a_meaning_and_an_icon_of_its_own() -> None:
    assert set(MEANINGS) == set(evidence.LOOKS)
    icons = [icon for icon, _ in evidence.LOOKS.values()]
    assert len(set(icons)) == len(icons), "colour alone tells no verdict from another"


def test_labels_of_methods_are_text_and_never_markdown(root: Path) -> None:
    odd = pl.DataFrame(
        {"claim": ["earlier"], "student": ["small"], "method_label": ["kd_*x*_[a](b)"], "label_fraction": [0.1]}
        | {"verdict": ["explained"], "title": ["explained by a_b_<i>"], "controls_not_asked": [2]}
    )
    table = evidence.in_table(odd)
    assert table["comparison"].item().startswith(r"kd\_\*x\*\_\[a\](b)")
    assert r"a\_b\_\<i\>" in table["earlier"].item()


def test_a_comparison_is_read_claim_by_claim(root: Path) -> None:
    study = open_study(root / "toy")
    app = show(PAGE, cell="rkd, all labels")
    rows = study.verdicts.filter(method_label="rkd", label_fraction=1.0, student="small")
    labels = [block.label for block in app.expander]
    titles = dict(study.claims.select("claim", "title").iter_rows())
    for row in rows.iter_rows(named=True):
        assert any(titles[row["claim"]] in label and row["title"] in label for label in labels)
        assert row["sentence"] in says(app.text)


@pytest.mark.parametrize("endpoint", list(ENDPOINTS))
def test_what_remains_of_an_effect_is_drawn_from_the_comparisons(root: Path, endpoint: str) -> None:
    comparisons = open_study(root / "toy").comparisons
    app = show(PAGE, cell="rkd, all labels", endpoint=ENDPOINTS[endpoint].full_title)
    chart = app.get("vega_lite_chart")[0].proto
    frames = [pl.read_ipc_stream(dataset.data.data) for dataset in chart.datasets]
    rows = next(frame for frame in frames if "estimate" in frame.columns)
    mine = comparisons.filter(method_label="rkd", label_fraction=1.0, measure=endpoint, quantity="early_abc")
    expected = dict(mine.select("against", "estimate").iter_rows())
    assert dict(rows.select("name", "estimate").iter_rows()) == pytest.approx(expected, rel=1e-5)
    assert f"plain {expected['plain']:+.3f} (" in chart.alt


def test_a_control_that_crosses_zero_is_marked_by_shape_too(root: Path) -> None:
    rows = pl.DataFrame(
        {"measure": "silhouette", "quantity": "early_abc", "against": ["plain", "control", "control"]}
        | {"control": [None, "a", "b"], "control_kind": [None, "instead", "without"]}
        | {"estimate": [0.1, 0.05, 0.01], "low": [0.05, 0.01, -0.01], "high": [0.2, 0.1, 0.02], "per_seed": [[0.1]] * 3}
    )
    shown = evidence.held_against(rows, "silhouette")
    assert shown["outcome"].to_list() == [evidence.AGAINST_PLAIN, evidence.PASSED, evidence.FAILED]
    assert shown["name"].to_list() == ["plain", "a", "b - plain"]
    assert "remains after 1 of 2 controls" in evidence.forest_in_words(shown)
    drawn = evidence.forest(shown, 0.005, "area").to_dict()
    shapes = [layer["encoding"]["shape"]["scale"] for layer in drawn["layer"] if "shape" in layer["encoding"]]
    assert len(set(shapes[0]["range"])) == 3


def test_an_effect_over_a_null_of_nothing_is_said_in_words() -> None:
    for ratio in (float("inf"), float("-inf")):
        assert evidence.null_in_words(ratio) == "Other initial weights alone change nothing here."
    assert evidence.null_in_words(2.5) == "2.5 times what other initial weights alone change."


def test_every_control_is_told_in_words_with_what_it_asks(root: Path) -> None:
    study = open_study(root / "toy")
    rows = pl.DataFrame(
        {"control": ["label-smoothing", "kd-second-seed", "matched-accuracy", "odd_one"]}
        | {"control_method": ["label-smoothing", "second-seed", None, "odd"]}
        | {"control_kind": ["instead", "instead", "without", "without"]}
    )
    told = evidence.controls_in_words(study, rows)
    assert told["control"].to_list() == ["label-smoothing", "kd-second-seed", "matched-accuracy", r"odd\_one"]
    summaries = dict(study.methods.select("method", "summary").rows())
    assert told["what it is"][1] == summaries["second-seed"] and "less accurate one" in told["what it is"][2]
    assert told["what it is"][3] == "", "the study does not have it"
    assert told["what it asks"].to_list() == [CONTROL_KINDS[kind] for kind in rows["control_kind"]]


def test_the_least_p_is_that_of_seeds_of_one_sign() -> None:
    said = evidence.least_p({"p": 0.3, "seeds": 8})
    assert "8 seeds of one sign give p = 0.0078" in said and "0.016 once corrected" in said
    assert evidence.least_p(None) == evidence.least_p({"p": None, "seeds": 3}) == ""


def test_a_study_of_two_layers_has_no_early_area_and_says_so(root: Path) -> None:
    write_toy_study(root, Recipe(name="odd", samples=40, seeds=(0, 1), fractions=(0.1,), student_layers=LAYERS[:2]))
    app = show(PAGE, study="odd")
    assert not app.error and "that takes three layers" in says(app.info)


def test_all_quantities_can_be_saved_as_csv(root: Path) -> None:
    rows = evidence.flat(open_study(root / "toy").comparisons)
    assert rows["per_seed"].dtype == pl.String and "per_seed" in rows.write_csv().splitlines()[0]


@pytest.mark.browser
def test_a_comparison_is_picked_and_stays_in_the_address(visitor: Visitor) -> None:
    page = visitor.open("/Evidence?study=toy&cell=rkd, 10%25 of labels&endpoint=kNN accuracy (channel means)")
    assert page.locator(".st-key-cell input").input_value() == "rkd, 10% of labels"
    page.locator(f"{CHART} canvas").first.wait_for()
    page.locator(".st-key-endpoint").get_by_text("silhouette (projection)").click()
    visitor.settle()
    assert "endpoint" not in page.url and "cell=rkd" in page.url  # a default stays out of the address
    link = page.get_by_role("link", name="Curves, advance, every way to measure")
    assert "comparison=" in link.get_attribute("href")
    link.click()
    page.wait_for_url(lambda url: "/Measures" in url)
    page.locator(".st-key-comparison input").wait_for()
    visitor.settle()
    assert page.locator(".st-key-comparison input").input_value() == "rkd, 10% of labels"
    assert page.locator(".st-key-study input").input_value() == "toy"
    page = visitor.open("/Evidence?study=toy")
    link = page.get_by_role("link", name="Curves, advance, every way to measure")
    assert "comparison=" not in link.get_attribute("href"), "what a page shows anyway stays out of its address"


def test_a_control_after_which_little_remains_is_named() -> None:
    rows = pl.DataFrame({"name": ["a", "b"], "outcome": [evidence.PASSED] * 2, "low": [0.001, 0.02]})
    assert evidence.within_band(rows, 0.005).endswith("the study's margin, after a.")
    assert evidence.within_band(rows, 0.0) == evidence.within_band(rows.tail(1), 0.005) == ""


def test_both_endpoints_are_counted_where_both_judge() -> None:
    rows = pl.DataFrame(
        {"measure": ["silhouette", "silhouette", "knn_accuracy", "knn_accuracy", "knn_accuracy"]}
        | {"outcome": ["remains", "remains", "remains", "explains", "not asked"]}
    )
    said = evidence.remains_in_words(rows, "controls")
    assert said == "Remains after 2 of 2 controls on silhouette, 1 of 2 on kNN accuracy"
    assert evidence.remains_in_words(rows[:2], "controls") == "Remains after 2 of 2 controls"
    assert evidence.remains_in_words(rows[4:], "controls") == ""
