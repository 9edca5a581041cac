"""What a visitor picks on the measures page, kept in the address: which networks, which view, what is in colour."""

from __future__ import annotations

import polars as pl
import streamlit as st

from kdpipe.store import Study
from kdpipe.views import catalog, focus, theme


def pick_scope(study: Study, networks: pl.DataFrame) -> tuple[pl.DataFrame, str, dict[str, str]]:
    """The trained networks of one student and label budget with the teacher, the view, and the colours.

    Other teachers and checkpoints are there only where they are in colour.
    """
    students = networks.filter(catalog.STUDENT)
    stored = set(study.layers["view"].unique().to_list())
    views = sorted(stored) or ["projection"]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = students["student"].unique(maintain_order=True).to_list()
        student = names[0]
        if len(names) > 1:
            student = st.selectbox("Student", names, key="student", bind="query-params", width=220)
        budgets = students.filter(pl.col("student") == student)["budget"].unique(maintain_order=True).to_list()
        budget = st.segmented_control(
            "Labels", budgets, default=budgets[0], required=True, key="labels", bind="query-params"
        )
        view = st.segmented_control(
            "How a layer's map became a vector", views, format_func=catalog.view_in_words,
            default=views[-1], required=True, key="view", bind="query-params",
        )  # fmt: skip
    for missing in catalog.VIEWS.keys() - stored if stored else ():
        st.caption(
            f"The view “{catalog.view_in_words(missing)}” is not stored: add `{missing}` to `views` in the study file "
            "and run `scripts/precompute.py` on it again."
        )
    colours, others = _pick_series(study, networks)
    mine = (pl.col("student") == student) & (pl.col("budget") == budget)
    in_colour = pl.col("series").is_in(list(colours))
    context = catalog.STUDENT & mine & (in_colour | pl.lit(others))
    chosen = in_colour & (mine | catalog.OTHER_TEACHER | (pl.col("role") == "teacher"))
    return networks.filter((pl.col("status") == "trained") & (context | chosen)), view, colours


def _pick_series(study: Study, networks: pl.DataFrame) -> tuple[dict[str, str], bool]:
    """The colours, and whether the methods and controls without one are drawn; nothing to pick where all have one."""
    options, usual = focus.options(networks), focus.default(study, networks)
    if set(options) == set(usual):
        return focus.colours(study, networks), True
    chosen = st.multiselect(
        "In colour, beside teacher, plain and its second start", options, default=usual, key="methods",
        bind="query-params", max_selections=theme.COLOURED_METHODS,
        help="By gain in test accuracy, the highest first; then other teachers and students on their way.",
    )  # fmt: skip
    others = st.toggle("All other methods and controls in grey", value=True, key="others", bind="query-params")
    return focus.colours(study, networks, chosen), others
