"""Finished stages in one small file, to go on elsewhere: what they found, without weights and vectors.

A study whose seeds are trained on several machines, or on one that is not kept, is carried from one to the next
with ``kdpipe cache pack`` and ``cache unpack``. What is left behind is named in the manifest. A later run
knows a packed stage as done, and makes it again only if a stage that is still missing has to read it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Collection, Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from kdpipe.engine.cache import MANIFEST, Cache, dropped
from kdpipe.engine.stage import Stage
from kdpipe.errors import KdpipeError
from kdpipe.files import scratch_folder, sha256_of, write_atomic

# Trained weights, vectors of the embedding stage, and neighbours: what fills a cache.
HEAVY = ("*.safetensors", "[0-9][0-9]-*.parquet", "reference-*.parquet", "neighbours.parquet", "passes.npz")
INDEX = "index.json"  # a damaged archive may end early without a word
UNPACKED = ("data", "probe")  # made again from the images in seconds, and much larger than all the rest
_MEMBER = re.compile(r"stages/[a-z-]+/[0-9a-f]{32}/[\w.-]+")
LARGEST = 1 << 30


def pack(cache: Cache, stages: Iterable[Stage], target: Path, whole: Collection[str] = ()) -> tuple[int, int]:
    """Write what the finished ones of ``stages`` found into ``target`` (tar.gz); whole or not at all.

    Args:
        whole: kinds that keep their weights and vectors, such as a teacher that other seeds are to learn from.

    Returns:
        the number of stages and of bytes written.

    Raises:
        KdpipeError: none of them is finished.
    """
    buffer, count, index = io.BytesIO(), 0, dict[str, str]()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        for stage in sorted({stage.key: stage for stage in stages}.values(), key=lambda stage: stage.key):
            if stage.kind in UNPACKED or not cache.has(stage):
                continue
            count += 1
            index |= _add(archive, cache, stage, stage.kind in whole)
        if not count:
            raise KdpipeError(f"there is nothing to pack: {cache.root} has no finished stage of this study.")
        _put(archive, INDEX, json.dumps(index).encode())
    write_atomic(target, buffer.getvalue())
    return count, len(buffer.getvalue())


def _add(archive: tarfile.TarFile, cache: Cache, stage: Stage, whole: bool) -> dict[str, str]:
    """Add what is kept of an output; returns the sha256 of each file by its name in the archive."""
    folder, manifest = cache.path(stage), cache.manifest(stage)
    heavy = {name for name in manifest["files"] if any(fnmatch(name, pattern) for pattern in HEAVY)}
    left = set[str]() if whole else heavy
    gone = sorted(left | dropped(manifest))
    kept = {name: (folder / name).read_bytes() for name in manifest["files"] if name not in gone}
    kept[MANIFEST] = json.dumps({**manifest, "dropped": gone}, indent=1).encode()
    files = {f"stages/{stage.kind}/{stage.key}/{name}": content for name, content in sorted(kept.items())}
    for name, content in files.items():
        _put(archive, name, content)
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _put(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    archive.addfile(info, io.BytesIO(content))


def unpack(cache: Cache, source: Path) -> tuple[int, int]:
    """Take the stages of a packed file into the cache; outputs that are there stay as they are.

    Returns:
        the number of stages taken and of those that were there.

    Raises:
        KdpipeError: the file is damaged, or holds something else than packed stages.
    """
    parent = cache.root / "stages"
    with scratch_folder(parent, ".unpacked-") as scratch:
        try:
            _read_to_the_end(source)
            _extract(source, scratch)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise KdpipeError(f"{source}: no packed stages can be read from it ({error}).") from None
        folders = sorted(path.parent for path in scratch.glob(f"stages/*/*/{MANIFEST}"))
        if _found(scratch) != _promised(scratch / INDEX):
            raise KdpipeError(f"{source}: it is damaged, as files are missing or changed in it; nothing was taken.")
        for folder in folders:
            _check(source, folder)
        taken = sum(_take(folder, parent / folder.parent.name / folder.name) for folder in folders)
    return taken, len(folders) - taken


def _read_to_the_end(source: Path) -> None:
    """Let gzip compare its checksum, which stands behind the end at which tar stops reading.

    A flipped bit may change a name wherever it is repeated, and so agree with itself.
    """
    size = 0
    with gzip.open(source) as stream:
        while part := stream.read(1 << 20):
            size += len(part)
            if size > 2 * LARGEST:
                raise KdpipeError(f"{source}: it unpacks to more than packed stages may hold; nothing was taken.")


def _extract(source: Path, scratch: Path) -> None:
    size = 0
    with tarfile.open(source, mode="r:gz") as archive:
        for member in archive:
            size += member.size
            name = PurePosixPath(member.name)
            known = member.name == INDEX or _MEMBER.fullmatch(member.name)
            if not member.isfile() or not known or ".." in name.parts or size > LARGEST:
                raise KdpipeError(f"{source}: {member.name[:80]!r} is no part of a packed stage; nothing was taken.")
            archive.extract(member, scratch, filter="data")


def _found(scratch: Path) -> dict[str, str]:
    """sha256 of every file that came out of the archive, by its name there."""
    files = [path for path in scratch.glob("stages/**/*") if path.is_file()]
    return {path.relative_to(scratch).as_posix(): sha256_of(path) for path in files}


def _promised(index: Path) -> Any:
    try:
        return json.loads(index.read_text())
    except (OSError, ValueError):
        return None


def _check(source: Path, folder: Path) -> None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        kept = {name: digest for name, digest in manifest["files"].items() if name not in dropped(manifest)}
        whole = manifest["kind"] == folder.parent.name
        whole = whole and all(sha256_of(folder / name) == digest for name, digest in kept.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise KdpipeError(f"{source}: stage {folder.parent.name}/{folder.name} is damaged; nothing was taken.")


def _take(folder: Path, target: Path) -> bool:
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o755)
    shutil.move(folder, target)
    return True
