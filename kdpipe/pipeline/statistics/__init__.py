"""Statistics of a whole study, from its tables alone: what pages draw and do not compute.

A number belongs here if somebody could ask how it was made: where something was drawn anew, tested, corrected,
estimated with an interval, or counted against chance. What stays with a page is arithmetic over the numbers that it
shows (a mean, a range, a difference, a share), geometry of a picture, and what only its visitor can settle.
"""

from __future__ import annotations

import polars as pl

from kdpipe.pipeline.statistics.calibration import calibration_table
from kdpipe.pipeline.statistics.gains import gains_table
from kdpipe.pipeline.statistics.groups import Frames
from kdpipe.pipeline.statistics.ranks import ranks_table
from kdpipe.pipeline.statistics.seed_credit import seed_credit_table
from kdpipe.pipeline.statistics.slices import slices_table

STATISTICS_TABLES = ("gains", "method_ranks", "slices", "calibration", "seed_credit")


def statistics_tables(frames: Frames) -> dict[str, pl.DataFrame]:
    """The tables of statistics of a study, from all its others, those of evidence among them."""
    gains = gains_table(frames)
    return {
        "gains": gains,
        "method_ranks": ranks_table(frames, gains),
        "slices": slices_table(frames),
        "calibration": calibration_table(frames),
        "seed_credit": seed_credit_table(frames),
    }


__all__ = ["STATISTICS_TABLES", "statistics_tables"]
