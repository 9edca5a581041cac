"""Aligned maps: networks in rows, layers in columns, and one image that is followed through all of them."""

from __future__ import annotations

import streamlit as st

from kdpipe.app.layers import settings
from kdpipe.app.shared import catalog, maps
from kdpipe.app.shell import page
from kdpipe.app.shell.images import with_images
from kdpipe.artifacts.store import Study


def show(study: Study, choice: settings.MapChoice) -> None:
    """Networks in rows, layers in columns, and the picked image below; a click reruns this part alone."""
    panels, samples = choice.panels, choice.samples
    sample = settings.sample_picker(study, samples)
    ids = list({panel.network_id: None for panel in panels})
    predictions = study.frame("predictions", network_id=ids)
    colouring = choice.colouring
    table = maps.wide_table(panels, choice.points, with_images(samples), predictions, choice.class_names, colouring)
    spec = maps.small_multiples(
        table, panels, colouring, marked=settings.marked(), lit=choice.lit, titles=settings.row_titles(choice.networks)
    )
    consensus = choice.setting["layout"] == "consensus"
    shared = maps.shared_in_words(study, choice.networks, choice.view) if consensus else ""
    if thin := maps.kept_little(panels):
        st.caption(f":material/warning: {thin}")
    page.vega_chart(
        study, table, spec, key=settings.CHART, width="content", on_select=settings.take_click,
        selection_mode=maps.PICK, transient=(settings.FOLLOWED, "neighbour_layer"), alt=in_words(choice, table.height),
    )  # fmt: skip
    page.notes(
        f"{table.height} of {study.samples.height} probe images are drawn, scores are over all. Point at a dot to see "
        "its image, click it to ring it in all panels, click a class in the legend to light it up. Faint dots: "
        f"{maps.FADES[colouring.fade][0]}.",
        f"A layer's vector is its {catalog.view_in_words(choice.view)}. **Of the layer itself**: kNN, how many "
        "images their "
        f"{settings.vote_in_words(study)} classify rightly; silhouette, how well classes stand apart (-1 to 1). "
        "**Of the map**: trust(worthiness), are neighbours on the map true ones; kept, the share of the 15 true "
        "neighbours that the map keeps, and what a random map keeps; continuity, do true neighbours stay near; seed "
        "drift, how far the map moves, in RMS radii, when only the projector's seed changes: panels that differ no "
        "more than that cannot be told apart from the projector's own noise. Where few neighbours are kept, a panel "
        "says little. "
        f"{maps.layout_in_words(choice.setting)} {shared} On a narrow screen the panels scroll sideways. "
        "The table has the scores' chance levels, and 95 % intervals over images where there are some.",
    )
    settings.say_left_out(choice.without_map)
    page.data_note(study)
    page.folded_table(
        maps.score_table(panels, choice.scores), f"{study.name}-map-scores", "scores", "Scores of every panel"
    )
    with page.section("The picked image"):
        settings.show_sample(study, sample, panels, choice)


def in_words(choice: settings.MapChoice, images: int) -> str:
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
