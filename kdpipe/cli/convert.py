"""``kdpipe convert``: a checkpoint from anywhere, made a file that a study takes as its teacher."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from kdpipe.cli import options
from kdpipe.cli.inputs import console
from kdpipe.cli.trial import read_test_images, try_on
from kdpipe.config.study_file import toml_value
from kdpipe.data.sources.base import data_root
from kdpipe.engine.hardware import resolve_device
from kdpipe.errors import DataError, NetworkError, StudyError
from kdpipe.models.conversion import Conversion, Scaling, usual_shape
from kdpipe.models.conversion import convert as convert_checkpoint
from kdpipe.models.fit import nearest
from kdpipe.models.origins import origin_of

CHECKPOINT_SUFFIXES = (".bin", ".ckpt", ".index", ".json", ".pkl", ".pt", ".pth", ".safetensors", ".tar", ".th")
SHOWN = 12  # tensors of each kind that the table names


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them, one a channel."""

    name = "NUMBER,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers such as 0.485,0.456,0.406.", param, ctx)


@click.command()
@click.argument("file", metavar="FILE", type=options.PLACE)
@click.option(
    "--like",
    required=True,
    metavar="ARCH",
    help="timm's name of the network, or MODELS.py:FUNCTION for a network of your own.",
)
@click.option(
    "--argument",
    "arguments",
    metavar="NAME=VALUE",
    multiple=True,
    help="Of timm's network or of your function, as in a study's arguments; repeatable.",
)
@click.option("--stem", type=click.Choice(["default", "small"]), default="default", help="As in a study file.")
@click.option("--stem-stride", type=click.Choice(["1", "2"]), help="Of a small stem; no tensor tells it.")
@click.option("--classes", type=click.IntRange(min=1), help="Number of classes.  [default: the file's]")
@click.option("--mean", type=Numbers(), help="Of each channel in [0, 1], in its training.  [default: timm's]")
@click.option("--std", type=Numbers(), help="Of each channel in [0, 1], in its training.  [default: timm's]")
@click.option(
    "--image-size", type=click.IntRange(4, 1024), help="Side of its images.  [default: the data's, or timm's]"
)
@click.option("--key", help="Where in the file the network lies, if there are several.")
@click.option("--ema", is_flag=True, help="Take averaged weights instead of raw ones.")
@click.option("--allow-missing", metavar="NAME", multiple=True, help="Module that may be made anew; repeatable.")
@click.option("--allow-extra", metavar="NAME", multiple=True, help="Module of the file to leave out; repeatable.")
@click.option(
    "--data", type=options.PLACE, help="Folder of images, or study file: show the accuracy on its test images."
)
@options.data_folder
@click.option("--device", type=options.DEVICES, default="auto", help="Where the accuracy is computed.")
@click.option("--output", type=options.PLACE, help="File to write.  [default: FILE with .safetensors at its end]")
def convert(
    file: Path,
    like: str,
    arguments: Sequence[str],
    stem: str,
    stem_stride: str | None,
    classes: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    image_size: int | None,
    key: str | None,
    ema: bool,
    allow_missing: Sequence[str],
    allow_extra: Sequence[str],
    data: Path | None,
    data_folder: Path | None,
    device: str,
    output: Path | None,
) -> None:
    """Make a checkpoint of another program a file that a study and kdpipe look take.

    FILE is read as tensors alone, nothing in it is executed. It is written anew only if all that matters fits.
    """
    if stem == "small" and stem_stride is None:
        raise StudyError("--stem-stride: a small stem has stride 1 or 2, which no tensor tells; say which.")
    if (mean is None) != (std is None):
        raise StudyError("--mean and --std belong together; give both.")
    target = _target(file, output)
    factory = like if re.search(r"\.py(:|$)", like) else None
    if factory and stem != "default":
        raise StudyError(f"--stem: {like} makes its own stem; leave --stem and --stem-stride out.")
    side = image_size or (None if factory or stem == "small" else usual_shape(like)[1])
    try:
        images = None if data is None else read_test_images(data, data_root(data_folder), image_size, side)
    except DataError as error:
        raise DataError(str(error).replace("data.image_size", "the image size (--image-size)")) from None
    if factory and images is not None:
        classes = classes or len(images.class_names)
    if factory and (classes is None or mean is None or (image_size is None and images is None)):
        raise StudyError(
            f"--like {like}: nobody but you knows what it was trained on; give --mean, --std, --classes and "
            "--image-size (--data tells the last two as well)."
        )
    conversion = convert_checkpoint(
        file,
        None if factory else like,
        factory=factory,
        arguments=dict(_argument(text) for text in arguments),
        stem=stem,
        stem_stride=int(stem_stride or 2),
        classes=classes,
        image_size=image_size if images is None else images.size,
        scaling=None if mean is None or std is None else Scaling(mean, std),
        key=key,
        ema=ema,
        allow_missing=allow_missing,
        allow_extra=allow_extra,
    )
    _show(conversion, file)
    if conversion.problem is not None:
        raise NetworkError(conversion.problem)
    if images is not None:
        trial = try_on(conversion, images, resolve_device(device))
        _say(str(trial))
    conversion.write(target)
    _show_lines(conversion, target, factory)


def _target(file: Path, output: Path | None) -> Path:
    """The file to write: never the one that is read, and none in the way unless it is named."""
    target = output or _named_anew(file)
    if target.suffix != ".safetensors":
        raise StudyError(f"--output {target} must end in .safetensors, or no study could read it.")
    if output is None and target.exists():
        raise StudyError(f"{target} is there already; name the file to write with --output.")
    if target.exists() and file.exists() and target.samefile(file):
        raise StudyError(f"--output {target} is the file that is read; name another.")
    return target


def _named_anew(file: Path) -> Path:
    """``best.pth.tar`` as ``best.safetensors``."""
    stem = Path(file.name)
    while stem.suffix in CHECKPOINT_SUFFIXES:
        stem = stem.with_suffix("")
    return file.with_name(f"{stem}.safetensors")


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise StudyError(f"--argument {text!r}: write it as NAME=VALUE, such as img_size=32.")
    return name.strip(), toml_value(value)


# ------------------------------------------------------------------------------------------- what fits


def _say(line: str) -> None:
    """A line as it stands: paths and commands in it are to be copied."""
    console.print(escape(line), highlight=False, soft_wrap=True)


def _show(conversion: Conversion, file: Path) -> None:
    """What was taken from the file, and how it fits."""
    fit, reading = conversion.fit, conversion.reading
    taken = f"from {reading.key!r}" if reading.key else "from the file itself"
    words = f", by {reading.convention}" if reading.convention else ""
    _say(f"{file}: weights {taken}{words}")
    if conversion.others:
        kind = "averaged" if reading.averaged else "raw"
        there = ", ".join(map(repr, conversion.others))
        _say(f"The {kind} weights were taken; others that fit: {there} (--key, --ema).")
    if reading.arguments:
        said = ", ".join(f"{name} = {json.dumps(value)}" for name, value in reading.arguments.items())
        _say(f"To compute the same, timm's network is made with {said}.")
    _say(
        f"{origin_of(conversion.spec)}: {len(fit.fitting)} of {fit.tensors} tensors fit, {len(fit.missing)} missing, "
        f"{len(fit.misfits)} of another shape, {len(fit.left_over)} left over."
    )
    if not fit.whole:
        console.print(_table(conversion))


def _table(conversion: Conversion) -> Table:
    """The tensors that do not fit, each beside the name that it may have on the other side."""
    fit, table = conversion.fit, Table()
    for column in ("", "tensor", "shape", "perhaps"):
        table.add_column(column, overflow="fold")
    absent = fit.missing
    for name, shape in list(absent.items())[:SHOWN]:
        near = nearest(name, shape, fit.left_over)
        table.add_row("missing", name, str(shape), near and f"{near} {fit.left_over[near]} in the file")
    for misfit in fit.misfits[:SHOWN]:
        table.add_row("other shape", misfit.name, f"{misfit.theirs}, not {misfit.own}", "")
    for name, shape in list(fit.left_over.items())[:SHOWN]:
        near = nearest(name, shape, absent)
        table.add_row("left over", name, str(shape), near and f"{near} {absent[near]} in the network")
    for kind, count in (("missing", len(absent)), ("other shape", len(fit.misfits)), ("left over", len(fit.left_over))):
        if count > SHOWN:
            table.add_row(kind, f"… and {count - SHOWN} more", "", "")
    return table


def _show_lines(conversion: Conversion, target: Path, factory: str | None) -> None:
    """What was written, and the lines of a study file that take it."""
    scaling, (_, height, width) = conversion.scaling, conversion.image_shape
    numbers = [", ".join(f"{value:.4g}" for value in values) for values in (scaling.mean, scaling.std)]
    _say(
        f"{target}: {origin_of(conversion.spec)}, {conversion.classes} classes, images of {height} x {width}, "
        f"scaled by mean {numbers[0]} and std {numbers[1]} ({scaling.origin})."
    )
    if conversion.untrained:
        training = "training = { steps = 1000 }   # its classifier is new and must be trained"
    else:
        training = "training = { steps = 0 }   # as it comes; any other number trains it on"
    _say(f"For kdpipe look: {target if factory is None else f'{factory}@{target}'}")
    made_by = "" if factory is None else f"factory = {json.dumps(factory, ensure_ascii=False)}\n"
    _say(f"In a study:\n\n[teacher]\n{made_by}checkpoint = {json.dumps(str(target), ensure_ascii=False)}\n{training}")
