"""``kdpipe run``: whatever is missing of a study, then its artifacts and weights."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import polars as pl
import torch
from rich.table import Table

from kdpipe.cli import options
from kdpipe.cli.inputs import KINDS, checked_study, chosen_kinds, console, require_writable
from kdpipe.cli.progress import RichReporter, open_log
from kdpipe.config.preflight import Preflight
from kdpipe.config.study import BaseStudy, StudySpec
from kdpipe.engine.cache import Cache
from kdpipe.engine.hardware import describe_hardware, resolve_device
from kdpipe.engine.stage import Context
from kdpipe.errors import KdpipeError
from kdpipe.files import recover_folder
from kdpipe.pipeline.export.weights import export_weights
from kdpipe.pipeline.networks_plan import plan_networks
from kdpipe.pipeline.publish import publish
from kdpipe.pipeline.run_study import Result, run_study
from kdpipe.vocabulary import CHECKPOINT


@dataclass(frozen=True)
class Folders:
    """Where a run keeps finished stages, and puts artifacts and weights of all studies."""

    cache: Path
    artifacts: Path
    weights: Path


@click.command()
@options.study
@options.overrides
@options.plugins
@options.device
@options.seeds
@click.option("--only", multiple=True, help=f"Only stages of this kind, repeatable: {', '.join(KINDS)}.")
@click.option("--force", multiple=True, help="Make stages of this kind anew, or 'all'; repeatable.")
@options.data_folder
@options.cache
@options.artifacts
@options.weights
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch; all cores by default.")
def run(
    study: Path,
    overrides: Sequence[str],
    plugins: Sequence[Path],
    device: str,
    seeds: Sequence[int],
    only: Sequence[str],
    force: Sequence[str],
    data_folder: Path | None,
    cache: Path,
    artifacts: Path,
    weights: Path,
    threads: int | None,
) -> None:
    """Run what is missing of a study and write its artifacts (the default command)."""
    kinds, forced = chosen_kinds("--only", only), chosen_kinds("--force", force, or_all=True)
    use_threads(threads)
    checked = checked_study(study, overrides, data_folder, plugins)
    part = Part(sorted(set(seeds)) or None, kinds, forced)
    carry_out(checked, Folders(cache, artifacts, weights), device, part)


def use_threads(threads: int | None) -> None:
    """Let torch use so many threads; all cores for None."""
    torch.set_num_threads(threads or os.cpu_count() or 1)


@dataclass(frozen=True)
class Part:
    """What of a study is run: students of these seeds, these kinds of stages, and which of them anew."""

    seeds: list[int] | None = None
    kinds: Sequence[str] = ()
    forced: Sequence[str] = ()


def carry_out(
    checked: tuple[BaseStudy, Path, Preflight], folders: Folders, device: str, part: Part | None = None
) -> None:
    """Run what is missing of a study, write its artifacts and weights, and show what came out.

    Raises:
        KdpipeError: what cannot be done.
        SystemExit: with code 1, if some stages failed.
    """
    (spec, root, preflight), part = checked, part or Part()
    plan_networks(
        spec, preflight, root, part.seeds
    )  # a seed that the study lacks is refused before anything is written
    for folder in (folders.cache, folders.artifacts, folders.weights):
        require_writable(folder)
    context = _context(resolve_device(device), root, folders.cache)
    log = folders.cache / "logs" / f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}.log"
    open_log(log)
    store = Cache(folders.cache)
    store.sweep()
    recover_folder(folders.artifacts / spec.name)
    recover_folder(folders.weights / spec.name)
    started = time.perf_counter()
    result = run_study(spec, preflight, store, context, seeds=part.seeds, only=part.kinds, force=part.forced)
    whole = plan_networks(spec, preflight, root).students
    if part.kinds or len(result.plan.students) < len(whole):
        missing = sum(not store.has(planned.stage) for planned in whole)
        left = f"; {missing} students of the study are still to be trained" if missing else ""
        context.reporter.say(
            f"Done with the chosen part{left}. Artifacts are written by a run without --seed and --only."
        )
    else:
        _finish(spec, preflight, result, store, folders, context)
    _close(result, context, time.perf_counter() - started, log)


def _context(device: str, data_folder: Path, cache: Path) -> Context:
    return Context(device, data_folder, RichReporter(console), cache / "scratch", describe_hardware(device))


def _finish(
    spec: BaseStudy, preflight: Preflight, result: Result, store: Cache, folders: Folders, context: Context
) -> None:
    """Write artifacts and weights of a whole run, or say why there are none."""
    networks = result.plan.networks
    if lost := [planned.network_id for planned in networks if not store.has(planned.stage)]:
        done = "trained" if isinstance(spec, StudySpec) else "read"
        raise KdpipeError(
            f"{len(lost)} of {len(result.plan.students) + 1} networks could not be {done} ({lost[0]}, …), see "
            "above; no artifacts were written, and those of an earlier run are as they were."
        )
    artifacts, weights = folders.artifacts / spec.name, folders.weights / spec.name
    frames = publish(spec, preflight, result, store, artifacts, dict(context.hardware))
    _show_results(frames)
    said = f"Artifacts: {artifacts}"
    if isinstance(spec, StudySpec):  # whoever brought finished networks has their weights
        if lacking := export_weights(result.plan, store, weights):
            context.reporter.say(
                f"Weights of {len(lacking)} networks are left out: their stages were packed without them."
            )
        said += f"    weights: {weights}"
    context.reporter.say(said)


def _close(result: Result, context: Context, seconds: float, log: Path) -> None:
    outcome = result.outcome
    context.reporter.say(
        f"{len(outcome.ran)} stages run, {len(outcome.cached)} from the cache, {seconds:.0f} s. Log: {log}"
    )
    if outcome.failed:
        context.reporter.warn(f"{len(outcome.failed)} stages are missing, see above; the rest is complete.")
        raise SystemExit(1)


def _show_results(frames: dict[str, pl.DataFrame]) -> None:
    """The final table: accuracy over seeds of every configuration, and its last layer."""
    networks = frames["networks"]
    last = frames["layers"].filter(pl.col("relative_depth") == 1.0, pl.col("view") == "gap")
    silhouettes = frames["layer_measures"].filter(measure="silhouette").join(last, ["network_id", "layer", "view"])
    joined = networks.join(silhouettes.select("network_id", silhouette="value"), "network_id", how="left")
    steps = pl.when(pl.col("role") == CHECKPOINT).then("checkpoint_step")
    keys = ("role", "student", "method_label", "label_fraction", steps.alias("step"))
    groups = joined.group_by(*keys, maintain_order=True).agg(
        pl.len().alias("seeds"),
        *_mean_and_spread("test_accuracy"),
        *_mean_and_spread("selected_test_accuracy"),
        pl.col("silhouette").mean(),
        pl.col("diverged_step").count().alias("diverged"),
    )
    table = Table(title="Test accuracy, mean ± sd over seeds")
    trained = groups["selected_test_accuracy"].is_not_null().any()  # networks that were given have no steps
    accuracies = {"test_accuracy": "accuracy, %"}
    if trained:
        accuracies = {"test_accuracy": "last, %", "selected_test_accuracy": "best, %"}
    for column in ("student", "method", "labels", "seeds", *accuracies.values(), "silhouette"):
        table.add_column(column, justify="left" if column in {"student", "method"} else "right", no_wrap=True)
    for row in groups.iter_rows(named=True):
        lost = f" ({row['diverged']} diverged)" if row["diverged"] else ""
        table.add_row(
            row["student"],
            row["method_label"] + ("" if row["step"] is None else f" at step {row['step']}"),
            f"{row['label_fraction']:.4g}",
            f"{row['seeds']}{lost}",
            *(_percent(row, column) for column in accuracies),
            _number(row["silhouette"], "{:.3f}"),
        )
    console.print(table)
    if trained:
        console.print("Best: at the step of the highest validation accuracy; all else is of the last step.")
    console.print("Silhouette: of the last layer's channel means (gap).")


def _mean_and_spread(column: str) -> tuple[pl.Expr, pl.Expr]:
    return pl.col(column).mean(), pl.col(column).std().alias(f"{column}_spread")


def _percent(row: Mapping[str, Any], column: str) -> str:
    """Mean and spread of an accuracy, in percent."""
    if row[column] is None:
        return "-"
    spread = row[f"{column}_spread"]
    return f"{100 * row[column]:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
