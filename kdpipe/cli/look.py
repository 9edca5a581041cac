"""``kdpipe look``: finished networks, named on the command line, as a study."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from kdpipe.cli import options
from kdpipe.cli.inputs import checked_study, console
from kdpipe.cli.run import Folders, carry_out, use_threads
from kdpipe.config.brought import ORIGINS, dataset_at, origin_of, toml_of
from kdpipe.config.sections import DataSpec
from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import data_root, peek
from kdpipe.errors import StudyError
from kdpipe.files import write_atomic
from kdpipe.names import unknown_name
from kdpipe.representation.projectors import PROJECTORS
from kdpipe.vocabulary import CONTROL, DISTILLED, PLAIN, TEACHER

PROBE, TESTED = 1000, 0.6  # images at most; share of them where the data have no test split: nothing is trained here


@click.command(epilog=f"A network is {ORIGINS}.")
@click.option("--teacher", required=True, metavar="NETWORK", help="The network that was distilled from.")
@click.option(
    "--plain",
    required=True,
    multiple=True,
    metavar="NETWORK",
    help="A student that was trained without distillation; repeatable, one a seed.",
)
@click.option(
    "--distilled", required=True, multiple=True, metavar="NETWORK", help="A distilled student; repeatable, one a seed."
)
@click.option(
    "--control",
    multiple=True,
    metavar="NAME=NETWORK",
    help="A student of something that could explain the gain, such as label-smoothing=NETWORK; repeatable.",
)
@click.option("--data", required=True, type=options.PLACE, help="Images: a folder a class, .parquet, .arrow or .npz.")
@click.option("--dataset", help="What --data is, where its files do not tell; or a data set's name alone.")
@click.option("--image-size", type=click.IntRange(4, 1024), help="Bring images to this side.")
@click.option("--name", default="look", show_default=True, help="What the study is called.")
@click.option("--projector", multiple=True, help="How maps are drawn; repeatable.  [default: tsne and pca]")
@options.device
@options.cache
@options.artifacts
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch; all cores by default.")
def look(
    teacher: str,
    plain: Sequence[str],
    distilled: Sequence[str],
    control: Sequence[str],
    data: Path,
    dataset: str | None,
    image_size: int | None,
    name: str,
    projector: Sequence[str],
    device: str,
    cache: Path,
    artifacts: Path,
    threads: int | None,
) -> None:
    """Look at finished networks: what distillation changed in yours. Trains nothing."""
    use_threads(threads)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,59}", name):
        raise StudyError(f"--name {name}: a study's name has lower-case letters, digits, '-' and '_'.")
    networks = list(_networks(teacher, plain, distilled, control))
    drawn = [_known_projector(one) for one in projector] or ["tsne", "pca"]
    study = {
        "name": name,
        "title": f"What distillation changed: {name}",
        **_images(data, dataset, image_size, drawn),
        "networks": networks,
    }
    file = cache / "studies" / f"{name}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, toml_of(study))
    console.print(f"The study: {file}  (kdpipe run {file} goes on with what you change in it)")
    checked = checked_study(file, (), None, ())
    carry_out(checked, Folders(cache, artifacts, cache / "weights"), device)
    console.print(f"See it: kdpipe app --artifacts {artifacts}")


def _networks(
    teacher: str, plain: Sequence[str], distilled: Sequence[str], control: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """A section for each network; the first of a kind has seed 0."""
    yield {"role": TEACHER, **origin_of(teacher)}
    for role, given in ((PLAIN, plain), (DISTILLED, distilled)):
        for seed, origin in enumerate(given):
            yield {"role": role, "seed": seed, **origin_of(origin)}
    seeds: dict[str, int] = {}
    for text in control:
        label, equals, origin = text.partition("=")
        if not equals:
            raise StudyError(f"--control {text}: write NAME=NETWORK, such as label-smoothing=student.safetensors.")
        seeds[label] = seeds.get(label, -1) + 1
        yield {"role": CONTROL, "method": label, "seed": seeds[label], **origin_of(origin)}


def _known_projector(name: str) -> str:
    try:
        return unknown_name("projector", name, PROJECTORS)
    except ValueError as error:
        raise StudyError(f"--projector: {error}.") from None


def _images(data: Path, dataset: str | None, image_size: int | None, projectors: list[str]) -> dict[str, Any]:
    """The sections that say which images are looked at, and what so many of them allow."""
    named = dataset or dataset_at(data.expanduser())
    try:
        source = SOURCES[unknown_name("dataset", named, SOURCES)]
    except ValueError as error:
        raise StudyError(f"--dataset: {error}.") from None
    section: dict[str, Any] = {"dataset": named, "path": str(data.expanduser().resolve()), "test_fraction": TESTED}
    section |= {"image_size": image_size} if image_size else {}
    seen = peek(source, DataSpec.model_validate(section), data_root(None))
    probe = min(PROBE, seen.test if seen.test is not None else round(TESTED * seen.train))
    maps: dict[str, Any] = {"projectors": projectors}
    if probe <= 90:  # of perplexity 30, which is the default
        maps["perplexity"] = max(float((probe - 1) // 3 - 1), 2.0)
    measures = {"k": max(min(20, probe // 5), 2), "second_k": max(min(5, probe // 10), 1)}
    return {"data": {**section, "probe_size": probe}, "maps": maps, "measures": measures}
