"""What changes if a student takes its teacher's place: accuracy, size, and how far its confidence can be relied on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import streamlit as st

from kdpipe.app.flips import calibration
from kdpipe.app.flips.outcomes import Comparison
from kdpipe.app.shared import catalog
from kdpipe.app.shared.in_words import short
from kdpipe.app.shell import page
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study


@dataclass(frozen=True)
class Tile:
    """One quantity of the student, and in words how it differs from the teacher's."""

    name: str
    value: str
    difference: str
    teacher: str
    spread: str = ""  # from the lowest seed to the highest


def tiles(study: Study, networks: pl.DataFrame, compared: Comparison) -> list[Tile]:
    """Accuracy, multiply-adds, parameters and calibration error of the student, each with its teacher's."""
    own = networks.filter(pl.col("network_id").is_in(compared.own["network_id"].to_list()))
    teacher = networks.filter(pl.col("network_id").is_in(compared.own["teacher_id"].to_list()))
    found = []
    if own["test_accuracy"].count() and teacher["test_accuracy"].count():
        values = 100 * own["test_accuracy"].cast(pl.Float64).drop_nulls()
        other = 100 * float(np.mean(teacher["test_accuracy"].drop_nulls().to_numpy()))
        mean = float(np.mean(values.to_numpy()))
        ends = np.quantile(values.to_numpy(), [0, 1])
        spread = f"{ends[0]:.1f} to {ends[1]:.1f} %" if len(values) > 1 else ""
        found.append(Tile("Test accuracy", f"{mean:.1f} %", f"{mean - other:+.1f} points", f"{other:.1f} %", spread))
    for column, name in (("macs", "Multiply-adds an image"), ("params", "Parameters")):
        if (own[column] > 0).any() and (teacher[column] > 0).any():  # of vectors made elsewhere nobody knows them
            mine, others = (float(np.mean(frame[column].drop_nulls().to_numpy())) for frame in (own, teacher))
            found.append(Tile(name, short(mine), times(mine, others), short(others)))
    errors = {row["series"]: row for row in calibration.errors(study, calibration.named(compared)).rows(named=True)}
    row, alone = errors.get(compared.series), errors.get("teacher")
    if row and alone and None not in (row["mean"], alone["mean"]):
        difference = f"{row['mean'] - alone['mean']:+.3f}"
        spread = f"{row['lowest']:.3f} to {row['highest']:.3f}" if row["seeds"] > 1 else ""
        found.append(Tile("Calibration error", f"{row['mean']:.3f}", difference, f"{alone['mean']:.3f}", spread))
    return found


def in_words(found: list[Tile]) -> str:
    """What the teacher has, and how far seeds differ."""
    said = [f"The teacher's: {', '.join(f'{tile.name.lower()} {tile.teacher}' for tile in found)}."]
    spreads = [f"{tile.name.lower()} {tile.spread}" for tile in found if tile.spread]
    said += [f"From the lowest seed to the highest: {', '.join(spreads)}."] if spreads else []
    if any(tile.name == "Calibration error" for tile in found):
        said.append("Accuracy is on all test images; the calibration error is the expected one, on the probe images.")
    return " ".join(said)


def times(mine: float, other: float) -> str:
    """``6.2 times fewer``; of equal counts ``as many``."""
    if 0.99 < mine / other < 1.01:
        return "as many"
    return f"{other / mine:.3g} times fewer" if mine < other else f"{mine / other:.3g} times more"


def show(found: list[Tile]) -> None:
    """The tiles side by side."""
    for place, tile in zip(st.columns(len(found)), found, strict=True):
        place.metric(tile.name, tile.value, tile.difference, delta_color="off", delta_arrow="off", border=True)


def rivals(networks: pl.DataFrame, compared: Comparison) -> str:
    """What the same student reaches without this teacher: on its labels, on those of all images, on the most.

    A budget is what a method may see of labels; a control that is told more has more, so labels are counted.
    """
    student = networks.filter(network_id=compared.own["network_id"][0])["student"][0]
    mine = networks.filter(catalog.TRAINED_STUDENT & (pl.col("student") == student))
    fraction = mine.filter(pl.col("budget") == compared.budget)["label_fraction"].max()
    here, more = pl.col("budget") == compared.budget, pl.col("label_fraction") > fraction
    plain = pl.col("role") == "plain"
    shown = [mine.filter(plain & here), mine.filter(here & (pl.col("method") == "supervised-on-the-same-images"))]
    largest = mine.filter(plain & more)
    shown.append(largest.filter(pl.col("label_fraction") == pl.col("label_fraction").max()))
    said = []
    for frame in shown:
        labels = max(frame["labelled_images"].to_list(), default=0)
        for row in catalog.accuracies(frame).rows(named=True):
            if row["series"] != compared.series:
                said.append(f"{row['series']} ({labels:,} labels) {_accuracy(row)}")
    used = max(mine.filter(here & (pl.col("series") == compared.series))["labelled_images"].to_list(), default=0)
    own = f" ({used:,} labels itself)" if used else ""
    return f"Students without this teacher, to compare with {compared.series}{own}: {'; '.join(said)}." if said else ""


def _accuracy(row: dict[str, Any]) -> str:
    spread = f" ({100 * row['lowest']:.1f} to {100 * row['highest']:.1f})" if row["seeds"] > 1 else ""
    return f"{100 * row['mean']:.1f} %{spread}"


def section(study: Study, compared: Comparison, networks: pl.DataFrame) -> None:
    """What changes if the student takes its teacher's place, and what the same student reaches without a teacher."""
    found = tiles(study, networks, compared)
    if not found:
        return
    st.subheader("In the teacher's place", anchor="trade")
    show(found)
    page.notes(
        f"{verbatim(compared.series)} on {compared.budget}, mean of {compared.seeds} "
        f"seed{'s' * (compared.seeds != 1)}; below each number, how it differs from the teacher's. "
        f"{verbatim(rivals(networks, compared))}",
        in_words(found),
    )
    st.markdown("Means can hide a class that suffers: see [the slices you would lose](#slices).")
