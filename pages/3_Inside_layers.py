"""What is inside a layer: whose neighbours an image has there, and how much of it is brightness, hue or edges."""

import polars as pl
import streamlit as st

from kdpipe.store import Study
from kdpipe.views import catalog, charts, page, tables
from kdpipe.views.scope import pick_scope

HALF = 380  # pixels of a legend in one of two columns
CREDIT = ("kept", "gained", "lost", "invented")
PARTS = {"knn_whole": "the whole", "knn_explained": "the explained part", "knn_residual": "the rest"}


def credit_section(study: Study, scope: pl.DataFrame, view: str, colours: dict[str, str]) -> None:
    st.header("Whose neighbours")
    chosen = scope.filter(pl.col("series").is_in(list(colours)))
    credit = study.frame("neighbour_credit", network_id=chosen["network_id"].to_list(), view=view)
    if credit.is_empty():
        st.info("No network in colour was distilled from the study's teacher, so there is no credit to give.")
        return
    st.markdown(
        "Of an image's 15 nearest images in the layer's own space: **kept** are the teacher's that plain has too, "
        "**gained** the teacher's that only the distilled network has, **lost** the teacher's that only plain has, "
        "**invented** those that neither has. If distillation hands over the teacher's arrangement, more is gained "
        "than lost."
    )
    rows = tables.credit_by_layer(credit, scope, study.layers)
    names = rows["series"].unique(maintain_order=True).to_list()
    name = st.selectbox("Network", names, key="credit", bind="query-params", width=360)
    mine = rows.filter(pl.col("series") == name)
    layers = mine["layer"].unique(maintain_order=True).to_list()
    st.altair_chart(
        charts.credit_bars(mine, CREDIT, layers), key="credit_chart",
        alt=f"Neighbours that {name} kept, gained, lost and invented, layer by layer",
    )  # fmt: skip
    st.caption(
        "Mean over probe images and seeds, against plain of the same seed and the teacher's layer nearest in depth. "
        "Plain's own seed moves neighbours too: the second start shows by how much."
    )
    page.table_beside(rows, f"{study.name}-credit-{view}")


def factor_section(study: Study, scope: pl.DataFrame, view: str, colours: dict[str, str]) -> None:
    st.header("Known factors")
    rows = study.frame("factors", network_id=scope["network_id"].to_list(), view=view)
    if rows.is_empty():
        st.info("This study did not ask for known factors: set `factors = true` under `[measures]` and run it again.")
        return
    st.markdown(
        "How much of a layer is plain properties of the image? **Explained**: how well a linear probe reads the factor "
        "off the layer on new images (cross-validated R²). **kNN accuracy** is then measured on the part of the layer "
        "that all factors explain together, on the rest, and on the whole."
    )
    left, right = st.columns(2)
    with left:
        factors = rows["factor"].unique(maintain_order=True).to_list()
        factor = st.selectbox("Factor", factors, key="factor", bind="query-params")
        curves = tables.factor_curves(rows.filter(pl.col("factor") == factor), scope, study.layers, "explained")
        chart = charts.depth_curves(curves, colours, f"{factor}: explained R²", width=HALF)
        st.altair_chart(chart, key="factor_chart", alt=f"How well {factor} is read off each layer")
        left_over = rows.filter(pl.col("factor") == factor)["residual"].max()
        st.caption(
            f"Once all factors are taken out, fresh probes read at most {max(left_over, 0):.3f} of it anywhere. "
            f"{page.floor_in_words('the factor shuffled over the images', charts.far_off(curves).get('chance'))}"
        )
    with right:
        part = st.segmented_control(
            "kNN accuracy on", PARTS, format_func=PARTS.get, default="knn_residual", required=True, key="part",
            bind="query-params",
        )  # fmt: skip
        curves = tables.factor_curves(rows.filter(pl.col("factor") == "all"), scope, study.layers, part)
        chart = charts.depth_curves(curves, colours, f"kNN accuracy, {PARTS[part]}", width=HALF)
        st.altair_chart(chart, key="part_chart", alt=f"kNN accuracy by depth on {PARTS[part]}")
        st.caption("If the curves part on the rest as on the whole, the gain is no matter of these factors.")
    page.table_beside(rows, f"{study.name}-factors-{view}")


def main() -> None:
    study = page.open_page("Inside layers", "🔬")
    st.title("Inside layers")
    st.markdown(
        "A layer may tell classes apart for many reasons. Here is what it took over from the teacher, neighbour by "
        "neighbour, and how much of it is properties that anybody can measure on the image itself."
    )
    with page.section("The layers"):
        networks = catalog.networks(study)
        if networks.filter(catalog.STUDENT).is_empty():
            st.info("This study has no students to look into.")
            return
        scope, view, colours = pick_scope(study, networks)
        page.lost_networks(networks)
        with page.section("The neighbours"):
            credit_section(study, scope, view, colours)
        with page.section("The known factors"):
            factor_section(study, scope, view, colours)
        page.data_note(study)


main()
