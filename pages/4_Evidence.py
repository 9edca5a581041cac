"""The claims, judged: verdicts with their numbers, what each effect outlasts, and every way it could be measured."""

from typing import Any

import polars as pl
import streamlit as st

from kdpipe.store import Study
from kdpipe.views import catalog, evidence, page

NUMBERS = ("estimate", "low", "high", "p", "p_corrected", "d_z", "null_ratio")


def verdict_section(study: Study, verdicts: pl.DataFrame, claims: pl.DataFrame) -> None:
    st.header("The verdicts")
    main = evidence.primary(study)
    titles = dict(claims.select("claim", "title").iter_rows())
    if main is not None:
        st.markdown("The one comparison that the study named before it ran:")
        evidence.card(main, titles[main["claim"]])
    st.markdown("All comparisons, the others **exploratory** (their p values corrected over all of them together):")
    st.dataframe(evidence.in_table(verdicts), hide_index=True)
    across = verdicts.filter((pl.col("student") == "") | (pl.col("method_label") == ""))
    for row in across.iter_rows(named=True):
        st.text(f"{titles[row['claim']]} Verdict: {row['title']}. {row['sentence']}")
    st.caption(
        "A verdict needs 8 paired seeds; with fewer there are estimates and no p values. Intervals are over seeds and "
        "images at once. p is about seeds alone, for these images "
        "and this teacher. Rules and words: docs/EVIDENCE.md in the repository."
    )
    with st.expander("What each claim is judged by"):
        st.dataframe(claims, hide_index=True)
    page.table_beside(verdicts.drop("rests_on"), f"{study.name}-verdicts")


def pick_cell(verdicts: pl.DataFrame) -> dict[str, Any]:
    """The cell in the address, or the study's primary one."""
    cells = verdicts.filter(claim="earlier").rows(named=True)
    several = len({row["student"] for row in cells}) > 1
    names = [evidence.cell_name(row, several) for row in cells]
    first = next((at for at, row in enumerate(cells) if row["primary"]), 0)
    name = st.selectbox("Comparison", names, index=first, key="cell", bind="query-params", width=420)
    return cells[names.index(name)]


def of_cell(frame: pl.DataFrame, cell: dict[str, Any]) -> pl.DataFrame:
    same = (pl.col("student") == cell["student"]) & (pl.col("method_label") == cell["method_label"])
    return frame.filter(same & ((pl.col("label_fraction") - cell["label_fraction"]).abs() < 1e-6))


def control_section(study: Study, cell: dict[str, Any]) -> None:
    st.header("What the effect outlasts")
    rows = of_cell(study.comparisons, cell)
    measured = [name for name in evidence.ENDPOINTS if name in rows.filter(quantity="early_abc")["measure"].to_list()]
    if not measured:
        st.info("There is no area before the last layer here: that takes three layers.")
        return
    picked = st.segmented_control(
        "Endpoint", measured, format_func=evidence.ENDPOINTS.get, default=measured[0], required=True, key="endpoint",
        bind="query-params",
    )  # fmt: skip
    endpoint = picked or measured[0]
    shown = evidence.outlasted(rows, endpoint)
    epsilon = study.record["study"]["evidence"]["epsilon"][endpoint]
    chart = evidence.forest(shown, epsilon, f"area before the last layer, {evidence.ENDPOINTS[endpoint]}")
    st.altair_chart(chart, key="forest", alt=f"Effect of {cell['method_label']} against plain and against each control")
    st.caption(
        "Dot: mean over seeds; line: 95 % interval over seeds and images, for this teacher; ticks: seeds. Grey band: a "
        "difference that "
        "was said beforehand not to matter. **Against plain** must lie right of 0. A control that stands *in the "
        "place* of distillation must be beaten too; of one that *withholds* something (`… - plain`) a gain over plain "
        "must be left. Controls that are crossed by 0 can explain the effect away."
    )
    if missing := cell["controls_missing"]:
        st.caption(f"Could not be asked: {'; '.join(missing)}.")
    with st.expander("All quantities of this comparison"):
        st.dataframe(rows.drop("student", "method_label", "label_fraction", "primary"), hide_index=True)
        page.downloads(rows, f"{study.name}-{cell['method_label']}-comparisons")
    page.data_note(study)


def specification_section(study: Study, cell: dict[str, Any]) -> None:
    st.header("Every way to measure it")
    rows = of_cell(study.specification, cell)
    if rows.is_empty():
        st.info("This study kept no other ways to measure: set `specifications = true` under `[measures]`.")
        return
    others = [name for name in rows["against"].unique(maintain_order=True) if name != "plain"]
    chosen = st.multiselect("Against", ["plain", *others], default=["plain"], key="against", bind="query-params")
    shown = evidence.specification_rows(rows, chosen or ["plain"])
    st.altair_chart(
        evidence.specification_curve(shown), key="specification", alt="Estimates of every specification, smallest first"
    )
    positive = shown.filter(pl.col("low") > 0).height
    st.caption(
        f"{shown.height} specifications: two views of a layer, as it is or with each column at deviation 1, and two "
        f"numbers of neighbours. The interval of {positive} lies above 0. A claim that holds in one of them alone is "
        "about that way of measuring."
    )
    page.table_beside(shown.drop("place", "kind"), f"{study.name}-{cell['method_label']}-specification")


def flip_section(study: Study, cell: dict[str, Any]) -> None:
    st.header("Fixed, broken and inherited")
    same = study.networks.filter(student=cell["student"], method_label=cell["method_label"])
    same = same.filter((pl.col("label_fraction") - cell["label_fraction"]).abs() < 1e-6)
    rows = study.frame("flips", network_id=same["network_id"].to_list())
    if rows.is_empty():
        st.info("No student here has both a plain companion and a teacher that answered.")
        return
    names = study.record["data"]["class_names"]
    label = pl.col("label").map_elements(lambda index: names[index], pl.String).fill_null("all classes")
    table = rows.join(same.select("network_id", "seed"), "network_id").with_columns(of=label)
    counts = ("images", "fixed", "broken", "inherited", "same_error", "plain_same_error")
    small = (pl.col("p_value") < 0.05).sum().alias("p < .05")
    means = (pl.col(name).mean() for name in counts)
    shown = table.group_by("of", maintain_order=True).agg(*means, pl.len().alias("seeds"), small)
    digits = st.column_config.NumberColumn(format="%.1f")
    st.dataframe(shown, hide_index=True, column_config=dict.fromkeys(counts, digits))
    st.caption(
        "Probe images, mean over seeds. **Fixed**: plain is wrong, this student right. **Broken**: the other way "
        "round. **Inherited**: the teacher's own wrong answer, which plain did not give. *p < .05*: seeds at which an "
        "exact McNemar test of fixed against broken says so, not corrected over classes."
    )
    page.downloads(table, f"{study.name}-{cell['method_label']}-flips")


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
        cell = pick_cell(verdicts)
        with page.section("The controls"):
            control_section(study, cell)
        with page.section("The specifications"):
            specification_section(study, cell)
        with page.section("The flips"):
            flip_section(study, cell)


main()
