"""The section of a card about slices: where a student is worse than the network whose place it would take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from kdpipe.artifacts.store import Study
from kdpipe.vocabulary import ALL_IMAGES, CLASS_SLICE, REPLACES

SHOWN = 8  # slices a table
_QUARTERS = ("lowest", "second", "third", "highest")


def slices_lost(study: Study, row: Mapping[str, Any]) -> str:
    """Slices on which the network lost, at its seed, held against its teacher and against plain."""
    found = study.frame("slices", student=row["student"], method_label=row["method_label"], budget_id=row["budget_id"])
    found = found.filter(pl.col("seed") == row["seed"])
    if not found.height or row["checkpoint_of"] is not None:
        return ""
    images = study.record["data"]["probe"]
    text = (
        f"## Slices lost\n\nClasses, and quarters of the {images:,} probe images by what is known of them, on which it "
        "is less accurate than the network that it would replace, beyond chance over all slices (Benjamini and "
        "Hochberg, 5 %)."
    )
    parts = [_against(study, found.filter(replaces=replaced), replaced) for replaced in REPLACES]
    return "\n\n".join([text, *filter(None, parts)])


def _against(study: Study, found: pl.DataFrame, replaced: str) -> str:
    if not found.height:
        return ""
    who = {"teacher": "its teacher", "plain": "the same student without distillation"}[replaced]
    whole = found.filter(kind=ALL_IMAGES).rows(named=True)
    said = f"**In place of {who}**"
    if whole:
        said += f", over all: {_difference(whole[0])}."
    lost = found.filter(pl.col("marked"), pl.col("difference") < 0, pl.col("kind") != ALL_IMAGES).sort("difference")
    if not lost.height:
        return f"{said} No slice is lost beyond chance."
    lines = ["| slice | images | accuracy | instead of | points, 95 % interval |", "|---|--:|--:|--:|--:|"]
    for one in lost.head(SHOWN).iter_rows(named=True):
        name = f"**{_name(study, one)}**" if one["worst"] else _name(study, one)
        shares = f"{one['accuracy']:.1f} % | {one['base_accuracy']:.1f} %"
        lines.append(f"| {name} | {one['images']:,} | {shares} | {_difference(one)} |")
    more = f"\n\n{lost.height - SHOWN} more slices are lost." if lost.height > SHOWN else ""
    bold = (
        "\n\nBold: lost by more than the rest of the images, beyond chance." if lost.head(SHOWN)["worst"].any() else ""
    )
    return f"{said}\n\n" + "\n".join(lines) + more + bold


def _name(study: Study, row: Mapping[str, Any]) -> str:
    if row["kind"] == CLASS_SLICE:
        return str(study.record["data"]["class_names"][row["part"]])
    return f"{row['kind'].replace('_', ' ')}, {_QUARTERS[row['part']]} quarter"


def _difference(row: Mapping[str, Any]) -> str:
    return f"{row['difference']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"
