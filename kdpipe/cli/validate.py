"""``kdpipe validate``: whether a study can run, and which networks it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from kdpipe.cli import options
from kdpipe.cli.inputs import checked_study, console


@click.command()
@options.study
@options.overrides
@options.plugins
@options.data_folder
def validate(study: Path, overrides: Sequence[str], plugins: Sequence[Path], data_folder: Path | None) -> None:
    """Check a study against its data, timm and the registries. Writes nothing."""
    spec, _, preflight = checked_study(study, overrides, data_folder, plugins, every_image=True)
    table = Table(title=f"{study}: valid")
    for column in ("network", "parameters", "MACs", "layers"):
        table.add_column(column, justify="left" if column in {"network", "layers"} else "right")
    for name, shape in preflight.shapes.items():
        layers = "  ".join(f"{tap.layer} {'x'.join(map(str, tap.shape))}" for tap in shape.taps)
        table.add_row(name, f"{shape.params:,}", f"{shape.macs:,}", layers)
    console.print(table)
    data = preflight.data
    images = f"images of {data.image_shape}" if any(data.image_shape) else f"{data.test} samples without images"
    console.print(f"{spec.data.dataset}: {images}, {len(data.class_names)} classes")
