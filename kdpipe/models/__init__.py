"""Networks: built with timm, tapped, profiled, saved and loaded.

>>> from kdpipe.models import read_network
>>> network = read_network("weights/digits/teacher.safetensors")   # doctest: +SKIP
"""

from kdpipe.models.literature import LITERATURE
from kdpipe.models.saved import read_network

__all__ = ["LITERATURE", "read_network"]
