"""Who is like whom: layers with layers, similarity by depth, whose neighbours an image has, and dark knowledge."""

from typing import Any

import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog, lacks, tables
from kdpipe.app.shared.scope import pick_scope
from kdpipe.app.shell import page, pick
from kdpipe.app.similarity import inheritance, layer_pairs
from kdpipe.artifacts.store import Study


def pick_measure(study: Study, scope: pl.DataFrame, view: str) -> tuple[pl.DataFrame, dict[str, Any], str] | None:
    """Pairs of layers in one measure and view, and that measure; None (and words why) where the study has none."""
    pairs = study.frame("similarity", network_id=scope["network_id"].to_list())
    measures = tables.measures_of(study, "pair", pairs)
    if measures.is_empty():
        st.info(lacks.no_measures("pairs of layers"))
        return None
    title = pick.one("Similarity", measures["title"].to_list(), "similarity", width=320)
    measure = measures.row(by_predicate=pl.col("title") == title, named=True)
    have = pairs.filter(pl.col("measure") == measure["measure"])
    stored = have["view"].unique().sort().to_list()
    shown = view if view in stored else stored[0]
    st.markdown(f"**{title}**, {catalog.view_in_words(shown)}. {measure['summary']} *{measure['citation']}*")
    return have.filter(pl.col("view") == shown), measure, shown


def main() -> None:
    study = page.open_page("Similarity", "🪞")
    st.title("Similarity")
    st.markdown(
        "Is a distilled student more like its teacher than plain is, inside, and by more than two plain students "
        "differ that only began from other initial weights? Layers are compared by how they arrange the same probe "
        "images."
    )
    with page.section("The similarity"):
        networks = catalog.networks(study)
        if networks.filter(catalog.STUDENT).is_empty():
            st.info("This study has no students to compare.")
            return
        scope, view, colours = pick_scope(study, networks)
        lacks.lost_networks(networks)
        with page.section("The pairs of layers"):
            if picked := pick_measure(study, scope, view):
                pairs, measure, shown = picked
                layer_pairs.heat_part(study, scope, pairs, measure)
                with page.section("The similarity by depth"):
                    layer_pairs.depth_part(study, networks, scope, pairs, measure, shown, colours)
        with page.section("The neighbours"):
            inheritance.credit_section(study, scope, view, colours)
        with page.section("Dark knowledge"):
            inheritance.dark_section(study, networks, scope, view, colours)
        page.data_note(study)


main()
