"""What networks believe of one image: their probabilities, softened, and the classes they find likeliest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from kdpipe.app.shared import catalog
from kdpipe.app.shared.charts import CANVAS, Layered, series_colour
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study

MOST_CLASSES = 12  # of the distribution over classes
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0)


def temperatures(study: Study, networks: pl.DataFrame) -> tuple[list[float], float]:
    """The temperatures on offer and the one to begin with: that of the headline's loss, where it has one."""
    head = catalog.headline(study, networks).filter(pl.col("role") == "distilled")
    used = head["method_parameters"].str.json_path_match("$.temperature").cast(pl.Float64, strict=False).drop_nulls()
    own = [float(value) for value in used.unique() if value > 0]
    return sorted({*TEMPERATURES, *own}), own[0] if own else TEMPERATURES[0]


def softened(answers: pl.DataFrame, names: Sequence[str], temperature: float) -> pl.DataFrame:
    """The softmax of each network's logits over ``temperature``, long: network_id, label, series, class_name, share."""
    known = answers.filter(pl.col("logits").is_not_null())
    wide = known.select("network_id", "label", "series", "role")
    if known.is_empty():
        return wide.with_columns(class_name=pl.lit(""), share=pl.lit(0.0))
    logits = np.array(known["logits"].to_list(), float) / temperature
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares = shares / shares.sum(1, keepdims=True)
    return pl.concat(
        [wide.with_columns(class_name=pl.lit(name), share=pl.Series(shares[:, at])) for at, name in enumerate(names)]
    )


def top_three(answers: pl.DataFrame, names: Sequence[str], settled: Mapping[str, str]) -> pl.DataFrame:
    """A row a network: its answer (✓ right, ✗ wrong) and the three classes it finds likeliest (temperature 1)."""
    shares = softened(answers, names, 1.0).sort("share", descending=True, maintain_order=True)
    best = {who[0]: rows.head(3).rows(named=True) for who, rows in shares.group_by("network_id")}
    rows = []
    for row in answers.filter(pl.col("logits").is_not_null()).rows(named=True):
        three = [f"{one['class_name']}: {one['share']:.1%}" for one in best[row["network_id"]]]
        rows.append(
            {
                "network": row["label"],
                "answer": f"{'✓' if row['correct'] else '✗'} {names[row['predicted']]}",
                "confidence": row["confidence"],
                "margin": row["margin"],
                **{place: three[at] if at < len(three) else "" for at, place in enumerate(("1st", "2nd", "3rd"))},
                "votes settle at": settled.get(row["label"], "no layer"),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def in_cells(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of :func:`top_three` as Markdown cells that stand for themselves, numbers with few digits."""
    numbers = {
        "confidence": (100 * pl.col("confidence")).round(1).cast(pl.String) + " %",
        "margin": pl.col("margin").round(2).cast(pl.String),
    }
    words = {
        name: pl.Series([verbatim(text) for text in table[name]], dtype=pl.String)
        for name in table.columns
        if name not in numbers
    }
    return table.with_columns(**words, **numbers)


def dark_knowledge(shares: pl.DataFrame, colours: Mapping[str, str], truth: str) -> tuple[Layered, str]:
    """The distribution over classes: the teacher's as bars, a mark and a range over seeds for each series; in words.

    Of many classes those with the largest shares are drawn, in the order of the teacher's.
    """
    share = pl.col("share")
    shares = shares.filter(pl.col("series").is_in(list(colours)))
    means = shares.group_by("series", "role", "class_name", maintain_order=True).agg(
        mean=share.mean(), lowest=share.min(), highest=share.max(), seeds=pl.len()
    )
    teacher = means.filter(pl.col("role") == "teacher")
    reach = means.group_by("class_name").agg(pl.col("mean").max()).sort("mean", descending=True).head(MOST_CLASSES)
    by = teacher if teacher.height else means
    ranked = by.group_by("class_name", maintain_order=True).agg(pl.col("mean").max()).sort("mean", descending=True)
    order = [name for name in ranked["class_name"] if name in set(reach["class_name"])]
    present = [name for name in colours if name in means["series"].to_list()]
    title: dict[str, Any] = {"title": "share of the network's belief", "axis": alt.Axis(format=".0%", tickCount=6)}
    shown = means.filter(pl.col("class_name").is_in(order))
    tooltip: list[Any] = [alt.Tooltip("class_name:N"), alt.Tooltip("series:N")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".2%") for name in ("mean", "lowest", "highest")]
    named = f"datum.value === {json.dumps(truth)} ? '✓ ' + datum.value : datum.value"
    axis = alt.Axis(labelLimit=160, labelOverlap=False, labelExpr=named)
    y = alt.Y("class_name:N", sort=order, title=None, axis=axis)
    colour = series_colour(colours, present)
    base = alt.Chart(shown).encode(y=y, tooltip=[*tooltip, alt.Tooltip("seeds:Q")])
    bars = (
        base.transform_filter("datum.role === 'teacher'")
        .mark_bar(opacity=0.45)
        .encode(x=alt.X("mean:Q", **title), color=colour)
    )
    others = base.transform_filter("datum.role !== 'teacher'").encode(yOffset=alt.YOffset("series:N", sort=present))
    spread = others.mark_rule(strokeWidth=2, opacity=0.6).encode(
        x=alt.X("lowest:Q", **title), x2=alt.X2("highest:Q"), color=colour
    )
    marks = others.mark_point(filled=True, size=60, opacity=1).encode(x=alt.X("mean:Q", **title), color=colour)
    chart = alt.layer(bars, spread, marks).properties(height=140 + 34 * len(order), usermeta=CANVAS)
    likely = ranked.head(3).rows()
    who = "The teacher" if teacher.height else "The networks"
    return chart, f"{who} believes in {', '.join(f'{name} {value:.0%}' for name, value in likely)}."
