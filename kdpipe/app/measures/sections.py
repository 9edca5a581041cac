"""The parts of the page of measures: curves by depth, classes at one layer, and how much earlier a method is."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog, charts, curve_notes, curves, focus, lacks, tables, verdicts
from kdpipe.app.shell import page, pick
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import ENDPOINTS


def show_depth(study: Study, networks: pl.DataFrame, scope: pl.DataFrame, view: str, colours: dict[str, str]) -> None:
    """One measure by depth, as values or as differences to plain."""
    st.header("By depth")
    rows = study.frame("layer_measures", network_id=scope["network_id"].to_list(), view=view)
    measures = tables.measures_of(study, "layer", rows)
    if measures.is_empty():
        st.info(lacks.no_measures("layers"))
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        title = pick.one("Measure", measures["title"].to_list(), "measure", width=340)
        difference = pick.one("Show", [curves.VALUES, curves.DIFFERENCE], "show", look="segments") == curves.DIFFERENCE
        band = pick.one(
            "Band", list(curve_notes.BANDS), "band", look="segments", help="Over seeds or over probe images."
        )
        each = pick.switch("One line for each seed", "each_seed")
    measure = measures.row(by_predicate=pl.col("title") == title, named=True)
    better = curve_notes.BETTER[measure["direction"]][difference]
    st.markdown(f"**{title}.** {measure['summary']} {better} *{measure['citation']}*")
    found = tables.by_depth(rows.filter(pl.col("measure") == measure["measure"]), scope, study.layers)
    having = rows.filter(pl.col("low").is_not_null())["measure"].unique().to_list()
    intervals = measures.filter(pl.col("measure").is_in(having))["title"].to_list()
    said = curve_notes.bands(band, each, measure, intervals, difference)
    ends = curve_notes.BANDS[band if title in intervals and not difference else "seeds"]
    start = tables.baselines(study, networks, scope, view, measure["measure"])
    shown, baselines, null = curves.shown(found, start, scope, difference)
    if difference and shown.is_empty():
        st.info(curves.NO_PARTNER)
        return
    what = f"{title}, minus plain of the same seed" if difference else title
    chart = charts.depth_curves(
        shown, colours, what, each, baselines=baselines, band="images" if ends[0] == "low" else "seeds", null=null
    )
    page.chart(study, chart, "depth", curves.takeaway(shown, colours, what, ends))
    seeds = scope.filter(catalog.STUDENT)["seed"].n_unique()
    drawn = shown["network_id"].n_unique()
    page.notes(
        f"{drawn} network{'s' * (drawn != 1)}"
        + (f", {seeds} seed{'s' * (seeds != 1)}. " if seeds else ". ")
        + ("Line: mean over seeds. " if seeds and not each else "")
        + said,
        (curve_notes.null(null) if null is not None else curve_notes.floors(measure, shown, baselines))
        + curve_notes.grey(shown, colours)
        + " Dots are layers. Views and widths differ in scale: compare curves of one view and one architecture.",
    )
    name = f"{study.name}-{measure['measure']}-{view}{'-minus-plain' * difference}"
    curve_notes.table_by_layer(shown, colours, name, ends)
    page.data_note(study)
    show_classes(study, scope, view, measure, colours)


@st.fragment
def show_classes(
    study: Study, scope: pl.DataFrame, view: str, measure: dict[str, Any], colours: dict[str, str]
) -> None:
    """One layer class by class; another layer reruns this part alone."""
    with page.section("The classes"):
        st.subheader("Class by class")
        name, names = measure["measure"], study.record["data"]["class_names"]
        rows = study.frame("class_measures", network_id=scope["network_id"].to_list(), view=view, measure=name)
        if rows.is_empty():
            st.caption(f"{measure['title']} has no value for a single class.")
            return
        drawn = tables.students(scope) or scope["network_id"].to_list()
        layers = catalog.columns_of(study.layers.filter(pl.col("view") == view), drawn)["layer"].to_list()
        layer = pick.one("Layer", layers, "class_layer", first=layers[-1], look="pills")
        values, order, left_out = tables.by_class(rows, scope, study.layers, layer, names, colours)
        page.chart(
            study, charts.class_dots(values, colours, order, measure["title"]), "classes_chart",
            f"{measure['title']} of each class at {layer}. {curve_notes.classes(values, order, colours)}",
        )  # fmt: skip
        st.caption(
            "A dot is the mean over seeds, the line through it runs from the lowest seed to the highest. Classes are "
            "sorted by distilled (mean of the methods in colour) less plain, or keep their own order without one. "
            "A class has few images, so small gaps may be chance."
            + (f" {left_out} classes in between are in the table only." if left_out else "")
        )
        page.folded_table(values, f"{study.name}-{name}-{layer}-classes", "classes")


def show_earlier(study: Study, networks: pl.DataFrame, cell: dict[str, Any], colours: dict[str, str]) -> None:
    """The area before the last layer and the advance, for both endpoints."""
    st.markdown(
        "**Area**: how far distilled is ahead of plain (shaded, grey where it is behind) before the last layer, in the "
        "measure's unit times depth. **Advance**: how much less depth it needs to be where plain ends (arrow)."
    )
    rows = verdicts.of_cell(study.comparisons, cell).filter(against="plain")
    for column, endpoint in zip(st.columns(2), ENDPOINTS, strict=True):
        with column:
            st.subheader(ENDPOINTS[endpoint].full_title)
            pair = curves.pair_of(study, networks, cell, endpoint)
            if pair is None:
                st.info("The study has no curves of this endpoint for both: it takes its measure in this view.")
                continue
            mine = {row["quantity"]: row for row in rows.filter(measure=endpoint).rows(named=True)}
            area = curves.area_in_words(mine.get("early_abc"), verdicts.epsilon_of(study, endpoint))
            advance = curves.advance_in_words(mine.get("advance"), pair)
            own = colours.get(pair.name) or focus.colours(study, networks, [pair.name])[pair.name]
            chart = curves.earlier_chart(pair, {"plain": colours["plain"], pair.name: own}, ENDPOINTS[endpoint].title)
            alt = f"{ENDPOINTS[endpoint].full_title} of {pair.name} and plain by relative depth. {area} {advance}"
            page.chart(study, chart, f"earlier_{endpoint}", alt)
            st.markdown(area)
            st.markdown(advance)
    st.caption(
        "Thick: means over seeds; thin: each seed. The arrow is that of the mean curves, the thin spans are those of "
        "the seeds, which the number is the mean of. Curves are straight between layers, so an advance is no finer "
        "than they are. Intervals are over seeds and images, for this teacher."
    )
    page.folded_table(curves.quantities(rows), f"{study.name}-{cell['method_label']}-earlier", "earlier")
