"""kdpipe shows why knowledge distillation works: every layer of teacher and students, side by side.

>>> import kdpipe
>>> study = kdpipe.load_study("digits")   # doctest: +SKIP
>>> study.layer_measures                  # doctest: +SKIP
"""

from kdpipe.artifacts.store import Study, load_study
from kdpipe.vectors.write import write_vectors

__version__ = "0.2.0"  # the one place: the package's metadata are built from it
__all__ = ["Study", "__version__", "load_study", "write_vectors"]
