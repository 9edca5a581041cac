"""The parts of the page of methods: gains, accuracies, prices, ranks, budgets, and what each method does."""

from __future__ import annotations

from html import escape

import polars as pl
import streamlit as st

from kdpipe.app.methods import charts, differences, tables
from kdpipe.app.shared import catalog, gains
from kdpipe.app.shared.charts import accuracy_dots
from kdpipe.app.shell import page, pick
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study

MOST_TILES = 4  # side by side on a desk
PRICES = {"macs": "MACs", "params": "parameters"}


def show_gains(
    study: Study, networks: pl.DataFrame, cell: pl.Expr, quantity: differences.Quantity, colours: dict[str, str]
) -> None:
    """What each method gains over plain, with its costs in a table."""
    st.header("Gain over plain")
    everything = gains.over_seeds(differences.differences(study, networks, quantity))
    rows = everything.filter(cell)
    if rows.is_empty():
        st.info(f"No network here can be compared with a plain student of its own seed in {quantity.name}.")
        return
    null = differences.null_reach(study, everything, quantity)
    reach = null.get(rows.select("student", "budget_id").row(0), 0.0)
    drawn = charts.ranges(rows, colours, quantity, reach)
    page.chart(study, drawn, key="gains", alt=tables.gains_in_words(rows, quantity, reach))
    about = tables.about_ranges(rows, quantity, reach, charts.left_edge(rows, reach) is not None)
    page.notes(
        "Dot: mean over seeds, the highest first; line: lowest to highest seed.",
        about + tables.saw_more(networks.filter(cell)),
    )
    if not quantity.measure:
        headline = catalog.headline(study, networks)["series"].to_list()
        st.markdown(gains.in_words(rows, headline))
    gains.few_seeds(rows)
    table = tables.of_gains_and_costs(study, networks, cell)
    page.table(table, column_config=tables.COLUMNS, column_order=tables.shown(table))
    page.notes("Click a column to sort.", tables.about_costs(study, networks.filter(cell)))
    page.downloads(table, f"{study.name}-methods")
    page.data_note(study)


def show_accuracies(study: Study, networks: pl.DataFrame, student: str, budget: str, colours: dict[str, str]) -> None:
    """The test accuracies themselves, by label budget."""
    st.header("Test accuracy")
    trained = networks.filter((pl.col("status") == "trained") & pl.col("test_accuracy").is_not_null())
    if trained.is_empty():
        st.info(page.why_not(study, "logits", "No network here has a test accuracy."))
        return
    mine = trained.filter((catalog.STUDENT & (pl.col("student") == student)) | (pl.col("role") == "teacher"))
    named = mine.filter((pl.col("budget") == budget) | (pl.col("role") == "teacher"))
    main = catalog.headline(study, networks)["series"].to_list()
    tiles = sorted(colours, key=lambda series: series not in main)[:MOST_TILES]  # the headline's first
    named = named.filter(pl.col("series").is_in(tiles))
    summary = catalog.accuracies(named)
    gains.tiles(summary, gains.paired(named))
    st.caption(gains.caption(summary))
    drawn = accuracy_dots(mine, colours)
    shown = mine.filter(pl.col("series").is_in(list(colours)))
    alt = f"Test accuracy of each of {shown.height} networks by label budget. {gains.caption(summary)}"
    page.chart(study, drawn, key="accuracies", alt=alt)
    hidden = mine.filter(catalog.STUDENT & ~pl.col("series").is_in(list(colours)))["series"].n_unique()
    st.caption(
        "A dot is a seed, the bar the mean. The dashed line is the teacher, which may have had more labels."
        + (f" The {hidden} other methods and controls are in the table above." if hidden else "")
    )
    page.folded_table(catalog.accuracies(mine).drop("rank", "label_fraction"), f"{study.name}-accuracy", "accuracy")


def show_prices(study: Study, networks: pl.DataFrame, budget: str, colours: dict[str, str]) -> None:
    """Accuracy against what a network costs."""
    st.header("Accuracy for its price")
    cost = pick.one("Price in", list(PRICES), "price", words=PRICES.__getitem__, look="segments")
    points, unit = differences.priced(networks, budget, cost), PRICES[cost]
    if points.filter(pl.col("role") != "teacher").is_empty() or not (points["cost"] > 0).all():
        st.info(page.why_not(study, "networks", "No student of this budget has a test accuracy and a price."))
        return
    said = list(differences.bargains(points, unit))
    alt = " ".join(said).replace("**", "") or f"Accuracy of {points.height} kinds of network over {unit}"
    page.chart(study, charts.front(points, colours, unit), key="front", alt=alt)
    for sentence in said[:4]:
        st.markdown(sentence)
    products = networks.filter((pl.col("budget") == budget) & pl.col("role").is_in(["plain", "distilled"]))
    page.notes(
        "Square: teacher; triangle: plain; circles: methods; dashes: the front, what nothing cheaper beats. MACs are "
        "**no latency**, which was not measured here.",
        tables.about_front(points, budget) + tables.saw_more(products),
    )
    page.folded_table(points.drop("place"), f"{study.name}-{cost}", "prices")


def show_ranks(
    study: Study, networks: pl.DataFrame, cell: pl.Expr, quantities: list[differences.Quantity], colours: dict[str, str]
) -> None:
    """Mean ranks over seeds, with their intervals."""
    st.header("Ranks")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        able = {quantity.name: quantity for quantity in quantities if quantity.quantity != "advance"}
        quantity = able[pick.one("Ranked by", list(able), "rank", look="segments")]
        controls = pick.switch("Controls too", "rank_controls")
    ranking = differences.ranks(study, networks, cell, quantity, controls)
    if ranking.rows.height < 2:
        few = "Fewer than two networks share a seed here, so there is nothing to rank."
        st.info(page.why_not(study, "logits", few))
        return
    line = "95 % interval" if ranking.resampled else "lowest and highest rank"
    drawn = charts.rank_ranges(ranking, colours, line)
    page.chart(study, drawn, key="ranks", alt=tables.ranks_in_words(ranking, quantity.name))
    page.notes(tables.takeaway_of_ranks(ranking, quantity), tables.about_ranks(ranking))
    page.folded_table(ranking.rows, f"{study.name}-ranks", "ranks")


def show_across(study: Study, networks: pl.DataFrame, quantity: differences.Quantity, colours: dict[str, str]) -> None:
    """Gains by label budget, or by architecture where there is one budget."""
    st.header("Across budgets and architectures")
    students = networks.filter(catalog.STUDENT)
    budgets = students.sort("label_fraction")["budget"].unique(maintain_order=True).to_list()
    names = students.sort("macs")["student"].unique(maintain_order=True).to_list()
    if len(budgets) == len(names) == 1:
        st.caption(
            f"This study has one architecture of students and one budget ({budgets[0]}), so it cannot say whether a "
            "gain holds elsewhere: give `label_fractions` or `students` more entries in the study file."
        )
        return
    rows = gains.over_seeds(differences.differences(study, networks, quantity))
    null = differences.null_reach(study, rows, quantity)
    by = "budget" if len(budgets) > 1 else "student"
    order = budgets if by == "budget" else names
    at = {where: index for index, where in enumerate(order)}
    panels = names if by == "budget" else [""]
    places = st.columns(min(len(panels), 2))
    limits = tables.slopes_limits(rows, null.values())
    for index, panel in enumerate(panels):
        mine = (rows.filter(student=panel) if panel else rows).with_columns(where=pl.col(by))
        mine = mine.sort(pl.col("where").replace_strict(at, return_dtype=pl.Int32), maintain_order=True)
        reached = tables.null_frame(mine, null)
        with places[index % len(places)]:
            if panel and len(panels) > 1:
                st.text(panel)
            drawn = charts.slopes(mine, colours, order, quantity, reached, limits)
            alt = tables.slopes_in_words(mine.filter(pl.col("series").is_in(list(colours))), quantity)
            page.chart(study, drawn, key=f"slopes_{index}", alt=alt)
    st.caption(quantity.about + tables.about_slopes(by, bool(null)))
    shown = rows.drop("rank", "null", "budget_id", "label_fraction")
    page.folded_table(shown, f"{study.name}-everywhere", "everywhere")


def show_catalogue(study: Study, networks: pl.DataFrame) -> None:
    """What one method does, with its formula, source and uses in this study."""
    st.header("What each method does")
    known = study.methods
    if known.is_empty():
        st.info("This study has no table of its methods.")
        return
    wanted = (study.record.get("headline") or {}).get("method")
    titles = dict(known.select("method", "title").rows())
    first = wanted if wanted in titles else known["method"][0]
    method = pick.one("Method", list(titles), "method", first=first, words=titles.__getitem__, width=420)
    row = known.row(by_predicate=pl.col("method") == method, named=True)
    st.text(row["summary"])
    st.html(
        f'<pre style="white-space: pre-wrap">{escape(row["formula"])}</pre>'
    )  # st.code would fetch what colours code
    cited = "" if row["citation"] == "-" else f"{row['citation']}. "
    st.caption(verbatim(f"{cited}Role: {row['role']}."))
    if row["explains"]:
        of = f" of {titles.get(row['control_of'], row['control_of'])}" if row["control_of"] else ""
        st.text(f"As a control{of}, it {differences.EXPLAINS.get(row['explains'], row['explains'])}.")
    st.text("\n".join(tables.uses_in_words(networks, method)))
    page.folded_table(known, f"{study.name}-known-methods", "methods", "All methods of this study")
