"""The machine a study ran on: what timings must be read with, and no claim of identity may."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from kdpipe.errors import KdpipeError


def resolve_device(wanted: str) -> str:
    """``auto``, ``cpu`` or ``cuda`` as a device that is there.

    Raises:
        KdpipeError: ``cuda`` where torch sees no such device.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise KdpipeError("--device cuda: torch sees no CUDA device here; install a CUDA build, or use --device cpu.")
    return "cuda" if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()) else "cpu"


def describe_hardware(device: str) -> dict[str, Any]:
    """Processor, cores, threads and accelerator."""
    accelerator = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
