"""Python files of users: executed from the very bytes that were read, their mistakes told in one line."""

from __future__ import annotations

import sys
import traceback
import types
from pathlib import Path
from typing import Any

from kdpipe.errors import StudyError


def execute(path: Path, code: bytes, name: str) -> dict[str, Any]:
    """The names that a file binds, executed as the module ``name``. The bytes that were read run: no stale bytecode.

    Raises:
        StudyError: it is not valid Python, or fails as it is loaded; says on which line.
    """
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and pydantic look for a class's module there
    try:
        exec(compile(code, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise StudyError(f"{path}{line_of(error, path)}: {in_one_line(error)}") from None
    return dict(module.__dict__)


def line_of(error: BaseException, file: Path) -> str:
    """``, line N`` of the file, at which an error came up; nothing if it did not come from there."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        line = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == str(file)), None)
    return f", line {line}" if line else ""


def in_one_line(error: BaseException) -> str:
    """An error in one line: its type, unless that goes without saying, and the first line of its message."""
    if isinstance(error, SystemExit):
        return "it ends the program as it is loaded; what is named here is a module, not a script."
    if isinstance(error, SyntaxError):
        return f"not valid Python: {error.msg}."
    message = next(iter(str(error).strip().splitlines()), "")
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return f"{said}; install it first." if isinstance(error, ModuleNotFoundError) else said
