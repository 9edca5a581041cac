"""``kdpipe validate``: whether a study can run, on which images, and which networks it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from rich.markup import escape
from rich.table import Table

from kdpipe.cli import options
from kdpipe.cli.inputs import checked_study, console
from kdpipe.config.preflight import Preflight
from kdpipe.config.sections import DataSpec
from kdpipe.data.dataset import SplitPlan
from kdpipe.data.sources.base import Peek

_MOST_CLASSES = 20  # listed one a line; of more, the smallest are


@click.command()
@options.study
@options.overrides
@options.plugins
@options.data_folder
def validate(study: Path, overrides: Sequence[str], plugins: Sequence[Path], data_folder: Path | None) -> None:
    """Check a study against its data, timm and the registries. Writes nothing."""
    spec, _, preflight = checked_study(study, overrides, data_folder, plugins, every_image=True)
    console.print(_networks(study, preflight))
    said = [f"{spec.data.dataset}: {len(preflight.data.class_names)} classes, {_images(preflight)}"]
    said += preflight.data.notes
    if preflight.splits is not None:
        said += _splits(spec.data, preflight.splits)
    for line in said:
        console.print(escape(line), highlight=False, soft_wrap=True)
    if preflight.splits is not None:
        console.print(_classes(preflight.data, preflight.splits))
    for warning in preflight.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False, soft_wrap=True)


def _networks(study: Path, preflight: Preflight) -> Table:
    table = Table(title=escape(f"{study}: valid"))
    for column in ("network", "parameters", "MACs", "layers"):
        table.add_column(column, justify="left" if column in {"network", "layers"} else "right")
    for name, shape in preflight.shapes.items():
        layers = "  ".join(f"{tap.layer} {'x'.join(map(str, tap.shape))}" for tap in shape.taps)
        table.add_row(name, f"{shape.params:,}", f"{shape.macs:,}", layers)
    return table


def _images(preflight: Preflight) -> str:
    channels, height, width = preflight.data.image_shape
    if not channels:
        return f"{preflight.data.test} samples without images"
    return f"images of {width} x {height} pixels in {channels} {'channel' if channels == 1 else 'channels'}"


def _splits(data: DataSpec, plan: SplitPlan) -> Iterator[str]:
    """How the splits were made."""
    chosen = f"in equal shares of every class, by data.split_seed {data.split_seed}"
    if plan.test is None:
        yield "test split: the dataset's own"
    else:
        yield f"test split: {data.test_fraction:.4g} of all images (data.test_fraction), {chosen}"
    yield f"validation split: {data.validation_fraction:.4g} of the rest (data.validation_fraction), {chosen}"


def _classes(seen: Peek, plan: SplitPlan) -> Table:
    """Images of each class in each split; of many classes, those with the fewest training images."""
    tests = seen.test_labels if plan.test is None else seen.train_labels[plan.test]
    assert tests is not None
    names = seen.class_names
    labels = {"training": seen.train_labels[plan.train], "validation": seen.train_labels[plan.validation]}
    counts = {name: np.bincount(each, minlength=len(names)) for name, each in {**labels, "test": tests}.items()}
    order = np.arange(len(names))
    caption = None
    if len(names) > _MOST_CLASSES:
        order = np.argsort(counts["training"], kind="stable")[:_MOST_CLASSES]
        caption = f"the {_MOST_CLASSES} smallest of {len(names)} classes"
    table = Table(caption=caption)
    table.add_column("class")
    for name in counts:
        table.add_column(name, justify="right")
    for label in order:
        table.add_row(escape(names[label]), *(f"{count[label]:,}" for count in counts.values()))
    table.add_section()
    table.add_row("all", *(f"{count.sum():,}" for count in counts.values()))
    return table
