"""What a visitor picks on the page of layers, and the image that is followed below the maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog, lacks, maps
from kdpipe.app.shell import page, pick, theme
from kdpipe.app.shell.images import strip
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study

CHART = "maps_chart"
FOLLOWED = "follow"  # not as on the page it links to: a link drops what this page keeps in the address itself
EVERY, SOME = "all probe images", 500
_MARKED = "marked_sample"
_NEIGHBOURS = 10


@dataclass(frozen=True)
class MapChoice:
    """What is to be drawn: networks, columns of layers, maps of one setting, images, and what colour means."""

    networks: pl.DataFrame
    columns: pl.DataFrame
    layers: pl.DataFrame
    points: pl.DataFrame
    scores: pl.DataFrame
    samples: pl.DataFrame
    class_names: list[str]
    colouring: maps.Colouring
    projector: str
    setting: dict[str, object]
    lit: str | None

    @property
    def view(self) -> str:
        """How the layers on the maps became vectors."""
        return str(self.setting["view"])

    @property
    def without_map(self) -> list[str]:
        """The networks that have no map with this projector and setting."""
        return self.networks.join(self.points, on="network_id", how="anti", maintain_order="left")["label"].to_list()

    @property
    def panels(self) -> list[maps.Panel]:
        """The panels that there are maps for."""
        return maps.panels_of(self.networks, self.layers, self.columns, self.points, self.scores)


def pick_maps(
    study: Study, networks: pl.DataFrame, given: pl.DataFrame | None = None, by_class: bool = False
) -> MapChoice | None:
    """Show the pickers and return what they ask for; None (and words why) if nothing can be drawn.

    Args:
        networks: all of the study.
        given: the networks to draw, with all their layers, whatever the pickers say of them.
        by_class: whether colour can mean the class alone.
    """
    mapped = networks.filter("mapped")
    projectors = maps.projectors_of(study)
    if mapped.is_empty() or not projectors:
        st.info(lacks.no_maps(study))
        return None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        projector = pick.one(
            "Projector", projectors, "projector", words=lambda name: maps.PROJECTORS.get(name, name), look="segments"
        )
        settings = _pick_layout(study, projector)
        # Pickers without effect are greyed, not left out: what is picked comes back with the panels.
        offered = maps.COLOURINGS[:1] if "logits" in page.lacking(study) else maps.COLOURINGS
        by = pick.one("Colour", offered, "colour", look="segments", disabled=by_class)
    picked = _pick_networks(study, mapped, disabled=given is not None)
    rows = picked if given is None else given
    if by_class and by != "class":
        st.caption("Colour means the class here, whatever is picked for the panels.")
        by = "class"
    names, everything = list(study.record["data"]["class_names"]), study.samples
    with st.expander("More: layers, classes, what is lit and faint, how many images"):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            setting = _pick_setting(settings, projector)
            fade = pick.one(
                "Faint", list(maps.FADES), "faint", words=lambda name: maps.FADES[name][0], width=180,
                help="Neighbours lost: the share of an image's 15 true neighbours that the map does not keep. False: "
                "how far off those are that the map shows near it. Missing: how far off the map shows its true ones.",
            )  # fmt: skip
            layers = study.frame("layers", network_id=mapped["network_id"].to_list(), view=setting["view"])
            columns = _pick_columns(picked, layers, disabled=given is not None)
            columns = columns if given is None else _columns(rows, layers)
        kept, colours, lit = _pick_classes(names)
        samples = _pick_images(everything.filter(pl.col("class_name").is_in(kept)))
    chosen = rows["network_id"].to_list()
    if not chosen or columns.is_empty():
        st.info("Pick at least one network and one layer.")
        return None
    points = study.frame("maps", network_id=chosen, projector=projector).filter(maps.same_setting(setting))
    scores = maps.scores_of(study, chosen, projector, setting)
    colouring = maps.Colouring(by, maps.RIGHT_OR_WRONG if by == "correctness" else colours, fade)
    choice = MapChoice(
        rows, columns, layers, points, scores, samples, names, colouring, projector, setting,
        lit if lit in colouring.colours else None,
    )  # fmt: skip
    if not choice.panels:
        st.info("There is no map of these networks and layers with this projector.")
        return None
    return choice


def _pick_networks(study: Study, mapped: pl.DataFrame, disabled: bool) -> pl.DataFrame:
    default = catalog.headline_rows(catalog.headline(study, mapped))["label"].to_list()
    labels = mapped["label"].to_list()
    picked = pick.several(
        "Networks", labels, "networks", first=default or labels[:1], max_selections=6, disabled=disabled,
        help="A row each. Maps are drawn of the teacher, of each distillation method at the first seed and of plain at "
        "the first two seeds, for the headline's student and label budget.",
    )  # fmt: skip
    order = pl.DataFrame({"label": picked}, schema={"label": pl.String})
    return order.join(mapped, on="label", how="left", maintain_order="left")


def _columns(rows: pl.DataFrame, layers: pl.DataFrame) -> pl.DataFrame:
    """The layers of the students that are drawn, or of the first network if there is no student."""
    students = rows.filter(catalog.STUDENT)["network_id"].to_list() or rows["network_id"].to_list()
    return catalog.columns_of(layers, students)


def _pick_columns(rows: pl.DataFrame, layers: pl.DataFrame, disabled: bool) -> pl.DataFrame:
    columns = _columns(rows, layers)
    names = columns["layer"].to_list()
    some = names if len(names) <= 5 else names[:: -(-len(names) // 4)]
    picked = pick.several(
        "Layers", names, "layers", first=some, look="pills", disabled=disabled,
        help="A column each, first layer on the left.",
    )  # fmt: skip
    return columns.filter(pl.col("layer").is_in(picked))


def _pick_layout(study: Study, projector: str) -> list[dict[str, object]]:
    """The settings of the picked layout."""
    settings = maps.settings_of(study, projector).rows(named=True)
    layouts = list({str(setting["layout"]): None for setting in settings})
    layout = layouts[0]
    if len(layouts) > 1:
        layout = pick.one("Start", layouts, "layout", look="segments", help=maps.LAYOUTS_IN_WORDS)
    return [setting for setting in settings if setting["layout"] == layout]


def _pick_setting(settings: Sequence[dict[str, object]], projector: str) -> dict[str, object]:
    """One of the maps of a layout, where there are several: other perplexities, seeds or views."""
    if len(settings) == 1:
        return settings[0]
    several = len({setting["view"] for setting in settings}) > 1
    words = {
        ", ".join(
            ([catalog.view_in_words(str(s["view"]))] if several else [])
            + ([f"perplexity {s['perplexity']:g}"] if s["perplexity"] is not None else []) + [f"seed {s['map_seed']}"]
        ): s
        for s in settings
    }  # fmt: skip
    return words[pick.one("Map", list(words), f"map_{projector}_{settings[0]['layout']}", width=200)]


def _pick_images(samples: pl.DataFrame) -> pl.DataFrame:
    """Enough images to see, or all of them."""
    if samples.height <= SOME:
        return samples
    some = f"{SOME} images"
    many = pick.one(
        "Images", [some, EVERY], "images", look="segments", help="Fewer draw quicker; a part has all classes alike."
    )
    return samples if many == EVERY else samples.sort("display_rank").head(SOME)


def _pick_classes(names: Sequence[str]) -> tuple[list[str], dict[str, str], str | None]:
    """The classes to show, the colours, and the class that stands out; of many, colour alone is picked."""
    many = len(names) > len(theme.PETROFF)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        picked = pick.several(
            "Classes in colour" if many else "Classes", names, "classes",
            first=names[: theme.COLOURED_CLASSES] if many else (),
            placeholder="Choose up to 8" if many else "All classes",
            max_selections=theme.COLOURED_CLASSES if many else None, width=420,
        )  # fmt: skip
        alone = many and bool(picked) and pick.switch("Only these classes", "only")
        colours = theme.class_colours(names, picked)
        lit = pick.maybe_one(
            "Light up", [name for name in colours if name != theme.OTHER], "lit", placeholder="No class", width=200,
            help="This class stands out in all panels. A click on the legend does the same.",
        )  # fmt: skip
    return (list(picked) if picked and (alone or not many) else list(names)), colours, lit


def row_titles(networks: pl.DataFrame) -> dict[str, str]:
    """What a row of panels is called: the network and its accuracy on the whole test set."""
    return {
        network_id: label if accuracy is None else f"{label} · {accuracy:.1%} of test images right"
        for network_id, label, accuracy in networks.select("network_id", "label", "test_accuracy").rows()
    }


def say_left_out(labels: list[str]) -> None:
    """Which of the picked networks are not drawn."""
    if labels:
        st.caption(f"Not drawn, as there are no maps of them here: {verbatim('; '.join(labels))}.")


# ----------------------------------------------------------------------------- the picked image


def vote_in_words(study: Study) -> str:
    """How many neighbours vote in the layers' kNN accuracy, as the study was told."""
    k = ((study.record.get("study") or {}).get("measures") or {}).get("k")
    return f"{k} nearest neighbours" if k else "nearest neighbours"


def sample_picker(study: Study, drawn: pl.DataFrame, ring: bool = False) -> int | None:
    """The image to follow: typed here, or clicked on a map.

    Args:
        drawn: the images on the maps; one that is not among them can be followed, but not ringed.
        ring: whether the panels ring a clicked one anew, as they are not on the page.
    """
    ids = study.frame("samples", columns=["sample_id"])["sample_id"].to_list()
    sample = pick.maybe_one(
        "Follow an image", ids, FOLLOWED, width=260, placeholder="Click a dot, or choose a number",
        on_change=_take_typed,
    )  # fmt: skip
    if sample is not None and sample not in drawn["sample_id"]:
        st.caption(f"Image {sample} is not among the {drawn.height} images drawn, so nothing is ringed.")
    if ring:
        st.session_state[_MARKED] = sample
    st.session_state.setdefault(_MARKED, sample)
    return sample


def marked() -> int | None:
    """The sample that the chart rings from the start: the typed one.

    A clicked one is ringed in the browser already; putting it into the chart too would draw all anew.
    """
    return st.session_state.get(_MARKED)


def _take_typed() -> None:
    st.session_state[_MARKED] = st.session_state.get(FOLLOWED)


def take_click() -> None:
    """Make a clicked point the followed image."""
    picked = st.session_state[CHART].selection.get(maps.PICK, [])
    st.session_state[FOLLOWED] = int(picked[0]["sample_id"]) if picked else None


def show_sample(study: Study, sample: int | None, panels: Sequence[maps.Panel], choice: MapChoice) -> None:
    """The image, what each network takes it for, and what lies next to it in each network's own space."""
    st.subheader("One image, followed")
    if sample is None:
        st.caption("Click a dot, or choose an image above, to see its neighbours as each network sees them.")
        return
    layers = list({panel.layer: None for panel in panels})
    layer = pick.one("Neighbours at layer", layers, "neighbour_layer", first=layers[-1], look="segments")
    own = study.frame("samples", sample_id=sample).row(0, named=True)
    st.html(strip([(own["image"], f"image {sample}: {own['class_name']}", theme.GREY)], large=True))
    about = "All layers, votes and Grad-CAM of this image"
    page.link("pages/8_Sample.py", about, ":material/image_search:", study, sample=str(sample))
    st.caption(
        f"The {_NEIGHBOURS} nearest probe images in the original space (the layer's own vectors, "
        f"{catalog.view_in_words(choice.view)}, not the map). Frames: grey, same class; red, another class."
    )
    networks = {panel.network_id: panel.network for panel in panels}
    neighbours = study.frame("neighbours", sample_id=sample, layer=layer, view=choice.view, network_id=list(networks))
    told = study.frame("predictions", network_id=list(networks), sample_id=sample)
    near = {network_id: ids[:_NEIGHBOURS] for network_id, ids in neighbours.select("network_id", "ids").rows()}
    images = study.frame("samples", sample_id=list({int(i) for ids in near.values() for i in ids}))
    for network_id, network in networks.items():
        answer = _answer(told.filter(network_id=network_id), choice.class_names)
        st.markdown(f"**{verbatim(network)}** {verbatim(answer)}")
        if network_id not in near:
            st.caption(f"This network has no neighbours stored at {layer}.")
            continue
        order = pl.DataFrame({"sample_id": near[network_id]}, schema={"sample_id": pl.Int32})
        found = order.join(images, on="sample_id", how="left", maintain_order="left")
        st.html(
            strip(
                (image, name, theme.RIGHT if name == own["class_name"] else theme.WRONG)
                for name, image in found.select("class_name", "image").rows()
            )
        )


def _answer(told: pl.DataFrame, names: Sequence[str]) -> str:
    if told.is_empty():
        return ""
    row = told.row(0, named=True)
    verdict = "right" if row["correct"] else "wrong"
    return f"predicts {names[row['predicted']]} ({verdict}, confidence {row['confidence']:.0%})"
