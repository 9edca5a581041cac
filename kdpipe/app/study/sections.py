"""The parts of the page of the study: how it was made, its tables, the glossary, and how to cite and open it."""

from __future__ import annotations

import json

import streamlit as st

from kdpipe.app.shared import catalog, lacks
from kdpipe.app.shell import page, pick
from kdpipe.app.shell.words import verbatim
from kdpipe.app.study import glossary, provenance
from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import ROLES

ABOUT, FILES, WORDS, CITE = "about the study", "tables and downloads", "glossary", "figures and citing"
EVERYTHING = "everything"


def show_about(study: Study) -> None:
    """How the study was made, its data, networks, gaps and times."""
    st.header(verbatim(study.title))
    st.markdown(verbatim(str(study.record.get("description", ""))))
    with page.section("The provenance"):
        st.subheader("How it was made")
        st.markdown(provenance.as_list(provenance.made_with(study)))
        page.folded("The study file, with every default filled in", "study-file", lambda: show_study_file(study))
    with page.section("The data"):
        st.subheader("The data")
        st.markdown(provenance.as_list(provenance.data_facts(study)))
        page.data_note(study)
        names = (study.record.get("data") or {}).get("class_names") or []
        with st.expander(f"The {len(names)} classes"):
            st.text(", ".join(map(str, names)))
    with page.section("The networks"):
        st.subheader("The networks")
        st.markdown(provenance.networks_in_words(study))
        networks = catalog.networks(study)
        rows = provenance.by_role(networks)
        lacks.lost_networks(networks)
        page.table(rows, height="content" if rows.height < 16 else 400)
        st.caption("; ".join(f"{role}: {what}" for role, what in ROLES.items()) + ".")
        page.downloads(rows, f"{study.name}-networks-by-role")
    with page.section("What is missing"):
        show_missing(study)
    with page.section("The times"):
        show_times(study)


def show_study_file(study: Study) -> None:
    """The resolved study file, to read and to download."""
    resolved = json.dumps(study.record["study"], indent=2, ensure_ascii=False)
    st.caption("As it was run; the TOML file names only what differs from the defaults.")
    st.code(resolved, language="json", height=420)
    st.download_button(
        "JSON", resolved, f"{study.name}-study.json", "application/json", key="study_json", on_click="ignore"
    )


def show_missing(study: Study) -> None:
    """What failed when the study was made, and which tables have no rows."""
    st.subheader("What is missing")
    lacks.missing_stages(study)
    empty = provenance.empty_tables(study)
    if empty:
        st.markdown(
            "\n".join(["These tables have no rows; what fills them:", "", *(f"- `{n}`: {w}" for n, w in empty)])
        )
    if not (study.record.get("missing") or {}):
        st.caption("No stage failed when the study was made." + ("" if empty else " Every table has rows."))


def show_times(study: Study) -> None:
    """Time by kind of stage."""
    st.subheader("How long it took")
    rows = provenance.stages(study)
    if rows.is_empty():
        st.info("This study has no timings: `timings.json` is missing or holds none, which touches nothing else.")
        return
    total = float(rows["seconds"].sum())
    top = ", ".join(f"{row['stage']} {row['time']} ({row['share']:.0%})" for row in rows.head(3).rows(named=True))
    page.chart(
        study, provenance.stage_bars(rows), "stages",
        f"Time by kind of stage, {provenance.duration(total)} in all; the longest: {top}.",
    )  # fmt: skip
    st.caption(
        f"{provenance.duration(total)} in all, each finished stage counted once, when and where it was made: stages "
        "from the cache count too. Students trained together share their time. It is one run: another machine or "
        "another day gives other times."
    )
    page.folded_table(rows, f"{study.name}-stages", "stages")


def show_files(study: Study) -> None:
    """All tables with their files, and one of them in detail."""
    st.header("Tables")
    rows = provenance.files(study)
    weight = int(rows["bytes"].sum())
    st.markdown(
        f"{rows.height} tables, {provenance.size(weight)}: all that these pages read. Every file's sha256 is checked "
        "before it is shown."
    )
    look = {
        "sha256": st.column_config.TextColumn(width="small"),
        "bytes": st.column_config.NumberColumn(format="bytes"),
    }
    page.table(rows, column_config=look, height=420)
    with st.container(horizontal=True):
        page.downloads(rows, f"{study.name}-files")
    if weight <= provenance.MOST_ZIPPED:
        st.download_button(
            f"All in one zip ({provenance.size(weight)})", lambda: provenance.zipped(study), f"{study.name}.zip",
            "application/zip", key="zip", icon=":material/folder_zip:", on_click="ignore",
        )  # fmt: skip
    else:
        st.caption(f"{provenance.size(weight)} are too much for a zip made while you wait: take the tables one by one.")
    show_table(study, rows["table"].to_list())


@st.fragment
def show_table(study: Study, names: list[str]) -> None:
    """One table: what its columns mean, its first rows, and its files."""
    st.subheader("One table")
    name = pick.one("Table", names, "table", width=320)
    with page.section("The table"):
        table = TABLES[name]
        first = provenance.first_rows(study, name)
        entry = study.record["files"][table.file]
        st.markdown(
            f"One row is {table.row}; {entry['rows']:,} rows, {provenance.size(entry['bytes'])}. "
            f"Key: {', '.join(f'`{column}`' for column in table.key)}."
        )
        with st.container(horizontal=True):
            st.download_button(
                "Parquet", lambda: provenance.parquet_of(study, name), table.file, "application/octet-stream",
                key="table_parquet", icon=":material/download:", on_click="ignore",
            )  # fmt: skip
            st.download_button(
                "CSV", lambda: provenance.csv_of(study, name), f"{name}.csv", "text/csv",
                key="table_csv", icon=":material/download:", on_click="ignore",
            )  # fmt: skip
        st.caption("Parquet: the file as it lies there. CSV: lists with spaces between, pictures as base64.")
        page.table(provenance.columns_of(name))
        if first.height:
            st.caption(f"The first {first.height} rows, without pictures.")
            page.table(first)
        st.code(f"sha256 {entry['sha256']}", language=None)


def show_glossary(study: Study) -> None:
    """The glossary, all of it or one entry."""
    st.header("Glossary")
    st.markdown("What the pages mean by their words, with the paper that brought them up where there is one.")
    found = glossary.entries(study)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kinds = [EVERYTHING, glossary.TERM, glossary.MEASURE, glossary.METHOD]
        kind = pick.one("Show", kinds, "words", look="segments")
        shown = [entry for entry in found if kind in (EVERYTHING, entry.kind)]
        name = pick.maybe_one("Find a word", [glossary.called(entry) for entry in shown], "term", width=320)
    if not shown:
        st.info(f"This study names no {kind}.")
        return
    if name is not None:
        shown = [entry for entry in shown if glossary.called(entry) == name]
    st.markdown(glossary.as_markdown(shown))
    st.caption(f"{len(shown)} of {len(found)}. Measures and methods are those of this study.")
    st.download_button(
        "JSON", glossary.as_json(shown), "glossary.json", "application/json", key="glossary_json", on_click="ignore"
    )


def show_citing(study: Study) -> None:
    """How to save figures, to cite the study and to open it in Python."""
    st.header("Figures")
    st.markdown(
        "Point at a chart (or tap it): buttons appear above its upper right corner. **Download as PNG** saves pixels, "
        "at least twice as many as on the screen, for slides; **SVG** saves a drawing that stays sharp at every size, "
        "for papers. What you see is saved, in the colours of your theme: pick first, then save, and take the light "
        "theme for paper. Below each figure stand the study, its hash and the link that brings back exactly this, so "
        "that a figure found again can be checked. The tables below charts hold their numbers, as CSV and Parquet."
    )
    st.header("How to cite")
    st.markdown(
        "Name the study's hash with the software: it tells which data, networks and settings a number rests on, "
        f"here `{verbatim(study.hash)}`."
    )
    st.code(provenance.citation(study), language="bibtex", wrap_lines=True)
    st.markdown("The paper whose claim the app puts to the test:")
    st.code(provenance.PAPER, language="bibtex", wrap_lines=True)
    st.caption("Methods and measures have sources of their own: see the glossary.")
    with page.section("The code"):
        st.header("Open it in Python")
        for what, code in provenance.in_python(study).items():
            st.markdown(f"**{what}**")
            st.code(code, language="python", wrap_lines=True)
