"""kdpipe shows why knowledge distillation works: every layer of teacher and students, side by side.

>>> import kdpipe
>>> study = kdpipe.load_study("digits")   # doctest: +SKIP
>>> study.layer_measures                  # doctest: +SKIP
"""

from importlib import import_module
from typing import Any

from kdpipe.artifacts.store import Study, load_study

__version__ = "0.2.0"  # the one place: the package's metadata are built from it
__all__ = ["Recorder", "Study", "__version__", "load_study", "study_of", "write_vectors"]

# Imported when they are asked for: torch takes seconds, or is not there.
_LATER = {"Recorder": "kdpipe.recording", "study_of": "kdpipe.notebook", "write_vectors": "kdpipe.vectors.write"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'kdpipe' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return __all__
