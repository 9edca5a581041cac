"""Verdicts on a page: cards, the table of claims, and the controls after which an effect remains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl
import streamlit as st

from kdpipe.app.shared.charts import CANVAS, Layered, fitting_columns
from kdpipe.app.shell import page, pick
from kdpipe.app.shell.theme import GREY, PETROFF
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import (
    CONTROL_KINDS,
    ENDPOINTS,
    MATCHED_ACCURACY_SUMMARY,
    MEANINGS,
    NOT_ASKED,
    REMAINS,
    budget_in_words,
    full_title,
    qualification,
)

# Icon and Streamlit badge colour of each verdict; what is not named here is neutral.
LOOKS: Mapping[str, tuple[str, Any]] = {
    "supported": (":material/check_circle:", "green"),
    "supported for compactness only": (":material/rule:", "orange"),
    "better but not earlier": (":material/trending_up:", "orange"),
    "explained": (":material/call_split:", "orange"),
    "reversed": (":material/undo:", "red"),
    "no difference": (":material/drag_handle:", "gray"),
    "not supported by all": (":material/stacks:", "orange"),
    "inconclusive": (":material/question_mark:", "gray"),
    "estimate only": (":material/straighten:", "gray"),
    "not computable": (":material/block:", "gray"),
}
NUMBERS = ("seeds", "estimate", "low", "high", "p", "p_corrected", "correction", "d_z", "null_ratio")
PASSED, FAILED, AGAINST_PLAIN = "remains after it", "does not remain after it", "against plain"
_OUTCOMES = {AGAINST_PLAIN: (PETROFF[0], "diamond"), PASSED: (PETROFF[3], "circle"), FAILED: (PETROFF[2], "cross")}
# What a row of comparisons or specification is held against, for people: of "X - plain" a gain is to be left.
AGAINST = (
    pl.when(pl.col("control_kind") == "without")
    .then(pl.concat_str("control", pl.lit(" - plain")))
    .otherwise(pl.coalesce("control", "against"))
)
LIMIT = 220  # pixels of a name left of its row: a phone has 340 in all


def cell_name(row: Mapping[str, Any], several_students: bool) -> str:
    """What a cell is called: method, budget, and the student where there are several."""
    method, student = row["method_label"] or "all methods", row["student"] or "all students"
    named = f"{method}, {budget_in_words(row['label_fraction'])}"
    return f"{named}, {student}" if several_students else named


def card(study: Study, verdict: Mapping[str, Any], claim: str) -> None:
    """One verdict: the claim, the verdict, the effect with its interval, seeds and controls, in words."""
    with st.container(border=True):
        st.markdown(f"**{claim}**")
        badges(verdict)
        details(study, verdict)


def badges(verdict: Mapping[str, Any]) -> None:
    """The verdict and, in grey, how many controls were not asked: two badges, as a narrow card cuts off a long one."""
    icon, colour = LOOKS[verdict["verdict"]]
    with st.container(horizontal=True, gap="small"):
        st.badge(verdict["title"], icon=icon, color=colour)
        if rest := qualification(verdict["verdict"], verdict["controls_not_asked"]):
            st.badge(rest, color="gray")


def details(study: Study, verdict: Mapping[str, Any]) -> None:
    """What a verdict rests on: its sentence with the numbers, the reason, what a decision takes, and controls."""
    st.text(verdict["sentence"])
    if verdict["because"] and verdict["verdict"] != "supported":
        st.caption(f"Why: {verbatim(verdict['because'])}.")
    if verdict["takes"]:
        st.caption(f"What a decision would take: {verbatim(verdict['takes'])}.")
    said = []
    if held := remains_in_words(controls_of(study, verdict), "controls"):
        missing = verdict["controls_not_asked"]
        said.append(f"{held}." + (f" {missing} more could not be asked." if missing else ""))
    if verdict["null_ratio"] is not None:
        said.append(null_in_words(verdict["null_ratio"]))
    if said:
        st.caption(" ".join(said))


def null_in_words(ratio: float) -> str:
    """An effect against what other initial weights change; a ratio to nothing is infinite, or 0 where both are."""
    if math.isinf(ratio):
        return "Other initial weights alone change nothing here."
    return f"{ratio:.1f} times what other initial weights alone change."


def controls_of(study: Study, verdict: Mapping[str, Any]) -> pl.DataFrame:
    """The controls that a verdict was held against, endpoint by endpoint: rows of verdict_controls.parquet."""
    return of_cell(study.verdict_controls, verdict).filter(claim=verdict["claim"])


def remains_in_words(controls: pl.DataFrame, what: str) -> str:
    """After how many of the controls that were asked an effect remains, at each endpoint; empty if none was asked.

    Args:
        controls: rows as of :func:`controls_of`.
        what: what controls are called.
    """
    asked = controls.filter(pl.col("outcome") != NOT_ASKED)
    counts = asked.group_by("measure", maintain_order=True).agg(kept=(pl.col("outcome") == REMAINS).sum(), all=pl.len())
    said = [f"{kept} of {every}" for _, kept, every in counts.rows()]
    if not said:
        return ""
    if len(said) == 1:
        return f"Remains after {said[0]} {what}"
    titles = [ENDPOINTS[name].title for name in counts["measure"]]
    rest = [f"{count} on {title}" for count, title in zip(said[1:], titles[1:], strict=True)]
    return ", ".join([f"Remains after {said[0]} {what} on {titles[0]}", *rest])


def link_to_measures(study: Study, cell: Mapping[str, Any], verdicts: pl.DataFrame) -> None:
    """To the same comparison on the page of measures, where its curves and every other way to measure it are."""
    several = verdicts.filter(claim="earlier")["student"].n_unique() > 1
    about = "Curves, advance, every way to measure"
    asked = {} if cell["primary"] else {"comparison": cell_name(cell, several)}  # a default stays out of addresses
    page.link("pages/3_Measures.py", about, study=study, **asked)


def pick_cell(verdicts: pl.DataFrame, key: str = "cell") -> dict[str, Any]:
    """The comparison in the address, or the study's primary one: a row of verdicts on being compact earlier.

    Pages that link to each other need keys of their own: a link drops what its page keeps in the address itself.
    """
    cells = verdicts.filter(claim="earlier").rows(named=True)
    students = len({row["student"] for row in cells}) > 1
    names = [cell_name(row, students) for row in cells]
    first = next((at for at, row in enumerate(cells) if row["primary"]), 0)
    return cells[names.index(pick.one("Comparison", names, key, first=names[first], width=420))]


def of_cell(frame: pl.DataFrame, cell: Mapping[str, Any]) -> pl.DataFrame:
    """The rows of a comparison, in any table that has its student, method_label and budget_id."""
    return frame.filter(**{name: cell[name] for name in ("student", "method_label", "budget_id")})


def least_p(verdict: Mapping[str, Any] | None) -> str:
    """The smallest p that so few seeds can give: all of one sign, in an exact two-sided test."""
    if verdict is None or verdict["p"] is None:
        return ""
    least = 2.0 ** (1 - verdict["seeds"])
    return (
        f" {verdict['seeds']} seeds of one sign give p = {least:.2g} and no less, {2 * least:.2g} once corrected over "
        "the two endpoints: more seeds, not a larger effect, would make it smaller."
    )


def controls_in_words(study: Study, controls: pl.DataFrame) -> pl.DataFrame:
    """What stands behind the names of controls: control, what it is, what it asks; as Markdown without any.

    Args:
        controls: rows of verdict_controls.parquet at one endpoint.
    """
    summaries = dict(study.methods.select("method", "summary").rows()) | {None: MATCHED_ACCURACY_SUMMARY}
    said = [
        (verbatim(name), verbatim(summaries.get(method, "")), CONTROL_KINDS[kind])
        for name, method, kind in controls.select("control", "control_method", "control_kind").rows()
    ]
    return pl.DataFrame(said, schema=dict.fromkeys(("control", "what it is", "what it asks"), pl.String), orient="row")


def epsilon_of(study: Study, endpoint: str) -> float:
    """The study's margin ε: an area within ±ε does not matter; in the endpoint's unit times depth, 0 if it has none."""
    said = study.record["study"].get("evidence") or {}
    return float((said.get("epsilon") or {}).get(endpoint, 0.0))


def flat(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of comparisons with lists as text, as CSV holds none."""
    lists = [name for name, dtype in rows.schema.items() if isinstance(dtype, pl.List)]
    return rows.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join("; ") for name in lists)


def in_words(verdict: Mapping[str, Any]) -> str:
    """A verdict for a table that reads Markdown: its icon, which differs in shape and colour, and its title."""
    icon, colour = LOOKS[verdict["verdict"]]
    title = full_title(verdict["verdict"], verdict["title"], verdict["controls_not_asked"])
    return f":{colour}[{icon}] {verbatim(title)}"


def in_table(verdicts: pl.DataFrame) -> pl.DataFrame:
    """A row a cell and a column a claim by its short name, holding the verdict as Markdown."""
    several = verdicts.filter(pl.col("student") != "")["student"].n_unique() > 1
    rows: dict[str, dict[str, str]] = {}
    for row in verdicts.iter_rows(named=True):
        if row["student"] and row["method_label"]:
            name = cell_name(row, several)
            mine = rows.setdefault(name, {"comparison": verbatim(name)})
            mine[row["claim"].replace("-", " ")] = in_words(row)
    return pl.DataFrame(list(rows.values()), infer_schema_length=None).fill_null("not asked")


def meanings(verdicts: pl.DataFrame) -> str:
    """The verdicts that occur, each with its icon and what it means, as a Markdown list."""
    present = set(verdicts["verdict"].to_list())
    lines = (f"- :{LOOKS[name][1]}[{LOOKS[name][0]}] **{name}**: {said}" for name, said in MEANINGS.items())
    return "\n".join(line for name, line in zip(MEANINGS, lines, strict=True) if name in present)


def held_against(comparisons: pl.DataFrame, endpoint: str) -> pl.DataFrame:
    """The early area against plain and against each control: with name (of a row) and outcome (what became of it)."""
    mine = comparisons.filter(measure=endpoint, quantity="early_abc")
    kept = pl.when(pl.col("low") > 0).then(pl.lit(PASSED)).otherwise(pl.lit(FAILED))
    return mine.with_columns(
        name=AGAINST,
        outcome=pl.when(pl.col("control").is_null()).then(pl.lit(AGAINST_PLAIN)).otherwise(kept),
    )


def forest_in_words(rows: pl.DataFrame) -> str:
    """The rows of :func:`held_against` in a sentence, with the numbers."""
    said = [
        f"{row['name']} {row['estimate']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        for row in rows.drop_nulls(["low", "high"]).rows(named=True)
    ]
    controls = rows.filter(pl.col("outcome") != AGAINST_PLAIN)
    passed = controls.filter(outcome=PASSED).height
    remains = f"It remains after {passed} of {controls.height} controls" if controls.height else "No control was asked"
    return f"Area before the last layer held against: {'; '.join(said)}. {remains}."


def forest(rows: pl.DataFrame, epsilon: float, title: str) -> Layered:
    """A row a contrast: its estimate, its interval and each seed, before the band of what would not matter.

    Args:
        rows: of :func:`held_against`, in order.
        epsilon: half the width of the band.
    """
    order = rows["name"].to_list()
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=LIMIT, labelOverlap=False))
    x: dict[str, Any] = {"title": title, "scale": alt.Scale(zero=True, nice=True), "axis": alt.Axis(tickCount=6)}
    present = [name for name in _OUTCOMES if name in rows["outcome"].to_list()]
    legend = alt.Legend(orient="top", columns=fitting_columns(present, 500))
    colours, shapes = zip(*(_OUTCOMES[name] for name in present), strict=True)
    colour = alt.Color("outcome:N", title=None, scale=alt.Scale(domain=present, range=list(colours)), legend=legend)
    shape = alt.Shape("outcome:N", title=None, scale=alt.Scale(domain=present, range=list(shapes)), legend=legend)
    tooltip: list[Any] = [
        alt.Tooltip("name:N", title="against"),
        *(alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("estimate", "low", "high")),
    ]
    shown = rows.select("name", "outcome", "estimate", "low", "high")
    base = alt.Chart(shown).encode(y=y, color=colour, tooltip=tooltip)
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", **x), x2=alt.X2("high:Q"))
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(x=alt.X("estimate:Q", **x), shape=shape)
    each = rows.select("name", "outcome", value="per_seed").explode("value")
    seeds = alt.Chart(each).mark_tick(thickness=1.5, size=9, opacity=0.7).encode(
        y=y, x=alt.X("value:Q", **x), color=colour,
        tooltip=[alt.Tooltip("name:N", title="against"), alt.Tooltip("value:Q", format="+.4f")]
    )  # fmt: skip
    return alt.layer(*zero(epsilon, x), bars, seeds, dots).properties(
        height=170 + 28 * max(len(order), 2), usermeta=CANVAS
    )


def within_band(rows: pl.DataFrame, epsilon: float) -> str:
    """After which controls the effect remains by what may not matter: their intervals reach into the band."""
    reaching = rows.filter((pl.col("outcome") == PASSED) & (pl.col("low") < epsilon))["name"].to_list()
    if not reaching or not epsilon:
        return ""
    return (
        f" The effect remains, but perhaps by no more than ±{epsilon:g}, the study's margin, after "
        f"{verbatim(', '.join(reaching))}."
    )


def zero(epsilon: float, x: dict[str, Any]) -> list[Any]:
    """The line at 0 inside the band of what would not matter."""
    band = alt.Chart(pl.DataFrame({"low": [-epsilon], "high": [epsilon]})).mark_rect(color=GREY, opacity=0.22)
    line = alt.Chart(pl.DataFrame({"at": [0.0]})).mark_rule(color=GREY).encode(x=alt.X("at:Q", **x))
    return [band.encode(x=alt.X("low:Q", **x), x2=alt.X2("high:Q")), line]


def primary(study: Study) -> dict[str, Any] | None:
    """The verdict on the study's one cell that is not exploratory, on being compact earlier."""
    rows = study.frame("verdicts", primary=True)
    return rows.row(0, named=True) if rows.height else None
