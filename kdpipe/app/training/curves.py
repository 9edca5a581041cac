"""How networks were trained: curves over steps, and where the time went. Frames in, frames and charts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from kdpipe.app.shared import catalog
from kdpipe.app.shared.charts import CANVAS, Layered, fitting_columns, series_colour
from kdpipe.app.shared.in_words import hardware_in_words
from kdpipe.app.shell.theme import GREY, PETROFF
from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import CHECKPOINT, UNTRAINED

ACCURACIES = {"val_accuracy": "validation accuracy", "train_accuracy": "training accuracy"}
PARTS = {
    "data": "reading and changing images",
    "teacher": "the teacher's answers",
    "student": "the students, forward and backward",
    "loss": "the method's loss",
}
# Blue and orange as elsewhere; none of them is a method's here.
_PART_COLOURS = dict(zip(PARTS, (PETROFF[9], PETROFF[8], PETROFF[0], PETROFF[1]), strict=True))
_TERMS = tuple(PETROFF[at] for at in (4, 1, 2, 5, 9, 6))  # without plain's colour
_CE = PETROFF[7]  # cross entropy has one colour with every method
NAMES = alt.ExprRef("containerSize()[0] < 600 ? 120 : 320")
WIDE = alt.ExprRef("containerSize()[0] < 600 ? 260 : 600")
_PLAIN = "format(datum.value, abs(datum.value) >= 1000 ? '.3~s' : '.3~g')"


# ---------------------------------------------------------------------------------------- curves


def over_steps(history: pl.DataFrame, scope: pl.DataFrame) -> pl.DataFrame:
    """Rows of one quantity or several with what they are called, a row a network and step.

    Returns:
        network_id, series, label, role, seed, status, diverged_step, step, quantity, value.
    """
    names = scope.select("network_id", "series", "label", "role", "seed", "status", "diverged_step", "rank")
    columns = ("network_id", "series", "label", "role", "seed", "status", "diverged_step", "step", "quantity", "value")
    return history.join(names, on="network_id").sort("rank", "series", "seed", "step").select(columns)


def means(lines: pl.DataFrame) -> pl.DataFrame:
    """Mean, lowest and highest over the seeds of each series at each step, without networks that diverged.

    A step that some seed of a series lacks is left out, as its mean would be of other networks than the last.
    """
    done = lines.filter(pl.col("status") == "trained")
    seeds = done.group_by("series").agg(all=pl.col("network_id").n_unique())
    value = pl.col("value")
    found = done.group_by("series", "role", "quantity", "step", maintain_order=True).agg(
        mean=value.mean(), lowest=value.min(), highest=value.max(), seeds=pl.len()
    )
    whole = found.join(seeds, on="series", maintain_order="left")
    return whole.filter(pl.col("seeds") == pl.col("all")).drop("all").sort("series", "quantity", "step")


def ends(lines: pl.DataFrame) -> pl.DataFrame:
    """The last finite row of each network that diverged: where its line breaks off."""
    lost = lines.filter((pl.col("status") == "diverged") & pl.col("value").is_finite())
    return lost.group_by("network_id", "quantity", maintain_order=True).last()


def accuracy_chart(lines: pl.DataFrame, colours: Mapping[str, str], title: str, each: bool = False) -> Layered:
    """One accuracy over training steps: mean over seeds in its range; crosses where a network diverged.

    Args:
        lines: rows of :func:`over_steps`, of one quantity.
        each: a line for each network instead of mean and range.
    """
    middle, lost = means(lines), lines.filter(pl.col("status") == "diverged")
    known = pl.col("series").is_in(list(colours))
    x = alt.X("step:Q", title="training step", axis=alt.Axis(tickCount=6))
    y: dict[str, Any] = {
        "title": title, "scale": alt.Scale(zero=False), "axis": alt.Axis(format=".0%", tickCount=6),
    }  # fmt: skip
    colour = series_colour(colours, lines.filter(known)["series"].to_list())
    tooltip: list[Any] = [alt.Tooltip("series:N", title="network"), alt.Tooltip("step:Q")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".1%") for name in ("mean", "lowest", "highest")]
    one = [alt.Tooltip("label:N"), alt.Tooltip("step:Q"), alt.Tooltip("value:Q", format=".1%")]
    layers: list[Any] = []
    if (context := middle.filter(~known)).height:
        grey = alt.Chart(context).mark_line(strokeWidth=1, opacity=0.5, color=GREY)
        layers.append(
            grey.encode(
                x=x, y=alt.Y("mean:Q", **y), detail=alt.Detail("series:N"), tooltip=[*tooltip, alt.Tooltip("seeds:Q")]
            )
        )
    if each:
        drawn = alt.Chart(lines.filter(known & (pl.col("status") == "trained")))
        drawn = drawn.mark_line(strokeWidth=1.4, opacity=0.8)
        layers.append(
            drawn.encode(x=x, y=alt.Y("value:Q", **y), color=colour, detail=alt.Detail("network_id:N"), tooltip=one)
        )
    else:
        base = alt.Chart(middle.filter(known)).encode(x=x, color=colour)
        layers.append(base.mark_area(opacity=0.18).encode(y=alt.Y("lowest:Q", **y), y2=alt.Y2("highest:Q")))
        line = base.mark_line(strokeWidth=2.2)
        layers.append(line.encode(y=alt.Y("mean:Q", **y), tooltip=[*tooltip, alt.Tooltip("seeds:Q")]))
    # A mark's own colour joins no legend, so lost networks are drawn colour by colour.
    shade = pl.col("series").replace_strict(dict(colours), default=GREY, return_dtype=pl.String)
    for (paint,), mine in lost.group_by(shade.alias("shade"), maintain_order=True):
        of: dict[str, Any] = {"x": x, "y": alt.Y("value:Q", **y), "detail": "network_id:N"}
        broken = alt.Chart(mine).mark_line(strokeWidth=1.4, strokeDash=[4, 3], color=str(paint))
        cross = alt.Chart(ends(mine)).mark_point(shape="cross", angle=45, size=110, filled=True, color=str(paint))
        layers += [
            broken.encode(**of, tooltip=one),
            cross.encode(**of, tooltip=[alt.Tooltip("label:N"), alt.Tooltip("diverged_step:Q")]),
        ]
    return alt.layer(*layers).properties(height=400, usermeta=CANVAS)


def accuracy_in_words(lines: pl.DataFrame, colours: Mapping[str, str], title: str) -> str:
    """The last value of each coloured curve, for those who cannot see it."""
    last = means(lines).filter(pl.col("series").is_in(list(colours))).group_by("series", maintain_order=True).last()
    said = "; ".join(f"{row['series']} {row['mean']:.1%} at step {row['step']}" for row in last.rows(named=True))
    lost = lines.filter(pl.col("status") == "diverged")["network_id"].n_unique()
    return f"{title} over training steps. {said or 'No network in colour was trained to the end'}" + (
        f". {lost} network{'s' * (lost != 1)} diverged" if lost else ""
    )


# ----------------------------------------------------------------------------------- loss terms


def terms(lines: pl.DataFrame) -> pl.DataFrame:
    """Terms of the loss of one series, as rows of :func:`means` with a name: term."""
    kept = lines.filter(pl.col("quantity").str.starts_with("loss") & pl.col("value").is_finite())
    lost_alone = kept.filter(pl.col("status") == "trained").is_empty()
    found = means(kept.with_columns(status=pl.lit("trained")) if lost_alone else kept)
    name = pl.when(pl.col("quantity") == "loss").then(pl.lit("whole loss"))
    return found.with_columns(term=name.otherwise(pl.col("quantity").str.strip_prefix("loss/")))


def term_chart(rows: pl.DataFrame, stacked: bool, logarithmic: bool) -> Layered:
    """Terms of a loss over steps, as lines in their seeds' range, or stacked to the whole.

    Args:
        rows: of :func:`terms`.
        logarithmic: lines alone, and only where all is above 0.
    """
    parts = rows.filter(pl.col("term") != "whole loss")["term"].unique(maintain_order=True).to_list()
    x = alt.X("step:Q", title="training step", axis=alt.Axis(tickCount=6))
    tooltip: list[Any] = [
        alt.Tooltip("term:N"),
        alt.Tooltip("step:Q"),
        *(alt.Tooltip(f"{n}:Q", format=".4g") for n in ("mean", "lowest")),
    ]
    tooltip += [alt.Tooltip("highest:Q", format=".4g"), alt.Tooltip("seeds:Q")]
    names = [*parts] if stacked else ["whole loss", *parts]
    others = [part for part in parts if part != "ce"]
    shades = [_CE if part == "ce" else _TERMS[others.index(part) % len(_TERMS)] for part in parts]
    scale = alt.Scale(domain=names, range=shades if stacked else [GREY, *shades])
    legend = alt.Legend(orient="top", title=None, symbolOpacity=1, columns=fitting_columns(names, 780))
    colour = alt.Color("term:N", scale=scale, legend=legend)
    title = "loss as weighted"
    if stacked:
        base = alt.Chart(rows.filter(pl.col("term").is_in(parts))).encode(x=x, color=colour, tooltip=tooltip)
        axis = alt.Axis(labelExpr=_PLAIN, tickCount=6)
        drawn: Any = base.mark_area(opacity=0.85).encode(y=alt.Y("mean:Q", stack="zero", title=title, axis=axis))
        return alt.layer(drawn).properties(height=380, usermeta=CANVAS)
    bend = alt.Scale(type="log", nice=False) if logarithmic else alt.Scale(zero=False)
    y: dict[str, Any] = {"title": title, "scale": bend, "axis": alt.Axis(labelExpr=_PLAIN, tickCount=6)}
    whole = pl.col("term") == "whole loss"
    base, sum_of = (alt.Chart(rows.filter(part)).encode(x=x, color=colour) for part in (~whole, whole))
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("lowest:Q", **y), y2=alt.Y2("highest:Q"))
    line = base.mark_line(strokeWidth=2.2).encode(y=alt.Y("mean:Q", **y), tooltip=tooltip)
    dashed = sum_of.mark_line(strokeWidth=2.2, strokeDash=[5, 4]).encode(y=alt.Y("mean:Q", **y), tooltip=tooltip)
    return alt.layer(band, line, dashed).properties(height=380, usermeta=CANVAS)


def terms_in_words(rows: pl.DataFrame, series: str) -> str:
    """First and last value of each term."""
    found = rows.sort("step").group_by("term", maintain_order=True).agg(
        first=pl.col("mean").first(), last=pl.col("mean").last()
    )  # fmt: skip
    said = "; ".join(f"{term} from {first:.3g} to {last:.3g}" for term, first, last in found.rows())
    return f"Terms of the loss of {series} over training steps: {said}"


# ----------------------------------------------------------------------------------- schedules


def schedules(lines: pl.DataFrame) -> pl.DataFrame:
    """Learning rates over steps, each schedule once: schedule (who follows it), step, value, networks."""
    order = lines.group_by("network_id", maintain_order=True).agg("step", pl.col("value"), pl.col("series").first())
    groups: dict[tuple[Any, ...], list[str]] = {}
    for row in order.iter_rows(named=True):
        key = (tuple(row["step"]), tuple(round(value, 9) for value in row["value"]))
        groups.setdefault(key, []).append(row["series"])
    # A network that diverged follows the start of a schedule: it is no schedule of its own.
    whole = [key for key in groups if not any(_begins(key, other) for other in groups if other != key)]
    rows = []
    for key in whole:
        names = [name for other, followers in groups.items() if other == key or _begins(other, key)
                 for name in followers]  # fmt: skip
        name = listed(list(dict.fromkeys(names)))
        rows += [
            {"schedule": name, "step": step, "value": value, "networks": len(names)}
            for step, value in zip(*key, strict=True)
        ]
    return pl.DataFrame(rows)


def _begins(short: tuple[Any, ...], long: tuple[Any, ...]) -> bool:
    count = len(short[0])
    return count < len(long[0]) and short[0] == long[0][:count] and short[1] == long[1][:count]


def listed(names: Sequence[str]) -> str:
    """One name or two, or the first and how many others; names hold commas, so none stands between them."""
    return " + ".join(names) if len(names) < 3 else f"{names[0]} + {len(names) - 1} others"


def schedule_chart(rows: pl.DataFrame) -> Layered:
    """A line a schedule, told apart by its dashes and its legend."""
    names = rows["schedule"].unique(maintain_order=True).to_list()
    dashes = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 4]]
    scale = alt.Scale(domain=names, range=[dashes[at % len(dashes)] for at in range(len(names))])
    legend = alt.Legend(
        orient="top", title=None, labelLimit=WIDE, symbolStrokeColor=GREY, symbolSize=1200,
        columns=fitting_columns(names, 780),
    )  # fmt: skip
    drawn = alt.Chart(rows).mark_line(strokeWidth=1.8, color=GREY).encode(  # of no network: grey
        x=alt.X("step:Q", title="training step", axis=alt.Axis(tickCount=6)),
        y=alt.Y("value:Q", title="learning rate", axis=alt.Axis(labelExpr=_PLAIN, tickCount=5)),
        strokeDash=alt.StrokeDash("schedule:N", scale=scale, legend=legend),
        tooltip=[alt.Tooltip("schedule:N"), alt.Tooltip("networks:Q"), alt.Tooltip("step:Q"),
                 alt.Tooltip("value:Q", format=".3g")],
    )  # fmt: skip
    return alt.layer(drawn).properties(height=280, usermeta=CANVAS)


# ------------------------------------------------------------------------------------ throughput


def speeds(study: Study, scope: pl.DataFrame) -> pl.DataFrame:
    """How fast each trained network's group was, a row a network; empty where nothing was timed.

    Returns:
        network_id, series, budget, seed, group (who trained together), together, steps, seconds, steps_per_second,
        images_per_second, hardware, data, teacher, student, loss (shares; empty for older timings).
    """
    timed: Mapping[str, Mapping[str, Any]] = study.timings.get("training") or {}
    own = scope.filter(~pl.col("role").is_in([CHECKPOINT, UNTRAINED]))
    own = own.sort((pl.col("role") != "distilled").cast(pl.Int8), maintain_order=True)  # methods name their group
    rows = []
    for row in own.select("network_id", "series", "budget", "seed").iter_rows(named=True):
        speed = timed.get(row["network_id"]) or {}
        if not speed.get("steps") or not speed.get("seconds"):
            continue  # an untrained teacher, or one that was trained elsewhere
        shares = speed.get("shares") or {}
        together = int(speed.get("students_together") or 1)
        rows.append(
            {
                **row, "together": together, "steps": int(speed["steps"]), "seconds": float(speed["seconds"]),
                "steps_per_second": speed["steps"] / speed["seconds"],
                "images_per_second": speed.get("images_per_second"),
                "hardware": hardware_in_words([speed]), **{part: shares.get(part) for part in PARTS},
                "split": bool(shares),
            }
        )  # fmt: skip
    if not rows:
        return pl.DataFrame()
    real = dict.fromkeys(("images_per_second", *PARTS), pl.Float64)
    found = pl.DataFrame(rows, schema_overrides=real, infer_schema_length=None)
    # Who trained together was on one clock, to the last digit.
    mates = pl.col("series").unique(maintain_order=True).implode().over("seconds", "steps", "together")
    groups_of = [listed(names) for names in found.select(mates).to_series().to_list()]
    return found.with_columns(group=pl.Series(groups_of, dtype=pl.String))


def groups(found: pl.DataFrame) -> pl.DataFrame:
    """:func:`speeds` by who trained together: means over groups of the same make-up, with the slowest and fastest."""
    speed, images = pl.col("steps_per_second"), pl.col("images_per_second")
    one = found.unique(["seconds", "steps", "together"], keep="first", maintain_order=True)
    return one.group_by("group", "together", "hardware", maintain_order=True).agg(
        groups=pl.len(), steps=pl.col("steps").first(), minutes=pl.col("seconds").mean() / 60,
        steps_per_second=speed.mean(), slowest=speed.min(), fastest=speed.max(), images_per_second=images.mean(),
        split=pl.col("split").any(), **{part: pl.col(part).mean() for part in PARTS},
    )  # fmt: skip


def share_rows(kinds: pl.DataFrame) -> pl.DataFrame:
    """Shares of the time in long form, of groups that recorded them: name, part, what, share, place, together."""
    split = kinds.filter("split").with_columns(name=name_of_group())
    split = split.group_by("name", "together", maintain_order=True).agg(pl.col(*PARTS, "steps_per_second").mean())
    long = split.unpivot(list(PARTS), index=["name", "together", "steps_per_second"], variable_name="part",
                         value_name="share")  # fmt: skip
    return long.with_columns(
        pl.col("share").fill_null(0.0),  # a network that learned from no teacher spent nothing on one
        what=pl.col("part").replace_strict(PARTS),
        place=pl.col("part").replace_strict({p: i for i, p in enumerate(PARTS)}),
    )


def name_of_group() -> pl.Expr:
    """What a group is called: who is in it, and how many trained at once where the others are not shown."""
    many = pl.format("{} ({} at once)", "group", "together")
    return pl.when(pl.col("together") > 1).then(many).otherwise("group")


def share_bars(rows: pl.DataFrame) -> Layered:
    """A bar a group, split by what took the time."""
    order = rows["name"].unique(maintain_order=True).to_list()
    scale = alt.Scale(domain=list(PARTS.values()), range=list(_PART_COLOURS.values()))
    legend = alt.Legend(orient="top", title=None, columns=fitting_columns(list(PARTS.values()), 780), labelLimit=300)
    bars = alt.Chart(rows).mark_bar().encode(
        y=alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=NAMES, labelOverlap=False)),
        x=alt.X("share:Q", stack="normalize", title="share of the time", axis=alt.Axis(format=".0%", tickCount=5)),
        color=alt.Color("what:N", scale=scale, legend=legend),
        order=alt.Order("place:Q"),
        tooltip=[alt.Tooltip("name:N"), alt.Tooltip("what:N"), alt.Tooltip("share:Q", format=".1%")],
    )  # fmt: skip
    return alt.layer(bars).properties(height=175 + 26 * len(order), usermeta=CANVAS)


def shares_in_words(rows: pl.DataFrame) -> str:
    """What takes most of the time in each group."""
    top = rows.sort("share", descending=True).group_by("name", maintain_order=True).first().head(4)
    said = "; ".join(f"{row['name']}: {row['share']:.0%} for {row['what']}" for row in top.rows(named=True))
    return f"Shares of training time by group. {said}"


def diverged_in_words(scope: pl.DataFrame, lines: pl.DataFrame) -> str:
    """Networks that broke off, named where they are few, and whether ``lines`` show where."""
    lost = scope.filter(pl.col("status") == "diverged")
    drawn = ends(lines)["network_id"].to_list()
    said = ""
    for seen in (True, False):
        part = lost.filter(pl.col("network_id").is_in(drawn) == seen)
        named = [f"{label} at step {step}" for label, step in part.select("label", "diverged_step").rows()]
        which = "; ".join(named) if len(named) <= catalog.MOST_NAMED else f"{len(named)} networks"
        if named and seen:
            said += f"Crosses on dashed lines: where a network's loss was no longer finite ({which}). "
        elif named:
            said += f"Diverged before its first point here: {which}. "
    return said
