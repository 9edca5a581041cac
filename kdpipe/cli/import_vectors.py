"""``kdpipe import``: vectors made elsewhere, checked and joined by ids into one folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from kdpipe.artifacts.store import ARTIFACTS
from kdpipe.cli import options
from kdpipe.cli.inputs import console, require_writable
from kdpipe.cli.run import run
from kdpipe.config.vector_sheet import read_sheet, sources_of
from kdpipe.config.vector_text import networks_named, study_text
from kdpipe.errors import StudyError
from kdpipe.files import write_atomic
from kdpipe.vectors.content import NetworkVectors, Samples
from kdpipe.vectors.facts import DISPLAYED
from kdpipe.vectors.gather import RowIds, gather
from kdpipe.vectors.store import SUFFIX, StoredNetwork, VectorStore, write_store

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_NUMBERS = {"seed": int, "step": int, "label_fraction": float}


@click.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=options.PLACE)
@click.option("--name", required=True, help="Name of the study: lower-case letters, digits, '-' and '_'.")
@click.option(
    "--map",
    "mapped",
    metavar="NETWORK=ROLE[,FIELD=VALUE]...",
    multiple=True,
    help="What a network is, where its name does not say it, such as big=teacher or small=distilled,method=kd,seed=1; "
    "repeatable.",
)
@click.option("--samples", type=options.PLACE, help="Table with a row a sample: id, label, perhaps text, image, split.")
@click.option("--ids", type=options.PLACE, help="File with the id of each row, for files that have none.")
@click.option("--ids-are-row-numbers", is_flag=True, help="All files have the same samples in the same order.")
@click.option(
    "--image-size",
    type=click.IntRange(min=8, max=512),
    default=DISPLAYED,
    show_default=True,
    help="Side in pixels that encoded images are brought to.",
)
@click.option(
    "--to",
    "folder",
    type=options.PLACE,
    default=Path(),
    show_default="here",
    help="Where the vectors and the study file are written.",
)
@click.option("--run/--no-run", "to_run", default=True, help="Make the study at once.  [default: --run]")
@options.cache
@options.artifacts
@options.weights
@click.pass_context
def import_vectors(
    ctx: click.Context,
    files: Sequence[Path],
    name: str,
    mapped: Sequence[str],
    samples: Path | None,
    ids: Path | None,
    ids_are_row_numbers: bool,
    image_size: int,
    folder: Path,
    to_run: bool,
    cache: Path,
    artifacts: Path,
    weights: Path,
) -> None:
    """Take vectors made elsewhere, and look at them as at a study's own.

    FILE is npz, npy, safetensors, Parquet or Arrow, a folder of these, a folder of vectors, or a sheet (TOML) that says
    what is what: docs/VECTORS.md.
    """
    if not _NAME.fullmatch(name):
        raise StudyError(f"--name {name}: a study's name is lower-case letters, digits, '-' and '_', 60 at most.")
    require_writable(folder)
    said = dict(_said(entry) for entry in mapped)
    row_ids = RowIds(ids, ids_are_row_numbers)
    if len(files) == 1 and files[0].suffix == ".toml":
        found = _by_sheet(files[0], said, row_ids, samples, image_size)
    else:
        found = gather(files, said=said, row_ids=row_ids, samples=samples, image_size=image_size)
    store = write_store(folder / f"{name}{SUFFIX}", *found)
    console.print(_understood(store))
    study, text = folder / f"{name}.toml", study_text(name, store)
    if study.exists():
        console.print(_kept(study, text), markup=False)
    else:
        write_atomic(study, text)
    places = {"cache": cache, "artifacts": artifacts, "weights": weights}
    if to_run:
        ctx.invoke(run, study=study, data_folder=folder, device="cpu", **places)
    shown = "kdpipe app" if artifacts == ARTIFACTS else f"kdpipe app --artifacts {artifacts}"
    console.print(f"Look at it: {shown}" if to_run else f"Make the study: kdpipe {study} --data-root {folder}")


def _kept(study: Path, text: str) -> str:
    """That a study file stays, and which networks of the vectors it does not look at; ``text`` is what would be new."""
    left_out = networks_named(text) - networks_named(study.read_text(encoding="utf-8", errors="replace"))
    if not left_out:
        return f"{study} is there already and is kept as it is."
    names = ", ".join(sorted(left_out))
    return (
        f"{study} is there already and is kept as it is. It does not look at {names}: add a [[networks]] section for "
        "each, or delete the file and import again."
    )


def _by_sheet(
    path: Path, said: Mapping[str, Mapping[str, Any]], row_ids: RowIds, samples: Path | None, image_size: int
) -> tuple[Samples, list[NetworkVectors]]:
    """What a sheet describes; options go before what stands in it."""
    sheet = read_sheet(path)
    if row_ids.file is None and sheet.ids is not None:
        row_ids = replace(row_ids, file=path.parent / sheet.ids)
    return gather(
        [],
        said=said,
        sources=sources_of(sheet, path.parent),
        row_ids=replace(row_ids, are_numbers=row_ids.are_numbers or sheet.ids_are_row_numbers),
        samples=samples or (None if sheet.samples is None else path.parent / sheet.samples),
        class_names=sheet.class_names,
        image_size=sheet.image_size or image_size,
    )


def _said(entry: str) -> tuple[str, dict[str, Any]]:
    """``NETWORK=ROLE[,FIELD=VALUE]...`` as the network's name and its fields."""
    network, equals, rest = entry.partition("=")
    role, *fields = rest.split(",")
    if not (network and equals and role):
        raise StudyError(f"--map {entry}: write it as NETWORK=ROLE, such as big=teacher or small=distilled,seed=1.")
    said: dict[str, Any] = {"role": role}
    for text in fields:
        field, equals, value = text.partition("=")
        if not equals or field not in {"student", "method", "seed", "step", "label_fraction", "origin"}:
            raise StudyError(
                f"--map {entry}: {text!r} is none of student=, method=, seed=, step=, label_fraction= and origin=."
            )
        try:
            said[field] = _NUMBERS.get(field, str)(value)
        except ValueError:
            raise StudyError(f"--map {entry}: {field} is a number, not {value!r}.") from None
    return network, said


def _understood(store: VectorStore) -> Table:
    """What was taken for what, so that a wrong guess is seen."""
    samples = store.samples
    fitted = int(samples.reference.sum())
    extras = [
        *([f"{fitted} more to fit probes on"] if fitted else []),
        *(["texts"] if samples.texts is not None else []),
        *(["images"] if samples.images is not None else []),
    ]
    table = Table(
        title=f"{store.folder}: {len(samples) - fitted} samples, {len(samples.class_names)} classes"
        + "".join(f", {extra}" for extra in extras)
    )
    checkpoints = any(network.record.step is not None for network in store.networks)
    for column in ("network", "role", "student", "method", "seed", *(["step"] if checkpoints else [])):
        table.add_column(column, overflow="fold")
    table.add_column("layers, from input to output", ratio=1, overflow="fold")
    for network in store.networks:
        record = network.record
        step = [] if not checkpoints else ["" if record.step is None else str(record.step)]
        table.add_row(
            record.name, record.role, record.student, record.method, str(record.seed), *step, _layers(network)
        )
    return table


def _layers(network: StoredNetwork) -> str:
    """Layers in their order, those of one shape together, and the logits."""
    layers = groupby(zip(network.layers, network.shapes, strict=True), key=itemgetter(1))
    runs = [", ".join(layer for layer, _ in run) + f": {'x'.join(map(str, shape))}" for shape, run in layers]
    return "\n".join([*runs, *(["logits"] if network.has_logits else [])])
