"""The claims, judged: verdicts with their numbers, and the controls after which each effect remains."""

from typing import Any

import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog
from kdpipe.app.shared import verdicts as evidence
from kdpipe.app.shell import page, pick
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import ENDPOINTS, LEAST_SEEDS, NOT_ASKED

MANY = 12  # more comparisons scroll inside their table


def verdict_section(study: Study, verdicts: pl.DataFrame, claims: pl.DataFrame) -> None:
    st.header("The verdicts")
    main = evidence.primary(study)
    titles = dict(claims.select("claim", "title").iter_rows())
    if main is not None:
        st.markdown("The one comparison that the study named before it ran:")
        evidence.card(study, main, titles[main["claim"]])
    st.markdown("All comparisons, the others **exploratory** (their p values corrected over all of them together):")
    table = evidence.in_table(verdicts)
    with st.container(height=520 if table.height > MANY else "content", border=False):
        st.table(table, hide_index=True, alt="A row a comparison, a column a claim, the verdict in each cell")
    with st.expander("What these verdicts mean", expanded=True):
        st.markdown(evidence.meanings(verdicts))
        st.caption(
            f"A verdict needs {LEAST_SEEDS} paired seeds; with fewer there are estimates and no p values. Intervals "
            "are over seeds and images at once. p is about seeds alone, for these images and this teacher."
            f"{evidence.least_p(main)} A control is a student "
            "trained with something else in distillation's place, or without one of its parts. Rules and words: "
            "docs/EVIDENCE.md in the repository."
        )
    across = verdicts.filter((pl.col("student") == "") | (pl.col("method_label") == ""))
    if across.height:
        with st.expander(f"Across architectures and methods: {across.height} more verdicts"):
            for row in across.iter_rows(named=True):
                st.markdown(evidence.in_words(row))
                st.text(f"{titles[row['claim']]} {row['sentence']}")
    page.table_beside(claims, f"{study.name}-claims", "claims", "What each claim is judged by")
    page.table_beside(verdicts, f"{study.name}-verdicts", "verdicts")


def claim_section(study: Study, verdicts: pl.DataFrame, cell: dict[str, Any]) -> None:
    st.header("One comparison, claim by claim")
    titles = dict(study.claims.select("claim", "title").iter_rows())
    for row in evidence.of_cell(verdicts, cell).iter_rows(named=True):
        with st.expander(
            f"{evidence.in_words(row)} · {titles[row['claim']]}",
            expanded=row["claim"] == "earlier" and not row["primary"],
        ):
            evidence.details(study, row)


def control_section(study: Study, cell: dict[str, Any]) -> None:
    st.header("What remains of the effect")
    rows = evidence.of_cell(study.comparisons, cell)
    measured = [name for name in ENDPOINTS if name in rows.filter(quantity="early_abc")["measure"].to_list()]
    if not measured:
        st.info("There is no area before the last layer here: that takes three layers.")
        return
    titles = {name: ENDPOINTS[name].full_title for name in measured}
    endpoint = pick.one("Endpoint", measured, "endpoint", words=lambda name: titles[name], look="segments")
    shown = evidence.held_against(rows, endpoint)
    chart = evidence.forest(shown, evidence.epsilon_of(study, endpoint), "area before the last layer")
    page.chart(study, chart, "forest", evidence.forest_in_words(shown))
    st.caption(
        "Dot: mean over seeds; line: 95 % interval over seeds and images, for this teacher; ticks: seeds. Grey band: a "
        "difference within the study's margin. **Against plain** must lie right of 0. A control that "
        "stands *in the place* of distillation must be beaten too; of one that *withholds* something (`… - plain`) a "
        "gain over plain must be left. Controls that are crossed by 0 can explain the effect away."
        + evidence.within_band(shown, evidence.epsilon_of(study, endpoint))
    )
    controls = evidence.controls_of(study, cell).filter(measure=endpoint)
    with st.expander("What each control is, and what it rules out"):
        st.table(evidence.controls_in_words(study, controls), hide_index=True)
    missing = controls.filter(outcome=NOT_ASKED).select("control", "why_not").rows()
    if missing:
        st.text(f"Could not be asked: {'; '.join(f'{name}: {why}' for name, why in missing)}.")
    kept = shown.select("against", "control", "control_kind", "outcome", *evidence.NUMBERS, "per_seed")
    page.table_beside(evidence.flat(kept), f"{study.name}-{cell['method_label']}-controls", "controls")
    every = evidence.flat(rows.drop("student", "method_label", "budget_id", "label_fraction", "primary"))
    name = f"{study.name}-{cell['method_label']}-comparisons"
    page.table_beside(every, name, "quantities", "All quantities of this comparison")
    page.data_note(study)


def main() -> None:
    study = page.open_page("Evidence", "⚖️")
    st.title("Evidence")
    st.markdown(
        "*Distillation makes a network more compact, already in earlier layers.* Here that sentence is taken apart "
        "into claims that can fail, each held against what else could explain it."
    )
    with page.section("The verdicts"):
        page.lost_networks(catalog.networks(study))
        verdicts, claims = study.verdicts, study.claims
        if verdicts.is_empty():
            st.info(
                "This study has no distilled student with a plain one of the same seed, so there is nothing to judge."
            )
            return
        verdict_section(study, verdicts, claims)
        cell = evidence.pick_cell(verdicts)
        claim_section(study, verdicts, cell)
        with page.section("The controls"):
            control_section(study, cell)
        evidence.link_to_measures(study, cell, verdicts)


main()
