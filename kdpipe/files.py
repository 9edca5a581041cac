"""Files that are either whole or not there: atomic writes, folder swaps, content hashes.

What is being written lies under a hidden name until it is whole, and its process holds a lock on it, which the
kernel takes back however the process ends. So what a killed process left is told from what another one is writing
by asking for the lock: no clock and no process number is trusted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON with one spelling for one value: sorted keys, no spaces. What keys are made from."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a temporary file that becomes ``target`` if the block ends well, and vanishes if not.

    It lies next to the target under a name of its own, so that two processes may write the same target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(_unfinished(target))

    def make() -> Path:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target))
        os.close(handle)
        return Path(name)

    with _held(make) as temporary:
        try:
            yield temporary
            temporary.chmod(0o644)
            _flush(temporary)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file or nothing."""
    with new_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def flush_folder(folder: Path) -> None:
    """Force every file of a folder, and the folder itself, to disk before it is renamed."""
    for path in [*folder.rglob("*"), folder]:
        _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``target`` if the block ends well, and vanishes if not.

    An existing ``target`` is replaced whole. A run killed between the two renames leaves the old
    folder next to the target under a dotted name; :func:`recover_folder` puts it back.

    Raises:
        FileExistsError: the target is a file.
    """
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target} is a file, where a folder is to be written")
    target.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(target)
    with scratch_folder(target.parent, _prefix(target)) as building:
        try:
            yield building
            os.chmod(building, 0o755)
            flush_folder(building)
            with _alone_in(target.parent):
                if target.exists():
                    shutil.rmtree(_old(target), ignore_errors=True)
                    os.replace(target, _old(target))
                os.replace(building, target)
        finally:
            recover_folder(target)


def recover_folder(target: Path) -> None:
    """Remove what killed runs left of ``target``; one that was killed half-way through a swap is undone."""
    if not target.parent.is_dir():
        return
    with _alone_in(target.parent):
        old = _old(target)
        if old.is_dir() and not target.exists():
            os.replace(old, target)
        shutil.rmtree(old, ignore_errors=True)
    sweep(_unfinished(target))


def _old(target: Path) -> Path:
    return target.parent / f".{target.name}.old"


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder in ``parent`` that is removed when the block ends; :func:`sweep` takes it after a kill."""
    parent.mkdir(parents=True, exist_ok=True)
    with _held(lambda: Path(tempfile.mkdtemp(dir=parent, prefix=prefix))) as folder:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(paths: Iterable[Path]) -> int:
    """Remove those temporary files and folders that no living process is writing; returns the bytes that this freed."""
    freed = 0
    for path in paths:
        with contextlib.suppress(OSError), _opened(path) as descriptor:  # held, gone, or on a disk without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            freed += _size(path)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
    return freed


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _prefix(target: Path) -> str:
    return f".{target.name}.new-"


def _unfinished(target: Path) -> list[Path]:
    return [path for path in target.parent.iterdir() if path.name.startswith(_prefix(target))]


@contextlib.contextmanager
def _held(make: Callable[[], Path]) -> Iterator[Path]:
    """What ``make`` makes, locked until the block or the process ends."""
    with contextlib.ExitStack() as stack:
        path = make()
        while not _lock(path, stack):  # another process swept it between its making and its locking
            path = make()
        yield path


def _lock(path: Path, stack: contextlib.ExitStack) -> bool:
    """Lock ``path`` until ``stack`` closes; whether it is still there."""
    try:
        descriptor = stack.enter_context(_opened(path))
    except FileNotFoundError:
        return False
    with contextlib.suppress(OSError):  # a disk without locks: nothing is ever swept there
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return path.exists()


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process is renaming folders of ``folder``."""
    with _opened(folder.resolve()) as descriptor:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
