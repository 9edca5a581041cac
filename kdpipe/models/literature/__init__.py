"""Networks of the literature: what papers on distillation compare on, under names of timm and with weights that fit.

They are written from the papers of the architectures. Modules and tensors are called and shaped as in RepDistiller
and mdistiller, so that weights published there load. Importing this package tells timm of them.
"""

from kdpipe.models.literature.registry import LITERATURE, LiteratureNetwork, published_as

__all__ = ["LITERATURE", "LiteratureNetwork", "published_as"]
