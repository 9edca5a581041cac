"""Any layers of any networks as maps, linked image by image."""

import polars as pl
import streamlit as st

from kdpipe.store import Study
from kdpipe.views import catalog, controls, maps, page
from kdpipe.views.images import with_images


@st.fragment
def linked_maps(study: Study, choice: controls.MapChoice) -> None:
    """Maps and the picked image; a click reruns this part of the page alone."""
    with page.section("The maps"):
        maps_and_sample(study, choice)


def maps_and_sample(study: Study, choice: controls.MapChoice) -> None:
    panels, samples = choice.panels, choice.samples
    sample = controls.sample_picker(samples["sample_id"].to_list())
    ids = list({panel.network_id: None for panel in panels})
    predictions = study.frame("predictions", network_id=ids)
    table = maps.wide_table(
        panels, choice.points, with_images(samples), predictions, choice.class_names, choice.colouring
    )
    spec = maps.small_multiples(table, panels, choice.colouring, marked=controls.marked())
    st.vega_lite_chart(
        table, spec, key=controls.CHART, width="content", on_select=controls.take_click, selection_mode=maps.PICK,
        alt=f"{len(panels)} maps of {table.height} probe images, coloured by {choice.colouring.by}",
    )  # fmt: skip
    st.caption(
        f"{table.height} probe images; a layer's vector is its {catalog.view_in_words(choice.view)}. "
        f"Faint dots: {maps.FADES[choice.colouring.fade][0]}. Trustworthiness: neighbours on the map are true ones. "
        "Continuity: true neighbours stay near. Neighbours kept: the share of the 15 nearest that is the same. Seed "
        "drift: how far the map moves, in RMS radii, when only the projector's seed changes; panels that differ no "
        "more than that do not differ. "
        f"{maps.LAYOUTS_IN_WORDS} Point at a dot to see its image, click it to follow it through all panels."
    )
    page.data_note(study)
    shown = pl.DataFrame([{"network": p.network, "layer": p.layer, **p.scores} for p in panels])
    page.table_beside(shown, f"{study.name}-map-scores", "How far each map can be trusted")
    with page.section("The picked image"):
        controls.show_sample(study, sample, panels, predictions, choice)


def main() -> None:
    study = page.open_page("Embeddings", "🗺️")
    st.title("Embeddings")
    st.markdown(
        "Every panel shows the same test images as one layer of one network arranges them. Distances between "
        "far-apart groups, group sizes and gaps are made by the projector: trust who is next to whom, and only as "
        "far as the scores under each title allow. Two networks' panels can differ by chance alone (another seed is "
        "other initial weights, other batches and other labelled images), so keep a second plain seed beside any "
        "comparison where there is one."
    )
    with page.section("The maps"):
        choice = controls.pick_maps(study, catalog.networks(study))
        if choice is not None:
            linked_maps(study, choice)


main()
