"""Optimisers of a training, and the running mean of weights that some are evaluated by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from kdpipe.config.training import TrainingSpec

State = dict[str, Tensor]


def make_optimizer(recipe: TrainingSpec, modules: Sequence[nn.Module]) -> Optimizer:
    """SGD, or AdamW (Loshchilov & Hutter, 2019); norms, biases and scalars decay only on request."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    spared = recipe.weight_decay if recipe.decay_norms else 0.0
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": spared},
    ]
    if recipe.optimizer == "adamw":
        first, second = recipe.betas
        return AdamW(groups, lr=recipe.lr, betas=(first, second))
    nesterov = recipe.nesterov and recipe.momentum > 0
    return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov)


def clip_gradients(optimizer: Optimizer, max_norm: float) -> None:
    """Scale all gradients by one factor where their joint L2 norm exceeds ``max_norm`` (Pascanu et al., 2013)."""
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_norm)


class RunningMean:
    """Exponential moving average of a network's weights and buffers (Polyak & Juditsky, 1992).

    After ``n`` steps, it decays by ``min(decay, (1 + n) / (10 + n))``, so that it does not remember initial weights
    in a short training. Counters, such as BatchNorm's number of batches, are those of the last step.

    Attributes:
        state: the mean so far, by the names of the network's state.
    """

    state: State

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        self.state = snapshot(network)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in what step ``step`` (from 0) left."""
        weight = 1 - min(self.decay, (2 + step) / (11 + step))
        for name, now in self.network.state_dict().items():
            mean = self.state[name]
            if mean.is_floating_point():
                mean.lerp_(now, weight)
            else:
                mean.copy_(now)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network with the mean as its weights, for as long as the block takes."""
        own = snapshot(self.network)
        self.network.load_state_dict(self.state)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def restore(self, state: State) -> None:
        """Go on from a mean that was saved.

        Raises:
            ValueError, RuntimeError: it is of another network.
        """
        if state.keys() != self.state.keys():
            raise ValueError("a mean of another network's weights")
        for name, saved in state.items():
            self.state[name].copy_(saved)


def snapshot(module: nn.Module) -> State:
    """A copy of a module's state that further training does not change."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
