"""What a student answers otherwise than plain: images it fixed, broke and inherited, confusions, confidence, slices."""

import polars as pl
import streamlit as st

from kdpipe.app.flips import calibration, slices
from kdpipe.app.flips import outcomes as flips
from kdpipe.app.flips import replacement as trade
from kdpipe.app.shared import catalog, tables
from kdpipe.app.shell import images, page, pick
from kdpipe.artifacts.store import Study


def changed_section(study: Study, compared: flips.Comparison, counts: pl.DataFrame, networks: pl.DataFrame) -> None:
    st.header("What changed")
    summary = flips.ranges(counts.filter(pl.col("label").is_null()), [], list(flips.KINDS))
    own = {row["kind"]: row for row in summary.filter(series=compared.series).rows(named=True)}
    alone = {row["kind"]: row["mean"] for row in summary.filter(pl.col("series") != compared.series).rows(named=True)}
    for place, (kind, name) in zip(st.columns(len(flips.KINDS)), flips.KINDS.items(), strict=True):
        sign = "+" if kind == "net" else ""
        null = f"{alone[kind]:{sign}.1f} by another start" if kind in alone else None
        place.metric(
            name.capitalize(), f"{own[kind]['mean']:{sign}.1f}", null, delta_color="off", delta_arrow="off", border=True
        )
    shown = summary.with_columns(what=pl.col("kind").replace(flips.KINDS))
    chart = flips.range_rows(shown, "what", list(flips.KINDS.values()), compared.colours, "probe images")
    words = f"Of {own['net']['images']} probe images {compared.series}: {flips.in_words(summary, compared.series)}"
    words += f"; another start alone: {flips.in_words(summary, compared.null['series'][0])}." if alone else "."
    page.chart(study, chart, key="changed", alt=words)
    seeds = f"{compared.seeds} seed{'s' * (compared.seeds != 1)}"
    st.caption(
        f"Counts of {own['net']['images']} probe images against plain of the same seed ({seeds}). Mark: mean over "
        f"seeds; line: lowest to highest seed. {flips.DEFINITIONS}{flips.teacher_note(compared, networks)} Diamonds, "
        "the **null**: plain of the same seed, only started from other initial weights. "
        f"{flips.verdict_beside_null(summary, compared)} It is not shown whether another teacher would do the same."
    )
    columns = ["series", "seed", "images", *flips.KINDS, "same_error", "plain_same_error", "p_value"]
    page.table_beside(counts.filter(pl.col("label").is_null()).select(columns), f"{study.name}-flips", "flips")


def class_section(study: Study, compared: flips.Comparison, counts: pl.DataFrame) -> None:
    st.header("Class by class")
    names = study.record["data"]["class_names"]
    of_class = counts.filter(pl.col("label").is_not_null())
    of_class = of_class.with_columns(class_name=pl.col("label").replace_strict(dict(enumerate(names))))
    by_class = flips.ranges(of_class, ["label", "class_name"], list(flips.KINDS))
    order, left_out = flips.class_order(by_class, compared.series)
    drawn = by_class.filter(pl.col("class_name").is_in(order), kind="net")
    chart = flips.range_rows(drawn, "class_name", order, compared.colours, "probe images fixed less broken")
    ends = {row["class_name"]: row["mean"] for row in drawn.filter(series=compared.series).rows(named=True)}
    said = f"{order[0]} gains most ({ends[order[0]]:+.1f} images), {order[-1]} least ({ends[order[-1]]:+.1f})"
    page.chart(study, chart, key="by_class", alt=f"Fixed less broken by class, {compared.series}: {said}.")
    st.caption(
        "Right answers gained (right of 0) or lost in each class, mean and range over seeds; diamonds are the null. "
        "Classes differ in how many images they have: the table has counts. A class at the top is there in part by "
        "luck, more so the more classes there are."
        + (f" {left_out} classes between the extremes are in the table only." if left_out else "")
    )
    counted = of_class.select("class_name", "series", "seed", "images", *flips.KINDS, "p_value")
    page.table_beside(counted, f"{study.name}-flips-by-class", "classes")


def image_section(study: Study, compared: flips.Comparison) -> None:
    st.header("The images")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        outcome = pick.one("Images", flips.OUTCOMES, "outcome", look="segments")
        name = pick.maybe_one("Only class", study.record["data"]["class_names"], "of", placeholder="all", width=220)
        found = flips.flipped(study, compared, outcome)
        found = found if name is None else found.filter(pl.col("class_name") == name)
        pages = [str(number + 1) for number in range(-(-found.height // flips.PER_PAGE))]
        number = int(pick.one("Page", pages, "page", width=90)) if len(pages) > 1 else 1
    if found.is_empty():
        st.info(f"No image was {outcome} here.")
        return
    shown = found.slice((number - 1) * flips.PER_PAGE, flips.PER_PAGE)
    st.html(images.gallery(flips.figures(study, compared, outcome, shown)))
    st.caption(
        f"{found.height} images {outcome} at one seed or more, those at most seeds first"
        + (f"; {shown.height} of them shown" if shown.height < found.height else "")
        + ". Bold: the true class. Answers: the most frequent one at those seeds. “Another start”: whether (or at how "
        "many seeds) plain from other initial weights does the same; an image that it flips as often says nothing "
        "about the method. Click an image to follow it through all layers."
    )
    page.table_beside(found.drop("image", "display_rank"), f"{study.name}-{outcome}", "images")


def confusion_section(study: Study, compared: flips.Comparison) -> None:
    st.header("What it mixes up")
    cells = flips.confusions(study, compared)
    order = flips.most_changed(cells)
    beside = pick.switch("The teacher's errors beside", "teacher_errors")
    left, right = st.columns(2) if beside else (st.container(), None)
    with left:
        chart = flips.difference_heat(cells, order, flips.ink())
        page.chart(study, chart, key="confusions", alt=f"{compared.series} less plain. {flips.largest(cells)}")
    if right is not None:
        with right:
            chart = flips.teacher_heat(cells, order, flips.ink())
            page.chart(study, chart, key="teacher_heat", alt="The teacher's wrong answers, by true class and answer")
    hidden = cells["true"].n_unique() - len(order)
    st.caption(
        "Images of each true class (row) that get each answer (column): the student's count less plain's, mean over "
        "seeds. Orange on the diagonal is right answers gained; **off it, orange is a confusion that grew**, blue one "
        "that shrank. Bold: of one sign at every seed. With this many cells some are large by luck."
        + (f" Only the {len(order)} classes that changed most; {hidden} others are in the table." if hidden else "")
        + (" Right: the teacher's errors; its right answers stand on the diagonal." if beside else "")
    )
    page.table_beside(cells, f"{study.name}-confusions", "confusions")


def calibration_section(study: Study, compared: flips.Comparison) -> None:
    st.header("How sure, and how right")
    named = calibration.named(compared)
    answers = flips.answers_of(study, set(named["network_id"])).join(named, on="network_id")
    rows = calibration.reliability(answers)
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
    st.caption(
        "Left: of the images answered with about this confidence (ten bins), the share that is right. Below the "
        "diagonal a network is surer than it is right. Bars: Wilson's 95 % interval for as many images as one seed has "
        "there (seeds answer the same images, so they add none). Larger dots: more images; bins of fewer than 5 are in "
        "the table only. Right: how many images each bin has. The expected calibration error is the mean distance from "
        "the diagonal over images, in 15 bins; 0 is best, and few images push it up."
    )
    page.table_beside(rows, f"{study.name}-calibration", "bins")


def answers_section(study: Study, compared: flips.Comparison, networks: pl.DataFrame) -> None:
    st.header("All methods side by side")
    scope = networks.filter(catalog.TRAINED_STUDENT & (pl.col("budget") == compared.budget))
    scope = scope.filter(pl.col("student") == networks.filter(network_id=compared.own["network_id"][0])["student"][0])
    beside = pick.one("Beside the answers of", ("plain of the same seed", "teacher"), "beside", look="segments")

    def answers() -> None:
        frame = tables.of_answers(study, scope, beside)
        measures_table(frame.rename({"inherited": "wrong in both"}, strict=False))  # not what the word means above
        st.caption(
            f"Beside {beside}, mean over seeds, as shares of the probe images: fixed (wrong there, right here), broken "
            "(right there, wrong here), kept (right in both). McNemar's p is one test a seed, averaged: read it as "
            "small or not, and nothing more."
            + ("" if beside == "teacher" else " Plain itself stands beside plain of the first seed.")
        )

    def alone() -> None:
        measures_table(tables.of_networks(study, scope))
        st.caption(
            "Each network by itself, mean over seeds. Prediction depth: 0 is the first layer and 1 the last; an image "
            "that never settles counts one step more, so a mean can pass 1. It and vote entropy are in the glossary."
        )

    page.folded(f"Answers beside those of {beside}", "answers", answers)
    page.folded("Calibration and depth of each", "networks", alone)


def measures_table(frame: pl.DataFrame) -> None:
    if not frame.width:
        st.info("This study has no such measures.")
        return
    digits = st.column_config.NumberColumn(format="%.3f")
    page.table(frame, column_config=dict.fromkeys(frame.columns[1:], digits))


def main() -> None:
    study = page.open_page("Flips", "🔀")
    st.title("Flips")
    st.markdown(
        "Two networks of one accuracy can be wrong on different images. What would you lose if a student took its "
        "teacher's place? Which images does it get right that plain does not, and which errors does it inherit?"
    )
    with page.section("The flips"):
        networks = catalog.networks(study)
        compared = flips.pick_comparison(study, networks)
        if compared is None:
            st.info("No student here has both a plain one of the same seed and a teacher, so nothing can be flipped.")
            return
        page.data_note(study)
        with page.section("The trade"):
            trade.section(study, compared, networks)
        counts = flips.counts_of(study, compared)
        with page.section("The counts"):
            changed_section(study, compared, counts, networks)
        with page.section("The slices"):
            slices.section(study, compared)
        with page.section("The classes"):
            class_section(study, compared, counts)
        with page.section("The images"):
            image_section(study, compared)
        with page.section("The confusions"):
            confusion_section(study, compared)
        with page.section("The calibration"):
            calibration_section(study, compared)
        with page.section("The answers"):
            answers_section(study, compared, networks)


main()
