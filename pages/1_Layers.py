"""What each layer of each network makes of the same images: aligned maps, one that morphs, and a blind test."""

import streamlit as st

from kdpipe.app.layers import blind_test as blind
from kdpipe.app.layers import morph
from kdpipe.app.layers import settings as controls
from kdpipe.app.shared import catalog, maps
from kdpipe.app.shell import page, pick
from kdpipe.app.shell.images import with_images
from kdpipe.artifacts.store import Study

SHOWN = ("all panels", "one large map", "blind test")


def grid(study: Study, choice: controls.MapChoice) -> None:
    """Networks in rows, layers in columns, and the picked image below; a click reruns this part alone."""
    panels, samples = choice.panels, choice.samples
    sample = controls.sample_picker(study, samples)
    ids = list({panel.network_id: None for panel in panels})
    predictions = study.frame("predictions", network_id=ids)
    colouring = choice.colouring
    table = maps.wide_table(panels, choice.points, with_images(samples), predictions, choice.class_names, colouring)
    spec = maps.small_multiples(
        table, panels, colouring, marked=controls.marked(), lit=choice.lit, titles=controls.row_titles(choice.networks)
    )
    consensus = choice.setting["layout"] == "consensus"
    shared = maps.shared_in_words(study, choice.networks, choice.view) if consensus else ""
    if thin := maps.kept_little(panels):
        st.caption(f":material/warning: {thin}")
    page.vega_chart(
        study, table, spec, key=controls.CHART, width="content", on_select=controls.take_click,
        selection_mode=maps.PICK, transient=(controls.FOLLOWED, "neighbour_layer"), alt=in_words(choice, table.height),
    )  # fmt: skip
    st.caption(
        f"{table.height} of {study.samples.height} probe images are drawn, scores are over all; "
        f"a layer's vector is its {catalog.view_in_words(choice.view)}. Faint dots: "
        f"{maps.FADES[colouring.fade][0]}. **Of the layer itself**: kNN, how many images their "
        f"{controls.vote_in_words(study)} classify rightly; silhouette, how well classes stand apart (-1 to 1). "
        "**Of the map**: trust(worthiness), are neighbours on the map true ones; kept, the share of the 15 true "
        "neighbours that the map keeps, beside what a random map keeps; continuity, do true neighbours stay near; seed "
        "drift, how far the map moves, in RMS radii, when only the projector's seed changes: panels that differ no "
        "more than that cannot be told apart from the projector's own noise. Where few neighbours are kept, a panel "
        "says little. "
        f"{maps.layout_in_words(choice.setting)} {shared} Point at a dot to see its image, click it to ring it "
        "in all panels, click a class in the legend to light it up. On a narrow screen the panels scroll sideways. "
        "The table has the scores' chance levels, and 95 % intervals over images where there are some."
    )
    controls.say_left_out(choice.without_map)
    page.data_note(study)
    page.table_beside(
        maps.score_table(panels, choice.scores), f"{study.name}-map-scores", "scores", "Scores of every panel"
    )
    with page.section("The picked image"):
        controls.show_sample(study, sample, panels, choice)


def in_words(choice: controls.MapChoice, images: int) -> str:
    """The figure for those who cannot see it: what it shows, and how far apart classes are at both ends."""
    said = []
    for label in choice.networks["label"]:
        mine = [panel for panel in choice.panels if panel.network == label and "silhouette" in panel.scores]
        if mine:
            first, last = mine[0], mine[-1]
            said.append(f"{label}: {first.scores['silhouette']:z.2f} at {first.layer}, "
                        f"{last.scores['silhouette']:z.2f} at {last.layer}")  # fmt: skip
    drawn = f"{len(choice.panels)} maps of {images} probe images, coloured by {choice.colouring.by}. "
    return drawn + (f"Silhouette of the layers: {'; '.join(said)}" if said else "")


def main() -> None:
    study = page.open_page("Layers", "🗺️")
    st.title("Layers")
    st.markdown(
        "Every panel shows the same test images as one layer of one network arranges them. A projector such as t-SNE "
        "puts images that the layer finds alike next to each other; its axes mean nothing. Trust who is next to whom, "
        "as far as the scores above a panel allow, and not the size of groups or the gaps between them. Two networks "
        "can differ by chance alone, so keep a second plain seed beside any comparison."
    )
    with page.section("The maps"):
        networks = catalog.networks(study)
        shown = pick.one("Show", SHOWN, "show", look="segments")
        riddle = None
        if shown == SHOWN[2] and networks["mapped"].any():
            riddle = blind.contestants(study, networks)
            if riddle.height < 2:
                st.info(blind.NOTHING)
                return
        choice = controls.pick_maps(study, networks, riddle, by_class=shown != SHOWN[0])
        if choice is not None:
            part(study, choice, shown)


@st.fragment
def part(study: Study, choice: controls.MapChoice, shown: str) -> None:
    """What is shown of the maps; a click in it reruns it alone. A fragment catches its own errors."""
    with page.section("The maps"):
        if shown == SHOWN[0]:
            grid(study, choice)
        elif shown == SHOWN[1]:
            morph.show(study, choice)
        else:
            blind.show(study, choice)


main()
