"""A look at a network in training that leaves no trace: what is learned is the same to the bit, looked at or not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from kdpipe.models.hooked import without_fast_path


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, without gradients and autocast; then all as it was.

    That is each module's own mode, its buffers (some count or average even in eval mode), and the random numbers of
    torch on every device, of NumPy and of Python. Attention goes its plain way, whose layers can be read.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    values = {buffer: buffer.clone() for buffer in model.buffers()}
    numpy_state, python_state = np.random.get_state(), random.getstate()
    device = next((tensor.device.type for tensor in [*model.parameters(), *model.buffers()]), "cpu")
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices), torch.no_grad(), torch.autocast(device, enabled=False):
        model.eval()
        try:
            with without_fast_path():
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            for module, own in buffers:
                module._buffers.update(own)
            for buffer, value in values.items():
                buffer.copy_(value)
            np.random.set_state(numpy_state)
            random.setstate(python_state)
