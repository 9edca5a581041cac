"""The parts of the page of factors: what is read off a layer, and what is left of the classes."""

from __future__ import annotations

import polars as pl
import streamlit as st

from kdpipe.app.shared import charts, curves, tables
from kdpipe.app.shell import page, pick
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import ALL_FACTORS

HALF = 380  # pixels of a legend in one of two columns
PARTS = {"knn_whole": "the whole", "knn_explained": "the explained part", "knn_residual": "the rest"}
NONE = (
    "This study did not ask for known factors: set `factors = true` under `[measures]` in the study file and use "
    "`kdpipe run` on it again, which keeps the trained networks."
)


def show_explained(study: Study, rows: pl.DataFrame, scope: pl.DataFrame, colours: dict[str, str], view: str) -> None:
    """How well each factor is read off the layers."""
    st.subheader("What is read off a layer")
    factors = rows["factor"].unique(maintain_order=True).to_list()
    factor = pick.one("Factor", factors, "factor", words=lambda name: name.replace("_", " "))
    named = factor.replace("_", " ")
    mine = rows.filter(factor=factor)
    found = tables.factor_curves(mine, scope, study.layers, "explained")
    chart = charts.depth_curves(found, colours, f"{named}: explained R²", width=HALF)
    page.chart(study, chart, "factor_chart", curves.takeaway(found, colours, f"Explained R² of {named}"))
    left_over = mine["residual"].max()
    told = ""
    if left_over is not None:
        most = max(float(str(left_over)), 0)
        told = f" Once all factors are taken out, fresh probes read at most {most:.3f} of it anywhere."
    far = charts.far_off(found).get("chance")
    far = None if far is None else round(far, 2) + 0.0  # no minus before a zero
    floor = page.floor_in_words("the factor shuffled over the images", far)
    st.caption(f"Line: mean over seeds; band: lowest to highest seed. {floor}{told}")
    page.folded_table(found, f"{study.name}-{factor}-{view}", "explained")


def show_rest(study: Study, rows: pl.DataFrame, scope: pl.DataFrame, colours: dict[str, str], view: str) -> None:
    """How well classes are told apart without what the factors explain."""
    st.subheader("What is left of the classes")
    part = pick.one(
        "kNN accuracy on", list(PARTS), "part", first="knn_residual", words=lambda name: PARTS[name], look="segments"
    )
    found = tables.factor_curves(rows.filter(factor=ALL_FACTORS), scope, study.layers, part)
    if found["value"].drop_nulls().is_empty():
        st.info("This study has no kNN accuracy with all factors together.")
        return
    chart = charts.depth_curves(found, colours, f"kNN accuracy, {PARTS[part]}", width=HALF)
    page.chart(
        study,
        chart,
        "part_chart",
        curves.takeaway(found, colours, f"kNN accuracy on {PARTS[part]}"),
    )
    shares = rows.filter(factor=ALL_FACTORS)["share_of_layer"].drop_nulls().to_list()
    told = f" The factors explain {min(shares):.0%} to {max(shares):.0%} of a layer's variance." if shares else ""
    st.caption(
        "Line: mean over seeds; band: lowest to highest seed. If the curves part on the rest as on the whole, what "
        f"distillation gains is no matter of these factors; of others this says nothing.{told}"
    )
    page.folded_table(found, f"{study.name}-{part}-{view}", "rest")


def show_factors(study: Study, scope: pl.DataFrame, view: str, colours: dict[str, str]) -> None:
    """Both charts, and the table of all factors."""
    rows = study.frame("factors", network_id=scope["network_id"].to_list(), view=view)
    if rows.is_empty():
        st.info("No known factors are stored of these networks in this view.")
        return
    st.markdown(
        "**Explained**: how well a linear probe reads the factor off the layer on new images (cross-validated R², 1 is "
        "perfectly, 0 not at all). **kNN accuracy** is then measured on the part of the layer that all factors explain "
        "together, on the rest, and on the whole."
    )
    left, right = st.columns(2)
    with left:
        show_explained(study, rows, scope, colours, view)
    with right:
        show_rest(study, rows, scope, colours, view)
    page.folded_table(rows, f"{study.name}-factors-{view}", "factors", "All factors of all networks")
