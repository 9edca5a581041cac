"""What is picked on the page of one or two large maps, and all that is known of each image then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import streamlit as st

from kdpipe.app.explore.colouring import Colouring, colours_of, quantities_of
from kdpipe.app.shared import catalog
from kdpipe.app.shared.maps import PROJECTORS, projectors_of, same_setting, settings_of
from kdpipe.app.shell import page, pick, theme
from kdpipe.artifacts.store import Study
from kdpipe.relative_depth import nearest_place

_ALONE, _SAME_DEPTH = "no second map", "same depth"
_ANSWERS = ("all", "right", "wrong")
_DIFFER = "differ"
_OUTCOMES = ("kept", "fixed", "broken", "wrong", "inherited")
_LEFT, _RIGHT = "left", "right"
_IN_A_ROW, _BELOW = "side by side", "stacked"


@dataclass(frozen=True)
class Side:
    """One map: a layer of a network."""

    network_id: str
    network: str
    layer: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """What the pickers ask for."""

    sides: list[Side]
    setting: Mapping[str, object]
    projector: str
    quantity: Colouring
    colours: dict[str, str]
    facts: pl.DataFrame
    shown: pl.DataFrame
    filters: str
    stacked: bool = False

    @property
    def view(self) -> str:
        """How the layers on the maps became vectors."""
        return str(self.setting["view"])

    def title(self, at: int) -> str:
        """What map ``at`` is called where both are named."""
        side = self.sides[at]
        alike = len({side.network for side in self.sides}) < len(self.sides)
        return f"{side.network}, {side.layer}" if alike else side.network


# ------------------------------------------------------------------------------------- picking


def pick_choice(study: Study, networks: pl.DataFrame) -> Choice | None:
    """All pickers, and what they ask for; None where the study has no maps."""
    mapped, projectors = networks.filter("mapped"), projectors_of(study)
    if mapped.is_empty() or not projectors:
        return None
    above = st.container()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        quantities = quantities_of(study)
        colour = pick.one("Colour by", [q.title for q in quantities], "colour", width=220)
        quantity = next(q for q in quantities if q.title == colour)
        projector = pick.one(
            "Projector", projectors, "projector", words=lambda name: PROJECTORS.get(name, name), look="segments"
        )
        setting = _pick_setting(study, projector)
        placed = st.container()
    with above:
        sides = _pick_sides(study, mapped, projector, setting)
    if not sides:
        return None
    with placed:
        stacked = len(sides) == 1 or _pick_stacked()
    table = facts(study, sides, projector, setting)
    shown, filters, classes = _pick_images(study, sides, table, quantity)
    names = list(study.record["data"]["class_names"])
    return Choice(
        sides, setting, projector, quantity, colours_of(quantity, names, classes), table, shown, filters, stacked
    )


def _pick_setting(study: Study, projector: str) -> dict[str, object]:
    settings = settings_of(study, projector).rows(named=True)
    views = len({s["view"] for s in settings}) > 1

    def words(setting: Mapping[str, Any]) -> str:
        view = f"{catalog.view_in_words(setting['view'])}, " if views else ""
        perplexity = f", perplexity {setting['perplexity']:g}" if setting["perplexity"] is not None else ""
        return f"{view}{setting['layout']}{perplexity}, seed {setting['map_seed']}"

    if len(settings) == 1:
        return settings[0]
    # A setting of one projector is none of another, so each has its own place in the address.
    return pick.one("Setting", settings, f"setting_{projector}", words=words, width=250)


def _pick_stacked() -> bool:
    """Two maps below each other are as wide as the page, which is the only way on a phone."""
    phone = "Mobi" in (st.context.headers.get("User-Agent") or "")
    first = _BELOW if phone else _IN_A_ROW
    return pick.one("Maps", (_IN_A_ROW, _BELOW), "maps", first=first, look="segments") == _BELOW


def _pick_sides(study: Study, mapped: pl.DataFrame, projector: str, setting: Mapping[str, object]) -> list[Side]:
    """A network and a layer on the left, and another pair, or none, on the right."""
    where = (pl.col("projector") == projector) & same_setting(setting)
    drawn = study.collect("maps", study.scan("maps").filter(where).select("network_id", "layer").unique())
    layers = study.frame("layers", view=setting["view"]).join(drawn, on=["network_id", "layer"], how="semi")
    ordered = catalog.layers_in_order(layers)
    ids = {label: who for label, who in mapped.select("label", "network_id").rows() if who in ordered}
    if not ids:
        return []
    head = catalog.headline_rows(catalog.headline(study, mapped.filter(pl.col("network_id").is_in(list(ordered)))))
    usual = dict(head.select("role", "label").rows()[::-1])  # the first of each role
    labels = list(ids)
    first = usual.get("plain") or labels[0]
    second = usual.get("distilled") or next((label for label in labels if label != first), _ALONE)
    left, right = st.columns(2)
    with left, st.container(horizontal=True, vertical_alignment="bottom"):
        label = pick.one("Left map", labels, "left", first=first, width=290)
        own = ordered[ids[label]]
        layer = pick.one("Its layer", own, "layer", first=own[-1], width=120)
    with right, st.container(horizontal=True, vertical_alignment="bottom"):
        other_label = pick.one("Right map", [_ALONE, *labels], "right", first=second, width=290)
        picked = [(label, layer)]
        if other_label != _ALONE:
            other = ordered[ids[other_label]]
            asked = pick.one("Its layer", [_SAME_DEPTH, *other], "right_layer", width=130)
            near = other[nearest_place(own.index(layer), len(own), len(other))]
            picked.append((other_label, near if asked == _SAME_DEPTH else asked))
    scores = study.frame("map_measures", network_id=[ids[name] for name, _ in picked], projector=projector)
    scores = scores.filter(same_setting(setting))
    return [
        Side(ids[name], name, at, dict(scores.filter(network_id=ids[name], layer=at).select("measure", "value").rows()))
        for name, at in picked
    ]


def _pick_images(
    study: Study, sides: Sequence[Side], table: pl.DataFrame, quantity: Colouring
) -> tuple[pl.DataFrame, str, list[str]]:
    """The rows of ``table`` that pass the filters, the filters in words, and the classes that are in colour."""
    names = list(study.record["data"]["class_names"])
    said, kept = [], pl.lit(True)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        classes = pick.several("Only classes", names, "classes", placeholder="all", width=160)
        if classes:
            said.append(" or ".join(classes))
            kept &= pl.col("class_name").is_in(classes)
        two, silent = len({side.network_id for side in sides}) == 2, "logits" in page.lacking(study)
        whose, at = "", 0
        if two:
            at = (_LEFT, _RIGHT).index(pick.one("Filter by", (_LEFT, _RIGHT), "by", first=_RIGHT, look="segments",
                                                disabled=silent,
                                                help="Whose answers the filters to the right are about."))  # fmt: skip
            whose = f" by {sides[at].network}"
        answers = pick.one(
            "Answers", (*_ANSWERS, _DIFFER) if two else _ANSWERS, "answers", look="segments", disabled=silent
        )
        if answers == _DIFFER:
            said.append("answered differently by the two")
            kept &= pl.col("answer_0") != pl.col("answer_1")
        elif answers != _ANSWERS[0]:
            said.append(f"{answers}{whose}")
            kept &= pl.col(f"verdict_{at}") == answers
        if table["outcome_0"].count() or table[f"outcome_{len(sides) - 1}"].count():
            outcomes = pick.several("What distillation did", _OUTCOMES, "outcome", placeholder="all", width=150)
            if outcomes:
                said.append(" or ".join(outcomes))
                wanted = pl.col(f"outcome_{at}").is_in([name for name in outcomes if name != "inherited"])
                kept &= (wanted | pl.col(f"inherited_{at}")) if "inherited" in outcomes else wanted
        low, high = pick.span("Confidence", 0, 100, "confidence", format="%d %%", width=130, disabled=silent)
        if (low, high) != (0, 100):
            said.append(f"confidence {low} to {high} %{whose}")
            kept &= pl.col(f"confidence_{at}").is_between(low / 100, high / 100)
        focus = classes[: theme.COLOURED_CLASSES]
        if quantity.look == "class" and len(names) > len(theme.PETROFF):
            focus = (
                pick.several("Classes in colour", names, "focus", placeholder="up to 8", width=230,
                             first=() if focus else names[: theme.COLOURED_CLASSES],
                             max_selections=theme.COLOURED_CLASSES) or focus
            )  # fmt: skip
    return table.filter(kept), "; ".join(said), focus


# --------------------------------------------------------------------------------------- facts


def facts(study: Study, sides: Sequence[Side], projector: str, setting: Mapping[str, object]) -> pl.DataFrame:
    """All that is known of each probe image: one row an image, sorted by ``sample_id``.

    Returns:
        the columns of samples.parquet, and for map i: x, y, misplacement, false_neighbours, missing_neighbours,
        answer (class name), verdict (right or wrong), confidence, depth (relative), outcome, inherited and credit
        (gained less lost), each with ``_i`` behind it; empty where the network has none.
    """
    table = study.samples
    names = dict(enumerate(study.record["data"]["class_names"]))
    taps = study.layers.group_by("network_id").agg(pl.col("order").max())
    deepest = dict(taps.rows())
    for at, side in enumerate(sides):
        points = study.frame("maps", network_id=side.network_id, layer=side.layer, projector=projector)
        points = points.filter(same_setting(setting))
        found = [points.select("sample_id", "x", "y", "misplacement", "false_neighbours", "missing_neighbours")]
        depth = pl.col("prediction_depth") / max(deepest.get(side.network_id, 0), 1)
        verdict = pl.when("correct").then(pl.lit("right")).otherwise(pl.lit("wrong"))
        answer = pl.col("predicted").replace_strict(names, default=None, return_dtype=pl.String)
        told = study.scan("predictions").filter(pl.col("network_id") == side.network_id)
        told = told.select("sample_id", "confidence", answer=answer, verdict=verdict, depth=depth)
        found.append(study.collect("predictions", told))
        columns = ["sample_id", "outcome", "inherited"]
        found.append(study.frame("sample_flips", columns=columns, network_id=side.network_id))
        found.append(_credit(study, side, str(setting["view"])))
        for part in found:
            named = {name: f"{name}_{at}" for name in part.columns if name != "sample_id"}
            table = table.join(part.rename(named), on="sample_id", how="left")
    return _shared(study, table, sides).sort("sample_id")


def _credit(study: Study, side: Side, view: str) -> pl.DataFrame:
    gained, lost = (
        pl.sum_horizontal(pl.col(f"{kind}_same", f"{kind}_other").cast(pl.Int32)) for kind in ("gained", "lost")
    )
    mine = (pl.col("network_id") == side.network_id) & (pl.col("layer") == side.layer) & (pl.col("view") == view)
    return study.frame("neighbour_credit", mine).select("sample_id", credit=gained - lost)


def _shared(study: Study, table: pl.DataFrame, sides: Sequence[Side]) -> pl.DataFrame:
    """Where a student is next to the plain network or teacher that it is compared with, that map has its values."""
    for at, other in ((0, 1), (1, 0)) if len(sides) == 2 else ():
        columns = ["plain_id", "teacher_id"]
        own = study.frame("sample_flips", columns=columns, network_id=sides[other].network_id)
        against = {name for row in own.unique().rows() for name in row}
        if not table[f"outcome_{at}"].count() and sides[at].network_id in against:
            names = ("outcome", "inherited", "credit")
            table = table.with_columns(pl.col(f"{name}_{other}").alias(f"{name}_{at}") for name in names)
    return table


# --------------------------------------------------------------------------------------- words


def in_words(choice: Choice) -> str:
    """The takeaway of the picture for those who do not see it."""
    maps = " and ".join(f"{side.network}, {side.layer}" for side in choice.sides)
    plural = "Two maps" if len(choice.sides) == 2 else "A map"
    said = [f"{plural} of {choice.shown.height} probe images: {maps}; coloured by {choice.quantity.title}"]
    said += [told for at in range(len(choice.sides)) if (told := _summary(choice, at))]
    return ". ".join(said) + "."


def _summary(choice: Choice, at: int) -> str:
    """What the colour says on one map, in a clause: shares of words, or mean and range of numbers."""
    quantity = choice.quantity
    values = choice.shown[quantity.field(at)].drop_nulls()
    if values.is_empty() or (quantity.look == "class" and not quantity.own):
        return ""
    if quantity.in_words:
        counts = values.value_counts(sort=True).head(4).rows()
        return f"{choice.title(at)}: " + ", ".join(f"{count / len(values):.0%} {word}" for word, count in counts)
    numbers = values.to_numpy().astype(float)
    low, middle, high = (format(float(number), quantity.format) for number in np.quantile(numbers, (0.1, 0.5, 0.9)))
    return f"{choice.title(at)}: median {middle}, the middle 80 % from {low} to {high}"


def lacking(choice: Choice) -> list[str]:
    """A sentence for each map whose network has none of the values that colour shows."""
    quantity = choice.quantity
    return [
        f"{choice.title(at)}: “{quantity.title}” is not known of it ({quantity.lacking}), so its dots are grey."
        for at in range(len(choice.sides))
        if quantity.lacking and not choice.facts[quantity.field(at)].count()
    ]


def borrowed(choice: Choice) -> str:
    """Whose values both maps show where one network is only held against the other."""
    if choice.quantity.column not in ("outcome", "credit") or len(choice.sides) < 2:
        return ""
    first, second = (choice.facts[choice.quantity.field(at)] for at in (0, 1))
    same = first.count() and first.equals(second) and choice.sides[0].network_id != choice.sides[1].network_id
    return "Both maps show the student's values: the other network is what it is compared with. " if same else ""
