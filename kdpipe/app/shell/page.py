"""What every page does first: configure itself, offer the studies, open the chosen one.

A page is never taken down by one bad file or one fault: each part runs inside :func:`section`, which says what is
wrong and what to do, and lets the rest of the page go on.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import altair
import polars as pl
import streamlit as st
from streamlit.errors import FragmentHandledException, StreamlitPageNotFoundError

from kdpipe.app.shell import faults, figures, pick, vega
from kdpipe.app.shell.images import PIXELS_CSS
from kdpipe.app.shell.pick import as_text
from kdpipe.app.shell.theme import GREY
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import STUDY_FILE, Study, artifacts_root, open_study, study_names
from kdpipe.errors import ArtifactError
from kdpipe.vocabulary import LEAST_SEEDS

_LAST = "last_study"
_OPEN = "open-"  # in the address: parts that a visitor opened, which no figure needs in its link
# Streamlit leaves 80 px on either side and above: a tenth of a small screen, which the maps need.
ROOM_CSS = """<style>
.stMainBlockContainer { padding: 3.2rem 2.5rem 4rem; }
@media (max-width: 640px) { .stMainBlockContainer { padding: 3.2rem 1rem 4rem; } }
/* a picture of fixed width scrolls in its own box, and the page stays */
[data-testid="stVegaLiteChart"] { max-width: 100%; overflow-x: auto; }
.vega-bindings input[type="range"] { width: min(20rem, 45vw) !important; }
/* white on the primary colour cannot be read in the dark theme */
.stMultiSelect [data-tag] { background: transparent; border: 1px solid currentColor; color: inherit; }
.stMultiSelect [data-tag] * { color: inherit; }
</style>"""
LINK_WIDTH = 120  # characters of a link on one line below a chart


def open_page(title: str, icon: str) -> Study:
    """Set the page up and return the study picked in the sidebar; end the page if there is none."""
    st.set_page_config(page_title=f"{title} · kdpipe", page_icon=icon, layout="wide")
    st.html(PIXELS_CSS + ROOM_CSS)
    figures.offer_svg()
    pick.gather_notes()
    root = artifacts_root()
    names = study_names(root)
    if not names:
        st.title(title)
        st.info(
            "There are no artifacts yet. Make some with `kdpipe run studies/digits.toml`, then reload this page.",
            icon=":material/inbox:",
        )
        st.stop()
    readable = [name for name in names if _opens(root, name)]
    readable.sort(key=lambda name: _lacks(str(root), name, _fingerprint(root / name)))
    name = _pick_study(readable + [name for name in names if name not in readable])
    try:
        study = _study(str(root), name, _fingerprint(root / name))
    except ArtifactError as error:
        st.title(title)
        _say(error)
        if readable:
            st.info(f"Studies that can be read: {', '.join(readable)}. Pick one in the sidebar.")
        st.stop()
    faults.remember_page(title, study)
    _say_what_lacks(study)
    return study


def lacking(study: Study) -> dict[str, str]:
    """What a study of finished networks or vectors came without (training, images, logits, …), with what follows."""
    found = study.record.get("lacking")
    return {str(what): str(said) for what, said in found.items()} if isinstance(found, dict) else {}


def why_not(study: Study, what: str, otherwise: str) -> str:
    """Why a part of a page is empty: ``what`` never came with the vectors, or else another reason."""
    return lacking(study).get(what, otherwise)


def _say_what_lacks(study: Study) -> None:
    """In the sidebar, so that every page says it."""
    if said := lacking(study):
        title = "A study of vectors." if "networks" in said else "Finished networks."
        st.sidebar.info(f"**{title}** " + verbatim(" ".join(said.values())), icon=":material/dataset:")


def _pick_study(names: list[str]) -> str:
    """The study in the address; without one, the study of the last page; at first, the first that opens.

    Not bound to the address by Streamlit 1.67, which drops a bound value where a page is left by a link
    and keeps the next page's address without it. Here the address is written on every page.
    """
    asked = st.query_params.get("study")
    name = next(one for one in (asked, st.session_state.get(_LAST), names[0]) if one in names)
    st.session_state["study"] = name
    st.sidebar.selectbox("Study", names, key="study", on_change=_take_study)
    if asked and asked not in names:
        st.warning(f"There is no study called “{as_text(asked)}”: this is “{name}”.", icon=":material/link_off:")
    if asked != name and (asked or name != names[0]):
        st.query_params["study"] = name
    st.session_state[_LAST] = name
    return name


def _take_study() -> None:
    st.query_params["study"] = st.session_state["study"]


@contextmanager
def section(what: str) -> Iterator[None]:
    """Run one part of a page. If its artifacts cannot be read, or kdpipe has a fault, say so there and go on below.

    Args:
        what: the part, as a report names it.
    """
    try:
        yield
    except ArtifactError as error:
        _say(error)
    except FragmentHandledException:  # the part inside has said what is wrong
        raise
    except Exception as error:
        faults.show(what, error)


def data_note(study: Study) -> None:
    """The study's caveat about its data, shown wherever its numbers are."""
    if note := (study.record.get("data") or {}).get("note"):
        st.caption(f":material/warning: {verbatim(str(note))}")


def floor_in_words(what: str, far_off: float | None) -> str:
    """What the grey dashes are, or the number where they would lie too far off to be drawn."""
    return f"Grey dashes: {what}." if far_off is None else f"With {what} it is {far_off:.2f}, too far off to be drawn."


def chart(study: Study, drawn: Any, key: str, alt: str, **more: Any) -> Any:  # a chart of Altair, whatever its kind
    """Draw a chart with words for those who cannot see it, signed with its study and link.

    The buttons at its upper right corner save what is drawn as PNG or SVG, signature included.
    """
    signed = drawn.copy(deep=False)  # ``properties`` would copy every layer
    signed.title = _signed(study)
    unchecked: Any = vega.Unchecked(signed)
    return st.altair_chart(unchecked, key=key, alt=alt, **more)


def vega_chart(
    study: Study, table: pl.DataFrame, spec: Mapping[str, Any], key: str, alt: str, transient: Sequence[str] = (),
    **more: Any,
) -> Any:  # fmt: skip
    """As :func:`chart` for a plain Vega-Lite specification.

    Args:
        transient: names in the address that the browser shows by itself; in the signature they would
            make it draw all anew.
    """
    signed = {**spec, "title": _signed(study, transient).to_dict()}
    return st.vega_lite_chart(table, signed, key=key, alt=alt, **more)


def _signed(study: Study, transient: Sequence[str] = ()) -> altair.TitleParams:
    """Study, hash and the link to what is shown, small, below a chart: what a saved figure needs to be found again."""
    kept = (name for name in sorted(st.query_params) if name not in transient and not name.startswith(_OPEN))
    asked = {name: st.query_params.get_all(name) for name in kept}
    link = f"{st.context.url or ''}?{urlencode({**asked, 'study': [study.name]}, doseq=True)}"
    lines = [f"kdpipe · study {study.name} · {study.hash}"]
    lines += [link[at : at + LINK_WIDTH] for at in range(0, len(link), LINK_WIDTH)]
    return altair.TitleParams(
        text=lines, orient="bottom", anchor="start", fontSize=9, fontWeight="normal", color=GREY, offset=8
    )


def link(
    target: str, label: str, icon: str = ":material/arrow_forward:", study: Study | None = None, **query: str
) -> None:
    """A link to another page, with what it shall show; nothing where a page is run by itself and has no others."""
    asked = {"study": study.name, **query} if study else query
    with suppress(StreamlitPageNotFoundError):
        st.page_link(target, label=label, icon=icon, query_params=asked or None)


def notes(takeaway: str, how_to_read: str) -> None:
    """A line or two below a chart, and folded away what explains it in full."""
    st.caption(takeaway)
    with st.expander("How to read this"):
        st.caption(how_to_read)


def downloads(frame: pl.DataFrame, name: str) -> None:
    """Offer what is shown as CSV and as Parquet."""
    with st.container(horizontal=True):
        st.download_button(
            "CSV", frame.write_csv, f"{name}.csv", "text/csv",
            key=f"csv-{name}", icon=":material/download:",
        )  # fmt: skip
        st.download_button(
            "Parquet", lambda: _parquet(frame), f"{name}.parquet", "application/octet-stream",
            key=f"parquet-{name}", icon=":material/download:",
        )  # fmt: skip


def table(frame: pl.DataFrame, **look: Any) -> None:
    """A table without row numbers, in which a dash stands for what is not known.

    Args:
        look: further arguments of ``st.dataframe``.
    """
    # Streamlit would turn a frame into one of pandas, which in polars takes locks that sessions can wait for for ever.
    st.dataframe(frame.to_arrow(), hide_index=True, placeholder="–", **look)


def folded_table(frame: pl.DataFrame, name: str, at: str, label: str = "The numbers") -> None:
    """A chart's table, folded away, with its downloads.

    Args:
        name: of the files.
        at: unique on the page, and the same whatever is picked; ``open-<at>`` in the address.
    """

    def show() -> None:
        table(frame)
        downloads(frame, name)

    folded(label, at, show)


@st.fragment
def folded(label: str, at: str, show: Callable[[], None]) -> None:
    """A part that is made once a visitor opens it, and then without the rest of the page: a closed one costs nothing.

    Args:
        at: unique on the page; ``open-<at>`` in the address.
    """
    part = pick.opened(label, f"{_OPEN}{at}")
    if part.open:
        with part, section(label):
            show()


def _say(error: ArtifactError) -> None:
    text = str(error)
    begins_with_path = "/" in text.split(" ", 1)[0]
    st.error(text if begins_with_path else text[:1].upper() + text[1:], icon=":material/extension_off:")


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _opens(root: Path, name: str) -> bool:
    try:
        _study(str(root), name, _fingerprint(root / name))
    except ArtifactError:
        return False
    return True


@st.cache_data(max_entries=256, show_spinner=False)
def _lacks(root: str, name: str, fingerprint: tuple[tuple[str, int, int], ...]) -> tuple[bool, bool]:
    """What visitors come for and a study lacks: seeds enough for a verdict on its primary comparison, and maps."""
    study = _study(root, name, fingerprint)
    try:
        seeds, mapped = study.frame("verdicts", primary=True)["seeds"], study.networks["mapped"]
        return not (seeds >= LEAST_SEEDS).any(), not mapped.any()
    except ArtifactError:
        return True, True


def _fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, times and sizes of a study's files: a re-run, mended or damaged folder is opened anew."""
    found = []
    for path in [folder / STUDY_FILE, *folder.glob("*.parquet")]:
        try:
            state = path.stat()
        except OSError:
            continue
        found.append((path.name, state.st_mtime_ns, state.st_size))
    return tuple(sorted(found))


@st.cache_resource(max_entries=16, show_spinner=False)
def _study(root: str, name: str, fingerprint: tuple[tuple[str, int, int], ...]) -> Study:
    """Open a study once for all visitors; its files are verified when first read."""
    return open_study(Path(root) / name)
