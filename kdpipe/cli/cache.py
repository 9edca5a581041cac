"""``kdpipe cache``: finished stages shown, deleted, and carried to another machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from kdpipe.cli import options
from kdpipe.cli.inputs import checked_study, chosen_kinds, console
from kdpipe.engine.archive import pack, unpack
from kdpipe.engine.cache import Cache
from kdpipe.engine.run import with_inputs
from kdpipe.pipeline.analysis_plan import plan_analysis
from kdpipe.pipeline.networks_plan import plan_networks
from kdpipe.pipeline.run_study import finished


@click.group(no_args_is_help=True)
def cache() -> None:
    """Show, clean, pack and unpack finished stages."""


@cache.command("show")
@options.cache
def show(cache: Path) -> None:
    """Show the place and the size of the cache."""
    stages, size = Cache(cache).size()
    console.print(f"{cache}: {stages} finished stages, {size / 1e6:.1f} MB")


@cache.command("clean")
@options.cache
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(cache: Path, yes: bool) -> None:
    """Delete all finished stages; artifacts and weights stay."""
    stages, size = Cache(cache).size()
    if not yes:
        click.confirm(f"Delete {stages} finished stages ({size / 1e6:.1f} MB) in {cache}?", abort=True)
    console.print(f"{Cache(cache).clean() / 1e6:.1f} MB freed.")


@cache.command("pack")
@options.study
@click.argument("target", metavar="FILE.tar.gz", type=options.PLACE)
@options.overrides
@options.plugins
@options.seeds
@click.option("--only", multiple=True, help="Only stages of this kind; repeatable.")
@click.option("--whole", multiple=True, help="A kind that keeps its weights and vectors; repeatable.")
@options.data_folder
@options.cache
def pack_study(
    study: Path,
    target: Path,
    overrides: Sequence[str],
    plugins: Sequence[Path],
    seeds: Sequence[int],
    only: Sequence[str],
    whole: Sequence[str],
    data_folder: Path | None,
    cache: Path,
) -> None:
    """Write what finished stages of a study found, without weights and vectors, into one small file."""
    kinds, kept = chosen_kinds("--only", only), chosen_kinds("--whole", whole)
    spec, root, preflight = checked_study(study, overrides, data_folder, plugins)
    store = Cache(cache)
    plan = plan_networks(spec, preflight, root, list(seeds) or None)
    stages = [planned.stage for planned in plan.networks]
    if store.has(plan.teacher.stage):  # all that is looked at rests on it
        stages += plan_analysis(spec, preflight, plan, finished(plan, store)).stages
    stages = with_inputs(stages)
    count, size = pack(store, [stage for stage in stages if not kinds or stage.kind in kinds], target, kept)
    console.print(f"{target}: {count} stages, {size / 1e6:.1f} MB")


@cache.command("unpack")
@click.argument("packed", metavar="FILE.tar.gz", type=options.PLACE)
@options.cache
def unpack_file(packed: Path, cache: Path) -> None:
    """Take packed stages into the cache; a later run finds them done."""
    taken, there = unpack(Cache(cache), packed)
    console.print(f"{taken} stages taken into {cache}, {there} were there.")
