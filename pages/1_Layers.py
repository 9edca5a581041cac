"""What each layer of each network makes of the same images: aligned maps, one that morphs, and a blind test."""

import streamlit as st

from kdpipe.app.layers import blind_test, grid, morph, settings
from kdpipe.app.shared import catalog
from kdpipe.app.shell import page, pick
from kdpipe.artifacts.store import Study

SHOWN = ("all panels", "one large map", "blind test")


def main() -> None:
    study = page.open_page("Layers", "🗺️")
    st.title("Layers")
    st.markdown(
        "Every panel shows the same test images as one layer of one network arranges them. A projector such as t-SNE "
        "puts images that the layer finds alike next to each other; its axes mean nothing. Trust who is next to whom, "
        "as far as the scores above a panel allow, and not the size of groups or the gaps between them. Two networks "
        "can differ by chance alone, so look at a second plain seed in any comparison."
    )
    with page.section("The maps"):
        networks = catalog.networks(study)
        shown = pick.one("Show", SHOWN, "show", look="segments")
        riddle = None
        if shown == SHOWN[2] and networks["mapped"].any():
            riddle = blind_test.contestants(study, networks)
            if riddle.height < 2:
                st.info(blind_test.NOTHING)
                return
        choice = settings.pick_maps(study, networks, riddle, by_class=shown != SHOWN[0])
        if choice is not None:
            part(study, choice, shown)


@st.fragment
def part(study: Study, choice: settings.MapChoice, shown: str) -> None:
    """What is shown of the maps; a click in it reruns it alone. A fragment catches its own errors."""
    with page.section("The maps"):
        if shown == SHOWN[0]:
            grid.show(study, choice)
        elif shown == SHOWN[1]:
            morph.show(study, choice)
        else:
            blind_test.show(study, choice)


main()
