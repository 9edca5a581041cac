"""What each method gains over plain and what it costs: differences, price, ranks, budgets, and what it does."""

from html import escape

import polars as pl
import streamlit as st

from kdpipe.app.methods import charts as gain_charts
from kdpipe.app.methods import differences as methods
from kdpipe.app.methods import tables as method_tables
from kdpipe.app.shared import catalog, charts, gains, scope
from kdpipe.app.shell import page, pick
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study

MOST_TILES = 4  # side by side on a desk
PRICES = {"macs": "MACs", "params": "parameters"}


def gain_section(
    study: Study, networks: pl.DataFrame, cell: pl.Expr, quantity: methods.Quantity, colours: dict[str, str]
) -> None:
    st.header("Gain over plain")
    everything = gains.over_seeds(methods.differences(study, networks, quantity))
    rows = everything.filter(cell)
    if rows.is_empty():
        st.info(f"No network here can be compared with a plain student of its own seed in {quantity.name}.")
        return
    null = methods.null_reach(study, everything, quantity)
    reach = null.get(rows.select("student", "budget_id").row(0), 0.0)
    drawn = gain_charts.ranges(rows, colours, quantity, reach)
    page.chart(study, drawn, key="gains", alt=method_tables.gains_in_words(rows, quantity, reach))
    about = method_tables.about_ranges(rows, quantity, reach, gain_charts.left_edge(rows, reach) is not None)
    st.caption(about + method_tables.saw_more(networks.filter(cell)))
    if not quantity.measure:
        headline = catalog.headline(study, networks)["series"].to_list()
        st.markdown(gains.in_words(rows, headline))
    gains.few_seeds(rows)
    table = method_tables.of_gains_and_costs(study, networks, cell)
    page.table(table, column_config=method_tables.COLUMNS, column_order=method_tables.shown(table))
    st.caption(method_tables.about_costs(study, networks.filter(cell)))
    page.downloads(table, f"{study.name}-methods")
    page.data_note(study)


def accuracy_section(study: Study, networks: pl.DataFrame, student: str, budget: str, colours: dict[str, str]) -> None:
    st.header("Test accuracy")
    trained = networks.filter((pl.col("status") == "trained") & pl.col("test_accuracy").is_not_null())
    mine = trained.filter((catalog.STUDENT & (pl.col("student") == student)) | (pl.col("role") == "teacher"))
    named = mine.filter((pl.col("budget") == budget) | (pl.col("role") == "teacher"))
    main = catalog.headline(study, networks)["series"].to_list()
    tiles = sorted(colours, key=lambda series: series not in main)[:MOST_TILES]  # the headline's first
    named = named.filter(pl.col("series").is_in(tiles))
    summary = catalog.accuracies(named)
    gains.tiles(summary, gains.paired(named))
    st.caption(gains.caption(summary))
    drawn = charts.accuracy_dots(mine, colours)
    shown = mine.filter(pl.col("series").is_in(list(colours)))
    alt = f"Test accuracy of each of {shown.height} networks by label budget. {gains.caption(summary)}"
    page.chart(study, drawn, key="accuracies", alt=alt)
    hidden = mine.filter(catalog.STUDENT & ~pl.col("series").is_in(list(colours)))["series"].n_unique()
    st.caption(
        "A dot is a seed, the bar the mean. The dashed line is the teacher, which may have had more labels."
        + (f" The {hidden} other methods and controls are in the table above." if hidden else "")
    )
    page.table_beside(catalog.accuracies(mine).drop("rank", "label_fraction"), f"{study.name}-accuracy", "accuracy")


def price_section(study: Study, networks: pl.DataFrame, budget: str, colours: dict[str, str]) -> None:
    st.header("Accuracy for its price")
    cost = pick.one("Price in", list(PRICES), "price", words=PRICES.__getitem__, look="segments")
    points, unit = methods.priced(networks, budget, cost), PRICES[cost]
    if points.filter(pl.col("role") != "teacher").is_empty() or not (points["cost"] > 0).all():
        st.info("No student of this budget has a test accuracy and a price.")
        return
    said = list(methods.bargains(points, unit))
    alt = " ".join(said).replace("**", "") or f"Accuracy of {points.height} kinds of network over {unit}"
    page.chart(study, gain_charts.front(points, colours, unit), key="front", alt=alt)
    for sentence in said[:4]:
        st.markdown(sentence)
    products = networks.filter((pl.col("budget") == budget) & pl.col("role").is_in(["plain", "distilled"]))
    st.caption(method_tables.about_front(points, budget) + method_tables.saw_more(products))
    page.table_beside(points.drop("place"), f"{study.name}-{cost}", "prices")


def rank_section(
    study: Study, networks: pl.DataFrame, cell: pl.Expr, quantities: list[methods.Quantity], colours: dict[str, str]
) -> None:
    st.header("Ranks")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        able = {quantity.name: quantity for quantity in quantities if quantity.quantity != "advance"}
        quantity = able[pick.one("Ranked by", list(able), "rank", look="segments")]
        controls = pick.switch("Controls too", "rank_controls")
    ranking = methods.ranks(study, networks, cell, quantity, controls)
    if ranking.rows.height < 2:
        st.info("Fewer than two networks share a seed here, so there is nothing to rank.")
        return
    line = "95 % interval" if ranking.resampled else "lowest and highest rank"
    drawn = gain_charts.rank_ranges(ranking, colours, line)
    page.chart(study, drawn, key="ranks", alt=method_tables.ranks_in_words(ranking, quantity.name))
    st.caption(method_tables.about_ranks(ranking, quantity))
    page.table_beside(ranking.rows, f"{study.name}-ranks", "ranks")


def across_section(study: Study, networks: pl.DataFrame, quantity: methods.Quantity, colours: dict[str, str]) -> None:
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
    rows = gains.over_seeds(methods.differences(study, networks, quantity))
    null = methods.null_reach(study, rows, quantity)
    by = "budget" if len(budgets) > 1 else "student"
    order = budgets if by == "budget" else names
    at = {where: index for index, where in enumerate(order)}
    panels = names if by == "budget" else [""]
    places = st.columns(min(len(panels), 2))
    limits = method_tables.slopes_limits(rows, null.values())
    for index, panel in enumerate(panels):
        mine = (rows.filter(student=panel) if panel else rows).with_columns(where=pl.col(by))
        mine = mine.sort(pl.col("where").replace_strict(at, return_dtype=pl.Int32), maintain_order=True)
        reached = method_tables.null_frame(mine, null)
        with places[index % len(places)]:
            if panel and len(panels) > 1:
                st.text(panel)
            drawn = gain_charts.slopes(mine, colours, order, quantity, reached, limits)
            alt = method_tables.slopes_in_words(mine.filter(pl.col("series").is_in(list(colours))), quantity)
            page.chart(study, drawn, key=f"slopes_{index}", alt=alt)
    st.caption(quantity.about + method_tables.about_slopes(by, bool(null)))
    shown = rows.drop("rank", "null", "budget_id", "label_fraction")
    page.table_beside(shown, f"{study.name}-everywhere", "everywhere")


def catalogue_section(study: Study, networks: pl.DataFrame) -> None:
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
        st.text(f"As a control{of}, it {methods.EXPLAINS.get(row['explains'], row['explains'])}.")
    st.text("\n".join(method_tables.uses_in_words(networks, method)))
    page.table_beside(known, f"{study.name}-known-methods", "methods", "All methods of this study")


def main() -> None:
    study = page.open_page("Methods", "🧪")
    st.title("Methods")
    st.markdown(
        "What does each way of distilling gain over training on the labels alone, how sure is that, and what does it "
        "cost? Every number is a difference from the **plain** student of the same seed."
    )
    with page.section("The methods"):
        networks = catalog.networks(study)
        page.lost_networks(networks)
        if networks.filter(catalog.TRAINED_STUDENT).height:
            offered = methods.offered(study)
            with st.container(horizontal=True, vertical_alignment="bottom"):
                student, budget = scope.pick_budget(networks)
                names = {quantity.name: quantity for quantity in offered}
                quantity = names[pick.one("Quantity", list(names), "quantity", width=260)]
            students = networks.filter(catalog.STUDENT | (pl.col("role") == "teacher"))
            colours, others = scope.pick_series(study, students)
            shown = networks if others else networks.filter(pl.col("series").is_in(list(colours)))
            cell = (pl.col("student") == student) & (pl.col("budget") == budget)
            with page.section("The gains"):
                gain_section(study, shown, cell, quantity, colours)
            with page.section("The accuracies"):
                accuracy_section(study, shown, student, budget, colours)
            with page.section("The price"):
                price_section(study, shown, budget, colours)
            with page.section("The ranks"):
                rank_section(study, shown, cell, offered, colours)
            with page.section("The budgets and architectures"):
                across_section(study, shown, quantity, colours)
        with page.section("The catalogue of methods"):
            catalogue_section(study, networks)


main()
