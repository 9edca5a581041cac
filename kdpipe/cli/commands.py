"""The command line over the pipeline: run, plan, validate, cache."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from kdpipe.artifacts.store import ARTIFACTS, study_names
from kdpipe.cli.migrate import migrate_named
from kdpipe.cli.progress import RichReporter, open_log
from kdpipe.config.preflight import Preflight, run_preflight
from kdpipe.config.study import StudySpec
from kdpipe.config.study_file import read_study
from kdpipe.data.sources.base import data_root
from kdpipe.engine.archive import pack, unpack
from kdpipe.engine.cache import Cache
from kdpipe.engine.hardware import describe_hardware, resolve_device
from kdpipe.engine.run import with_inputs
from kdpipe.engine.stage import Context
from kdpipe.errors import DataError, KdpipeError, NetworkError, StudyError
from kdpipe.files import recover_folder
from kdpipe.names import closest
from kdpipe.pipeline.analysis_plan import ANALYSIS_KINDS, plan_analysis
from kdpipe.pipeline.conclusions import judge_again
from kdpipe.pipeline.cost import rough_seconds
from kdpipe.pipeline.export.weights import export_weights
from kdpipe.pipeline.publish import publish
from kdpipe.pipeline.run_study import finished, run_study
from kdpipe.pipeline.training_plan import TRAINING_KINDS, plan_training
from kdpipe.vocabulary import CHECKPOINT, full_title

KINDS = TRAINING_KINDS + ANALYSIS_KINDS
CACHE_VARIABLE = "KDPIPE_CACHE"
console = Console(stderr=False)
errors = Console(stderr=True)


class RunByDefault(TyperGroup):
    """``precompute.py STUDY.toml`` is short for ``precompute.py run STUDY.toml``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in {"--help", "-h"}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


class Device(StrEnum):
    """Where networks are trained."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


app = typer.Typer(
    cls=RunByDefault,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train the networks of a study, look at every layer, and write what the app shows.",
    epilog="Example: scripts/precompute.py studies/digits.toml training.steps=200",
)

Study = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Fields to change, such as training.steps=500.", show_default=False),
]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder that data.path starts from. [env: KDPIPE_DATA]")
]
CacheFolder = Annotated[
    Path, typer.Option("--cache", envvar=CACHE_VARIABLE, help="Where finished stages are kept.", show_default="cache/")
]
Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", help="Only the students of this seed; repeatable. Artifacts follow when all are done."),
]
OnlyKinds = Annotated[
    list[str] | None, typer.Option("--only", help=f"Only stages of this kind, repeatable: {', '.join(KINDS)}.")
]
ForceKinds = Annotated[
    list[str] | None, typer.Option("--force", help="Make stages of this kind anew, or 'all'; repeatable.")
]
DEFAULT_CACHE = ARTIFACTS.parent / "cache"


@app.command()
def run(
    study: Study,
    overrides: Overrides = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.auto,
    seed: Seeds = None,
    only: OnlyKinds = None,
    force: ForceKinds = None,
    data_folder: DataRoot = None,
    cache: CacheFolder = DEFAULT_CACHE,
    artifacts: Annotated[Path, typer.Option(help="Where artifacts go.", show_default="artifacts/")] = ARTIFACTS,
    weights: Annotated[
        Path, typer.Option(help="Where trained weights go, as safetensors.", show_default="weights/")
    ] = ARTIFACTS.parent / "weights",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch; all cores by default.")] = None,
) -> None:
    """Run what is missing of a study and write its artifacts (the default command)."""
    kinds, forced = _kinds("--only", only), _kinds("--force", force)
    torch.set_num_threads(threads or os.cpu_count() or 1)
    spec, root, preflight = _checked(study, overrides, data_folder)
    seed = sorted(set(seed)) if seed else None
    planned = plan_training(spec, preflight, root, seed)
    for folder in (cache, artifacts, weights):
        _writable(folder)
    chosen = resolve_device(device.value)
    log = cache / "logs" / f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}.log"
    open_log(log)
    hardware = describe_hardware(chosen)
    reporter = RichReporter(console)
    context = Context(chosen, root, reporter, cache / "scratch", hardware)
    store = Cache(cache)
    store.sweep()
    started = time.perf_counter()
    result = run_study(spec, preflight, store, context, seeds=seed, only=kinds, force=forced)
    whole = plan_training(spec, preflight, root)
    if kinds or len(planned.students) < len(whole.students):
        missing = [p for p in whole.students if not store.has(p.stage)]
        left = f"; {len(missing)} students of the study are still to be trained" if missing else ""
        reporter.say(f"Done with the chosen part{left}. Artifacts are written by a run without --seed and --only.")
    elif lost := [p.network_id for p in result.training.networks if not store.has(p.stage)]:
        raise KdpipeError(
            f"{len(lost)} of {len(planned.students) + 1} networks could not be trained ({lost[0]}, …), see above; "
            "no artifacts were written, and those of an earlier run are as they were."
        )
    else:
        recover_folder(artifacts / spec.name)
        recover_folder(weights / spec.name)
        frames = publish(spec, preflight, result, store, artifacts / spec.name, hardware)
        lacking = export_weights(result.training, store, weights / spec.name)
        _show_results(frames)
        if lacking:
            reporter.say(f"Weights of {len(lacking)} networks are left out, as their stages were packed without them.")
        reporter.say(f"Artifacts: {artifacts / spec.name}    weights: {weights / spec.name}")
    ran, cached = len(result.outcome.ran), len(result.outcome.cached)
    reporter.say(f"{ran} stages run, {cached} from the cache, {time.perf_counter() - started:.0f} s. Log: {log}")
    if result.outcome.failed:
        reporter.warn(f"{len(result.outcome.failed)} stages are missing, see above; the rest is complete.")
        raise typer.Exit(1)


@app.command()
def plan(
    study: Study,
    overrides: Overrides = None,
    device: Annotated[Device, typer.Option(help="Where it would train.")] = Device.auto,
    seed: Seeds = None,
    data_folder: DataRoot = None,
    cache: CacheFolder = DEFAULT_CACHE,
) -> None:
    """Show what would run, what is cached, and roughly what it would cost. Writes nothing."""
    spec, root, preflight = _checked(study, overrides, data_folder)
    store = Cache(cache)
    training = plan_training(spec, preflight, root, seed)
    analysis = plan_analysis(spec, preflight, training, training.networks)
    stages = with_inputs([planned.stage for planned in training.networks] + analysis.stages)
    seconds = rough_seconds(stages, spec, preflight, store, resolve_device(device.value))
    table = Table(title=f"{spec.title}: {len(training.networks)} networks, {len(stages)} stages")
    for column in ("stage", "in all", "cached", "to run", "roughly"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for kind in KINDS:
        mine = [stage for stage in stages if stage.kind == kind]
        cached = sum(store.has(stage) for stage in mine)
        rough = _duration(seconds[kind]) if kind in seconds else "-"
        table.add_row(kind, str(len(mine)), str(cached), str(len(mine) - cached), rough)
    console.print(table)
    console.print(f"About {_duration(sum(seconds.values()))} on this machine as it is now.")


@app.command()
def judge(
    study: Annotated[
        str, typer.Argument(metavar="NAME", help="A study under the artifacts folder.", show_default=False)
    ],
    artifacts: Annotated[Path, typer.Option(help="Where artifacts are.", show_default="artifacts/")] = ARTIFACTS,
) -> None:
    """Judge a finished study again from its artifacts, without a network, and show its verdicts."""
    if study not in study_names(artifacts):
        known = study_names(artifacts)
        said = closest(study, known) or (f"; there are {', '.join(known)}." if known else ".")
        raise StudyError(f"{study!r}: no study of that name lies in {artifacts}{said}")
    started = time.perf_counter()
    found = judge_again(artifacts / study)
    table = Table(title=found.title)
    for column in ("claim", "student", "method", "labels", "verdict"):
        table.add_column(column)
    for row in found.verdicts.iter_rows(named=True):
        claim, student, method = row["claim"], row["student"] or "all", row["method_label"] or "all"
        table.add_row(claim, student, method, f"{row['label_fraction']:.4g}", _title(row))
    console.print(table)
    console.print(f"{found.verdicts.height} verdicts in {time.perf_counter() - started:.1f} s: {artifacts / study}")


def _title(row: dict[str, Any]) -> str:
    return full_title(row["verdict"], row["title"], row["controls_not_asked"])


@app.command()
def migrate(
    study: Annotated[
        str, typer.Argument(metavar="NAME", help="A study under the artifacts folder.", show_default=False)
    ],
    artifacts: Annotated[Path, typer.Option(help="Where artifacts are.", show_default="artifacts/")] = ARTIFACTS,
) -> None:
    """Bring a finished study's artifacts to the present schema, without a network."""
    console.print(migrate_named(study, artifacts))


@app.command()
def validate(study: Study, overrides: Overrides = None, data_folder: DataRoot = None) -> None:
    """Check a study against its data, timm and the registries. Writes nothing."""
    spec, _, preflight = _checked(study, overrides, data_folder)
    table = Table(title=f"{study}: valid")
    for column in ("network", "parameters", "MACs", "layers"):
        table.add_column(column, justify="left" if column in {"network", "layers"} else "right")
    for name, shape in {"teacher": preflight.teacher, **preflight.students}.items():
        layers = "  ".join(f"{tap.layer} {'x'.join(map(str, tap.shape))}" for tap in shape.taps)
        table.add_row(name, f"{shape.params:,}", f"{shape.macs:,}", layers)
    console.print(table)
    data = preflight.data
    console.print(f"{spec.data.dataset}: images of {data.image_shape}, {len(data.class_names)} classes")


cache_app = typer.Typer(help="Where finished stages are kept.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")


@cache_app.command("show")
def cache_show(cache: CacheFolder = DEFAULT_CACHE) -> None:
    """Show the place and the size of the cache."""
    stages, size = Cache(cache).size()
    console.print(f"{cache}: {stages} finished stages, {size / 1e6:.1f} MB")


@cache_app.command("clean")
def cache_clean(
    cache: CacheFolder = DEFAULT_CACHE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete all finished stages; artifacts and weights stay."""
    stages, size = Cache(cache).size()
    if not yes:
        typer.confirm(f"Delete {stages} finished stages ({size / 1e6:.1f} MB) in {cache}?", abort=True)
    console.print(f"{Cache(cache).clean() / 1e6:.1f} MB freed.")


@cache_app.command("pack")
def cache_pack(
    study: Study,
    target: Annotated[Path, typer.Argument(metavar="FILE.tar.gz", help="Where to write.", show_default=False)],
    overrides: Overrides = None,
    seed: Seeds = None,
    only: OnlyKinds = None,
    whole: Annotated[list[str] | None, typer.Option(help="Kinds that keep weights and vectors; repeatable.")] = None,
    data_folder: DataRoot = None,
    cache: CacheFolder = DEFAULT_CACHE,
) -> None:
    """Write what finished stages of a study found, without weights and vectors, into one small file."""
    kinds, kept = _kinds("--only", only), _kinds("--whole", whole)
    spec, root, preflight = _checked(study, overrides, data_folder)
    store = Cache(cache)
    training = plan_training(spec, preflight, root, seed)
    stages = [planned.stage for planned in training.networks]
    if store.has(training.teacher.stage):  # all that is looked at rests on it
        stages += plan_analysis(spec, preflight, training, finished(training, store)).stages
    stages = with_inputs(stages)
    count, size = pack(store, [stage for stage in stages if not kinds or stage.kind in kinds], target, kept)
    console.print(f"{target}: {count} stages, {size / 1e6:.1f} MB")


@cache_app.command("unpack")
def cache_unpack(
    source: Annotated[Path, typer.Argument(metavar="FILE.tar.gz", help="A packed file.", show_default=False)],
    cache: CacheFolder = DEFAULT_CACHE,
) -> None:
    """Take packed stages into the cache; a later run finds them done."""
    taken, there = unpack(Cache(cache), source)
    console.print(f"{taken} stages taken into {cache}, {there} were there.")


def main() -> None:
    """Run the command line; an error that a user can mend is one sentence and exit code 2 or 1."""
    try:
        app()
    except (StudyError, DataError, NetworkError) as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(2) from None
    except KdpipeError as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(1) from None
    except (OSError, pl.exceptions.PolarsError) as error:
        errors.print(f"[red]error:[/] {escape(str(error))}: free space or choose another folder.", soft_wrap=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        errors.print("Stopped; the next run goes on from the last finished stage.")
        raise SystemExit(130) from None


def _writable(folder: Path) -> None:
    """Find out before hours of training that their result could not be kept."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise StudyError(
            f"{folder}: nothing can be written there, as {existing} is no writable folder; choose another."
        )


def _kinds(option: str, given: list[str] | None) -> list[str]:
    for kind in given or ():
        if kind not in KINDS and not (option == "--force" and kind == "all"):
            known = [*KINDS, "all"] if option == "--force" else list(KINDS)
            raise StudyError(
                f"{option} {kind}: there is no such stage{closest(kind, known)}; stages: {', '.join(known)}"
            )
    return list(KINDS) if "all" in (given or ()) else list(given or ())


def _checked(study: Path, overrides: list[str] | None, root: Path | None) -> tuple[StudySpec, Path, Preflight]:
    file = read_study(study, overrides or ())
    place = data_root(root)
    return file.spec, place, run_preflight(file, place)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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
        pl.col("test_accuracy").mean().alias("accuracy"),
        pl.col("test_accuracy").std().alias("spread"),
        pl.col("silhouette").mean(),
        pl.col("diverged_step").count().alias("diverged"),
    )
    table = Table(title="Test accuracy at the last step, mean ± sd over seeds")
    for column in ("student", "method", "labels", "seeds", "accuracy, %", "silhouette"):
        table.add_column(column, justify="left" if column in {"student", "method"} else "right", no_wrap=True)
    for row in groups.iter_rows(named=True):
        spread = "" if row["spread"] is None else f" ± {100 * row['spread']:.1f}"
        lost = f" ({row['diverged']} diverged)" if row["diverged"] else ""
        table.add_row(
            row["student"],
            row["method_label"] + (f" at step {row['step']}" if row["step"] else ""),
            f"{row['label_fraction']:.4g}",
            f"{row['seeds']}{lost}",
            _number(None if row["accuracy"] is None else 100 * row["accuracy"], "{:.1f}") + spread,
            _number(row["silhouette"], "{:.3f}"),
        )
    console.print(table)
    console.print("Silhouette: of the last layer's channel means (gap).")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
