"""``kdpipe look``: finished networks, named on the command line, as a study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from kdpipe.artifacts.store import ARTIFACTS
from kdpipe.cli import options
from kdpipe.cli.inputs import checked_study, console
from kdpipe.cli.run import Folders, carry_out, use_threads
from kdpipe.config.brought import DRAWN, ORIGINS, Images, dataset_at, origin_of, write_study
from kdpipe.errors import StudyError
from kdpipe.vocabulary import CONTROL, DISTILLED, PLAIN, TEACHER


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
    networks = list(_networks(teacher, plain, distilled, control))
    place = data.expanduser()
    images = Images(dataset or dataset_at(place), str(place.resolve()), image_size)
    file = write_study(cache / "studies", name, networks, images, list(projector) or DRAWN)
    console.print(f"The study: {file}  (kdpipe run {file} goes on with what you change in it)")
    checked = checked_study(file, (), None, ())
    carry_out(checked, Folders(cache, artifacts, cache / "weights"), device)
    console.print("See it: kdpipe app" + ("" if artifacts == ARTIFACTS else f" --artifacts {artifacts}"))


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
