"""Logits split at a class: its probability against all others' together, and the others' among themselves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_class(logits: Tensor, classes: Tensor) -> Tensor:
    """(B, K), true at each row's class (B,); a comparison, as it makes no device wait for the host."""
    return torch.arange(logits.shape[1], device=logits.device) == classes.unsqueeze(1)


def class_or_not(logits: Tensor, is_class: Tensor) -> Tensor:
    """Log-probabilities (B, 2) of one class a row and of all its other classes together."""
    log_p = F.log_softmax(logits, dim=1)
    return torch.stack(
        [log_p.masked_fill(~is_class, -torch.inf).logsumexp(1), log_p.masked_fill(is_class, -torch.inf).logsumexp(1)],
        dim=1,
    )


def among_others(logits: Tensor, left_out: Tensor) -> Tensor:
    """Log-probabilities (B, K) among the classes that are not left out; 0 at those that are, where nothing is summed.

    They leave before the softmax: a large negative number in their place would meet its limits at large
    logits, and log(softmax) would underflow. A row of which all is left out is all 0, without a gradient.
    """
    out = left_out & ~left_out.all(1, keepdim=True)
    return F.log_softmax(logits.masked_fill(out, -torch.inf), dim=1).masked_fill(left_out, 0.0)


def divergence(log_p_student: Tensor, log_p_teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of each row, (B,), from log-probabilities (B, K)."""
    return F.kl_div(log_p_student, log_p_teacher, reduction="none", log_target=True).sum(1)
