"""Outputs of finished stages, addressed by content, built aside and renamed: never half there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdpipe.engine.stage import Clock, Stage, Task
from kdpipe.files import flush_folder, scratch_folder, sha256_of, sweep

MANIFEST = "manifest.json"


def dropped(manifest: Mapping[str, Any]) -> frozenset[str]:
    """Names of the files that a thinned output once had."""
    return frozenset(manifest.get("dropped", ()))


class Cache:
    """Outputs of finished stages, one folder a key."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._trusted: set[str] = set()

    def path(self, stage: Stage) -> Path:
        """The folder of a stage's output, whether it is there or not."""
        return self.root / "stages" / stage.kind / stage.key

    def manifest(self, stage: Stage) -> dict[str, Any]:
        """What the output says of itself: its stage, its files with their sha256, and the seconds it took."""
        return json.loads((self.path(stage) / MANIFEST).read_text())

    def has(self, stage: Stage) -> bool:
        """Whether the stage's output is there and undamaged; of a thinned one, what was kept of it."""
        if stage.key in self._trusted:
            return True
        folder = self.path(stage)
        try:
            manifest = self.manifest(stage)
            kept = {name: digest for name, digest in manifest["files"].items() if name not in dropped(manifest)}
            whole = all(sha256_of(folder / name) == digest for name, digest in kept.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if whole:
            self._trusted.add(stage.key)
        return whole

    def thinned(self, stage: Stage) -> bool:
        """Whether files of the output were left behind (:mod:`kdpipe.engine.archive`), so that no stage can read it."""
        return bool(dropped(self.manifest(stage)))

    def drop(self, stage: Stage) -> None:
        """Delete a stage's output, if it is there."""
        self._trusted.discard(stage.key)
        shutil.rmtree(self.path(stage), ignore_errors=True)

    @contextlib.contextmanager
    def building(self) -> Iterator[Path]:
        """A hidden folder for outputs that are being made; what is not published when the block ends is removed.

        One for a whole batch, since each is locked by a file descriptor, of which a process has not many.
        """
        with scratch_folder(self.root / "stages", ".building-") as folder:
            yield folder

    def open_task(self, stage: Stage, building: Path, clock: Clock) -> Task:
        """A task with a new folder to write to in :meth:`building`, which becomes the output when it is finished."""
        self.path(stage).parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=building, prefix=f"{stage.kind}-{stage.key}-"))
        inputs = {name: self.path(needed) for name, needed in stage.inputs.items()}
        anew = self.path(stage).exists()
        return Task(stage, folder, inputs, lambda task: self._publish(task, clock.lap()), anew)

    def _publish(self, task: Task, seconds: float) -> None:
        """Move a task's folder into the cache.

        An output that another run published meanwhile stays, as that run may be reading it.
        """
        folder, stage = task.folder, task.stage
        files = {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}
        manifest = {
            "kind": stage.kind,
            "name": stage.name,
            "version": stage.version,
            "params": stage.params,
            "inputs": {name: needed.key for name, needed in stage.inputs.items()},
            "files": dict(sorted(files.items())),
            "seconds": seconds,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
        os.chmod(folder, 0o755)
        if not stage.function.light:
            flush_folder(folder)
        try:
            os.replace(folder, self.path(stage))
        except OSError:
            if task.anew or not self.has(stage):
                self._swap(folder, self.path(stage))
            else:
                shutil.rmtree(folder, ignore_errors=True)
        self._trusted.add(stage.key)

    @staticmethod
    def _swap(folder: Path, target: Path) -> None:
        """Put ``folder`` in the place of ``target``, which is gone for no longer than two renames take."""
        old = Path(tempfile.mkdtemp(dir=folder.parent, prefix="replaced-"))
        try:
            while True:
                with contextlib.suppress(FileNotFoundError):  # another run is swapping it too
                    os.replace(target, old)
                try:
                    return os.replace(folder, target)
                except OSError as error:
                    if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                        raise
                    shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(old, ignore_errors=True)

    def size(self) -> tuple[int, int]:
        """Finished stages, and bytes in all."""
        files = [path for path in self.root.rglob("*") if path.is_file()] if self.root.is_dir() else []
        return sum(path.name == MANIFEST for path in files), sum(path.stat().st_size for path in files)

    def clean(self) -> int:
        """Delete every output and what killed runs left, and return how many bytes that freed.

        Only folders that carry a manifest, or the hidden names of unfinished outputs, are touched: a folder
        that was named by mistake keeps what is in it. Logs stay, and what a living run is building.
        """
        outputs = [manifest.parent for manifest in self.root.glob(f"stages/*/*/{MANIFEST}")]
        resume = [path for path in self.root.glob("scratch/resume/*.pt") if path.is_file()]
        freed = self.sweep()
        for folder in outputs:
            freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            shutil.rmtree(folder, ignore_errors=True)
        for path in resume:
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
        self._trusted.clear()
        return freed

    def sweep(self) -> int:
        """Remove what killed runs left unfinished; returns the bytes that this freed.

        What a living run is building stays.
        """
        left = ("stages/.*", "stages/*/.*", "scratch/ivis-*", "scratch/resume/.*")
        return sum(sweep(self.root.glob(pattern)) for pattern in left)
