"""Any measure by depth and by class, how much earlier a method is than plain, and every way to measure that."""

import streamlit as st

from kdpipe.app.measures import sections, specification
from kdpipe.app.shared import catalog, lacks, tables, verdicts
from kdpipe.app.shared.scope import pick_scope
from kdpipe.app.shell import page


def main() -> None:
    study = page.open_page("Measures", "📈")
    st.title("Measures")
    st.markdown(
        "Maps mislead, numbers less so. Each curve follows one measure from a network's first layer to its last: if "
        "distillation makes a network tell classes apart *earlier*, its curve reaches a good value (high or low, as "
        "the measure says) at a shallower layer than plain, and by more than seeds and the control differ."
    )
    with page.section("The measures"):
        networks = catalog.networks(study)
        if networks.filter(catalog.STUDENT).is_empty():
            st.info("This study has no students to measure.")
            return
        scope, view, colours = pick_scope(study, networks)
        lacks.lost_networks(networks)
        if not tables.students(scope) and networks.filter(catalog.TRAINED_STUDENT).height:
            st.info("No student was trained to the end on this label budget: what follows is the teacher.")
        with page.section("The measures by depth"):
            sections.show_depth(study, networks, scope, view, colours)
        with page.section("Area and advance"):
            st.header("How much earlier")
            judged = study.verdicts.filter(claim="earlier")
            if judged.is_empty():
                st.info("This study compares no distilled student with a plain one of the same seed.")
                return
            cell = verdicts.pick_cell(judged, "comparison")
            sections.show_earlier(study, networks, cell, colours)
            specification.section(study, cell)


main()
