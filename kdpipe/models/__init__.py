"""Networks: built with timm, from people's own code or from transformers' folders; tapped, profiled, saved and loaded.

>>> from kdpipe.models import read_network
>>> network = read_network("weights/digits/teacher.safetensors")   # doctest: +SKIP
"""

from kdpipe.models.conversion import Conversion, Scaling, convert
from kdpipe.models.factories import name_factory, register_module
from kdpipe.models.literature import LITERATURE
from kdpipe.models.saved import read_network

__all__ = ["LITERATURE", "Conversion", "Scaling", "convert", "name_factory", "read_network", "register_module"]
