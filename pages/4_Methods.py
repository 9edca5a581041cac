"""What each method gains over plain and what it costs: differences, price, ranks, budgets, and what it does."""

import polars as pl
import streamlit as st

from kdpipe.app.methods import differences, sections
from kdpipe.app.shared import catalog, lacks, scope
from kdpipe.app.shell import page, pick


def main() -> None:
    study = page.open_page("Methods", "🧪")
    st.title("Methods")
    st.markdown(
        "What does each way of distilling gain over training on the labels alone, how sure is that, and what does it "
        "cost? Every number is a difference from the **plain** student of the same seed."
    )
    with page.section("The methods"):
        networks = catalog.networks(study)
        lacks.lost_networks(networks)
        if networks.filter(catalog.TRAINED_STUDENT).height:
            offered = differences.offered(study)
            with st.container(horizontal=True, vertical_alignment="bottom"):
                student, budget = scope.pick_budget(networks)
                names = {quantity.name: quantity for quantity in offered}
                quantity = names[pick.one("Quantity", list(names), "quantity", width=260)]
            students = networks.filter(catalog.STUDENT | (pl.col("role") == "teacher"))
            colours, others = scope.pick_series(study, students)
            shown = networks if others else networks.filter(pl.col("series").is_in(list(colours)))
            cell = (pl.col("student") == student) & (pl.col("budget") == budget)
            with page.section("The gains"):
                sections.show_gains(study, shown, cell, quantity, colours)
            with page.section("The accuracies"):
                sections.show_accuracies(study, shown, student, budget, colours)
            with page.section("The price"):
                sections.show_prices(study, shown, budget, colours)
            with page.section("The ranks"):
                sections.show_ranks(study, shown, cell, offered, colours)
            with page.section("The budgets and architectures"):
                sections.show_across(study, shown, quantity, colours)
        with page.section("The catalogue of methods"):
            sections.show_catalogue(study, networks)


main()
