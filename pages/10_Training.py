"""How the networks were trained: terms of the loss, accuracy and learning rate over steps, and where the time went."""

import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog, lacks, scope
from kdpipe.app.shell import page
from kdpipe.app.training import sections, when_and_where


def main() -> None:
    study = page.open_page("Training", "🏃")
    st.title("Training")
    st.markdown(
        "How the networks came to be: what they learned from, how fast, and what it took. A difference between two "
        "methods is one of methods only where these curves show that both were trained to the end."
    )
    with page.section("The training"):
        every = catalog.networks(study)
        networks = every.filter(~catalog.NOT_TRAINED & (pl.col("role") != "checkpoint"))
        lacks.lost_networks(networks)
        if networks.filter(catalog.STUDENT).is_empty():
            st.info("This study has no students.")
            return
        with st.container(horizontal=True, vertical_alignment="bottom"):
            student, budget = scope.pick_budget(networks)
        colours, others = scope.pick_series(study, networks)
        in_colour = pl.col("series").is_in(list(colours))
        mine = catalog.STUDENT & (pl.col("student") == student) & (pl.col("budget") == budget)
        teachers = (pl.col("role") == "teacher") | (catalog.OTHER_TEACHER & in_colour)
        shown = networks.filter((mine & (in_colour | pl.lit(others))) | teachers)
        with page.section("The accuracies"):
            sections.show_accuracies(study, shown, colours)
        with page.section("When, and where"):
            when_and_where.show(study, every, student, budget)
        with page.section("The losses"):
            sections.show_losses(study, shown)
        with page.section("The learning rates"):
            sections.show_rates(study, shown)
        with page.section("The speed"):
            sections.show_speed(study, networks)
        page.data_note(study)


main()
