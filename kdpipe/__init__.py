"""kdpipe shows why knowledge distillation works: every layer of teacher and students, side by side.

>>> import kdpipe
>>> study = kdpipe.load_study("digits")   # doctest: +SKIP
>>> study.layer_measures                  # doctest: +SKIP
"""

from importlib import import_module
from typing import Any

from kdpipe.artifacts.store import Study, load_study
from kdpipe.vectors.write import write_vectors

__version__ = "0.2.0"  # the one place: the package's metadata are built from it
__all__ = ["Recorder", "Study", "__version__", "load_study", "write_vectors"]

_WITH_TORCH = {"Recorder": "kdpipe.recording"}  # imported when it is asked for: torch takes seconds, or is not there


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module 'kdpipe' has no attribute {name!r}")
    return getattr(import_module(_WITH_TORCH[name]), name)
