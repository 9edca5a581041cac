"""The page of one image: which one, its votes layer by layer, the answers, its neighbours, and the heat-maps."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from app_pages import chart_rows, says, show
from PIL import Image
from synthetic import LAYERS, MANY, Recipe, write_toy_study
from visits import Visitor

from kdpipe.app.sample import layers as sample
from kdpipe.app.sample import probabilities
from kdpipe.app.shared import catalog
from kdpipe.app.shell import images
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import open_study, write_study
from kdpipe.measures import prediction_depth

SAMPLE = "pages/8_Sample.py"
HEADLINE = [
    "teacher", *(f"{name}, seed {seed}" for name in ("plain", "second initialisation", "kd") for seed in (0, 1)),
]  # fmt: skip


def html(app: object) -> str:
    return " ".join(element.proto.body for element in app.get("html"))  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------- which image


def test_every_part_is_drawn_with_words_for_it(root: Path) -> None:
    app = show(SAMPLE, sample="7", silhouette="true")
    assert not app.error and not app.info
    assert [header.value for header in app.header] == [
        "Through the layers", "The answers, and what is behind them", "What lies near", "Where they look",
    ]  # fmt: skip
    drawn = app.get("vega_lite_chart")
    assert len(drawn) == 3 and all(len(chart.proto.alt) > 30 for chart in drawn)
    assert "image 7:" in html(app)


def test_without_a_number_it_is_the_image_that_was_fixed_at_most_seeds(root: Path) -> None:
    flips = open_study(root / "toy").sample_flips.filter(pl.col("network_id").str.starts_with("small-kd-f0.1"))
    times = flips.filter(outcome="fixed").group_by("sample_id").len()
    best = times.filter(pl.col("len") == pl.col("len").max())["sample_id"].to_list()
    app = show(SAMPLE)
    assert any(f"image {one}: " in html(app) for one in best)
    assert "fixed at most seeds" in says(app.caption)


@pytest.mark.parametrize("name", ["Random", "Fixed", "Broken", "Hardest to agree on"])
def test_a_shortcut_puts_another_image_into_the_address(root: Path, name: str) -> None:
    app = show(SAMPLE, of="3")
    seen = []
    for _ in range(3):
        next(button for button in app.button if button.label == name).click().run()
        assert not app.exception
        seen.append(app.selectbox(key="sample").value)
    labels = dict(open_study(root / "toy").samples.select("sample_id", "class_name").rows())
    assert {labels[one] for one in seen} == {"3"}
    assert len(set(seen)) > 1 or name in ("Fixed", "Broken")


def test_images_that_networks_answer_most_differently_come_first(pristine: Path) -> None:
    study = open_study(pristine / "toy")
    first, *_, last = sample.disagreed(study, catalog.networks(study))
    distinct = study.predictions.group_by("sample_id").agg(pl.col("predicted").n_unique())
    assert distinct.filter(sample_id=first)["predicted"].item() > distinct.filter(sample_id=last)["predicted"].item()


def test_a_link_with_what_is_not_there_falls_back_and_says_so(root: Path) -> None:
    app = show(SAMPLE, sample="999", of="<i>", view="no", layer="no", temperature="hot", networks=["nobody"])
    assert not app.error
    assert says(app.caption).count("is not offered here") == 6 and "<i>" not in says(app.caption)


def test_what_became_of_the_image_is_told(root: Path) -> None:
    study = open_study(root / "toy")
    flip = study.sample_flips.filter(network_id="small-kd-f0.1-s0", outcome="broken")["sample_id"][0]
    assert "kd: " in says(show(SAMPLE, sample=str(flip)).text)
    assert "broken (plain right, it wrong) at" in says(show(SAMPLE, sample=str(flip)).text)


# ------------------------------------------------------------------------------- through the layers


def test_the_votes_are_those_of_the_table(root: Path) -> None:
    study = open_study(root / "toy")
    rows = chart_rows(show(SAMPLE, sample="7"), holding="vote")
    assert rows["label"].unique(maintain_order=True).sort().to_list() == sorted(HEADLINE)
    truth = study.samples.filter(sample_id=7)["class_name"].item()
    layers = rows.filter(pl.col("layer") != "final answer")
    assert layers.height == len(HEADLINE) * len(LAYERS)
    assert set(layers["text"]) == {f"✓ {truth}"}  # as the made-up study has it
    answers = study.frame("predictions", sample_id=7, network_id="teacher").row(0, named=True)
    last = rows.filter(label="teacher", layer="final answer")["text"].item()
    assert last.startswith(("✗", "✓")[answers["correct"]]) and str(answers["predicted"]) in last
    drawn = rows.filter(label="teacher", layer="layer1")["silhouette"].item()
    whole = {"network_id": "teacher", "layer": "layer1", "sample_id": 7, "view": "projection"}
    assert drawn == study.frame("sample_measures", **whole)["silhouette"].item(), "the view that maps are of, at first"


def test_where_layers_settle_is_told_apart_for_right_and_wrong_answers() -> None:
    answers = pl.DataFrame({"label": ["a", "b"], "series": ["kd"] * 2, "predicted": [3, 5], "correct": [True, False]})
    rows = pl.DataFrame(
        {"label": ["a", "b"], "series": ["kd"] * 2, "settled": [True] * 2, "relative_depth": [0.5, 1.0]}
    )
    said = sample.in_words(rows, answers, "cat")
    assert "kd at depth 50% (right answer, 1 of 2 networks), kd at depth 100% (wrong answer, 1 of 2 networks)" in said


def test_layers_settle_where_the_prediction_depth_says(pristine: Path) -> None:
    study = open_study(pristine / "toy")
    chosen = catalog.networks(study).filter(pl.col("network_id").is_in(["teacher", "small-kd-f0.1-s0"]))
    rng = np.random.default_rng(0)
    for _ in range(20):
        votes = rng.integers(0, 2, (len(LAYERS), 1))
        table = study.frame("sample_measures", network_id="teacher", sample_id=3, view="gap")
        order = dict(study.frame("layers", network_id="teacher", view="gap").select("layer", "order").rows())
        shown = table.with_columns(
            knn_vote=pl.Series([votes[order[layer], 0] for layer in table["layer"]], dtype=pl.Int32)
        )
        answers = sample.told(study, chosen.filter(network_id="teacher"), 3).with_columns(predicted=pl.lit(1, pl.Int32))
        depth = int(prediction_depth(votes, np.array([1]))[0])
        rows = sample.votes(_with(study, shown), chosen, answers, 3, "gap")
        expected = {} if depth == len(LAYERS) else {"teacher": LAYERS[depth]}
        assert sample.settled_at(rows) == expected


class _with:  # noqa: N801
    """A study with one table replaced in memory."""

    def __init__(self, study: object, sample_measures: pl.DataFrame) -> None:
        self.study, self.replaced = study, sample_measures

    def frame(self, name: str, *where: pl.Expr, **more: Any) -> pl.DataFrame:
        if name == "sample_measures":
            return self.replaced.filter(*where).select(more["columns"])
        return self.study.frame(name, *where, **more)  # type: ignore[attr-defined, no-any-return]

    def __getattr__(self, name: str) -> object:
        return getattr(self.study, name)


def test_networks_of_other_depths_share_the_picture(root: Path) -> None:
    write_toy_study(root, Recipe(name="short", samples=40, seeds=(0,), fractions=(0.1,), student_layers=LAYERS[:3]))
    app = show(SAMPLE, study="short", layer="layer2")
    assert not app.error
    ends = chart_rows(app, holding="vote").filter(pl.col("layer") != "final answer")
    assert set(ends.group_by("label").agg(pl.col("end").max())["end"]) == {1.0}
    assert ends.group_by("label").len()["len"].sort().to_list() == [3, 3, 3, 4]


def test_of_many_networks_the_headline_s_are_drawn_and_any_can_be_picked(root: Path) -> None:
    write_toy_study(root, MANY)
    app = show(SAMPLE, study="many")
    assert not app.error and len(app.multiselect(key="networks").value) <= sample.FEW
    assert len(app.multiselect(key="networks").options) > 100
    labels = ["teacher", "plain at step 20, 10% of labels, seed 0", "raw pixels", "untrained student"]
    app = show(SAMPLE, study="many", networks=labels)
    assert not app.error
    assert set(labels) <= set(chart_rows(app, holding="vote")["label"])


def test_class_names_are_text_and_never_markdown(root: Path) -> None:
    study = open_study(root / "toy")
    evil = "<b>**x**</b>"
    record = {name: value for name, value in study.record.items() if name not in ("files", "sha256")}
    record["data"] = {**record["data"], "class_names": [evil, *record["data"]["class_names"][1:]]}
    renamed = pl.when(pl.col("label") == 0).then(pl.lit(evil)).otherwise("class_name").alias("class_name")
    frames = {name: study.frame(name) for name in TABLES}
    frames["samples"] = frames["samples"].with_columns(renamed)
    write_study(study.folder, record, frames, study.timings)
    one = study.samples.filter(label=0)["sample_id"][0]
    for app in (show(SAMPLE, sample=str(one)), show("pages/6_Flips.py", of=evil)):
        assert not app.error
        assert evil not in html(app) + says(app.caption) + says(app.markdown)


# ------------------------------------------------------------------------------- answers


def test_shares_are_the_softmax_of_the_logits_at_the_temperature(root: Path) -> None:
    study = open_study(root / "toy")
    logits = np.array(study.frame("predictions", sample_id=7, network_id="teacher")["logits"][0].to_list())
    for temperature in (1, 4):
        rows = chart_rows(show(SAMPLE, sample="7", temperature=str(temperature)), 1, "mean").filter(series="teacher")
        expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        shown = dict(rows.select("class_name", "mean").rows())
        assert [shown[str(index)] for index in range(10)] == pytest.approx(expected.tolist(), rel=1e-4)


def test_it_begins_with_the_temperature_of_the_loss(root: Path) -> None:
    app = show(SAMPLE)
    assert app.select_slider(key="temperature").value == "4" and "this study's loss uses 4" in says(app.caption)
    table = next(table.value for table in app.table if "1st" in table.value.columns)
    assert table["network"].tolist() == [verbatim(label) for label in HEADLINE]


def test_a_class_name_cannot_end_an_expression() -> None:
    for name in ("it's", 'a "b"', "a\\", "a\nb"):
        shares = pl.DataFrame({"series": ["kd"], "role": ["distilled"], "class_name": [name], "share": [1.0]})
        chart, _ = probabilities.dark_knowledge(shares, {"kd": "#e76300"}, name)
        expression = chart.to_dict()["layer"][0]["encoding"]["y"]["axis"]["labelExpr"]
        assert expression == f"datum.value === {json.dumps(name)} ? '✓ ' + datum.value : datum.value"


# ------------------------------------------------------------------------------- neighbours and heat-maps


def test_neighbours_are_the_stored_ones_in_their_order(root: Path) -> None:
    study = open_study(root / "toy")
    app = show(SAMPLE, sample="7", layer="layer2", near_view="channel means (gap)")
    stored = study.frame("neighbours", sample_id=7, layer="layer2", view="gap", network_id="teacher")["ids"][0]
    names = dict(study.samples.select("sample_id", "class_name").rows())
    same = sum(names[one] == names[7] for one in stored[: sample.NEIGHBOURS])
    assert f"teacher, at layer2: {same} of {sample.NEIGHBOURS} are of its class" in says(app.text)
    assert "are the teacher's too" in says(app.text)


def test_missing_tables_are_named_with_how_to_make_them(root: Path) -> None:
    study = open_study(root / "toy")
    empty = {name: study.frame(name).clear() for name in ("explanations", "sample_flips")}
    frames = {name: empty.get(name, study.frame(name)) for name in TABLES}
    record = {name: value for name, value in study.record.items() if name not in ("files", "sha256")}
    write_study(study.folder, record, frames, study.timings)
    app = show(SAMPLE)
    assert not app.error and "explanations = true" in says(app.info)
    assert "this is the first one" in says(app.caption) and "is not known" in says(app.text)
    write_toy_study(root, Recipe(name="flat", samples=40, seeds=(0,), maps=False))
    app = show(SAMPLE, study="flat")
    assert not app.error and "Neighbours are stored for networks with maps only" in says(app.info)


def test_heat_maps_lie_over_the_image_with_their_cosine(root: Path) -> None:
    study = open_study(root / "toy")
    cosine = study.frame("explanations", sample_id=7, network_id="small-kd-f0.1-s0")["cosine"].item()
    assert f"kd, seed 0: cosine {cosine:.2f}" in html(show(SAMPLE, sample="7"))
    assert sample.alike(None) == "no evidence anywhere"


# ------------------------------------------------------------------------------- in a browser


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(40, 12), (12, 40), (16, 16)])
def test_heat_maps_lie_over_the_image_alone(width: int, height: int) -> None:
    """An image that is not square leaves margins in its frame; the cells end where the picture does."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "WEBP")
    assert images.size_of(buffer.getvalue()) == (width, height)
    html = images.heat_strip([(buffer.getvalue(), bytes(range(6)), 2, "a network")])
    place = re.search(r"left:([\d.]+)px;top:([\d.]+)px;width:([\d.]+)px;height:([\d.]+)px", html)
    assert place is not None
    left, top, across, down = map(float, place.groups())
    assert across / down == pytest.approx(width / height, rel=1e-3)
    assert max(across, down) == 106 and (2 * left + across, 2 * top + down) == pytest.approx((112, 112), abs=0.01)
    assert "grid-template:repeat(2,1fr)/repeat(3,1fr)" in html and html.count("<span") == 6


def test_the_size_of_what_is_no_image_is_a_square() -> None:
    assert images.size_of(b"no image") == (1, 1)


def test_shortcuts_change_the_address_and_the_address_the_image(visitor: Visitor) -> None:
    page = visitor.open("/Sample?study=toy&sample=5")
    picture = page.locator(".kd-strip figure.large")
    assert "image 5:" in picture.inner_text()
    page.get_by_role("button", name="Fixed").click()
    visitor.settle()
    page.wait_for_function("!location.search.includes('sample=5&') && !location.search.endsWith('sample=5')")
    number = page.url.split("sample=")[1].split("&")[0]
    page.reload()
    picture.wait_for()
    visitor.settle()
    assert f"image {number}:" in picture.inner_text()
