"""Adam and the learning rate as a function of progress, so that a resumed training needs no scheduler state."""
from __future__ import annotations

import math

import torch
from torch import nn

from snnseg.sections import Optim


def build(optim: Optim, model: nn.Module) -> torch.optim.Adam:
    """Adam as in section 5.1.2; the authors' code adds weight decay 5e-4 and amsgrad. One pass over each weight."""
    return torch.optim.Adam(model.parameters(), lr=optim.lr, weight_decay=optim.weight_decay, amsgrad=optim.amsgrad, fused=True)


def learning_rate(optim: Optim, step: int, steps: int, epoch: int, epochs: int) -> float:
    """The rate of step `step` of `steps`, in epoch `epoch` of `epochs` (all from 0).

    multistep: times gamma at each milestone, a share of all epochs (the paper: once, at a half).
    cosine: half a cosine from lr to 0, step by step.
    """
    if optim.schedule == "multistep":
        return optim.lr * optim.gamma ** sum(epoch >= round(share * epochs) for share in optim.milestones)
    if optim.schedule == "cosine":
        return optim.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
    return optim.lr
