"""Which series are in colour: few enough to be told apart. All others are grey context."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from kdpipe.app.shared import catalog, gains
from kdpipe.app.shell import theme
from kdpipe.artifacts.store import Study

_COMMON = "kd"  # in nearly every study: the first of the methods, so of one colour in all
_ALWAYS = pl.col("role").is_in(["teacher", "plain"]) | pl.col("null")


def options(networks: pl.DataFrame) -> list[str]:
    """Series that may be in colour or not: by gain, then those without one (diverged, other teachers, checkpoints)."""
    gained = gains.paired(networks).group_by("series").agg(pl.col("gain").mean())
    others = networks.filter(~_ALWAYS & ~catalog.NOT_TRAINED).select("series").unique(maintain_order=True)
    ranked = others.join(gained, on="series", how="left", maintain_order="left")
    return ranked.sort("gain", descending=True, nulls_last=True, maintain_order=True)["series"].to_list()


def default(study: Study, networks: pl.DataFrame) -> list[str]:
    """All methods and controls where they are few, else the headline's method."""
    students = networks.filter(catalog.STUDENT)["series"].to_list()
    able = [label for label in options(networks) if label in students]
    headline = catalog.headline(study, networks)["series"].to_list()
    return able if len(able) <= theme.COLOURED_METHODS else [label for label in able if label in headline]


def colours(study: Study, networks: pl.DataFrame, chosen: Sequence[str] | None = None) -> dict[str, str]:
    """A colour for teacher, plain, the control and each chosen series, in the order of legends."""
    usual = default(study, networks)
    role = dict(networks.select("series", "role").rows())
    kept = sorted(usual, key=lambda label: (role[label] == "control", label != _COMMON, label))
    base = catalog.series_of(networks.filter(_ALWAYS))
    return theme.series_colours(base, kept, usual if chosen is None else chosen)
