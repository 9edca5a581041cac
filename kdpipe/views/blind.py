"""A blind test of the visitor's own eyes: which of these maps is the distilled network's?

Two of the three maps are plain students that differ by their seed alone. Whoever picks one of those has
seen what chance looks like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import comb

import polars as pl
import streamlit as st

from kdpipe.store import Study
from kdpipe.views import catalog, maps, page, pick
from kdpipe.views.controls import MapChoice

LETTERS = "ABC"
ROUNDS = 12
_GUESSES = "blind_guesses"


def contestants(study: Study, networks: pl.DataFrame) -> pl.DataFrame:
    """A distilled network with maps (the headline's, if it has some), plain of its seed, and plain of another seed."""
    mapped = networks.filter(pl.col("mapped") & (pl.col("student") != "teacher"))
    able = mapped.filter(pl.col("role") == "distilled").sort("seed", maintain_order=True)
    first = able.join(catalog.headline(study, mapped).select("network_id"), on="network_id", how="semi")
    distilled = pl.concat([first, able]).head(1)
    if distilled.is_empty():
        return distilled
    same = pl.col("student") == distilled["student"][0]
    near = (pl.col("label_fraction") - distilled["label_fraction"][0]).abs() < 1e-6
    plain = mapped.filter((pl.col("role") == "plain") & same & near)
    own = plain.filter(pl.col("seed") == distilled["seed"][0]).head(1)
    other = plain.filter(pl.col("seed") != distilled["seed"][0]).sort("seed").head(1)
    return pl.concat([distilled, own, other])


def shuffled(ids: Sequence[str], study_hash: str, round_number: int) -> list[str]:
    """The networks in an order that only study and round decide, so that a link shows the same riddle."""
    return sorted(ids, key=lambda one: hashlib.sha256(f"{study_hash}/{round_number}/{one}".encode()).digest())


def by_luck(right: int, rounds: int, choices: int) -> float:
    """Probability of at least ``right`` hits in ``rounds`` guesses among ``choices``: the exact binomial tail."""
    p = 1 / choices
    return sum(comb(rounds, k) * p**k * (1 - p) ** (rounds - k) for k in range(right, rounds + 1))


def show(study: Study, networks: pl.DataFrame, choice: MapChoice) -> None:
    """One round: three maps without names, a guess, and then what they were."""
    rows = contestants(study, networks)
    if rows.height < 2:
        st.info("A blind test takes maps of a distilled network and of plain. This study has none of them.")
        return
    if rows.height == 2:
        st.caption("This study has maps of one plain student alone, so there is no second one to be taken in by.")
    number = pick.along("Round", range(1, ROUNDS + 1), "round")
    layers = study.frame("layers", network_id=rows["network_id"].to_list(), view=choice.view)
    ordered = layers.filter(network_id=rows["network_id"][0]).sort("order", descending=True)["layer"].to_list()
    layer = ordered[(number - 1) % len(ordered)]
    order = shuffled(rows["network_id"].to_list(), study.hash, number)
    guesses: dict[tuple[str, int], str] = st.session_state.setdefault(_GUESSES, {})
    guess = guesses.get((study.hash, number))
    _draw(study, rows, order, layer, choice, named=guess is not None)
    answer = LETTERS[order.index(rows["network_id"][0])]
    if guess is None:
        _ask(guesses, (study.hash, number), len(order), layer)
    else:
        _tell(rows, order, guess, answer)
    _tally(study, guesses, rows, len(order))


def _draw(study: Study, rows: pl.DataFrame, order: list[str], layer: str, choice: MapChoice, named: bool) -> None:
    """The maps side by side, with names and scores only once there is a guess."""
    points = study.frame("maps", network_id=order, layer=layer, projector=choice.projector)
    points = points.filter(maps.same_setting(choice.setting))
    scores = maps.scores_of(study, order, choice.projector, choice.setting).filter(layer=layer)
    titles = dict(rows.select("network_id", "label").rows())
    panels = []
    for at, network_id in enumerate(order):
        mine = scores.filter(network_id=network_id)
        values = dict(mine.select("measure", "value").rows()) if named else {}
        title = f"{LETTERS[at]}: {titles[network_id]}" if named else LETTERS[at]
        panels.append(maps.Panel(network_id, title, title, at, at, values))
    colouring = maps.Colouring("class", choice.colouring.colours)  # nothing but the class: colours would tell
    samples = choice.samples.drop("image")
    predictions = study.frame("predictions", network_id=order)
    relabelled = points.with_columns(layer=pl.col("network_id").replace({p.network_id: p.layer for p in panels}))
    table = maps.wide_table(panels, relabelled, samples, predictions, choice.class_names, colouring)
    spec = maps.side_by_side(table, panels, colouring, scores=list(maps.HEADINGS))
    alt = f"{len(order)} maps of {layer}" + (
        "" if named else ", their networks hidden: " + ", ".join(LETTERS[: len(order)])
    )
    page.vega_chart(study, table, spec, key="blind_chart", width="content", alt=alt)
    st.caption(
        f"{table.height} images at {layer}. All three maps start from what the networks share at that depth, so "
        "differences are theirs. Faint dots are misplaced by the map."
    )


def _ask(guesses: dict[tuple[str, int], str], key: tuple[str, int], count: int, layer: str) -> None:
    st.markdown(f"**Which one is distilled?** The others are plain students, at {page.verbatim(layer)} too.")
    with st.container(horizontal=True):
        for letter in LETTERS[:count]:
            st.button(letter, key=f"guess_{letter}", on_click=guesses.__setitem__, args=(key, letter), width=80)


def _tell(rows: pl.DataFrame, order: list[str], guess: str, answer: str) -> None:
    if guess == answer:
        st.success(f"{guess} is the distilled one.", icon=":material/check:")
        return
    seen = dict(rows.select("network_id", "label").rows())[order[LETTERS.index(guess)]]
    st.warning(
        f"{guess} is “{page.verbatim(seen)}”, a plain student; {answer} is the distilled one. What looked like "
        "distillation was another start.", icon=":material/close:",
    )  # fmt: skip


def _tally(study: Study, guesses: dict[tuple[str, int], str], rows: pl.DataFrame, count: int) -> None:
    mine = {number: guess for (study_hash, number), guess in guesses.items() if study_hash == study.hash}
    if not mine:
        st.caption(f"Guessing gets 1 of {count} right. Take a few rounds: one tells nothing.")
        return
    ids = rows["network_id"].to_list()
    right = sum(
        guess == LETTERS[shuffled(ids, study.hash, number).index(ids[0])] for number, guess in mine.items()
    )  # fmt: skip
    st.caption(
        f"So far {right} of {len(mine)} right; luck alone gets that many or more with probability "
        f"{by_luck(right, len(mine), count):.2f}. Rounds show layers in turn, from the last to the first, of the same "
        f"{count} networks: once you know one map, later rounds of that layer are no independent guesses."
    )
