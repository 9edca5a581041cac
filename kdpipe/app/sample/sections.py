"""The parts of the page of one image: its layers, answers, neighbours and heat-maps."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from kdpipe.app.sample import layers, probabilities
from kdpipe.app.shared import catalog, charts, lacks
from kdpipe.app.shell import images, page, pick, theme
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import FACTORS


def show_image(study: Study, networks: pl.DataFrame, row: dict[str, Any]) -> None:
    """The image, its factors, and what distillation did to its answer."""
    left, right = st.columns([1, 4], vertical_alignment="center")
    with left:
        st.html(images.strip([(row["image"], f"image {row['sample_id']}: {row['class_name']}", theme.GREY)], True))
    with right:
        said = layers.fate(study, networks, row["sample_id"])
        alone = "What distillation did to its answer is not known: no student here has a plain one."
        st.text("\n".join(said) or page.why_not(study, "logits", alone))
        known = {name: row[name] for name in FACTORS if row[name] is not None}
        if known:
            st.caption("; ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in known.items()))


def show_layers(
    study: Study, chosen: pl.DataFrame, answers: pl.DataFrame, row: dict[str, Any], colours: dict[str, str]
) -> pl.DataFrame:
    """What each layer takes the image for; returns the votes, which the answers refer to."""
    st.header("Through the layers")
    stored = sorted(study.layers["view"].unique().to_list())
    view = pick.one(
        "How a layer's map became a vector", stored, "view", first=stored[-1], words=catalog.view_in_words,
        look="segments",
    )  # fmt: skip
    rows = layers.votes(study, chosen, answers, row["sample_id"], view)
    if rows.is_empty():
        st.info("These networks have no votes of single images in this view.")
        return rows
    words = layers.in_words(rows, answers, row["class_name"])
    chart = layers.layer_strips(rows, answers, study.record["data"]["class_names"])
    page.chart(study, chart, key="layers", alt=words)
    k = ((study.record.get("study") or {}).get("measures") or {}).get("k")
    page.notes(
        verbatim(words),
        "A cell is a layer, a row's layers from the first to the last: the class most frequent "
        f"among the {k or 'k'} nearest other probe images there (kNN vote), ✓ where it is the image's own. Right: the "
        "network's answer and confidence. **Pink bar**: the prediction depth, the layer from which all votes are the "
        "final answer; rows without one never settle. “Second initialisation”: plain again from other initial weights. "
        "Networks with other numbers of layers have wider or narrower cells. One image tells of itself alone: the "
        "Measures page has the means.",
    )
    columns = ["label", "layer", "relative_depth", "vote", "verdict", "settled", "silhouette"]
    page.folded_table(rows.select(columns), f"{study.name}-image-{row['sample_id']}-{view}", "votes")
    if pick.switch("Silhouette by depth", "silhouette"):
        curves = layers.as_curves(rows)
        chart = charts.depth_curves(curves, colours, "silhouette of this image", one_line_a_seed=True)
        page.chart(study, chart, key="silhouettes", alt="The image's silhouette by relative depth, a line a network")
        st.caption(
            "How much nearer the image lies to its own class than to the nearest other one: 1 far nearer, 0 between "
            "two, below 0 nearer to another. A line a network; a dot a layer."
        )
    return rows


def show_answers(
    study: Study, networks: pl.DataFrame, answers: pl.DataFrame, rows: pl.DataFrame, row: dict[str, Any],
    colours: dict[str, str],
) -> None:  # fmt: skip
    """The networks' probabilities of the image, softened, and their three likeliest classes."""
    st.header("The answers, and what is behind them")
    names = study.record["data"]["class_names"]
    table = probabilities.top_three(answers, names, layers.settled_at(rows) if rows.height else {})
    if table.is_empty():
        st.info(page.why_not(study, "logits", "These networks answered no image."))
        return
    offered, first = probabilities.temperatures(study, networks)
    temperature = pick.along(
        "Temperature", [f"{one:g}" for one in offered], "temperature", first=f"{first:g}", width=420
    )
    shares = probabilities.softened(answers, names, float(temperature))
    chart, words = probabilities.dark_knowledge(shares, colours, row["class_name"])
    page.chart(study, chart, key="beliefs", alt=f"At temperature {temperature}: {words}")
    page.notes(
        "Bars, the teacher; marks, mean over the networks picked of each kind; lines, lowest to highest. ✓ is the "
        "true "
        f"class. Temperature {temperature}" + (f" (this study's loss uses {first:g})." if first != 1 else "."),
        "The softmax of each network's logits over the temperature. At 1 these are the network's own "
        "probabilities; a higher temperature shows how it ranks the classes it does *not* answer, the **dark "
        "knowledge** that distillation passes on."
        + (
            f" The {probabilities.MOST_CLASSES} largest of {len(names)} classes."
            if len(names) > probabilities.MOST_CLASSES
            else ""
        ),
    )
    st.table(
        probabilities.in_cells(table),
        hide_index=True,
        alt="A row a network: its answer and the three likeliest classes",
    )
    st.caption(
        "Confidence: the probability of the answer. Margin: the logit of the true class less the largest other one, "
        "below 0 where the answer is wrong."
    )
    page.downloads(table, f"{study.name}-image-{row['sample_id']}-answers")


def show_neighbours(study: Study, chosen: pl.DataFrame, networks: pl.DataFrame, row: dict[str, Any]) -> None:
    """The image's nearest images in the original space."""
    st.header("What lies near")
    stored = networks.filter("mapped")
    if stored.is_empty():
        st.info("Neighbours are stored for networks with maps only, and this study has none. " + lacks.no_maps(study))
        return
    mapped = chosen.filter("mapped")
    mapped = mapped if mapped.height else catalog.headline_rows(catalog.headline(study, networks))
    views_of = sorted(study.collect("neighbours", study.scan("neighbours").select("view").unique())["view"].to_list())
    with st.container(horizontal=True, vertical_alignment="bottom"):
        view = pick.one(
            "In the vectors", views_of, "near_view", first=views_of[-1], words=catalog.view_in_words, look="segments"
        )  # fmt: skip
        columns = layers.neighbour_layers(study, mapped, view)
        layer = pick.one("Layer", columns["layer"].to_list(), "layer", first=columns["layer"][-1], width=220)
    column = columns.row(by_predicate=pl.col("layer") == layer, named=True)
    samples = study.samples.select("sample_id", "class_name", "image")
    for label, words, html in layers.neighbours(study, mapped, samples, row["sample_id"], column, view):
        st.text(f"{label}, {words}")
        st.html(html)
    page.notes(
        f"The {layers.NEIGHBOURS} nearest probe images, nearest first. Grey and ✓: the same class; red and ✗: another.",
        "In the original space: the layer's own vectors, not a map. Of other architectures it is the layer nearest "
        "in relative depth. Neighbours are stored for the networks with maps only "
        f"({stored.height} of {networks.height}).",
    )


def show_heat_maps(study: Study, chosen: pl.DataFrame, row: dict[str, Any]) -> None:
    """Where each network looks (Grad-CAM)."""
    st.header("Where they look")
    found = layers.heat_maps(study, chosen, row["sample_id"], row["image"])
    if found is None:
        none = (
            "There are no Grad-CAM heat-maps of these networks: set `explanations = true` under `[measures]` in the "
            "study file and use `kdpipe run` on it again, which keeps the trained networks."
        )
        st.info(page.why_not(study, "networks", none))
        return
    html, cosines, explained = found
    st.html(html)
    st.text(f"Explained is {study.record['data']['class_names'][explained]}, the teacher's answer.")
    page.notes(
        "Two maps do not compare in strength: each runs from nothing to its own maximum.",
        "Grad-CAM (Selvaraju et al., 2017): the places that speak for the teacher's answer. The cosine says how much "
        "a map is like the "
        "teacher's; it does not say how right the network is. Each cell is one place of the last layer's map, or "
        "several where that has more than 8 rows or columns.",
    )
    page.folded_table(cosines, f"{study.name}-image-{row['sample_id']}-grad-cam", "cosines")
