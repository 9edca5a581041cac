"""What the study is made of: provenance, tables to take away, the glossary, and how to cite and open it."""

import streamlit as st

from kdpipe.app.shell import page, pick
from kdpipe.app.study import sections


def main() -> None:
    study = page.open_page("Study", "📚")
    st.title("Study")
    st.markdown("How this study was made and what is in it, what the words mean, and how to take all of it with you.")
    parts = {
        sections.ABOUT: sections.show_about,
        sections.FILES: sections.show_files,
        sections.WORDS: sections.show_glossary,
        sections.CITE: sections.show_citing,
    }
    part = pick.one("Part", list(parts), "part", look="segments", label_visibility="collapsed")
    with page.section("The study"):
        parts[part](study)


main()
