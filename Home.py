"""The first page: the question, this study's answer, the picture that shows it, and three ways in."""

import polars as pl
import streamlit as st

from kdpipe.app.home import overview
from kdpipe.app.shared import catalog, lacks
from kdpipe.app.shell import page
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study

WAYS = {
    "I study distillation": (
        "Claims that can fail, each held against what else could explain it.",
        {
            "pages/5_Evidence.py": "Evidence: every verdict",
            "pages/3_Measures.py": "Measures: layer by layer",
            "pages/7_Similarity.py": "Similarity: who is like whom",
        },
    ),
    "I choose a smaller model": (
        "What you gain, what it costs, and what you would lose.",
        {
            "pages/4_Methods.py": "Methods: gain and cost",
            "pages/6_Flips.py": "Flips: errors fixed and made",
            "pages/10_Training.py": "Training: what it took",
        },
    ),
    "I am new to this": (
        "Look first: the same images, layer after layer.",
        {
            "pages/1_Layers.py": "Layers: classes come apart",
            "pages/8_Sample.py": "Sample: follow one image",
            "pages/11_Study.py": "Study: glossary, downloads",
        },
    ),
}


def question() -> None:
    """What the app asks, in three sentences."""
    st.title("What does distillation change inside a network?")
    st.markdown(
        "A small network, the **student**, often ends up more accurate when it learns from a larger one, the "
        "**teacher**, than when it learns from the labels alone (**plain**). The claim tested here: *distillation "
        "guides the student to a more compact arrangement of the images, already in earlier layers* "
        "(Lee & Wallraven, 2021)."
    )


def ways_in(study: Study) -> None:
    """Three kinds of visitors, each with pages to begin at."""
    for column, (who, (what, targets)) in zip(st.columns(len(WAYS)), WAYS.items(), strict=True):
        with column, st.container(border=True, height="stretch", gap="xxsmall"):
            st.markdown(f"**{who}.** {what}")
            for target, label in targets.items():
                page.link(target, label, study=study)


def about(study: Study, networks: pl.DataFrame) -> None:
    """The study in a paragraph, with what is missing or lost in it."""
    st.header("The study")
    st.markdown(verbatim(str(study.record.get("description", ""))))
    lacks.missing_stages(study)
    st.markdown(catalog.study_in_words(study, networks))
    lacks.lost_networks(networks)
    page.data_note(study)


def main() -> None:
    study = page.open_page("Home", "🎓")
    question()
    with page.section("The verdicts"):
        st.subheader(verbatim(study.title), anchor=False)
        if not overview.cards(study):
            st.info("This study has no distilled student with a plain one of the same seed: there is nothing to judge.")
    networks = None
    with page.section("The study"):
        networks = catalog.networks(study)
    if networks is not None:  # said once that it cannot be read
        with page.section("The picture"):
            overview.picture(study, networks)
        ways_in(study)
        with page.section("The study"):
            about(study, networks)


main()
