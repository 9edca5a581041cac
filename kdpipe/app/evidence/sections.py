"""The parts of the page of evidence: all verdicts, one comparison claim by claim, and its controls."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from kdpipe.app.shared import verdicts
from kdpipe.app.shell import page, pick
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import ENDPOINTS, LEAST_SEEDS, NOT_ASKED

MANY = 12  # more comparisons scroll inside their table


def show_verdicts(study: Study, judged: pl.DataFrame, claims: pl.DataFrame) -> None:
    """The primary verdict, the table of all, and what verdicts mean."""
    st.header("The verdicts")
    main = verdicts.primary(study)
    titles = dict(claims.select("claim", "title").iter_rows())
    if main is not None:
        st.markdown("The one comparison that the study named before it ran:")
        verdicts.card(study, main, titles[main["claim"]])
    st.markdown("All comparisons, the others **exploratory** (their p values corrected over all of them together):")
    table = verdicts.in_table(judged)
    with st.container(height=520 if table.height > MANY else "content", border=False):
        st.table(table, hide_index=True, alt="A row a comparison, a column a claim, the verdict in each cell")
    with st.expander("What these verdicts mean", expanded=True):
        st.markdown(verdicts.meanings(judged))
        st.caption(
            f"A verdict needs {LEAST_SEEDS} paired seeds; with fewer there are estimates and no p values. Intervals "
            "are over seeds and images at once. p is about seeds alone, for these images and this teacher."
            f"{verdicts.least_p(main)} A control is a student "
            "trained with something else in distillation's place, or without one of its parts. Rules and words: "
            "docs/EVIDENCE.md in the repository."
        )
    across = judged.filter((pl.col("student") == "") | (pl.col("method_label") == ""))
    if across.height:
        with st.expander(f"Across architectures and methods: {across.height} more verdicts"):
            for row in across.iter_rows(named=True):
                st.markdown(verdicts.in_words(row))
                st.text(f"{titles[row['claim']]} {row['sentence']}")
    page.folded_table(claims, f"{study.name}-claims", "claims", "What each claim is judged by")
    page.folded_table(judged, f"{study.name}-verdicts", "verdicts")


def show_claims(study: Study, judged: pl.DataFrame, cell: dict[str, Any]) -> None:
    """One comparison, a fold for each claim."""
    st.header("One comparison, claim by claim")
    titles = dict(study.claims.select("claim", "title").iter_rows())
    for row in verdicts.of_cell(judged, cell).iter_rows(named=True):
        with st.expander(
            f"{verdicts.in_words(row)} · {titles[row['claim']]}",
            expanded=row["claim"] == "earlier" and not row["primary"],
        ):
            verdicts.details(study, row)


def show_controls(study: Study, cell: dict[str, Any]) -> None:
    """What is left of a comparison's effect against each control."""
    st.header("What remains after each control")
    rows = verdicts.of_cell(study.comparisons, cell)
    measured = [name for name in ENDPOINTS if name in rows.filter(quantity="early_abc")["measure"].to_list()]
    if not measured:
        st.info("There is no area before the last layer here: that takes three layers.")
        return
    titles = {name: ENDPOINTS[name].full_title for name in measured}
    endpoint = pick.one("Endpoint", measured, "endpoint", words=lambda name: titles[name], look="segments")
    shown = verdicts.held_against(rows, endpoint)
    chart = verdicts.forest(shown, verdicts.epsilon_of(study, endpoint), "area before the last layer")
    page.chart(study, chart, "forest", verdicts.forest_in_words(shown))
    page.notes(
        "**Against plain** must lie right of 0, and so must every control: one that 0 crosses can explain the effect "
        "away." + verdicts.within_band(shown, verdicts.epsilon_of(study, endpoint)),
        "Dot: mean over seeds; line: 95 % interval over seeds and images, for this teacher; ticks: seeds. Grey band: "
        f"the study's margin (±{verdicts.epsilon_of(study, endpoint):g}), within which a difference does not matter. A "
        "control *in the place* of distillation must be beaten; of one that *withholds* something (`… - plain`) a "
        "gain over plain must be left.",
    )
    controls = verdicts.controls_of(study, cell).filter(measure=endpoint)
    with st.expander("What each control is, and what it rules out"):
        st.table(verdicts.controls_in_words(study, controls), hide_index=True)
    missing = controls.filter(outcome=NOT_ASKED).select("control", "why_not").rows()
    if missing:
        st.text(f"Could not be asked: {'; '.join(f'{name}: {why}' for name, why in missing)}.")
    kept = shown.select("against", "control", "control_kind", "outcome", *verdicts.NUMBERS, "per_seed")
    page.folded_table(verdicts.flat(kept), f"{study.name}-{cell['method_label']}-controls", "controls")
    every = verdicts.flat(rows.drop("student", "method_label", "budget_id", "label_fraction", "primary"))
    name = f"{study.name}-{cell['method_label']}-comparisons"
    page.folded_table(every, name, "quantities", "All quantities of this comparison")
    page.data_note(study)
