"""The images picked on the maps: kept in the address, compared with what is shown, and their true neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import polars as pl
import streamlit as st

from kdpipe.app.explore.colouring import FACTORS, OUTCOME_COLOURS, OUTCOME_ORDER
from kdpipe.app.explore.linked_maps import BRUSH, PICK
from kdpipe.app.explore.settings import Choice
from kdpipe.app.shared import catalog
from kdpipe.app.shared.charts import CANVAS, LABEL
from kdpipe.app.shell import page, pick, theme
from kdpipe.app.shell.images import Figure, gallery, strip
from kdpipe.artifacts.store import Study

KEY = "images"  # of the picker, and in the address
MOST_LINKED = 60  # images that an address keeps: more would make it longer than some programs take
_ALL, _MARKED, _ROUND = "explore_selected", "explore_marked", "explore_round"
_CLOSE, _LARGE, _MOST_GROUPS = 12, 12, 12
_FRAMES = {(True, True): "kept", (False, True): "fixed", (True, False): "broken", (False, False): "wrong"}


# --------------------------------------------------------------------------------- what is picked


def pick_images(ids: Sequence[int]) -> list[int]:
    """The picked images, typed here or taken from the maps; of more than the address keeps, all of them."""
    arrived = KEY not in st.session_state
    picked = pick.several(
        "Selected images", ids, KEY, placeholder="Click dots, drag a rectangle, or choose numbers",
        max_selections=MOST_LINKED, on_change=_take_typed, select_all=False, filter_mode="prefix",
    )  # fmt: skip
    if arrived:
        _mark(picked)
    every: list[int] = st.session_state.get(_ALL, [])
    return every if every[:MOST_LINKED] == picked else picked


def chart_key() -> str:
    """Key of the chart. A new one makes it draw anew, which only images that were typed need."""
    return f"explore_{st.session_state.get(_ROUND, 0)}"


def marked() -> list[int]:
    """Images that the chart rings from the start. Those clicked later are ringed in the browser already."""
    return list(st.session_state.get(_MARKED, []))


def _take_typed() -> None:
    _mark(st.session_state.get(KEY, []))


def _mark(picked: Sequence[int]) -> None:
    st.session_state[_ALL] = st.session_state[_MARKED] = list(picked)
    st.session_state[_ROUND] = st.session_state.get(_ROUND, 0) + 1


def take_selection(key: str, choice: Choice) -> None:
    """Make what is clicked and framed on the maps the picked images."""
    found = picked_in(dict(st.session_state[key].selection), choice)
    st.session_state[_ALL] = found
    st.session_state[KEY] = found[:MOST_LINKED]


def picked_in(selection: dict[str, Any], choice: Choice) -> list[int]:
    """Image numbers of a chart's selection: clicked ones first, then the framed ones in display order.

    Any prefix in display order is stratified by class, so the part that an address keeps is a fair one.
    """
    known = set(choice.facts["sample_id"].to_list())
    clicked = [int(point["sample_id"]) for point in selection.get(PICK) or [] if "sample_id" in point]
    ranges = {name: ends for name, ends in (selection.get(BRUSH) or {}).items() if name in choice.facts.columns}
    framed: list[int] = []
    if ranges:
        inside = [pl.col(name).is_between(min(ends), max(ends)) for name, ends in ranges.items()]
        framed = choice.shown.filter(*inside).sort("display_rank")["sample_id"].to_list()
    return [sample for sample in dict.fromkeys([*clicked, *framed]) if sample in known]


# ------------------------------------------------------------------------------ what is said of it


def show_selection(study: Study, choice: Choice, picked: Sequence[int]) -> None:
    """The images, how they differ from all that is shown, and their neighbours in each layer's own space."""
    if not picked:
        st.caption(
            "Click a dot (with shift: one more), or drag a rectangle around some, to see which images they are, how "
            "they differ from the others and who their true neighbours are."
        )
        return
    order = pl.DataFrame({"sample_id": list(picked)}, schema={"sample_id": pl.Int32})
    chosen = order.join(choice.facts, on="sample_id", how="left", maintain_order="left")
    st.text(sentence(chosen, choice))
    if chosen.height > MOST_LINKED:
        st.caption(f"The link to what is shown keeps the first {MOST_LINKED} of these {chosen.height} images.")
    _pictures(study, chosen, choice)
    with page.section("The counts"):
        _counts(study, chosen, choice)
    with page.section("The neighbours"):
        _neighbours(study, chosen, choice)
    page.folded_table(table(chosen, choice), f"{study.name}-selection", "selection", "The selected images as a table")


def sentence(chosen: pl.DataFrame, choice: Choice) -> str:
    """The most frequent class of the selection, and what each network answers rightly, compared with all that is "
    "shown."""
    total, shown = chosen.height, choice.shown
    if total == 1:
        row = chosen.row(0, named=True)
        said = [f"Image {row['sample_id']} is {row['class_name']}"]
        said += [f"{choice.sides[at].network} answers {row[f'answer_{at}']}" for at in _networks(choice)]
    else:
        classes = counts(chosen, shown, "class_name").row(0, named=True)
        said = [f"{classes['selected']} of {total} are {classes['group']} ({_share(classes['shown'])} of all shown)"]
        for at in _networks(choice):
            rights = counts(chosen, shown, f"verdict_{at}").filter(group="right")
            share, usual = rights.select("share", "shown").row(0) if rights.height else (0, 0)
            said.append(f"{choice.sides[at].network} is right on {_share(share)} ({_share(usual)} of all shown)")
    hidden = total - chosen.join(shown, on="sample_id", how="semi").height
    if hidden:
        said.append(f"the filters leave out {'it' if total == 1 else f'{hidden} of the selected'}")
    return "; ".join(said) + "."


def _networks(choice: Choice) -> range:
    """The maps whose networks differ: two layers of one network give the same answers."""
    return range(len({side.network_id for side in choice.sides}))


def _share(value: Any) -> str:
    return f"{100 * float(value or 0):.0f} %"


def _pictures(study: Study, chosen: pl.DataFrame, choice: Choice) -> None:
    """Up to 60 images, few of them large and linked. Frames say which of the networks is right."""
    shown, two = chosen.head(MOST_LINKED), len(_networks(choice)) == 2
    few = shown.height <= _LARGE
    rows = shown.rows(named=True)
    framed = [_frame(row, two) for row in rows]
    if few:
        figures = (
            Figure(row["image"], _lines(row, choice), colour, _follow(study, row["sample_id"]))
            for row, colour in zip(rows, framed, strict=True)
        )
        st.html(gallery(figures))
    else:
        st.html(strip((row["image"], _caption(row, two), colour) for row, colour in zip(rows, framed, strict=True)))
    said = ["Frames: " + (
        "light grey, both networks are right; blue, only the right map's; orange, only the left map's; dark grey, none."
        if two else "grey, the network is right; red, it is wrong."
    )]  # fmt: skip
    if few:
        said.append("Click an image to follow it through all layers.")
    else:
        said.append(
            "Below, the class, and after the arrow what is answered instead" + (" (left, right)." if two else ".")
        )
    if shown.height < chosen.height:
        said.append(f"{shown.height} of {chosen.height} are shown.")
    st.caption(" ".join(said))


def _frame(row: dict[str, Any], two: bool) -> str:
    first, second = (row[f"verdict_{at}"] == "right" for at in (0, int(two)))
    if two:
        return OUTCOME_COLOURS[_FRAMES[first, second]]
    return theme.RIGHT if first else theme.WRONG


def _lines(row: dict[str, Any], choice: Choice) -> list[str]:
    sides = ("left", "right") if len(_networks(choice)) == 2 else ("answer",)
    return [f"{row['class_name']} · {row['sample_id']}", *(f"{w}: {row[f'answer_{at}']}" for at, w in enumerate(sides))]


def _caption(row: dict[str, Any], two: bool) -> str:
    answers = [row[f"answer_{at}"] for at in range(1 + two)]
    told = answers if len(set(answers)) > 1 else answers[:1]
    return row["class_name"] if told == [row["class_name"]] else f"{row['class_name']} → {', '.join(map(str, told))}"


def _follow(study: Study, sample: int) -> str:
    return "Sample?" + urlencode({"study": study.name, "sample": sample})


def counts(chosen: pl.DataFrame, shown: pl.DataFrame, column: str) -> pl.DataFrame:
    """How many of the selection are in each group, and how many would be if it were as all that is shown.

    Returns:
        group, selected, expected, share (of the selection), shown (share of all shown); most frequent first.
    """
    mine = chosen.group_by(pl.col(column).alias("group")).agg(selected=pl.len())
    every = shown.group_by(pl.col(column).alias("group")).agg(all=pl.len())
    both = mine.join(every, on="group", how="full", coalesce=True).drop_nulls("group").fill_null(0)
    shares = both.with_columns(
        share=pl.col("selected") / max(chosen.height, 1), shown=pl.col("all") / max(shown.height, 1)
    ).with_columns(expected=pl.col("shown") * chosen.height)
    return shares.sort("selected", "expected", "group", descending=[True, True, False]).drop("all")


def count_bars(order: Sequence[str]) -> dict[str, Any]:
    """A bar a group: images of the selection in it; the tick is what a selection like all that is shown would hold.

    A plain specification, over rows of :func:`counts`.
    """
    axis = {"labelLimit": LABEL - 90, "labelOverlap": False}
    tooltip = [
        {"field": "group", "type": "nominal", "title": " "},
        {"field": "selected", "type": "quantitative"},
        {"field": "expected", "type": "quantitative", "format": ".1f"},
        {"field": "share", "type": "quantitative", "format": ".0%", "title": "of the selection"},
        {"field": "shown", "type": "quantitative", "format": ".0%", "title": "of all shown"},
    ]
    x = {"type": "quantitative", "title": "images selected", "axis": {"tickMinStep": 1, "tickCount": 5, "format": "d"}}
    return {
        "height": {"step": 24},
        "encoding": {
            "y": {"field": "group", "type": "nominal", "sort": list(order), "title": None, "axis": axis},
            "tooltip": tooltip,
        },
        "layer": [
            {
                "mark": {"type": "bar", "color": theme.MARKED, "opacity": 0.7, "height": {"band": 0.62}},
                "encoding": {"x": {"field": "selected", **x}},
            },
            {
                "mark": {"type": "tick", "thickness": 3, "size": 18, "color": theme.GREY, "opacity": 1},
                "encoding": {"x": {"field": "expected", **x}},
            },
        ],
        "usermeta": CANVAS,
    }


def _counts(study: Study, chosen: pl.DataFrame, choice: Choice) -> None:
    if chosen.height < 2:
        return
    st.header("Compared with all that is shown")
    every = counts(chosen, choice.shown, "class_name")
    classes, told = every.head(_MOST_GROUPS), answer_counts(chosen, choice)
    # The link in the signature is for what it can restore: few images.
    transient = (KEY,) if chosen.height > _LARGE else ()
    for place, rows, key in zip(st.columns(2), (classes, told), ("by_class", "by_answer"), strict=True):
        with place:
            spec = count_bars(rows["group"].to_list())
            page.vega_chart(study, rows, spec, key=key, alt=_said(rows), transient=transient)
    left_out = every.height - classes.height
    st.caption(
        "Bars: images of the selection. Ticks: how many it would have if it were as all that is shown. Kept, fixed, "
        "broken and wrong: from plain to the student. You chose these images by where they lie, so no test says "
        "whether a difference is more than chance."
        + (f" {left_out} classes with fewer images are in the table only." if left_out else "")
    )
    page.folded_table(pl.concat([every, told]), f"{study.name}-selection-counts", "counts")


def answer_counts(chosen: pl.DataFrame, choice: Choice) -> pl.DataFrame:
    """Rows as of :func:`counts`: what each network answers rightly, and what distillation did where that is known."""
    parts = [
        counts(chosen, choice.shown, f"verdict_{at}").filter(group="right")
        .with_columns(group=pl.lit(f"right by {choice.sides[at].network}"))
        for at in _networks(choice)
    ]  # fmt: skip
    known = [at for at in range(len(choice.sides)) if choice.facts[f"outcome_{at}"].count()]
    # Of two students each has its own outcomes; what a map has from the other one is the same thing.
    columns = {at: choice.facts[f"outcome_{at}"].to_list() for at in known}
    own = known[-1:] if len(known) == 2 and columns[0] == columns[1] else known
    for at in own:
        of = f"{choice.sides[at].network}: " if len(own) == 2 else ""
        named = counts(chosen, choice.shown, f"outcome_{at}").sort(pl.col("group").replace(OUTCOME_ORDER))
        parts.append(named.with_columns(group=pl.format("{}{}", pl.lit(of), "group")))
    return pl.concat(parts)


def _said(rows: pl.DataFrame) -> str:
    first = rows.head(4).rows(named=True)
    return "; ".join(f"{r['group']}: {r['selected']} selected, {r['expected']:.1f} expected" for r in first) + "."


# ---------------------------------------------------------------------------------- neighbours


def _neighbours(study: Study, chosen: pl.DataFrame, choice: Choice) -> None:
    st.header("Their nearest neighbours in the original space")
    labels = choice.facts.select("sample_id", "label")
    told = []
    for at, (side, place) in enumerate(zip(choice.sides, st.columns(len(choice.sides)), strict=True)):
        near = study.frame("neighbours", network_id=side.network_id, layer=side.layer, view=choice.view)
        near = near.select("sample_id", pl.col("ids").list.eval(pl.element().cast(pl.Int32)))
        told.append(near)
        with place:
            st.text(f"{choice.title(at)}, {side.layer}")
            if near.is_empty():
                st.caption("This network has no neighbours stored at this layer: they are kept of networks with maps.")
                continue
            found = neighbourhood(near, labels, chosen["sample_id"].to_list())
            st.caption(found.words)
            near_images = found.nearest.join(choice.facts, on="sample_id", how="left", maintain_order="left")
            home = chosen["class_name"].unique().to_list()
            st.html(
                strip(
                    (row["image"], f"{row['class_name']}{found.times(row['times'])}",
                     theme.RIGHT if row["class_name"] in home else theme.WRONG)
                    for row in near_images.rows(named=True)
                )
            )  # fmt: skip
    between = ""
    if len(told) == 2 and all(near.height for near in told):
        mine, every = shared(told[0], told[1], chosen["sample_id"].to_list())
        between = f" Of their neighbours the two layers share {mine:.0%} (of all images': {every:.0%})."
    st.caption(
        f"Neighbours are of the layer's own vectors ({catalog.view_in_words(choice.view)}, Euclidean distance), "
        "among all probe images, not of the map, which cannot keep them all. Frames: grey, a class that "
        f"is in the selection; red, another.{between}"
    )


@dataclass(frozen=True)
class Neighbourhood:
    """The neighbours of some images at one layer: sample_id and how often (times), and what they say in words."""

    nearest: pl.DataFrame
    words: str
    single: bool

    def times(self, count: int) -> str:
        """How often an image is a neighbour, behind its name; a single image has each once."""
        return "" if self.single else f" ×{count}"


def neighbourhood(near: pl.DataFrame, labels: pl.DataFrame, picked: Sequence[int]) -> Neighbourhood:
    """Of one image its neighbours, nearest first; of several those outside that are most often their neighbours.

    Args:
        near: sample_id and ids (nearest first) of all images at a layer.
        labels: sample_id and label of all images.
        picked: the images asked about.
    """
    size = int(near["ids"].list.len().max() or 0)  # type: ignore[arg-type]
    pairs = near.explode("ids").rename({"ids": "other"})
    pairs = pairs.join(labels, on="sample_id").join(labels.rename({"sample_id": "other"}), on="other", suffix="_other")
    same = pl.col("label") == pl.col("label_other")
    mine = pairs.filter(pl.col("sample_id").is_in(list(picked)))
    alike, usual = mine.select(same.mean()).item() or 0, pairs.select(same.mean()).item() or 0
    words = f"{_share(alike)} of the {size} nearest are of the image's own class (all images: {_share(usual)})"
    if len(picked) == 1:
        order = near.filter(pl.col("sample_id") == picked[0]).explode("ids").head(_CLOSE)
        nearest = order.select(pl.col("ids").alias("sample_id"), times=pl.lit(1, pl.UInt32))
        return Neighbourhood(nearest, words + ". Nearest first:", True)
    inside = mine.select(pl.col("other").is_in(list(picked)).mean()).item() or 0
    outside = mine.filter(~pl.col("other").is_in(list(picked)))
    nearest = (
        outside.group_by(pl.col("other").alias("sample_id")).agg(times=pl.len())
        .sort("times", "sample_id", descending=[True, False]).head(_CLOSE)
    )  # fmt: skip
    words += f"; {_share(inside)} are in the selection. Most often a neighbour of these, from outside the selection:"
    return Neighbourhood(nearest, words, False)


def shared(first: pl.DataFrame, second: pl.DataFrame, picked: Sequence[int]) -> tuple[float, float]:
    """Mean share of neighbours that two layers have in common: of the picked images, and of all."""
    both = first.join(second, on="sample_id", suffix="_other")
    common = pl.col("ids").list.set_intersection("ids_other").list.len() / pl.col("ids").list.len()
    rows = both.select("sample_id", common=common)
    mine = rows.filter(pl.col("sample_id").is_in(list(picked)))["common"].mean()
    return float(mine or 0), float(rows["common"].mean() or 0)  # type: ignore[arg-type]


def table(chosen: pl.DataFrame, choice: Choice) -> pl.DataFrame:
    """The images with all that is known of them, each network's columns under its name."""
    own = {"answer": "answer", "verdict": "right or wrong", "confidence": "confidence", "depth": "prediction depth",
           "outcome": "outcome", "inherited": "inherited", "credit": "neighbour credit"}  # fmt: skip
    columns = [
        pl.col(f"{name}_{at}").alias(f"{choice.title(at)}: {words}")
        for at in range(len(choice.sides))
        for name, words in own.items()
    ]
    return chosen.select("sample_id", pl.col("class_name").alias("class"), *columns, *FACTORS)
