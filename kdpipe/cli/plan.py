"""``kdpipe plan``: what a run would do, and roughly what it would cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from kdpipe.cli import options
from kdpipe.cli.inputs import KINDS, checked_study, console
from kdpipe.engine.cache import Cache
from kdpipe.engine.hardware import resolve_device
from kdpipe.engine.run import with_inputs
from kdpipe.pipeline.analysis_plan import plan_analysis
from kdpipe.pipeline.cost import rough_seconds
from kdpipe.pipeline.networks_plan import plan_networks


@click.command()
@options.study
@options.overrides
@options.plugins
@options.device
@options.seeds
@options.data_folder
@options.cache
def plan(
    study: Path,
    overrides: Sequence[str],
    plugins: Sequence[Path],
    device: str,
    seeds: Sequence[int],
    data_folder: Path | None,
    cache: Path,
) -> None:
    """Show what would run, what is cached, and roughly what it would cost. Writes nothing."""
    spec, root, preflight = checked_study(study, overrides, data_folder, plugins)
    store = Cache(cache)
    networks_plan = plan_networks(spec, preflight, root, list(seeds) or None)
    analysis = plan_analysis(spec, preflight, networks_plan, networks_plan.networks)
    stages = with_inputs([planned.stage for planned in networks_plan.networks] + analysis.stages)
    seconds = rough_seconds(stages, spec, preflight, store, resolve_device(device))
    table = Table(title=f"{spec.title}: {len(networks_plan.networks)} networks, {len(stages)} stages")
    for column in ("stage", "in all", "cached", "to run", "roughly"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for kind in KINDS:
        mine = [stage for stage in stages if stage.kind == kind]
        cached = sum(store.has(stage) for stage in mine)
        rough = _duration(seconds[kind]) if kind in seconds else "-"
        table.add_row(kind, str(len(mine)), str(cached), str(len(mine) - cached), rough)
    console.print(table)
    console.print(f"About {_duration(sum(seconds.values()))} on this machine as it is now.")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
