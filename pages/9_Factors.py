"""How much of a layer is brightness, hue, edges and the like, and what is left of its classes without them."""

import streamlit as st

from kdpipe.app.factors import sections
from kdpipe.app.shared import catalog, lacks
from kdpipe.app.shared.scope import pick_scope
from kdpipe.app.shell import page


def main() -> None:
    study = page.open_page("Factors", "🔬")
    st.title("Factors")
    st.markdown(
        "A layer may tell classes apart for many reasons, some of them plain: brightness, contrast, hue, edges, or how "
        "unsure the teacher is. Anybody can measure these on the image itself, so here they are taken out."
    )
    with page.section("The layers"):
        networks = catalog.networks(study)
        if networks.filter(catalog.STUDENT).is_empty():
            st.info("This study has no students to look into.")
            return
        if not study.record["files"].get("factors.parquet", {}).get("rows"):
            st.info(page.why_not(study, "images", sections.NONE))
            return
        scope, view, colours = pick_scope(study, networks)
        lacks.lost_networks(networks)
        with page.section("The known factors"):
            sections.show_factors(study, scope, view, colours)
        page.data_note(study)


main()
