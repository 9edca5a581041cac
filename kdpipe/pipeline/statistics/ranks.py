"""How methods rank against each other within seeds, with a bootstrap over seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from kdpipe.pipeline.statistics.groups import CELL, TRAINED, Frames, placed, second_start, typed
from kdpipe.vocabulary import CONTROL, ENDPOINTS, LEAST_SEEDS, LEVEL, LEVEL_ITSELF, RANK_DRAWS, TEST_ACCURACY


@dataclass(frozen=True)
class Ranking:
    """Mean ranks over seeds, and what they are of.

    Attributes:
        rows: method_label, rank (mean over seeds; 1 is the best), low, high, best, worst, mean (of the value); the
            best first. low and high are empty where too few seeds were there for an interval.
        seeds: those that everything that is ranked has.
        left_out: what lacks too many seeds to be ranked.
    """

    rows: pl.DataFrame
    seeds: list[int]
    left_out: list[str]


def ranking(each: pl.DataFrame) -> Ranking:
    """Rank every method within each seed, the highest value first (ties share their mean rank).

    The interval is the percentile bootstrap over seeds (2,000 draws, seeded), all methods in the same draws. Below
    the least number of seeds of a verdict it would claim too much, so there is none.

    Args:
        each: method_label, seed and value, of one student and budget.
    """
    known = each.drop_nulls(["seed", "value"])
    kept, seeds = _shared_seeds(known)
    left_out = [name for name in each["method_label"].unique(maintain_order=True) if name not in kept]
    inside = known.filter(pl.col("method_label").is_in(kept) & pl.col("seed").is_in(seeds))
    ranked = inside.with_columns(rank=pl.col("value").rank("average", descending=True).over("seed"))
    wide = ranked.sort("seed").group_by("method_label", maintain_order=True).agg("rank", mean=pl.col("value").mean())
    if wide.is_empty():
        return Ranking(pl.DataFrame(), [], left_out)
    table = np.array(wide["rank"].to_list(), dtype=np.float64)  # methods, seeds
    low, high = _interval(table) if len(seeds) >= LEAST_SEEDS else ([None] * len(table),) * 2
    rows = pl.DataFrame(
        {
            "method_label": wide["method_label"], "rank": table.mean(axis=1), "low": low, "high": high,
            "best": table.min(axis=1), "worst": table.max(axis=1), "mean": wide["mean"],
        },
        schema_overrides={"low": pl.Float64, "high": pl.Float64},
    )  # fmt: skip
    return Ranking(rows.sort("rank", "method_label"), seeds, left_out)


def _shared_seeds(known: pl.DataFrame) -> tuple[list[str], list[int]]:
    """Who is ranked, and at which seeds.

    A seed is given up for a method that has at least half of them, unless none would be left.
    """
    grouped = known.group_by("method_label", maintain_order=True).agg("seed")
    seeds_of = {name: set(seeds) for name, seeds in grouped.rows()}
    most = max(map(len, seeds_of.values()), default=0)
    kept, seeds = list[str](), list[int]()
    for least in (-(-most // 2), most):
        kept = [name for name, seeds in seeds_of.items() if len(seeds) >= least]
        seeds = sorted(set.intersection(*(seeds_of[name] for name in kept))) if kept else []
        if len(seeds) >= min(most, 2):
            break
    return kept, seeds


def _interval(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seeds = table.shape[1]
    drawn = np.random.default_rng(0).integers(0, seeds, (RANK_DRAWS, seeds))
    ends = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    low, high = np.percentile(table[:, drawn].mean(axis=2), ends, axis=1)
    return low, high


def ranks_table(frames: Frames, gains: pl.DataFrame) -> pl.DataFrame:
    """Ranks of each student and budget by test accuracy and by both early areas, with controls and without."""
    students = (
        frames["networks"].filter(TRAINED).with_columns(ranked=(pl.col("role") != CONTROL) | second_start(frames))
    )
    rows: list[dict[str, Any]] = []
    for (student, budget), cell in students.group_by(CELL, maintain_order=True):
        mine = gains.filter(student=student, budget_id=budget)
        fraction = cell["label_fraction"][0]
        for measure, quantity, each in _ranked_values(cell, mine):
            of_methods = cell.filter("ranked")["method_label"].unique().to_list()
            for controls in (False, True):
                chosen = each if controls else each.filter(pl.col("method_label").is_in(of_methods))
                of = {"measure": measure, "quantity": quantity, "with_controls": controls}
                rows += [
                    {**placed(student, row["method_label"], budget, fraction), **of, **row}
                    for row in _rows(ranking(chosen))
                ]
    return typed("method_ranks", rows)


def _ranked_values(cell: pl.DataFrame, gains: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """What is ranked in a cell, a row a seed: accuracy in %, and early areas over plain (plain's own is 0)."""
    accuracy = cell.drop_nulls("test_accuracy")
    value = 100 * pl.col("test_accuracy").cast(pl.Float64)
    levels = accuracy.select("method_label", "seed", value=value)
    yield TEST_ACCURACY, LEVEL_ITSELF, levels
    for measure in ENDPOINTS:
        mine = gains.filter(measure=measure, quantity="early_abc")
        if mine.is_empty():
            continue
        each = [
            (label, seed, value)
            for label, seeds, values in mine.select("method_label", "seeds", "per_seed").iter_rows()
            for seed, value in zip(seeds or [None] * len(values), values, strict=True)
        ]
        found = pl.DataFrame(each, schema=levels.schema, orient="row")
        plain = cell.filter((pl.col("role") == "plain") & pl.col("seed").is_in(found["seed"].drop_nulls().to_list()))
        zero = plain.unique("seed", keep="first", maintain_order=True).select("method_label", "seed", value=pl.lit(0.0))
        yield measure, "early_abc", pl.concat([found, zero])


def _rows(found: Ranking) -> Iterator[dict[str, Any]]:
    for row in found.rows.iter_rows(named=True):
        yield {**row, "seeds": len(found.seeds)}
    for name in found.left_out:
        yield {"method_label": name, "seeds": len(found.seeds)}
