"""The tables that charts of measures are drawn from: joined, matched by depth, averaged over seeds."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl

from kdpipe.app.shared import catalog
from kdpipe.app.shared.charts import depth_means
from kdpipe.artifacts.store import Study
from kdpipe.relative_depth import nearest_place
from kdpipe.vocabulary import PIXELS

MOST_CLASSES = 24


def measures_of(study: Study, of: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Registry entries of the measures that ``rows`` hold; one without an entry is named by its key."""
    known = study.measures.filter(pl.col("of") == of)
    held = rows.select("measure").unique(maintain_order=True)
    held = held.join(known, on="measure", how="left", maintain_order="left")
    return held.with_columns(
        title=pl.coalesce("title", "measure"), summary=pl.col("summary").fill_null(""),
        citation=pl.col("citation").fill_null(""), direction=pl.col("direction").fill_null("higher"),
    )  # fmt: skip


def students(scope: pl.DataFrame) -> list[str]:
    """Ids of the students, without other teachers and checkpoints."""
    return scope.filter(catalog.STUDENT)["network_id"].to_list()


def _depths(layers: pl.DataFrame) -> pl.DataFrame:
    return layers.select("network_id", "layer", "relative_depth", "order").unique()


def by_depth(rows: pl.DataFrame, scope: pl.DataFrame, layers: pl.DataFrame) -> pl.DataFrame:
    """Rows of one measure with what a curve needs: series, label, seed, relative_depth, and low and high if stored."""
    ends = [name for name in ("low", "high") if name in rows.columns]
    names = scope.select("network_id", "label", "role", "series", "seed", "rank")
    return (
        rows.join(names, on="network_id")
        .join(_depths(layers), on=["network_id", "layer"])
        .sort("rank", "series", "seed", "relative_depth")
        .select("series", "role", "label", "seed", "network_id", "layer", "relative_depth", "value", *ends, "chance")
    )


def baselines(study: Study, networks: pl.DataFrame, scope: pl.DataFrame, view: str, measure: str) -> pl.DataFrame:
    """Rows as of :func:`by_depth` for what nobody trained: the scope's students as they start, and the raw pixels."""
    students = scope.filter(catalog.STUDENT)["student"].unique().to_list()
    chosen = networks.filter(catalog.NOT_TRAINED & pl.col("student").is_in([*students, PIXELS]))
    rows = study.frame("layer_measures", network_id=chosen["network_id"].to_list(), view=view, measure=measure)
    return by_depth(rows, chosen, study.layers)


def of_networks(study: Study, scope: pl.DataFrame) -> pl.DataFrame:
    """A row a series, a column a measure of its networks: means over seeds."""
    found = study.frame("network_measures", network_id=scope["network_id"].to_list())
    return _by_series(found, scope, study, "network")


def of_answers(study: Study, scope: pl.DataFrame, other: str) -> pl.DataFrame:
    """A row a series, a column a measure of its answers against its teacher's or those of plain of its seed."""
    found = study.frame("answers", network_id=scope["network_id"].to_list())
    teachers = pl.col("other_id").is_in(study.networks.filter(pl.col("role") == "teacher")["network_id"].to_list())
    return _by_series(found.filter(teachers if other == "teacher" else ~teachers), scope, study, "answers")


def _by_series(rows: pl.DataFrame, scope: pl.DataFrame, study: Study, of: str) -> pl.DataFrame:
    if rows.is_empty():
        return pl.DataFrame()
    titles = dict(measures_of(study, of, rows).select("measure", "title").rows())
    named = rows.join(scope.select("network_id", "series", "rank"), on="network_id")
    means = named.group_by("rank", "series", "measure", maintain_order=True).agg(pl.col("value").mean())
    wide = means.pivot(on="measure", index=["rank", "series"], values="value").sort("rank", "series").drop("rank")
    return wide.rename({name: titles.get(name, name) for name in wide.columns[1:]})


def factor_curves(rows: pl.DataFrame, scope: pl.DataFrame, layers: pl.DataFrame, column: str) -> pl.DataFrame:
    """One column of the factors table as curves by depth; its chance is stored for ``explained`` alone."""
    chance = pl.col("chance") if column == "explained" else pl.lit(None, pl.Float32)
    return by_depth(rows.with_columns(value=pl.col(column), chance=chance), scope, layers)


def per_layer(curves: pl.DataFrame, ends: tuple[str, str] = ("lowest", "highest")) -> pl.DataFrame:
    """A row a layer, a column a series, mean (band) in the cell as text: the numbers of the curves."""
    shown = pl.format("{} ({} to {})", *(pl.col(name).round(3) for name in ("mean", *ends)))
    means = depth_means(curves).with_columns(depth=pl.col("relative_depth").round(3), shown=shown)
    table = means.pivot(on="series", index=["layer", "depth"], values="shown", aggregate_function="first").sort("depth")
    order = [name for name in curves["series"].unique(maintain_order=True) if name in table.columns]
    return table.select("layer", "depth", *order)


def by_class(
    rows: pl.DataFrame,
    scope: pl.DataFrame,
    layers: pl.DataFrame,
    layer: str,
    class_names: Sequence[str],
    in_colour: Collection[str],
) -> tuple[pl.DataFrame, list[str], int]:
    """Class means over seeds at one layer, the classes by gain of the methods in colour, and how many are left out."""
    ordered = catalog.layers_in_order(layers)
    reference = next(who for who in [*students(scope), *scope["network_id"]] if layer in ordered.get(who, []))
    place, count = ordered[reference].index(layer), len(ordered[reference])
    matched = [
        (who, ordered[who][nearest_place(place, count, len(ordered[who]))])
        for who in scope["network_id"]
        if who in ordered
    ]
    near = pl.DataFrame(matched, schema={"network_id": pl.String, "layer": pl.String}, orient="row")
    names = pl.DataFrame({"label": range(len(class_names)), "class_name": list(class_names)}).cast({"label": pl.Int32})
    series, value = scope.select("network_id", "series", "role", "rank"), pl.col("value")
    values = (
        rows.join(near, on=["network_id", "layer"]).join(series, on="network_id").join(names, on="label", how="left")
        .group_by("class_name", "label", "rank", "role", "series")
        .agg(value=value.mean(), lowest=value.min(), highest=value.max(), seeds=pl.len())
        .sort("rank", "series", "label")
    )  # fmt: skip
    seen = pl.col("series").is_in(list(in_colour))
    mean = {role: pl.col("value").filter(seen & (pl.col("role") == role)).mean() for role in ("distilled", "plain")}
    gains = values.group_by("class_name").agg(gain=mean["distilled"] - mean["plain"], first=pl.col("label").first())
    order = gains.sort("gain", "first", descending=[True, False], nulls_last=True)["class_name"].to_list()
    left_out = max(0, len(order) - MOST_CLASSES)
    if left_out:
        order = order[: MOST_CLASSES // 2] + order[-MOST_CLASSES // 2 :]
    return values.filter(pl.col("class_name").is_in(order)) if left_out else values, order, left_out


def to_teacher(similarity: pl.DataFrame, scope: pl.DataFrame) -> pl.DataFrame:
    """Layer pairs with a teacher of the study, the teacher always on the far side."""
    teachers = scope.filter(pl.col("role") == "teacher")["network_id"].to_list()
    swapped = similarity.filter(pl.col("network_id").is_in(teachers) & ~pl.col("other_id").is_in(teachers))
    swapped = swapped.rename(
        {"network_id": "other_id", "other_id": "network_id", "layer": "other_layer", "other_layer": "layer"}
    ).select(similarity.columns)
    pairs = pl.concat([similarity, swapped])
    others = scope.filter(pl.col("role") != "teacher")["network_id"].to_list()
    return pairs.filter(pl.col("network_id").is_in(others) & pl.col("other_id").is_in(teachers))


def matching_depth(pairs: pl.DataFrame, scope: pl.DataFrame, layers: pl.DataFrame) -> pl.DataFrame:
    """Each layer of a network against the teacher's layer nearest in depth (earlier on ties), as curves by depth."""
    ordered = catalog.layers_in_order(layers)
    teachers = pairs.select("network_id", "other_id").unique().sort("network_id", "other_id")
    matched = [
        (who, layer, teacher, ordered[teacher][nearest_place(i, len(ordered[who]), len(ordered[teacher]))])
        for who, teacher in teachers.unique("network_id", keep="first", maintain_order=True).rows()
        for i, layer in enumerate(ordered.get(who, []))
        if teacher in ordered
    ]
    keys = ["network_id", "layer", "other_id", "other_layer"]
    nearest = pl.DataFrame(matched, schema=dict.fromkeys(keys, pl.String), orient="row")
    return by_depth(pairs.join(nearest, on=keys, how="semi"), scope, layers)


def heat(
    pairs: pl.DataFrame, scope: pl.DataFrame, layers: pl.DataFrame, label: str
) -> tuple[pl.DataFrame, list[str], list[str]]:
    """Layer pairs of one network with the teacher, and both sides' layers in order of depth."""
    network_id = scope.row(by_predicate=pl.col("label") == label, named=True)["network_id"]
    mine = pairs.filter(pl.col("network_id") == network_id)
    teacher_id = mine["other_id"][0]
    depths = _depths(layers)
    rows, columns = (
        depths.filter(pl.col("network_id") == who).sort("order")["layer"].to_list() for who in (network_id, teacher_id)
    )
    drawn = mine.filter(pl.col("other_id") == teacher_id).select("layer", "value", teacher_layer="other_layer")
    return drawn, rows, columns
