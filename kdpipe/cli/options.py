"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from kdpipe.artifacts.store import ARTIFACTS
from kdpipe.source import HERE

PLACE = click.Path(path_type=Path)  # whether it is there is checked, and said, where it is used
DEVICES = click.Choice(["auto", "cpu", "cuda"])

study = click.argument("study", metavar="STUDY.toml", type=PLACE)
overrides = click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
plugins = click.option(
    "--plugin",
    "plugins",
    type=PLACE,
    multiple=True,
    help="Python file with methods, measures, datasets, projectors or factors of your own; repeatable.",
)
device = click.option("--device", type=DEVICES, default="auto", show_default=True, help="Where networks are trained.")
seeds = click.option(
    "--seed",
    "seeds",
    type=int,
    multiple=True,
    help="Only the students of this seed; repeatable. Artifacts follow when all are done.",
)
data_folder = click.option(
    "--data-root",
    "data_folder",
    type=PLACE,
    envvar="KDPIPE_DATA",
    show_envvar=True,
    help="Folder that data.path starts from.",
)
cache = click.option(
    "--cache",
    type=PLACE,
    default=HERE / "cache",
    envvar="KDPIPE_CACHE",
    show_envvar=True,
    show_default="cache/",
    help="Where finished stages are kept.",
)
artifacts = click.option(
    "--artifacts",
    type=PLACE,
    default=ARTIFACTS,
    envvar="KDPIPE_ARTIFACTS",
    show_envvar=True,
    show_default="artifacts/",
    help="Folder of all studies' artifacts.",
)
weights = click.option(
    "--weights",
    type=PLACE,
    default=HERE / "weights",
    envvar="KDPIPE_WEIGHTS",
    show_envvar=True,
    show_default="weights/",
    help="Where trained weights go, as safetensors.",
)
