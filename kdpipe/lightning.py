"""The recorder as a callback of Lightning: ``Trainer(callbacks=[RecorderCallback(...)])``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from kdpipe.recording import Recorder


class RecorderCallback(Callback):
    """Records a module before its first step, every so many steps, and at the end, when it writes the folder.

    Args:
        folder: ends in ``.vectors``, which is added where it is missing.
        layers: paths of modules of the LightningModule, such as ``"model.layer1"``.
        probe: inputs, labels and ids, as of :class:`kdpipe.Recorder`; a pass is that of the module's ``forward``.
        every_n_steps: of the optimizer.
        about: role, seed and so on, as of :class:`kdpipe.Recorder`.
    """

    def __init__(
        self,
        folder: str | Path,
        layers: Sequence[str],
        probe: tuple[Any, Any, Any],
        *,
        every_n_steps: int,
        **about: Any,
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be 1 or more, not {every_n_steps}.")
        self.folder, self.layers, self.probe = folder, layers, probe
        self.every_n_steps, self.about = every_n_steps, about
        self.recorder: Recorder | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the recorder, now that the module is on its device, and look at the module as it starts."""
        if trainer.is_global_zero:
            self.recorder = Recorder(pl_module, self.layers, self.probe, **self.about)
            self._record(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look, where this many steps are done."""
        if trainer.global_step % self.every_n_steps == 0:
            self._record(trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look once more, and write what was recorded."""
        self._record(trainer.global_step)
        if self.recorder is not None:
            self.recorder.save(self.folder)

    def _record(self, step: int) -> None:
        """Once for each step: with accumulated gradients several batches are one step."""
        if self.recorder is not None and step not in self.recorder.found:
            self.recorder.record(step)
