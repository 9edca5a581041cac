"""Distillation methods: pure losses on plain tensors, and the one registry that studies name.

>>> from kdpipe.methods import kd_loss
>>> loss = kd_loss(logits_student, logits_teacher, temperature=4.0)   # doctest: +SKIP
"""

from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.controls import PLAIN, SECOND_SEED
from kdpipe.methods.features import FITNET, fitnet_loss
from kdpipe.methods.logits import KD, kd_loss

METHODS: dict[str, Method] = {method.name: method for method in (PLAIN, SECOND_SEED, KD, FITNET)}

__all__ = ["METHODS", "Method", "Pair", "Parameters", "Step", "Terms", "fitnet_loss", "kd_loss"]
