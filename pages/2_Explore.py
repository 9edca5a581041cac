"""One or two large maps, linked image by image: colour by anything, filter, select, and look at what was selected."""

from functools import partial

import polars as pl
import streamlit as st

from kdpipe.app.explore import linked_maps, selection, settings
from kdpipe.app.shared import catalog, lacks
from kdpipe.app.shell import page
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study


@st.fragment
def maps_and_selection(study: Study, choice: settings.Choice, table: pl.DataFrame) -> None:
    """The maps and what is selected on them; selecting reruns this part of the page alone."""
    with page.section("The maps"):
        chart = st.container()
        picked = selection.pick_images(choice.facts["sample_id"].to_list())
        with chart:
            for missing in settings.lacking(choice):
                st.info(verbatim(missing), icon=":material/info:")
            key = selection.chart_key()
            page.vega_chart(
                study, table, linked_maps.linked_maps(choice, table, selection.marked()), key=key,
                alt=settings.in_words(choice), transient=(selection.KEY,), width="stretch",
                on_select=partial(selection.take_selection, key, choice),
                selection_mode=[linked_maps.PICK, linked_maps.BRUSH],
            )  # fmt: skip
            captions(study, choice)
    with page.section("The selection"):
        selection.show_selection(study, choice, picked)


def captions(study: Study, choice: settings.Choice) -> None:
    """What colour means here, and what maps do not show."""
    quantity = choice.quantity
    page.notes(
        f"Colour: {quantity.about} {settings.borrowed(choice)}{linked_maps.ends_in_words(choice)}Two maps differ by "
        "chance too: put two seeds of one method side by side to see how much.",
        f"A layer's vector is its {catalog.view_in_words(choice.view)}. Trustworthiness: images near on the map are "
        "near in the layer. "
        "Neighbours kept: the share of the 15 nearest that the map shows among its 15 nearest. The maps **do not "
        "show** how far apart groups are, how large or dense they are, or how wide a gap is: the projector makes "
        "those.",
    )
    page.data_note(study)


def main() -> None:
    study = page.open_page("Explore", "🔭")
    st.title("Explore")
    st.markdown(
        "Every dot is a test image, placed by one layer of one network. Point at one to see it in both maps; click, or "
        "drag a rectangle, to find out what a group has in common."
    )
    with page.section("The maps"):
        choice = settings.pick_choice(study, catalog.networks(study))
        if choice is None:
            st.info(lacks.no_maps(study))
            return
        count = f"{choice.facts.height:,} images"
        if choice.filters:
            said = verbatim(choice.filters)
            st.markdown(f"**{choice.shown.height:,} of {count}**: {said}. The others are faint grey dots.")
        else:
            st.markdown(f"**All {count}**")
        maps_and_selection(study, choice, linked_maps.chart_table(choice))
        with page.section("The table"):
            shown = selection.table(choice.shown, choice)
            page.folded_table(shown, f"{study.name}-explore", "images", "All images shown, as a table")


main()
