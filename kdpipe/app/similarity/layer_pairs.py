"""Layers of two networks compared: all pairs as heat maps, and those of one depth as curves."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog, charts, curve_notes, curves, tables
from kdpipe.app.shell import page, pick
from kdpipe.app.shell.words import verbatim
from kdpipe.app.similarity import pairings
from kdpipe.artifacts.store import Study

TEACHER, PLAIN = "the teacher", "plain of the same seed"


@st.fragment
def heat_part(study: Study, scope: pl.DataFrame, pairs: pl.DataFrame, measure: dict[str, Any]) -> None:
    """Layer by layer: a method and plain, each with the teacher and with plain."""
    with page.section("The heat maps"):
        st.header("Layer by layer")
        ids = {role: scope.filter(pl.col("role") == role)["network_id"].to_list() for role in ("teacher", "plain")}
        students = scope.filter(catalog.STUDENT & (pl.col("role") != "plain") & ~pl.col("null"))
        methods = students["series"].unique(maintain_order=True).to_list()
        seconds = [
            which for which in (pairings.OTHER_START, pairings.OTHER_SEED)
            if pairings.plain_with_plain(pairs, scope, which).height
        ]  # fmt: skip
        seeds = [pairings.EVERY, *map(str, scope.filter(catalog.STUDENT)["seed"].unique().sort())]
        with st.container(horizontal=True, vertical_alignment="bottom"):
            headline = catalog.headline(study, scope).filter(pl.col("role") == "distilled")["series"].to_list()
            first = next((name for name in headline if name in methods), None)
            method = pick.one("Method", methods, "method", first=first, width=260) if methods else None
            seed = pick.one("Seed", seeds, "seed", width=170)
            second = pick.one("Second plain with", seconds, "second", look="segments") if seconds else None
        mine = students.filter(pl.col("series").is_in([method] if method else []))["network_id"].to_list()
        wanted = scope if seed == pairings.EVERY else scope.filter(pl.col("seed") == int(seed))
        kept = pairs.filter(
            pl.col("network_id").is_in(wanted["network_id"].to_list()) | pl.col("network_id").is_in(ids["teacher"])
        )
        kept = kept.filter(pl.col("other_id").is_in([*wanted["network_id"], *ids["teacher"], *ids["plain"]]))
        again = "plain of another seed" if second == pairings.OTHER_SEED else "plain, second initialisation,"
        called = method or "distilled"
        asked = {
            (0, 0): (pairings.from_either_side(kept, mine, ids["teacher"]), called, "the teacher"),
            (0, 1): (pairings.from_either_side(kept, ids["plain"], ids["teacher"]), "plain", "the teacher"),
            (1, 0): (
                pairings.of_one_seed(pairings.from_either_side(kept, mine, ids["plain"]), scope), called, "plain",
            ),
            (1, 1): (pairings.plain_with_plain(kept, scope, second or pairings.OTHER_START), again, "plain"),
        }  # fmt: skip
        grid = [[pairings.pairing(asked[i, j][0], study.layers, *asked[i, j][1:]) for j in range(2)] for i in range(2)]
        drawn = [one for row in grid for one in row if one is not None]
        absent = [f"{asked[i, j][1]} with {asked[i, j][2]}" for i in range(2) for j in range(2) if grid[i][j] is None]
        if drawn:
            told = "; ".join(f"{one.name} {one.in_words}" for one in drawn)
            alt = f"{measure['title']} of each layer with each layer. Mean over layers of the same depth: {told}."
            grid = [row for row in grid if any(row)]
            page.chart(study, pairings.heat_maps(grid, measure["title"]), "heat_chart", alt)
            page.notes(pairings.takeaway(drawn), pairings.heat_words(drawn, measure, seed, second))
            page.folded_table(pairings.table_of(drawn), f"{study.name}-{measure['measure']}-layer-by-layer", "pairs")
        if absent:
            st.caption(
                f"Not in this study at this pick: {verbatim('; '.join(absent))}. Pairs are computed of every network "
                "with the teacher, of every student with plain of its own seed, and of plain with plain of the first "
                "seed. A second initialisation takes `second-seed` among the methods of the study file."
            )


def depth_part(
    study: Study, networks: pl.DataFrame, scope: pl.DataFrame, pairs: pl.DataFrame, measure: dict[str, Any], view: str,
    colours: dict[str, str],
) -> None:  # fmt: skip
    """Similarity to the teacher, or to plain, of layers at the same depth."""
    st.header("At the same depth")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        whom = pick.one("Alike to", [TEACHER, PLAIN], "whom", look="segments")
        shows = [curves.VALUES, curves.DIFFERENCE] if whom == TEACHER else [curves.VALUES]
        difference = pick.one("Show", shows, "show", look="segments") == curves.DIFFERENCE
        each = pick.switch("One line for each seed", "each_seed")
    title = measure["title"]
    chosen = tables.to_teacher(pairs, scope) if whom == TEACHER else pairings.to_plain(pairs, scope)
    found = tables.matching_depth(chosen, scope, study.layers)
    if found.is_empty():
        st.info(f"This study has no pairs with {whom} here.")
        return
    start = found.clear()
    if whom == TEACHER:
        start = pairings.untrained(study, networks, scope, view, measure["measure"])
    shown, start, null = curves.shown(found, start, scope, difference)
    if shown.is_empty():
        st.info(curves.NO_PARTNER)
        return
    what = f"{title} with {whom}" + (", minus that of plain" if difference else "")
    chart = charts.depth_curves(shown, colours, what, each, baselines=start, null=null)
    page.chart(study, chart, "alike", curves.takeaway(shown, colours, what))
    said = ["Each layer with the layer nearest in relative depth, the earlier of two as near."]
    said.append(curve_notes.grey(shown, colours).strip())
    said.append(curve_notes.null(null) if null is not None else pairings.floor_words(measure, shown, start, colours))
    if whom == PLAIN:
        said.append(
            "Plain itself is compared with plain of the first seed, which shares neither initial weights nor labels "
            "nor batches with it; plain's second initialisation shares labels and batches; methods, and most controls, "
            "the initial "
            "weights too. So a method above both is near plain because of its initial weights, not for what it learned."
        )
    elif scope.filter(pl.col("teacher_id").is_not_null() & (pl.col("teacher_id") != "teacher")).height:
        said.append("Controls that learned from another teacher are compared with the study's teacher all the same.")
    page.notes(curve_notes.bands("seeds", each, measure, [], difference), " ".join(part for part in said if part))
    name = f"{study.name}-{measure['measure']}-{view}{'-minus-plain' * difference}"
    curve_notes.table_by_layer(shown, colours, name)
