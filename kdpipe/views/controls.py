"""What a visitor picks on the embeddings page, kept in the address so that a link shows the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import streamlit as st

from kdpipe.store import Study
from kdpipe.views import catalog, maps, page, theme
from kdpipe.views.images import heat_strip, strip

CHART = "maps_chart"
_MARKED = "marked_sample"
_NEIGHBOURS = 10


@dataclass(frozen=True)
class MapChoice:
    """What is to be drawn: panels, their points, the images in them, and what colour means."""

    panels: list[maps.Panel]
    points: pl.DataFrame
    samples: pl.DataFrame
    all_samples: pl.DataFrame
    class_names: list[str]
    colouring: maps.Colouring
    view: str


def pick_maps(study: Study, networks: pl.DataFrame) -> MapChoice | None:
    """Show the controls and return what they ask for; None (and words why) if nothing can be drawn."""
    mapped = networks.filter("mapped")
    projectors = maps.projectors_of(study)
    if mapped.is_empty() or not projectors:
        st.info(page.no_maps(study))
        return None
    rows = _pick_networks(study, mapped)
    chosen = rows["network_id"].to_list()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        projector = st.segmented_control(
            "Projector", projectors, format_func=lambda name: maps.PROJECTORS.get(name, name), default=projectors[0],
            required=True, key="projector", bind="query-params",
        )  # fmt: skip
        by = st.segmented_control(
            "Colour", maps.COLOURINGS, default="class", required=True, key="colour", bind="query-params"
        )
        fade = st.segmented_control(
            "Faint", list(maps.FADES), format_func=lambda name: maps.FADES[name][0], default="misplacement",
            required=True, key="faint", bind="query-params",
            help="Neighbours lost: the share of an image's 15 true neighbours that the map does not keep. False: how "
            "far off those are that the map shows near it. Missing: how far off the map shows its true ones.",
        )  # fmt: skip
        setting = _pick_setting(study, projector)
        view = str(setting["view"])
        layers = study.frame("layers", network_id=mapped["network_id"].to_list(), view=view)
        columns = _pick_columns(rows, layers)
    if not chosen or columns.is_empty():
        st.info("Pick at least one network and one layer.")
        return None
    points = study.frame("maps", network_id=chosen, projector=projector).filter(maps.same_setting(setting))
    scores = study.frame("map_measures", network_id=chosen, projector=projector).filter(maps.same_setting(setting))
    panels = maps.panels_of(rows, layers, columns, points, scores)
    if not panels:
        st.info("There is no map of these networks and layers with this projector.")
        return None
    names = list(study.record["data"]["class_names"])
    everything = study.samples
    kept, colours = _pick_classes(names)
    samples = everything.filter(pl.col("class_name").is_in(kept))
    colouring = maps.Colouring(by, maps.RIGHT_OR_WRONG if by == "correctness" else colours, fade)
    return MapChoice(panels, points, samples, everything, names, colouring, view)


def _pick_networks(study: Study, mapped: pl.DataFrame) -> pl.DataFrame:
    default = catalog.headline_rows(catalog.headline(study, mapped))["label"].to_list()
    labels = mapped["label"].to_list()
    picked = st.multiselect(
        "Networks", labels, default=default or labels[:1], key="networks", bind="query-params", max_selections=6,
        help="A row each. Maps are drawn of the teacher, of each distillation method at the first seed and of plain at "
        "the first two seeds, for the headline's student and label budget.",
    )  # fmt: skip
    order = pl.DataFrame({"label": picked}, schema={"label": pl.String})
    return order.join(mapped, on="label", how="left", maintain_order="left")


def _pick_columns(rows: pl.DataFrame, layers: pl.DataFrame) -> pl.DataFrame:
    students = rows.filter(catalog.STUDENT)["network_id"].to_list() or rows["network_id"].to_list()
    columns = catalog.columns_of(layers, students)
    names = columns["layer"].to_list()
    picked = st.pills(
        "Layers", names, selection_mode="multi", default=names if len(names) <= 5 else names[:: -(-len(names) // 4)],
        key="layers", bind="query-params", help="A column each, first layer on the left.",
    )  # fmt: skip
    return columns.filter(pl.col("layer").is_in(picked))


def _pick_setting(study: Study, projector: str) -> dict[str, object]:
    settings = maps.settings_of(study, projector).rows(named=True)
    if len(settings) == 1:
        return settings[0]
    several = len({s["view"] for s in settings}) > 1
    words = {
        (f"{catalog.view_in_words(s['view'])}, " if several else "") + s["layout"]
        + (f", perplexity {s['perplexity']:g}" if s["perplexity"] is not None else "") + f", seed {s['map_seed']}": s
        for s in settings
    }  # fmt: skip
    return words[st.selectbox("Setting", list(words), key=f"setting_{projector}", bind="query-params", width=300)]


def _pick_classes(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The classes to show and the colours; of many classes the chosen ones are coloured, not filtered."""
    many = len(names) > len(theme.PETROFF)
    picked = st.multiselect(
        "Classes in colour" if many else "Classes", names, key="classes", bind="query-params",
        placeholder="Choose up to 8" if many else "All classes",
        max_selections=theme.COLOURED_CLASSES if many else None,
    )  # fmt: skip
    alone = many and bool(picked) and st.checkbox("Only these classes", key="only", bind="query-params")
    return (list(picked) if picked and (alone or not many) else list(names)), theme.class_colours(names, picked)


# ----------------------------------------------------------------------------- the picked image


def sample_picker(ids: Sequence[int]) -> int | None:
    """The image to follow: typed here, or clicked on a map."""
    sample = st.selectbox(
        "Follow an image", ids, index=None, key="sample", bind="query-params", width=260,
        placeholder="Click a dot, or choose a number", on_change=_take_typed,
    )  # fmt: skip
    st.session_state.setdefault(_MARKED, sample)
    return sample


def marked() -> int | None:
    """The sample that the chart rings from the start: the typed one.

    A clicked one is ringed in the browser already; putting it into the chart too would draw all anew.
    """
    return st.session_state.get(_MARKED)


def _take_typed() -> None:
    st.session_state[_MARKED] = st.session_state.get("sample")


def take_click() -> None:
    """Make a clicked point the followed image."""
    picked = st.session_state[CHART].selection.get(maps.PICK, [])
    st.session_state["sample"] = int(picked[0]["sample_id"]) if picked else None


def show_sample(
    study: Study, sample: int | None, panels: Sequence[maps.Panel], predictions: pl.DataFrame, choice: MapChoice
) -> None:
    """The image, what each network takes it for, and what lies next to it in each layer's own space."""
    st.subheader("One image, followed")
    if sample is None:
        st.caption("Click a dot, or choose an image above, to see its neighbours as each network sees them.")
        return
    images = choice.all_samples.select("sample_id", "class_name", "label", "image")
    shown = images.row(by_predicate=pl.col("sample_id") == sample, named=True)
    layers = list({panel.layer: None for panel in panels})
    layer = st.segmented_control(
        "Neighbours at layer", layers, default=layers[-1], required=True, key="neighbour_layer", bind="query-params"
    )
    st.html(strip([(shown["image"], f"image {sample}: {shown['class_name']}", theme.GREY)], large=True))
    show_explanations(study, sample, panels, shown["image"], choice.class_names)
    st.caption(
        f"The {_NEIGHBOURS} nearest probe images in the original space (the layer's own vectors, "
        f"{catalog.view_in_words(choice.view)}, not the map). "
        "Frames: grey, same class; red, another class."
    )
    neighbours = study.frame("neighbours", sample_id=sample, layer=layer, view=choice.view)
    for network_id, network in {panel.network_id: panel.network for panel in panels}.items():
        told = predictions.filter((pl.col("network_id") == network_id) & (pl.col("sample_id") == sample))
        near = neighbours.filter(pl.col("network_id") == network_id)
        st.markdown(f"**{network}** {_answer(told, choice.class_names)}")
        if near.is_empty():
            st.caption(f"This network has no neighbours stored at {layer}.")
            continue
        order = pl.DataFrame({"sample_id": near["ids"][0].head(_NEIGHBOURS).cast(pl.Int32)})
        found = order.join(images, on="sample_id", how="left", maintain_order="left")
        st.html(
            strip(
                (image, name, theme.RIGHT if name == shown["class_name"] else theme.WRONG)
                for name, image in found.select("class_name", "image").rows()
            )
        )


def show_explanations(
    study: Study, sample: int, panels: Sequence[maps.Panel], image: bytes, names: Sequence[str]
) -> None:
    """Where each network looks for the teacher's answer, over the image; nothing where a study has no heat-maps."""
    networks = {panel.network_id: panel.network for panel in panels}
    found = study.frame("explanations", sample_id=sample, network_id=list(networks))
    if found.is_empty():
        return
    rows = {row["network_id"]: row for row in found.iter_rows(named=True)}
    shown = [(rows[who], name) for who, name in networks.items() if who in rows]
    st.html(heat_strip((image, row["heatmap"], row["side"], f"{name}: {_alike(row['cosine'])}") for row, name in shown))
    explained = names[shown[0][0]["class_index"]]
    st.caption(
        f"Grad-CAM: the places that speak for {explained}, the teacher's answer, each map from nothing to its own "
        "maximum. The cosine says how much a network's map is like the teacher's; it is not how right it is."
    )


def _alike(cosine: float | None) -> str:
    return "no evidence anywhere" if cosine is None else f"cosine {cosine:.2f}"


def _answer(told: pl.DataFrame, names: Sequence[str]) -> str:
    if told.is_empty():
        return ""
    row = told.row(0, named=True)
    verdict = "right" if row["correct"] else "wrong"
    return f"predicts {names[row['predicted']]} ({verdict}, confidence {row['confidence']:.0%})"
