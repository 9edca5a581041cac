"""What a student answers otherwise than plain: images it fixed, broke and inherited, confusions, confidence, slices."""

import streamlit as st

from kdpipe.app.flips import outcomes, replacement, sections, slices
from kdpipe.app.shared import catalog
from kdpipe.app.shell import page


def main() -> None:
    study = page.open_page("Flips", "🔀")
    st.title("Flips")
    st.markdown(
        "Two networks with the same accuracy can be wrong on different images. What would you lose if a student took "
        "its teacher's place? Which images does it get right that plain does not, and which errors does it inherit?"
    )
    with page.section("The flips"):
        networks = catalog.networks(study)
        compared = outcomes.pick_comparison(study, networks)
        if compared is None:
            none = "No student here has both a plain one of the same seed and a teacher, so nothing can be flipped."
            st.info(page.why_not(study, "logits", none))
            return
        page.data_note(study)
        with page.section("The replacement"):
            replacement.section(study, compared, networks)
        counts = outcomes.counts_of(study, compared)
        with page.section("The counts"):
            sections.show_changes(study, compared, counts, networks)
        with page.section("The slices"):
            slices.section(study, compared)
        with page.section("The classes"):
            sections.show_classes(study, compared, counts)
        with page.section("The images"):
            sections.show_images(study, compared)
        with page.section("The confusions"):
            sections.show_confusions(study, compared)
        with page.section("The calibration"):
            sections.show_calibration(study, compared)
        with page.section("The answers"):
            sections.show_answers(study, compared, networks)


main()
