"""One image through all layers of all networks: what each layer takes it for, its neighbours, and where they look."""

import polars as pl
import streamlit as st

from kdpipe.app.sample import layers, sections
from kdpipe.app.shared import catalog, focus
from kdpipe.app.shell import page


def main() -> None:
    study = page.open_page("Sample", "🖼️")
    st.title("One image")
    st.markdown(
        "Follow one image: what each layer of each network takes it for, what it lies next to, where they look."
    )
    with page.section("The image"):
        networks = catalog.networks(study)
        samples = study.samples
        sample = layers.pick_sample(study, networks, samples.select("sample_id", "class_name", "display_rank"))
        row = samples.row(by_predicate=pl.col("sample_id") == sample, named=True)
        sections.show_image(study, networks, row)
        chosen = layers.pick_networks(study, networks)
        if chosen.is_empty():
            st.info("Pick at least one network.")
            return
        colours = focus.colours(study, networks, layers.in_colour(networks, chosen))
        answers = layers.told(study, chosen, sample)
        rows = pl.DataFrame()
        with page.section("The layers"):
            rows = sections.show_layers(study, chosen, answers, row, colours)
        with page.section("The answers"):
            sections.show_answers(study, networks, answers, rows, row, colours)
        with page.section("The neighbours"):
            sections.show_neighbours(study, chosen, networks, row)
        with page.section("The heat-maps"):
            sections.show_heat_maps(study, chosen, row)
        page.data_note(study)


main()
