"""Adam, and the learning rate as a function of progress, so that a resumed training needs no scheduler state."""
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from snnseg.sections import Optim


def _rows(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Views whose last axis is innermost in memory, of weights that have their channels there: torch's function copies a gradient that is not so."""
    return [x.permute(0, 2, 3, 1) if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) else x for x in tensors]


class Adam:
    """Kingma and Ba 2015 by torch's own fused function, one pass over each weight.

    `torch.optim.Adam` around the same function loads torch's compiler, 140 MiB and a second a process, and cannot leave out an
    update without asking the device first. The rate is a tensor, so that a captured step reads what was written last.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], optim: Optim):
        self.parameters, self.weight_decay = [p for p in parameters if p.requires_grad], optim.weight_decay
        device = self.parameters[0].device
        self.rate = torch.tensor(optim.lr, device=device)
        self.state = {name: [torch.zeros_like(p) for p in self.parameters] for name in ("mean", "square", *["largest_square"] * optim.amsgrad)}
        self.steps = [torch.zeros((), device=device) for _ in self.parameters]

    @torch.no_grad()
    def step(self, left_out: Tensor) -> None:
        """Update by the gradients, unless `left_out` (float32, on their device) is 1."""
        mean, square, *largest = (_rows(told) for told in self.state.values())
        adam(_rows(self.parameters), _rows(p.grad for p in self.parameters), mean, square, *(largest or [[]]), self.steps, fused=True, found_inf=left_out,
             amsgrad=bool(largest), beta1=0.9, beta2=0.999, lr=self.rate, weight_decay=self.weight_decay, eps=1e-8, maximize=False)

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {**self.state, "steps": self.steps}

    def load_state_dict(self, told: dict[str, Any]) -> None:
        """Raises ValueError where it is another optimiser's or another net's."""
        own = self.state_dict()
        if not isinstance(told, dict) or told.keys() != own.keys() or any([x.shape for x in told[k]] != [x.shape for x in own[k]] for k in own):
            raise ValueError("it is the state of another optimiser")
        for name, tensors in own.items():
            for mine, theirs in zip(tensors, told[name], strict=True):
                mine.copy_(theirs)


def build(optim: Optim, model: nn.Module) -> Adam:
    """Adam as in section 5.1.2; the authors' code adds weight decay 5e-4 and amsgrad."""
    return Adam(model.parameters(), optim)


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
