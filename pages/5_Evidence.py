"""The claims, judged: verdicts with their numbers, and what remains of each effect after its controls."""

import streamlit as st

from kdpipe.app.evidence import sections
from kdpipe.app.shared import catalog, lacks, verdicts
from kdpipe.app.shell import page


def main() -> None:
    study = page.open_page("Evidence", "⚖️")
    st.title("Evidence")
    st.markdown(
        "*Distillation makes a network more compact, already in earlier layers.* Here that sentence is taken apart "
        "into claims that can fail, each held against what else could explain it."
    )
    with page.section("The verdicts"):
        lacks.lost_networks(catalog.networks(study))
        judged, claims = study.verdicts, study.claims
        if judged.is_empty():
            st.info(
                "This study has no distilled student with a plain one of the same seed, so there is nothing to judge."
            )
            return
        sections.show_verdicts(study, judged, claims)
        cell = verdicts.pick_cell(judged)
        sections.show_claims(study, judged, cell)
        with page.section("The controls"):
            sections.show_controls(study, cell)
        verdicts.link_to_measures(study, cell, judged)


main()
