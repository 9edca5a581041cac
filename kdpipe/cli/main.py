"""The command line: which commands there are, and what becomes of errors.

A command's module is imported when the command is asked for, because most need torch, which takes seconds to
import and is not there where only the app is installed.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click
import polars as pl

from kdpipe import __version__
from kdpipe.errors import DataError, KdpipeError, NetworkError, StudyError
from kdpipe.source import commit

COMMANDS = {
    "run": "Run what is missing of a study and write its artifacts (the default command).",
    "look": "Look at finished networks: what distillation changed in yours. Trains nothing.",
    "plan": "Show what would run, what is cached, and roughly what it would cost.",
    "validate": "Check a study against its data, timm and the registries.",
    "convert": "Make a checkpoint of another program a file that a study and kdpipe look take.",
    "judge": "Judge a finished study again from its artifacts, without a network.",
    "migrate": "Bring a finished study's artifacts to the present schema, without a network.",
    "cache": "Show, clean, pack and unpack finished stages.",
    "import": "Take vectors made elsewhere, and look at them as at a study's own.",
    "export": "Write a network of a finished study as ONNX and safetensors, with its card.",
    "app": "Open the pages on finished studies in a browser.",
}
MODULES = {"import": "import_vectors"}  # a command whose name is a word of Python


class Commands(click.Group):
    """The commands of :data:`COMMANDS`; ``kdpipe STUDY.toml`` is short for ``kdpipe run STUDY.toml``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = MODULES.get(name, name)
        command = getattr(importlib.import_module(f"kdpipe.cli.{module}"), module)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if args and args[0] not in own and args[0] not in COMMANDS and not args[0].isalpha():
            args = ["run", *args]
        return super().parse_args(ctx, args)


def version() -> str:
    """``0.2.0``, with the commit of the code where it is known."""
    return f"{__version__} (commit {commit()})" if commit() else __version__


def _show_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"kdpipe {version()}")
        ctx.exit()


@click.group(
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: kdpipe studies/digits.toml training.steps=200",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def kdpipe() -> None:
    """Train the networks of a study, look at every layer, and show what distillation changed."""


def main() -> None:
    """Run the command line; an error that a user can mend is one sentence and exit code 2 or 1."""
    # Idle OpenMP threads must not spin for long: on a machine that does anything else as well, two that
    # wait for each other by spinning hold up small networks. Set before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        with _ended_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            kdpipe()
    except (StudyError, DataError, NetworkError) as error:
        _fail(str(error), 2)
    except KdpipeError as error:
        _fail(str(error), 1)
    except (OSError, pl.exceptions.ComputeError) as error:  # polars says so of files; its other errors are bugs
        _fail(f"a file cannot be read or written ({error}): free space or choose another folder.", 1)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "kdpipe":
            raise
        _fail(
            f"this command needs {error.name.partition('.')[0]}, which is not installed here: "
            "install torch and torchvision, then pip install 'kdpipe[precompute]'.",
            1,
        )
    except Ended as ended:  # with the exit code by which shells say that a signal ended a process
        click.echo("Stopped; the next run goes on from the last finished stage.", err=True)
        raise SystemExit(128 + ended.signal) from None


class Ended(BaseException):
    """A signal asked the process to end; no Exception, as nobody may take it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


@contextmanager
def _ended_by(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals end the block by an exception, so that it cleans up; one that is ignored (nohup) stays ignored."""
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def end(number: int, _: FrameType | None) -> None:
        for each in taken:
            signal.signal(each, signal.SIG_DFL)  # whoever asks twice does not want to wait for the cleaning up
        raise Ended(number)

    try:
        for number in taken:
            signal.signal(number, end)
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"{click.style('error:', fg='red')} {message}", err=True)
    raise SystemExit(code) from None
