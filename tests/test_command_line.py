"""The command line: its commands are those that its help, its docs and its modules say, and it starts light."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from kdpipe import __version__
from kdpipe.cli.main import COMMANDS, kdpipe

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def typed(*words: str) -> Result:
    return CliRunner().invoke(kdpipe, words)


def lines_to_type() -> list[list[str]]:
    """Every command line of README, without ``kdpipe`` and comments, as words."""
    code = [block or inline for block, inline in re.findall(r"```sh\n(.*?)```|`(kdpipe [^`\n]+)`", README, re.S)]
    lines = [line.partition("#")[0] for text in code for line in text.splitlines()]
    return [line.split()[1:] for line in lines if line.startswith("kdpipe ")]


def command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that ``words`` reach, and what is left of them."""
    found: click.Command = kdpipe
    ctx = click.Context(kdpipe)
    if words[0].endswith(".toml"):
        words = ["run", *words]
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        deeper = found.get_command(ctx, words[0])
        assert deeper is not None, words
        found, words = deeper, words[1:]
    return found, words


def test_help_lists_every_command_with_its_summary() -> None:
    said = " ".join(typed("--help").output.split())
    for name, summary in COMMANDS.items():
        assert f"{name} {summary}" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_of_itself_what_the_list_says(name: str) -> None:
    told = " ".join(typed(name, "--help").output.split())
    assert COMMANDS[name].removesuffix(".") in told


def test_readme_names_commands_and_options_that_exist() -> None:
    lines = lines_to_type()
    assert {words[0] for words in lines} >= {"validate", "plan", "judge", "cache", "app"}
    for words in lines:
        found, rest = command(words)
        known = {option for parameter in found.get_params(click.Context(found)) for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, words


def test_a_study_file_alone_is_run(tmp_path: Path) -> None:
    study = str(tmp_path / "none.toml")
    for words in ([study], ["run", study], ["--device", "cpu", study]):
        assert "there is no such study file" in str(typed(*words, "--threads", "1").exception), words


def test_a_command_that_is_none_is_not_taken_for_a_study() -> None:
    done = typed("valdate", "x.toml")
    assert done.exit_code == 2 and "No such command 'valdate'" in done.output


def test_the_version_names_the_commit() -> None:
    said = typed("--version").output
    assert re.fullmatch(rf"kdpipe {re.escape(__version__)}( \(commit [0-9a-f]{{40}}(\+dirty)?\))?\n", said)


def test_kinds_that_are_none_are_named_before_anything_runs(tmp_path: Path) -> None:
    done = typed("run", "x.toml", "--only", "teachr")
    assert "did you mean 'teacher'" in str(done.exception)


def test_the_app_asks_for_a_folder_that_is_there(tmp_path: Path) -> None:
    done = typed("app", "--artifacts", str(tmp_path / "none"))
    assert "there is no such folder" in str(done.exception)


@pytest.mark.parametrize("missing", ["torch", "rich"])
def test_without_the_extra_a_command_says_what_to_install(missing: str) -> None:
    """Light commands do without; the others say it in one sentence."""
    program = f"import sys; sys.modules[{missing!r}] = None\nfrom kdpipe.cli.main import main; main()"

    def alone(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, env=environment, timeout=300
        )

    done = alone("run", "x.toml")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "not installed" in done.stderr and "kdpipe[precompute]" in done.stderr and done.stderr.count("\n") == 1
    assert alone("--version").stdout.startswith(f"kdpipe {__version__}")
    assert "--port" in alone("app", "--help").stdout
