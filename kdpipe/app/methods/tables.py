"""What explains the charts of methods: one table of gains and costs, and every figure in words."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import polars as pl
import streamlit as st

from kdpipe.app.methods import differences
from kdpipe.app.methods.differences import Quantity, Ranking
from kdpipe.app.shared import catalog, gains
from kdpipe.app.shared.in_words import hardware_in_words, short
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import LEAST_SEEDS, RANK_DRAWS

_AREAS = {"early area, silhouette": "area sil.", "early area, kNN accuracy": "area kNN"}
_ADVANCES = {"advance, silhouette": "advance", "advance, kNN accuracy": "advance kNN"}
_OWN = "of one network alone: its share of data and teacher included"


def _number(form: str, help: str, width: int = 66) -> Any:
    return st.column_config.NumberColumn(format=form, help=help, width=width)  # type: ignore[arg-type]


COLUMNS: Mapping[str, Any] = {
    "method": st.column_config.TextColumn(width=185),
    "kind": st.column_config.TextColumn(width=64),
    "accuracy": _number("%.1f", "mean test accuracy, %"),
    "gain": _number("%+.1f", "points of test accuracy over plain of the same seed, mean over seeds", 58),
    "lowest": _number("%+.1f", "the least gain of a seed", 58),
    "highest": _number("%+.1f", "the greatest gain of a seed", 60),
    "area sil.": _number("%+.3f", "early area over plain, silhouette", 70),
    "area kNN": _number("%+.3f", "early area over plain, kNN accuracy", 70),
    "advance": _number("%+.1f", "layers earlier that plain's last value is reached, silhouette", 66),
    "ms a step": _number("%.1f", f"milliseconds a training step {_OWN}; median over seeds", 70),
    "images/s": _number("%.0f", "training images a second that each network of its group sees; median over seeds", 66),
    "seeds": st.column_config.NumberColumn(help="networks trained to the end", width=48),
}


def shown(table: pl.DataFrame) -> list[str]:
    """Columns that say something of each method, few enough to stand side by side; the others are in the downloads."""
    return [
        name
        for name in COLUMNS
        if name != "images/s" and name in table.columns and table[name].null_count() < table.height
    ]


def of_gains_and_costs(study: Study, networks: pl.DataFrame, cell: pl.Expr) -> pl.DataFrame:
    """A row a method of a cell, plain included: accuracy, every difference from plain, and what it costs."""
    mine = networks.filter(catalog.TRAINED_STUDENT & cell)
    kind = pl.when(pl.col("role") == "control").then(pl.lit("control")).otherwise(pl.lit("method"))
    kind = pl.when(pl.col("role") == "plain").then(pl.lit("plain")).otherwise(kind)
    table = mine.group_by("series", "role", maintain_order=True).agg(
        accuracy=100 * pl.col("test_accuracy").cast(pl.Float64).mean(), seeds=pl.len()
    )
    table = table.select("series", kind.alias("kind"), "accuracy", "seeds")
    for quantity in differences.offered(study):
        found = gains.over_seeds(differences.differences(study, networks, quantity)).filter(cell)
        if not quantity.measure:
            found = found.select("series", "gain", "lowest", "highest")
        elif quantity.name in _AREAS:
            name = _AREAS[quantity.name]
            ends = {name: "gain", f"{name} lowest": "lowest", f"{name} highest": "highest"}
            found = found.select("series", **{new: pl.col(old) for new, old in ends.items()})
            stored = differences.intervals(study, mine, quantity)
            ends = {f"{name} 95 % low": "low", f"{name} 95 % high": "high"}
            found = found.join(stored.select("series", **{new: pl.col(old) for new, old in ends.items()}),
                               on="series", how="left", maintain_order="left")  # fmt: skip
        else:
            name = _ADVANCES[quantity.name]
            stored = differences.intervals(study, mine, quantity)
            found = found.select("series", pl.col("gain").alias(name)).join(
                stored.select("series", pl.col("never_reached").alias(f"{name} seeds that never reach it")),
                on="series", how="left", maintain_order="left",
            )  # fmt: skip
        table = table.join(found, on="series", how="left", maintain_order="left")
    paid = differences.costs(study, mine).select(
        "series", pl.col("milliseconds").alias("ms a step"), pl.col("fastest").alias("ms fastest seed"),
        pl.col("slowest").alias("ms slowest seed"), pl.col("images").alias("images/s"),
        pl.col("together").alias("trained together"), pl.col("macs").alias("MACs"),
        pl.col("params").alias("parameters"),
    )  # fmt: skip
    table = table.join(paid, on="series", how="left", maintain_order="left").rename({"series": "method"})
    if "gain" in table.columns:
        table = table.sort("gain", descending=True, nulls_last=True, maintain_order=True)
    first = [name for name in COLUMNS if name in table.columns]
    return table.select(*first, *(name for name in table.columns if name not in first))


def about_costs(study: Study, networks: pl.DataFrame) -> str:
    """Where the seconds come from, and what they do not tell."""
    timed: Mapping[str, Mapping[str, Any]] = study.timings.get("training") or {}
    mine = [timed[name] for name in networks.filter(catalog.TRAINED_STUDENT)["network_id"] if timed.get(name)]
    said = ["Accuracy in %, gain in points; areas and advance as in the quantities above. "]
    if not mine:
        said.append("This study stored no training times. ")
    else:
        said.append(
            f"Trained on {hardware_in_words(mine)}. A wall time depends on what else ran: compare "
            "methods by it only roughly. Networks that train together share batches and the teacher's answers. "
        )
        older = sum("seconds_a_step" not in speed for speed in mine)
        if older:
            said.append(
                f"{older} of {len(mine)} networks were timed by an older version, which did not split a step: they "
                "have no time of a step here, only images a second in the file timings.json. "
            )
    sizes = networks.filter(catalog.TRAINED_STUDENT).select("macs", "params").unique().rows()
    if len(sizes) == 1:
        macs, params = (short(size) for size in sizes[0])
        said.append(
            f"Inference costs the same for every row, {macs} MACs an image and {params} parameters: a method changes "
            "what the student learns, not what it is."
        )
    return "".join(said)


# ------------------------------------------------------------------------------------------ words


def gains_in_words(rows: pl.DataFrame, quantity: Quantity, reach: float) -> str:
    """The chart of ranges for those who cannot see it: the best and the last method, and what lies inside the null."""
    ours = rows.filter(pl.col("role") == "distilled")
    if ours.is_empty():
        ours = rows
    first, last = ours.row(0, named=True), ours.row(-1, named=True)
    count = f"{ours.height} method{'s' * (ours.height != 1)}"
    said = f"{count} by {quantity.name} over plain: {first['series']} {quantity.words(first['gain'])}"
    if ours.height > 1:
        said += f" is the highest, {last['series']} {quantity.words(last['gain'])} the lowest"
    inside = ours.filter(pl.col("gain").abs() <= reach).height
    return f"{said}; {inside} of them no further from 0 than other initial weights move" if reach else said


def about_ranges(rows: pl.DataFrame, quantity: Quantity, reach: float, cut: bool) -> str:
    """How to read the chart of ranges."""
    said = [f"{quantity.about} "]
    said.append("Diamonds: controls. " if (rows["role"] == "control").any() else "There are no controls here. ")
    if not reach:
        said.append("Nothing is stored of what other initial weights alone move, so there is no band: a small "
                    "difference may be chance. ")  # fmt: skip
    elif not quantity.measure:
        said.append("Band: as far as plain from other initial weights lies from plain, in its furthest seed. ")
    else:
        said.append(f"Band: ±{reach:.{quantity.digits}f}, the root mean square over seeds of what other initial "
                    "weights alone move (where a study has no second initialisation: the next seed). ")  # fmt: skip
    if quantity.quantity == "early_abc" and (rows["role"] == "control").any():
        said.append("A control's area is worked out from where a method was held against it; controls that were not "
                    "held against any are missing. ")  # fmt: skip
    if cut:
        said.append("An arrow with a number stands for a value beyond the axis.")
    return "".join(said)


def about_front(points: pl.DataFrame, budget: str) -> str:
    """How to read accuracy against its price, and what neither MACs nor parameters tell."""
    one_price = points.filter(pl.col("role") != "teacher")["cost"].n_unique() == 1
    columns = (
        f"All students share one architecture, so the picture has {points['cost'].n_unique()} columns: what it shows "
        "is how far distillation carries a student towards its teacher at an unchanged price. "
    )
    return (
        f"{budget[:1].upper()}{budget[1:]} for students. Marks: means over seeds; line: lowest to highest seed. "
        f"{columns if one_price else ''}Marks of one price are drawn side by side. The best of many methods is in part "
        "luck, as they are compared on the test set. MACs are multiply-accumulates of one image: latency "
        "depends on the device, its memory and the batch too. Controls are left out; one "
        "of them, the same student with all labels, may need no teacher at all: see the gains above."
    )


def about_slopes(by: str, null: bool) -> str:
    """How to read the chart across budgets or architectures (``by``: budget or student)."""
    places = "budget" if by == "budget" else "architecture"
    return (
        " Dot: mean over seeds; bar: lowest to highest seed; diamonds: controls; thin grey lines: methods and controls "
        f"not in colour. {'Grey boxes: as far as other initial weights alone move there. ' if null else ''}Lines "
        f"join the same method from one {places} to the next and say nothing about what lies between."
    )


def uses_in_words(networks: pl.DataFrame, method: str) -> Iterator[str]:
    """How a method is configured in this study, a line a configuration."""
    for one in differences.used_as(networks, method).iter_rows(named=True):
        asked = ", ".join(f"{name} {value}" for name, value in json.loads(one["method_parameters"]).items())
        differs = "" if one["training"] == "{}" else f"; training differs in {one['training']}"
        count = f"{one['networks']} network{'s' * (one['networks'] != 1)}"
        yield f"{one['series']}: {asked or 'no parameters'}{differs} ({count}; {one['budgets']})"


def saw_more(networks: pl.DataFrame) -> str:
    """Which networks of a cell learned from more images or labels than plain: what a gain may come from."""
    students = networks.filter(catalog.TRAINED_STUDENT)
    own = students.filter(pl.col("role") == "plain")["labelled_images"].max() or 0
    more = pl.col("labelled_images") > own
    labels = students.filter(more)["series"].unique(maintain_order=True).to_list()
    images = students.filter(pl.col("unlabelled") & ~more)["series"].unique(maintain_order=True).to_list()
    said = ""
    if images:
        said += f" From images without labels too learned: {_counted(images)}."
    if labels:
        said += f" With more labels than plain: {_counted(labels)}."
    own_recipe = students.filter(pl.col("role") == "plain")["training"].to_list()
    other = students.filter(~pl.col("training").is_in(own_recipe))
    if other.height and own_recipe:
        recipes = other["training"].unique(maintain_order=True).to_list()
        named = f" ({verbatim(recipes[0])})" if len(recipes) == 1 else ""
        said += (
            f" Trained with another recipe than plain{named}, so that a gain is of method and recipe together: "
            f"{_counted(other['series'].unique(maintain_order=True).to_list())}."
        )
    return said


def _counted(names: list[str]) -> str:
    return "; ".join(names) if len(names) <= catalog.MOST_NAMED else f"{len(names)} networks"


def slopes_limits(rows: pl.DataFrame, reaches: Collection[float]) -> tuple[float, float]:
    """Least and greatest of all seeds and of the null, with zero between them."""
    reach = max([0.0, *reaches])
    return min([-reach, *rows["lowest"]]), max([reach, *rows["highest"]])


def slopes_in_words(rows: pl.DataFrame, quantity: Quantity) -> str:
    """Where each coloured method starts and ends."""
    said = []
    for (series,), mine in rows.group_by("series", maintain_order=True):
        ends = [f"{quantity.words(row['gain'])} at {row['where']}" for row in mine.rows(named=True)]
        said.append(f"{series}: {', '.join(ends)}")
    return f"Difference from plain by place. {'; '.join(said) or 'No method is in colour'}"


def null_frame(rows: pl.DataFrame, null: Mapping[tuple[str, str], float]) -> pl.DataFrame:
    """The null's reach at each place of ``rows``: where, reach."""
    found = {
        where: null[student, budget]
        for student, budget, where in rows.select("student", "budget_id", "where").unique().rows()
        if (student, budget) in null
    }
    schema = {"where": pl.String, "reach": pl.Float64}
    return pl.DataFrame({"where": list(found), "reach": list(found.values())}, schema=schema)


def ranks_in_words(ranking: Ranking, by: str) -> str:
    """First and last of the ranks, with what their lines are."""
    rows = ranking.rows
    what = "95 % interval" if ranking.resampled else "ranks"
    ends = [
        f"{row['series']} has mean rank {row['rank']:.1f} ({what} {row['low']:.1f} to {row['high']:.1f})"
        for row in (rows.row(0, named=True), rows.row(-1, named=True))
    ]
    count = ranking.seeds
    among = f"{rows.height} of {ranking.ranked}" if rows.height < ranking.ranked else f"{rows.height}"
    return f"{among} networks ranked by {by} within {count} seed{'s' * (count != 1)}: {', '.join(ends)}"


def takeaway_of_ranks(ranking: Ranking, quantity: Quantity) -> str:
    """What a rank hides: how far the first and the last are apart."""
    best, last = (ranking.rows["mean"].max(), ranking.rows["mean"].min())
    gap = f"{best - last:.{max(quantity.digits, 1)}f}{' points' if not quantity.measure else ''}"  # type: ignore[operator]
    return f"**A rank hides how small differences are**: from the highest mean to the lowest here it is {gap} in all."


def about_ranks(ranking: Ranking) -> str:
    """What ranks tell, how sure they are, and what was left out."""
    rows, count = ranking.rows, ranking.seeds
    within = f"within each of the {count} seeds that all of them have" if count > 1 else "within one seed"
    said = [f"Networks are ranked against each other {within}; dot: mean rank. "]
    if rows.height < ranking.ranked:
        said.append(f"Ranks are among all {ranking.ranked} networks, drawn or not. ")
    if ranking.resampled:
        said.append(f"Line: 95 % interval, a bootstrap over seeds ({RANK_DRAWS:,} draws); of so few seeds it is "
                    "rather too short. ")  # fmt: skip
    elif count > 1:
        said.append(f"Line: lowest to highest rank. With fewer than {LEAST_SEEDS} seeds this is an estimate. ")
    else:
        said.append("With one seed this is an estimate, and no more than the order of that seed. ")
    if ranking.left_out:
        said.append(f"Left out, as they lack seeds that others have: {', '.join(ranking.left_out)}.")
    return "".join(said)
