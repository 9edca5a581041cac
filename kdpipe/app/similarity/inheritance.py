"""What a student takes over from its teacher, layer by layer: its neighbours, and which classes it finds alike."""

from __future__ import annotations

import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog, charts, credit, curve_notes, curves, tables
from kdpipe.app.shell import page, pick
from kdpipe.artifacts.store import Study


def credit_section(study: Study, scope: pl.DataFrame, view: str, colours: dict[str, str]) -> None:
    """Whose neighbours an image has: gained less lost by depth, and each kind by layer."""
    st.header("Whose neighbours")
    chosen = scope.filter(pl.col("series").is_in(list(colours)))
    means = credit.of_networks(study, chosen, view)
    if means.is_empty():
        st.info("No network in colour was distilled from the study's teacher, so there is no credit to give.")
        return
    st.markdown(
        "Of an image's 15 nearest images in the layer's own space: **kept** are the teacher's that plain has too, "
        "**gained** the teacher's that only the method has, **lost** the teacher's that only plain has, **invented** "
        "those that neither has. If distillation passes on the teacher's arrangement, more is gained than lost. "
        "Plain from other initial weights gains as much as it loses, on average: neither of the two is special."
    )
    null, what = credit.of_another_start(study, scope, view)
    moved = credit.net(means, scope, study.layers)
    reach = credit.net(null, scope, study.layers)
    band = reach.group_by("relative_depth").agg(reach=pl.col("value").abs().max(), seeds=pl.len())
    drawn = moved.filter(~pl.col("network_id").is_in(null["network_id"].to_list()))
    chart = charts.depth_curves(drawn, colours, "gained less lost, of 15 neighbours", null=band.sort("relative_depth"))
    page.chart(
        study,
        chart,
        "net",
        f"The teacher's neighbours gained less those lost. {credit.net_in_words(drawn, colours)}",
    )
    st.caption(
        "Above 0: more of the teacher's neighbours than plain of the same seed has. Line: mean over seeds; band: from "
        "the lowest seed to the highest. "
        + (f"Grey band: how far {what} lies from 0, to either side." if null.height else what)
    )  # fmt: skip
    names = drawn["series"].unique(maintain_order=True).to_list()
    credit_part(study, scope, means, null, what, names, view)
    page.folded_table(drawn, f"{study.name}-net-credit-{view}", "net", "Gained less lost, the numbers")


@st.fragment
def credit_part(
    study: Study, scope: pl.DataFrame, means: pl.DataFrame, null: pl.DataFrame, what: str, names: list[str], view: str
) -> None:
    """One method's bookkeeping, kind by kind, split by class."""
    with page.section("Neighbours by kind"):
        rows = credit.by_kind(means, scope, study.layers)
        others = credit.by_kind(null, scope, study.layers)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            headline = catalog.headline(study, scope).filter(pl.col("role") == "distilled")["series"].to_list()
            first = next((name for name in headline if name in names), None)
            name = pick.one("Network", names, "credit", first=first, width=300)
            mine = rows.filter(series=name)
            layers = mine["layer"].unique(maintain_order=True).to_list()
            few = credit.some_of(layers)
            if len(few) < len(layers):
                asked = pick.several("Layers", layers, "credit_layers", first=few)
                few = [layer for layer in layers if layer in asked] or few
        last = {row["credit"]: row for row in mine.filter(layer=layers[-1]).rows(named=True)}
        told = ", ".join(
            f"{last[kind]['neighbours']:.1f} {kind} ({last[kind]['same']:.1f} of its class)" for kind in credit.KINDS
        )
        page.chart(
            study, credit.bars(mine, others, few), "credit_chart",
            f"Neighbours of an image under {name}, of 15, by kind and layer; at {layers[-1]}: {told}.",
        )  # fmt: skip
        page.notes(
            "Mean over probe images and seeds; the dark line runs from the lowest seed to the highest.",
            "Against plain of the same seed and the teacher's layer nearest in depth. "
            + (f"Diamonds: {what}, against plain: what lies there comes of other initial weights too. "
               if null.height else f"{what} ")
            + "Kept, gained and invented do not add up to 15: what plain has and the teacher has not is no credit.",
        )  # fmt: skip
        page.folded_table(
            pl.concat([rows, others]), f"{study.name}-credit-{view}", "kinds", "Neighbours by kind, the numbers"
        )


def dark_section(study: Study, networks: pl.DataFrame, scope: pl.DataFrame, view: str, colours: dict[str, str]) -> None:
    """How far a layer puts classes in the order in which the teacher finds them alike."""
    st.header("Dark knowledge")
    rows = study.frame("layer_measures", network_id=scope["network_id"].to_list(), view=view, measure="dark_knowledge")
    st.markdown(
        "A teacher's answers say more than the right class: a cat is a little like a dog and hardly like a truck. "
        "This *dark knowledge* is a similarity of classes (Hinton, Vinyals and Dean, 2015). Does a layer put those "
        "classes in like directions that the teacher finds alike? **1**: in the teacher's order; **0**: no relation."
    )
    if rows.is_empty():
        none = (
            "This study does not hold the measure, which is younger than its artifacts or was not asked for: leave "
            "`names` out under `[measures]` in the study file (or add `dark_knowledge`) and use "
            "`kdpipe run` on it again. Finished stages come from the cache; networks whose weights are "
            "kept there are not trained again."
        )
        st.info(page.why_not(study, "logits", none))
        return
    measure = tables.measures_of(study, "layer", rows).row(0, named=True)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        difference = pick.one("Show", [curves.VALUES, curves.DIFFERENCE], "dark", look="segments") == curves.DIFFERENCE
        band = pick.one(
            "Band", list(curve_notes.BANDS), "band", look="segments", help="Over seeds or over probe images."
        )
    found = tables.by_depth(rows, scope, study.layers)
    start = tables.baselines(study, networks, scope, view, "dark_knowledge")
    shown, start, null = curves.shown(found, start, scope, difference)
    if shown.is_empty():
        st.info(curves.NO_PARTNER)
        return
    stored = [measure["title"]] if rows["low"].drop_nulls().len() else []
    over_images = band == "images" and not difference and bool(stored)
    what = "rank correlation with the teacher's class similarity" + (", minus plain" if difference else "")
    chart = charts.depth_curves(
        shown, colours, what, baselines=start, band="images" if over_images else "seeds", null=null
    )
    ends = curve_notes.BANDS["images" if over_images else "seeds"]
    page.chart(study, chart, "dark_chart", curves.takeaway(shown, colours, f"Dark knowledge: {what}", ends))
    floor = curve_notes.null(null) if null is not None else curve_notes.floors(measure, shown, start)
    page.notes(
        f"{measure['summary']} What distillation adds is the gap to plain.",
        f"{curve_notes.bands(band, False, measure, stored, difference)}{curve_notes.grey(shown, colours)} "
        f"{floor} The teacher's own curve is how far its layers carry its answers: no bound, but what to compare with. "
        "Classes that look alike are confused by every network, and lie near each other even as pixels, so plain is "
        "above 0 too. Few classes have few pairs, so values are coarse.",
    )
    page.folded_table(shown, f"{study.name}-dark-knowledge-{view}", "beliefs")
