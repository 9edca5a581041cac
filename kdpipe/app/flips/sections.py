"""The parts of the page of flips: counts, classes, images, confusions, calibration, and all methods side by side."""

from __future__ import annotations

import polars as pl
import streamlit as st

from kdpipe.app.flips import calibration, outcomes
from kdpipe.app.shared import catalog, tables
from kdpipe.app.shell import images, page, pick
from kdpipe.artifacts.store import Study


def show_changes(study: Study, compared: outcomes.Comparison, counts: pl.DataFrame, networks: pl.DataFrame) -> None:
    """How many answers were fixed, broken and inherited."""
    st.header("What changed")
    summary = outcomes.ranges(counts.filter(pl.col("label").is_null()), [], list(outcomes.KINDS))
    own = {row["kind"]: row for row in summary.filter(series=compared.series).rows(named=True)}
    alone = {row["kind"]: row["mean"] for row in summary.filter(pl.col("series") != compared.series).rows(named=True)}
    for place, (kind, name) in zip(st.columns(len(outcomes.KINDS)), outcomes.KINDS.items(), strict=True):
        sign = "+" if kind == "net" else ""
        null = f"{alone[kind]:{sign}.1f} by other initial weights" if kind in alone else None
        place.metric(
            name.capitalize(), f"{own[kind]['mean']:{sign}.1f}", null, delta_color="off", delta_arrow="off", border=True
        )
    shown = summary.with_columns(what=pl.col("kind").replace(outcomes.KINDS))
    chart = outcomes.range_rows(shown, "what", list(outcomes.KINDS.values()), compared.colours, "probe images")
    words = f"Of {own['net']['images']} probe images {compared.series}: {outcomes.in_words(summary, compared.series)}"
    words += (
        f"; other initial weights alone: {outcomes.in_words(summary, compared.null['series'][0])}." if alone else "."
    )
    page.chart(study, chart, key="changed", alt=words)
    seeds = f"{compared.seeds} seed{'s' * (compared.seeds != 1)}"
    page.notes(
        f"{outcomes.verdict_against_null(summary, compared)} It is not shown whether another teacher would do the "
        "same.",
        f"Counts of {own['net']['images']} probe images against plain of the same seed ({seeds}). Mark: mean over "
        f"seeds; line: lowest to highest seed. {outcomes.DEFINITIONS}{outcomes.teacher_note(compared, networks)} "
        "Diamonds, the **null**: plain of the same seed, only started from other initial weights.",
    )
    columns = ["series", "seed", "images", *outcomes.KINDS, "same_error", "plain_same_error", "p_value"]
    page.folded_table(counts.filter(pl.col("label").is_null()).select(columns), f"{study.name}-flips", "flips")


def show_classes(study: Study, compared: outcomes.Comparison, counts: pl.DataFrame) -> None:
    """The balance of right answers, class by class."""
    st.header("Class by class")
    names = study.record["data"]["class_names"]
    of_class = counts.filter(pl.col("label").is_not_null())
    of_class = of_class.with_columns(class_name=pl.col("label").replace_strict(dict(enumerate(names))))
    by_class = outcomes.ranges(of_class, ["label", "class_name"], list(outcomes.KINDS))
    order, left_out = outcomes.class_order(by_class, compared.series)
    drawn = by_class.filter(pl.col("class_name").is_in(order), kind="net")
    chart = outcomes.range_rows(drawn, "class_name", order, compared.colours, "probe images fixed less broken")
    ends = {row["class_name"]: row["mean"] for row in drawn.filter(series=compared.series).rows(named=True)}
    said = f"{order[0]} gains most ({ends[order[0]]:+.1f} images), {order[-1]} least ({ends[order[-1]]:+.1f})"
    page.chart(study, chart, key="by_class", alt=f"Fixed less broken by class, {compared.series}: {said}.")
    st.caption(
        "Right answers gained (right of 0) or lost in each class, mean and range over seeds; diamonds are the null. "
        "Classes differ in how many images they have: the table has counts. A class at the top is there in part by "
        "luck, more so the more classes there are."
        + (f" {left_out} classes between the extremes are in the table only." if left_out else "")
    )
    counted = of_class.select("class_name", "series", "seed", "images", *outcomes.KINDS, "p_value")
    page.folded_table(counted, f"{study.name}-flips-by-class", "classes")


def show_images(study: Study, compared: outcomes.Comparison) -> None:
    """The images of one outcome, a page of them at a time."""
    st.header("The images")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        outcome = pick.one("Images", outcomes.OUTCOMES, "outcome", look="segments")
        name = pick.maybe_one("Only class", study.record["data"]["class_names"], "of", placeholder="all", width=220)
        found = outcomes.flipped(study, compared, outcome)
        found = found if name is None else found.filter(pl.col("class_name") == name)
        pages = [str(number + 1) for number in range(-(-found.height // outcomes.PER_PAGE))]
        number = int(pick.one("Page", pages, "page", width=90)) if len(pages) > 1 else 1
    if found.is_empty():
        st.info(f"No image was {outcome} here.")
        return
    shown = found.slice((number - 1) * outcomes.PER_PAGE, outcomes.PER_PAGE)
    st.html(images.gallery(outcomes.figures(study, compared, outcome, shown)))
    page.notes(
        f"{found.height} images {outcome} at one seed or more, those at most seeds first"
        + (f"; {shown.height} of them shown" if shown.height < found.height else "")
        + ". Click an image to follow it through all layers.",
        "Bold: the true class. Answers: the most frequent one at those seeds. “Other initial weights”: whether (or at "
        "how many seeds) plain from other initial weights does the same; an image that it flips as often says nothing "
        "about the method.",
    )
    page.folded_table(found.drop("image", "display_rank"), f"{study.name}-{outcome}", "images")


def show_confusions(study: Study, compared: outcomes.Comparison) -> None:
    """Which classes are mixed up more or less often than by plain."""
    st.header("What it mixes up")
    cells = outcomes.confusions(study, compared)
    order = outcomes.most_changed(cells)
    errors = pick.switch("The teacher's errors too", "teacher_errors")
    left, right = st.columns(2) if errors else (st.container(), None)
    with left:
        chart = outcomes.difference_heat(cells, order, outcomes.ink())
        page.chart(study, chart, key="confusions", alt=f"{compared.series} less plain. {outcomes.largest(cells)}")
    if right is not None:
        with right:
            chart = outcomes.teacher_heat(cells, order, outcomes.ink())
            page.chart(study, chart, key="teacher_heat", alt="The teacher's wrong answers, by true class and answer")
    hidden = cells["true"].n_unique() - len(order)
    page.notes(
        "Orange on the diagonal is right answers gained; **off it, orange is a confusion that grew**, blue one that "
        "shrank. With this many cells some are large by luck.",
        "Images of each true class (row) that get each answer (column): the student's count less plain's, mean over "
        "seeds. Bold: of one sign at every seed."
        + (f" Only the {len(order)} classes that changed most; {hidden} others are in the table." if hidden else "")
        + (" Right: the teacher's errors; its right answers are on the diagonal." if errors else ""),
    )
    page.folded_table(cells, f"{study.name}-confusions", "confusions")


def show_calibration(study: Study, compared: outcomes.Comparison) -> None:
    """Accuracy by confidence, and the calibration error."""
    st.header("How sure, and how right")
    named = calibration.named(compared)
    rows = calibration.reliability(study, compared)
    main = rows.filter(pl.col("series").is_in(["teacher", "plain", compared.series]))
    errors = calibration.errors(study, named)
    left, right = st.columns([3, 2])
    with left:
        said = "; ".join(calibration.leaning(main, name) for name in main["series"].unique(maintain_order=True))
        page.chart(study, calibration.reliability_chart(main, compared.colours), key="reliability", alt=f"{said}.")
    with right:
        chart = calibration.confidence_chart(main, compared.colours)
        page.chart(study, chart, key="confidences", alt="How the images are spread over ten bins of confidence")
    if errors.height:
        st.text(f"Expected calibration error: {calibration.in_words(errors)}.")
    page.notes(
        "Below the diagonal a network is surer than it is right.",
        "Left: of the images answered with about this confidence (ten bins), the share that is right. Bars: Wilson's "
        "95 % interval for as many images as one seed has "
        "there (seeds answer the same images, so they add none). Larger dots: more images; bins of fewer than 5 are in "
        "the table only. Right: how many images each bin has. The expected calibration error is the mean distance from "
        "the diagonal over images, in 15 bins; 0 is best, and few images push it up.",
    )
    page.folded_table(rows, f"{study.name}-calibration", "bins")


def show_answers(study: Study, compared: outcomes.Comparison, networks: pl.DataFrame) -> None:
    """Measures of answers, and of networks alone, of all methods."""
    st.header("All methods side by side")
    scope = networks.filter(catalog.TRAINED_STUDENT & (pl.col("budget") == compared.budget))
    scope = scope.filter(pl.col("student") == networks.filter(network_id=compared.own["network_id"][0])["student"][0])
    other = pick.one("Compared with the answers of", ("plain of the same seed", "teacher"), "beside", look="segments")

    def answers() -> None:
        frame = tables.of_answers(study, scope, other)
        measures_table(frame.rename({"inherited": "wrong in both"}, strict=False))  # not what the word means above
        st.caption(
            f"Compared with {other}, mean over seeds, as shares of the probe images: fixed (wrong there, right "
            "here), broken "
            "(right there, wrong here), kept (right in both). McNemar's p is one test a seed, averaged: read it as "
            "small or not, and nothing more."
            + ("" if other == "teacher" else " Plain itself is compared with plain of the first seed.")
        )

    def alone() -> None:
        measures_table(tables.of_networks(study, scope))
        st.caption(
            "Each network by itself, mean over seeds. Prediction depth: 0 is the first layer and 1 the last; an image "
            "that never settles counts one step more, so a mean can pass 1. It and vote entropy are in the glossary."
        )

    page.folded(f"Answers compared with those of {other}", "answers", answers)
    page.folded("Calibration and depth of each", "networks", alone)


def measures_table(frame: pl.DataFrame) -> None:
    """A table of measures with three digits."""
    if not frame.width:
        st.info("This study has no such measures.")
        return
    digits = st.column_config.NumberColumn(format="%.3f")
    page.table(frame, column_config=dict.fromkeys(frame.columns[1:], digits))
