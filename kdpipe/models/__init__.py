"""Networks: built with timm, tapped, profiled, saved and loaded, and converted from other libraries' files.

>>> from kdpipe.models import read_network
>>> network = read_network("weights/digits/teacher.safetensors")   # doctest: +SKIP
"""

from kdpipe.models.conversion import Conversion, Scaling, convert
from kdpipe.models.saved import read_network

__all__ = ["Conversion", "Scaling", "convert", "read_network"]
