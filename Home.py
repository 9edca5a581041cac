"""The first page: what the study is, what distillation gained, and the layers side by side."""

import polars as pl
import streamlit as st

from kdpipe.store import Study
from kdpipe.views import catalog, charts, evidence, focus, gains, maps, page, theme

POINTS = 800  # more are not told apart at this size, and this draws in about a second
WAYS = (
    ("pages/1_Embeddings.py", "Embeddings: any layer of any network, image by image", ":material/scatter_plot:"),
    ("pages/2_Measures.py", "Measures: the same in numbers, by depth, class and similarity", ":material/show_chart:"),
    ("pages/3_Inside_layers.py", "Inside layers: whose neighbours, and what is brightness or hue", ":material/layers:"),
    ("pages/4_Evidence.py", "Evidence: every claim judged, with what else could explain it", ":material/balance:"),
)
CLAIMED = ("earlier", "compact", "accurate")


def accuracy_section(study: Study, networks: pl.DataFrame) -> None:
    st.header("What distillation gained")
    headline = catalog.headline(study, networks)
    summary, of_all = catalog.accuracies(headline), gains.paired(networks)
    trained = networks.filter(pl.col("test_accuracy").is_not_null())
    page.lost_networks(networks)
    if summary.is_empty():
        st.info("No network of this study has a test accuracy.")
        return
    gains.tiles(summary, gains.paired(headline))
    st.caption(gains.caption(summary))
    page.data_note(study)
    if trained.filter(catalog.STUDENT).is_empty():
        return
    kind = headline.filter(catalog.STUDENT).select("student", "label_fraction").unique()
    shown = of_all.join(kind, on=["student", "label_fraction"], how="semi", maintain_order="left")
    colours = focus.colours(study, networks)
    st.markdown(gains.in_words(shown, headline["series"].to_list()))
    gains.few_seeds(of_all)
    chart = charts.accuracy_dots(trained, colours)
    st.altair_chart(chart, key="accuracy", alt="Test accuracy of each seed, by label budget and method")
    hidden = trained.filter(catalog.STUDENT & ~pl.col("series").is_in(list(colours)))["series"].n_unique()
    st.caption(
        "A dot is a seed, the bar the mean. The dashed line is the teacher, which may have had more labels."
        + (f" The {hidden} other methods and controls are below." if hidden else "")
    )
    if of_all.height:
        st.markdown("**Gain over the plain student of the same seed**, in points of test accuracy")
        st.altair_chart(charts.gain_ranges(shown, colours), key="gains", alt="Gain of each method, the highest first")
        st.caption(gains.about_chart(shown))
        gains.table(of_all)
    page.table_beside(catalog.accuracies(networks).drop("rank", "label_fraction"), f"{study.name}-accuracy")


def verdict_section(study: Study) -> None:
    """The claim, judged for the one comparison that the study named before it ran."""
    main = evidence.primary(study)
    if main is None:
        return
    titles = dict(study.claims.select("claim", "title").iter_rows())
    same = study.frame("verdicts", student=main["student"], method_label=main["method_label"])
    same = same.filter((pl.col("label_fraction") - main["label_fraction"]).abs() < 1e-6)
    st.header("Is it true?")
    cards = [row for name in CLAIMED for row in same.filter(claim=name).rows(named=True)]
    for column, row in zip(st.columns(len(cards)), cards, strict=True):
        with column:
            evidence.card(row, titles[row["claim"]])
    st.page_link("pages/4_Evidence.py", label="What it rests on, and every other comparison", icon=":material/balance:")


def how_to_compare(rows: pl.DataFrame) -> str:
    """What panels of two networks may be compared with, given which rows there are."""
    plain = rows.filter(pl.col("role") == "plain").height
    if plain > 1:
        return (
            "**Two rows can differ by chance alone**: compare the two plain rows, which differ in their seed, that is "
            "in initial weights, batches and which images are labelled, before you believe a difference between plain "
            "and distilled. "
        )
    if plain or rows.filter(pl.col("role") == "distilled").height:
        return (
            "**Two rows can differ by chance alone** (another seed is other initial weights, other batches and other "
            "labelled images), and there is no second plain row here to show how much. "
        )
    return "Only the teacher has maps here. "


def layers_section(study: Study, networks: pl.DataFrame) -> None:
    st.header("Layer by layer")
    rows = catalog.headline_rows(catalog.headline(study, networks))
    projectors = maps.projectors_of(study)
    if rows.is_empty() or not projectors:
        st.info(page.no_maps(study))
        return
    projector = projectors[0]
    drawn_by = maps.PROJECTORS.get(projector, projector)
    st.markdown(
        f"Each panel is one layer's view of the same test images, drawn by {drawn_by}: every dot is an image, its "
        "colour the true class. Read a row from left to right and watch the classes come apart. "
        f"{how_to_compare(rows)}Faint dots are images that the map misplaces."
    )
    chosen, setting = rows["network_id"].to_list(), maps.settings_of(study, projector).row(0, named=True)
    layers = study.frame("layers", network_id=chosen, view=setting["view"])
    students = rows.filter(catalog.STUDENT)["network_id"].to_list()
    points = study.frame("maps", network_id=chosen, projector=projector).filter(maps.same_setting(setting))
    scores = study.frame("map_measures", network_id=chosen, projector=projector).filter(maps.same_setting(setting))
    panels = maps.panels_of(rows, layers, catalog.columns_of(layers, students), points, scores)
    samples = study.samples.drop("image").filter(pl.col("display_rank") < POINTS)
    names = study.record["data"]["class_names"]
    colouring = maps.Colouring("class", theme.class_colours(names, names))
    table = maps.wide_table(panels, points, samples, study.frame("predictions", network_id=chosen), names, colouring)
    spec = maps.small_multiples(table, panels, colouring, scores=["trustworthiness"], clickable=False)
    alt = f"{drawn_by} maps of each layer, a row each: {'; '.join(rows['label'])}"
    st.vega_lite_chart(table, spec, key="layers", width="content", alt=alt)
    st.caption(
        f"{table.height} probe images; a layer's vector is its {catalog.view_in_words(setting['view'])}. "
        f"{maps.layout_in_words(setting)} Trustworthiness: how far neighbours on the map are true ones (1 is best, "
        "about 0.5 is a random layout)."
    )
    shown = pl.DataFrame([{"network": p.network, "layer": p.layer, **p.scores} for p in panels])
    page.table_beside(shown, f"{study.name}-maps", "How far each map can be trusted")


def main() -> None:
    study = page.open_page("Home", "🎓")
    st.title(study.title)
    with page.section("The description"):
        st.markdown(str(study.record.get("description", "")).replace("![", "["))
    page.missing_stages(study)
    networks = None
    with page.section("The study"):
        networks = catalog.networks(study)
        st.markdown(catalog.study_in_words(study, networks))
    if networks is not None:  # said once that it cannot be read
        with page.section("The verdicts"):
            verdict_section(study)
        with page.section("The accuracies"):
            accuracy_section(study, networks)
        with page.section("The layers"):
            layers_section(study, networks)
    st.header("Go on")
    for target, label, icon in WAYS:
        st.page_link(target, label=label, icon=icon)
    with page.section("The methods"), st.expander("The methods in this study"):
        st.dataframe(study.methods.drop("defaults"), hide_index=True)
    with st.expander("How it was made"):
        record = {key: study.record.get(key) for key in ("study_hash", "versions", "data")}
        st.json({**record, "timings": study.timings}, expanded=1)


main()
