"""The answer at a glance: the question, verdicts small enough to stand side by side, and the picture that shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog, charts, focus, lacks, maps, tables, verdicts
from kdpipe.app.shell import page, theme
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import ENDPOINTS, PLAIN, VIEWS, EndpointName

CLAIMED = ("earlier", "compact", "accurate")
POINTS = 400  # more are not told apart at this size
_UNITS = {"accurate": (100, "points of accuracy on the probe images", "0.1")}  # scale, unit, least digit
_SILHOUETTE = (1, "silhouette", "0.001")
_HEIGHT = 280  # pixels, legend and axis included


def cards(study: Study) -> bool:
    """The study's one comparison that is not exploratory, a card a claim; False if there is none."""
    main = verdicts.primary(study)
    if main is None:
        return False
    same = verdicts.of_cell(study.verdicts, main)
    titles = dict(study.claims.select("claim", "title").iter_rows())
    rows = [row for name in CLAIMED for row in same.filter(claim=name).rows(named=True)]
    for column, row in zip(st.columns(len(rows)), rows, strict=True):
        with column:
            _card(study, row, titles[row["claim"]])
    return True


def _card(study: Study, verdict: Mapping[str, Any], claim: str) -> None:
    with st.container(border=True, height="stretch"):
        st.markdown(f"**{claim}**", help=verdict["sentence"])
        verdicts.badges(verdict)
        st.caption(effect_in_words(verdict, verdicts.controls_of(study, verdict), caveats(study, verdict)))


def effect_in_words(verdict: Mapping[str, Any], controls: pl.DataFrame, caveats: Sequence[str] = ()) -> str:
    """Effect, interval, seeds and controls of a verdict, without its sentence."""
    said = []
    if verdict["estimate"] is not None:
        unit = _UNITS.get(verdict["claim"], _SILHOUETTE)
        number = f"{rounded(verdict['estimate'], unit)} {unit[1]}"
        if verdict["low"] is not None:
            number += f" ({rounded(verdict['low'], unit)} to {rounded(verdict['high'], unit)})"
        said.append(f"{number}, {verdict['seeds']} paired seeds.")
    if held := verdicts.remains_in_words(controls, "other explanations"):
        said.append(f"{held}.")
    said += caveats
    missing = verdict["controls_not_asked"]
    if missing:
        said.append(f"{missing} explanation{'s' * (missing != 1)} could not be asked.")
    if verdict["takes"]:
        said.append(f"A decision takes {verdict['takes']}.")
    return " ".join(said)


def caveats(study: Study, verdict: Mapping[str, Any]) -> list[str]:
    """What a reader of the effect alone would miss: how little a control leaves, the margin, and the curves' shape.

    They are about the area before the last layer; of other claims nothing is said.
    """
    said: list[str] = []
    if verdict["claim"] != "earlier":
        return said
    leading = next(iter(ENDPOINTS))
    left = verdicts.controls_of(study, verdict).filter(measure=leading).drop_nulls("estimate").sort("estimate")
    if left.height:
        said.append(f"Least is left with {left['control'][0]}: {rounded(left['estimate'][0], _SILHOUETTE)}.")
    epsilon = verdicts.epsilon_of(study, leading)
    if epsilon and verdict["low"] is not None and -epsilon < verdict["low"] <= verdict["high"] < epsilon:
        said.append(f"All of it lies within ±{epsilon:g}, the study's margin.")
    shape = verdicts.of_cell(study.comparisons, verdict).filter(measure=leading, quantity="shape_abc", against=PLAIN)
    if (shape["high"] < 0).any():
        said.append("Brought to one height, the curve rises later than plain's, not earlier.")
    return said


def rounded(value: float, unit: tuple[int, str, str]) -> str:
    """A stored 32-bit number in its unit; halves are rounded up, as the verdict's own sentence shows them."""
    scale, _, step = unit
    if not abs(value) < 1e15:  # no area, but a damaged table may say so, and quantize refuses more digits than it keeps
        return f"{value:+.3g}"
    exact = Decimal(f"{value:.6g}") * scale
    return f"{exact.quantize(Decimal(step), ROUND_HALF_UP):+}"


def picture(study: Study, networks: pl.DataFrame) -> None:
    """Curves of the headline's networks by depth and, where there are maps, plain and distilled layer by layer."""
    shown = catalog.headline(study, networks).filter(pl.col("role").is_in(["teacher", "plain", "distilled"]))
    colours = {name: colour for name, colour in focus.colours(study, networks).items() if name in set(shown["series"])}
    drawn = [name for name in ENDPOINTS if curves(study, shown, name).height]
    rows = catalog.headline_rows(shown).unique("role", keep="first", maintain_order=True)
    rows = rows.filter(pl.col("role") != "teacher")
    has_maps = rows.height > 1 and bool(maps.projectors_of(study))
    if not drawn and not has_maps:
        st.info(lacks.no_measures("layers"))
        return
    places = st.columns([2, 3]) if has_maps else st.columns(max(len(drawn), 1))
    for place, name in zip(places, drawn[: 1 if has_maps else 2], strict=False):
        with place:
            _curve(study, shown, name, colours)
    if has_maps:
        with places[1]:
            _maps(study, rows)


def curves(study: Study, networks: pl.DataFrame, endpoint: EndpointName) -> pl.DataFrame:
    """One endpoint of the verdicts by depth, in its own view."""
    view = ENDPOINTS[endpoint].view
    rows = study.frame("layer_measures", network_id=networks["network_id"].to_list(), view=view, measure=endpoint)
    return tables.by_depth(rows, networks, study.layers)


def _curve(study: Study, networks: pl.DataFrame, endpoint: EndpointName, colours: dict[str, str]) -> None:
    rows, title = curves(study, networks, endpoint), ENDPOINTS[endpoint].title
    chart = charts.depth_curves(rows, colours, title, width=300).properties(height=_HEIGHT)
    page.chart(study, chart, key=f"curve_{endpoint}", alt=curve_in_words(rows, title))
    seeds = networks.filter(catalog.STUDENT)["seed"].n_unique()
    vectors = VIEWS[ENDPOINTS[endpoint].view]
    st.caption(
        f"**How well classes stand apart in each layer** ({title}; vectors: {vectors}). "
        + (f"Line: mean of {seeds} seed{'s' * (seeds != 1)}; band: lowest to highest. " if seeds else "")
        + "If distillation compacts *earlier*, its curve rises before the last layer too."
    )


def curve_in_words(rows: pl.DataFrame, title: str) -> str:
    """Where each curve starts and ends, for those who cannot see it."""
    means = charts.depth_means(rows)
    ends = means.group_by("series", maintain_order=True).agg(first=pl.col("mean").first(), last=pl.col("mean").last())
    said = "; ".join(f"{name} from {first:.2f} to {last:.2f}" for name, first, last in ends.rows())
    return f"{title} from the first layer to the last: {said}"


def _maps(study: Study, rows: pl.DataFrame) -> None:
    """Two rows of small maps: the same images in plain and in the distilled student."""
    projector = maps.projectors_of(study)[0]
    setting = maps.settings_of(study, projector).row(0, named=True)
    chosen = rows["network_id"].to_list()
    layers = study.frame("layers", network_id=chosen, view=setting["view"])
    points = study.frame("maps", network_id=chosen, projector=projector).filter(maps.same_setting(setting))
    panels = maps.panels_of(rows, layers, catalog.columns_of(layers, chosen), points, study.map_measures.clear())
    samples = study.samples.drop("image").filter(pl.col("display_rank") < POINTS)
    names = study.record["data"]["class_names"]
    colouring = maps.Colouring("class", theme.class_colours(names, names))
    table = maps.wide_table(panels, points, samples, study.frame("predictions", network_id=chosen), names, colouring)
    spec = maps.small_multiples(table, panels, colouring, scores=[], clickable=False, width=480)
    alt = f"{maps.PROJECTORS.get(projector, projector)} maps of each layer: {' and '.join(rows['label'])}"
    page.vega_chart(study, table, spec, key="maps", width="content", alt=alt)
    st.caption(
        f"**The same {table.height} test images, layer by layer**; a colour is a class here, not a method. Groups that "
        "come apart further left came apart earlier. Sizes and gaps are the map's own doing."
    )
