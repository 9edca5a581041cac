"""Distillation methods: pure losses on plain tensors, and the one registry that studies name.

>>> from kdpipe.methods import kd_loss
>>> loss = kd_loss(logits_student, logits_teacher, temperature=4.0)   # doctest: +SKIP

``METHODS.register`` adds a method of your own.
"""

from kdpipe.methods import (
    boundaries,
    channels,
    classifiers,
    consistency,
    contrastive,
    controls,
    cross_layer,
    explanation,
    factor_transfer,
    features,
    flow,
    generation,
    logits,
    overhaul,
    projections,
    pyramids,
    refined,
    relations,
    scales,
    selectivity,
    singular_vectors,
    temperature,
    tokens,
    wasserstein,
)
from kdpipe.methods.base import Method, Pair, Parameters, Step, Terms
from kdpipe.methods.boundaries import ab_loss
from kdpipe.methods.channels import ickd_loss
from kdpipe.methods.classifiers import catkd_loss, ofa_loss, simkd_loss
from kdpipe.methods.contrastive import ContrastiveMemory, crd_loss
from kdpipe.methods.cross_layer import semckd_loss
from kdpipe.methods.explanation import e2kd_loss, grad_cam
from kdpipe.methods.factor_transfer import ft_loss
from kdpipe.methods.features import at_loss, fitnet_loss, vid_loss
from kdpipe.methods.flow import fsp_loss
from kdpipe.methods.generation import mgd_loss, vitkd_loss
from kdpipe.methods.logits import dkd_loss, kd_loss, lskd_loss, nkd_loss, ttm_loss, wttm_loss
from kdpipe.methods.logits_relational import dist_loss, mlkd_loss
from kdpipe.methods.overhaul import ofd_loss
from kdpipe.methods.projections import projected_loss, srd_loss, srrl_loss, vkd_loss
from kdpipe.methods.pyramids import reviewkd_loss
from kdpipe.methods.refined import rld_loss
from kdpipe.methods.relations import cc_loss, pkt_loss, rkd_loss, sp_loss
from kdpipe.methods.scales import region_logits, sdd_loss
from kdpipe.methods.selectivity import nst_loss
from kdpipe.methods.singular_vectors import kdsvd_loss
from kdpipe.methods.temperature import ctkd_loss
from kdpipe.methods.tokens import deit_loss
from kdpipe.methods.wasserstein import class_costs, wkdf_loss, wkdl_loss
from kdpipe.registry import Registry

_FAMILIES = (
    controls,
    logits,
    temperature,
    refined,
    scales,
    wasserstein,
    tokens,
    features,
    pyramids,
    projections,
    generation,
    cross_layer,
    factor_transfer,
    boundaries,
    flow,
    singular_vectors,
    overhaul,
    channels,
    classifiers,
    relations,
    selectivity,
    contrastive,
    explanation,
    consistency,
)
METHODS: Registry[Method] = Registry("method", (method for family in _FAMILIES for method in family.METHODS))

__all__ = [
    "METHODS",
    "ContrastiveMemory",
    "Method",
    "Pair",
    "Parameters",
    "Step",
    "Terms",
    "ab_loss",
    "at_loss",
    "catkd_loss",
    "cc_loss",
    "class_costs",
    "crd_loss",
    "ctkd_loss",
    "deit_loss",
    "dist_loss",
    "dkd_loss",
    "e2kd_loss",
    "fitnet_loss",
    "fsp_loss",
    "ft_loss",
    "grad_cam",
    "ickd_loss",
    "kd_loss",
    "kdsvd_loss",
    "lskd_loss",
    "mgd_loss",
    "mlkd_loss",
    "nkd_loss",
    "nst_loss",
    "ofa_loss",
    "ofd_loss",
    "pkt_loss",
    "projected_loss",
    "region_logits",
    "reviewkd_loss",
    "rkd_loss",
    "rld_loss",
    "sdd_loss",
    "semckd_loss",
    "simkd_loss",
    "sp_loss",
    "srd_loss",
    "srrl_loss",
    "ttm_loss",
    "vid_loss",
    "vitkd_loss",
    "vkd_loss",
    "wkdf_loss",
    "wkdl_loss",
    "wttm_loss",
]
