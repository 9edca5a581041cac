"""A blind test of the visitor's own eyes: which of these maps is the distilled network's?

Two of the three maps are plain students that differ by their seed alone. Whoever picks one of those has
seen what chance looks like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import polars as pl
import streamlit as st

from kdpipe.app.layers.settings import MapChoice
from kdpipe.app.shared import catalog, maps
from kdpipe.app.shell import page, pick
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import DISTILLED, PLAIN

LETTERS = "ABC"
ROUNDS = 12
_GUESSES, _ROUND = "blind_guesses", "round"
NOTHING = "A blind test takes maps of a distilled network and of plain. This study has none of them."
Guesses = dict[tuple[str, int], tuple[str, int]]  # study and round: the network that was picked, and among how many


def contestants(study: Study, networks: pl.DataFrame) -> pl.DataFrame:
    """A distilled network with maps (the headline's, if it has some), plain of its seed, and plain of another seed."""
    mapped = networks.filter(pl.col("mapped") & catalog.STUDENT)
    able = mapped.filter(role=DISTILLED).sort("seed", maintain_order=True)
    first = able.join(catalog.headline(study, mapped).select("network_id"), on="network_id", how="semi")
    distilled = pl.concat([first, able]).head(1)
    if distilled.is_empty():
        return distilled
    same = pl.col("student") == distilled["student"][0]
    plain = mapped.filter(same, role=PLAIN, budget_id=distilled["budget_id"][0])
    own = plain.filter(pl.col("seed") == distilled["seed"][0]).head(1)
    other = plain.filter(pl.col("seed") != distilled["seed"][0]).sort("seed").head(1)
    return pl.concat([distilled, own, other])


def shuffled(ids: Sequence[str], study_hash: str, round_number: int) -> list[str]:
    """The networks in an order that only study and round decide, so that a link shows the same riddle."""
    return sorted(ids, key=lambda one: hashlib.sha256(f"{study_hash}/{round_number}/{one}".encode()).digest())


def by_luck(right: int, choices: Sequence[int]) -> float:
    """Probability of at least ``right`` hits by chance, one guess among each of ``choices``: the exact tail.

    It is the binomial tail where all rounds have as many maps to choose from.
    """
    hits = [1.0]  # the probability of 0, 1, 2, … hits
    for count in choices:
        p = 1 / count
        hits = [a * (1 - p) + b * p for a, b in zip([*hits, 0.0], [0.0, *hits], strict=True)]
    return sum(hits[right:])


def show(study: Study, choice: MapChoice) -> None:
    """One round: maps without names, a guess, and then what they were.

    Args:
        choice: of the networks that :func:`contestants` gives, the distilled one first.
    """
    mapped = choice.points.select("network_id", "layer").unique()
    rows = choice.networks.join(mapped, on="network_id", how="semi", maintain_order="left")
    if rows.height < 2 or rows["role"][0] != "distilled":
        st.info("With this projector and setting there are no maps of both a distilled network and plain.")
        return
    if rows.height == 2:
        st.caption(
            "Here are maps of one plain student alone, so there is no second one to be taken in by: a guess is right "
            "one time in two, and nothing shows what a mere change of seed does."
        )
    layers = _layers(choice, rows)
    if not layers:
        st.info("These networks have no layer in common that is mapped with this projector and setting.")
        return
    number = pick.along("Round", range(1, ROUNDS + 1), _ROUND)
    layer = layers[(number - 1) % len(layers)]
    order = shuffled(rows["network_id"].to_list(), study.hash, number)
    guesses: Guesses = st.session_state.setdefault(_GUESSES, {})
    guess = guesses.get((study.hash, number))
    _draw(study, rows, order, layer, choice, named=guess is not None)
    if guess is None:
        _ask(guesses, (study.hash, number), order, layer)
    else:
        _tell(rows, order, guess[0], number)
    _tally({which: one for (whose, which), one in guesses.items() if whose == study.hash}, rows)


def _layers(choice: MapChoice, rows: pl.DataFrame) -> list[str]:
    """The layers that all have maps of, the last one first: it is where networks differ most."""
    ordered = choice.layers.filter(network_id=rows["network_id"][0]).sort("order", descending=True)["layer"].to_list()
    maps_of = choice.points.select("network_id", "layer").unique().group_by("layer").len()
    common = set(maps_of.filter(pl.col("len") == rows.height)["layer"])
    return [layer for layer in ordered if layer in common]


def _draw(study: Study, rows: pl.DataFrame, order: list[str], layer: str, choice: MapChoice, named: bool) -> None:
    """The maps side by side, with names and scores only once there is a guess."""
    points = choice.points.filter(layer=layer)
    scores = choice.scores.filter(layer=layer)
    titles = dict(rows.select("network_id", "label").rows())
    panels = []
    for at, network_id in enumerate(order):
        mine = scores.filter(network_id=network_id)
        values, floors = (
            dict(mine.filter(pl.col(name).is_not_null()).select("measure", name).rows()) if named else {}
            for name in ("value", "chance")
        )
        title = f"{LETTERS[at]}: {titles[network_id]}" if named else LETTERS[at]
        panels.append(maps.Panel(network_id, title, title, at, at, values, floors))
    relabelled = points.with_columns(layer=pl.col("network_id").replace({p.network_id: p.layer for p in panels}))
    predictions = study.frame("predictions", network_id=order)
    samples, colouring = choice.samples.drop("image"), choice.colouring
    table = maps.wide_table(panels, relabelled, samples, predictions, choice.class_names, colouring)
    if not named:
        table = table.select(pl.exclude(r"^[pc]_\d+$"))  # what a network predicts gives it away
    spec = maps.side_by_side(table, panels, colouring, scores=list(maps.HEADINGS), lit=choice.lit, told=named)
    alt = f"{len(order)} maps of {layer}" + (
        f": {'; '.join(p.network for p in panels)}" if named
        else f", their networks hidden: {', '.join(LETTERS[: len(order)])}"
    )  # fmt: skip
    page.vega_chart(study, table, spec, key="blind_chart", width="content", alt=alt)
    st.caption(
        f"{table.height} images at {verbatim(layer)}. {maps.layout_in_words(choice.setting)} Faint dots: "
        f"{maps.FADES[colouring.fade][0]}. Click a class in the legend to light it up."
    )
    page.data_note(study)
    if named:
        told = [replace(panel, layer=layer) for panel in panels]
        accuracy = rows.select(network=pl.col("network_id").replace({p.network_id: p.network for p in panels}),
                               test_accuracy="test_accuracy")  # fmt: skip
        scored = maps.score_table(told, scores).join(accuracy, on="network", how="left", maintain_order="left")
        page.folded_table(scored, f"{study.name}-blind-{layer}", "scores", "Scores of these panels")


def _ask(guesses: Guesses, key: tuple[str, int], order: list[str], layer: str) -> None:
    others = "The others are plain students that differ by their seed alone" if len(order) > 2 else "The other is plain"
    st.markdown(f"**Which one is distilled?** {others}, at {verbatim(layer)} too.")
    with st.container(horizontal=True):
        for letter, network_id in zip(LETTERS, order, strict=False):
            guess = (network_id, len(order))
            st.button(letter, key=f"guess_{letter}", on_click=guesses.__setitem__, args=(key, guess), width=80)


def _tell(rows: pl.DataFrame, order: list[str], guess: str, number: int) -> None:
    """Right or wrong, what the pick means, and on to the next round."""
    letters = dict(zip(order, LETTERS, strict=False))
    answer = rows["network_id"][0]
    if guess == answer:
        rest = "The other two are plain and differ by their seed alone." if len(order) > 2 else "The other is plain."
        st.success(f"{letters[answer]} is the distilled one. {rest}", icon=":material/check:")
    elif guess in letters:
        seen = dict(rows.select("network_id", "label").rows())[guess]
        meant = "another seed: this is what chance looks like" if len(order) > 2 else "plain training"
        st.warning(
            f"{letters[guess]} is “{verbatim(seen)}”, a plain student; {letters[answer]} is the distilled one. "
            f"What looked like distillation was {meant}.", icon=":material/close:",
        )  # fmt: skip
    if number < ROUNDS:
        st.button("Next round", icon=":material/arrow_forward:", on_click=_turn_to, args=(number + 1,))


def _turn_to(number: int) -> None:
    st.session_state[_ROUND] = number


def _tally(mine: dict[int, tuple[str, int]], rows: pl.DataFrame) -> None:
    """How many were right, and how likely luck does as well; ``mine`` holds a guess a round."""
    if not mine:
        st.caption(f"Guessing gets 1 of {rows.height} right. Take a few rounds: one tells nothing.")
        return
    right = sum(guess == rows["network_id"][0] for guess, _ in mine.values())
    st.caption(
        f"So far {right} of {len(mine)} right; luck alone gets that many or more with probability "
        f"{by_luck(right, [count for _, count in mine.values()]):.2g}. Rounds show layers in turn, from the last to "
        f"the first, of the same {rows.height} networks: once you know one map, later rounds of that layer are no "
        "independent guesses."
    )
