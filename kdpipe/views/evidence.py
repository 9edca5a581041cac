"""Verdicts on a page: cards, the table of claims, what an effect outlasts, and every way it could be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl
import streamlit as st

from kdpipe.store import Study
from kdpipe.views import catalog
from kdpipe.views.charts import CANVAS, LABEL, Layered
from kdpipe.views.theme import GREY, PETROFF

# Icon and Streamlit badge colour of each verdict; what is not named here is neutral.
LOOKS: Mapping[str, tuple[str, Any]] = {
    "supported": (":material/check_circle:", "green"),
    "supported for compactness only": (":material/rule:", "orange"),
    "better but not earlier": (":material/trending_up:", "orange"),
    "explained": (":material/rule:", "orange"),
    "reversed": (":material/undo:", "red"),
    "no difference": (":material/drag_handle:", "gray"),
    "not supported by all": (":material/rule:", "orange"),
    "inconclusive": (":material/question_mark:", "gray"),
    "estimate only": (":material/straighten:", "gray"),
    "not computable": (":material/block:", "gray"),
}
ENDPOINTS = {"silhouette": "silhouette (projection)", "knn_accuracy": "kNN accuracy (channel means)"}
PASSED, FAILED, PLAIN = "outlasts it", "does not outlast it", "against plain"
_COLOURS = {PLAIN: PETROFF[0], PASSED: PETROFF[3], FAILED: PETROFF[2]}


def cell_name(row: Mapping[str, Any], several_students: bool) -> str:
    """What a cell is called: method, budget, and the student where there are several."""
    method, student = row["method_label"] or "all methods", row["student"] or "all students"
    named = f"{method}, {catalog.budget(row['label_fraction'])}"
    return f"{named}, {student}" if several_students else named


def card(verdict: Mapping[str, Any], claim: str) -> None:
    """One verdict: the claim, the verdict, the effect with its interval, seeds and controls, in words."""
    icon, colour = LOOKS.get(verdict["verdict"], (":material/help:", "gray"))
    with st.container(border=True):
        st.markdown(f"**{claim}**")
        st.badge(verdict["title"], icon=icon, color=colour)
        st.text(verdict["sentence"])
        if verdict["because"] and verdict["verdict"] != "supported":
            st.caption(f"Why: {verdict['because']}.")
        if verdict["takes"]:
            st.caption(f"What a decision would take: {verdict['takes']}.")
        asked = len(verdict["controls_passed"]) + len(verdict["controls_failed"])
        missing = len(verdict["controls_missing"])
        left = f" {missing} more could not be asked." if missing else ""
        said = [f"Outlasts {len(verdict['controls_passed'])} of {asked} controls.{left}"] if asked else []
        if verdict["null_ratio"] is not None:
            said.append(f"{verdict['null_ratio']:.1f} times what another start alone moves.")
        if said:
            st.caption(" ".join(said))


def in_table(verdicts: pl.DataFrame) -> pl.DataFrame:
    """A row a cell and a column a claim by its short name, holding the verdict."""
    several = verdicts.filter(pl.col("student") != "")["student"].n_unique() > 1
    rows: dict[str, dict[str, str]] = {}
    for row in verdicts.iter_rows(named=True):
        if row["student"] and row["method_label"]:
            name = cell_name(row, several)
            rows.setdefault(name, {"comparison": name})[row["claim"].replace("-", " ")] = row["title"]
    return pl.DataFrame(list(rows.values()), infer_schema_length=None).fill_null("not asked")


def outlasted(comparisons: pl.DataFrame, endpoint: str) -> pl.DataFrame:
    """The early area against plain and against each control, with what became of it."""
    mine = comparisons.filter(measure=endpoint, quantity="early_abc")
    kept = pl.when(pl.col("low") > 0).then(pl.lit(PASSED)).otherwise(pl.lit(FAILED))
    return mine.with_columns(outcome=pl.when(pl.col("against") == "plain").then(pl.lit(PLAIN)).otherwise(kept))


def forest(rows: pl.DataFrame, epsilon: float, title: str) -> Layered:
    """A row a contrast: its estimate, its interval and each seed, before the band of what would not matter.

    Args:
        rows: of :func:`outlasted`, in order.
        epsilon: half the width of the band.
    """
    order = rows["against"].to_list()
    y = alt.Y("against:N", sort=order, title=None, axis=alt.Axis(labelLimit=LABEL, labelOverlap=False))
    x: dict[str, Any] = {"title": title, "scale": alt.Scale(zero=True, nice=True)}
    present = [name for name in _COLOURS if name in rows["outcome"].to_list()]
    colour = alt.Color(
        "outcome:N",
        title=None,
        scale=alt.Scale(domain=present, range=[_COLOURS[name] for name in present]),
        legend=alt.Legend(orient="top"),
    )
    tooltip: list[Any] = [
        "against:N",
        *(alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("estimate", "low", "high")),
    ]
    shown = rows.select("against", "outcome", "estimate", "low", "high")
    band = alt.Chart(pl.DataFrame({"low": [-epsilon], "high": [epsilon]})).mark_rect(color=GREY, opacity=0.18)
    zero = alt.Chart(pl.DataFrame({"at": [0.0]})).mark_rule(color=GREY).encode(x="at:Q")
    base = alt.Chart(shown).encode(y=y, color=colour, tooltip=tooltip)
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", **x), x2="high:Q")
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(x=alt.X("estimate:Q", **x))
    each = rows.select("against", "outcome", value="per_seed").explode("value")
    seeds = alt.Chart(each).mark_tick(thickness=1.5, size=9, opacity=0.7).encode(
        y=y, x=alt.X("value:Q", **x), color=colour, tooltip=["against:N", alt.Tooltip("value:Q", format="+.4f")]
    )  # fmt: skip
    layers = [band.encode(x=alt.X("low:Q", **x), x2="high:Q"), zero, bars, seeds, dots]
    return alt.layer(*layers).properties(height=130 + 26 * max(len(order), 2), usermeta=CANVAS)


def specification_rows(specification: pl.DataFrame, against: Sequence[str]) -> pl.DataFrame:
    """Every way to measure the early area, the smallest first within an endpoint, each with a name."""
    way = pl.concat_str(
        pl.col("measure").replace({"silhouette": "silhouette", "knn_accuracy": "kNN"}),
        pl.when(pl.col("k").is_not_null()).then(pl.concat_str(pl.lit("-"), "k")).otherwise(pl.lit("")),
        pl.lit(", "),
        pl.col("view"),
        pl.when("standardised").then(pl.lit(", standardised")).otherwise(pl.lit("")),
    )
    rows = specification.filter(pl.col("against").is_in(list(against))).with_columns(
        way=pl.concat_str(way, pl.lit(", against "), "against"),
        kind=pl.when("fixed_in_advance").then(pl.lit("fixed in advance")).otherwise(pl.lit("another way")),
    )
    return rows.sort("measure", "estimate").with_columns(
        place=pl.int_range(pl.len()).over("measure"),
        endpoint=pl.col("measure").replace({"silhouette": "silhouette", "knn_accuracy": "kNN accuracy"}),
    )


def specification_curve(rows: pl.DataFrame) -> Layered:
    """The estimates of every specification in rising order, a panel an endpoint; filled what was fixed in advance."""
    tooltip: list[Any] = [
        "way:N",
        *(alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("estimate", "low", "high")),
        "kind:N",
    ]
    base = alt.Chart(rows).encode(
        x=alt.X("place:O", title="specifications, the smallest first", axis=alt.Axis(labels=False, ticks=False)),
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=["fixed in advance", "another way"], range=[PETROFF[2], PETROFF[8]]),
            legend=alt.Legend(orient="top"),
        ),
        tooltip=tooltip,
    )
    bars = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title="area before the last layer"), y2="high:Q")
    dots = base.mark_point(filled=True, opacity=1).encode(
        y="estimate:Q", size=alt.Size("fixed_in_advance:N", legend=None, scale=alt.Scale(range=[35, 110]))
    )
    zero = alt.Chart().mark_rule(color=GREY).encode(y=alt.datum(0))
    panel = alt.layer(zero, bars, dots, data=rows).properties(width=320, height=240)
    return (
        panel.facet(column=alt.Column("endpoint:N", title=None))
        .resolve_scale(x="independent", y="independent")
        .properties(usermeta=CANVAS)
    )


def primary(study: Study) -> dict[str, Any] | None:
    """The verdict on the study's one cell that is not exploratory, on being compact earlier."""
    rows = study.frame("verdicts", primary=True)
    return rows.row(0, named=True) if rows.height else None
