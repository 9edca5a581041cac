"""Who is like whom: layers beside layers, likeness by depth, whose neighbours an image has, and dark knowledge."""

from typing import Any

import polars as pl
import streamlit as st

from kdpipe.store import Study
from kdpipe.views import beside, catalog, charts, credit, curves, page, pick, similarity, tables
from kdpipe.views.scope import pick_scope
from kdpipe.views.words import verbatim

VALUES, DIFFERENCE = "values", "difference to plain"
TEACHER, PLAIN = "the teacher", "plain of the same seed"
SEEDS = ("lowest", "highest")


def pick_measure(study: Study, scope: pl.DataFrame, view: str) -> tuple[pl.DataFrame, dict[str, Any], str] | None:
    """Pairs of layers in one measure and view, and that measure; None (and words why) where the study has none."""
    pairs = study.frame("similarity", network_id=scope["network_id"].to_list())
    measures = tables.measures_of(study, "pair", pairs)
    if measures.is_empty():
        st.info(page.no_measures("pairs of layers"))
        return None
    title = pick.one("Similarity", measures["title"].to_list(), "similarity", width=320)
    measure = measures.row(by_predicate=pl.col("title") == title, named=True)
    have = pairs.filter(pl.col("measure") == measure["measure"])
    stored = have["view"].unique().sort().to_list()
    shown = view if view in stored else stored[0]
    st.markdown(f"**{title}**, {catalog.view_in_words(shown)}. {measure['summary']} *{measure['citation']}*")
    return have.filter(pl.col("view") == shown), measure, shown


@st.fragment
def heat_part(study: Study, scope: pl.DataFrame, pairs: pl.DataFrame, measure: dict[str, Any]) -> None:
    """Layer by layer: a method and plain, each with the teacher and with plain."""
    with page.section("The heat maps"):
        st.header("Layer by layer")
        ids = {role: scope.filter(pl.col("role") == role)["network_id"].to_list() for role in ("teacher", "plain")}
        students = scope.filter(catalog.STUDENT & (pl.col("role") != "plain") & ~pl.col("null"))
        methods = students["series"].unique(maintain_order=True).to_list()
        seconds = [
            which for which in (similarity.OTHER_START, similarity.OTHER_SEED)
            if similarity.plain_with_plain(pairs, scope, which).height
        ]  # fmt: skip
        seeds = [similarity.EVERY, *map(str, scope.filter(catalog.STUDENT)["seed"].unique().sort())]
        with st.container(horizontal=True, vertical_alignment="bottom"):
            headline = catalog.headline(study, scope).filter(pl.col("role") == "distilled")["series"].to_list()
            first = next((name for name in headline if name in methods), None)
            method = pick.one("Method", methods, "method", first=first, width=260) if methods else None
            seed = pick.one("Seed", seeds, "seed", width=170)
            second = pick.one("Second plain with", seconds, "second", look="segments") if seconds else None
        mine = students.filter(pl.col("series").is_in([method] if method else []))["network_id"].to_list()
        wanted = scope if seed == similarity.EVERY else scope.filter(pl.col("seed") == int(seed))
        kept = pairs.filter(
            pl.col("network_id").is_in(wanted["network_id"].to_list()) | pl.col("network_id").is_in(ids["teacher"])
        )
        kept = kept.filter(pl.col("other_id").is_in([*wanted["network_id"], *ids["teacher"], *ids["plain"]]))
        again = "plain of another seed" if second == similarity.OTHER_SEED else "plain, second start,"
        called = method or "distilled"
        asked = {
            (0, 0): (similarity.from_either_side(kept, mine, ids["teacher"]), called, "the teacher"),
            (0, 1): (similarity.from_either_side(kept, ids["plain"], ids["teacher"]), "plain", "the teacher"),
            (1, 0): (
                similarity.of_one_seed(similarity.from_either_side(kept, mine, ids["plain"]), scope), called, "plain",
            ),
            (1, 1): (similarity.plain_with_plain(kept, scope, second or similarity.OTHER_START), again, "plain"),
        }  # fmt: skip
        grid = [
            [similarity.pairing(asked[i, j][0], study.layers, *asked[i, j][1:]) for j in range(2)] for i in range(2)
        ]
        drawn = [one for row in grid for one in row if one is not None]
        absent = [f"{asked[i, j][1]} with {asked[i, j][2]}" for i in range(2) for j in range(2) if grid[i][j] is None]
        if drawn:
            told = "; ".join(f"{one.name} {one.in_words}" for one in drawn)
            alt = f"{measure['title']} of each layer with each layer. Mean over layers of the same depth: {told}."
            grid = [row for row in grid if any(row)]
            page.chart(study, similarity.heat_maps(grid, measure["title"]), "heat_chart", alt)
            st.caption(similarity.heat_words(drawn, measure, seed, second))
            page.table_beside(similarity.table_of(drawn), f"{study.name}-{measure['measure']}-layer-by-layer", "pairs")
        if absent:
            st.caption(
                f"Not in this study at this pick: {verbatim('; '.join(absent))}. Pairs are computed of every network "
                "with the teacher, of every student with plain of its own seed, and of plain with plain of the first "
                "seed. A second start takes `second-seed` among the methods of the study file."
            )


def depth_part(
    study: Study, networks: pl.DataFrame, scope: pl.DataFrame, pairs: pl.DataFrame, measure: dict[str, Any], view: str,
    colours: dict[str, str],
) -> None:  # fmt: skip
    st.header("At the same depth")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        whom = pick.one("Alike to", [TEACHER, PLAIN], "whom", look="segments")
        shows = [VALUES, DIFFERENCE] if whom == TEACHER else [VALUES]
        difference = pick.one("Show", shows, "show", look="segments") == DIFFERENCE
        each = pick.switch("One line for each seed", "each_seed")
    title = measure["title"]
    chosen = tables.to_teacher(pairs, scope) if whom == TEACHER else similarity.to_plain(pairs, scope)
    found = tables.matching_depth(chosen, scope, study.layers)
    if found.is_empty():
        st.info(f"This study has no pairs with {whom} here.")
        return
    shown, start, null = found, found.clear(), None
    if whom == TEACHER:
        start = similarity.untrained(study, networks, scope, view, measure["measure"])
    if difference:
        shown, start = curves.differences(found, scope), start.clear()
        null = curves.null_reach(shown, scope)
    if shown.is_empty():
        st.info("No network here has a plain student of its own seed, so there is no difference to show.")
        return
    what = f"{title} with {whom}" + (", minus that of plain" if difference else "")
    chart = charts.depth_curves(shown, colours, what, each, baselines=start, null=null)
    page.chart(study, chart, "alike", curves.takeaway(shown, colours, what, SEEDS))
    said = ["Each layer against the layer nearest in relative depth, the earlier of two as near."]
    said.append(beside.bands("seeds", each, measure, [], difference))
    said.append(beside.grey(shown, colours).strip())
    said.append(beside.null(null) if null is not None else similarity.floor_words(measure, shown, start, colours))
    if whom == PLAIN:
        said.append(
            "Plain itself is held against plain of the first seed, which shares neither initial weights nor labels nor "
            "batches with it; plain's second start shares labels and batches; methods, and most controls, the initial "
            "weights too. So a method above both is near plain for where it started, not for what it learned."
        )
    elif scope.filter(pl.col("teacher_id").is_not_null() & (pl.col("teacher_id") != "teacher")).height:
        said.append("Controls that learned from another teacher are held against the study's teacher all the same.")
    st.caption(" ".join(part for part in said if part))
    name = f"{study.name}-{measure['measure']}-{view}{'-minus-plain' * difference}"

    def numbers() -> None:
        st.caption("Mean over seeds (lowest to highest). The files hold each network.")
        coloured = shown.filter(pl.col("series").is_in(list(colours)))
        st.dataframe(tables.per_layer(coloured if coloured.height else shown), hide_index=True)
        page.downloads(shown, name)

    page.folded("The numbers", "numbers", numbers)


def credit_section(study: Study, scope: pl.DataFrame, view: str, colours: dict[str, str]) -> None:
    st.header("Whose neighbours")
    chosen = scope.filter(pl.col("series").is_in(list(colours)))
    means = credit.of_networks(study, chosen, view)
    if means.is_empty():
        st.info("No network in colour was distilled from the study's teacher, so there is no credit to give.")
        return
    st.markdown(
        "Of an image's 15 nearest images in the layer's own space: **kept** are the teacher's that plain has too, "
        "**gained** the teacher's that only the method has, **lost** the teacher's that only plain has, **invented** "
        "those that neither has. If distillation hands over the teacher's arrangement, more is gained than lost. "
        "Another plain start would gain as much as it loses, on average: neither of the two is special."
    )
    null, what = credit.of_another_start(study, scope, view)
    moved = credit.net(means, scope, study.layers)
    reach = credit.net(null, scope, study.layers)
    band = reach.group_by("relative_depth").agg(reach=pl.col("value").abs().max(), seeds=pl.len())
    drawn = moved.filter(~pl.col("network_id").is_in(null["network_id"].to_list()))
    chart = charts.depth_curves(drawn, colours, "gained less lost, of 15 neighbours", null=band.sort("relative_depth"))
    page.chart(
        study,
        chart,
        "net",
        f"The teacher's neighbours gained less those lost. {credit.net_in_words(drawn, colours)}",
    )
    st.caption(
        "Above 0: more of the teacher's neighbours than plain of the same seed has. Line: mean over seeds; band: from "
        "the lowest seed to the highest. "
        + (f"Grey band: how far {what} lies from 0, to either side." if null.height else what)
    )  # fmt: skip
    names = drawn["series"].unique(maintain_order=True).to_list()
    credit_part(study, scope, means, null, what, names, view)
    page.table_beside(drawn, f"{study.name}-net-credit-{view}", "net", "Gained less lost, the numbers")


@st.fragment
def credit_part(
    study: Study, scope: pl.DataFrame, means: pl.DataFrame, null: pl.DataFrame, what: str, names: list[str], view: str
) -> None:
    """One method's bookkeeping, kind by kind, split by class."""
    with page.section("Neighbours by kind"):
        rows = credit.by_kind(means, scope, study.layers)
        others = credit.by_kind(null, scope, study.layers)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            headline = catalog.headline(study, scope).filter(pl.col("role") == "distilled")["series"].to_list()
            first = next((name for name in headline if name in names), None)
            name = pick.one("Network", names, "credit", first=first, width=300)
            mine = rows.filter(series=name)
            layers = mine["layer"].unique(maintain_order=True).to_list()
            few = credit.some_of(layers)
            if len(few) < len(layers):
                asked = pick.several("Layers", layers, "credit_layers", first=few)
                few = [layer for layer in layers if layer in asked] or few
        last = {row["credit"]: row for row in mine.filter(layer=layers[-1]).rows(named=True)}
        told = ", ".join(
            f"{last[kind]['neighbours']:.1f} {kind} ({last[kind]['same']:.1f} of its class)" for kind in credit.KINDS
        )
        page.chart(
            study, credit.bars(mine, others, few), "credit_chart",
            f"Neighbours of an image under {name}, of 15, by kind and layer; at {layers[-1]}: {told}.",
        )  # fmt: skip
        st.caption(
            "Mean over probe images and seeds, against plain of the same seed and the teacher's layer nearest in "
            "depth; the dark line runs from the lowest seed to the highest. "
            + (f"Diamonds: {what}, beside plain: what lies there comes of another start too. "
               if null.height else f"{what} ")
            + "Kept, gained and invented do not add up to 15: what plain has and the teacher has not is no credit."
        )  # fmt: skip
        page.table_beside(
            pl.concat([rows, others]), f"{study.name}-credit-{view}", "kinds", "Neighbours by kind, the numbers"
        )


def dark_section(study: Study, networks: pl.DataFrame, scope: pl.DataFrame, view: str, colours: dict[str, str]) -> None:
    st.header("Dark knowledge")
    rows = study.frame("layer_measures", network_id=scope["network_id"].to_list(), view=view, measure="dark_knowledge")
    st.markdown(
        "A teacher's answers say more than the right class: a cat is a little like a dog and hardly like a truck. "
        "This *dark knowledge* is a similarity of classes (Hinton, Vinyals and Dean, 2015). Does a layer put those "
        "classes in like directions that the teacher finds alike? **1**: in the teacher's order; **0**: no relation."
    )
    if rows.is_empty():
        st.info(
            "This study does not hold the measure, which is younger than its artifacts or was not asked for: leave "
            "`names` out under `[measures]` in the study file (or add `dark_knowledge`) and run "
            "`scripts/precompute.py` on it again. Finished stages come from the cache; networks whose weights are "
            "kept there are not trained again."
        )
        return
    measure = tables.measures_of(study, "layer", rows).row(0, named=True)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        difference = pick.one("Show", [VALUES, DIFFERENCE], "dark", look="segments") == DIFFERENCE
        band = pick.one("Band", list(beside.BANDS), "band", look="segments", help="Over seeds or over probe images.")
    found = tables.by_depth(rows, scope, study.layers)
    start = tables.baselines(study, networks, scope, view, "dark_knowledge")
    shown, null = found, None
    if difference:
        shown, start = curves.differences(found, scope), start.clear()
        null = curves.null_reach(shown, scope)
        if shown.is_empty():
            st.info("No network here has a plain student of its own seed, so there is no difference to show.")
            return
    stored = [measure["title"]] if rows["low"].drop_nulls().len() else []
    over_images = band == "images" and not difference and bool(stored)
    what = "rank correlation with the teacher's class similarity" + (", minus plain" if difference else "")
    chart = charts.depth_curves(
        shown, colours, what, baselines=start, band="images" if over_images else "seeds", null=null
    )
    ends = beside.BANDS["images" if over_images else "seeds"]
    page.chart(study, chart, "dark_chart", curves.takeaway(shown, colours, f"Dark knowledge: {what}", ends))
    floor = beside.null(null) if null is not None else beside.floors(measure, shown, start)
    st.caption(
        f"{measure['summary']} {beside.bands(band, False, measure, stored, difference)}{beside.grey(shown, colours)} "
        f"{floor} The teacher's own curve is how far its layers carry its answers: no bound, but what to compare with. "
        "Classes that look alike are confused by every network, and lie near each other even as pixels, so plain is "
        "above 0 too: what distillation adds is the gap to plain. Few classes have few pairs, so values are coarse."
    )
    page.table_beside(shown, f"{study.name}-dark-knowledge-{view}", "beliefs")


def main() -> None:
    study = page.open_page("Similarity", "🪞")
    st.title("Similarity")
    st.markdown(
        "Is a distilled student more like its teacher than plain is, inside, and by more than two plain students "
        "differ that merely started elsewhere? Layers are compared by how they arrange the same probe images."
    )
    with page.section("The similarity"):
        networks = catalog.networks(study)
        if networks.filter(catalog.STUDENT).is_empty():
            st.info("This study has no students to compare.")
            return
        scope, view, colours = pick_scope(study, networks)
        page.lost_networks(networks)
        with page.section("The pairs of layers"):
            if picked := pick_measure(study, scope, view):
                pairs, measure, shown = picked
                heat_part(study, scope, pairs, measure)
                with page.section("Likeness by depth"):
                    depth_part(study, networks, scope, pairs, measure, shown, colours)
        with page.section("The neighbours"):
            credit_section(study, scope, view, colours)
        with page.section("Dark knowledge"):
            dark_section(study, networks, scope, view, colours)
        page.data_note(study)


main()
