"""The parts of the page of training: accuracies, terms of the loss, learning rates, and where the time went."""

from __future__ import annotations

import polars as pl
import streamlit as st

from kdpipe.app.shell import page, pick
from kdpipe.app.training import curves
from kdpipe.artifacts.store import Study

ALL = "all, as their mean"


def _why_not(study: Study, otherwise: str) -> str:
    """Why nothing is known of the training: it was elsewhere, or the networks are not here, or another reason."""
    return page.why_not(study, "training", page.why_not(study, "networks", otherwise))


def show_accuracies(study: Study, networks: pl.DataFrame, colours: dict[str, str]) -> None:
    """Training and validation accuracy over steps."""
    st.header("Accuracy over training")
    ids = networks["network_id"].to_list()
    history = study.frame("history", network_id=ids, quantity=list(curves.ACCURACIES))
    held = [name for name in curves.ACCURACIES if name in history["quantity"].to_list()]
    if not held:
        st.info(_why_not(study, "This study stored no accuracies over training steps."))
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        quantity = pick.one("Measured on", held, "accuracy", words=curves.ACCURACIES.__getitem__, look="segments")
        each = pick.switch("One line for each network", "each")
    title = curves.ACCURACIES[quantity]
    lines = curves.over_steps(history.filter(quantity=quantity), networks)
    drawn = curves.accuracy_chart(lines, colours, title, each)
    page.chart(study, drawn, key="accuracies", alt=curves.accuracy_in_words(lines, colours, title))
    grey = lines.filter(~pl.col("series").is_in(list(colours)))["series"].n_unique()
    page.notes(
        "A line for each network." if each else "Line: mean over seeds; band: lowest to highest seed.",
        (f"Grey: {grey} other methods and controls, mean alone. " if grey else "")
        + curves.diverged_in_words(networks, lines)
        + ("The validation images were held back from training. " if quantity == "val_accuracy" else
           "On the batches of training, changed images included, so it can lie below what validation shows. ")
        + "A study's numbers are those of the last step: no step was chosen by its accuracy on the test set.",
    )  # fmt: skip
    page.folded_table(curves.means(lines), f"{study.name}-{quantity}", "curves")


def show_losses(study: Study, networks: pl.DataFrame) -> None:
    """The terms of one network's loss over steps."""
    st.header("What the loss is made of")
    order = networks.sort((pl.col("role") != "distilled").cast(pl.Int8), maintain_order=True)
    names = order["series"].unique(maintain_order=True).to_list()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        series = pick.one("Network", names, "of", width=300)
        mine = networks.filter(pl.col("series") == series)
        seeds = [ALL, *(str(seed) for seed in sorted(set(mine["seed"])))]
        seed = pick.one("Seed", seeds, "seed", width=190) if len(seeds) > 2 else ALL
        look = pick.one("Drawn as", ["lines", "stack"], "terms", look="segments")
        logarithmic = pick.switch("Logarithmic", "log", disabled=look == "stack")
    if seed != ALL:
        mine = mine.filter(pl.col("seed") == int(seed))
    history = study.frame("history", network_id=mine["network_id"].to_list())
    rows = curves.terms(curves.over_steps(history, mine))
    if rows.is_empty():
        st.info(_why_not(study, "This study stored no losses of this network."))
        return
    below = bool((rows["lowest"] <= 0).any())
    stacked = look == "stack" and not bool((rows["lowest"] < 0).any())
    drawn = curves.term_chart(rows, stacked, logarithmic and not below)
    page.chart(study, drawn, key="terms", alt=curves.terms_in_words(rows, series))
    lost = mine.filter(pl.col("status") == "diverged")
    count = int(rows["seeds"].max() or 0)  # type: ignore[arg-type]
    page.notes(
        "Losses of different methods have different units: how low one is says nothing about how good it is.",
        "Each term as weighted, mean since the last point; together they are the whole loss. ce is the "
        "cross-entropy with the labels. "
        + ("" if stacked else f"Line: {'mean over ' + str(count) + ' seeds' if count > 1 else 'one network'}"
           + ("; band: lowest to highest seed. " if count > 1 else ". "))
        + ("A term below 0 cannot be stacked, so lines are drawn. " if look == "stack" and not stacked else "")
        + ("A value at or below 0 has no logarithm, so the axis is straight. " if logarithmic and below else "")
        + (f"{lost.height} of {mine.height} diverged and {'is' if lost.height == 1 else 'are'} left out of the mean. "
           if 0 < lost.height < mine.height else "It diverged: the line breaks off. " if lost.height else "")
    )  # fmt: skip
    page.folded_table(rows.drop("quantity", "role"), f"{study.name}-loss-terms", "terms")


def show_rates(study: Study, networks: pl.DataFrame) -> None:
    """Learning rates over steps."""
    st.header("Learning rate")
    history = study.frame("history", network_id=networks["network_id"].to_list(), quantity="lr")
    if history.is_empty():
        st.info(_why_not(study, "This study stored no learning rates."))
        return
    rows = curves.schedules(curves.over_steps(history, networks))
    kinds = rows.select("schedule", "networks").unique(maintain_order=True)
    said = "; ".join(f"{name}: {count} network{'s' * (count != 1)}" for name, count in kinds.rows())
    page.chart(study, curves.schedule_chart(rows), key="rates", alt=f"Learning rate over steps. {said}")
    st.caption(
        (f"All {kinds['networks'][0]} networks follow one schedule. " if kinds.height == 1 else
         f"{kinds.height} schedules. A difference between networks of different schedules is in part one of training. ")
        + "Steps or a rate of a method's own are in the study file."
    )  # fmt: skip
    page.folded_table(rows, f"{study.name}-lr", "rates")


def show_speed(study: Study, networks: pl.DataFrame) -> None:
    """Where training time went, by who trained together."""
    st.header("Where the time went")
    found = curves.speeds(study, networks)
    if found.is_empty():
        none = (
            "This study stored no training times: its `timings.json` has none. Use `kdpipe run` on the "
            "study file again; networks that are kept from before stay without."
        )
        st.info(_why_not(study, none))
        return
    kinds = curves.groups(found)
    rows = curves.share_rows(kinds)
    older = found.filter(~pl.col("split"))
    if rows.height:
        page.chart(study, curves.share_bars(rows), key="shares", alt=curves.shares_in_words(rows))
    if older.height:
        st.caption(
            f"{older.height} of {found.height} networks were trained by an older version, which recorded speed but no "
            "shares: they are in the table alone."
        )
    machines = found["hardware"].unique(maintain_order=True).to_list()
    page.notes(
        f"Hardware: {'; '.join(machines)}. Wall times move with whatever else the machine does.",
        "Students that train together see the same batches and share the teacher's "
        "answers, so steps and images a second are of the whole group: each of its students sees that many. Shares are "
        "of every tenth step, validation apart.",
    )
    table = kinds.select(
        pl.col("group").alias("trained together"), pl.col("together").alias("at once"), "groups", "steps", "minutes",
        pl.col("steps_per_second").alias("steps/s"), pl.col("images_per_second").alias("images/s"),
        "slowest", "fastest", *(["hardware"] if len(machines) > 1 else []),
    )  # fmt: skip
    number = st.column_config.NumberColumn
    shown = {
        "trained together": st.column_config.TextColumn(width=260), "minutes": number(format="%.1f", width=70),
        "steps/s": number(format="%.1f", width=70, help="mean over groups of this make-up"),
        "images/s": number(format="%.0f", width=70),
        "slowest": number(format="%.1f", width=70, help="steps/s of the slowest of these groups"),
        "fastest": number(format="%.1f", width=70, help="steps/s of the fastest of these groups"),
        "at once": number(width=65), "groups": number(width=60), "steps": number(width=60),
    }  # fmt: skip
    page.table(table, column_config=shown)
    page.downloads(found.drop("split"), f"{study.name}-speed")
