"""The first page: what the study is, what distillation gained, and the layers side by side."""

import polars as pl
import streamlit as st

from kdpipe.store import Study
from kdpipe.views import catalog, charts, maps, page, theme

POINTS = 800  # more are not told apart at this size, and this draws in about a second
WAYS = (
    ("pages/1_Embeddings.py", "Embeddings: any layer of any network, image by image", ":material/scatter_plot:"),
    ("pages/2_Measures.py", "Measures: the same in numbers, by depth, class and similarity", ":material/show_chart:"),
)


def accuracy_section(study: Study, networks: pl.DataFrame) -> None:
    st.header("What distillation gained")
    trained = networks.filter(pl.col("test_accuracy").is_not_null())
    summary = catalog.accuracies(catalog.headline(study, networks))
    if summary.is_empty():
        st.info("No network of this study has a test accuracy.")
        return
    plain = summary.filter(pl.col("role") == "plain")["mean"]
    for place, row in zip(st.columns(summary.height), summary.iter_rows(named=True), strict=True):
        with place:
            against = None if row["role"] in ("teacher", "plain") or plain.is_empty() else row["mean"] - plain[0]
            st.metric(
                row["role"].capitalize() + (f": {row['series']}" if row["series"] != row["role"] else ""),
                f"{row['mean']:.1%}",
                None if against is None else f"{100 * against:+.1f} points against plain",
                delta_color="off" if row["role"] == "control" else "normal",
                help=f"Test accuracy, mean of {row['seeds']} seed(s), {row['budget']}.",
                border=True,
                height="stretch",
            )
    seeds = int(summary.filter(pl.col("role") != "teacher")["seeds"].min() or 0)
    budget = summary.filter(pl.col("role") != "teacher")["budget"]
    rows = summary.filter(pl.col("seeds") > 1).rows(named=True)
    spread = "; ".join(f"{row['series']} {row['lowest']:.1%} to {row['highest']:.1%}" for row in rows)
    st.caption(
        f"Test accuracy at the last step, {budget[0] if len(budget) else 'no student'}; mean over {seeds} "
        f"seed{'s' * (seeds != 1)}." + (f" Lowest to highest seed: {spread}." if spread else "")
    )
    if "control" in summary["role"]:
        st.caption(
            "The control shows what chance alone can move: a difference no larger than the control's is no gain."
        )
    if seeds < catalog.FEW_SEEDS:
        st.info(
            f"With {seeds} seed{'s' * (seeds != 1)} these are estimates. "
            f"A verdict needs at least {catalog.FEW_SEEDS} paired seeds.", icon=":material/balance:",
        )  # fmt: skip
    page.data_note(study)
    chart = charts.accuracy_dots(trained, theme.series_colours(catalog.series_of(networks)))
    st.altair_chart(chart, key="accuracy", alt="Test accuracy of each seed, by label budget and method")
    st.caption("A dot is a seed, the bar the mean. The dashed line is the teacher, which may have had more labels.")
    shown = catalog.accuracies(networks).drop("rank", "label_fraction")
    page.table_beside(shown, f"{study.name}-accuracy")
    lost = networks.filter(pl.col("status") == "diverged")
    for label, step in lost.select("label", "diverged_step").rows():
        st.warning(f"{label} diverged at step {step} and is left out of every mean.", icon=":material/warning:")


def layers_section(study: Study, networks: pl.DataFrame) -> None:
    st.header("Layer by layer")
    rows = catalog.headline_rows(catalog.headline(study, networks))
    settings = maps.settings_of(study, "tsne")
    if rows.is_empty() or settings.is_empty():
        st.info("This study has no t-SNE maps, so there is nothing to draw here. The measures page does not need maps.")
        return
    st.markdown(
        "Each panel is one layer's view of the same test images, drawn by t-SNE: every dot is an image, its colour "
        "the true class. Read a row from left to right and watch the classes come apart. "
        "**Two panels can differ because of the random initialisation alone**: compare the two plain rows, which "
        "differ in their seed alone (initial weights, batches, which labels), before you believe a difference between "
        "plain and distilled. "
        "Faint dots are images that the map misplaces."
    )
    chosen, setting = rows["network_id"].to_list(), settings.row(0, named=True)
    layers = study.frame("layers", network_id=chosen, view="projection")
    students = rows.filter(pl.col("role") != "teacher")["network_id"].to_list()
    points = study.frame("maps", network_id=chosen, projector="tsne").filter(maps.same_setting(setting))
    scores = study.frame("map_measures", network_id=chosen, projector="tsne").filter(maps.same_setting(setting))
    panels = maps.panels_of(rows, layers, catalog.columns_of(layers, students), points, scores)
    samples = study.samples.drop("image").filter(pl.col("display_rank") < POINTS)
    names = study.record["data"]["class_names"]
    colouring = maps.Colouring("class", theme.class_colours(names, names))
    table = maps.wide_table(panels, points, samples, study.frame("predictions", network_id=chosen), names, colouring)
    spec = maps.small_multiples(table, panels, colouring, scores=["trustworthiness"], clickable=False)
    alt = "t-SNE maps of each layer of the teacher, two plain students and a distilled one"
    st.vega_lite_chart(table, spec, key="layers", width="content", alt=alt)
    st.caption(
        f"{table.height} probe images. Each map was optimised alone and rotated onto the teacher's. Trustworthiness: "
        "how far neighbours on the map are true neighbours (1 is best, about 0.5 is a random layout)."
    )
    shown = pl.DataFrame([{"network": p.network, "layer": p.layer, **p.scores} for p in panels])
    page.table_beside(shown, f"{study.name}-maps", "How far each map can be trusted")


def main() -> None:
    study = page.open_page("Home", "🎓")
    st.title(study.title)
    with page.section("The description"):
        st.markdown(str(study.record.get("description", "")).replace("![", "["))
    with page.section("The study"):
        st.markdown(catalog.study_in_words(study, catalog.networks(study)))
    with page.section("The accuracies"):
        accuracy_section(study, catalog.networks(study))
    with page.section("The layers"):
        layers_section(study, catalog.networks(study))
    st.header("Go on")
    for target, label, icon in WAYS:
        st.page_link(target, label=label, icon=icon)
    with page.section("The methods"), st.expander("The methods in this study"):
        st.dataframe(study.methods.drop("defaults"), hide_index=True)
    with st.expander("How it was made"):
        record = {key: study.record.get(key) for key in ("study_hash", "versions", "data")}
        st.json({**record, "timings": study.timings}, expanded=1)


main()
