"""``kdpipe export``: a network of a finished study as files for others, and its vectors and maps as Parquet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from kdpipe.artifacts.store import Study, load_study, study_names
from kdpipe.cli import options
from kdpipe.cli.inputs import checked_study, console, require_writable
from kdpipe.config.study_file import read_study
from kdpipe.engine.cache import Cache
from kdpipe.errors import KdpipeError, StudyError
from kdpipe.files import write_atomic
from kdpipe.names import closest
from kdpipe.pipeline.analysis_plan import plan_analysis
from kdpipe.pipeline.delivery.card import card_text
from kdpipe.pipeline.delivery.chosen import Chosen, choose, images_to_check, network_row
from kdpipe.pipeline.delivery.file_notes import onnx_note, said_of_onnx, state_note
from kdpipe.pipeline.delivery.onnx_file import FLOAT, UINT8, make_onnx
from kdpipe.pipeline.delivery.state_dict import by_timm, write_state
from kdpipe.pipeline.delivery.tables import write_tables
from kdpipe.pipeline.networks_plan import plan_networks
from kdpipe.pipeline.run_study import finished


@click.command()
@click.argument("study", metavar="STUDY", type=options.PLACE)
@click.argument("network", metavar="[NETWORK]", required=False)
@click.option("--onnx", type=options.PLACE, help="File for ONNX: images in, logits out, checked against torch.")
@click.option(
    "--input",
    "takes",
    type=click.Choice([FLOAT, UINT8]),
    default=FLOAT,
    show_default=True,
    help="What the ONNX file takes: images in [0, 1], or in [0, 255].",
)
@click.option("--safetensors", type=options.PLACE, help="File for the weights under the network's own names.")
@click.option("--card", type=options.PLACE, help="File for the card, in Markdown: what it is and how good it is.")
@click.option(
    "--vectors",
    type=options.PLACE,
    help="New folder for every layer's vectors and every map as Parquet; STUDY is then the study file.",
)
@options.plugins
@options.data_folder
@options.cache
@options.artifacts
@options.weights
def export(
    study: Path,
    network: str | None,
    onnx: Path | None,
    takes: str,
    safetensors: Path | None,
    card: Path | None,
    vectors: Path | None,
    plugins: Sequence[Path],
    data_folder: Path | None,
    cache: Path,
    artifacts: Path,
    weights: Path,
) -> None:
    """Write a network of a finished study as ONNX and safetensors, with its card; or vectors and maps as Parquet.

    STUDY is the name of one under the artifacts folder, or a study file; NETWORK its network_id: docs/EXPORT.md.
    """
    files = {"--onnx": onnx, "--safetensors": safetensors, "--card": card}
    if vectors is None and not any(files.values()):
        raise StudyError("Say what to write: --onnx, --safetensors, --card, or --vectors.")
    for option, suffix in (("--onnx", ".onnx"), ("--safetensors", ".safetensors")):
        path = files[option]
        if path is not None and path.suffix != suffix:
            raise StudyError(f"{option} {path} must end in {suffix}, by which programs know it.")
    for path in filter(None, [*files.values(), vectors]):
        require_writable(path.parent)
    found = _finished_study(study, plugins, artifacts)
    if any(files.values()):
        row = network_row(found, network)
        chosen = choose(found, row["network_id"], weights) if onnx or safetensors else None
        _write_files(found, row, chosen, onnx, takes, safetensors, card)
    if vectors is not None:
        _write_vectors(study, plugins, data_folder, Cache(cache), found, vectors)


def _finished_study(study: Path, plugins: Sequence[Path], artifacts: Path) -> Study:
    """The artifacts of a study that is named, or of a study file, whose plug-ins and factories are then known."""
    name = read_study(study, (), plugins).spec.name if study.suffix == ".toml" else str(study)
    known = study_names(artifacts)
    if name not in known:
        said = closest(name, known) or (f"; there are {', '.join(known)}." if known else "; run the study first.")
        raise StudyError(f"{name!r}: no finished study of that name lies in {artifacts}{said}")
    return load_study(name, artifacts)


def _write_files(
    study: Study,
    row: Mapping[str, Any],
    chosen: Chosen | None,
    onnx: Path | None,
    takes: str,
    safetensors: Path | None,
    card: Path | None,
) -> None:
    """The network's files and its card. All are made before the first is written."""
    writes: list[tuple[Callable[[], None], str]] = []
    notes: list[str] = []
    if chosen is not None:
        images, what = images_to_check(study, chosen.image_shape)
        metadata = {"network_id": chosen.network_id, "study": study.name, "study_hash": study.hash}
        if onnx is not None:
            made = make_onnx(chosen, images, metadata, takes)
            notes.append(onnx_note(chosen, made, onnx.name, what))
            writes.append((partial(made.write, onnx), f"{onnx}: {said_of_onnx(made, what)}"))
        if safetensors is not None:
            loader = "timm" if by_timm(chosen) else "kdpipe.models.read_network"
            notes.append(state_note(chosen, safetensors.name))
            said = f"{safetensors}: weights for {loader}; read again, they answer as before, to the bit"
            writes.append((partial(write_state, safetensors, chosen, images, metadata), said))
    if card is not None:
        text = card_text(study, row, notes)
        writes.append((partial(write_atomic, card, text), f"{card}: the card of {row['network_id']}"))
    for write, said in writes:
        write()
        _say(said)


def _write_vectors(
    study: Path, plugins: Sequence[Path], data_folder: Path | None, cache: Cache, found: Study, folder: Path
) -> None:
    if study.suffix != ".toml":
        raise StudyError(f"--vectors needs the study file in place of {str(study)!r}: vectors lie in the cache by it.")
    spec, root, preflight = checked_study(study, (), data_folder, plugins)
    plan = plan_networks(spec, preflight, root)
    if not cache.has(plan.teacher.stage):
        raise KdpipeError(
            f"the cache {cache.root} lacks the networks of {study}; run the study here first, or name its cache with "
            "--cache."
        )
    analysis = plan_analysis(spec, preflight, plan, finished(plan, cache))
    written = write_tables(folder, found, plan, analysis, cache)
    _say(
        f"{folder}: {written.layers} layers of {written.networks} networks in {len(written.views)} views, of "
        f"{written.samples} samples; {written.points} points of maps"
    )
    sheet = folder / f"{written.views[-1]}.toml"
    _say(f"Take the vectors in again: kdpipe import {sheet} --name {found.name}-again")


def _say(line: str) -> None:
    """A line as it stands: paths and commands in it are to be copied."""
    console.print(escape(line), highlight=False, soft_wrap=True)
