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
    channels, height, width = preflight.data.image_shape
    said = [
        f"{spec.data.dataset}: {len(preflight.data.class_names)} classes, images of {width} x {height} pixels in "
        f"{channels} {'channel' if channels == 1 else 'channels'}",
        *preflight.data.notes,
        *_splits(spec.data, preflight),
    ]
    for line in said:
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(_classes(preflight))
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


def _splits(data: DataSpec, preflight: Preflight) -> Iterator[str]:
    """How the splits were made."""
    chosen = f"in equal shares of every class, by data.split_seed {data.split_seed}"
    if preflight.splits.test is None:
        yield "test split: the dataset's own"
    else:
        yield f"test split: {data.test_fraction:.4g} of all images (data.test_fraction), {chosen}"
    yield f"validation split: {data.validation_fraction:.4g} of the rest (data.validation_fraction), {chosen}"


def _classes(preflight: Preflight) -> Table:
    """Images of each class in each split; of many classes, those with the fewest training images."""
    seen, plan = preflight.data, preflight.splits
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
