"""One image through all layers of all networks: what each layer takes it for, its neighbours, and where they look."""

import polars as pl
import streamlit as st

from kdpipe.app.sample import layers as views
from kdpipe.app.sample import probabilities as beliefs
from kdpipe.app.shared import catalog, charts, focus
from kdpipe.app.shell import images, page, pick, theme
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import FACTORS


def image_section(study: Study, networks: pl.DataFrame, row: dict[str, object]) -> None:
    left, right = st.columns([1, 4], vertical_alignment="center")
    with left:
        st.html(images.strip([(row["image"], f"image {row['sample_id']}: {row['class_name']}", theme.GREY)], True))
    with right:
        said = views.fate(study, networks, row["sample_id"])
        st.text("\n".join(said) or "What distillation did to its answer is not known: no student here has a plain one.")
        known = {name: row[name] for name in FACTORS if row[name] is not None}
        if known:
            st.caption("; ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in known.items()))


def layer_section(
    study: Study, chosen: pl.DataFrame, answers: pl.DataFrame, row: dict[str, object], colours: dict[str, str]
) -> pl.DataFrame:
    st.header("Through the layers")
    stored = sorted(study.layers["view"].unique().to_list())
    view = pick.one(
        "How a layer's map became a vector", stored, "view", first=stored[-1], words=catalog.view_in_words,
        look="segments",
    )  # fmt: skip
    rows = views.votes(study, chosen, answers, row["sample_id"], view)
    if rows.is_empty():
        st.info("These networks have no votes of single images in this view.")
        return rows
    words = views.in_words(rows, answers, row["class_name"])
    chart = views.layer_strips(rows, answers, study.record["data"]["class_names"])
    page.chart(study, chart, key="layers", alt=words)
    k = ((study.record.get("study") or {}).get("measures") or {}).get("k")
    st.caption(
        f"{verbatim(words)} A cell is a layer, a row's layers from the first to the last: the class most frequent "
        f"among the {k or 'k'} nearest other probe images there (kNN vote), ✓ where it is the image's own. Right: the "
        "network's answer and confidence. **Pink bar**: the prediction depth, the layer from which all votes are the "
        "final answer; rows without one never settle. “Second start”: plain again from other initial weights. "
        "Networks with other numbers of layers have wider or narrower cells. One image tells of itself alone: the "
        "Measures page has the means."
    )
    columns = ["label", "layer", "relative_depth", "vote", "verdict", "settled", "silhouette"]
    page.table_beside(rows.select(columns), f"{study.name}-image-{row['sample_id']}-{view}", "votes")
    if pick.switch("Silhouette by depth", "silhouette"):
        curves = views.as_curves(rows)
        chart = charts.depth_curves(curves, colours, "silhouette of this image", one_line_a_seed=True)
        page.chart(study, chart, key="silhouettes", alt="The image's silhouette by relative depth, a line a network")
        st.caption(
            "How much nearer the image lies to its own class than to the nearest other one: 1 far nearer, 0 between "
            "two, below 0 nearer to another. A line a network; a dot a layer."
        )
    return rows


def answer_section(
    study: Study, networks: pl.DataFrame, answers: pl.DataFrame, rows: pl.DataFrame, row: dict[str, object],
    colours: dict[str, str],
) -> None:  # fmt: skip
    st.header("The answers, and what is behind them")
    names = study.record["data"]["class_names"]
    table = beliefs.top_three(answers, names, views.settled_at(rows) if rows.height else {})
    if table.is_empty():
        st.info("These networks answered no image.")
        return
    offered, first = beliefs.temperatures(study, networks)
    temperature = pick.along(
        "Temperature", [f"{one:g}" for one in offered], "temperature", first=f"{first:g}", width=420
    )
    shares = beliefs.softened(answers, names, float(temperature))
    chart, words = beliefs.dark_knowledge(shares, colours, row["class_name"])
    page.chart(study, chart, key="beliefs", alt=f"At temperature {temperature}: {words}")
    st.caption(
        f"The softmax of each network's logits at temperature {temperature}: bars, the teacher; marks, mean over the "
        "networks picked of each kind; lines, lowest to highest. ✓ is the true class. At 1 these are the network's own "
        "probabilities; a higher temperature shows how it ranks the classes it does *not* answer, the **dark "
        "knowledge** that distillation hands over"
        + (f" (this study's loss uses {first:g})." if first != 1 else ".")
        + (f" The {beliefs.MOST_CLASSES} largest of {len(names)} classes." if len(names) > beliefs.MOST_CLASSES else "")
    )
    st.table(
        beliefs.in_cells(table), hide_index=True, alt="A row a network: its answer and the three likeliest classes"
    )
    st.caption(
        "Confidence: the probability of the answer. Margin: the logit of the true class less the largest other one, "
        "below 0 where the answer is wrong."
    )
    page.downloads(table, f"{study.name}-image-{row['sample_id']}-answers")


def neighbour_section(study: Study, chosen: pl.DataFrame, networks: pl.DataFrame, row: dict[str, object]) -> None:
    st.header("What lies near")
    stored = networks.filter("mapped")
    if stored.is_empty():
        st.info("Neighbours are stored for networks with maps only, and this study has none. " + page.no_maps(study))
        return
    mapped = chosen.filter("mapped")
    mapped = mapped if mapped.height else catalog.headline_rows(catalog.headline(study, networks))
    views_of = sorted(study.scan("neighbours").select("view").unique().collect()["view"].to_list())
    with st.container(horizontal=True, vertical_alignment="bottom"):
        view = pick.one(
            "In the vectors", views_of, "near_view", first=views_of[-1], words=catalog.view_in_words, look="segments"
        )  # fmt: skip
        columns = views.neighbour_layers(study, mapped, view)
        layer = pick.one("Layer", columns["layer"].to_list(), "layer", first=columns["layer"][-1], width=220)
    column = columns.row(by_predicate=pl.col("layer") == layer, named=True)
    samples = study.samples.select("sample_id", "class_name", "image")
    for label, words, html in views.neighbours(study, mapped, samples, row["sample_id"], column, view):
        st.text(f"{label}, {words}")
        st.html(html)
    st.caption(
        f"The {views.NEIGHBOURS} nearest probe images in the original space: the layer's own vectors, not a map; "
        "nearest first. Of other architectures it is the layer nearest in relative depth. Grey and ✓: the same class; "
        "red and ✗: another. Neighbours are stored for the networks with maps only "
        f"({stored.height} of {networks.height})."
    )


def look_section(study: Study, chosen: pl.DataFrame, row: dict[str, object]) -> None:
    st.header("Where they look")
    found = views.heat_maps(study, chosen, row["sample_id"], row["image"])
    if found is None:
        st.info(
            "There are no Grad-CAM heat-maps of these networks: set `explanations = true` under `[measures]` in the "
            "study file and run `scripts/precompute.py` on it again, which keeps the trained networks."
        )
        return
    html, cosines, explained = found
    st.html(html)
    st.text(f"Explained is {study.record['data']['class_names'][explained]}, the teacher's answer.")
    st.caption(
        "Grad-CAM (Selvaraju et al., 2017): the places that speak for the teacher's answer, each map from nothing to "
        "its own maximum, so two maps do not compare in strength. The cosine says how much a map is like the "
        "teacher's; it does not say how right the network is. Each square is one place of the last layer's map."
    )
    page.table_beside(cosines, f"{study.name}-image-{row['sample_id']}-grad-cam", "cosines")


def main() -> None:
    study = page.open_page("Sample", "🖼️")
    st.title("One image")
    st.markdown(
        "Follow one image: what each layer of each network takes it for, what it lies next to, where they look."
    )
    with page.section("The image"):
        networks = catalog.networks(study)
        samples = study.samples
        sample = views.pick_sample(study, networks, samples.select("sample_id", "class_name", "display_rank"))
        row = samples.row(by_predicate=pl.col("sample_id") == sample, named=True)
        image_section(study, networks, row)
        chosen = views.pick_networks(study, networks)
        if chosen.is_empty():
            st.info("Pick at least one network.")
            return
        colours = focus.colours(study, networks, views.in_colour(networks, chosen))
        answers = views.told(study, chosen, sample)
        rows = pl.DataFrame()
        with page.section("The layers"):
            rows = layer_section(study, chosen, answers, row, colours)
        with page.section("The answers"):
            answer_section(study, networks, answers, rows, row, colours)
        with page.section("The neighbours"):
            neighbour_section(study, chosen, networks, row)
        with page.section("The heat-maps"):
            look_section(study, chosen, row)
        page.data_note(study)


main()
