"""Which networks, which view and what is in colour: picked alike on every page of curves."""

from __future__ import annotations

import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog, focus
from kdpipe.app.shell import pick, theme
from kdpipe.artifacts.store import Study


def pick_scope(study: Study, networks: pl.DataFrame) -> tuple[pl.DataFrame, str, dict[str, str]]:
    """The trained networks of one student and label budget with the teacher, the view, and the colours.

    Other teachers and checkpoints are there only where they are in colour.
    """
    stored = set(study.layers["view"].unique().to_list())
    views = sorted(stored) or ["projection"]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        student, budget = pick_budget(networks)
        view = pick.one(
            "How a layer's map became a vector", views, "view", first=views[-1], words=catalog.view_in_words,
            look="segments",
        )  # fmt: skip
    for missing in catalog.VIEWS.keys() - stored if stored else ():
        st.caption(
            f"The view “{catalog.view_in_words(missing)}” is not stored: add `{missing}` to `views` in the study file "
            "and use `kdpipe run` on it again."
        )
    colours, others = pick_series(study, networks)
    mine = (pl.col("student") == student) & (pl.col("budget") == budget)
    in_colour = pl.col("series").is_in(list(colours))
    context = catalog.STUDENT & mine & (in_colour | pl.lit(others))
    chosen = in_colour & (mine | catalog.OTHER_TEACHER | (pl.col("role") == "teacher"))
    return networks.filter((pl.col("status") == "trained") & (context | chosen)), view, colours


def pick_budget(networks: pl.DataFrame) -> tuple[str, str]:
    """A student and a label budget, which is as much as can be compared; nothing to pick where there is one alone."""
    students = networks.filter(catalog.STUDENT)
    names = students["student"].unique(maintain_order=True).to_list()
    student = pick.one("Student", names, "student", width=220) if len(names) > 1 else names[0]
    budgets = students.filter(pl.col("student") == student)["budget"].unique(maintain_order=True).to_list()
    return student, pick.one("Labels", budgets, "labels", look="segments")


def pick_series(study: Study, networks: pl.DataFrame) -> tuple[dict[str, str], bool]:
    """The colours, and whether the methods and controls without one are drawn; nothing to pick where all have one."""
    options, usual = focus.options(networks), focus.default(study, networks)
    if set(options) == set(usual):
        return focus.colours(study, networks), True
    chosen = pick.several(
        "In colour, like teacher, plain and its second initialisation", options, "methods", first=usual,
        max_selections=theme.COLOURED_METHODS,
        help="By gain in test accuracy, the highest first; then other teachers and students on their way.",
    )  # fmt: skip
    others = pick.switch("All other methods and controls in grey", "others", on=True)
    return focus.colours(study, networks, chosen), others
