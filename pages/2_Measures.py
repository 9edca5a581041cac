"""Numbers by depth, by class and by likeness to the teacher, for every method and seed."""

from typing import Any

import polars as pl
import streamlit as st

from kdpipe.store import Study
from kdpipe.views import catalog, charts, page, tables
from kdpipe.views.scope import pick_scope

HALF = 380  # pixels of a legend in one of two columns


BETTER = {
    "higher": "Higher is better separated or kept.",
    "lower": "Lower is better separated or kept.",
    "neither": "Neither end is better.",
}
CHANCE = {
    "known": "Grey dashes: what chance alone gives.",
    "shuffled": "Grey dashes: the same layers with the labels shuffled (or, for measures without labels, each column "
    "of the layer on its own).",
    "none": "It has no chance level.",
}


def about_floors(measure: dict[str, Any], curves: pl.DataFrame, baselines: pl.DataFrame) -> str:
    """What the grey lines are, and which of them lie too far off to be drawn."""
    off = [f"{name} ({value:.3g})" for name, value in charts.far_off(curves, baselines).items()]
    dotted = " Dotted: networks before training, and the raw pixels." if baselines.height else ""
    return CHANCE[measure["chance"]] + dotted + (f" Too far off to be drawn: {', '.join(off)}." if off else "")


def depth_section(
    study: Study, networks: pl.DataFrame, scope: pl.DataFrame, view: str, colours: dict[str, str]
) -> None:
    st.header("By depth")
    rows = study.frame("layer_measures", network_id=scope["network_id"].to_list(), view=view)
    measures = tables.measures_of(study, "layer", rows)
    if measures.is_empty():
        st.info(page.no_measures("layers"))
        return
    title = st.selectbox("Measure", measures["title"].to_list(), key="measure", bind="query-params", width=360)
    measure = measures.row(by_predicate=pl.col("title") == title, named=True)
    st.markdown(f"**{title}.** {measure['summary']} {BETTER[measure['direction']]} *{measure['citation']}*")
    curves = tables.by_depth(rows.filter(pl.col("measure") == measure["measure"]), scope, study.layers)
    baselines = tables.baselines(study, networks, scope, view, measure["measure"])
    each = st.toggle("One line for each seed", key="each_seed", bind="query-params")
    chart = charts.depth_curves(curves, colours, title, each, baselines=baselines)
    st.altair_chart(chart, key="depth", alt=f"{title} by relative depth, a curve for each method")
    seeds = scope.filter(catalog.STUDENT)["seed"].n_unique()
    grey = scope.filter(~pl.col("series").is_in(list(colours)))["series"].n_unique()
    st.caption(
        f"{scope.height} network{'s' * (scope.height != 1)}"
        + (f", {seeds} seed{'s' * (seeds != 1)}. Line: mean over seeds. Band: from the lowest seed to the highest, "
           "not a confidence interval." if seeds else ".")
        + (f" Grey: {grey} other methods and controls, mean alone; point at one for its name." if grey else "")
        + " Dots are layers. Views and widths differ in scale: compare curves of one view and one architecture. "
        + about_floors(measure, curves, baselines)
    )  # fmt: skip
    table = tables.per_layer(curves.filter(pl.col("series").is_in(list(colours))))
    digits = st.column_config.NumberColumn(format="%.3f")
    st.dataframe(table, hide_index=True, column_config=dict.fromkeys(table.columns[1:], digits))
    page.downloads(curves, f"{study.name}-{measure['measure']}-{view}")
    page.data_note(study)
    with page.section("The classes"):
        class_part(study, scope, view, measure, colours)


def class_part(study: Study, scope: pl.DataFrame, view: str, measure: dict[str, Any], colours: dict[str, str]) -> None:
    st.subheader("Class by class")
    name, names = measure["measure"], study.record["data"]["class_names"]
    rows = study.frame("class_measures", network_id=scope["network_id"].to_list(), view=view, measure=name)
    if rows.is_empty():
        st.caption(f"{measure['title']} has no value for a single class.")
        return
    drawn = tables.students(scope) or scope["network_id"].to_list()
    layers = catalog.columns_of(study.layers.filter(pl.col("view") == view), drawn)["layer"].to_list()
    layer = st.pills("Layer", layers, default=layers[-1], required=True, key="class_layer", bind="query-params")
    values, order, left_out = tables.by_class(rows, scope, study.layers, layer, names, colours)
    st.altair_chart(
        charts.class_dots(values, colours, order, measure["title"]), key="classes_chart",
        alt=f"{measure['title']} of each class at {layer}, a dot for each method",
    )  # fmt: skip
    st.caption(
        "A dot is the mean over seeds. Classes are sorted by distilled (mean of the methods in colour) less plain, or "
        "stand in their own order without one."
        + (f" {left_out} classes in between are in the table only." if left_out else "")
    )
    page.table_beside(values, f"{study.name}-{measure['measure']}-{layer}-classes")


def similarity_section(study: Study, scope: pl.DataFrame, view: str, colours: dict[str, str]) -> None:
    st.header("How alike to the teacher")
    pairs = tables.to_teacher(study.similarity, scope)
    measures = tables.measures_of(study, "pair", pairs)
    if measures.is_empty():
        st.info(page.no_measures("pairs of layers"))
        return
    title = st.selectbox("Similarity", measures["title"].to_list(), key="similarity", bind="query-params", width=360)
    measure = measures.row(by_predicate=pl.col("title") == title, named=True)
    have = pairs.filter(pl.col("measure") == measure["measure"])
    shown = view if view in have["view"].to_list() else have["view"][0]
    pairs = have.filter(pl.col("view") == shown)
    st.markdown(f"**{title}** ({catalog.view_in_words(shown)}). {measure['summary']} *{measure['citation']}*")
    curves = tables.matching_depth(pairs, scope, study.layers)
    left, right = st.columns(2)
    with left:
        chart = charts.depth_curves(curves, colours, f"{title} with the teacher", width=HALF)
        st.altair_chart(chart, key="alike", alt=f"{title} with the teacher's layer of the same depth")
        st.caption(
            "Each layer against the teacher's layer nearest in relative depth, the earlier of two as near. "
            "Line: mean over seeds; band: lowest to highest seed."
        )
    with right:
        labels = scope.filter(pl.col("network_id").is_in(pairs["network_id"].unique().to_list()))["label"].to_list()
        first = tables.headline_label(study, scope, labels)
        label = st.selectbox("Network", labels, index=labels.index(first), key="heat", bind="query-params")
        one, rows, columns = tables.heat(pairs, scope, study.layers, label)
        chart = charts.layer_heat(one, rows, columns, title)
        st.altair_chart(chart, key="heat_chart", alt=f"{title} of each layer of {label} with each layer of the teacher")
        st.caption("A bright diagonal: the two networks arrange the images alike at the same depth.")
    page.table_beside(curves, f"{study.name}-{measure['measure']}")


def answers_section(study: Study, scope: pl.DataFrame, colours: dict[str, str]) -> None:
    st.header("The answers")
    chosen = scope.filter(pl.col("series").is_in(list(colours)))
    digits = st.column_config.NumberColumn(format="%.3f")
    beside = st.segmented_control(
        "Beside the answers of", ("plain of the same seed", "teacher"), default="plain of the same seed", required=True,
        key="beside", bind="query-params",
    )  # fmt: skip
    for frame, words in (
        (tables.of_networks(study, chosen), "Each network by itself, mean over seeds."),
        (
            tables.of_answers(study, chosen, beside or "teacher"),
            f"Beside {beside}, as shares of the probe images: fixed (wrong there, right here), broken (right there, "
            "wrong here), inherited (wrong in both), kept (right in both). McNemar's p is one test a seed, averaged: "
            "read it as small or not, and nothing more.",
        ),
    ):
        if frame.width:
            st.dataframe(frame, hide_index=True, column_config=dict.fromkeys(frame.columns[1:], digits))
            st.caption(words)


def history_section(study: Study, scope: pl.DataFrame, colours: dict[str, str]) -> None:
    history = study.frame("history", network_id=scope["network_id"].to_list())
    quantities = history["quantity"].unique(maintain_order=True).to_list()
    if not quantities:
        st.info("This study stored no training history.")
        return
    of_chosen = scope.filter(pl.col("series").is_in(list(colours)))["network_id"]
    held = history.filter(pl.col("network_id").is_in(of_chosen.to_list()))["quantity"].unique().to_list()
    quantities.sort(key=lambda name: (name != "val_accuracy", name not in held, name))
    quantity = st.selectbox("Quantity", quantities, key="quantity", bind="query-params", width=360)
    names = scope.select("network_id", "label", "series")
    lines = history.filter(pl.col("quantity") == quantity).join(names, on="network_id")
    chart = charts.history_lines(lines, colours, quantity)
    st.altair_chart(chart, key="history", alt=f"{quantity} over training steps, a line for each network")
    st.caption(
        "A line for each network, grey for those not in colour. loss/… are the terms of the loss as weighted; they "
        "add up to loss."
    )
    page.downloads(lines, f"{study.name}-history")


def main() -> None:
    study = page.open_page("Measures", "📈")
    st.title("Measures")
    st.markdown(
        "Maps mislead, numbers less so. Each curve follows one measure from a network's first layer to its last: if "
        "distillation makes a network tell classes apart *earlier*, its curve reaches a good value (high or low, as "
        "the measure says) at a shallower layer than plain, and by more than seeds and the control differ."
    )
    with page.section("The measures"):
        networks = catalog.networks(study)
        if networks.filter(catalog.STUDENT).is_empty():
            st.info("This study has no students to measure.")
            return
        scope, view, colours = pick_scope(study, networks)
        page.lost_networks(networks)
        if not tables.students(scope) and networks.filter(catalog.TRAINED_STUDENT).height:
            st.info("No student was trained to the end on this label budget: what follows is the teacher.")
        with page.section("The measures by depth"):
            depth_section(study, networks, scope, view, colours)
        if tables.students(scope):
            with page.section("The similarity"):
                similarity_section(study, scope, view, colours)
        with page.section("The answers"):
            answers_section(study, scope, colours)
        with page.section("The training history"), st.expander("Training history"):
            history_section(study, scope, colours)


main()
