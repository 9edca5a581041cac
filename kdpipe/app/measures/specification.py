"""Every way in which the area before the last layer could have been measured, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl
import streamlit as st

from kdpipe.app.shared import verdicts
from kdpipe.app.shared.charts import CANVAS, Layered, fitting_columns
from kdpipe.app.shell import page, pick
from kdpipe.app.shell.theme import PETROFF
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import CONTROL, ENDPOINTS, PLAIN, VIEWS


@st.fragment
def section(study: Study, cell: Mapping[str, Any]) -> None:
    """Every way in which the area could have been measured; another control reruns this part alone."""
    with page.section("The specifications"):
        st.header("Every way to measure it")
        rows = verdicts.of_cell(study.specification, cell)
        if rows.is_empty():
            st.info("This study kept no other ways to measure: set `specifications = true` under `[measures]`.")
            return
        others = rows.filter(against=CONTROL).select(verdicts.AGAINST).to_series().unique(maintain_order=True)
        against = pick.several("Against", [PLAIN, *others], "against", first=[PLAIN])
        shown = rows_of(rows, against or [PLAIN])
        parts = shown.partition_by("measure", maintain_order=True)
        for column, part in zip(st.columns(2), parts, strict=False):
            endpoint, above = part["measure"][0], part.filter(pl.col("low") > 0).height
            estimates = part["estimate"].to_list()  # from the smallest
            with column:
                st.subheader(ENDPOINTS[endpoint].title)
                page.chart(
                    study, curve(part, verdicts.epsilon_of(study, endpoint)), f"spec_{endpoint}",
                    f"Area before the last layer measured in {part.height} ways, from {estimates[0]:+.3f} to "
                    f"{estimates[-1]:+.3f}; the interval of {above} lies above 0.",
                )  # fmt: skip
        positive = shown.filter(pl.col("low") > 0).height
        page.notes(
            f"The interval of {positive} of {shown.height} specifications lies above 0. A claim that holds in one of "
            "them alone is about that way of measuring.",
            "Specifications: the views of a layer, as it is or with each column at deviation 1 (std), and the numbers "
            "of neighbours (k) that the study has. Intervals are over seeds and images. Grey band: the study's margin "
            "for the way fixed in advance, within which a difference does not matter.",
        )
        page.folded_table(shown.drop("place", "kind"), f"{study.name}-{cell['method_label']}-specification", "ways")


def rows_of(specification: pl.DataFrame, against: Sequence[str]) -> pl.DataFrame:
    """Every way to measure the early area, the smallest first within an endpoint, each with a name."""
    way = pl.concat_str(
        pl.col("view").replace(VIEWS),
        pl.when(pl.col("k").is_not_null()).then(pl.format(", k = {}", "k")).otherwise(pl.lit("")),
        pl.when("standardised").then(pl.lit(", std")).otherwise(pl.lit("")),
    )
    several = pl.lit(len(against) > 1)
    rows = specification.with_columns(against=verdicts.AGAINST).filter(pl.col("against").is_in(list(against)))
    rows = rows.with_columns(
        way=pl.when(several).then(pl.concat_str("against", pl.lit(": "), way)).otherwise(way),
        kind=pl.when("fixed_in_advance").then(pl.lit("fixed in advance")).otherwise(pl.lit("another way")),
    )
    first = pl.col("measure").replace_strict({name: at for at, name in enumerate(ENDPOINTS)}, default=len(ENDPOINTS))
    return rows.sort(first, "estimate").with_columns(
        place=pl.int_range(pl.len()).over("measure"),
        endpoint=pl.col("measure").replace({name: one.full_title for name, one in ENDPOINTS.items()}),
    )


def curve(rows: pl.DataFrame, epsilon: float) -> Layered:
    """The estimates of every specification of one endpoint in rising order, named; bold what was fixed in advance.

    Args:
        rows: of :func:`rows_of`, of one measure.
        epsilon: half the width of the band of what would not matter.
    """
    tooltip: list[Any] = [
        alt.Tooltip("against:N"),
        alt.Tooltip("way:N"),
        *(alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("estimate", "low", "high")),
        alt.Tooltip("kind:N"),
    ]
    kinds = ["fixed in advance", "another way"]
    legend = alt.Legend(orient="top", columns=fitting_columns(kinds, 320))
    base = alt.Chart(rows.select("against", "way", "estimate", "low", "high", "kind", "place")).encode(
        y=alt.Y(
            "way:N",
            sort=rows["way"].to_list(),
            title=None,
            axis=alt.Axis(labelLimit=verdicts.LIMIT, labelOverlap=False),
        ),
        color=alt.Color(
            "kind:N", title=None, scale=alt.Scale(domain=kinds, range=[PETROFF[2], PETROFF[8]]), legend=legend
        ),
        tooltip=tooltip,
    )
    x: dict[str, Any] = {"title": "area before the last layer", "scale": alt.Scale(zero=True)}
    x["axis"] = alt.Axis(tickCount=5)
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", **x), x2=alt.X2("high:Q"))
    shape = alt.Shape("kind:N", title=None, scale=alt.Scale(domain=kinds, range=["diamond", "circle"]), legend=legend)
    dots = base.mark_point(filled=True, opacity=1, size=100).encode(x=alt.X("estimate:Q", **x), shape=shape)
    height = 190 + 26 * max(rows.height, 2)  # the legend, the axis and the signature take their part
    return alt.layer(*verdicts.zero(epsilon, x), bars, dots).properties(height=height, usermeta=CANVAS)
